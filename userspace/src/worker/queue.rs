//! A bounded queue between threads that takes memory for what is in it, and not for what it may hold: most are empty for
//! as long as a daemon lives.

use crossbeam::queue::SegQueue;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Invariant: never more than `max` items are in it.
pub(super) struct Bounded<T> {
    items: SegQueue<T>,
    /// Of those that are in it, and of those on their way in.
    count: AtomicUsize,
    max: usize,
}

impl<T> Bounded<T> {
    pub(super) fn new(max: usize) -> Self {
        Self { items: SegQueue::new(), count: AtomicUsize::new(0), max }
    }

    /// Gives the item back if the queue is full.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        if self.count.fetch_add(1, Relaxed) >= self.max {
            self.count.fetch_sub(1, Relaxed);
            return Err(item);
        }
        self.items.push(item);
        Ok(())
    }

    pub(super) fn pop(&self) -> Option<T> {
        let item = self.items.pop()?;
        self.count.fetch_sub(1, Relaxed);
        Some(item)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: first in, first out; the bound holds, and what it refuses comes back; nothing is lost between threads.
    use super::*;

    #[test]
    fn the_bound_holds_and_order_is_kept() {
        let queue = Bounded::new(3);
        assert!(queue.is_empty());
        assert_eq!(
            (0..5).map(|item| queue.push(item)).collect::<Vec<_>>(),
            [Ok(()), Ok(()), Ok(()), Err(3), Err(4)]
        );
        assert_eq!(queue.pop(), Some(0));
        assert_eq!((queue.push(5), queue.push(6)), (Ok(()), Err(6)));
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [1, 2, 5]);
        assert!(queue.is_empty());
        assert!(Bounded::new(0).push(()).is_err());
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        const EACH: u32 = 20_000;
        let queue = Bounded::new(64);
        let queue = &queue;
        let push = move |first: u32| {
            for item in first..first + EACH {
                while queue.push(item).is_err() {
                    std::thread::yield_now();
                }
            }
        };
        let taken = std::thread::scope(|scope| {
            (0..3).for_each(|thread| drop(scope.spawn(move || push(thread * EACH))));
            let mut taken = Vec::new();
            while taken.len() < 3 * EACH as usize {
                match queue.pop() {
                    Some(item) => taken.push(item),
                    None => std::thread::yield_now(),
                }
            }
            taken
        });
        for thread in 0..3 {
            let of_thread = |&item: &u32| item / EACH == thread;
            let items: Vec<u32> = taken.iter().copied().filter(of_thread).collect();
            assert_eq!(items, (thread * EACH..(thread + 1) * EACH).collect::<Vec<_>>());
        }
        assert!(queue.is_empty());
    }
}
