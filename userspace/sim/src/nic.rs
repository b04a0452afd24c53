//! A network card's queue without a card: a bounded pool of frames, and the rings that they go round.
//!
//! ```text
//!            ┌──────────────────── recycle ◄── worker ◄── receive ◄── RX ring ◄─┐
//!   free ◄───┤                                    │                             │ arrive
//!    │  │    └── (from another worker: came home) ◄┴─► hand-over ring            │
//!    │  └─► fill ring ──────────────────────────────────────────────────────────┘
//!    └────► TX ring ─► (sent) ─► completion ─► free
//! ```
//!
//! The frames are `port`'s: owned tokens. Free + fill + RX + TX + lent to other workers is the pool, at every step.

use crate::link::Datagram;
use crate::trace::Fate;
use port::{Ecn, Frame, Received, Region};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use tunnel::{Sealed, Transmit};
use wire::Path;

/// Sizes of a queue's rings, in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Of the fill and the RX ring each.
    pub rx: usize,
    /// Of the TX ring.
    pub tx: usize,
    /// Of the ring on which other workers hand frames over.
    pub handover: usize,
    /// All frames of the pool.
    pub frames: usize,
    /// Datagrams of one peer and one size that share a frame, as the kernel coalesces them; 1 is AF_XDP.
    pub coalesce: usize,
    /// How long the card takes to send one datagram.
    pub send_time: Duration,
}

impl Default for Rings {
    /// Ample: nothing is dropped under ordinary load.
    fn default() -> Self {
        Self { rx: 2048, tx: 2048, handover: 4096, frames: 8192, coalesce: 1, send_time: Duration::ZERO }
    }
}

/// Bytes of one datagram in a frame.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// A frame that an engine fills with one or more whole datagrams, sealed.
pub struct Slot(Frame);

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Datagrams of one peer that the card has sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Departed {
    /// From where to where.
    pub path: Path,
    /// ECN bits.
    pub ecn: Option<Ecn>,
    /// The UDP payloads back to back.
    pub bytes: Vec<u8>,
    /// The length of each but the last.
    pub segment_bytes: usize,
}

struct Departure {
    at: Duration,
    path: Path,
    ecn: Option<Ecn>,
    frame: Frame,
    segment_bytes: usize,
}

/// See the module.
pub struct Nic {
    rings: Rings,
    free: Vec<Frame>,
    fill: VecDeque<Frame>,
    rx: VecDeque<Received>,
    /// Datagrams in the RX ring.
    rx_datagrams: usize,
    tx: VecDeque<Departure>,
    /// Datagrams in the TX ring.
    tx_datagrams: usize,
    /// Frames that an engine has now, to fill.
    reserved: usize,
    busy_until: Duration,
}

impl Nic {
    /// A queue with all its frames free.
    ///
    /// # Panics
    /// If the address space is exhausted.
    pub fn new(rings: Rings) -> Self {
        let chunk_bytes = DATAGRAM_BYTES_MAX * rings.coalesce.max(1);
        let free = Region::anonymous(chunk_bytes, rings.frames).unwrap_or_else(|e| panic!("no frames: {e}"));
        let mut nic = Self {
            rings,
            free,
            fill: VecDeque::new(),
            rx: VecDeque::new(),
            rx_datagrams: 0,
            tx: VecDeque::new(),
            tx_datagrams: 0,
            reserved: 0,
            busy_until: Duration::ZERO,
        };
        nic.refill();
        nic
    }

    /// The sizes.
    pub fn rings(&self) -> Rings {
        self.rings
    }

    /// A datagram comes in from the wire. The fate is `Arrived`, or why it was dropped.
    pub fn arrive(&mut self, local: SocketAddr, datagram: &Datagram) -> Fate {
        let path = Path { local, remote: datagram.from };
        if self.coalesces(&path, datagram) {
            let Some(last) = self.rx.back_mut() else { return Fate::RxRingFull };
            let (start, end) = (last.frame.len(), last.frame.len() + datagram.bytes.len());
            last.frame.set_window(0..end);
            last.frame[start..].copy_from_slice(&datagram.bytes);
            self.rx_datagrams += 1;
            return Fate::Arrived;
        }
        if self.rx.len() >= self.rings.rx {
            return Fate::RxRingFull;
        }
        let Some(mut frame) = self.fill.pop_front() else { return Fate::RxNoFrame };
        frame.set_window(0..datagram.bytes.len());
        frame.copy_from_slice(&datagram.bytes);
        let segment_bytes = datagram.bytes.len().max(1);
        self.rx.push_back(Received { path, ecn: datagram.ecn, frame, segment_bytes });
        self.rx_datagrams += 1;
        Fate::Arrived
    }

    /// Whether the kernel would append the datagram to the one before.
    fn coalesces(&self, path: &Path, datagram: &Datagram) -> bool {
        let bytes = datagram.bytes.len();
        self.rx.back().is_some_and(|last| {
            let (held_bytes, segment_bytes) = (last.frame.len(), last.segment_bytes);
            bytes > 0
                && held_bytes > 0
                && bytes <= segment_bytes
                && last.path == *path
                && last.ecn == datagram.ecn
                && held_bytes.is_multiple_of(segment_bytes)
                && held_bytes / segment_bytes < self.rings.coalesce
        })
    }

