//! L1: one worker's own table. No locks, no allocation after the first insert, no pointer chasing: a key has
//! [`WAYS`] places, and what is there makes room.

use crate::{
    cache::Cache,
    counters::LevelReport,
    kind::{Entry, Found, Kind, Stamp},
};
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

/// Places for one key.
const WAYS: usize = 4;

struct Slot<K: Kind> {
    key: K::Key,
    entry: Entry<K::Value>,
    /// The lookup that used it last.
    used: u64,
}

/// A worker's view of a cache: its own table in front of the shared one.
///
/// An entry here is as old as its promotion: what is replaced in the shared level is seen once the local entry's time
/// is over. So a use with a local level gives its entries short lives.
pub struct Local<K: Kind> {
    shared: Arc<Cache<K>>,
    sets: Box<[Option<Slot<K>>]>,
    hasher: RandomState,
    lookups: u64,
    report: LevelReport,
}

impl<K: Kind> Local<K> {
    /// An empty table in front of `shared`.
    #[must_use]
    pub fn new(shared: Arc<Cache<K>>) -> Self {
        let set_count = match K::LIMITS.local_entries_max {
            0 => 0,
            entries => (entries / WAYS).max(1).next_power_of_two(),
        };
        let sets = (0..set_count * WAYS).map(|_| None).collect();
        Self { shared, sets, hasher: RandomState::new(), lookups: 0, report: LevelReport::default() }
    }

    /// What is known of `key`: here, else in the shared level, from where it is promoted.
    pub fn get(&mut self, now: Stamp, key: &K::Key) -> Found<K::Value> {
        let known = self.here(now, key);
        if !known.is_miss() {
            return known;
        }
        match self.shared.entry(now, key) {
            Some(entry) => {
                let found = entry.found();
                self.insert(key.clone(), entry);
                found
            }
            None => Found::Miss,
        }
    }

    /// The cache behind it.
    pub fn shared(&self) -> &Arc<Cache<K>> {
        &self.shared
    }

    /// The counters; `None` without such a level.
    #[must_use]
    pub fn report(&self) -> Option<LevelReport> {
        (!self.sets.is_empty()).then_some(self.report)
    }

    fn here(&mut self, now: Stamp, key: &K::Key) -> Found<K::Value> {
        self.lookups += 1;
        let at = self.set_of(key);
        for place in &mut self.sets[at] {
            let Some(slot) = place.as_mut().filter(|slot| slot.key == *key) else { continue };
            if slot.entry.is_over(now, K::LIMITS.ttl_max) {
                self.report.expired += 1;
                self.report.remove(K::weight_bytes(key, slot.entry.value.as_ref()));
                *place = None;
                break;
            }
            slot.used = self.lookups;
            let found = slot.entry.found();
            match found {
                Found::Hit(_) => self.report.hits += 1,
                Found::Negative | Found::Miss => self.report.negative += 1,
            }
            return found;
        }
        if !self.sets.is_empty() {
            self.report.misses += 1;
        }
        Found::Miss
    }

    fn insert(&mut self, key: K::Key, entry: Entry<K::Value>) {
        let at = self.set_of(&key);
        // A free place, else the one whose use lies furthest back.
        let Some(place) =
            self.sets[at].iter_mut().min_by_key(|place| place.as_ref().map_or(0, |slot| slot.used))
        else {
            return;
        };
        if let Some(old) = place {
            self.report.evictions += 1;
            self.report.remove(K::weight_bytes(&old.key, old.entry.value.as_ref()));
        }
        self.report.inserts += 1;
        self.report.entries += 1;
        self.report.bytes += K::weight_bytes(&key, entry.value.as_ref()) as u64;
        *place = Some(Slot { key, entry, used: self.lookups });
    }

    fn set_of(&self, key: &K::Key) -> std::ops::Range<usize> {
        let set_count = self.sets.len() / WAYS;
        if set_count == 0 {
            return 0..0;
        }
        let set = self.hasher.hash_one(key) as usize & (set_count - 1);
        set * WAYS..(set + 1) * WAYS
    }
}

impl LevelReport {
    fn remove(&mut self, bytes: usize) {
        self.entries -= 1;
        self.bytes -= bytes as u64;
    }
}
