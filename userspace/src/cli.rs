//! The command line. Every long flag also reads an environment variable `BEAM_*`.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Congestion {
    Cubic,
    Bbr,
    Newreno,
}

/// Flags of the datapath, the same for both daemons.
#[derive(Debug, Args)]
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
    /// Packet protection: the vector units to use
    #[arg(long, value_enum, default_value = "auto", env = "BEAM_SIMD")]
    pub(crate) simd: crate::protection::Simd,
    /// Busy-poll the NIC, this many microseconds a call; workers never sleep then (0: they sleep in epoll)
    #[arg(long, value_name = "USEC", default_value_t = 0, env = "BEAM_BUSY_POLL")]
    pub(crate) busy_poll: u32,
}

/// Flags of the log and the control socket, the same for both daemons.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", env = "BEAM_CONTROL")]
    pub(crate) control: Option<PathBuf>,
    /// Log as text or as one JSON object a line
    #[arg(long, value_enum, default_value = "text", env = "BEAM_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// More log; twice for everything
    #[arg(short = 'v', long = "verbose", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to accept tunnels on: `host:port`, `[v6]:port`, `:port` or `*:port`
    #[arg(short = 'l', long, value_name = "[ADDR]:PORT", default_value = ":443", env = "BEAM_LISTEN")]
    pub(crate) listen: Endpoint,
    #[command(flatten)]
    pub(crate) path: PathArgs,
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

