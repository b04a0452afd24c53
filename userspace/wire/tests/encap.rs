//! Goal: what a template writes is what was asked for, to strangers and to ourselves.
//! Method: random links, paths and payloads; etherparse reads the frame and computes the checksums again; our own
//! parser gets the same back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Sent, link, oracle, path, sent};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use wire::{
    Path,
    checksum::{Checksum, Sum},
    datagram::{self, Datagram, Vlan, Vlans},
    encap::{HEADER_BYTES_MAX, Link, PAYLOAD_BYTES_MAX, Template},
};

fn plain_link(tags: &[Vlan]) -> Link {
    Link { src_mac: [2, 0, 0, 0, 0, 1], dst_mac: [2, 0, 0, 0, 0, 2], vlans: Vlans::new(tags).unwrap() }
}

fn fixed_path(local: &str, remote: &str) -> Path {
    Path { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
}

/// What the receiver of `sent` has to see.
fn received(sent: &Sent, udp_checksum: u16) -> Datagram {
    Datagram {
        path: Path { local: sent.path.remote, remote: sent.path.local },
        ecn_bits: sent.ecn_bits,
        hop_limit: sent.hop_limit,
        payload: sent.frame.len() - sent.payload.len()..sent.frame.len(),
        vlans: sent.link.vlans,
        src_mac: sent.link.src_mac,
        dst_mac: sent.link.dst_mac,
        udp_checksum,
    }
}

#[test]
fn the_longest_header_is_what_the_constant_says() {
    let tags = [Vlan { tpid: 0x88a8, tci: 1 }, Vlan { tpid: 0x8100, tci: 2 }];
    for (path, expected) in [
        (fixed_path("198.18.0.1:1", "198.18.0.2:2"), [42, 46, 50]),
        (fixed_path("[2001:db8::1]:1", "[2001:db8::2]:2"), [62, 66, 70]),
    ] {
        for (count, header_bytes) in expected.into_iter().enumerate() {
            let template = Template::new(&plain_link(&tags[..count]), &path, 64).unwrap();
            assert_eq!(template.header_len(), header_bytes);
        }
    }
    assert_eq!(HEADER_BYTES_MAX, 70);
}

#[test]
fn a_path_of_two_families_has_no_template() {
    assert_eq!(Template::new(&plain_link(&[]), &fixed_path("198.18.0.1:1", "[2001:db8::2]:2"), 64), None);
    assert_eq!(Template::new(&plain_link(&[]), &fixed_path("[2001:db8::1]:1", "198.18.0.2:2"), 64), None);
}

#[test]
fn more_than_two_tags_are_refused() {
    assert_eq!(Vlans::new(&[Vlan::default(); 3]), None);
    assert_eq!(Vlans::new(&[Vlan::default(); 300]), None);
}

/// The largest payload that both IP versions' length fields hold; one byte more is refused.
#[test]
fn the_largest_payload_is_written_and_one_more_refused() {
    for path in [fixed_path("198.18.0.1:1", "198.18.0.2:2"), fixed_path("[2001:db8::1]:1", "[2001:db8::2]:2")]
    {
        let template = Template::new(&plain_link(&[]), &path, 64).unwrap();
        let mut frame = vec![0xff; template.header_len() + PAYLOAD_BYTES_MAX + 1];
        assert_eq!(template.write(&mut frame, PAYLOAD_BYTES_MAX + 1, 0), None);
        assert_eq!(template.write(&mut frame, usize::MAX, 0), None);
        let frame_bytes = template.write(&mut frame, PAYLOAD_BYTES_MAX, 0).unwrap();
        frame.truncate(frame_bytes);
        let datagram = datagram::parse(&frame).unwrap();
        assert_eq!(datagram.payload.len(), PAYLOAD_BYTES_MAX);
        assert_eq!(datagram.checksum(&frame), Checksum::Good);
    }
}

/// RFC 768: a computed zero is sent as all ones, also by the template's own arithmetic.
#[test]
fn a_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    let template = Template::new(&plain_link(&[]), &fixed_path("198.18.0.1:1", "198.18.0.2:2"), 64).unwrap();
    let mut frame = vec![0; template.header_len() + 2];
    let frame_bytes = template.write(&mut frame, 2, 0).unwrap();
    // A payload equal to the checksum over zeros balances the sum.
    frame.copy_within(40..42, 42);
    assert_eq!(template.write(&mut frame, 2, 0), Some(frame_bytes));
    assert_eq!(frame[40..42], [0xff, 0xff]);
    assert_eq!(datagram::parse(&frame).unwrap().checksum(&frame), Checksum::Good);
}

proptest! {
    #[test]
    fn strangers_read_what_was_asked_for(sent in sent()) {
        let packet = SlicedPacket::from_ethernet(&sent.frame).unwrap();
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("{packet:?}") };
        prop_assert_eq!(udp.payload(), &sent.payload[..]);
        let computed = match packet.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                prop_assert!(header.dont_fragment());
                prop_assert_eq!(header.identification(), 0);
                prop_assert_eq!(header.slice()[1], sent.ecn_bits);
                prop_assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                udp.to_header().calc_checksum_ipv4(&header.to_header(), &sent.payload).unwrap()
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                prop_assert_eq!(header.flow_label().value(), 0);
                prop_assert_eq!(header.traffic_class(), sent.ecn_bits);
                udp.to_header().calc_checksum_ipv6(&header.to_header(), &sent.payload).unwrap()
            }
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(udp.checksum(), computed);
        prop_assert_ne!(udp.checksum(), 0);
        prop_assert_eq!(oracle::read(&sent.frame), Some(received(&sent, computed)));
    }

    #[test]
    fn we_read_what_we_wrote(sent in sent()) {
        let datagram = datagram::parse(&sent.frame).unwrap();
        prop_assert_eq!(&datagram, &received(&sent, datagram.udp_checksum));
        prop_assert_eq!(&sent.frame[datagram.payload.clone()], &sent.payload[..]);
        prop_assert_eq!(datagram.checksum(&sent.frame), Checksum::Good);
    }

    /// Any buffer that is too short is refused and left alone; any ECN byte counts by its two low bits.
    #[test]
    fn short_buffers_are_left_alone(
        link in link(), path in path(), payload_bytes in 0..200usize, missing in 1..300usize, ecn in any::<u8>(),
    ) {
        let template = Template::new(&link, &path, 64).unwrap();
        let frame_bytes = template.header_len() + payload_bytes;
        let mut short = vec![0x5a; frame_bytes.saturating_sub(missing)];
        prop_assert_eq!(template.write(&mut short, payload_bytes, ecn), None);
        prop_assert_eq!(template.write_summed(&mut short, payload_bytes, ecn, Sum::default()), None);
        prop_assert!(short.iter().all(|&byte| byte == 0x5a));

        let mut frame = vec![0x5a; frame_bytes + missing];
        prop_assert_eq!(template.write(&mut frame, payload_bytes, ecn), Some(frame_bytes));
        prop_assert_eq!(datagram::parse(&frame).unwrap().ecn_bits, ecn & 0b11);
        prop_assert!(frame[template.header_len()..].iter().all(|&byte| byte == 0x5a), "beyond the headers");
    }
}
