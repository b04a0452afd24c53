//! One entry for fuzzers: arbitrary bytes through every decoder, in arbitrary chunks.

use crate::{Config, Connection, HostPort, Item, Limits, Message, MessageError, MessageReader, ResponseTo};
use bytes::Bytes;

/// The bound that [`one_input`] sets for field sections.
pub const FIELD_SECTION_BYTES_MAX: usize = 1024;
const HELD_BYTES_MAX: usize = FIELD_SECTION_BYTES_MAX + 16;

/// Feeds `input` to one decoder. The first byte picks which, the second the size of the chunks.
///
/// # Panics
/// When a decoder holds more than it may, or goes on after an error. That is the finding.
pub fn one_input(input: &[u8]) {
    let [target, step, rest @ ..] = input else { return };
    let step_bytes = usize::from(*step % 64) + 1;
    let limits =
        Limits { field_section_bytes_max: FIELD_SECTION_BYTES_MAX, extended_connect: target & 0x80 != 0 };
    match target & 0x07 {
        0 | 1 => message(MessageReader::request(limits), rest, step_bytes),
        2 => message(MessageReader::response(limits, ResponseTo::Other), rest, step_bytes),
        3 => message(MessageReader::response(limits, ResponseTo::Connect), rest, step_bytes),
        4 => uni(Connection::server(Config::default()), rest, step_bytes),
        5 => uni(Connection::client(Config::default()), rest, step_bytes),
        6 => drop(crate::qpack::decode(rest, FIELD_SECTION_BYTES_MAX)),
        _ => drop(str::from_utf8(rest).map(HostPort::parse)),
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
