//! `beam pktgen`: the letters of the kernel's pktgen samples, and words for what those put into scripts.

use clap::{Args, ValueEnum};
use pktgen::{Net, Ports, Shape};
use wire::datagram::Mac;

#[derive(Debug, Args)]
pub(crate) struct PktgenArgs {
    /// Interface to send from
    #[arg(short = 'i', long, value_name = "IF")]
    pub(crate) interface: String,
    /// Destination, or a prefix to take random ones from
    #[arg(short = 'd', long, value_name = "IP[/LEN]")]
    pub(crate) destination: Net,
    /// Next hop's MAC address (default: what the neighbour table has for it)
    #[arg(short = 'm', long, value_name = "MAC", value_parser = mac)]
    pub(crate) mac: Option<Mac>,
    /// Destination port, or a range to take random ones from
    #[arg(short = 'p', long, value_name = "P[-P]", default_value = "443")]
    pub(crate) ports: Ports,
    /// Frame size without the four bytes of its check sequence (default: the smallest that will do)
    #[arg(short = 's', long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(60..=3840))]
    pub(crate) size: Option<u16>,
    /// Packets of each thread; 0: until a signal comes
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "100000", value_parser = clap::value_parser!(u64).range(..=9_999_999_999))]
    pub(crate) count: u64,
    /// Threads, one to a CPU and transmit queue
    #[arg(short = 't', long, value_name = "THREADS", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: u32,
    /// CPU of the first thread
    #[arg(short = 'f', long, value_name = "FIRST", default_value = "0", value_parser = clap::value_parser!(u32).range(..=8191))]
    pub(crate) first_cpu: u32,
    /// Times that one packet is sent before a new one is made (0: once, as 1 does)
    #[arg(short = 'c', long, value_name = "CLONES", default_value = "0", value_parser = clap::value_parser!(u32).range(..=1_000_000_000))]
    pub(crate) clones: u32,
    /// Copies of a packet that leave together
    #[arg(short = 'b', long, value_name = "BURST", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) burst: u32,
    /// Nanoseconds from one packet (with -b: burst) to the next, of each thread (0: as fast as it goes)
    #[arg(short = 'w', long, value_name = "NS", default_value = "0", value_parser = clap::value_parser!(u32).range(..=2_147_483_646))]
    pub(crate) delay_ns: u32,
    /// IPv6
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,
    /// Say what each thread does
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,
    /// Print the first frame in hex
    #[arg(short = 'x', long)]
    pub(crate) hex: bool,
    /// One JSON object instead of text
    #[arg(short = 'j', long)]
    pub(crate) json: bool,
    /// Frames of 64, 594 and 1518 bytes on the wire, 7 to 4 to 1
    #[arg(long, conflicts_with_all = ["size", "clones", "burst"])]
    pub(crate) imix: bool,
    /// VLAN tag
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub(crate) vlan: Option<u16>,
    /// A second tag around it, both of EtherType 0x8100
    #[arg(long, value_name = "ID", requires = "vlan", value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub(crate) outer_vlan: Option<u16>,
    /// Source, or a prefix to take random ones from (default: the interface's address)
    #[arg(long, value_name = "IP[/LEN]")]
    pub(crate) sources: Option<Net>,
    /// Source port, or a range to take random ones from
    #[arg(long, value_name = "P[-P]", default_value = "9")]
    pub(crate) source_ports: Ports,
    /// Payloads that look like QUIC
    #[arg(long, value_name = "SHAPE", conflicts_with = "imix")]
    pub(crate) quic: Option<QuicShape>,
    /// What random addresses, ports and payloads are drawn by (default: another each time)
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Name of the script that asks, for its JSON
    #[arg(long, hide = true, default_value = "pktgen")]
    pub(crate) script: String,
}

/// What a flood's datagrams look like to a QUIC endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum QuicShape {
    /// Version 1 Initials with a ClientHello, each with its own connection IDs: each asks for a handshake
    Initial,
    /// Short headers with random connection IDs: packets of connections that nobody has
    Short,
    /// Both in turn
    Mixed,
    /// A version that nobody has: asks for Version Negotiation
    Version,
    /// Wrong lengths and checksums, no fixed bit, an Initial that lies: one after the other
    Malformed,
}

impl From<QuicShape> for Shape {
    fn from(shape: QuicShape) -> Self {
        match shape {
            QuicShape::Initial => Self::Initial,
            QuicShape::Short => Self::Short,
            QuicShape::Mixed => Self::Mixed,
            QuicShape::Version => Self::Version,
            QuicShape::Malformed => Self::Malformed,
        }
    }
}

pub(super) fn mac(text: &str) -> Result<Mac, String> {
    let refuse = || format!("`{text}` is not a MAC address such as 02:00:00:00:00:01");
    let mut mac = Mac::default();
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part =
            parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(refuse)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
    }
    if parts.next().is_some() { Err(refuse()) } else { Ok(mac) }
}

#[cfg(test)]
mod tests {
    //! Goal: MAC addresses are read whole or not at all.
    use super::*;

    #[test]
    fn macs() {
        assert_eq!(mac("02:00:00:00:fF:01"), Ok([2, 0, 0, 0, 255, 1]));
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "zz:00:00:00:00:01",
            "+1:00:00:00:00:01",
        ] {
            assert!(mac(text).is_err(), "{text}");
        }
    }
}
