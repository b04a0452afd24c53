//! Goal: views, hop limits, checksums, ICMP errors and fragments are as the RFCs say. Method: packets built and read by
//! etherparse, which knows nothing of this crate; damaged and random bytes.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use ip::{
    Malformed, View, checksum,
    checksum::Transport,
    fragment,
    icmp::{self, Tokens, Trouble},
    packet::{self, Fragment},
};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn udp_v4(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4([198, 18, 64, 2], [10, 1, 0, 9], 64).udp(1234, 53).write(&mut out, payload).unwrap();
    out
}

fn udp_v6(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (from, to) = (
        [0x20, 1, 0xd, 0xb8, 0, 0x64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    );
    PacketBuilder::ipv6(from, to, 64).udp(1234, 53).write(&mut out, payload).unwrap();
    out
}

#[test]
fn views() {
    let view = View::read(&udp_v4(b"hello")).unwrap();
    assert_eq!(
        (view.source.to_string(), view.destination.to_string()),
        ("198.18.64.2".into(), "10.1.0.9".into())
    );
    assert_eq!((view.hop_limit, view.protocol, view.transport_offset, view.total_bytes), (64, 17, 20, 33));
    let view = View::read(&udp_v6(b"hello")).unwrap();
    assert_eq!((view.hop_limit, view.protocol, view.transport_offset, view.total_bytes), (64, 17, 40, 53));
    assert!(view.dont_fragment);
    // Bytes behind the packet are not part of it.
    let mut padded = udp_v4(b"hello");
    padded.extend([0; 13]);
    assert_eq!(View::read(&padded).unwrap().total_bytes, 33);
}

#[test]
fn malformed_packets_have_a_name() {
    let good = udp_v4(b"hello");
    assert_eq!(View::read(&[]), Err(Malformed::Empty));
    assert_eq!(View::read(&[0x50; 40]), Err(Malformed::Version(5)));
    assert_eq!(View::read(&good[..19]), Err(Malformed::HeaderShort));
    assert_eq!(View::read(&good[..32]), Err(Malformed::TotalLength));
    assert_eq!(View::read(&udp_v6(b"hello")[..52]), Err(Malformed::TotalLength));
    let mut bad = good.clone();
    bad[0] = 0x44;
    assert_eq!(View::read(&bad), Err(Malformed::HeaderLength));
    bad = good.clone();
    bad[8] ^= 1;
    assert_eq!(View::read(&bad), Err(Malformed::HeaderChecksum));
    bad = good;
    bad[2..4].copy_from_slice(&19_u16.to_be_bytes());
    assert_eq!(View::read(&bad), Err(Malformed::TotalLength));
}

#[test]
fn ipv6_extension_headers_are_looked_through() {
    // Hop-by-hop (8 bytes), destination options (16), fragment (8), then UDP.
    let plain = udp_v6(b"hello");
    let build = |offset_and_more: u16| {
        let mut out = plain[..40].to_vec();
        out[6] = 0;
        out.extend([60, 0, 1, 4, 0, 0, 0, 0]);
        out.extend([44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend([17, 0]);
        out.extend(offset_and_more.to_be_bytes());
        out.extend([0, 0, 0, 7]);
        out.extend(&plain[40..]);
        let payload = (out.len() - 40) as u16;
        out[4..6].copy_from_slice(&payload.to_be_bytes());
        out
    };
    for (word, fragment) in [(0, Fragment::Whole), (1, Fragment::First), (8, Fragment::Later)] {
        let view = View::read(&build(word)).unwrap();
        assert_eq!((view.protocol, view.transport_offset, view.fragment), (17, 72, fragment));
    }
    // Cut off inside the chain; and a chain without end.
    let mut short = build(0)[..60].to_vec();
    short[4..6].copy_from_slice(&20_u16.to_be_bytes());
    assert_eq!(View::read(&short), Err(Malformed::Extensions));
    let mut endless = plain[..40].to_vec();
    endless[6] = 0;
    endless.extend([0; 80]);
    endless[4..6].copy_from_slice(&80_u16.to_be_bytes());
    assert_eq!(View::read(&endless), Err(Malformed::Extensions));
}

#[test]
fn a_hop_is_taken_and_the_checksum_holds() {
    for ttl in 2..=255 {
        let mut bytes = udp_v4(b"x");
        bytes[8] = ttl;
        bytes[10..12].copy_from_slice(&[0, 0]);
        let sum = wire::checksum::ipv4_header(bytes.first_chunk().unwrap());
        bytes[10..12].copy_from_slice(&sum);
        let view = View::read(&bytes).unwrap();
        assert!(packet::decrement_hop_limit(&mut bytes, &view));
        assert_eq!(View::read(&bytes).unwrap().hop_limit, ttl - 1);
    }
    for hops in [0, 1] {
        let mut bytes = udp_v6(b"x");
        bytes[7] = hops;
        let view = View::read(&bytes).unwrap();
        assert!(!packet::decrement_hop_limit(&mut bytes, &view), "RFC 9484 section 7: it must not go on");
        assert_eq!(bytes[7], hops);
    }
}

#[test]
fn partial_checksums_are_completed() {
    for good in [udp_v4(b"some payload"), udp_v6(b"some odd payload!")] {
        let view = View::read(&good).unwrap();
        assert_eq!(checksum::judge(&good, &view), Transport::Good);
        let mut bytes = good.clone();
        let udp = view.total_bytes - view.transport_offset;
        let pseudo = checksum::pseudo_header(view.source, view.destination, 17, udp).folded();
        let at = view.transport_offset + 6;
        bytes[at..at + 2].copy_from_slice(&pseudo);
        assert_eq!(checksum::judge(&bytes, &view), Transport::Partial);
        assert_eq!(checksum::complete(&mut bytes, &view), Transport::Partial);
        assert_eq!(bytes, good);
        assert_eq!(checksum::complete(&mut bytes, &view), Transport::Good);
        bytes[at] ^= 0xff;
        assert_eq!(checksum::complete(&mut bytes, &view), Transport::Bad, "a damaged packet stays damaged");
    }
}

#[test]
fn errors_are_what_etherparse_reads() {
    let big = vec![7; 3000];
    for trouble in
        [Trouble::TooBig { mtu_bytes: 1380 }, Trouble::TimeExceeded, Trouble::NoRoute, Trouble::Prohibited]
    {
        let packet = udp_v4(&big);
        let error =
            icmp::error(&packet, &View::read(&packet).unwrap(), [198, 18, 64, 1].into(), trouble).unwrap();
        assert!(error.len() <= 576, "RFC 1812 section 4.3.2.3");
        let (kind, checksum, body, _) = read_icmp(&error);
        assert_eq!(checksum, kind.0);
        assert!(packet.starts_with(&body) && body.len() >= 28);
        let packet = udp_v6(&big);
        let from = "2001:db8:64::1".parse().unwrap();
        let error = icmp::error(&packet, &View::read(&packet).unwrap(), from, trouble).unwrap();
        assert!(error.len() <= 1280, "RFC 4443 section 2.4 c");
        let (kind, checksum, body, first) = read_icmp(&error);
        assert_eq!(checksum, kind.0);
        assert!(packet.starts_with(&body));
        if let Trouble::TooBig { .. } = trouble {
            assert_eq!(first, "PacketTooBig { mtu: 1380 }");
        }
    }
}

/// (checksum as it should be, checksum as it is), the quoted bytes, the kind.
fn read_icmp(error: &[u8]) -> ((u16, ()), u16, Vec<u8>, String) {
    let sliced = SlicedPacket::from_ip(error).unwrap();
    match (sliced.net.unwrap(), sliced.transport.unwrap()) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(message)) => {
            assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
            let header = message.header();
            assert!(!matches!(message.icmp_type(), Icmpv4Type::Unknown { .. }));
            let wanted = header.icmp_type.calc_checksum(message.payload());
            ((wanted, ()), header.checksum, message.payload().to_vec(), format!("{:?}", header.icmp_type))
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(message)) => {
            let header = message.header();
            assert!(!matches!(message.icmp_type(), Icmpv6Type::Unknown { .. }));
            let addresses = (ip.header().source(), ip.header().destination());
            let wanted = header.icmp_type.calc_checksum(addresses.0, addresses.1, message.payload()).unwrap();
            ((wanted, ()), header.checksum, message.payload().to_vec(), format!("{:?}", header.icmp_type))
        }
        other => panic!("not an ICMP error: {other:?}"),
    }
}

/// RFC 1122 section 3.2.2: no error about an error, a later fragment, or a packet that came from no single host.
#[test]
fn errors_about_errors_are_not_sent() {
    let from = [198, 18, 64, 1].into();
    let packet = udp_v4(b"x");
    let error = icmp::error(&packet, &View::read(&packet).unwrap(), from, Trouble::NoRoute).unwrap();
    assert_eq!(icmp::error(&error, &View::read(&error).unwrap(), from, Trouble::NoRoute), None);
    let mut later = packet.clone();
    later[7] = 9;
    assert_eq!(icmp::error(&later, &View::read_unsummed(&later).unwrap(), from, Trouble::NoRoute), None);
    for (at, octet) in [(12, 224), (16, 224), (12, 127)] {
        let mut special = packet.clone();
        special[at] = octet;
        let view = View::read_unsummed(&special).unwrap();
        assert_eq!(icmp::error(&special, &view, from, Trouble::NoRoute), None);
    }
    // But an echo request that goes nowhere is answered.
    let mut ping = Vec::new();
    PacketBuilder::ipv4([198, 18, 64, 2], [10, 1, 0, 9], 1)
        .icmpv4_echo_request(1, 1)
        .write(&mut ping, b"?")
        .unwrap();
    assert!(icmp::error(&ping, &View::read(&ping).unwrap(), from, Trouble::TimeExceeded).is_some());
}

#[test]
fn tokens_come_back_with_time() {
    let start = Instant::now();
    let mut tokens = Tokens::new(Duration::from_millis(10), 5);
    assert_eq!((0..10).filter(|_| tokens.take(start)).count(), 5);
    assert_eq!((0..10).filter(|_| tokens.take(start + Duration::from_millis(20))).count(), 2);
    assert_eq!((0..10).filter(|_| tokens.take(start + Duration::from_secs(9))).count(), 5);
}

proptest! {
    /// Fragments put together by their offsets are the packet again, and each is a packet that fits.
    #[test]
    fn fragments_are_the_packet(payload in prop::collection::vec(any::<u8>(), 1..5000), mtu in 68_usize..2000) {
        let packet = udp_v4(&payload);
        let mut fragments = Vec::new();
        // Once, and then each again with a smaller MTU, as two routers in a row would.
        let mut df = packet.clone();
        df[6] |= 0x40;
        prop_assert_eq!(fragment::fragment(&df, mtu, &mut fragments), Ok(false));
        let mut clear = packet.clone();
        clear[6] &= !0x40;
        prop_assert_eq!(fragment::fragment(&clear, mtu, &mut fragments), Ok(true));
        let mut again = Vec::new();
        for piece in &fragments {
            prop_assert!(piece.len() <= mtu);
            prop_assert_eq!(fragment::fragment(piece, 68, &mut again), Ok(true));
        }
        for pieces in [fragments, again] {
            let mut whole = vec![0; packet.len() - 20];
            let mut last_seen = 0;
            for piece in &pieces {
                let view = View::read(piece).unwrap();
                prop_assert_eq!(view.total_bytes, piece.len());
                let word = u16::from_be_bytes([piece[6], piece[7]]);
                let at = usize::from(word & 0x1fff) * 8;
                whole[at..at + piece.len() - 20].copy_from_slice(&piece[20..]);
                last_seen += usize::from(word & 0x2000 == 0);
            }
            prop_assert_eq!(last_seen, 1);
            prop_assert_eq!(&whole[..], &packet[20..]);
        }
    }

    /// No bytes make anything here panic.
    #[test]
    fn random_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..120), first in prop::sample::select(vec![0x45_u8, 0x46, 0x4f, 0x60, 0])) {
        if let Some(byte) = bytes.first_mut() { *byte = first; }
        if let Ok(view) = View::read_unsummed(&bytes) {
            prop_assert!(view.total_bytes <= bytes.len() && view.transport_offset <= view.total_bytes);
            let _ = icmp::error(&bytes, &view, [1, 2, 3, 4].into(), Trouble::NoRoute);
            let _ = fragment::fragment(&bytes, 68, &mut Vec::new());
            let _ = checksum::complete(&mut bytes, &view);
            let _ = packet::decrement_hop_limit(&mut bytes, &view);
        }
        let _ = checksum::complete_at(&mut bytes, 30, 16);
    }
}

