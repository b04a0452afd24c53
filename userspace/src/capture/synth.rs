//! IP and UDP headers for datagrams that a kernel socket received or sent: it shows none.
//!
//! Addresses, lengths, ECN bits and checksums are right; the hop limit, identification and flow label are made up (64, 0,
//! 0), and so is the division into packets where the kernel coalesced or segmented.

use std::net::{IpAddr, SocketAddr};
use wire::checksum::{self, Sum};

const UDP: u8 = 17;
const HOP_LIMIT: u8 = 64;
const UDP_HEADER_BYTES: usize = 8;

/// The headers of `payload`. Empty where the addresses are of two versions, or the payload too long for UDP.
pub(crate) fn headers(from: SocketAddr, to: SocketAddr, ecn_bits: u8, payload: &[u8]) -> Vec<u8> {
    let Ok(udp_bytes) = u16::try_from(payload.len() + UDP_HEADER_BYTES) else { return Vec::new() };
    let mut out = Vec::with_capacity(48);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let Some(total_bytes) = udp_bytes.checked_add(20) else { return Vec::new() };
            let [l0, l1] = total_bytes.to_be_bytes();
            let mut ip = [0; 20];
            ip[..10].copy_from_slice(&[0x45, ecn_bits & 3, l0, l1, 0, 0, 0x40, 0, HOP_LIMIT, UDP]);
            ip[12..16].copy_from_slice(&source.octets());
            ip[16..].copy_from_slice(&destination.octets());
            let sum = checksum::ipv4_header(&ip);
            ip[10..12].copy_from_slice(&sum);
            out.extend_from_slice(&ip);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [l0, l1] = udp_bytes.to_be_bytes();
            out.extend_from_slice(&[0x60, (ecn_bits & 3) << 4, 0, 0, l0, l1, UDP, HOP_LIMIT]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        _ => return Vec::new(),
    }
    let ([s0, s1], [d0, d1]) = (from.port().to_be_bytes(), to.port().to_be_bytes());
    let [l0, l1] = udp_bytes.to_be_bytes();
    let udp = [s0, s1, d0, d1, l0, l1, 0, 0];
    let sum = Sum::pseudo_header(&from, &to, udp_bytes) + Sum::of(&udp) + Sum::of(payload);
    let [c0, c1] = checksum::sent_udp(sum);
    out.extend_from_slice(&[s0, s1, d0, d1, l0, l1, c0, c1]);
    out
}

#[cfg(test)]
mod tests {
    //! Goal: what is made up is a packet whose checksums and lengths hold. Method: the wire's own verifiers.
    use super::*;

    #[test]
    fn checksums_and_lengths_hold() {
        for payload_bytes in [0, 1, 2, 1199, 1452, 9000] {
            let payload: Vec<u8> = (0..payload_bytes).map(|n| n as u8).collect();
            for (from, to, ip_bytes) in
                [("198.18.0.1:443", "198.18.0.2:5", 20), ("[2001:db8::1]:443", "[2001:db8::2]:5", 40)]
            {
                let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
                let head = headers(from, to, 0b10, &payload);
                assert_eq!(head.len(), ip_bytes + 8);
                let udp = [&head[ip_bytes..], &payload].concat();
                assert_eq!(checksum::verify_udp(&from, &to, &udp), checksum::Checksum::Good);
                if let Some(ip) = head[..ip_bytes].first_chunk::<20>().filter(|_| ip_bytes == 20) {
                    assert!(checksum::verify_ipv4_header(ip));
                    assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), 28 + payload.len());
                }
            }
        }
    }

    #[test]
    fn what_makes_no_packet_has_no_headers() {
        let (v4, v6) = ("198.18.0.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap());
        assert!(headers(v4, v6, 0, b"x").is_empty());
        assert!(headers(v4, v4, 0, &vec![0; 65_528]).is_empty());
    }
}
