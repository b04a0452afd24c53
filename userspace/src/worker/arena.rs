//! A worker's arena for bytes on their way from sockets to streams.
//!
//! Blocks are carved front to back into chunks that QUIC keeps until they are acknowledged; a block is freed when its
//! last chunk is. In front of every payload is room for the DATA frame header, so that header and payload are one chunk.

use bytes::{Bytes, BytesMut};
use masque::{CAPSULE_PREFIX_BYTES_MAX, DATA_HEADER_BYTES_MAX, Prefix, write_data_header_before};

/// One block: four full reads.
const BLOCK_BYTES: usize = 256 * 1024;
/// Payloads up to this are copied out instead, lest a few bytes that wait for an acknowledgement hold a whole block.
const COPY_OUT_BYTES_MAX: usize = 512;
/// A block with less room for payload than this is left behind.
const ROOM_BYTES_MIN: usize = 16 * 1024;

/// See the module.
pub(super) struct Arena {
    block: BytesMut,
    chunks: Vec<Bytes>,
    /// Each payload gets a buffer of its own from the allocator instead: what the arena saves, to be measured.
    plain: bool,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self { block: BytesMut::new(), chunks: Vec::new(), plain: false }
    }

    /// An arena that is none (`BEAM_ABLATION=no-arenas`).
    pub(super) fn plain() -> Self {
        Self { plain: true, ..Self::new() }
    }

    /// A scratch list, empty, that keeps its capacity.
    pub(super) fn chunks(&mut self) -> &mut Vec<Bytes> {
        self.chunks.clear();
        &mut self.chunks
    }

    /// Space for up to `max` payload bytes; [`Self::take_data_frame`] takes what was filled.
    pub(super) fn payload_space(&mut self, max: usize) -> &mut [u8] {
        if self.plain {
            self.block = BytesMut::zeroed(DATA_HEADER_BYTES_MAX + max.min(BLOCK_BYTES));
        } else if self.block.len() < DATA_HEADER_BYTES_MAX + ROOM_BYTES_MIN.min(max) {
            self.block = BytesMut::zeroed(BLOCK_BYTES);
        }
        let end = self.block.len().min(DATA_HEADER_BYTES_MAX + max);
        &mut self.block[DATA_HEADER_BYTES_MAX..end]
    }

    /// The first `length` bytes of the last [`Self::payload_space`], as a DATA frame.
    pub(super) fn take_data_frame(&mut self, length: usize) -> Bytes {
        let start = write_data_header_before(&mut self.block, DATA_HEADER_BYTES_MAX, length);
        let end = DATA_HEADER_BYTES_MAX + length;
        if length <= COPY_OUT_BYTES_MAX {
            return Bytes::copy_from_slice(&self.block[start..end]);
        }
        let mut chunk = self.block.split_to(end);
        let _header_room = chunk.split_to(start);
        chunk.freeze()
    }

    /// Space for the payload of one datagram, with room for any prefix in front; [`Self::take_datagram`] takes it.
    pub(super) fn datagram_space(&mut self, payload_bytes: usize) -> &mut [u8] {
        let end = CAPSULE_PREFIX_BYTES_MAX + payload_bytes;
        if self.plain {
            self.block = BytesMut::zeroed(end);
        } else if self.block.len() < end {
            self.block = BytesMut::zeroed(BLOCK_BYTES.max(end));
        }
        &mut self.block[CAPSULE_PREFIX_BYTES_MAX..end]
    }

    /// The payload of the last [`Self::datagram_space`], behind its prefix.
    pub(super) fn take_datagram(&mut self, prefix: &Prefix, payload_bytes: usize) -> Bytes {
        let start = prefix.write_before(&mut self.block, CAPSULE_PREFIX_BYTES_MAX);
        let end = CAPSULE_PREFIX_BYTES_MAX + payload_bytes;
        if payload_bytes <= COPY_OUT_BYTES_MAX {
            return Bytes::copy_from_slice(&self.block[start..end]);
        }
        let mut chunk = self.block.split_to(end);
        let _prefix_room = chunk.split_to(start);
        chunk.freeze()
    }

    /// Bytes from elsewhere as a DATA frame.
    pub(super) fn data_frame(&mut self, payload: &[u8]) -> Bytes {
        let space = self.payload_space(payload.len());
        if space.len() == payload.len() {
            space.copy_from_slice(payload);
            return self.take_data_frame(payload.len());
        }
        let mut chunk = BytesMut::zeroed(DATA_HEADER_BYTES_MAX + payload.len());
        chunk[DATA_HEADER_BYTES_MAX..].copy_from_slice(payload);
        let start = write_data_header_before(&mut chunk, DATA_HEADER_BYTES_MAX, payload.len());
        chunk.split_off(start).freeze()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what is put in comes out as one DATA frame (type 0, shortest length, payload), over many blocks.
    use super::*;

    fn check(frame: &Bytes, payload: &[u8]) {
        assert_eq!(frame[0], 0, "frame type DATA");
        let (length, header) = match frame[1] >> 6 {
            0 => (usize::from(frame[1]), 2),
            1 => (usize::from(u16::from_be_bytes([frame[1] & 0x3f, frame[2]])), 3),
            _ => (u32::from_be_bytes([frame[1] & 0x3f, frame[2], frame[3], frame[4]]) as usize, 5),
        };
        assert_eq!(length, payload.len());
        assert_eq!(&frame[header..], payload);
    }

    #[test]
    fn datagrams_stay_whole_behind_their_prefix_over_many_blocks() {
        for mut arena in [Arena::new(), Arena::plain()] {
            datagrams_of(&mut arena);
        }
    }

    fn datagrams_of(arena: &mut Arena) {
        let mut kept = Vec::new();
        for (i, length) in [0, 1, 512, 513, 1400, 65_527].into_iter().cycle().take(60).enumerate() {
            arena.datagram_space(length).fill(i as u8);
            let prefix = masque::datagram_prefix(4 * i as u64, 0);
            kept.push((i, length, prefix, arena.take_datagram(&prefix, length)));
        }
        for (i, length, prefix, datagram) in kept {
            assert_eq!(datagram[..prefix.len()], *prefix);
            assert_eq!(datagram[prefix.len()..], vec![i as u8; length]);
        }
    }

    #[test]
    fn frames_of_every_kind_of_length() {
        for mut arena in [Arena::new(), Arena::plain()] {
            frames_of(&mut arena);
        }
    }

    fn frames_of(arena: &mut Arena) {
        let mut kept = Vec::new();
        for (i, length) in
            [1, 63, 64, 512, 513, 16383, 16384, 60_000].into_iter().cycle().take(200).enumerate()
        {
            let payload: Vec<u8> = (0..length).map(|b| (b + i) as u8).collect();
            let space = arena.payload_space(payload.len());
            let n = space.len().min(payload.len());
            space[..n].copy_from_slice(&payload[..n]);
            kept.push((arena.take_data_frame(n), payload[..n].to_vec()));
            kept.push((arena.data_frame(&payload), payload));
        }
        for (frame, payload) in &kept {
            check(frame, payload);
        }
    }
}
