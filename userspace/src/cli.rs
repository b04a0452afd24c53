//! The command line. Every long flag also reads an environment variable `BEAM_*`.

mod address;
mod connect;
mod daemon;
mod operate;
mod serve;
mod user;
mod values;

pub(crate) use address::{Destination, Endpoint, Forward, GatewayUrl, Protocol};
pub(crate) use connect::ConnectArgs;
pub(crate) use daemon::{Congestion, DaemonArgs, LogFormat, PathArgs, Sandbox, XdpMode, ZeroCopy};
pub(crate) use operate::{ClearArgs, Clearable, ControlArgs, DoctorArgs, KickArgs, ShowArgs, StatusArgs};
pub(crate) use serve::{EarlyData, Retry, ServeArgs};
pub(crate) use user::{UserArgs, UserVerb};
pub(crate) use values::{NumberList, Queues};

use clap::{Parser, Subcommand};

/// A kernel-bypass QUIC tunnel appliance: MASQUE over HTTP/3, AF_XDP underneath.
#[derive(Debug, Parser)]
#[command(name = "beam", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a gateway: accept tunnels and connect their flows to upstreams
    Serve(Box<ServeArgs>),
    /// Open a tunnel to a gateway and carry local ports through it
    Connect(Box<ConnectArgs>),
    /// Show what a running daemon does
    Status(StatusArgs),
    /// Show a table of a running daemon
    Show(ShowArgs),
    /// Count from zero again in `beam show errors` and `beam show clients`
    Clear(ClearArgs),
    /// Have a running gateway read its users file and certificates again, as SIGHUP does
    Reload(ControlArgs),
    /// Close a client's connections to a running gateway
    Kick(KickArgs),
    /// Manage the users file of a gateway
    User(UserArgs),
    /// Look at this host, and say what is amiss and what mends it
    Doctor(DoctorArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
