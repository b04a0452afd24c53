//! The kernel's routes and neighbours, mirrored so that a worker can address frames without asking it.
//!
//! ```text
//!  kernel ──netlink events──► control thread (owns `Working`) ──publish──► Mirror ◄──generation── workers (Reader)
//!  kernel ◄──NTF_USE──────────┘ for neighbours that workers use and the kernel hasn't heard of for a while,
//!                               and for those that workers miss (`Mirror::ask_for`)
//! ```
//!
//! A worker reads one atomic for each packet it sends; only when the generation moved does it take the lock, for the
//! time of four reference counts.

mod control;
pub(crate) mod parse;
mod tables;
mod working;

pub(crate) use control::Control;
pub(crate) use tables::{Miss, Tables, Used};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::{read, write},
};
use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Neighbours that workers ask for and the control thread hasn't taken yet.
const ASKED_COUNT_MAX: usize = 256;

/// The published tables, and the neighbours that are missing there.
pub(crate) struct Mirror {
    generation: AtomicU64,
    current: Mutex<Tables>,
    changed: Condvar,
    asked: Mutex<BTreeSet<(u32, IpAddr)>>,
    /// Wakes the control thread.
    bell: OwnedFd,
}

impl Mirror {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            generation: AtomicU64::default(),
            current: Mutex::default(),
            changed: Condvar::new(),
            asked: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Has the control thread ask the kernel for a neighbour. False: it has too many to ask for already.
    pub(crate) fn ask_for(&self, neighbour: (u32, IpAddr)) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= ASKED_COUNT_MAX && !asked.contains(&neighbour) {
            return false;
        }
        if asked.insert(neighbour) && asked.len() == 1 {
            drop(asked);
            self.ring();
        }
        true
    }

    /// Takes the neighbours that were asked for.
    fn take_asked(&self) -> BTreeSet<(u32, IpAddr)> {
        // The bell first: who asks from here on rings it again.
        let _ = read(&self.bell, &mut [0_u8; 8]);
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes the control thread.
    fn ring(&self) {
        // An eventfd takes 2^64 - 2 of these before it refuses one.
        let _ = write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

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

    /// Has the kernel look for a neighbour; false if it has too much to look for.
    pub(crate) fn ask_for(&self, neighbour: (u32, IpAddr)) -> bool {
        self.mirror.ask_for(neighbour)
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