#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The gateway: `https://HOST[:PORT]`
    #[arg(value_name = "URL", env = "BEAM_URL")]
    pub(crate) url: GatewayUrl,
    /// Carry connections (or UDP) to `[bind:]port` to `host:hostport` beyond the gateway
    #[arg(
        short = 'L',
        value_name = "[BIND:]PORT:HOST:HOSTPORT[/udp]",
        env = "BEAM_LOCAL_FORWARD",
        value_delimiter = ' '
    )]
    pub(crate) local_forwards: Vec<Forward>,
    /// Publish `host:hostport` of this side on `[bind:]port` of the gateway; it must permit that
    #[arg(
        short = 'R',
        value_name = "[BIND:]PORT:HOST:HOSTPORT[/udp]",
        env = "BEAM_REMOTE_FORWARD",
        value_delimiter = ' '
    )]
    pub(crate) remote_forwards: Vec<Forward>,
    /// SOCKS5 proxy on `[bind:]port`, for TCP and UDP
    #[arg(short = 'D', value_name = "[BIND:]PORT", env = "BEAM_SOCKS", value_delimiter = ' ')]
    pub(crate) socks: Vec<Endpoint>,
    /// Carry standard input and output to `host:port` (for ssh's ProxyCommand)
    #[arg(short = 'W', value_name = "HOST:PORT", conflicts_with_all = ["local_forwards", "remote_forwards", "socks"])]
    pub(crate) stdio: Option<Destination>,
    /// Carry IP packets: a TUN device, with an address that the gateway assigns
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "beam0", env = "BEAM_TUN", group = "network")]
    pub(crate) tun: Option<String>,
    /// Carry IP packets of the hosts on this interface, by AF_XDP, site to site: their network is named by `--announce`.
    /// They need routes by an address of this interface: `ip route add FAR-NETWORK via ADDRESS`
    #[arg(long, value_name = "IF", env = "BEAM_LAN", group = "network", requires = "announce")]
    pub(crate) lan: Option<String>,
    /// Destinations to send through the TUN device or from the LAN; default: all that the gateway advertises (repeatable)
    #[arg(long, value_name = "CIDR", env = "BEAM_ROUTE", value_delimiter = ' ', requires = "network")]
    pub(crate) route: Vec<ip::Prefix>,
    /// Networks on this side that the gateway may send to; its users file has to permit them (repeatable)
    #[arg(long, value_name = "CIDR", env = "BEAM_ANNOUNCE", value_delimiter = ' ', requires = "network")]
    pub(crate) announce: Vec<ip::Prefix>,
    /// File that holds the bearer token
    #[arg(long, value_name = "FILE", env = "BEAM_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file with the client certificate chain
    #[arg(long, value_name = "FILE", requires = "key", env = "BEAM_CERT")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM file with the client certificate's key
    #[arg(long, value_name = "FILE", requires = "cert", env = "BEAM_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// Accept only the gateway certificate with this SHA-256 fingerprint
    #[arg(long, value_name = "sha256:HEX", conflicts_with_all = ["ca", "insecure"], env = "BEAM_PIN")]
    pub(crate) pin: Option<String>,
    /// PEM file with the authorities to verify the gateway against, instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure", env = "BEAM_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Do not verify the gateway's certificate
    #[arg(long, env = "BEAM_INSECURE")]
    pub(crate) insecure: bool,
    /// A UDP flow without a datagram for so long is closed
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration, env = "BEAM_UDP_IDLE_TIMEOUT")]
    pub(crate) udp_idle_timeout: Duration,
    /// Congestion control
    #[arg(long, value_enum, default_value = "cubic", env = "BEAM_CC")]
    pub(crate) cc: Congestion,
    /// Where session tickets are kept, so that the next start asks at once (0-RTT) [default: /var/lib/beam for root,
    /// else beam in $XDG_STATE_HOME]
    #[arg(long, value_name = "DIR", env = "BEAM_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Send something at least this often, so that NAT bindings live
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = duration, env = "BEAM_KEEPALIVE")]
    pub(crate) keepalive: Duration,
    /// Attempts to reconnect before giving up (default: for ever)
    #[arg(long, value_name = "N", env = "BEAM_MAX_RETRIES")]
    pub(crate) max_retries: Option<u32>,
    /// The longest pause between two attempts
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, env = "BEAM_MAX_RETRY_INTERVAL")]
    pub(crate) max_retry_interval: Duration,
    /// QUIC connections to the gateway; new flows go to the least loaded, and each may have a gateway core of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16), env = "BEAM_POOL")]
    pub(crate) pool: u8,
    /// Try once: exit when the gateway can't be reached or the tunnel ends
    #[arg(long, env = "BEAM_ONCE")]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
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
pub(crate) struct ControlArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = crate::control::DEFAULT_PATH, env = "BEAM_CONTROL")]
    pub(crate) control: PathBuf,
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
    /// The packet protection that is to run, as for `serve`
    #[arg(long, value_enum, default_value = "auto", env = "BEAM_SIMD")]
    pub(crate) simd: crate::protection::Simd,
    /// One JSON object instead of text
    #[arg(short = 'j', long)]
    pub(crate) json: bool,
    /// A warning is a failure, too
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    pub(crate) verb: UserVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// Add a user: writes the token's hash to the users file and prints the token once
    Add {
        name: String,
        /// The users file
        #[arg(long, value_name = "FILE", env = "BEAM_USERS")]
        users: PathBuf,
        /// The client comes with a certificate of this name; no token is made
        #[arg(long)]
        cert: bool,
        #[command(flatten)]
        policy: UserPolicyArgs,
    },
    /// Remove a user
    Rm {
        name: String,
        /// The users file
        #[arg(long, value_name = "FILE", env = "BEAM_USERS")]
        users: PathBuf,
    },
    /// List the users and what they may do
    List {
        /// The users file
        #[arg(long, value_name = "FILE", env = "BEAM_USERS")]
        users: PathBuf,
    },
}

/// What a user may do, as it is kept in the users file.
#[derive(Debug, Args)]
pub(crate) struct UserPolicyArgs {
    /// Flows at once; more are refused
    #[arg(long, value_name = "N")]
    pub(crate) max_flows: Option<String>,
    /// Bits a second of payload, in each direction, such as 50M
    #[arg(long, value_name = "RATE")]
    pub(crate) max_rate: Option<String>,
    /// QUIC connections at once; more are refused
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<String>,
    /// Narrows the gateway's --allow for this user: both must match. Of IP packets (CONNECT-IP) it narrows --ip-route,
    /// by its CIDRs without ports: what names a name or ports opens nothing there
    #[arg(long, value_name = "CIDR[:PORTS]|NAME[:PORTS]")]
    pub(crate) allow: Vec<String>,
    /// Ports that the user may publish on the gateway (-R); without an address, of loopback
    #[arg(long, value_name = "[ADDR:]PORTS")]
    pub(crate) listen: Vec<String>,
    /// Prefixes that the user may announce by CONNECT-IP
    #[arg(long, value_name = "CIDR")]
    pub(crate) routes: Vec<String>,
}

