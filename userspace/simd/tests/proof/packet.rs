//! A packet, its place in memory, and the two directions of the comparison.

use crate::oracle::Key;
use beam_simd::{Level, OpenJob, SealJob, TAG_BYTES, open_batch, seal_batch};

/// What a destination holds before a batch, and around it afterwards.
const CANARY: u8 = 0xa5;
/// Bytes watched on either side of a destination: as wide as the widest vector.
const MARGIN_BYTES: usize = 64;

/// Addresses modulo 64 of a packet's slices.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Align {
    pub(crate) header: usize,
    pub(crate) source: usize,
    pub(crate) destination: usize,
}

/// One packet and what ring makes of it.
#[derive(Clone)]
pub(crate) struct Packet<'k> {
    pub(crate) key: &'k Key,
    pub(crate) number: u64,
    pub(crate) header: Vec<u8>,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) sealed: Vec<u8>,
    pub(crate) align: Align,
}

impl<'k> Packet<'k> {
    pub(crate) fn new(key: &'k Key, number: u64, header: &[u8], plaintext: &[u8]) -> Self {
        Self {
            key,
            number,
            header: header.to_vec(),
            plaintext: plaintext.to_vec(),
            sealed: key.seal(number, header, plaintext),
            align: Align::default(),
        }
    }

    pub(crate) fn at(mut self, align: Align) -> Self {
        self.align = align;
        self
    }

    fn told(&self) -> String {
        let (cipher, len) = (self.key.packet.cipher().name(), self.plaintext.len());
        format!("{cipher}, {len} bytes, header {}, pn {}, {:?}", self.header.len(), self.number, self.align)
    }
}

/// A slice whose address is `align` modulo 64, with a margin on either side.
struct Placed {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Placed {
    fn new(len: usize, align: usize) -> Self {
        let memory = vec![CANARY; len + 64 + 2 * MARGIN_BYTES];
        let at_margin = memory.as_ptr().addr() + MARGIN_BYTES;
        let start = MARGIN_BYTES + (align + 64 - at_margin % 64) % 64;
        let placed = Self { memory, start, len };
        assert_eq!(placed.bytes().as_ptr().addr() % 64, align, "the address that was asked for");
        placed
    }

    fn holding(bytes: &[u8], align: usize) -> Self {
        let mut placed = Self::new(bytes.len(), align);
        placed.bytes_mut().copy_from_slice(bytes);
        placed
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    fn margins_are_whole(&self) -> bool {
        let (before, after) = (&self.memory[..self.start], &self.memory[self.start + self.len..]);
        before.iter().chain(after).all(|byte| *byte == CANARY)
    }
}

/// Seals the batch at `level` and compares every byte with ring's.
pub(crate) fn seals_like_ring(level: Level, packets: &[Packet<'_>]) {
    let mut placed: Vec<[Placed; 3]> = packets
        .iter()
        .map(|packet| {
            [
                Placed::holding(&packet.header, packet.align.header),
                Placed::holding(&packet.plaintext, packet.align.source),
                Placed::new(packet.plaintext.len() + TAG_BYTES, packet.align.destination),
            ]
        })
        .collect();
    let mut jobs: Vec<SealJob<'_>> = packets
        .iter()
        .zip(&mut placed)
        .map(|(packet, [header, source, destination])| SealJob {
            key: &packet.key.packet,
            packet_number: packet.number,
            header: header.bytes(),
            plaintext: source.bytes(),
            dst: destination.bytes_mut(),
        })
        .collect();
    seal_batch(level, &mut jobs);
    for (lane, (packet, [.., destination])) in packets.iter().zip(&placed).enumerate() {
        let told = || format!("seal at {level}, lane {lane} of {}: {}", packets.len(), packet.told());
        assert!(destination.bytes() == packet.sealed, "{}: bytes", told());
        assert!(destination.margins_are_whole(), "{}: written outside", told());
    }
}

/// Opens the batch at `level`: every packet is authentic, and every byte of payload as it was.
pub(crate) fn opens_like_ring(level: Level, packets: &[Packet<'_>]) {
    let opened = open(level, packets);
    for (lane, (packet, opened)) in packets.iter().zip(&opened).enumerate() {
        let told = || format!("open at {level}, lane {lane} of {}: {}", packets.len(), packet.told());
        assert!(opened.is_some(), "{}: refused", told());
        assert!(opened.as_deref() == Some(&packet.plaintext[..]), "{}: bytes", told());
    }
}

/// Opens the batch at `level`: each packet's payload, or `None` where it was called a forgery.
pub(crate) fn open(level: Level, packets: &[Packet<'_>]) -> Vec<Option<Vec<u8>>> {
    let mut placed: Vec<[Placed; 3]> = packets
        .iter()
        .map(|packet| {
            [
                Placed::holding(&packet.header, packet.align.header),
                Placed::holding(&packet.sealed, packet.align.source),
                Placed::new(packet.sealed.len() - TAG_BYTES, packet.align.destination),
            ]
        })
        .collect();
    let mut jobs: Vec<OpenJob<'_>> = packets
        .iter()
        .zip(&mut placed)
        .enumerate()
        .map(|(lane, (packet, [header, source, destination]))| OpenJob {
            key: &packet.key.packet,
            packet_number: packet.number,
            header: header.bytes(),
            ciphertext: source.bytes(),
            dst: destination.bytes_mut(),
            // The batch has to write the verdict whatever stood there.
            authentic: lane % 2 == 0,
        })
        .collect();
    open_batch(level, &mut jobs);
    let verdicts: Vec<bool> = jobs.iter().map(|job| job.authentic).collect();
    let answers = packets.iter().zip(placed).zip(verdicts).map(|((packet, [.., destination]), authentic)| {
        assert!(destination.margins_are_whole(), "open at {level}: {}: written outside", packet.told());
        authentic.then(|| destination.bytes().to_vec())
    });
    answers.collect()
}

/// Both directions.
pub(crate) fn equal_ring(level: Level, packets: &[Packet<'_>]) {
    seals_like_ring(level, packets);
    opens_like_ring(level, packets);
}
