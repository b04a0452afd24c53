//! What both daemons take: how packets enter and leave, the log, the control socket.

use super::{Endpoint, NumberList, Queues};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Which way packets enter and leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum XdpMode {
    /// The best that works; each step down is said aloud
    Auto,
    /// XDP in the driver, or refuse to start
    Native,
    /// Generic XDP, or refuse to start
    Skb,
    /// Kernel UDP sockets; needs no privilege
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ZeroCopy {
    Auto,
    /// Refuse to start without
    On,
    Off,
}

/// What the UMEM is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HugePages {
    /// Pages of 2 MiB where enough are free, else ordinary ones
    Auto,
    /// Ordinary pages
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Toggle {
    On,
    Off,
}

/// What a daemon gives up once it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// All capabilities, system calls and files that it needs no more, as far as the kernel has the means
    Auto,
    /// Nothing: for debuggers
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Congestion {
    Cubic,
    Bbr,
    Newreno,
}

/// Flags of the datapath, the same for both daemons.
#[derive(Clone, Debug, Args)]
pub(crate) struct PathArgs {
    /// Interface to attach to (AF_XDP); may be given several times
    #[arg(short = 'i', long = "interface", value_name = "IF", env = "BEAM_INTERFACE", value_delimiter = ' ')]
    pub(crate) interfaces: Vec<String>,
    /// How packets enter and leave
    #[arg(long, value_enum, default_value = "auto", env = "BEAM_XDP")]
    pub(crate) xdp: XdpMode,
    /// Zero-copy AF_XDP: auto takes it where the driver has it
    #[arg(long, value_enum, default_value = "auto", env = "BEAM_ZERO_COPY")]
    pub(crate) zero_copy: ZeroCopy,
    /// NIC queues to serve: `all`, or a list such as 0-3 or 0,2
    #[arg(long, default_value = "all", env = "BEAM_QUEUES")]
    pub(crate) queues: Queues,
    /// CPUs to pin workers to, as a kernel CPU list (2-5 or 0,2); default: one after the other
    #[arg(long, value_name = "LIST", env = "BEAM_CPUS")]
    pub(crate) cpus: Option<NumberList>,
    /// Descriptors in each AF_XDP ring (a power of two)
    #[arg(long, value_name = "N", default_value_t = 2048, env = "BEAM_RING_SIZE")]
    pub(crate) ring_size: u32,
    /// Bytes in each UMEM frame: 2048 or 4096
    #[arg(long, value_name = "BYTES", default_value_t = 4096, env = "BEAM_FRAME_SIZE")]
    pub(crate) frame_size: u32,
    /// UMEM for each queue, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 24, env = "BEAM_UMEM")]
    pub(crate) umem: u32,
    /// Huge pages for the UMEM
    #[arg(long, value_enum, default_value = "off", env = "BEAM_HUGEPAGES")]
    pub(crate) hugepages: HugePages,
    /// Packet protection: the vector units to use
    #[arg(long, value_enum, default_value = "auto", env = "BEAM_SIMD")]
    pub(crate) simd: crate::protection::Simd,
    /// Busy-poll the NIC, this many microseconds a call; workers never sleep then (0: they sleep in epoll)
    #[arg(long, value_name = "USEC", default_value_t = 0, env = "BEAM_BUSY_POLL")]
    pub(crate) busy_poll: u32,
}

/// Flags of alerts, the same for both daemons.
#[derive(Clone, Debug, Args)]
pub(crate) struct AlertArgs {
    /// Alert when this holds: `NAME OP VALUE for DURATION`, such as "latency_p95 > 1ms for 30s" (repeatable). It takes the
    /// place of the default for NAME; `none` drops all defaults
    #[arg(long = "alert", value_name = "RULE", env = "BEAM_ALERT", value_delimiter = ',')]
    pub(crate) rules: Vec<String>,
    /// POST each alert to this URL as JSON
    #[arg(long = "alert-webhook", value_name = "URL", env = "BEAM_ALERT_WEBHOOK", hide_env_values = true)]
    pub(crate) webhook: Option<String>,
    /// Run this for each alert, without arguments; the facts are in its environment (BEAM_ALERT_*)
    #[arg(long = "alert-exec", value_name = "PROGRAM", env = "BEAM_ALERT_EXEC")]
    pub(crate) program: Option<PathBuf>,
}

/// Flags of the log and the control socket, the same for both daemons.
#[derive(Clone, Debug, Args)]
pub(crate) struct DaemonArgs {
    /// TOML file with the same flags: `beam check` shows what comes of it
    #[arg(short = 'c', long, value_name = "FILE", env = "BEAM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", env = "BEAM_CONTROL")]
    pub(crate) control: Option<PathBuf>,
    /// Serve metrics for Prometheus, /healthz and /readyz over HTTP; loopback unless an address is given (0.0.0.0:9090)
    #[arg(long, value_name = "ADDR", env = "BEAM_METRICS")]
    pub(crate) metrics: Option<Endpoint>,
    /// Capabilities, system calls (seccomp) and files (landlock) that are given up after the start
    #[arg(long, value_enum, default_value = "auto", env = "BEAM_SANDBOX")]
    pub(crate) sandbox: Sandbox,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// Whether `beam capture --keylog` may have TLS secrets: root, and the user that the daemon runs as
    #[arg(long, value_enum, default_value = "on", env = "BEAM_CAPTURE_KEYLOG")]
    pub(crate) capture_keylog: Toggle,
    #[command(flatten)]
    pub(crate) alerts: AlertArgs,
}

/// Flags of the log, the same for all that run until they are told to end.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LogArgs {
    /// Log as text or as one JSON object a line
    #[arg(long, value_enum, default_value = "text", env = "BEAM_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// More log; twice for everything
    #[arg(short = 'v', long = "verbose", action = clap::ArgAction::Count, env = "BEAM_VERBOSE")]
    pub(crate) verbose: u8,
}
