//! Datagrams and capsules on their way to the peer: bounded, the oldest datagrams make room.

use bytes::Bytes;
use std::collections::VecDeque;

/// Datagrams that wait in one queue.
const QUEUE_COUNT_MAX: usize = 256;
/// Their bytes: four of the longest.
const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Bytes on their way out, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) items: VecDeque<Item>,
    bytes: usize,
    pub(super) control_count: usize,
    /// The first has been written in part, and so has to go on.
    front_begun: bool,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) bytes: Bytes,
    /// Never dropped.
    is_control: bool,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a datagram. Says how many older ones had to go.
    pub(super) fn push(&mut self, bytes: Bytes) -> u64 {
        let mut dropped = 0;
        while (self.items.len() >= QUEUE_COUNT_MAX || self.bytes + bytes.len() > QUEUE_BYTES_MAX)
            && self.drop_oldest()
        {
            dropped += 1;
        }
        self.bytes += bytes.len();
        // What joins others is copied, for each would hold the whole block that it was made in; the first mostly leaves at
        // once.
        let bytes = if self.items.is_empty() { bytes } else { Bytes::copy_from_slice(&bytes) };
        self.items.push_back(Item { bytes, is_control: false });
        dropped
    }

    pub(super) fn push_control(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.control_count += 1;
        self.items.push_back(Item { bytes, is_control: true });
    }

    fn drop_oldest(&mut self) -> bool {
        let from = usize::from(self.front_begun);
        let Some(at) = self.items.iter().skip(from).position(|item| !item.is_control) else { return false };
        if let Some(item) = self.items.remove(from + at) {
            self.bytes -= item.bytes.len();
        }
        true
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes.len();
        Some(item.bytes)
    }

    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.items.push_front(Item { bytes, is_control: false });
    }

    pub(super) fn front_done(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.front_begun = false;
        if let Some(item) = self.items.pop_front() {
            self.control_count -= usize::from(item.is_control);
        }
    }

    pub(super) fn front_cut(&mut self, before: usize) {
        let left = self.items.front().map_or(0, |item| item.bytes.len());
        self.bytes -= before - left;
        self.front_begun = true;
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a full queue drops the oldest datagram and nothing else: no control capsule, none that is half written.
    use super::*;

    fn bytes(n: usize) -> Bytes {
        Bytes::from(n.to_be_bytes().to_vec())
    }

    #[test]
    fn the_oldest_datagrams_make_room_and_control_stays() {
        let mut queue = Queue::default();
        queue.push_control(Bytes::from_static(b"200"));
        let dropped: u64 = (0..QUEUE_COUNT_MAX + 9).map(|n| queue.push(bytes(n))).sum();
        assert_eq!(dropped, 10, "the control item takes a place, too");
        assert_eq!(queue.pop().as_deref(), Some(&b"200"[..]));
        assert_eq!(queue.pop(), Some(bytes(10)));
        assert_eq!(queue.bytes, (QUEUE_COUNT_MAX - 2) * 8);
    }

    #[test]
    fn what_is_half_written_goes_on() {
        let mut queue = Queue::default();
        queue.push(bytes(0));
        queue.items[0].bytes = queue.items[0].bytes.slice(5..);
        queue.front_cut(8);
        let dropped: u64 = (1..=QUEUE_COUNT_MAX).map(|n| queue.push(bytes(n))).sum();
        assert_eq!(dropped, 1);
        assert_eq!(queue.pop().map(|rest| rest.len()), Some(3));
        assert_eq!(queue.pop(), Some(bytes(2)));
    }

    #[test]
    fn the_bytes_are_bounded() {
        let mut queue = Queue::default();
        let large = Bytes::from(vec![0; 65_000]);
        let dropped: u64 = (0..10).map(|_| queue.push(large.clone())).sum();
        assert_eq!((dropped, queue.items.len(), queue.bytes), (6, 4, 4 * 65_000));
    }
}
