//! Verbs that ask or order a running daemon, and the one that looks at the host.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = crate::control::DEFAULT_PATH, env = "BEAM_CONTROL")]
    pub(crate) control: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = crate::control::DEFAULT_PATH, env = "BEAM_CONTROL")]
    pub(crate) control: PathBuf,
    /// One JSON object instead of text
    #[arg(short = 'j', long)]
    pub(crate) json: bool,
    /// Repeat every SECS seconds; with --json one object a line
    #[arg(long, value_name = "SECS")]
    pub(crate) watch: Option<f64>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The table
    #[arg(value_enum)]
    pub(crate) noun: crate::show::Noun,
    /// Only rows whose column has this value, or begins so: `client=alice`, `to=198.19.*`
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<crate::show::Filter>,
    /// Rows at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = crate::show::ROWS_DEFAULT)]
    pub(crate) limit: usize,
    /// One JSON object instead of text
    #[arg(short = 'j', long)]
    pub(crate) json: bool,
    /// Repeat every SECS seconds; with --json one object a line
    #[arg(long, value_name = "SECS")]
    pub(crate) watch: Option<f64>,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClearArgs {
    #[arg(value_enum)]
    pub(crate) what: Clearable,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clearable {
    Counters,
}

#[derive(Debug, Args)]
pub(crate) struct KickArgs {
    /// The client's name, or the id of one of its tunnels (see `beam show tunnels`)
    #[arg(value_name = "CLIENT")]
    pub(crate) client: String,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Only these checks (default: all)
    #[arg(value_name = "CHECK", value_parser = crate::doctor::CHECKS)]
    pub(crate) checks: Vec<String>,
    // What beam is to be started with: the flags of `serve` and `connect`, environment and all.
    #[command(flatten)]
    pub(crate) path: super::PathArgs,
    /// The listener of `serve`: is its port free, is it ssh's?
    #[arg(short = 'l', long, value_name = "[ADDR]:PORT", env = "BEAM_LISTEN")]
    pub(crate) listen: Option<super::Endpoint>,
    /// The certificate of `serve`: is it valid?
    #[arg(long, value_name = "FILE", env = "BEAM_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// A client, or the gateway's URL: is there a way to it? A neighbour that isn't known is looked for by one empty
    /// datagram
    #[arg(long, value_name = "ADDRESS|URL", env = "BEAM_URL")]
    pub(crate) peer: Option<super::Peer>,
    /// One JSON object instead of text
    #[arg(short = 'j', long)]
    pub(crate) json: bool,
    /// A warning is a failure, too
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) fix: super::fix::FixArgs,
}
