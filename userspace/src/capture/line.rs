//! A packet in one line, for a person who gave no `-w`: as tcpdump would say it.

use super::{pcapng, record::Packet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The line of a packet of an interface with this name and link type.
pub(crate) fn line(packet: &Packet<'_>, name: &str, link: u16) -> String {
    let ip = if link == pcapng::LINK_ETHERNET { behind_ethernet(packet.bytes) } else { Some(packet.bytes) };
    let what = ip.and_then(ip_packet).unwrap_or_else(|| format!("{} bytes", packet.wire_bytes));
    let why = if packet.comment.is_empty() { String::new() } else { format!(" [{}]", packet.comment) };
    format!("{} {} {name} {what}{why}", clock(packet.at_ns), packet.point.name())
}

/// The time of day, UTC.
fn clock(at_ns: u64) -> String {
    let (seconds, ns) = (at_ns / 1_000_000_000 % 86_400, at_ns % 1_000_000_000);
    format!("{:02}:{:02}:{:02}.{ns:09}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// What an Ethernet frame carries, behind at most two VLAN tags.
fn behind_ethernet(frame: &[u8]) -> Option<&[u8]> {
    let mut rest = frame.get(12..)?;
    for _ in 0..3 {
        let (ethertype, after) = rest.split_first_chunk()?;
        match u16::from_be_bytes(*ethertype) {
            0x8100 | 0x88A8 => rest = after.get(2..)?,
            0x0800 | 0x86DD => return Some(after),
            _ => return None,
        }
    }
    None
}

fn ip_packet(packet: &[u8]) -> Option<String> {
    let (from, to, protocol, payload): (IpAddr, IpAddr, u8, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let header = packet.first_chunk::<20>()?;
            let address =
                |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
            let payload = packet.get(usize::from(header[0] & 15) * 4..)?;
            (address(12).into(), address(16).into(), header[9], payload)
        }
        6 => {
            let (header, payload) = packet.split_first_chunk::<40>()?;
            let address = |at: usize| header[at..].first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes));
            (address(8)?.into(), address(24)?.into(), header[6], payload)
        }
        _ => return None,
    };
    let ends = |ports: &[u8; 4]| {
        let from = SocketAddr::new(from, u16::from_be_bytes([ports[0], ports[1]]));
        let to = SocketAddr::new(to, u16::from_be_bytes([ports[2], ports[3]]));
        format!("{from} > {to}")
    };
    Some(match (protocol, payload.first_chunk()) {
        (17, Some(ports)) => {
            let udp_bytes = payload.get(4..6).map_or(0, |length| u16::from_be_bytes([length[0], length[1]]));
            let kind = payload.get(8).map_or("", |first| quic(*first));
            format!("{}: UDP, length {}{kind}", ends(ports), udp_bytes.saturating_sub(8))
        }
        (6, Some(ports)) => format!("{}: TCP", ends(ports)),
        (1 | 58, _) => format!("{from} > {to}: ICMP type {}", payload.first()?),
        _ => format!("{from} > {to}: protocol {protocol}"),
    })
}

/// What the first byte of a UDP payload says, if it is QUIC's; version 1 is taken for granted.
fn quic(first: u8) -> &'static str {
    match first {
        0xC0..=0xCF => ", QUIC Initial",
        0xD0..=0xDF => ", QUIC 0-RTT",
        0xE0..=0xEF => ", QUIC Handshake",
        0xF0..=0xFF => ", QUIC Retry",
        0x40..=0x7F => ", QUIC 1-RTT",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the lines of packets that occur, and no panic on any bytes.
    use super::*;
    use crate::capture::{Point, Way, synth};
    use rand::{RngExt, SeedableRng};

    fn packet(bytes: &[u8]) -> Packet<'_> {
        Packet {
            point: Point::Rx,
            way: Way::In,
            interface: 0,
            at_ns: (13 * 3600 + 5 * 60 + 9) * 1_000_000_000 + 7,
            wire_bytes: bytes.len() as u32,
            comment: "",
            bytes,
        }
    }

    #[test]
    fn quic_over_ethernet_with_a_tag_and_raw() {
        let payload = [&[0xC3][..], &[0; 1199]].concat();
        let (from, to) = ("198.18.0.2:5555".parse().unwrap(), "198.18.0.1:443".parse().unwrap());
        let raw = [synth::headers(from, to, 0, &payload), payload].concat();
        let tagged = [&[0; 12][..], &[0x81, 0, 0, 5, 0x08, 0], &raw].concat();
        let expected =
            "13:05:09.000000007Z rx eth0/1 198.18.0.2:5555 > 198.18.0.1:443: UDP, length 1200, QUIC Initial";
        assert_eq!(line(&packet(&raw), "eth0/1", pcapng::LINK_RAW), expected);
        assert_eq!(line(&packet(&tagged), "eth0/1", pcapng::LINK_ETHERNET), expected);
        let dropped = Packet { comment: "drop_malformed", point: Point::Drop, ..packet(&[1, 2, 3]) };
        let line = line(&dropped, "udp/0.0", pcapng::LINK_RAW);
        assert_eq!(line, "13:05:09.000000007Z drop udp/0.0 3 bytes [drop_malformed]");
    }

    #[test]
    fn rubbish_has_a_line_too() {
        let seed = 1126;
        println!("seed {seed}");
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        for _ in 0..20_000 {
            let mut bytes = vec![0; rng.random_range(0..80)];
            rng.fill(&mut bytes[..]);
            if let Some(first) = bytes.first_mut() {
                *first = [0x45, 0x60, 0x4F, *first][usize::from(*first & 3)];
            }
            assert!(!line(&packet(&bytes), "x", pcapng::LINK_RAW).is_empty());
            line(&packet(&bytes), "x", pcapng::LINK_ETHERNET);
        }
    }
}
