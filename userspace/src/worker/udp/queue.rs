//! Payloads on their way to a socket, or to a peer that has not answered: bounded, the oldest make room.

use bytes::Bytes;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

/// Payloads, oldest first.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) items: VecDeque<Bytes>,
    bytes: usize,
    max: Bounds,
}

impl Queue {
    pub(super) fn new(max: Bounds) -> Self {
        Self { items: VecDeque::new(), bytes: 0, max }
    }

    /// Adds a payload. Says how many older ones had to go.
    pub(super) fn push(&mut self, payload: Bytes) -> u64 {
        let mut dropped = 0;
        while (self.items.len() >= self.max.count || self.bytes + payload.len() > self.max.bytes)
            && self.pop().is_some()
        {
            dropped += 1;
        }
        self.bytes += payload.len();
        self.items.push_back(payload);
        dropped
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let payload = self.items.pop_front()?;
        self.bytes -= payload.len();
        Some(payload)
    }

    pub(super) fn take(&mut self, count: usize) -> impl Iterator<Item = Bytes> {
        let count = count.min(self.items.len());
        self.bytes -= self.items.iter().take(count).map(Bytes::len).sum::<usize>();
        self.items.drain(..count)
    }

    /// How many of the first have one size, as the kernel wants it: at most `max`, the last may be shorter.
    pub(super) fn run_len(&self, max: usize) -> usize {
        let size = self.items.front().map_or(0, Bytes::len);
        let same = self.items.iter().take(max).take_while(|payload| payload.len() == size).count();
        let shorter = self.items.get(same).is_some_and(|next| same < max && (1..size).contains(&next.len()));
        same + usize::from(shorter)
    }

    /// What waits longer than a turn must not hold whole receive slabs of 64 KiB.
    pub(super) fn copy_out(&mut self) {
        for payload in &mut self.items {
            *payload = Bytes::copy_from_slice(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: queues are bounded by count and bytes, and runs are what the kernel can cut.
    use super::*;

    const HELD_MAX: Bounds = Bounds { count: 256, bytes: 256 * 1024 };

    fn queue(sizes: &[usize]) -> Queue {
        let mut queue = Queue::new(HELD_MAX);
        sizes.iter().for_each(|&size| assert_eq!(queue.push(Bytes::from(vec![0; size])), 0));
        queue
    }

    #[test]
    fn runs() {
        for (sizes, max, want) in [
            (&[5, 5, 5][..], 64, 3),
            (&[5, 5, 3, 5], 64, 3),
            (&[5, 5, 3], 2, 2),
            (&[5, 0, 5], 64, 1),
            (&[5, 6], 64, 1),
            (&[0, 0], 1, 1),
            (&[5, 3], 1, 1),
        ] {
            assert_eq!(queue(sizes).run_len(max), want, "{sizes:?} of at most {max}");
        }
    }

    #[test]
    fn the_oldest_make_room() {
        let mut queue = Queue::new(HELD_MAX);
        let dropped: u64 = (0..HELD_MAX.count + 5).map(|n| queue.push(Bytes::from(vec![0; n]))).sum();
        assert_eq!((dropped, queue.pop().map(|first| first.len())), (5, Some(5)));
        let taken: usize = queue.take(3).map(|payload| payload.len()).sum();
        assert_eq!(taken, 6 + 7 + 8);
        assert_eq!(queue.bytes, queue.items.iter().map(Bytes::len).sum::<usize>());
        let mut queue = Queue::new(HELD_MAX);
        let dropped: u64 = (0..10).map(|_| queue.push(Bytes::from(vec![0; 65_000]))).sum();
        assert_eq!((dropped, queue.items.len()), (6, 4));
    }
}
