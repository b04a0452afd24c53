//! L2, and the way from it to the disk.

use crate::{
    counters::{CacheReport, Counters, count},
    disk::{Disk, Record},
    kind::{Entry, Found, Kind, Stamp},
};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use std::{
    marker::PhantomData,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// Shards of the shared level: more than workers that meet in one.
const SHARDS: usize = 16;

/// A cache shared by all threads of the process, with the disk behind it if its kind has that level.
///
/// Bounds hold always: each entry weighs at least its share of the bytes, so that bytes bound entries, too.
pub struct Cache<K: Kind> {
    memory: quick_cache::sync::Cache<K::Key, Entry<K::Value>, Weigher<K>, DefaultHashBuilder, Evictions>,
    counters: Arc<Counters>,
    disk: Option<Arc<Disk>>,
    disk_counters: Arc<Counters>,
}

impl<K: Kind> Cache<K> {
    /// An empty cache in memory. `disk` is used only by a kind that has such a level.
    #[must_use]
    pub fn new(disk: Option<Arc<Disk>>) -> Arc<Self> {
        let bounds = K::LIMITS.shared;
        let counters = Arc::<Counters>::default();
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(bounds.entries_max.max(1))
            .weight_capacity(bounds.bytes_max as u64)
            .build();
        // The builder only fails where one of the two is left out.
        let Ok(options) = options else { unreachable!("both capacities are given") };
        let memory = quick_cache::sync::Cache::with_options(
            options,
            Weigher(PhantomData),
            DefaultHashBuilder::default(),
            Evictions(counters.clone()),
        );
        let disk = disk.filter(|_| K::LIMITS.disk.exists());
        Arc::new(Self { memory, counters, disk, disk_counters: Arc::default() })
    }

    /// What memory knows of `key`.
    pub fn get(&self, now: Stamp, key: &K::Key) -> Found<K::Value> {
        self.entry(now, key).map_or(Found::Miss, |entry| entry.found())
    }

    /// As [`Cache::get`], and what is not in memory is looked for on the disk and promoted. Not for workers.
    pub fn get_through(&self, now: Stamp, key: &K::Key) -> Found<K::Value> {
        let known = self.get(now, key);
        let Some(disk) = self.disk.as_ref().filter(|_| known.is_miss()) else { return known };
        let found = disk
            .read(K::NAME, &K::encode_key(key))
            .and_then(|record| self.decoded(now, &K::encode_key(key), &record));
        match found {
            Some((key, entry)) => {
                count(&self.disk_counters.hits);
                let found = entry.found();
                self.insert(key, entry);
                found
            }
            None => {
                count(&self.disk_counters.misses);
                Found::Miss
            }
        }
    }

    /// Remembers a value in memory.
    pub fn put(&self, now: Stamp, key: K::Key, value: K::Value, ttl: Duration) {
        self.insert(key, Self::made(now, Some(value), ttl));
    }

    /// Remembers that there is no value.
    pub fn put_negative(&self, now: Stamp, key: K::Key, ttl: Duration) {
        self.insert(key, Self::made(now, None, ttl));
    }

    /// Remembers a value in memory, and has it written to the disk soon.
    pub fn put_through(&self, now: Stamp, key: K::Key, value: K::Value, ttl: Duration) {
        let entry = Self::made(now, Some(value), ttl);
        self.write_later(now, &key, &entry);
        self.insert(key, entry);
    }

    /// Has a value written to the disk soon, for the next process; this one doesn't see it.
    pub fn put_on_disk(&self, now: Stamp, key: &K::Key, value: K::Value, ttl: Duration) {
        self.write_later(now, key, &Self::made(now, Some(value), ttl));
    }

    /// Takes a value out of memory: of all who ask, one gets it.
    pub fn take(&self, now: Stamp, key: &K::Key) -> Option<K::Value> {
        let entry = self.memory.remove(key).map(|(_, entry)| entry);
        let value = entry.filter(|entry| self.is_in_time(now, entry)).and_then(|entry| entry.value);
        count(if value.is_some() { &self.counters.hits } else { &self.counters.misses });
        value
    }

    /// As [`Cache::take`], and has the disk forget it soon. A crash before that leaves it there: this is no single use.
    pub fn take_soon_everywhere(&self, now: Stamp, key: &K::Key) -> Option<K::Value> {
        let value = self.take(now, key);
        if let (Some(disk), true) = (&self.disk, value.is_some()) {
            disk.remove_later(K::NAME, K::encode_key(key), &self.disk_counters);
        }
        value
    }

    /// Moves what is on the disk into memory. The disk's copy is gone for good before this returns; if it can't be
    /// removed, nothing was moved. So nothing that is taken from memory afterwards is ever there again. Not for workers.
    pub fn take_all(&self, now: Stamp) -> usize {
        let Some(disk) = &self.disk else { return 0 };
        let mut moved = 0;
        for (key, record) in disk.take_all(K::NAME) {
            if let Some((key, entry)) = self.decoded(now, &key, &record) {
                count(&self.disk_counters.hits);
                self.insert(key, entry);
                moved += 1;
            }
        }
        moved
    }

    /// As [`Cache::take_all`], for the longest-lived of the entries whose keys begin with `prefix`, `at_most`
    /// so many.
    pub fn take_some(&self, now: Stamp, prefix: &[u8], at_most: usize) -> usize {
        let Some(disk) = &self.disk else { return 0 };
        let mut moved = 0;
        for (key, record) in disk.take_some(K::NAME, prefix, at_most) {
            if let Some((key, entry)) = self.decoded(now, &key, &record) {
                count(&self.disk_counters.hits);
                self.insert(key, entry);
                moved += 1;
            }
        }
        moved
    }

    /// Copies what is on the disk into memory, and leaves it there. Not for workers.
    pub fn read_all(&self, now: Stamp) -> usize {
        let Some(disk) = &self.disk else { return 0 };
        let mut read = 0;
        for (key, record) in disk.read_all(K::NAME) {
            if let Some((key, entry)) = self.decoded(now, &key, &record) {
                count(&self.disk_counters.hits);
                self.insert(key, entry);
                read += 1;
            }
        }
        read
    }

    /// Adds what is in memory to the disk, and is in its time. The disk has it when this returns. Not for workers.
    pub fn save_all(&self, now: Stamp) -> usize {
        let Some(disk) = &self.disk else { return 0 };
        let mut records = Vec::new();
        for (key, entry) in self.memory.iter() {
            if !entry.is_over(now, K::LIMITS.ttl_max)
                && let Some(record) = Self::record(&key, &entry)
            {
                records.push((K::encode_key(&key), record));
            }
        }
        let count = records.len();
        if disk.add_all(K::NAME, records, K::LIMITS.disk, now) {
            self.disk_counters.inserts.fetch_add(count as u64, Relaxed);
            count
        } else {
            self.disk_counters.lost.fetch_add(count as u64, Relaxed);
            0
        }
    }

    /// Forgets everything in memory.
    pub fn clear(&self) {
        self.memory.clear();
    }

    /// Whether there is a level on the disk.
    pub fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Entries in memory.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether memory holds nothing.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// The counters of the shared levels; the workers add their own tables.
    pub fn report(&self) -> CacheReport {
        let shared = self.counters.report(self.memory.len() as u64, self.memory.weight());
        let disk = self.disk.as_ref().map(|disk| {
            let (entries, bytes) = disk.size(K::NAME);
            self.disk_counters.report(entries, bytes)
        });
        CacheReport { name: K::NAME, local: None, shared: Some(shared), disk }
    }

    /// The entry in memory, counted.
    pub(crate) fn entry(&self, now: Stamp, key: &K::Key) -> Option<Entry<K::Value>> {
        let Some(entry) = self.memory.get(key) else {
            count(&self.counters.misses);
            return None;
        };
        if entry.is_over(now, K::LIMITS.ttl_max) {
            // Another thread may have replaced it meanwhile: only what is over goes.
            if self.memory.remove_if(key, |entry| entry.is_over(now, K::LIMITS.ttl_max)).is_some() {
                count(&self.counters.expired);
            }
            count(&self.counters.misses);
            return None;
        }
        count(if entry.value.is_some() { &self.counters.hits } else { &self.counters.negative });
        Some(entry)
    }

    fn is_in_time(&self, now: Stamp, entry: &Entry<K::Value>) -> bool {
        let over = entry.is_over(now, K::LIMITS.ttl_max);
        if over {
            count(&self.counters.expired);
        }
        !over
    }

    fn insert(&self, key: K::Key, entry: Entry<K::Value>) {
        count(&self.counters.inserts);
        self.memory.insert(key, entry);
    }

    fn write_later(&self, now: Stamp, key: &K::Key, entry: &Entry<K::Value>) {
        let (Some(disk), Some(record)) = (&self.disk, Self::record(key, entry)) else { return };
        disk.put_later(now, K::NAME, K::encode_key(key), record, K::LIMITS.disk, &self.disk_counters);
    }

    fn made(now: Stamp, value: Option<K::Value>, ttl: Duration) -> Entry<K::Value> {
        Entry { value, expires: now.after(ttl.min(K::LIMITS.ttl_max)) }
    }

    /// The disk's form of an entry. That there is no value is not kept there: it is never known for long.
    fn record(key: &K::Key, entry: &Entry<K::Value>) -> Option<Record> {
        let value = K::encode(key, entry.value.as_ref()?)?;
        Some(Record { expires: entry.expires, value })
    }

    fn decoded(&self, now: Stamp, key: &[u8], record: &Record) -> Option<(K::Key, Entry<K::Value>)> {
        let (key, value) = K::decode(key, &record.value)?;
        let entry = Entry { value: Some(value), expires: record.expires };
        if entry.is_over(now, K::LIMITS.ttl_max) {
            count(&self.disk_counters.expired);
            return None;
        }
        Some((key, entry))
    }
}

/// Bytes, but at least an entry's share of the whole.
struct Weigher<K: Kind>(PhantomData<fn() -> K>);

impl<K: Kind> Clone for Weigher<K> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<K: Kind> Weighter<K::Key, Entry<K::Value>> for Weigher<K> {
    fn weight(&self, key: &K::Key, entry: &Entry<K::Value>) -> u64 {
        let bounds = K::LIMITS.shared;
        let share = bounds.bytes_max.div_ceil(bounds.entries_max.max(1)).max(1);
        K::weight_bytes(key, entry.value.as_ref()).max(share) as u64
    }
}

/// Counts what makes room.
#[derive(Clone)]
struct Evictions(Arc<Counters>);

impl<Key, Val> Lifecycle<Key, Val> for Evictions {
    type RequestState = ();

    fn on_evict(&self, _state: &mut (), _key: Key, _value: Val) {
        count(&self.0.evictions);
    }
}
