//! L3: one file of an embedded store, with a table for each use.
//!
//! ```text
//!  workers ─ put_later, remove_later ─► bounded queue ─► writer thread ─┐
//!  start, stop ─ take_all, add_all ────────────────────────────────────┴─► open ─► one transaction ─► close
//! ```
//!
//! The file is open only for a moment at a time, so that two clients of one user share it. It is 0600 in a directory of
//! its own that is 0700. Each record bears a checksum over its table, key, time and value.
//!
//! What can go wrong ends in one warning that names the file and what to do, and in an empty level: a file that isn't
//! what we wrote is set aside and a fresh one begun; a directory that can't be written, or a lock that another process
//! keeps, leave the process with its memory. Nothing here fails a start.

mod record;
mod store;
mod writer;

pub(crate) use record::Record;

use crate::{
    counters::{Counters, count},
    kind::{Bounds, Stamp},
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use store::{Store, Trouble};
use writer::{Op, Writer};

/// How trouble is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loudness {
    /// As a warning.
    Warning,
    /// As a debug line: nobody asked for this directory by name.
    Debug,
}

/// A disk level for any number of uses. See the module.
pub struct Disk {
    shared: Arc<Shared>,
    writer: Writer,
}

/// What callers and the writer thread share.
pub(crate) struct Shared {
    store: Mutex<Store>,
    path: PathBuf,
    loudness: Loudness,
    told: AtomicBool,
}

impl Disk {
    /// A level in the file `path`. Nothing is opened yet, and nothing can fail.
    #[must_use]
    pub fn new(path: &Path, loudness: Loudness) -> Arc<Self> {
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new(path)),
            path: path.to_owned(),
            loudness,
            told: AtomicBool::new(false),
        });
        Arc::new(Self { writer: Writer::new(shared.clone()), shared })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Starts the thread that writes, which else starts with the first change: for whoever cares what it inherits.
    pub fn start(&self) {
        self.writer.ensure_thread();
    }

    /// Waits until all that was queued so far is on the disk, at most so long. False if it took longer.
    pub fn flush(&self, within: Duration) -> bool {
        self.writer.flush(within)
    }

    pub(crate) fn put_later(
        &self,
        now: Stamp,
        table: &'static str,
        key: Vec<u8>,
        record: Record,
        bounds: Bounds,
        counters: &Arc<Counters>,
    ) {
        self.writer.send(Op::Put { now, table, key, record, bounds, counters: counters.clone() });
    }

    pub(crate) fn remove_later(&self, table: &'static str, key: Vec<u8>, counters: &Arc<Counters>) {
        self.writer.send(Op::Remove { table, key, counters: counters.clone() });
    }

    pub(crate) fn read(&self, table: &str, key: &[u8]) -> Option<Record> {
        self.shared.with(|store| store.read(table, key)).flatten()
    }

    pub(crate) fn read_all(&self, table: &str) -> Vec<(Vec<u8>, Record)> {
        self.shared.with(|store| store.read_all(table)).unwrap_or_default()
    }

    /// Everything of a table, which is durably empty when this returns; nothing if that can't be had.
    pub(crate) fn take_all(&self, table: &str) -> Vec<(Vec<u8>, Record)> {
        self.shared.with(|store| store.take_all(table)).unwrap_or_default()
    }

    /// The same for the longest-lived entries of a prefix.
    pub(crate) fn take_some(&self, table: &str, prefix: &[u8], at_most: usize) -> Vec<(Vec<u8>, Record)> {
        self.shared.with(|store| store.take_some(table, prefix, at_most)).unwrap_or_default()
    }

    /// True once they are on the disk.
    pub(crate) fn add_all(
        &self,
        table: &str,
        records: Vec<(Vec<u8>, Record)>,
        bounds: Bounds,
        now: Stamp,
    ) -> bool {
        self.shared.with(|store| store.add_all(table, &records, bounds, now)).is_some()
    }

    /// Entries and bytes of a table when it was last written or read whole.
    pub(crate) fn size(&self, table: &str) -> (u64, u64) {
        self.shared.lock().size(table)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the store; `None` after trouble, which was said.
    pub(crate) fn with<R>(&self, work: impl Fn(&mut Store) -> Result<R, Trouble>) -> Option<R> {
        let mut store = self.lock();
        match store::guarded(|| work(&mut store)) {
            Ok(done) => Some(done),
            Err(Trouble::Corrupt(why)) => {
                let aside = store.set_aside();
                self.tell(&Trouble::Corrupt(why), aside.as_deref());
                // With the fresh file; if it is no better, that's that.
                aside.and_then(|_| store::guarded(|| work(&mut store)).ok())
            }
            Err(trouble) => {
                self.tell(&trouble, None);
                None
            }
        }
    }

    fn tell(&self, trouble: &Trouble, aside: Option<&Path>) {
        let said = trouble.explain(&self.path, aside);
        match self.loudness {
            Loudness::Warning if !self.told.swap(true, Relaxed) => tracing::warn!("{said}"),
            _ => tracing::debug!("{said}"),
        }
    }
}

/// Counts a write that is lost.
fn lost(counters: &Counters) {
    count(&counters.lost);
}