impl UserPolicyArgs {
    /// The options of the users file.
    pub(crate) fn words(&self) -> Vec<String> {
        let Self { max_flows, max_rate, max_connections, allow, listen, routes } = self;
        let keyed: [(&str, &mut dyn Iterator<Item = &String>); 6] = [
            ("max-flows", &mut max_flows.iter()),
            ("max-rate", &mut max_rate.iter()),
            ("max-connections", &mut max_connections.iter()),
            ("allow", &mut allow.iter()),
            ("listen", &mut listen.iter()),
            ("routes", &mut routes.iter()),
        ];
        keyed
            .into_iter()
            .flat_map(|(key, values)| values.map(move |value| format!("{key}={value}")))
            .collect()
    }
}

/// `host:port`, `[v6]:port`, `:port`, `*:port` or a bare port; no host means "not said".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
}

impl Endpoint {
    /// Resolves the host; `unsaid` stands in for a missing one.
    pub(crate) fn resolve(&self, unsaid: std::net::IpAddr) -> anyhow::Result<SocketAddr> {
        use std::net::ToSocketAddrs;
        let Some(host) = &self.host else { return Ok(SocketAddr::new(unsaid, self.port)) };
        (host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|e| {
                anyhow::anyhow!("address `{host}:{}` does not resolve: {e}; give an IP address", self.port)
            })?
            .next()
            .ok_or_else(|| anyhow::anyhow!("address `{host}` resolves to nothing; give an IP address"))
    }
}

impl FromStr for Endpoint {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (unbracket(host), port),
            None => ("", text),
        };
        let port = parse_port(port)?;
        let host = (!host.is_empty() && host != "*").then(|| host.to_owned());
        Ok(Self { host, port })
    }
}

/// `host:port` of a destination beyond the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Destination {
    /// As `:authority` wants it: IPv6 addresses in brackets.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Destination {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("`{text}` is not HOST:PORT"))?;
        let host = unbracket(host);
        if host.is_empty() {
            return Err(format!("`{text}` names no host; the form is HOST:PORT"));
        }
        Ok(Self { host: host.to_owned(), port: parse_port(port)? })
    }
}

/// What a forwarded port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// `-L [bind:]port:host:hostport[/udp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) protocol: Protocol,
    pub(crate) listen: Endpoint,
    pub(crate) to: Destination,
}

impl FromStr for Forward {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "the form is [BIND:]PORT:HOST:HOSTPORT[/udp], IPv6 addresses in brackets";
        let (body, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((body, "tcp")) => (body, Protocol::Tcp),
            Some((body, "udp")) => (body, Protocol::Udp),
            Some((_, other)) => return Err(format!("protocol `{other}` of `{text}`: use tcp or udp")),
        };
        let parts = split_outside_brackets(body);
        let (bind, port, host, hostport) = match parts.as_slice() {
            [port, host, hostport] => (None, port, host, hostport),
            [bind, port, host, hostport] => (Some(*bind), port, host, hostport),
            _ => return Err(format!("`{text}`: {FORM}")),
        };
        let bind = bind.map(unbracket).filter(|bind| !bind.is_empty()).map(|bind| match bind {
            "*" => "0.0.0.0".to_owned(),
            other => other.to_owned(),
        });
        let host = unbracket(host);
        if host.is_empty() {
            return Err(format!("`{text}` names no host; {FORM}"));
        }
        Ok(Self {
            protocol,
            listen: Endpoint { host: bind, port: parse_port(port)? },
            to: Destination { host: host.to_owned(), port: parse_port(hostport)? },
        })
    }
}

/// `https://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatewayUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for GatewayUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "the form is https://HOST[:PORT]";
        let rest = text.strip_prefix("https://").ok_or_else(|| format!("`{text}`: {FORM}"))?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if !rest[authority.len()..].trim_start_matches('/').is_empty() {
            return Err(format!("`{text}` has a path; {FORM}"));
        }
        let has_port = authority.rfind(':').is_some_and(|colon| !authority[colon..].contains(']'));
        let destination = if has_port { authority.to_owned() } else { format!("{authority}:443") };
        let Destination { host, port } = destination.parse().map_err(|e| format!("{e}; {FORM}"))?;
        Ok(Self { host, port })
    }
}

