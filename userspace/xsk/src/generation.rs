//! A worker's cache of how packets leave by one interface, worked out from the mirror and kept for as long as the mirror
//! says the same. One entry for each hash, so the table's size is its limit and an attacker who makes up keys can only
//! make it miss.

use crate::mirror::{Reader, Tables};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Entries; a power of two. 2048 entries of about 200 bytes are 400 KB for each worker.
const ENTRY_COUNT: usize = 2048;

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
        Self { slots: (0..ENTRY_COUNT).map(|_| None).collect(), last: 0 }
    }

    #[inline]
    fn get<E>(&mut self, key: &K, generation: u64, resolve: impl FnOnce() -> Result<V, E>) -> Result<&V, E> {
        let is_fresh = |entry: &Option<Entry<K, V>>| {
            entry.as_ref().is_some_and(|entry| entry.generation == generation && entry.key == *key)
        };
        if !is_fresh(&self.slots[self.last]) {
            self.last = hash(key) & (ENTRY_COUNT - 1);
        }
        let slot = &mut self.slots[self.last];
        if is_fresh(slot)
            && let Some(entry) = slot
        {
            return Ok(&entry.value);
        }
        let value = resolve()?;
        Ok(&slot.insert(Entry { key: *key, generation, value }).value)
    }
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
    }

    #[test]
    fn refusals_are_asked_again() {
        let mut cache = Entries::new();
        assert_eq!(cache.get(&7, 1, || Err("no neighbour")), Err("no neighbour"));
        assert_eq!(cache.get(&7, 1, || Ok::<_, ()>('a')), Ok(&'a'));
    }
}
