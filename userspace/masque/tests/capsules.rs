//! Goal: how the bytes of a tunnel are cut into DATA frames and QUIC chunks never changes which capsules they mean, right
//! or wrong. Method: a stream of each kind of capsule, cut at each byte and at each pair of bytes; streams of valid and
//! invalid capsules from proptest, cut at random; the result is that of the uncut stream. Failing seeds are printed by
//! proptest. Then the way through a whole request: HEADERS, DATA, capsules.

mod common;

use bytes::Bytes;
use common::{frame, varints};
use masque::{
    Address, AddressAssign, AddressRequest, CAPSULE_PREFIX_BYTES_MAX, Capsule, CapsuleCounts, CapsuleError,
    CapsuleLimits, CapsuleSet, Capsules, IpPrefix, Item, Kind, MessageReader, RequestHead,
    RouteAdvertisement, encode_request, has_capsule_protocol, listen, protocol, udp_payload, udp_target,
    varint, write_datagram_capsule_before,
};
use proptest::{prelude::*, sample::Index};

const LIMITS: CapsuleLimits = CapsuleLimits { datagram_bytes_max: 300, control_bytes_max: 100 };

type Meaning = (Vec<Capsule>, Option<CapsuleError>, CapsuleCounts);

fn meaning<'a>(set: CapsuleSet, chunks: impl IntoIterator<Item = &'a [u8]>) -> Meaning {
    let mut reader = Capsules::new(set, LIMITS);
    let mut capsules = Vec::new();
    let mut drain = |reader: &mut Capsules| loop {
        match reader.next() {
            Ok(Some(capsule)) => capsules.push(capsule),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        if let Some(error) = drain(&mut reader) {
            assert_eq!((reader.next(), reader.buffered_bytes()), (Err(error), 0), "a failed reader stays so");
            let counts = reader.counts();
            return (capsules, Some(error), counts);
        }
        assert!(reader.buffered_bytes() < 300, "it holds {} bytes", reader.buffered_bytes());
    }
    reader.finish();
    let error = drain(&mut reader);
    (capsules, error, reader.counts())
}

/// A capsule and a frame have the same header.
fn raw(kind: u64, payload: &[u8]) -> Vec<u8> {
    frame(kind, payload)
}

fn encoded(capsule: &Capsule) -> Vec<u8> {
    let mut out = Vec::new();
    capsule.encode(&mut out);
    out
}

fn addresses() -> Vec<Address> {
    let prefixes: [IpPrefix; 2] =
        ["198.18.0.7/32", "2001:db8::/64"].map(|text| text.parse().expect("a prefix"));
    prefixes.into_iter().zip(1..).map(|(prefix, request_id)| Address { request_id, prefix }).collect()
}

fn routes() -> RouteAdvertisement {
    let prefixes: [IpPrefix; 2] =
        ["10.1.0.0/16", "2001:db8::/32"].map(|text| text.parse().expect("a prefix"));
    RouteAdvertisement::covering(prefixes).expect("two routes")
}

fn of_ip() -> Vec<Capsule> {
    vec![
        Capsule::AddressRequest(AddressRequest::new(addresses()).expect("a request")),
        Capsule::Datagram(Bytes::from(vec![0; 70])),
        Capsule::AddressAssign(AddressAssign::new(addresses()).expect("an assignment")),
        Capsule::RouteAdvertisement(routes()),
        Capsule::Datagram(Bytes::new()),
        Capsule::AddressAssign(AddressAssign::default()),
    ]
}

fn of_listen() -> Vec<Capsule> {
    let accept = listen::Accept::new(1, "[2001:db8::1]:4711".parse().expect("an address")).expect("an id");
    vec![
        Capsule::Accept(accept),
        Capsule::Datagram(Bytes::from_static(&[1, 2, 3])),
        Capsule::Close(listen::Close::new(1).expect("an id")),
    ]
}

#[test]
fn each_pair_of_cuts() {
    for (set, capsules) in [(CapsuleSet::Ip, of_ip()), (CapsuleSet::Listen, of_listen())] {
        let mut stream = raw(0x29 * 1_000_000_000_000 + 0x17, b"reserved");
        for capsule in &capsules {
            stream.extend(encoded(capsule));
            stream.extend(raw(0x17, b""));
        }
        let whole = meaning(set, [&stream[..]]);
        assert_eq!((&whole.0, whole.1), (&capsules, None));
        assert_eq!(whole.2.unknown, 1 + capsules.len() as u64);
        assert_eq!(meaning(set, stream.chunks(1)), whole);
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let chunks = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(meaning(set, chunks), whole, "cuts at {first} and {second}");
            }
        }
    }
}

