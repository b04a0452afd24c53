//! Goal: each rule of the capsule protocol, by the sentence it comes from. Method: capsules written by hand, whole and
//! in pieces; tests/capsules.rs cuts them everywhere.

use super::*;
use crate::{Address, IpPrefix, IpRange, varint};
use bytes::BytesMut;
use std::net::SocketAddr;

fn raw(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint::write(&mut out, kind);
    varint::write(&mut out, payload.len() as u64);
    [out, payload.to_vec()].concat()
}

fn read(set: CapsuleSet, bytes: &[u8]) -> (Vec<Capsule>, Option<CapsuleError>, CapsuleCounts) {
    let mut reader = Capsules::new(set, CapsuleLimits::default());
    reader.push(Bytes::copy_from_slice(bytes));
    reader.finish();
    let mut capsules = Vec::new();
    let error = loop {
        match reader.next() {
            Ok(Some(capsule)) => capsules.push(capsule),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    (capsules, error, reader.counts())
}

fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

fn one_of_each() -> Vec<(CapsuleSet, Capsule)> {
    let peer: SocketAddr = "[2001:db8::1]:4711".parse().unwrap();
    let addresses = vec![
        Address { request_id: 1, prefix: prefix("198.18.0.7/32") },
        Address { request_id: 2, prefix: prefix("2001:db8::/64") },
    ];
    vec![
        (CapsuleSet::Udp, Capsule::Datagram(Bytes::from_static(b"\0hello"))),
        (CapsuleSet::Ip, Capsule::AddressAssign(AddressAssign::new(addresses.clone()).unwrap())),
        (CapsuleSet::Ip, Capsule::AddressAssign(AddressAssign::default())),
        (CapsuleSet::Ip, Capsule::AddressRequest(AddressRequest::new(addresses).unwrap())),
        (
            CapsuleSet::Ip,
            Capsule::RouteAdvertisement(
                RouteAdvertisement::covering([prefix("10.1.0.0/16"), prefix("2001:db8::/32")]).unwrap(),
            ),
        ),
        (CapsuleSet::Ip, Capsule::RouteAdvertisement(RouteAdvertisement::default())),
        (CapsuleSet::Listen, Capsule::Accept(Accept::new(70_000, peer).unwrap())),
        (CapsuleSet::Listen, Capsule::Close(Close::new(1).unwrap())),
    ]
}

#[test]
fn what_is_encoded_is_read_back() {
    for (set, capsule) in one_of_each() {
        let mut bytes = BytesMut::new();
        capsule.encode(&mut bytes);
        assert_eq!(read(set, &bytes).0, std::slice::from_ref(&capsule));
        let frame = capsule.data_frame();
        let header = crate::data_header(bytes.len());
        assert_eq!(&frame[..], [header.as_ref(), &bytes].concat());
    }
}

/// "Endpoints that receive a Capsule with an unknown Capsule Type MUST silently drop that Capsule and skip over it to
/// parse the next Capsule" (RFC 9297 section 3.2). What a protocol does not define is unknown on its streams, whatever
/// it holds.
#[test]
fn unknown_capsules_are_skipped_and_counted() {
    let datagram = raw(DATAGRAM, b"\0a");
    let unknown = [
        raw(0x17, b"reserved"),
        raw(0x29 * 1_000_000_000_000 + 0x17, b""),
        raw(varint::VARINT_MAX, &[0xff; 40_000]),
        datagram.clone(),
    ]
    .concat();
    for set in [CapsuleSet::Udp, CapsuleSet::Ip, CapsuleSet::Listen] {
        let (capsules, error, counts) = read(set, &unknown);
        assert_eq!((capsules.len(), error), (1, None));
        assert_eq!(counts, CapsuleCounts { datagrams: 1, unknown: 3, ..CapsuleCounts::default() });
    }
    let others = [raw(ADDRESS_REQUEST, b"junk"), raw(BEAM_ACCEPT, b"junk"), datagram].concat();
    let (capsules, error, counts) = read(CapsuleSet::Udp, &others);
    assert_eq!((capsules.len(), error, counts.unknown), (1, None, 2));
    assert!(matches!(read(CapsuleSet::Ip, &others), (_, Some(CapsuleError::Malformed(_)), _)));
    assert!(matches!(read(CapsuleSet::Listen, &others), (_, Some(CapsuleError::Malformed(_)), _)));
}

/// "If the receive side of a stream carrying capsules is terminated cleanly [...] and the last capsule on the stream was
/// truncated, this MUST be treated as if it were a malformed or incomplete message" (RFC 9297 section 3.3).
#[test]
fn a_truncated_last_capsule_is_an_error_of_the_stream() {
    let whole = [raw(0x21, b"skipped"), raw(DATAGRAM, b"\0payload")].concat();
    let first = raw(0x21, b"skipped").len();
    for cut in 0..=whole.len() {
        let (_, error, _) = read(CapsuleSet::Udp, &whole[..cut]);
        let is_between = [0, first, whole.len()].contains(&cut);
        assert_eq!(error, (!is_between).then_some(CapsuleError::Truncated), "cut at {cut}");
    }
    assert_eq!(CapsuleError::Truncated.scope(), Scope::Stream);
    assert_eq!(CapsuleError::Truncated.code(), Code::H3_MESSAGE_ERROR);
}

/// A datagram of the limit is taken, one byte more is skipped as it arrives, and the next capsule is read.
#[test]
fn a_datagram_above_the_limit_is_skipped_and_counted() {
    let limits = CapsuleLimits { datagram_bytes_max: 100, control_bytes_max: 50 };
    let mut reader = Capsules::new(CapsuleSet::Udp, limits);
    let bytes = [raw(DATAGRAM, &[1; 101]), raw(DATAGRAM, &[2; 100]), raw(DATAGRAM, &[])].concat();
    let mut lengths = Vec::new();
    for chunk in bytes.chunks(7) {
        reader.push(Bytes::copy_from_slice(chunk));
        while let Some(capsule) = reader.next().unwrap() {
            let Capsule::Datagram(payload) = capsule else { panic!("{capsule:?}") };
            lengths.push((payload.len(), payload.first().copied()));
        }
        assert!(reader.buffered_bytes() < 100);
    }
    reader.finish();
    assert_eq!(reader.next(), Ok(None));
    assert_eq!(lengths, [(100, Some(2)), (0, None)]);
    let expected = CapsuleCounts { datagrams: 2, oversize_datagrams: 1, ..CapsuleCounts::default() };
    assert_eq!(reader.counts(), expected);
}

/// An endpoint that receives context 0 with a UDP payload of more than 65527 bytes "MUST abort the corresponding stream"
/// (RFC 9298 section 5), whatever form its context id has and however the stream is cut; `connect-ip` has no such rule.
#[test]
fn an_oversize_udp_payload_ends_the_stream() {
    let limits = CapsuleLimits { datagram_bytes_max: 100, control_bytes_max: 50 };
    for context in [&[0][..], &[0x40, 0], &[0x80, 0, 0, 0], &[0xc0, 0, 0, 0, 0, 0, 0, 0]] {
        let bytes = raw(DATAGRAM, &[context, &[7; 100]].concat());
        for chunk_bytes in [1, 3, bytes.len()] {
            let feed = |set| {
                let mut reader = Capsules::new(set, limits);
                bytes.chunks(chunk_bytes).for_each(|chunk| reader.push(Bytes::copy_from_slice(chunk)));
                let result = reader.next();
                let counts = CapsuleCounts { oversize_datagrams: 1, ..CapsuleCounts::default() };
                assert_eq!((reader.counts(), reader.has_buffered()), (counts, false));
                result
            };
            assert!(matches!(feed(CapsuleSet::Udp), Err(CapsuleError::Malformed(_))), "{context:?}");
            assert_eq!(feed(CapsuleSet::Ip), Ok(None));
        }
    }
}

/// Nothing is reserved for what a length only announces; a control capsule above the limit ends the stream at once.
#[test]
fn an_announced_length_costs_nothing() {
    let mut reader = Capsules::new(CapsuleSet::Ip, CapsuleLimits::default());
    reader.push(Bytes::from_static(&[0x00, 0x80, 0x01, 0x00, 0x07, 9]));
    assert_eq!((reader.next(), reader.buffered_bytes()), (Ok(None), 1));

    let mut reader = Capsules::new(CapsuleSet::Ip, CapsuleLimits::default());
    reader.push(Bytes::from_static(&[0x01, 0x80, 0x00, 0x40, 0x01]));
    let error = CapsuleError::TooLarge { kind: 1, seen_bytes: 16_385, limit_bytes: 16_384 };
    assert_eq!(reader.next(), Err(error));
    assert_eq!(error.code(), Code::H3_EXCESSIVE_LOAD);
    // It stays failed, and takes nothing more.
    reader.push(Bytes::from_static(b"\0\x01a"));
    assert_eq!((reader.next(), reader.has_buffered()), (Err(error), false));
}

/// A datagram that came in one chunk is a slice of it; one in pieces is put together.
#[test]
fn a_whole_datagram_is_not_copied() {
    let chunk = Bytes::from([raw(DATAGRAM, b"\0one"), raw(DATAGRAM, b"\0two"), vec![0, 6]].concat());
    let mut reader = Capsules::new(CapsuleSet::Udp, CapsuleLimits::default());
    reader.push(chunk.clone());
    for (at, text) in [(2, "\0one"), (8, "\0two")] {
        let Ok(Some(Capsule::Datagram(payload))) = reader.next() else { panic!("no datagram") };
        assert_eq!(payload, text);
        assert_eq!(payload.as_ptr(), chunk[at..].as_ptr());
    }
    assert_eq!((reader.next(), reader.has_buffered()), (Ok(None), false));
    for part in [&b"\0"[..], b"th", b"re"] {
        reader.push(Bytes::from_static(part));
        assert_eq!(reader.next(), Ok(None));
    }
    assert_eq!(reader.buffered_bytes(), 5);
    reader.push(Bytes::from_static(b"e\0"));
    assert_eq!(reader.next(), Ok(Some(Capsule::Datagram(Bytes::from_static(b"\0three")))));
}

/// Every length form of DATA frame, capsule and context: what stands in front of the payload reads back to it.
#[test]
fn the_prefix_of_a_datagram_ends_where_its_payload_starts() {
    for payload_bytes in [0, 1, 59, 60, 61, 62, 63, 64, 1_200, 16_379, 16_384, 65_535] {
        for context_id in [0, 63, 64, 1 << 20, varint::VARINT_MAX] {
            let mut buffer = vec![0xee; CAPSULE_PREFIX_BYTES_MAX + payload_bytes];
            let start = write_datagram_capsule_before(
                &mut buffer,
                CAPSULE_PREFIX_BYTES_MAX,
                payload_bytes,
                context_id,
            );
            let frame = &buffer[start..];
            let (length, size) = varint::read(&frame[1..]).unwrap();
            assert_eq!((frame[0], 1 + size + length as usize), (0, frame.len()));

            let (capsules, error, _) = read(CapsuleSet::Udp, &frame[1 + size..]);
            let [Capsule::Datagram(datagram)] = &capsules[..] else { panic!("{error:?}") };
            let (seen, payload) = crate::context_id(datagram.clone()).unwrap();
            assert_eq!((seen, payload.len(), error), (context_id, payload_bytes, None));
            let mut header = Vec::new();
            write_datagram_capsule_header(&mut header, context_id, payload_bytes);
            assert_eq!(&frame[1 + size..][..header.len()], header);
        }
    }
}

#[test]
#[should_panic(expected = "leave CAPSULE_PREFIX_BYTES_MAX")]
fn too_little_room_is_the_callers_mistake() {
    write_datagram_capsule_before(&mut [0; 64], 4, 60, 0);
}

/// "A capsule payload that contains additional bytes after the identified fields or a capsule payload that terminates
/// before the end of the identified fields MUST be treated as if it were a malformed or incomplete message" (RFC 9297
/// section 3.3): every proper prefix of an entry, and every entry with a byte more.
#[test]
fn control_payloads_hold_exactly_their_fields() {
    let range = IpRange::of(prefix("10.0.0.0/8"), 6);
    let routes = RouteAdvertisement::new(vec![range]).unwrap();
    let request = AddressRequest::new(vec![Address { request_id: 9, prefix: prefix("::/64") }]).unwrap();
    let close = Close::new(70_000).unwrap();
    let cases = [
        (CapsuleSet::Ip, Capsule::AddressRequest(request)),
        (CapsuleSet::Ip, Capsule::RouteAdvertisement(routes)),
        (CapsuleSet::Listen, Capsule::Close(close)),
    ];
    for (set, capsule) in cases {
        let mut encoded = BytesMut::new();
        capsule.encode(&mut encoded);
        let (kind, kind_bytes) = varint::read(&encoded).unwrap();
        let payload = &encoded[kind_bytes + 1..];
        // No bytes at all are an empty list, which only a request must not be.
        let first = usize::from(kind == ROUTE_ADVERTISEMENT);
        for cut in first..payload.len() {
            let (_, error, _) = read(set, &raw(kind, &payload[..cut]));
            assert!(matches!(error, Some(CapsuleError::Malformed(_))), "{capsule:?} cut at {cut}: {error:?}");
        }
        let (_, error, _) = read(set, &raw(kind, &[payload, &[0x40]].concat()));
        assert!(matches!(error, Some(CapsuleError::Malformed(_))), "{capsule:?} and a byte: {error:?}");
    }
}
