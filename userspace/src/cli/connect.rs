//! `beam connect`.

use super::{DaemonArgs, Destination, Endpoint, Forward, GatewayArgs, PathArgs, values::duration};
use clap::Args;
use std::{path::PathBuf, time::Duration};

#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
    /// Carry connections (or UDP) to `[bind:]port` to `host:hostport` beyond the gateway
    #[arg(
        short = 'L',
        long = "local-forward",
        value_name = "[BIND:]PORT:HOST:HOSTPORT[/udp]",
        env = "BEAM_LOCAL_FORWARD",
        value_delimiter = ' '
    )]
    pub(crate) local_forwards: Vec<Forward>,
    /// Publish `host:hostport` of this side on `[bind:]port` of the gateway; it must permit that
    #[arg(
        short = 'R',
        long = "remote-forward",
        value_name = "[BIND:]PORT:HOST:HOSTPORT[/udp]",
        env = "BEAM_REMOTE_FORWARD",
        value_delimiter = ' '
    )]
    pub(crate) remote_forwards: Vec<Forward>,
    /// SOCKS5 proxy on `[bind:]port`, for TCP and UDP
    #[arg(short = 'D', long, value_name = "[BIND:]PORT", env = "BEAM_SOCKS", value_delimiter = ' ')]
    pub(crate) socks: Vec<Endpoint>,
    /// Carry standard input and output to `host:port` (for ssh's ProxyCommand)
    #[arg(
        short = 'W',
        long,
        value_name = "HOST:PORT",
        env = "BEAM_STDIO",
        conflicts_with_all = ["local_forwards", "remote_forwards", "socks"]
    )]
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
    /// A UDP flow without a datagram for so long is closed
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration, env = "BEAM_UDP_IDLE_TIMEOUT")]
    pub(crate) udp_idle_timeout: Duration,
    /// Where session tickets are kept, so that the next start asks at once (0-RTT) [default: /var/lib/beam for root,
    /// else beam in $XDG_STATE_HOME]
    #[arg(long, value_name = "DIR", env = "BEAM_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Send something at least this often, so that NAT bindings live
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = duration, env = "BEAM_KEEPALIVE")]
    pub(crate) keepalive: Duration,
    /// A tunnel without flows gives its connection up after so long, without a packet, and the next flow brings it back with
    /// its first packet. With flows it is lost after a silence of TIME and 2 s. Never with -R, --tun or --lan: `off`
    #[arg(long, value_name = "TIME|off", default_value = "60s", value_parser = sleep_after, env = "BEAM_SLEEP_AFTER")]
    pub(crate) sleep_after: SleepAfter,
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

/// When tunnels sleep; `None` is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SleepAfter(pub(crate) Option<Duration>);

fn sleep_after(text: &str) -> Result<SleepAfter, String> {
    if text == "off" {
        return Ok(SleepAfter(None));
    }
    let after = duration(text).map_err(|error| format!("{error}, or off"))?;
    let shortest = crate::worker::SHORTEST_SLEEP;
    if after < shortest {
        return Err(format!(
            "`{text}` is less than {}ms; to keep tunnels live, say off",
            shortest.as_millis()
        ));
    }
    Ok(SleepAfter(Some(after)))
}

impl ConnectArgs {
    /// Whether its tunnels may sleep, and when: not if something has to reach this end.
    pub(crate) fn habit(&self) -> Option<crate::worker::Habit> {
        let is_reached = !self.remote_forwards.is_empty() || self.tun.is_some() || self.lan.is_some();
        let after = self.sleep_after.0.filter(|_| !is_reached)?;
        Some(crate::worker::Habit::new(after, self.keepalive))
    }
}
