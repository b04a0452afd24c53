//! Completions and manual pages, made from the command line's own definition. The package carries both.

use crate::{
    cli::{Cli, CompletionsArgs, ManArgs},
    failure::Failure,
};
use anyhow::Context as _;
use clap::CommandFactory as _;
use std::{fs, io::Write as _};

/// `beam completions SHELL`.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "beam", &mut text);
    // Nobody may be there to read it.
    let _ = std::io::stdout().write_all(&text);
    Ok(())
}

/// `beam man DIR`: a page for beam, and one for each verb.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let directory = &args.directory;
    let made = || {
        fs::create_dir_all(directory)?;
        // `beam help` and its copies of every verb are no pages.
        clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)
    };
    let made = made().with_context(|| format!("can't write manual pages to {}", directory.display()));
    made.map_err(Failure::Runtime)
}