/// A stream that ends at any byte gives the capsules that are whole, and is truncated unless it ends between two.
#[test]
fn each_place_to_end() {
    let capsules = of_ip();
    let mut ends = vec![0];
    let mut stream = Vec::new();
    for capsule in &capsules {
        stream.extend(encoded(capsule));
        ends.push(stream.len());
    }
    for end in 0..=stream.len() {
        let (seen, error, _) = meaning(CapsuleSet::Ip, [&stream[..end]]);
        let whole_count = ends.iter().filter(|&&whole| whole <= end).count() - 1;
        assert_eq!(seen, capsules[..whole_count], "ends at {end}");
        assert_eq!(error, (!ends.contains(&end)).then_some(CapsuleError::Truncated), "ends at {end}");
    }
}

fn any_capsule() -> impl Strategy<Value = Vec<u8>> {
    let payload = |max: usize| proptest::collection::vec(any::<u8>(), 0..max);
    let valid = proptest::sample::select([of_ip(), of_listen()].concat());
    prop_oneof![
        6 => payload(310).prop_map(|payload| raw(0, &payload)),
        4 => valid.prop_map(|capsule| encoded(&capsule)),
        2 => (0u64..1 << 40, payload(200)).prop_map(|(n, payload)| raw(0x29 * n + 0x17, &payload)),
        1 => (0u64..4, payload(110)).prop_map(|(kind, payload)| raw(kind, &payload)),
        1 => (1u64..3, payload(20)).prop_map(|(low, payload)| raw(0x1bea_0000 + low, &payload)),
        1 => (0u64..4, any::<u64>()).prop_map(|(kind, length)| varints(&[kind, length & varint::VARINT_MAX])),
        1 => payload(12),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_cuts_of_any_stream(
        capsules in proptest::collection::vec(any_capsule(), 0..8), cuts in proptest::collection::vec(any::<Index>(), 0..12)
    ) {
        let stream = capsules.concat();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        for set in [CapsuleSet::Udp, CapsuleSet::Ip, CapsuleSet::Listen] {
            let whole = meaning(set, [&stream[..]]);
            prop_assert_eq!(meaning(set, at.windows(2).map(|pair| &stream[pair[0]..pair[1]])), whole);
        }
    }
}

/// RFC 9298 section 5, as libcurl does it: a CONNECT-UDP, then payloads in DATAGRAM capsules in DATA frames, where one
/// frame may hold several capsules and one capsule several frames.
#[test]
fn a_udp_tunnel_from_its_request_to_its_payloads() {
    let path = masque::udp_path(&masque::Host::Name("target.example".into()), 443);
    let head = RequestHead::capsule_tunnel(protocol::CONNECT_UDP, "gw.example", &path, &[]);
    let mut buffer = vec![0xee; CAPSULE_PREFIX_BYTES_MAX];
    buffer.extend([7; 1200]);
    let start = write_datagram_capsule_before(&mut buffer, CAPSULE_PREFIX_BYTES_MAX, 1200, 0);
    let two = [raw(0, b"\0one"), raw(0, b"\x02unknown"), raw(0, b"\0two")].concat();
    let stream = [
        &encode_request(&head)[..],
        &buffer[start..],
        &frame(0, &two[..5]),
        &frame(0, b""),
        &frame(0, &two[5..]),
    ]
    .concat();

    let mut messages = MessageReader::request(Default::default());
    messages.push(stream.into());
    messages.finish();
    let Ok(Some(Item::Headers(request))) = messages.next() else { panic!("no request") };
    assert!(has_capsule_protocol(&request.fields));
    let Kind::ExtendedConnect { protocol, path, .. } = request.kind else { panic!("no extended CONNECT") };
    assert_eq!(protocol, protocol::CONNECT_UDP);
    let target = udp_target(&path).expect("a target");
    assert_eq!((target.host.to_string(), target.port), ("target.example".to_owned(), 443));

    let mut reader = Capsules::new(CapsuleSet::Udp, CapsuleLimits::default());
    let (mut payloads, mut unknown_count) = (Vec::new(), 0);
    while let Some(item) = messages.next().expect("a valid stream") {
        match item {
            Item::Data(data) => reader.push(data),
            _ => reader.finish(),
        }
        while let Some(capsule) = reader.next().expect("valid capsules") {
            let Capsule::Datagram(datagram) = capsule else { panic!("{capsule:?}") };
            match udp_payload(datagram).expect("a valid datagram") {
                Some(payload) => payloads.push(payload),
                None => unknown_count += 1,
            }
        }
    }
    assert_eq!(payloads, [&[7; 1200][..], b"one", b"two"]);
    assert_eq!((unknown_count, reader.counts().datagrams), (1, 4));
}
