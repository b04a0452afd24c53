//! `beam bench`: load over the same engine and the same ports as tunnels, and what comes of it. iperf3's letters where it
//! has one.

use super::{
    CertificateArgs, Congestion, EarlyData, Endpoint, GatewayArgs, LogArgs, PathArgs, Rfc2544Args, Sandbox,
    scale::{rate, size},
    values::duration,
};
use crate::worker::bench::{DatagramsAre, Handshake};
use clap::{ArgGroup, Args, Subcommand};
use std::{path::PathBuf, str::FromStr, time::Duration};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) verb: BenchVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchVerb {
    /// Answer measurements (QUIC, ALPN perf): an open server, for networks of your own
    Serve(Box<BenchServeArgs>),
    /// Measure a server that speaks ALPN perf: `beam bench serve`, or another stack's
    Run(Box<BenchRunArgs>),
    /// Measure a device between two interfaces of this host: no-drop and partial-drop rate by frame size, and latency
    Rfc2544(Box<Rfc2544Args>),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BenchServeArgs {
    /// Address to answer on; loopback unless an address is given (`*:4433` for all)
    #[arg(short = 'l', long, value_name = "[ADDR]:PORT", default_value = ":4433", env = "BEAM_LISTEN")]
    pub(crate) listen: Endpoint,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    #[command(flatten)]
    pub(crate) certificate: CertificateArgs,
    /// Make a certificate for this run and print its fingerprint for `--pin`
    #[arg(long, env = "BEAM_SELF_SIGNED")]
    pub(crate) self_signed: bool,
    /// Only clients with a certificate of these authorities (PEM)
    #[arg(long, value_name = "FILE", env = "BEAM_CLIENT_CA")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Requests before the end of the handshake (0-RTT)
    #[arg(long = "0rtt", value_enum, default_value = "safe", env = "BEAM_0RTT")]
    pub(crate) early_data: EarlyData,
    /// Datagrams
    #[arg(long, value_enum, default_value = "echo", env = "BEAM_DATAGRAMS")]
    pub(crate) datagrams: DatagramsAre,
    /// Connections held at once on each worker; more are refused
    #[arg(long, value_name = "N", default_value_t = 1000, env = "BEAM_MAX_CONNECTIONS")]
    pub(crate) max_connections: usize,
    /// Congestion control
    #[arg(long, value_enum, default_value = "cubic", env = "BEAM_CC")]
    pub(crate) cc: Congestion,
    /// How long running streams may finish after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration, env = "BEAM_DRAIN_TIMEOUT")]
    pub(crate) drain_timeout: Duration,
    /// Control socket, for `beam status` and the CPU time in `beam bench run --server-control`
    #[arg(long, value_name = "PATH", env = "BEAM_CONTROL")]
    pub(crate) control: Option<PathBuf>,
    /// Serve metrics for Prometheus over HTTP; loopback unless an address is given
    #[arg(long, value_name = "ADDR", env = "BEAM_METRICS")]
    pub(crate) metrics: Option<Endpoint>,
    /// Capabilities, system calls and files that are given up after the start
    #[arg(long, value_enum, default_value = "auto", env = "BEAM_SANDBOX")]
    pub(crate) sandbox: Sandbox,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("test").args(["rps", "hps", "datagrams", "latency"]))]
pub(crate) struct BenchRunArgs {
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
    /// The server sends [default: this end does]
    #[arg(short = 'R', long)]
    pub(crate) reverse: bool,
    /// Both send
    #[arg(long, conflicts_with = "reverse")]
    pub(crate) bidir: bool,
    /// Streams at once on each connection; handshakes at once
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) parallel: u32,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// How long each run counts
    #[arg(short = 't', long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) time: Duration,
    /// Warm-up before it, which doesn't count
    #[arg(short = 'O', long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) omit: Duration,
    /// Instead of --time: until so many streams, requests, handshakes or datagrams are done
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "time", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Bytes of each stream, answer or datagram, such as 64K [default: streams without end, answers of 1000, datagrams
    /// of 1000, latency and 0-RTT of 1]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(crate) size: Option<u64>,
    /// Requests a second, by the clock (0: as many as go, --parallel at once)
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) rps: Option<f64>,
    /// Handshakes a second, by the clock (0: as many as go, --parallel at once)
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) hps: Option<f64>,
    /// What each handshake begins with
    #[arg(long, value_enum, default_value = "full", requires = "hps")]
    pub(crate) handshake: Handshake,
    /// Unreliable datagrams, which the server sends back
    #[arg(long)]
    pub(crate) datagrams: bool,
    /// Bits a second of datagrams, such as 100M (0: as many as go)
    #[arg(short = 'b', long, value_name = "RATE", default_value = "1M", value_parser = rate, requires = "datagrams")]
    pub(crate) bitrate: f64,
    /// Latency of small requests, while nothing else happens
    #[arg(long)]
    pub(crate) latency: bool,
    /// And under this load: a part of the throughput found first (50%), or bits a second (200M)
    #[arg(long, value_name = "PERCENT|RATE", requires = "latency")]
    pub(crate) load: Option<LoadShare>,
    /// Runs of each test; the median, the lowest and the highest are told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// One short run without warm-up: does it work?
    #[arg(long, conflicts_with_all = ["time", "omit", "runs"])]
    pub(crate) quick: bool,
    /// One JSON object instead of text
    #[arg(short = 'J', long, visible_short_alias = 'j')]
    pub(crate) json: bool,
    /// Control socket of a server on this host: its CPU time is told, too
    #[arg(long, value_name = "PATH")]
    pub(crate) server_control: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    /// What happens besides, on standard error; twice for more
    #[arg(short = 'v', long = "verbose", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// `--load`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LoadShare {
    /// Of the throughput found, from 0 to 1.
    Share(f64),
    BitsPerSecond(f64),
}

impl FromStr for LoadShare {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else {
            let bits = rate(text)?;
            return if bits > 0.0 {
                Ok(Self::BitsPerSecond(bits))
            } else {
                Err("a load of 0 is none".to_owned())
            };
        };
        match percent.parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Share(percent / 100.0)),
            _ => Err(format!("`{text}` is not a part such as 50%")),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: sizes, rates and shares are read as iperf3 reads them, and nonsense is refused.
    use super::*;

    #[test]
    fn sizes_rates_and_shares() {
        assert_eq!((size("1000"), size("64K"), size("1.5M")), (Ok(1000), Ok(65_536), Ok(1_572_864)));
        assert_eq!((rate("0"), rate("2.5k"), rate("1G")), (Ok(0.0), Ok(2500.0), Ok(1e9)));
        for wrong in ["", "K", "-1", "1X", "nan", "inf", "1e400"] {
            assert!(size(wrong).is_err() && rate(wrong).is_err(), "{wrong}");
        }
        assert!(size("2000000T").is_err());
        assert_eq!("50%".parse(), Ok(LoadShare::Share(0.5)));
        assert_eq!("200M".parse(), Ok(LoadShare::BitsPerSecond(2e8)));
        for wrong in ["0%", "101%", "x%", "0", "many"] {
            assert!(wrong.parse::<LoadShare>().is_err(), "{wrong}");
        }
    }
}
