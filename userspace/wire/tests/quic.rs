//! Goal: QUIC's invariants are read as RFC 8999 draws them, from any version and any length.
//! Method: packets from the appendices of RFC 9001 and RFC 9369, every cut of them, and random connection IDs.

use proptest::{collection::vec, prelude::*};
use wire::quic::{
    self, LongHeader, LongType, VERSION_1, VERSION_2, VERSION_NEGOTIATION, has_fixed_bit, is_long_header,
    long_header, long_type, short_dcid,
};

const DCID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

/// RFC 9001 appendix A.2: the client Initial's header, before header protection.
const INITIAL_V1: [u8; 22] =
    [0xc3, 0, 0, 0, 1, 8, 0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08, 0, 0, 0x44, 0x9e, 0, 0, 0, 2];

/// RFC 9369 appendix A.2: the same in version 2.
const INITIAL_V2: [u8; 22] = [
    0xd3, 0x6b, 0x33, 0x43, 0xcf, 8, 0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08, 0, 0, 0x44, 0x9e, 0, 0,
    0, 2,
];

#[test]
fn the_rfcs_initial_packets() {
    for (packet, version) in [(INITIAL_V1, VERSION_1), (INITIAL_V2, VERSION_2)] {
        let expected = LongHeader { first: packet[0], version, dcid: &DCID, scid: &[], rest: &packet[15..] };
        assert_eq!(long_header(&packet), Some(expected));
        assert_eq!(expected.packet_type(), Some(LongType::Initial));
        assert_eq!(short_dcid(&packet, 8), None);
        assert!(has_fixed_bit(packet[0]));
    }
}

#[test]
fn a_cut_long_header_is_none() {
    for length in 0..15 {
        assert_eq!(long_header(&INITIAL_V1[..length]), None, "{length}");
    }
    assert!(long_header(&INITIAL_V1[..15]).is_some());
}

/// RFC 9000 section 17.2 and RFC 9369 section 3.2.
#[test]
fn versions_number_their_types_differently() {
    use LongType::{Handshake, Initial, Retry, ZeroRtt};
    for (version, types) in
        [(VERSION_1, [Initial, ZeroRtt, Handshake, Retry]), (VERSION_2, [Retry, Initial, ZeroRtt, Handshake])]
    {
        for (bits, expected) in (0u8..).zip(types) {
            for rest in 0..16 {
                assert_eq!(long_type(0xc0 | bits << 4 | rest, version), Some(expected));
                assert_eq!(long_type(0x40 | bits << 4 | rest, version), None, "a short header has no type");
            }
        }
    }
    for version in [VERSION_NEGOTIATION, 2, 0xff00_001d, 0x0a0a_0a0a] {
        assert_eq!(long_type(0xc0, version), None);
    }
}

/// RFC 9000 section 17.2.1: version 0, and a first byte whose other bits mean nothing.
#[test]
fn version_negotiation_is_a_long_header() {
    let mut packet = vec![0x80, 0, 0, 0, 0, 0, 8];
    packet.extend(DCID);
    packet.extend([0, 0, 0, 1]);
    let header = long_header(&packet);
    assert_eq!(header.map(|header| header.version), Some(VERSION_NEGOTIATION));
    assert_eq!(
        header.map(|header| (header.dcid, header.scid, header.rest)),
        Some((&[][..], &DCID[..], &[0, 0, 0, 1][..]))
    );
    assert_eq!(header.and_then(|header| header.packet_type()), None);
}

#[test]
fn an_empty_datagram_is_nothing() {
    assert_eq!((long_header(&[]), short_dcid(&[], 0)), (None, None));
}

proptest! {
    /// RFC 8999 section 5.1: connection IDs of 0 to 255 bytes in versions that nobody knows yet.
    #[test]
    fn any_version_s_connection_ids(
        first in 0x80..=0xffu8, version in any::<u32>(), dcid in vec(any::<u8>(), 0..=255),
        scid in vec(any::<u8>(), 0..=255), rest in vec(any::<u8>(), 0..40),
    ) {
        let mut packet = vec![first];
        packet.extend(version.to_be_bytes());
        for id in [&dcid, &scid] {
            packet.push(id.len() as u8);
            packet.extend(id);
        }
        let header_bytes = packet.len();
        packet.extend(&rest);
        let expected = LongHeader { first, version, dcid: &dcid, scid: &scid, rest: &rest };
        prop_assert_eq!(long_header(&packet), Some(expected));
        prop_assert_eq!(long_header(&packet[..header_bytes - 1]), None);
    }

    #[test]
    fn short_headers_begin_with_the_connection_id(
        first in 0..0x80u8, rest in vec(any::<u8>(), 0..64), dcid_bytes in 0..=quic::CID_BYTES_MAX,
    ) {
        let packet = [&[first][..], &rest].concat();
        prop_assert!(!is_long_header(first));
        prop_assert_eq!(long_header(&packet), None);
        prop_assert_eq!(short_dcid(&packet, dcid_bytes), rest.get(..dcid_bytes));
    }

    #[test]
    fn noise_does_no_harm(noise in vec(any::<u8>(), 0..600), dcid_bytes in any::<usize>()) {
        let header = long_header(&noise);
        prop_assert!(header.is_none() || short_dcid(&noise, dcid_bytes).is_none());
    }
}