/// `all`, or a list of queue numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Queues {
    All,
    List(Vec<u32>),
}

impl FromStr for Queues {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" { Ok(Self::All) } else { text.parse::<NumberList>().map(|list| Self::List(list.0)) }
    }
}

/// A list such as `0-3,8` (the kernel's CPU list syntax).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NumberList(pub(crate) Vec<u32>);

impl FromStr for NumberList {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const LENGTH_MAX: u32 = 1024;
        let mut list = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |s: &str| {
                s.trim().parse::<u32>().map_err(|_| format!("`{text}` is not a list such as 0-3 or 0,2"))
            };
            let (first, last) = (number(first)?, number(last)?);
            if last < first || last - first >= LENGTH_MAX {
                return Err(format!("range `{part}` runs backwards or is longer than {LENGTH_MAX}"));
            }
            list.extend(first..=last);
        }
        list.sort_unstable();
        list.dedup();
        Ok(Self(list))
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse::<u16>().map_err(|_| format!("`{text}` is not a port (0 to 65535)"))
}

fn unbracket(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ':' && depth == 0
    })
    .collect()
}

/// `250ms`, `30s`, `5m`, `1h`, or a bare number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("`{text}` is not a time such as 250ms, 30s or 5m"))?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        unit => return Err(format!("unit `{unit}` of `{text}`: use ms, s, m or h")),
    };
    const LONGEST_MS: u64 = 365 * 24 * 3_600_000;
    milliseconds
        .filter(|&ms| ms <= LONGEST_MS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long"))
}

#[cfg(test)]
mod tests {
    //! Goal: the forms that the contract names parse to what they say, and others are refused with a reason.
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn endpoints() {
        let e = |s: &str| s.parse::<Endpoint>().map(|e| (e.host, e.port));
        assert_eq!(e(":443"), Ok((None, 443)));
        assert_eq!(e("*:443"), Ok((None, 443)));
        assert_eq!(e("1080"), Ok((None, 1080)));
        assert_eq!(e("[::1]:443"), Ok((Some("::1".into()), 443)));
        assert_eq!(e("198.18.0.1:8443"), Ok((Some("198.18.0.1".into()), 8443)));
        assert!(e("host:99999").is_err());
    }

    #[test]
    fn forwards() {
        let f = |s: &str| s.parse::<Forward>();
        let plain = f("8080:web.example:80").unwrap();
        assert_eq!((plain.listen.host, plain.listen.port), (None, 8080));
        assert_eq!(plain.to.authority(), "web.example:80");
        let six = f("[::1]:8080:[2001:db8::5]:443").unwrap();
        assert_eq!(six.listen.host.as_deref(), Some("::1"));
        assert_eq!(six.to.authority(), "[2001:db8::5]:443");
        assert_eq!(f("*:1:h:2").unwrap().listen.host.as_deref(), Some("0.0.0.0"));
        assert_eq!(f("5353:[2001:db8::5]:53/udp").map(|f| (f.protocol, f.to.port)), Ok((Protocol::Udp, 53)));
        assert_eq!(f("1:h:2/tcp").map(|f| f.protocol), Ok(plain.protocol));
        assert!(f("1:h:2/sctp").is_err());
        assert!(f("8080:web.example").is_err());
        assert!(f("8080::80").is_err());
    }

    #[test]
    fn urls() {
        let u = |s: &str| s.parse::<GatewayUrl>().map(|u| (u.host, u.port));
        assert_eq!(u("https://gw.example"), Ok(("gw.example".into(), 443)));
        assert_eq!(u("https://gw.example:8443/"), Ok(("gw.example".into(), 8443)));
        assert_eq!(u("https://[2001:db8::1]"), Ok(("2001:db8::1".into(), 443)));
        assert!(u("http://gw.example").is_err());
        assert!(u("https://gw.example/path").is_err());
        assert!(u("https://").is_err());
    }

    #[test]
    fn lists_and_times() {
        assert_eq!("0-2,5".parse::<NumberList>().unwrap().0, [0, 1, 2, 5]);
        assert!("3-1".parse::<NumberList>().is_err());
        assert!("0-4294967295".parse::<NumberList>().is_err());
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("5 parsecs").is_err());
        assert!(duration("99999999999999999h").is_err());
    }
}