    /// Takes up to `max` entries from the RX ring, and tops the fill ring up.
    pub fn receive(&mut self, burst: &mut Vec<Received>, max: usize) {
        let count = max.min(self.rx.len());
        for received in self.rx.drain(..count) {
            self.rx_datagrams -= datagrams_of(&received);
            burst.push(received);
        }
        self.refill();
    }

    /// Takes a frame back.
    pub fn recycle(&mut self, frame: Frame) {
        self.free.push(frame);
        self.refill();
    }

    /// Keeps the fill ring full, but for frames that the TX ring may need.
    fn refill(&mut self) {
        let reserve = self.rings.tx - self.tx.len();
        while self.fill.len() + self.rx.len() < self.rings.rx && self.free.len() > reserve {
            self.fill.extend(self.free.pop());
        }
    }

    /// Datagrams that `reserve` is sure to have frames for.
    pub fn send_room(&self) -> usize {
        (self.rings.tx - self.tx.len() - self.reserved).min(self.free.len())
    }

    /// Appends frames for a transmit's datagrams, in their order; `false` if there are not enough.
    pub fn reserve(&mut self, transmit: &Transmit, slots: &mut Vec<Slot>) -> bool {
        let per_frame = self.rings.coalesce.max(1);
        let count = transmit.datagram_count().div_ceil(per_frame);
        if count > self.send_room() {
            return false;
        }
        let frame_bytes = per_frame * transmit.segment_bytes;
        let frames = self.free.drain(self.free.len() - count..).enumerate().map(|(n, mut frame)| {
            frame.set_window(0..frame_bytes.min(transmit.size_bytes - n * frame_bytes));
            Slot(frame)
        });
        slots.extend(frames);
        self.reserved += count;
        true
    }

    /// Puts what was reserved on the TX ring.
    pub fn submit(&mut self, now: Duration, transmit: &Transmit, sealed: &mut Vec<Sealed<Slot>>) {
        let Transmit { path, ecn, segment_bytes, .. } = *transmit;
        for slot in sealed.drain(..) {
            let Slot(frame) = slot.into_inner();
            let count = frame.len().div_ceil(segment_bytes);
            self.busy_until = self.busy_until.max(now) + self.rings.send_time * count as u32;
            self.tx_datagrams += count;
            self.reserved -= 1;
            let ecn = ecn.and_then(|ecn| Ecn::from_bits(ecn as u8));
            self.tx.push_back(Departure { at: self.busy_until, path, ecn, frame, segment_bytes });
        }
    }

    /// Takes reserved frames back.
    pub fn release(&mut self, slots: Vec<Slot>) {
        self.reserved -= slots.len();
        slots.into_iter().for_each(|Slot(frame)| self.recycle(frame));
    }

    /// Sends bytes that are sealed already: datagrams of `segment_bytes`.
    ///
    /// # Panics
    /// If there are more than [`Self::send_room`] said.
    pub fn send(&mut self, now: Duration, path: Path, ecn: Option<Ecn>, bytes: &[u8], segment_bytes: usize) {
        for datagram in bytes.chunks(segment_bytes) {
            assert!(self.send_room() > 0, "the engine sent more than it was given room for");
            let Some(mut frame) = self.free.pop() else { return };
            frame.set_window(0..datagram.len());
            frame.copy_from_slice(datagram);
            self.busy_until = self.busy_until.max(now) + self.rings.send_time;
            self.tx_datagrams += 1;
            self.tx.push_back(Departure { at: self.busy_until, path, ecn, frame, segment_bytes });
        }
    }

    /// What the card has sent by `now`, a frame at a time; the frame is free again.
    pub fn departed(&mut self, now: Duration) -> Option<Departed> {
        let departure = self.tx.pop_front_if(|departure| departure.at <= now)?;
        let Departure { path, ecn, frame, segment_bytes, .. } = departure;
        let bytes = frame.to_vec();
        self.tx_datagrams -= bytes.len().div_ceil(segment_bytes);
        self.recycle(frame);
        Some(Departed { path, ecn, bytes, segment_bytes })
    }

    /// When the card will have sent the next datagram.
    pub fn next_departure(&self) -> Option<Duration> {
        self.tx.front().map(|departure| departure.at)
    }

    /// Entries in the RX ring.
    pub fn rx_len(&self) -> usize {
        self.rx.len()
    }

    /// Datagrams in the RX ring; more than its entries where frames are shared.
    pub fn rx_datagrams(&self) -> usize {
        self.rx_datagrams
    }

    /// Datagrams in the TX ring.
    pub fn tx_datagrams(&self) -> usize {
        self.tx_datagrams
    }

