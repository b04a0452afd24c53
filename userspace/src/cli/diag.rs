//! `beam diag`.

use super::ControlArgs;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct DiagArgs {
    /// The archive, a tar file; `-` is standard output [default: beam-diag-SECONDS.tar here]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Interface for the doctor to look at, besides those of the daemon; may be given several times
    #[arg(short = 'i', long = "interface", value_name = "IF", value_delimiter = ' ')]
    pub(crate) interfaces: Vec<String>,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}
