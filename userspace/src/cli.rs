//! The command line. Every flag of a daemon also reads an environment variable `BEAM_*` and a key of the configuration file.

mod address;
mod bench;
mod capture;
mod check;
mod connect;
mod daemon;
mod detach;
mod diag;
mod enroll;
mod fix;
mod gateway;
mod key;
mod operate;
mod ping;
mod pktgen;
mod rfc2544;
mod scale;
mod serve;
mod top;
mod user;
mod values;

pub(crate) use self::pktgen::PktgenArgs;
pub(crate) use address::{Destination, Endpoint, Forward, GatewayUrl, Peer, Protocol};
pub(crate) use bench::{BenchArgs, BenchRunArgs, BenchServeArgs, BenchVerb, LoadShare};
pub(crate) use capture::CaptureArgs;
pub(crate) use check::{CheckArgs, CompletionsArgs, DrainArgs, ManArgs};
pub(crate) use connect::ConnectArgs;
pub(crate) use daemon::{
    AlertArgs, Congestion, DaemonArgs, HugePages, LogArgs, LogFormat, PathArgs, Sandbox, Toggle, XdpMode,
    ZeroCopy,
};
pub(crate) use detach::DetachArgs;
pub(crate) use diag::DiagArgs;
pub(crate) use enroll::{EnrolArgs, EnrolFormat};
pub(crate) use gateway::GatewayArgs;
pub(crate) use key::{KeyArgs, KeyVerb};
pub(crate) use operate::{ClearArgs, Clearable, ControlArgs, DoctorArgs, KickArgs, ShowArgs, StatusArgs};
pub(crate) use ping::PingArgs;
#[cfg(test)]
pub(crate) use rfc2544::tests as tests_of_rfc2544;
pub(crate) use rfc2544::{FrameSize, Rfc2544Args};
pub(crate) use serve::{CertificateArgs, EarlyData, Retry, ServeArgs};
pub(crate) use top::TopArgs;
pub(crate) use user::{UserArgs, UserVerb};
pub(crate) use values::{NumberList, Queues, Size, duration};

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
    /// Watch a running daemon: workers, clients, tunnels and drops, each second
    Top(TopArgs),
    /// Count from zero again in `beam show errors` and `beam show clients`
    Clear(ClearArgs),
    /// Have a running daemon read its configuration, users file and certificates again, as SIGHUP does
    Reload(ControlArgs),
    /// Close a client's connections to a running gateway
    Kick(KickArgs),
    /// Record packets of a running daemon for Wireshark, or print them
    Capture(CaptureArgs),
    /// Manage the users file of a gateway
    User(UserArgs),
    /// Measure a tunnel to a gateway: round trips, loss, path MTU, 0-RTT
    Ping(Box<PingArgs>),
    /// Send made-up packets out of an interface of yours: UDP, or floods that look like QUIC
    Pktgen(Box<PktgenArgs>),
    /// Measure throughput, requests, handshakes and latency over the path that tunnels take
    Bench(BenchArgs),
    /// Add a user to the gateway on this host, and print what its client pastes
    #[command(name = "enroll", visible_alias = "enrol")]
    Enrol(EnrolArgs),
    /// Make a key that a gateway knows a client by, or look into key, certificate and token files
    Key(KeyArgs),
    /// Look at this host, and say what is amiss and what mends it
    Doctor(DoctorArgs),
    /// Take beam's XDP programs off interfaces, after a crash
    Detach(DetachArgs),
    /// Collect what somebody needs to find out what is wrong, without secrets, in one archive
    Diag(DiagArgs),
    /// Show the configuration that a daemon would have, with where each value comes from, and what is wrong with it
    Check(CheckArgs),
    /// Have a running daemon finish its flows, refuse new ones, and stop, as SIGTERM does
    Drain(DrainArgs),
    /// Print a shell's completions
    Completions(CompletionsArgs),
    /// Write the manual pages
    #[command(hide = true)]
    Man(ManArgs),
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
