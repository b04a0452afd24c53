//! Opens the datagrams of a burst before quinn sees them, from where they were received into the buffers that quinn
//! keeps.
//!
//! Removing the header's protection, recovering the packet number and opening the payload happen in one step for all,
//! and nothing in between branches on what the mask uncovered but lengths and the key phase (RFC 9001 section 9.5).

use super::context::Verdict;
use super::keys::KEY_PHASE;
use super::mirror::{Cid, Mirror, RxKeys};
use crate::cid::CID_LEN_BYTES;
use crate::engine::Slab;
use bytes::BytesMut;
use simd::{Guard, MaskJob, OpenJob, PacketKey, SAMPLE_BYTES, TAG_BYTES};
use std::sync::Arc;

/// Where a short header's packet number begins.
const NUMBER_OFFSET: usize = 1 + CID_LEN_BYTES;
/// The sample lies as if the packet number had four bytes (RFC 9001 section 5.4.2).
const SAMPLE_OFFSET: usize = NUMBER_OFFSET + 4;

/// A datagram that was opened before quinn sees it.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Header without protection, payload (of a forgery: the ciphertext), and the tag as it came: a stateless reset is
    /// told by it.
    pub(crate) buffer: BytesMut,
    pub(crate) verdict: Verdict,
    /// The connection whose keys were used.
    pub(crate) index: u32,
}

/// The datagrams of one burst. Kept from burst to burst for its capacity.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    /// By the datagram's place in the burst.
    pub(crate) opened: Vec<Option<Ahead>>,
    /// What the verdicts name. Each differs from the one before it.
    pub(crate) keys: Vec<Arc<PacketKey>>,
}

/// A datagram whose keys are known.
struct Candidate<'a> {
    at: usize,
    index: u32,
    rx: &'a RxKeys,
    datagram: &'a [u8],
}

/// A candidate whose header is readable.
struct Readable<'a> {
    candidate: Candidate<'a>,
    keys: u32,
    packet_number: u64,
    header_bytes: usize,
    buffer: BytesMut,
}

impl Burst {
    /// Opens what can be opened ahead, and says how many that were. `self.keys` may hold those of bursts that quinn hasn't
    /// handled yet.
    pub(crate) fn open<'a>(
        &mut self,
        datagrams: impl Iterator<Item = &'a [u8]>,
        mirror: &'a Mirror,
        guard: &mut Guard,
        slab: &mut Slab,
    ) -> usize {
        self.opened.clear();
        let mut candidates = Vec::new();
        for (at, datagram) in datagrams.enumerate() {
            self.opened.push(None);
            candidates.extend(candidate(at, datagram, mirror));
        }
        if candidates.is_empty() {
            return 0;
        }
        let mut masks: Vec<MaskJob<'_>> = candidates.iter().map(Candidate::mask_job).collect();
        guard.mask(&mut masks);
        let mut readable = Vec::with_capacity(candidates.len());
        let masks: Vec<[u8; simd::MASK_BYTES]> = masks.iter().map(|job| job.mask).collect();
        for (candidate, mask) in candidates.into_iter().zip(&masks) {
            readable.extend(candidate.read(mask, slab, &mut self.keys));
        }
        let mut jobs: Vec<OpenJob<'_>> = readable.iter_mut().map(Readable::open_job).collect();
        guard.open(&mut jobs);
        let authentic: Vec<bool> = jobs.iter().map(|job| job.authentic).collect();
        let opened_count = authentic.len();
        for (mut readable, authentic) in readable.into_iter().zip(authentic) {
            if !authentic {
                readable.close();
            }
            let Readable { candidate: Candidate { at, index, .. }, keys, packet_number, buffer, .. } =
                readable;
            let verdict = Verdict { keys, packet_number, authentic };
            self.opened[at] = Some(Ahead { buffer, verdict, index });
        }
        opened_count
    }
}

/// The CID that a datagram with a short header is for.
pub(crate) fn short_cid(datagram: &[u8]) -> Option<&Cid> {
    let (&first, rest) = datagram.split_first()?;
    if first & 0x80 != 0 { None } else { rest.first_chunk() }
}

