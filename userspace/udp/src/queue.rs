//! Batches of datagrams, and the bounded queue of copies for when the socket takes no more.

use std::collections::VecDeque;

use port::Ecn;

use crate::address::Route;

/// Datagrams back to back, each `segment_bytes` long but the last, which may be shorter.
/// Invariant: `segment_bytes` > 0 unless `bytes` is empty; empty bytes are one empty datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch<'a> {
    bytes: &'a [u8],
    segment_bytes: usize,
}

impl<'a> Batch<'a> {
    /// `None` or 0 is one datagram.
    pub(crate) fn new(bytes: &'a [u8], segment_bytes: Option<usize>) -> Self {
        let segment_bytes = segment_bytes.filter(|&n| n > 0).unwrap_or(bytes.len()).min(bytes.len());
        Self { bytes, segment_bytes }
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    pub(crate) fn datagrams(&self) -> usize {
        if self.bytes.is_empty() { 1 } else { self.bytes.len().div_ceil(self.segment_bytes) }
    }

    /// What is left after the first `bytes`; `None` when that is nothing (an empty datagram is something at 0).
    pub(crate) fn after(&self, bytes: usize) -> Option<Self> {
        if bytes == 0 {
            return Some(*self);
        }
        let rest = self.bytes.get(bytes..).filter(|rest| !rest.is_empty())?;
        Some(Self { bytes: rest, ..*self })
    }

    /// The first datagrams, at most `datagrams` and at least one.
    pub(crate) fn first(&self, datagrams: usize) -> Self {
        let end = self.bytes.len().min(self.segment_bytes.saturating_mul(datagrams.max(1)));
        Self { bytes: &self.bytes[..end], ..*self }
    }

    /// Those of full length: all of them, or all but the shorter last.
    pub(crate) fn full_segments(&self) -> Self {
        self.first(self.bytes.len() / self.segment_bytes.max(1))
    }
}

struct Entry {
    route: Route,
    ecn: Option<Ecn>,
    segment_bytes: usize,
    end: usize,
}

/// Copies of datagrams in the order of sending, all in one buffer that is emptied when the last has gone.
///
/// `send_room` is 0 until then, so the buffer's cursor only moves forward. Its size is bounded by
/// `capacity_datagrams` x 65,535 bytes; at QUIC sizes by `capacity_datagrams` x 1,500.
#[derive(Default)]
pub(crate) struct Queue {
    capacity_datagrams: usize,
    datagrams: usize,
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    start: usize,
}

/// What an emptied buffer may keep for the next time.
const KEPT_BYTES_MAX: usize = 1 << 20;

impl Queue {
    pub(crate) fn new(capacity_datagrams: usize) -> Self {
        Self { capacity_datagrams, ..Self::default() }
    }

    pub(crate) fn capacity_datagrams(&self) -> usize {
        self.capacity_datagrams
    }

    pub(crate) fn datagrams(&self) -> usize {
        self.datagrams
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Copies the batch, or refuses it whole when it would be more datagrams than the queue may hold.
    pub(crate) fn push(&mut self, route: Route, ecn: Option<Ecn>, batch: Batch<'_>) -> bool {
        if self.datagrams + batch.datagrams() > self.capacity_datagrams {
            return false;
        }
        self.datagrams += batch.datagrams();
        self.bytes.extend_from_slice(batch.bytes());
        self.entries.push_back(Entry {
            route,
            ecn,
            segment_bytes: batch.segment_bytes(),
            end: self.bytes.len(),
        });
        true
    }

    pub(crate) fn front(&self) -> Option<(Route, Option<Ecn>, Batch<'_>)> {
        let entry = self.entries.front()?;
        let batch = Batch { bytes: &self.bytes[self.start..entry.end], segment_bytes: entry.segment_bytes };
        Some((entry.route, entry.ecn, batch))
    }

    /// Removes the first `bytes` of the front entry, or all of it.
    pub(crate) fn consume(&mut self, bytes: usize, whole: bool) {
        let Some((_, _, batch)) = self.front() else { return };
        let (before, length) = (batch.datagrams(), batch.bytes().len());
        let left = batch.after(bytes).filter(|_| !whole).map_or(0, |rest| rest.datagrams());
        self.datagrams -= before - left;
        self.start += if whole { length } else { bytes };
        if left == 0 {
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            self.start = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: no datagram is lost, doubled or cut, however the bytes are consumed. Method: count and compare.
    use super::*;

    fn route() -> Route {
        Route { destination: "192.0.2.1:9".parse().unwrap(), source: None }
    }

    #[test]
    fn batches_count_and_split() {
        let bytes = [0u8; 25];
        let batch = Batch::new(&bytes, Some(10));
        assert_eq!(batch.datagrams(), 3);
        assert_eq!(batch.first(2).bytes().len(), 20);
        assert_eq!(batch.first(0).bytes().len(), 10);
        assert_eq!(batch.full_segments().datagrams(), 2);
        assert_eq!(batch.after(20).unwrap().datagrams(), 1);
        assert_eq!(batch.after(25), None);
        assert_eq!(Batch::new(&bytes, None).datagrams(), 1);
        assert_eq!(Batch::new(&bytes, Some(0)).datagrams(), 1);
        assert_eq!(Batch::new(&bytes, Some(99)).full_segments().bytes().len(), 25);
        let empty = Batch::new(&[], Some(7));
        assert_eq!((empty.datagrams(), empty.after(0)), (1, Some(empty)));
    }

    #[test]
    fn the_queue_is_bounded_and_first_in_first_out() {
        let mut queue = Queue::new(4);
        assert!(queue.push(route(), None, Batch::new(b"aabbc", Some(2))));
        assert!(!queue.push(route(), None, Batch::new(b"ddee", Some(2))), "3 + 2 > 4");
        assert!(queue.push(route(), Some(Ecn::Ce), Batch::new(b"", None)));
        assert_eq!(queue.datagrams(), 4);
        queue.consume(2, false);
        assert_eq!(queue.front().unwrap().2, Batch::new(b"bbc", Some(2)));
        queue.consume(3, true);
        let (_, ecn, empty) = queue.front().unwrap();
        assert_eq!((ecn, empty.bytes()), (Some(Ecn::Ce), &[][..]));
        assert_eq!(queue.datagrams(), 1);
        queue.consume(0, true);
        assert!(queue.is_empty() && queue.datagrams() == 0 && queue.front().is_none());
        assert!(queue.push(route(), None, Batch::new(b"again", None)));
        assert_eq!(queue.front().unwrap().2.bytes(), b"again");
    }
}
