//! `beam serve`.

use super::{
    Congestion, DaemonArgs, Endpoint, PathArgs,
    values::{Size, duration},
};
use clap::{Args, ValueEnum};
use std::{path::PathBuf, time::Duration};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Retry {
    /// Stateless Retry while many handshakes are unvalidated
    Auto,
    Always,
    Off,
}

/// What a gateway does with requests that come before the handshake is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EarlyData {
    /// They are refused, and sent again after it
    Off,
    /// They are run under tickets that are used once, whatever happens; else as with off
    Safe,
    /// As safe, and tickets survive a crash, after which one may be used twice
    On,
}

/// The certificate that a server has from files.
#[derive(Clone, Debug, Args)]
pub(crate) struct CertificateArgs {
    /// PEM file with the certificate chain, leaf first
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "self_signed",
        env = "BEAM_TLS_CERT"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the leaf
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "BEAM_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to accept tunnels on: `host:port`, `[v6]:port`, `:port` or `*:port`
    #[arg(short = 'l', long, value_name = "[ADDR]:PORT", default_value = ":443", env = "BEAM_LISTEN")]
    pub(crate) listen: Endpoint,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    #[command(flatten)]
    pub(crate) certificate: CertificateArgs,
    /// Make a certificate at start (kept in --state-dir) and print its fingerprint for `--pin`
    #[arg(long, env = "BEAM_SELF_SIGNED")]
    pub(crate) self_signed: bool,
    /// Where the self-signed certificate, secrets and session tickets are kept
    #[arg(long, value_name = "DIR", default_value = crate::early::state::SYSTEM_DIRECTORY, env = "BEAM_STATE_DIR")]
    pub(crate) state_dir: PathBuf,
    /// PEM file with the authorities that client certificates are verified against
    #[arg(long, value_name = "FILE", env = "BEAM_CLIENT_CA")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Users file: a line `NAME sha256:HASH` each (see `beam user add`)
    #[arg(long, value_name = "FILE", env = "BEAM_USERS")]
    pub(crate) users: Option<PathBuf>,
    /// Destinations that clients may reach; nothing is, unless allowed. Private ranges open only when named
    #[arg(long, value_name = "CIDR[:PORTS]|NAME[:PORTS]", env = "BEAM_ALLOW", value_delimiter = ' ')]
    pub(crate) allow: Vec<String>,
    /// Destinations that are refused even where `--allow` matches
    #[arg(long, value_name = "CIDR[:PORTS]|NAME[:PORTS]", env = "BEAM_DENY", value_delimiter = ' ')]
    pub(crate) deny: Vec<String>,
    /// Ports that every client may listen on here (`connect -R`): of loopback, of ADDR, or of `*`; a client's own are in
    /// the users file (`listen=`)
    #[arg(long, value_name = "[ADDR:]PORTS", env = "BEAM_ALLOW_LISTEN", value_delimiter = ' ')]
    pub(crate) allow_listen: Vec<String>,
    /// Addresses to lend to clients that carry IP, one a session; the first is the gateway's own (repeatable)
    #[arg(long, value_name = "CIDR", env = "BEAM_IP_POOL", value_delimiter = ' ')]
    pub(crate) ip_pool: Vec<ip::Prefix>,
    /// Destinations that clients reach by IP packets; nothing is, unless named (repeatable)
    #[arg(long, value_name = "CIDR", env = "BEAM_IP_ROUTE", value_delimiter = ' ', requires = "ip_pool")]
    pub(crate) ip_route: Vec<ip::Prefix>,
    /// TUN device that clients' IP packets come out of
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_value = "beam0", default_missing_value = "beam0", env = "BEAM_TUN")]
    pub(crate) tun: String,
    /// Instead of a TUN device: clients' IP packets straight from and to the hosts on this interface, by AF_XDP. Those hosts
    /// need a route to the pool by an address of this interface: `ip route add POOL via ADDRESS`
    #[arg(long, value_name = "IF", env = "BEAM_LAN", requires = "ip_pool", conflicts_with = "tun")]
    pub(crate) lan: Option<String>,
    /// Connections held at once on each worker; more are refused
    #[arg(long, value_name = "N", default_value_t = 100_000, env = "BEAM_MAX_CONNECTIONS")]
    pub(crate) max_connections: usize,
    /// Resident memory above the UMEM from which on new connections are refused and the windows of others lowered, such as
    /// 512MiB
    #[arg(long, value_name = "SIZE", env = "BEAM_MEMORY_LIMIT")]
    pub(crate) memory_limit: Option<Size>,
    /// Sleeping tunnels remembered; beyond it the oldest of whoever has most is forgotten, and comes back as a new one
    #[arg(long, value_name = "N", default_value_t = 1_000_000, env = "BEAM_MAX_SLEEPING")]
    pub(crate) max_sleeping: usize,
    /// Stateless Retry for addresses that are not validated
    #[arg(long, value_enum, default_value = "auto", env = "BEAM_RETRY")]
    pub(crate) retry: Retry,
    /// Requests before the end of the handshake (0-RTT)
    #[arg(long = "0rtt", value_enum, default_value = "safe", env = "BEAM_0RTT")]
    pub(crate) early_data: EarlyData,
    /// A UDP flow without a datagram for so long is closed
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration, env = "BEAM_UDP_IDLE_TIMEOUT")]
    pub(crate) udp_idle_timeout: Duration,
    /// Congestion control
    #[arg(long, value_enum, default_value = "cubic", env = "BEAM_CC")]
    pub(crate) cc: Congestion,
    /// How long running flows may finish after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, env = "BEAM_DRAIN_TIMEOUT")]
    pub(crate) drain_timeout: Duration,
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
}
