//! `beam detach`.

use clap::Args;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("where").required(true).multiple(true))]
pub(crate) struct DetachArgs {
    /// Interface to take beam's program off; may be given several times
    #[arg(short = 'i', long = "interface", value_name = "IF", group = "where", value_delimiter = ' ')]
    pub(crate) interfaces: Vec<String>,
    /// Every interface that has one
    #[arg(long, group = "where", conflicts_with = "interfaces")]
    pub(crate) all: bool,
    /// Also while a running beam uses it, which then carries on by kernel UDP sockets
    #[arg(long)]
    pub(crate) force: bool,
}
