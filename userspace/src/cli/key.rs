//! `beam key`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Make a private key (ECDSA P-256) and print it
    Gen {
        /// Write it to this new file instead, for its owner alone (0600)
        #[arg(short = 'o', long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print what a gateway knows a private key by (for `beam user add --key`)
    Pub {
        /// The private key; standard input without
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Say what is in a file of keys, certificates or a token, and who may read it
    Show {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// One JSON object instead of text
        #[arg(short = 'j', long)]
        json: bool,
    },
}
