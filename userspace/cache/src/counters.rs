//! What each level counts. A worker's own table counts in plain integers; the shared levels in atomics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One level of one cache, at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelReport {
    /// Entries held.
    pub entries: u64,
    /// Bytes held, as [`crate::Kind::weight_bytes`] counts (on disk: as they are stored).
    pub bytes: u64,
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that found that there is none.
    pub negative: u64,
    /// Lookups that found nothing; those that met an expired entry are among them.
    pub misses: u64,
    /// Entries put in, promotions included.
    pub inserts: u64,
    /// Entries that made room for others.
    pub evictions: u64,
    /// Entries met after their time.
    pub expired: u64,
    /// Writes that were lost: the queue was full, or the disk refused them. They cost a later miss, nothing else.
    pub lost: u64,
}

impl LevelReport {
    /// Adds another worker's table to this one.
    pub fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.hits += other.hits;
        self.negative += other.negative;
        self.misses += other.misses;
        self.inserts += other.inserts;
        self.evictions += other.evictions;
        self.expired += other.expired;
        self.lost += other.lost;
    }
}

/// One cache, at one instant; `None` for a level that it does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// [`crate::Kind::NAME`].
    pub name: &'static str,
    /// The workers' tables, summed.
    pub local: Option<LevelReport>,
    /// The level shared in memory.
    pub shared: Option<LevelReport>,
    /// The level on disk.
    pub disk: Option<LevelReport>,
}

/// The counters of a shared level.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) negative: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) inserts: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) lost: AtomicU64,
}

impl Counters {
    pub(crate) fn report(&self, entries: u64, bytes: u64) -> LevelReport {
        LevelReport {
            entries,
            bytes,
            hits: self.hits.load(Relaxed),
            negative: self.negative.load(Relaxed),
            misses: self.misses.load(Relaxed),
            inserts: self.inserts.load(Relaxed),
            evictions: self.evictions.load(Relaxed),
            expired: self.expired.load(Relaxed),
            lost: self.lost.load(Relaxed),
        }
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
