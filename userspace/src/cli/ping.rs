//! `beam ping`.

use super::{GatewayArgs, PathArgs, values::duration};
use clap::Args;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
    /// Probes (default: until Ctrl-C)
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Between two probes; at least 10ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// One JSON object at the end instead of text
    #[arg(short = 'j', long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    /// What happens besides, on standard error; twice for more, three times for everything
    #[arg(short = 'v', long = "verbose", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// A gateway isn't to be flooded by a slip of the finger.
fn interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(10);
    let interval = duration(text)?;
    if interval < SHORTEST { Err(format!("`{text}` is less than 10ms")) } else { Ok(interval) }
}
