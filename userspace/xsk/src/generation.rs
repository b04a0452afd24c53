//! A worker's cache of how packets leave by one interface, worked out from the mirror and kept for as long as the mirror
//! says the same. One entry for each hash; the table grows when two keys want the same one, to a limit, so an attacker who
//! makes up keys can only make it miss.
//!
//! It is a cache of its own and no use of `beam-cache`, whose entries end by time and are handed out by value: these end
//! by the mirror's generation, on the packet that follows the change, are some 200 bytes that a packet only looks at, and
//! the burst's next packet finds its entry without a hash. What they count is the same.

use crate::mirror::{Reader, Tables};
use port::KnownWays;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Entries at first, and at most; powers of two. 2048 entries of about 200 bytes are 400 KB for each worker.
const ENTRY_COUNT: usize = 64;
const ENTRY_COUNT_MAX: usize = 2048;

struct Entry<K, V> {
    key: K,
    generation: u64,
    value: V,
}

/// See the module.
pub(crate) struct Cache<K, V> {
    interface: u32,
    reader: Reader,
    entries: Entries<K, V>,
}

struct Entries<K, V> {
    slots: Box<[Option<Entry<K, V>>]>,
    /// The slot that hit last: bursts go to one peer, so the key is often compared instead of hashed.
    last: usize,
    counts: KnownWays,
}

impl<K: Hash + Eq + Copy, V> Cache<K, V> {
    pub(crate) fn new(interface: u32, reader: Reader) -> Self {
        Self { interface, reader, entries: Entries::new() }
    }

    /// Takes over what changed since the last call. True if anything did.
    #[inline]
    pub(crate) fn refresh(&mut self) -> bool {
        self.reader.refresh()
    }

    /// Whether the interface still exists.
    pub(crate) fn interface_exists(&self) -> bool {
        self.reader.tables().links.contains_key(&self.interface)
    }

    /// The mirror's view, for what isn't cached.
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// What it holds, and how often that helped.
    pub(crate) fn counts(&self) -> KnownWays {
        self.entries.counts
    }

    /// The value for a key; `resolve` works it out by interface if it isn't there.
    #[inline]
    pub(crate) fn get<E>(
        &mut self,
        key: &K,
        resolve: impl FnOnce(&Tables, u32) -> Result<V, E>,
    ) -> Result<&V, E> {
        let Self { interface, reader, entries } = self;
        entries.get(key, reader.generation(), || resolve(reader.tables(), *interface))
    }
}

impl<K: Hash + Eq + Copy, V> Entries<K, V> {
    fn new() -> Self {
        Self { slots: vacant(ENTRY_COUNT), last: 0, counts: KnownWays::default() }
    }

    #[inline]
    fn get<E>(&mut self, key: &K, generation: u64, resolve: impl FnOnce() -> Result<V, E>) -> Result<&V, E> {
        let is_fresh = |entry: &Option<Entry<K, V>>| {
            entry.as_ref().is_some_and(|entry| entry.generation == generation && entry.key == *key)
        };
        if !is_fresh(&self.slots[self.last]) {
            self.last = hash(key) & (self.slots.len() - 1);
        }
        if is_fresh(&self.slots[self.last]) {
            self.counts.hits += 1;
        } else {
            self.counts.misses += 1;
            self.fill(Entry { key: *key, generation, value: resolve()? });
        }
        let Some(entry) = &self.slots[self.last] else { unreachable!("it was fresh, or was filled") };
        Ok(&entry.value)
    }

    /// Puts an entry where its key hashes to.
    fn fill(&mut self, entry: Entry<K, V>) {
        self.counts.inserts += 1;
        while self.slots.len() < ENTRY_COUNT_MAX
            && self.slots[self.last].as_ref().is_some_and(|other| other.key != entry.key)
        {
            self.grow();
            self.last = hash(&entry.key) & (self.slots.len() - 1);
        }
        let slot = &mut self.slots[self.last];
        match slot {
            None => self.counts.entries += 1,
            Some(old) if old.key == entry.key => self.counts.expired += 1,
            Some(_) => self.counts.evictions += 1,
        }
        *slot = Some(entry);
    }

    /// Keys that had slots of their own have so in twice as many.
    #[cold]
    fn grow(&mut self) {
        let slots = vacant(self.slots.len() * 2);
        for entry in std::mem::replace(&mut self.slots, slots).into_iter().flatten() {
            let at = hash(&entry.key) & (self.slots.len() - 1);
            self.slots[at] = Some(entry);
        }
    }
}

fn vacant<T>(count: usize) -> Box<[Option<T>]> {
    (0..count).map(|_| None).collect()
}

#[inline]
fn hash<K: Hash>(key: &K) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize
}

#[cfg(test)]
mod tests {
    //! Goal: a value is worked out once a generation, and never served for another key or generation; a refusal isn't kept.
    use super::*;

    #[test]
    fn once_for_each_key_and_generation() {
        let (mut cache, mut asked) = (Entries::new(), 0);
        let mut get = |key: u32, generation: u64| {
            let resolve = || {
                asked += 1;
                Ok::<_, ()>((key, generation))
            };
            assert_eq!(cache.get(&key, generation, resolve), Ok(&(key, generation)));
            asked
        };
        assert_eq!((get(1, 1), get(1, 1), get(2, 1)), (1, 1, 2));
        assert_eq!(get(1, 2), 3);
        // Far more keys than slots: each is its own.
        for key in 0..20_000 {
            get(key, 3);
        }
        let counts = cache.counts;
        assert_eq!((counts.hits, counts.misses, counts.inserts), (1, 20_003, 20_003));
        assert_eq!(counts.inserts, counts.entries + counts.evictions + counts.expired);
        assert!(counts.entries <= ENTRY_COUNT_MAX as u64 && counts.expired >= 1);
    }

    #[test]
    fn a_few_keys_find_room_without_pushing_each_other_out() {
        let mut cache = Entries::new();
        for round in 0..3 {
            for key in 0..16 {
                let value = cache.get(&key, 1, || Ok::<_, ()>(key * 2));
                assert_eq!(value, Ok(&(key * 2)), "round {round}");
            }
        }
        let counts = cache.counts;
        assert_eq!((counts.hits, counts.entries, counts.evictions), (32, 16, 0));
        assert!(cache.slots.len() < ENTRY_COUNT_MAX && cache.slots.len().is_power_of_two());
    }

    #[test]
    fn refusals_are_asked_again() {
        let mut cache = Entries::new();
        assert_eq!(cache.get(&7, 1, || Err("no neighbour")), Err("no neighbour"));
        assert_eq!(cache.get(&7, 1, || Ok::<_, ()>('a')), Ok(&'a'));
    }
}