    /// Frames in the rings and free: the pool, less those lent to other workers.
    pub fn at_home(&self) -> usize {
        self.free.len() + self.fill.len() + self.rx.len() + self.tx.len()
    }

    /// Checks the bounds, and that no chunk has two frames.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        assert!(self.fill.len() + self.rx.len() <= self.rings.rx && self.tx.len() <= self.rings.tx);
        let waiting = self.rx.iter().map(|received| &received.frame);
        let leaving = self.tx.iter().map(|departure| &departure.frame);
        let chunks: BTreeSet<usize> =
            self.free.iter().chain(&self.fill).chain(waiting).chain(leaving).map(Frame::chunk).collect();
        assert_eq!(chunks.len(), self.at_home(), "a chunk has two frames");
    }
}

/// Datagrams in an entry. An empty datagram is one as well.
pub(crate) fn datagrams_of(received: &Received) -> usize {
    received.frame.len().div_ceil(received.segment_bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(bytes: usize, port: u16) -> Datagram {
        let (from, to) = (([198, 18, 0, 2], port).into(), ([198, 18, 0, 1], 443).into());
        Datagram { from, to, ecn: None, bytes: vec![port as u8; bytes] }
    }

    // Goal: full rings drop under the right name, and frames are conserved through every station.
    // Method: an RX ring of 2 and a pool of 4 with 1 kept for TX; fill it, lend a frame, send with the rest.
    #[test]
    fn full_rings_have_names_and_frames_come_back() {
        let rings =
            Rings { rx: 2, tx: 1, frames: 4, send_time: Duration::from_micros(5), ..Rings::default() };
        let local = ([198, 18, 0, 1], 443).into();
        let mut nic = Nic::new(rings);
        let fates: Vec<Fate> = (0..3).map(|port| nic.arrive(local, &datagram(100, port))).collect();
        assert_eq!(fates, [Fate::Arrived, Fate::Arrived, Fate::RxRingFull]);
        let mut burst = Vec::new();
        nic.receive(&mut burst, 64);
        assert_eq!((burst.len(), nic.at_home()), (2, 2));
        // Two frames are lent; one is for TX, so that one is left for the fill ring.
        assert_eq!(nic.arrive(local, &datagram(100, 1)), Fate::Arrived);
        assert_eq!(nic.arrive(local, &datagram(100, 2)), Fate::RxNoFrame);
        let path = burst[0].path;
        assert_eq!(nic.send_room(), 1);
        nic.send(Duration::ZERO, path, None, &[7; 50], 50);
        assert_eq!((nic.send_room(), nic.at_home()), (0, 2));
        assert!(nic.departed(Duration::from_micros(4)).is_none());
        let departed = nic.departed(Duration::from_micros(5));
        assert_eq!(departed, Some(Departed { path, ecn: None, bytes: vec![7; 50], segment_bytes: 50 }));
        burst.drain(..).for_each(|received| nic.recycle(received.frame));
        assert_eq!(nic.at_home(), 4);
        nic.check();
    }

    // Goal: a transmit of five datagrams takes as many frames as it needs, and not one more than there are.
    #[test]
    fn reserved_frames_count_until_they_come_back() {
        let mut nic = Nic::new(Rings { tx: 2, frames: 8, coalesce: 2, ..Rings::default() });
        let path = Path { local: ([198, 18, 0, 1], 443).into(), remote: ([198, 18, 0, 2], 9).into() };
        let transmit = |size_bytes| Transmit { path, ecn: None, size_bytes, segment_bytes: 100 };
        let mut slots = Vec::new();
        assert!(!nic.reserve(&transmit(450), &mut slots));
        assert!(nic.reserve(&transmit(350), &mut slots));
        assert_eq!(slots.iter().map(|slot| slot.as_ref().len()).collect::<Vec<_>>(), [200, 150]);
        assert_eq!((nic.send_room(), nic.at_home()), (0, 6));
        nic.release(std::mem::take(&mut slots));
        assert_eq!((nic.send_room(), nic.at_home()), (2, 8));
    }

    // Goal: only whole segments of one peer share a frame, and each counts as a datagram.
    #[test]
    fn coalesced_datagrams_are_counted_one_by_one() {
        let local = ([198, 18, 0, 1], 443).into();
        let mut nic = Nic::new(Rings { coalesce: 3, ..Rings::default() });
        for (bytes, port) in [(100, 1), (100, 1), (60, 1), (60, 1), (60, 2), (70, 2), (0, 2), (0, 2)] {
            assert_eq!(nic.arrive(local, &datagram(bytes, port)), Fate::Arrived);
        }
        // 100+100+60, 60 (follows a short one), 60, 70 (longer than the segment before), and two empty.
        assert_eq!((nic.rx_len(), nic.rx_datagrams()), (6, 8));
        let mut burst = Vec::new();
        nic.receive(&mut burst, 64);
        assert_eq!(burst.iter().map(datagrams_of).collect::<Vec<_>>(), [3, 1, 1, 1, 1, 1]);
        assert_eq!(nic.rx_datagrams(), 0);
    }
}
