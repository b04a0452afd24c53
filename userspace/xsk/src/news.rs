//! The word that something about an interface may have changed: from the control thread, which hears it, to a thread
//! that sleeps until then.

use std::sync::{Condvar, Mutex, PoisonError};

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

    /// Sleeps until there is more news than `seen`; returns how often there was.
    pub(crate) fn wait(&self, seen: u64) -> u64 {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *self.more.wait_while(count, |count| *count <= seen).unwrap_or_else(PoisonError::into_inner)
    }
}
