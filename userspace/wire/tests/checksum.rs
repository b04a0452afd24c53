//! Goal: checksums are RFC 1071's, and the four kinds of UDP checksum field are told apart.
//! Method: a word-by-word sum straight from the RFC as the reference; RFC examples; random datagrams and damage.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;

use common::reference;
use proptest::{collection::vec, prelude::*};
use wire::checksum::{self, Checksum, Sum, verify_udp};

/// The pseudo-header as bytes, from RFC 768 and RFC 8200 section 8.1.
fn pseudo_header(source: &SocketAddr, destination: &SocketAddr, udp_bytes: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for end in [source, destination] {
        match end {
            SocketAddr::V4(end) => bytes.extend(end.ip().octets()),
            SocketAddr::V6(end) => bytes.extend(end.ip().octets()),
        }
    }
    if source.is_ipv4() {
        bytes.extend([0, 17]);
        bytes.extend(udp_bytes.to_be_bytes());
    } else {
        bytes.extend(u32::from(udp_bytes).to_be_bytes());
        bytes.extend([0, 0, 0, 17]);
    }
    bytes
}

/// A UDP datagram with a right checksum.
fn datagram(source: &SocketAddr, destination: &SocketAddr, payload: &[u8]) -> Vec<u8> {
    let udp_bytes = 8 + payload.len() as u16;
    let mut udp = Vec::new();
    for word in [source.port(), destination.port(), udp_bytes, 0] {
        udp.extend(word.to_be_bytes());
    }
    udp.extend(payload);
    let field = checksum::udp(source, destination, &udp).unwrap();
    udp[6..8].copy_from_slice(&field);
    udp
}

#[test]
fn rfc_1071_section_3_example() {
    let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    assert_eq!(sum.folded(), [0xdd, 0xf2]);
    assert_eq!(sum.checksum(), [0x22, 0x0d]);
}

#[test]
fn nothing_sums_to_zero() {
    assert_eq!(Sum::of(&[]), Sum::default());
    assert_eq!(Sum::of(&[]).checksum(), [0xff, 0xff]);
}

#[test]
fn an_ipv4_header_from_the_wire_is_good_until_a_bit_flips() {
    // Written down in many textbooks; checksum 0xb861.
    let header =
        [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 0x01, 0xc0, 0xa8, 0, 0xc7];
    assert!(checksum::verify_ipv4_header(&header));
    let mut zeroed = header;
    zeroed[10..12].fill(0);
    assert_eq!(checksum::ipv4_header(&zeroed), [0xb8, 0x61]);
    for bit in 0..160 {
        let mut flipped = header;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!checksum::verify_ipv4_header(&flipped), "bit {bit}");
    }
}

/// The largest datagrams, of the largest words: sums must not overflow, and one byte more is refused.
#[test]
fn the_largest_datagrams_are_summed() {
    let ends = ["198.18.0.1:1", "198.18.0.2:2"].map(|end| end.parse::<SocketAddr>().unwrap());
    for fill in [0x00, 0x01, 0xff] {
        let udp = datagram(&ends[0], &ends[1], &vec![fill; 65_527]);
        assert_eq!(udp.len(), 65_535);
        assert_eq!(verify_udp(&ends[0], &ends[1], &udp), Checksum::Good);
        let long = [&udp[..], &[0]].concat();
        assert_eq!(verify_udp(&ends[0], &ends[1], &long), Checksum::Bad);
        assert_eq!(checksum::udp(&ends[0], &ends[1], &long), None);
    }
}

#[test]
fn less_than_a_header_is_bad() {
    let ends = ["[2001:db8::1]:1", "[2001:db8::2]:2"].map(|end| end.parse::<SocketAddr>().unwrap());
    for length in 0..8 {
        assert_eq!(verify_udp(&ends[0], &ends[1], &[0xff; 8][..length]), Checksum::Bad);
    }
}

