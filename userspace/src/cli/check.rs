//! `beam check`, `beam drain`, and what the package is made with.

use super::ControlArgs;
use clap::Args;
use std::{ffi::OsString, path::PathBuf};

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration file [default: what `beam serve` would read]
    #[arg(short = 'c', long, value_name = "FILE", env = "BEAM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(short = 'j', long)]
    pub(crate) json: bool,
    /// `serve` or `connect`, with the flags that it would be started with [default: each table of the file]
    #[arg(value_name = "VERB [FLAGS]", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) line: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Don't wait until it has stopped
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// One JSON object instead of text
    #[arg(short = 'j', long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where beam.1, beam-serve.1 and so on are written
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
