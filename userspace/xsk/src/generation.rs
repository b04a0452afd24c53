//! A worker's cache of what it works out from the mirror, for as long as the mirror says the same. One entry for each
//! hash, so the table's size is its limit and an attacker who makes up keys can only make it miss.

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
    entries: Box<[Option<Entry<K, V>>]>,
    /// The slot that hit last: bursts go to one peer, so the key is often compared instead of hashed.
    last: usize,
}

impl<K: Hash + Eq + Copy, V> Cache<K, V> {
    pub(crate) fn new() -> Self {
        Self { entries: (0..ENTRY_COUNT).map(|_| None).collect(), last: 0 }
    }

    /// The value for a key in this generation of the mirror; `resolve` works it out if it isn't there.
    #[inline]
    pub(crate) fn get<E>(
        &mut self,
        key: &K,
        generation: u64,
        resolve: impl FnOnce() -> Result<V, E>,
    ) -> Result<&V, E> {
        let is_fresh = |entry: &Option<Entry<K, V>>| {
            entry.as_ref().is_some_and(|entry| entry.generation == generation && entry.key == *key)
        };
        if !is_fresh(&self.entries[self.last]) {
            self.last = hash(key) & (ENTRY_COUNT - 1);
        }
        let slot = &mut self.entries[self.last];
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
        let (mut cache, mut asked) = (Cache::new(), 0);
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
        let mut cache = Cache::new();
        assert_eq!(cache.get(&7, 1, || Err("no neighbour")), Err("no neighbour"));
        assert_eq!(cache.get(&7, 1, || Ok::<_, ()>('a')), Ok(&'a'));
    }
}
