//! `beam top`.

use super::ControlArgs;
use clap::Args;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Only the workers of this interface
    #[arg(short = 'i', long = "interface", value_name = "IF")]
    pub(crate) interface: Option<String>,
    /// Seconds between two looks, 0.1 at least
    #[arg(short = 'd', long = "delay", value_name = "SECS", default_value = "1", value_parser = delay)]
    pub(crate) delay: Duration,
    /// One look as plain text, and no more
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

fn delay(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    if !(0.1..=3600.0).contains(&seconds) {
        return Err(format!("`{text}`: from 0.1 to 3600 seconds"));
    }
    Ok(Duration::from_secs_f64(seconds))
}