/// The first tokens are there when they are wanted, and the next ones at the stated rate; rest gives the burst back.
#[test]
fn tokens_are_due_in_a_burst_and_then_at_the_rate() {
    const EACH: Duration = Duration::from_millis(100);
    const BURST: u32 = 4;
    let start = Instant::now();
    let mut tokens = Tokens::new(EACH, BURST);
    for _ in 0..BURST {
        assert_eq!(tokens.due(start), start);
        assert!(tokens.take(start));
    }
    let mut now = start;
    for step in 1..=3 {
        now = tokens.due(now);
        assert_eq!(now, start + EACH * step);
        assert!(tokens.take(now));
    }
    let later = now + EACH * BURST;
    for _ in 0..BURST {
        assert_eq!(tokens.due(later), later);
        assert!(tokens.take(later));
    }
    assert!(tokens.due(later) > later);
}

/// Errors about packets to where nobody is leave those for path MTU discovery their own.
#[test]
fn too_big_has_a_budget_of_its_own() {
    let (start, mut budget) = (Instant::now(), icmp::Budget::new(Duration::from_millis(10), 5));
    let too_big = Trouble::TooBig { mtu_bytes: 1280 };
    assert_eq!((0..9).filter(|_| budget.take(Trouble::NoRoute, start)).count(), 5);
    assert_eq!((0..9).filter(|_| budget.take(too_big, start)).count(), 5);
    assert!(!budget.take(Trouble::Prohibited, start));
}
