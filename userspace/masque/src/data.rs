//! The header of a DATA frame, written right in front of a payload so that both leave as one chunk.

use crate::{frame, varint};

/// Room to leave in front of a payload: one byte of type and the longest length.
pub const DATA_HEADER_BYTES_MAX: usize = 1 + varint::VARINT_BYTES_MAX;

/// The bytes that go in front of a DATA payload. Invariant: `len` is 2 to [`DATA_HEADER_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    bytes: [u8; DATA_HEADER_BYTES_MAX],
    len: usize,
}

impl AsRef<[u8]> for DataHeader {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The header of a DATA frame with a payload of `payload_bytes`.
#[must_use]
pub fn data_header(payload_bytes: usize) -> DataHeader {
    let mut bytes = [0; DATA_HEADER_BYTES_MAX];
    let mut rest = &mut bytes[..];
    varint::write(&mut rest, frame::DATA);
    varint::write(&mut rest, payload_bytes as u64);
    let len = DATA_HEADER_BYTES_MAX - rest.len();
    DataHeader { bytes, len }
}

/// Writes the DATA header of the payload at `payload_start..payload_start + payload_bytes` right in front of it and
/// returns where the frame starts now.
///
/// # Panics
/// When fewer bytes than the header takes lie in front of the payload: leave [`DATA_HEADER_BYTES_MAX`].
pub fn write_data_header_before(buffer: &mut [u8], payload_start: usize, payload_bytes: usize) -> usize {
    let header = data_header(payload_bytes);
    let header = header.as_ref();
    assert!(
        payload_start >= header.len() && payload_start <= buffer.len(),
        "a DATA header of {} bytes needs that room before the payload at {payload_start}; leave DATA_HEADER_BYTES_MAX",
        header.len()
    );
    let frame_start = payload_start - header.len();
    buffer[frame_start..payload_start].copy_from_slice(header);
    frame_start
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length form, at its edges: the frame found in the buffer parses back to the same payload length.
    #[test]
    fn the_header_ends_where_the_payload_starts() {
        for payload_bytes in [0, 1, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30] {
            let mut buffer = [0xee; DATA_HEADER_BYTES_MAX + 3];
            let start = write_data_header_before(&mut buffer, DATA_HEADER_BYTES_MAX, payload_bytes);
            let frame = &buffer[start..];
            assert_eq!(frame[0], 0);
            let (length, size) = varint::read(&frame[1..]).unwrap();
            assert_eq!((length, start + 1 + size), (payload_bytes as u64, DATA_HEADER_BYTES_MAX));
            assert_eq!(data_header(payload_bytes).as_ref(), &buffer[start..DATA_HEADER_BYTES_MAX]);
        }
    }

    #[test]
    #[should_panic(expected = "leave DATA_HEADER_BYTES_MAX")]
    fn too_little_room_is_the_callers_mistake() {
        write_data_header_before(&mut [0; 8], 1, 7);
    }
}
