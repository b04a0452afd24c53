//! The word that something about an interface may have changed: from the control thread, which hears it, to a thread
//! that sleeps until then.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// How often there was news.
#[derive(Default)]
pub(crate) struct News {
    count: Mutex<u64>,
    more: Condvar,
}

impl News {
    pub(crate) fn announce(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.more.notify_all();
    }

    /// Sleeps until there is more news than `seen`, or `at_most` is over; returns how often there was.
    pub(crate) fn wait(&self, seen: u64, at_most: Option<Duration>) -> u64 {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let none = |count: &mut u64| *count <= seen;
        match at_most {
            None => *self.more.wait_while(count, none).unwrap_or_else(PoisonError::into_inner),
            Some(at_most) => {
                *self.more.wait_timeout_while(count, at_most, none).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}