proptest! {
    #[test]
    fn sums_are_the_reference_s(bytes in vec(any::<u8>(), 0..4000)) {
        prop_assert_eq!(Sum::of(&bytes).folded(), reference(&bytes).to_be_bytes());
        prop_assert_eq!(Sum::of(&bytes).checksum(), (!reference(&bytes)).to_be_bytes());
    }

    /// Headers and payload are summed apart: any even split must do.
    #[test]
    fn parts_add_up(bytes in vec(any::<u8>(), 0..400), split in 0..200usize) {
        let (front, back) = bytes.split_at((2 * split).min(bytes.len() & !1));
        prop_assert_eq!((Sum::of(front) + Sum::of(back)).folded(), Sum::of(&bytes).folded());
    }

    #[test]
    fn pseudo_headers_are_the_rfcs(path in common::path(), udp_bytes in any::<u16>()) {
        let bytes = pseudo_header(&path.local, &path.remote, udp_bytes);
        let sum = Sum::pseudo_header(&path.local, &path.remote, udp_bytes);
        prop_assert_eq!(sum.folded(), reference(&bytes).to_be_bytes());
    }

    #[test]
    fn a_datagram_is_good_until_a_bit_flips(
        path in common::path(), payload in vec(any::<u8>(), 0..300), bit in any::<usize>(),
    ) {
        let mut udp = datagram(&path.remote, &path.local, &payload);
        prop_assert_eq!(verify_udp(&path.remote, &path.local, &udp), Checksum::Good);
        let bit = bit % (8 * udp.len());
        udp[bit / 8] ^= 1 << (bit % 8);
        let judged = verify_udp(&path.remote, &path.local, &udp);
        // Once in 65,536 the field happens to be the pseudo-header's sum; a flipped field may become zero.
        let pseudo = reference(&pseudo_header(&path.remote, &path.local, udp.len() as u16)).to_be_bytes();
        let expected = match [udp[6], udp[7]] {
            [0, 0] if path.local.is_ipv4() => Checksum::Absent,
            field if field == pseudo => Checksum::PartialPseudo,
            _ => Checksum::Bad,
        };
        prop_assert_eq!(judged, expected);
    }

    /// RFC 768: zero is "none"; RFC 8200 section 8.1: over IPv6 such packets must be discarded.
    #[test]
    fn zero_is_absent_over_ipv4_and_bad_over_ipv6(path in common::path(), payload in vec(any::<u8>(), 0..300)) {
        let mut udp = datagram(&path.remote, &path.local, &payload);
        udp[6..8].fill(0);
        let expected = if path.local.is_ipv4() { Checksum::Absent } else { Checksum::Bad };
        prop_assert_eq!(verify_udp(&path.remote, &path.local, &udp), expected);
    }

    /// Linux leaves the folded pseudo-header sum, not complemented, for hardware that doesn't exist on veth.
    #[test]
    fn a_partial_checksum_is_known_for_what_it_is(path in common::path(), payload in vec(any::<u8>(), 1..300)) {
        let mut udp = datagram(&path.remote, &path.local, &payload);
        let partial = reference(&pseudo_header(&path.remote, &path.local, udp.len() as u16));
        udp[6..8].copy_from_slice(&partial.to_be_bytes());
        let judged = verify_udp(&path.remote, &path.local, &udp);
        // Once in 65,536 it is the whole checksum as well.
        let whole = reference(&[&pseudo_header(&path.remote, &path.local, udp.len() as u16)[..], &udp].concat());
        prop_assert_eq!(judged, if whole == 0xffff { Checksum::Good } else { Checksum::PartialPseudo });
    }

    /// RFC 768: "if the computed checksum is zero, it is transmitted as all ones".
    #[test]
    fn a_checksum_that_comes_out_as_zero_is_sent_as_all_ones(path in common::path(), payload in vec(any::<u8>(), 0..64)) {
        let payload = [&payload[..payload.len() & !1], &[0, 0]].concat();
        let field = datagram(&path.remote, &path.local, &payload)[6..8].to_vec();
        // Adding the checksum to the data makes the sum 0xffff, whose complement is zero.
        let balanced = [&payload[..payload.len() - 2], &field].concat();
        let udp = datagram(&path.remote, &path.local, &balanced);
        prop_assert_eq!(&udp[6..8], &[0xff, 0xff]);
        prop_assert_eq!(verify_udp(&path.remote, &path.local, &udp), Checksum::Good);
    }
}