fn candidate<'a>(at: usize, datagram: &'a [u8], mirror: &'a Mirror) -> Option<Candidate<'a>> {
    if datagram.len() < SAMPLE_OFFSET + SAMPLE_BYTES {
        return None;
    }
    let (index, rx) = mirror.find(short_cid(datagram)?)?;
    Some(Candidate { at, index, rx, datagram })
}

impl<'a> Candidate<'a> {
    fn mask_job(&self) -> MaskJob<'a> {
        let mut sample = [0; SAMPLE_BYTES];
        sample.copy_from_slice(&self.datagram[SAMPLE_OFFSET..SAMPLE_OFFSET + SAMPLE_BYTES]);
        MaskJob { key: &self.rx.header, sample, mask: [0; simd::MASK_BYTES] }
    }

    /// Reads the header under its mask; `None` when the packet is of another key phase, which only quinn can judge.
    fn read(
        self,
        mask: &[u8; simd::MASK_BYTES],
        slab: &mut Slab,
        keys: &mut Vec<Arc<PacketKey>>,
    ) -> Option<Readable<'a>> {
        let first = self.datagram[0] ^ (mask[0] & simd::protected_bits(self.datagram[0]));
        let number_bytes = usize::from(first & 0x03) + 1;
        let header_bytes = NUMBER_OFFSET + number_bytes;
        if (first & KEY_PHASE != 0) != self.rx.phase || self.datagram.len() < header_bytes + TAG_BYTES {
            return None;
        }
        let mut buffer = slab.take(self.datagram.len());
        buffer[..NUMBER_OFFSET].copy_from_slice(&self.datagram[..NUMBER_OFFSET]);
        buffer[0] = first;
        let mut truncated = 0;
        for n in 0..number_bytes {
            let byte = self.datagram[NUMBER_OFFSET + n] ^ mask[1 + n];
            buffer[NUMBER_OFFSET + n] = byte;
            truncated = truncated << 8 | u64::from(byte);
        }
        let tag = self.datagram.len() - TAG_BYTES;
        buffer[tag..].copy_from_slice(&self.datagram[tag..]);
        if keys.last().is_none_or(|last| !Arc::ptr_eq(last, &self.rx.packet)) {
            keys.push(self.rx.packet.clone());
        }
        let packet_number = expand(truncated, number_bytes, self.rx.largest + 1);
        Some(Readable { candidate: self, keys: keys.len() as u32 - 1, packet_number, header_bytes, buffer })
    }
}

impl Readable<'_> {
    fn open_job(&mut self) -> OpenJob<'_> {
        let (header, payload) = self.buffer.split_at_mut(self.header_bytes);
        let plain_bytes = payload.len() - TAG_BYTES;
        OpenJob {
            key: &self.candidate.rx.packet,
            packet_number: self.packet_number,
            header,
            ciphertext: &self.candidate.datagram[self.header_bytes..],
            dst: &mut payload[..plain_bytes],
            authentic: false,
        }
    }

    /// Puts the ciphertext back: nobody gets to see what the cipher made of a forgery, and quinn may have another key or
    /// number for it.
    fn close(&mut self) {
        self.buffer[self.header_bytes..].copy_from_slice(&self.candidate.datagram[self.header_bytes..]);
    }
}

/// The packet number that is nearest to `expected` among those that end in these bytes (RFC 9000 appendix A.3).
fn expand(truncated: u64, number_bytes: usize, expected: u64) -> u64 {
    let window = 1u64 << (8 * number_bytes);
    let candidate = (expected & !(window - 1)) | truncated;
    if candidate + window / 2 <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9000 appendix A.3: the example, the edges of the window, and both ends of the number space.
    #[test]
    fn packet_numbers_expand_to_the_nearest() {
        assert_eq!(expand(0x9b32, 2, 0xa82f_30ea + 1), 0xa82f_9b32);
        assert_eq!(expand(0xff, 1, 0x100), 0xff);
        assert_eq!(expand(0x00, 1, 0xff), 0x100);
        assert_eq!(expand(0x80, 1, 0x100), 0x180);
        assert_eq!(expand(0x81, 1, 0x100), 0x81);
        assert_eq!(expand(0xff, 1, 0), 0xff);
        assert_eq!(expand(0, 1, (1 << 62) - 1), (1 << 62) - 0x100);
    }
}
