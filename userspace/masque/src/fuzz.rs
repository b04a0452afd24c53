//! One entry for fuzzers: arbitrary bytes through every decoder, in arbitrary chunks.

use crate::{
    Capsule, CapsuleError, CapsuleLimits, CapsuleSet, Capsules, Config, Connection, HostPort, Item, Limits,
    Message, MessageError, MessageReader, ResponseTo, context_id, datagram_prefix, ip_path, ip_target,
    listen, read_datagram, udp_path, udp_payload, udp_target,
};
use bytes::{Bytes, BytesMut};

/// The bound that [`one_input`] sets for field sections.
pub const FIELD_SECTION_BYTES_MAX: usize = 1024;
const HELD_BYTES_MAX: usize = FIELD_SECTION_BYTES_MAX + 16;
/// The bounds that it sets for capsules.
pub const CAPSULE_LIMITS: CapsuleLimits =
    CapsuleLimits { datagram_bytes_max: FIELD_SECTION_BYTES_MAX, control_bytes_max: 512 };

/// Feeds `input` to one decoder. The first byte picks which, the second the size of the chunks.
///
/// # Panics
/// When a decoder holds more than it may, or goes on after an error. That is the finding.
pub fn one_input(input: &[u8]) {
    let [target, step, rest @ ..] = input else { return };
    let step_bytes = usize::from(*step % 64) + 1;
    let limits =
        Limits { field_section_bytes_max: FIELD_SECTION_BYTES_MAX, extended_connect: target & 0x80 != 0 };
    match target & 0x0f {
        0 | 1 => message(MessageReader::request(limits), rest, step_bytes),
        2 => message(MessageReader::response(limits, ResponseTo::Other), rest, step_bytes),
        3 => message(MessageReader::response(limits, ResponseTo::Connect), rest, step_bytes),
        4 => uni(Connection::server(Config::default()), rest, step_bytes),
        5 => uni(Connection::client(Config::default()), rest, step_bytes),
        6 => drop(crate::qpack::decode(rest, FIELD_SECTION_BYTES_MAX)),
        7 => drop(str::from_utf8(rest).map(HostPort::parse)),
        8 => capsules(CapsuleSet::Udp, rest, step_bytes),
        9 | 10 => capsules(CapsuleSet::Ip, rest, step_bytes),
        11 => capsules(CapsuleSet::Listen, rest, step_bytes),
        12 => datagram(Bytes::copy_from_slice(rest)),
        _ => drop(str::from_utf8(rest).map(paths)),
    }
}

fn message<M: Message>(mut reader: MessageReader<M>, bytes: &[u8], step_bytes: usize) {
    for chunk in bytes.chunks(step_bytes) {
        reader.push(Bytes::copy_from_slice(chunk));
        if drain(&mut reader).is_err() {
            assert!(
                reader.next().is_err() && !reader.has_buffered(),
                "a failed reader stays failed and empty"
            );
            return;
        }
        assert!(reader.buffered_bytes() <= HELD_BYTES_MAX, "held {} bytes", reader.buffered_bytes());
    }
    reader.finish();
    drain(&mut reader).ok();
}

fn drain<M: Message>(reader: &mut MessageReader<M>) -> Result<(), MessageError> {
    while let Some(item) = reader.next()? {
        if let Item::Data(data) = item {
            assert!(!data.is_empty(), "an empty DATA item");
        }
    }
    Ok(())
}

fn uni(mut connection: Connection, bytes: &[u8], step_bytes: usize) {
    let stream_of = |at: usize| (at % 4) as u64 * 4 + 2;
    for id in 0..4 {
        connection.uni_opened(stream_of(id)).ok();
    }
    // The bytes go to one stream for a while, then to the next.
    for (at, chunk) in bytes.chunks(step_bytes).enumerate() {
        if connection.uni_data(stream_of(at / 8), Bytes::copy_from_slice(chunk), false).is_err() {
            return;
        }
        assert!(connection.buffered_bytes() <= HELD_BYTES_MAX, "held {} bytes", connection.buffered_bytes());
    }
}

fn capsules(set: CapsuleSet, bytes: &[u8], step_bytes: usize) {
    let mut reader = Capsules::new(set, CAPSULE_LIMITS);
    for chunk in bytes.chunks(step_bytes) {
        reader.push(Bytes::copy_from_slice(chunk));
        if drain_capsules(&mut reader).is_err() {
            let is_failed = reader.next().is_err() && !reader.has_buffered();
            assert!(is_failed, "a failed reader stays failed and empty");
            return;
        }
        assert!(reader.buffered_bytes() < FIELD_SECTION_BYTES_MAX, "held {} bytes", reader.buffered_bytes());
    }
    reader.finish();
    drain_capsules(&mut reader).ok();
}

/// What was read is written and read again, and is the same: nothing that is not valid gets through.
fn drain_capsules(reader: &mut Capsules) -> Result<(), CapsuleError> {
    while let Some(capsule) = reader.next()? {
        let set = match &capsule {
            Capsule::Datagram(payload) => {
                assert!(payload.len() <= CAPSULE_LIMITS.datagram_bytes_max, "a datagram above the limit");
                udp_payload(payload.clone()).ok();
                CapsuleSet::Udp
            }
            Capsule::Accept(_) | Capsule::Close(_) => CapsuleSet::Listen,
            _ => CapsuleSet::Ip,
        };
        let mut encoded = BytesMut::new();
        capsule.encode(&mut encoded);
        let mut again = Capsules::new(set, CapsuleLimits::default());
        again.push(encoded.freeze());
        assert_eq!(again.next(), Ok(Some(capsule)), "it is not read as it was written");
    }
    Ok(())
}

fn datagram(bytes: Bytes) {
    let Ok((stream_id, rest)) = read_datagram(bytes) else { return };
    let Ok((context, payload)) = context_id(rest) else { return };
    let again = [&datagram_prefix(stream_id, context)[..], &payload].concat();
    let (seen_id, rest) = read_datagram(again.into()).expect("what was written is read");
    assert_eq!(
        (seen_id, context_id(rest)),
        (stream_id, Ok((context, payload))),
        "it is not read as it was written"
    );
}

fn paths(path: &str) {
    if let Ok(target) = udp_target(path) {
        assert_eq!(udp_target(&udp_path(&target.host, target.port)), Ok(target), "another UDP target");
    }
    if let Ok(target) = ip_target(path) {
        assert_eq!(ip_target(&ip_path(&target)), Ok(target), "another IP target");
    }
    if let Ok(target) = listen::listen_target(path) {
        assert_eq!(listen::listen_target(&listen::listen_path(&target)), Ok(target), "another listener");
    }
    if let Ok(id) = listen::accept_target(path) {
        assert_eq!(listen::accept_target(&listen::accept_path(id)), Ok(id), "another id");
    }
}
