//! Goal: the parser takes exactly the datagrams it should, and survives every byte string.
//! Method: random frames, damaged in the fields that matter, with etherparse as the oracle in both directions; random
//! noise; tables for what the oracle doesn't know. (`xdp-ebpf/tests` has the table of reasons for refusal.)
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;

use common::{Sent, oracle, sent};
use proptest::{collection::vec, prelude::*, sample::select};
use wire::{
    checksum::{self, Checksum},
    datagram::{self, Reject, is_martian},
    headers::{Malformed, NotOurs},
};

/// One way to damage a frame.
#[derive(Clone, Debug)]
enum Damage {
    Byte(usize, u8),
    Bit(usize, u8),
    Word(usize, u16),
    Truncate(usize),
    Pad(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    // EtherTypes and what may stand in their place, lengths, flags.
    let word =
        select(vec![0x0800, 0x86dd, 0x8100, 0x88a8, 0x9100, 0, 1, 7, 8, 20, 28, 40, 0x2000, 0x4000, 0xffff]);
    let byte = select(vec![0, 4, 5, 6, 17, 43, 44, 51, 59, 60, 0x44, 0x45, 0x46, 0x60, 0x61, 0xff]);
    prop_oneof![
        (0..72usize, byte).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (0..72usize, 0..8u8).prop_map(|(at, bit)| Damage::Bit(at, bit)),
        (6..36usize, word).prop_map(|(half, word)| Damage::Word(2 * half, word)),
        any::<usize>().prop_map(Damage::Truncate),
        (1..64usize).prop_map(Damage::Pad),
    ]
}

fn apply(frame: &mut Vec<u8>, damage: &Damage) {
    match *damage {
        Damage::Byte(at, byte) => frame.iter_mut().skip(at).take(1).for_each(|to| *to = byte),
        Damage::Bit(at, bit) => frame.iter_mut().skip(at).take(1).for_each(|to| *to ^= 1 << bit),
        Damage::Word(at, word) => {
            if let Some(to) = frame.get_mut(at..at + 2) {
                to.copy_from_slice(&word.to_be_bytes());
            }
        }
        Damage::Truncate(length) => frame.truncate(length % (frame.len() + 1)),
        Damage::Pad(count) => frame.extend(std::iter::repeat_n(0, count)),
    }
}

/// Sets the IPv4 header checksum at `ip`, so that damage elsewhere in the header isn't hidden behind it.
fn mend(frame: &mut [u8], ip: usize) {
    let Some(header) = frame.get_mut(ip..ip + 20) else { return };
    header[10..12].fill(0);
    let field = checksum::ipv4_header(header.first_chunk().unwrap());
    header[10..12].copy_from_slice(&field);
}

fn ip_offset(sent: &Sent) -> usize {
    14 + 4 * sent.link.vlans.as_slice().len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Both ways: whatever etherparse takes within our limits we take, equal in every field, and nothing else.
    #[test]
    fn damaged_frames_are_read_as_the_oracle_reads_them(
        sent in sent(), damages in vec(damage(), 0..4), mended in any::<bool>(),
    ) {
        let mut frame = sent.frame.clone();
        damages.iter().for_each(|damage| apply(&mut frame, damage));
        if mended && sent.path.local.is_ipv4() {
            mend(&mut frame, ip_offset(&sent));
        }
        prop_assert_eq!(datagram::parse(&frame).ok(), oracle::read(&frame));
    }

    #[test]
    fn noise_is_read_as_the_oracle_reads_it(noise in vec(any::<u8>(), 0..120)) {
        prop_assert_eq!(datagram::parse(&noise).ok(), oracle::read(&noise));
    }

    /// Ethernet pads short frames, and some NICs leave the FCS: neither gets into the payload.
    #[test]
    fn padding_is_trimmed(sent in sent(), padding in vec(any::<u8>(), 0..64)) {
        let padded = [&sent.frame[..], &padding].concat();
        let datagram = datagram::parse(&padded).unwrap();
        prop_assert_eq!(&padded[datagram.payload.clone()], &sent.payload[..]);
        prop_assert_eq!(datagram.checksum(&padded), Checksum::Good);
    }

    /// Cut anywhere, a frame is refused: by its lengths from the ports on, before that as too short.
    #[test]
    fn every_cut_is_refused(sent in sent()) {
        let ports_end = sent.frame.len() - sent.payload.len() - 4;
        for length in 0..sent.frame.len() {
            let expected = if length < ports_end {
                Reject::NotOurs(NotOurs::Short)
            } else {
                Reject::Malformed(Malformed::IpLong)
            };
            prop_assert_eq!(datagram::parse(&sent.frame[..length]), Err(expected));
        }
    }

    /// Damage behind the headers leaves the datagram readable; its checksum tells.
    #[test]
    fn a_damaged_payload_is_seen_by_the_checksum(sent in sent(), at in any::<usize>(), bit in 0..8u8) {
        prop_assume!(!sent.payload.is_empty());
        let mut frame = sent.frame.clone();
        let at = frame.len() - 1 - at % sent.payload.len();
        frame[at] ^= 1 << bit;
        let judged = datagram::parse(&frame).unwrap().checksum(&frame);
        // Once in 65,536 the field happens to be the pseudo-header's sum (tests/checksum.rs tells them apart).
        prop_assert!(matches!(judged, Checksum::Bad | Checksum::PartialPseudo));
    }

    /// A datagram asked about another frame answers, wrongly, but without a panic.
    #[test]
    fn the_wrong_frame_does_no_harm(sent in sent(), other in vec(any::<u8>(), 0..200)) {
        let datagram = datagram::parse(&sent.frame).unwrap();
        let _ = datagram.checksum(&other);
    }
}

#[test]
fn martians_are_known() {
    for martian in [
        "0.0.0.0:1",
        "0.1.2.3:1",
        "127.0.0.1:1",
        "224.0.0.1:1",
        "239.1.1.1:1",
        "240.0.0.1:1",
        "255.255.255.255:1",
        "198.18.0.1:0",
        "[::]:1",
        "[::1]:1",
        "[ff02::1]:1",
        "[::ffff:198.18.0.1]:1",
        "[2001:db8::1]:0",
    ] {
        assert!(is_martian(&martian.parse::<SocketAddr>().unwrap()), "{martian}");
    }
    for honest in ["198.18.0.1:1", "10.0.0.1:443", "223.255.255.255:65535", "[2001:db8::1]:1", "[fe80::1]:1"]
    {
        assert!(!is_martian(&honest.parse::<SocketAddr>().unwrap()), "{honest}");
    }
}
