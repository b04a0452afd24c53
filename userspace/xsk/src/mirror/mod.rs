//! The kernel's routes and neighbours, mirrored so that a worker can address frames without asking it.
//!
//! ```text
//!  kernel ──netlink events──► control thread (owns `Working`) ──publish──► Mirror ◄──generation── workers (Reader)
//!  kernel ◄──NTF_USE──────────┘ for neighbours that workers use and the kernel hasn't heard of for a while
//! ```
//!
//! A worker reads one atomic for each packet it sends; only when the generation moved does it take the lock, for the
//! time of four reference counts.

mod control;
mod parse;
mod tables;
mod working;

pub(crate) use control::Control;
pub(crate) use tables::Tables;
pub(crate) use working::neighbour_use;

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The published tables.
#[derive(Default)]
pub(crate) struct Mirror {
    generation: AtomicU64,
    current: Mutex<Tables>,
    changed: Condvar,
}

impl Mirror {
    /// Makes `tables` what readers see.
    fn publish(&self, tables: Tables) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = tables;
        self.generation.fetch_add(1, Ordering::Release);
        self.changed.notify_all();
    }

    /// Waits until `found` finds something in the tables, at most for `within`. For set-up, never on the data path.
    pub(crate) fn wait_for<T>(
        &self,
        within: Duration,
        mut found: impl FnMut(&Tables) -> Option<T>,
    ) -> Option<T> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = None;
        let missing = |tables: &mut Tables| {
            result = found(tables);
            result.is_none()
        };
        let _ = self.changed.wait_timeout_while(current, within, missing);
        result
    }

    /// What readers see now.
    pub(crate) fn tables(&self) -> Tables {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A worker's view of the mirror.
pub(crate) struct Reader {
    mirror: Arc<Mirror>,
    generation: u64,
    tables: Tables,
}

impl Reader {
    pub(crate) fn new(mirror: Arc<Mirror>) -> Self {
        let mut reader = Self { mirror, generation: u64::MAX, tables: Tables::default() };
        reader.refresh();
        reader
    }

    /// Takes over what was published since. True when something was.
    #[inline]
    pub(crate) fn refresh(&mut self) -> bool {
        if self.mirror.generation.load(Ordering::Acquire) == self.generation {
            return false;
        }
        let current = self.mirror.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, because `publish` moves both under it.
        self.generation = self.mirror.generation.load(Ordering::Acquire);
        self.tables = current.clone();
        true
    }

    /// Number of the view: entries computed from another one are out of date.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }
}
