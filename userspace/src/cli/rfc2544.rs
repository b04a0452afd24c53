//! `beam bench rfc2544`: pktgen's letters for the frames, `beam bench run`'s for the measurement.

use super::{XdpMode, pktgen::mac, scale::rate, values::duration};
use clap::Args;
use std::{fmt, net::IpAddr, str::FromStr, time::Duration};
use wire::datagram::Mac;

#[derive(Clone, Debug, Args)]
pub(crate) struct Rfc2544Args {
    /// Interface to send from
    #[arg(short = 'i', long, value_name = "IF")]
    pub(crate) interface: String,
    /// Interface to receive on: another one of this host, at the other side of the device under test
    #[arg(short = 'r', long, value_name = "IF")]
    pub(crate) receive: String,
    /// Router that is measured: its address at the sending side [default: none; the device is taken for a bridge]
    #[arg(short = 'g', long, value_name = "IP", conflicts_with = "mac")]
    pub(crate) gateway: Option<IpAddr>,
    /// Next hop's MAC address [default: that of --gateway; for a bridge that of --receive]
    #[arg(short = 'm', long, value_name = "MAC", value_parser = mac)]
    pub(crate) mac: Option<Mac>,
    /// Destination address [default: that of --receive]
    #[arg(short = 'd', long, value_name = "IP")]
    pub(crate) destination: Option<IpAddr>,
    /// Source address [default: that of --interface]
    #[arg(long, value_name = "IP")]
    pub(crate) source: Option<IpAddr>,
    /// Destination port: what comes in by it isn't seen by this host while the measurement runs
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = 49_184, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Source port
    #[arg(long, value_name = "PORT", default_value_t = 49_184, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) source_port: u16,
    /// IPv6
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,
    /// Frame sizes with the four bytes of the check sequence, or imix [default: 64,128,256,512,1024,1280,1518,imix; with -6
    /// 84 is the smallest]
    #[arg(short = 's', long = "size", value_name = "BYTES", value_delimiter = ',')]
    pub(crate) sizes: Vec<FrameSize>,
    /// How long each trial sends
    #[arg(short = 't', long, visible_alias = "trial-time", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) time: Duration,
    /// How long late frames are waited for after each trial
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) settle: Duration,
    /// Loss that the partial-drop rate allows
    #[arg(long, value_name = "PERCENT", default_value = "0.5%")]
    pub(crate) pdr_loss: Percent,
    /// The search ends where the rates that passed and failed are as close as this
    #[arg(long, value_name = "PERCENT", default_value = "1%")]
    pub(crate) precision: Percent,
    /// Lowest rate that is tried, in frames a second [default: a hundredth of the highest]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) min_rate: Option<f64>,
    /// Highest rate that is tried, in frames a second [default: as many as can be sent]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) max_rate: Option<f64>,
    /// Searches of each size; the median, the lowest and the highest are told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// One search of short trials: does it work?
    #[arg(long, conflicts_with_all = ["time", "settle", "precision", "runs"])]
    pub(crate) quick: bool,
    /// Leave latency out
    #[arg(long)]
    pub(crate) no_latency: bool,
    /// Transmit queue to send on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) queue: u32,
    /// CPU of the sender [default: wherever the kernel puts it]
    #[arg(long, value_name = "CPU")]
    pub(crate) send_cpu: Option<u32>,
    /// CPU of the receiver [default: wherever the kernel puts it]
    #[arg(long, value_name = "CPU")]
    pub(crate) receive_cpu: Option<u32>,
    /// Where XDP runs on the receiving interface
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) xdp: XdpMode,
    /// Also on an interface that carries the default route or an ssh session
    #[arg(long)]
    pub(crate) allow_link_drop: bool,
    /// One JSON object instead of text
    #[arg(short = 'J', long, visible_short_alias = 'j')]
    pub(crate) json: bool,
    /// What happens besides, on standard error: each trial; twice for more
    #[arg(short = 'v', long = "verbose", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// `--size`: bytes on the wire, with the check sequence, or the simple Internet mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameSize {
    Bytes(u16),
    Imix,
}

impl FrameSize {
    /// The sizes of RFC 2544 section 9.1 (without 64 where it can't be, RFC 5180 section 5.1), and the mix.
    pub(crate) fn all(smallest: u16) -> Vec<Self> {
        let fixed = [64, 128, 256, 512, 1024, 1280, 1518].map(|bytes: u16| Self::Bytes(bytes.max(smallest)));
        fixed.into_iter().chain([Self::Imix]).collect()
    }

    /// In a sentence.
    pub(crate) fn label(self) -> String {
        match self {
            Self::Bytes(bytes) => format!("{bytes} bytes"),
            Self::Imix => "IMIX".to_owned(),
        }
    }
}

impl FromStr for FrameSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const BYTES: std::ops::RangeInclusive<u16> = 64..=3844;
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::Imix);
        }
        match text.parse() {
            Ok(bytes) if BYTES.contains(&bytes) => Ok(Self::Bytes(bytes)),
            _ => Err(format!(
                "`{text}` is not a size from {} to {} bytes, nor imix",
                BYTES.start(),
                BYTES.end()
            )),
        }
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Imix => f.write_str("IMIX"),
        }
    }
}

/// A part of the whole, from 0 to 1; typed as `0.5%` or `0.5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percent(pub(crate) f64);

impl FromStr for Percent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent < 100.0 => Ok(Self(percent / 100.0)),
            _ => Err(format!("`{text}` is not a part above 0 and below 100 percent, such as 0.5%")),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    //! Goal: sizes and percentages are read whole, and nonsense is refused.
    use super::*;
    use crate::cli::{BenchVerb, Cli, Verb};
    use clap::Parser as _;

    /// The flags as clap reads them, for other tests, too.
    pub(crate) fn args(more: &str) -> Rfc2544Args {
        let line = format!("beam bench rfc2544 -i eth1 -r eth2 {more}");
        match Cli::parse_from(line.split_whitespace()).verb {
            Verb::Bench(bench) => match bench.verb {
                BenchVerb::Rfc2544(args) => *args,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_the_standards() {
        let args = args("");
        assert_eq!((args.time.as_secs(), args.settle.as_secs(), args.runs), (10, 2, 3));
        assert_eq!((args.pdr_loss, args.precision), (Percent(0.005), Percent(0.01)));
        assert!(args.sizes.is_empty() && !args.json);
    }

    #[test]
    fn sizes() {
        assert_eq!("64".parse(), Ok(FrameSize::Bytes(64)));
        assert_eq!("IMIX".parse(), Ok(FrameSize::Imix));
        for wrong in ["", "63", "3845", "65536", "mix", "-64"] {
            assert!(wrong.parse::<FrameSize>().is_err(), "{wrong}");
        }
        let of =
            |smallest| FrameSize::all(smallest).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(of(64), "64 128 256 512 1024 1280 1518 IMIX");
        assert_eq!(of(84), "84 128 256 512 1024 1280 1518 IMIX");
    }

    #[test]
    fn percentages() {
        assert_eq!("0.5%".parse(), Ok(Percent(0.005)));
        assert_eq!("10".parse(), Ok(Percent(0.1)));
        for wrong in ["0", "0%", "100%", "-1", "nan", "half", "%"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
    }
}
