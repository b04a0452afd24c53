//! What quinn wrote on its way out: transmits of many connections, sealed together into the slots that a port gives.

use super::outbound::Transmit;
use crate::protection::{Noted, Notes};
use simd::{Guard, Packet};

/// Datagrams that are sealed together, at most.
const BATCH_DATAGRAMS_MAX: usize = 64;
/// Bytes from which on a batch is sealed: with its ciphertext it lies in a second-level cache. 12 KB, for the first-level
/// cache, was no faster (Zen 3, one connection at MTU 1452: 998 and 1,003 ns a packet).
const BATCH_BYTES: usize = 64 << 10;

/// Buffers kept: those of a full batch of bulk senders, and as many again.
const SPARE_MAX: usize = 16;

/// Transmits whose packets are noted, in their order. Kept for its buffers' capacity.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) pending: Vec<Pending>,
    pub(super) datagram_count: usize,
    size_bytes: usize,
    notes: Notes,
    spare: Vec<Vec<u8>>,
}

/// One transmit as quinn left it.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) transmit: Transmit,
    bytes: Vec<u8>,
    /// How many packets were noted for it; none if it is all as the wire may see it.
    noted_count: usize,
}

impl Pending {
    /// How many of [`Batch::packets`] are its.
    pub(super) fn packet_count(&self) -> usize {
        if self.noted_count == 0 { self.transmit.datagram_count() } else { self.noted_count }
    }
}

impl Batch {
    /// An empty buffer for quinn to write into, and the notes that go with it.
    pub(super) fn begin(&mut self) -> (Vec<u8>, &mut Notes) {
        (self.spare.pop().unwrap_or_default(), &mut self.notes)
    }

    /// Gives back a buffer that quinn has written nothing into.
    pub(super) fn give_back(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        self.spare.push(bytes);
    }

    /// Gives back the buffers of batches long sent.
    pub(super) fn release(&mut self) {
        if self.pending.is_empty() {
            *self = Self::default();
        }
    }

    /// How many packets have been noted so far.
    pub(super) fn noted_count(&self) -> usize {
        self.notes.packets.len()
    }

    /// Forgets what was noted after so many: quinn has written it and then thought better of it.
    pub(super) fn forget_after(&mut self, noted_count: usize) {
        self.notes.packets.truncate(noted_count);
    }

    /// Appends a transmit, of which the last `noted_count` notes tell.
    pub(super) fn push(&mut self, transmit: Transmit, bytes: Vec<u8>, noted_count: usize) {
        self.datagram_count += transmit.datagram_count();
        self.size_bytes += bytes.len();
        self.pending.push(Pending { transmit, bytes, noted_count });
    }

    /// Whether it is worth sealing now.
    pub(super) fn is_full(&self) -> bool {
        self.datagram_count >= BATCH_DATAGRAMS_MAX || self.size_bytes >= BATCH_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The packets of all pending transmits; `None` when what was noted and what was written don't fit each other.
    pub(super) fn packets(&self) -> Option<Vec<Packet<'_>>> {
        if self.notes.broken {
            return None;
        }
        let mut noted = self.notes.packets.as_slice();
        let mut packets = Vec::with_capacity(noted.len().max(self.pending.len()));
        for pending in &self.pending {
            let (its, rest) = noted.split_at_checked(pending.noted_count)?;
            noted = rest;
            self.packets_of(&pending.transmit, &pending.bytes, its, &mut packets)?;
        }
        noted.is_empty().then_some(packets)
    }

    /// Seals a transmit, of which the last `noted_count` notes tell, apart from the batch.
    pub(super) fn seal_alone(
        &mut self,
        guard: &mut Guard,
        transmit: Transmit,
        bytes: Vec<u8>,
        noted_count: usize,
    ) -> Option<Vec<u8>> {
        if noted_count == 0 {
            return (!self.notes.broken).then_some(bytes);
        }
        let its_from = self.notes.packets.len() - noted_count;
        let mut packets = Vec::with_capacity(noted_count);
        let its = &self.notes.packets[its_from..];
        let sound = self.packets_of(&transmit, &bytes, its, &mut packets).filter(|()| !self.notes.broken);
        let sealed = sound.and_then(|()| guard.protect(vec![vec![0; bytes.len()]], &packets).ok());
        self.forget_after(its_from);
        sealed?.into_iter().next().map(simd::Sealed::into_inner)
    }

    /// Appends the packets of one transmit.
    fn packets_of<'a>(
        &'a self,
        transmit: &Transmit,
        bytes: &'a [u8],
        noted: &[Noted],
        packets: &mut Vec<Packet<'a>>,
    ) -> Option<()> {
        if noted.is_empty() {
            packets.extend(bytes.chunks(transmit.segment_bytes).map(|bytes| Packet::Protected { bytes }));
            return Some(());
        }
        let mut rest = bytes;
        for noted in noted {
            packets.push(self.packet(noted, &mut rest)?);
        }
        rest.is_empty().then_some(())
    }

    fn packet<'a>(&'a self, noted: &Noted, rest: &mut &'a [u8]) -> Option<Packet<'a>> {
        let (Noted::Protected { packet_bytes } | Noted::Plain { packet_bytes, .. }) = *noted;
        let (bytes, behind) = rest.split_at_checked(packet_bytes)?;
        *rest = behind;
        Some(match *noted {
            Noted::Protected { .. } => Packet::Protected { bytes },
            Noted::Plain { keys, packet_number, header_bytes, packet_number_bytes, .. } => {
                let keys = self.notes.keys.get(keys as usize)?;
                Packet::Plain {
                    key: &keys.packet,
                    header_key: keys.header.as_deref()?,
                    packet_number,
                    bytes,
                    header_bytes,
                    packet_number_bytes,
                }
            }
        })
    }

    /// Copies what is pending into other buffers: what [`EngineConfig::extra_copy`](crate::EngineConfig::extra_copy) measures.
    pub(super) fn copy_once_more(&mut self) {
        for pending in &mut self.pending {
            let mut copy = self.spare.pop().unwrap_or_default();
            copy.extend_from_slice(&pending.bytes);
            let mut copied = std::mem::replace(&mut pending.bytes, copy);
            copied.clear();
            self.spare.push(copied);
        }
    }

    /// Forgets what was pending, and keeps its buffers.
    pub(super) fn clear(&mut self) {
        for pending in self.pending.drain(..) {
            let mut bytes = pending.bytes;
            bytes.clear();
            self.spare.push(bytes);
        }
        self.spare.truncate(SPARE_MAX);
        self.notes.clear();
        (self.datagram_count, self.size_bytes) = (0, 0);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.spare.iter().map(Vec::capacity).sum::<usize>()
            + self.notes.packets.capacity() * size_of::<Noted>()
            + self.pending.capacity() * size_of::<Pending>()
    }
}
