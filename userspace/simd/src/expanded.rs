//! What keys become when they are used, kept for a bounded number of keys on each thread: the keys themselves stay short.
//!
//! ```text
//!   PacketKey { id, slot, 32 B of key, IV } ── id, slot ──► this thread's cache ─► round keys, powers of H; ring's key
//! ```
//!
//! An idle connection thus costs its four short keys, and what a thread holds beside them is [`PACKET_KEYS_MAX`] and
//! [`HEADER_KEYS_MAX`] expanded ones, whoever is connected. A key that finds its place taken is expanded again, at
//! about 0.4 us, which is what fetching it from far memory would cost; that is also all that a crowd of connections can
//! make others pay, packet by packet, and a second chance keeps those whose keys are in constant use from paying.
//!
//! Whoever works with an expanded key holds a count of it, so eviction never pulls it away. It is wiped when the last
//! count goes; of a key that is dropped the cache keeps nothing. (A key that is dropped on another thread than it was
//! used on leaves its expansion there until it is evicted or the thread ends.)

use crate::{gcm, wiped::Wiped};
use ring::aead::{self, quic};
use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Expanded packet keys that a thread keeps: two for each of 64 busy connections, about 1.5 KB each.
pub(crate) const PACKET_KEYS_MAX: usize = 128;
/// Expanded header keys that a thread keeps, about 300 B each.
pub(crate) const HEADER_KEYS_MAX: usize = 512;

thread_local! {
    static PACKETS: RefCell<Cache<Packet>> = const { RefCell::new(Cache::new(PACKET_KEYS_MAX)) };
    static HEADERS: RefCell<Cache<Header>> = const { RefCell::new(Cache::new(HEADER_KEYS_MAX)) };
}

/// A packet key as ring and the batches want it; each half is made when first asked for.
#[derive(Default)]
pub(crate) struct Packet {
    pub(crate) ring: OnceCell<Wiped<aead::LessSafeKey>>,
    pub(crate) gcm: OnceCell<Wiped<gcm::PacketState>>,
}

/// A header key as ring and the batches want it.
#[derive(Default)]
pub(crate) struct Header {
    pub(crate) ring: OnceCell<Wiped<quic::HeaderProtectionKey>>,
    pub(crate) gcm: OnceCell<Wiped<gcm::HeaderState>>,
}

/// Where a key's expansion may be found.
#[derive(Debug)]
pub(crate) struct Place {
    /// Never used twice in a process, and never 0.
    id: u64,
    /// Where it was last put, on whichever thread: a hint, which the id confirms.
    slot: AtomicU32,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), slot: AtomicU32::new(u32::MAX) }
    }

    #[inline]
    pub(crate) fn packet(&self) -> Rc<Packet> {
        PACKETS.with_borrow_mut(|cache| cache.get(self))
    }

    #[inline]
    pub(crate) fn header(&self) -> Rc<Header> {
        HEADERS.with_borrow_mut(|cache| cache.get(self))
    }

    pub(crate) fn forget_packet(&self) {
        // A thread that ends may have wiped its cache already.
        let _ = PACKETS.try_with(|cache| cache.borrow_mut().forget(self));
    }

    pub(crate) fn forget_header(&self) {
        let _ = HEADERS.try_with(|cache| cache.borrow_mut().forget(self));
    }
}

/// Gives back this thread's expanded keys that nobody has used since the last call.
pub fn release_idle_keys() {
    PACKETS.with_borrow_mut(Cache::release_idle);
    HEADERS.with_borrow_mut(Cache::release_idle);
}

/// How many expanded packet keys and header keys this thread holds.
#[must_use]
pub fn expanded_keys() -> (usize, usize) {
    (PACKETS.with_borrow(Cache::len), HEADERS.with_borrow(Cache::len))
}

struct Entry<T> {
    /// 0: vacant.
    id: u64,
    /// Since the hand, or [`release_idle_keys`], last came by.
    used: bool,
    value: Option<Rc<T>>,
}

/// Second chance: the hand takes the first entry that wasn't used since it last came by.
struct Cache<T> {
    entries: Vec<Entry<T>>,
    vacant: Vec<u32>,
    hand: usize,
    entries_max: usize,
}

impl<T: Default> Cache<T> {
    const fn new(entries_max: usize) -> Self {
        Self { entries: Vec::new(), vacant: Vec::new(), hand: 0, entries_max }
    }

    #[inline]
    fn get(&mut self, place: &Place) -> Rc<T> {
        if let Some(entry) = self.entries.get_mut(place.slot.load(Ordering::Relaxed) as usize)
            && entry.id == place.id
            && let Some(value) = &entry.value
        {
            entry.used = true;
            return value.clone();
        }
        self.insert(place)
    }

    #[cold]
    fn insert(&mut self, place: &Place) -> Rc<T> {
        let value = Rc::new(T::default());
        let entry = Entry { id: place.id, used: true, value: Some(value.clone()) };
        let slot = match self.vacant.pop() {
            Some(slot) => slot as usize,
            None if self.entries.len() < self.entries_max => self.entries.len(),
            None => self.sweep(),
        };
        match self.entries.get_mut(slot) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        place.slot.store(slot as u32, Ordering::Relaxed);
        value
    }

    /// The slot to take over, of a cache without vacancies; it comes round at most once.
    fn sweep(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (at + 1) % self.entries.len();
            if !std::mem::take(&mut self.entries[at].used) {
                return at;
            }
        }
    }

    fn forget(&mut self, place: &Place) {
        let slot = place.slot.load(Ordering::Relaxed);
        if self.entries.get(slot as usize).is_some_and(|entry| entry.id == place.id) {
            self.clear(slot as usize);
        }
    }

    fn clear(&mut self, slot: usize) {
        self.entries[slot] = Entry { id: 0, used: false, value: None };
        self.vacant.push(slot as u32);
    }

    fn release_idle(&mut self) {
        for slot in 0..self.entries.len() {
            let entry = &mut self.entries[slot];
            if entry.id != 0 && !std::mem::take(&mut entry.used) {
                self.clear(slot);
            }
        }
        if self.vacant.len() == self.entries.len() {
            (self.entries, self.vacant, self.hand) = (Vec::new(), Vec::new(), 0);
        }
    }

    fn len(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the cache is bounded, gives each key its own value, prefers those in use, and keeps nothing of the gone.
    use super::*;
    use std::cell::Cell;

    /// Whose it is; 0 until somebody has said so.
    type Value = Cell<u64>;

    fn get(cache: &mut Cache<Value>, place: &Place) -> bool {
        let value = cache.get(place);
        let fresh = value.get() == 0;
        assert!(fresh || value.get() == place.id, "another key's value");
        value.set(place.id);
        fresh
    }

    #[test]
    fn more_keys_than_room_never_share_and_never_grow_it() {
        let mut cache = Cache::<Value>::new(8);
        let places: Vec<Place> = (0..50).map(|_| Place::new()).collect();
        let busy = Place::new();
        get(&mut cache, &busy);
        let mut again = 0;
        for round in 0..20 {
            for place in &places {
                get(&mut cache, place);
                again += usize::from(get(&mut cache, &busy));
                assert!(cache.entries.len() <= 8, "round {round}");
            }
        }
        // The hand's first round finds all in use, and takes whatever it began with.
        assert!(again <= 1, "a key in constant use was expanded again {again} times");
        assert_eq!(cache.len(), 8);
    }

    #[test]
    fn a_dropped_key_leaves_a_vacancy_that_the_next_takes() {
        let mut cache = Cache::<Value>::new(8);
        let places: Vec<Place> = (0..8).map(|_| Place::new()).collect();
        places.iter().for_each(|place| assert!(get(&mut cache, place)));
        let held = cache.get(&places[3]);
        cache.forget(&places[3]);
        cache.forget(&places[3]);
        assert_eq!(Rc::strong_count(&held), 1, "whoever works with it keeps it, alone");
        assert_eq!(cache.len(), 7);
        assert!(get(&mut cache, &Place::new()));
        assert_eq!((cache.len(), cache.entries.len()), (8, 8));
        places
            .iter()
            .filter(|place| place.id != places[3].id)
            .for_each(|place| assert!(!get(&mut cache, place)));
    }

    #[test]
    fn what_nobody_used_between_two_calls_is_given_back() {
        let mut cache = Cache::<Value>::new(8);
        let (idle, busy) = (Place::new(), Place::new());
        for place in [&idle, &busy] {
            assert!(get(&mut cache, place));
        }
        cache.release_idle();
        assert_eq!(cache.len(), 2, "both were used before the first");
        assert!(!get(&mut cache, &busy));
        cache.release_idle();
        assert_eq!(cache.len(), 1);
        assert!(!get(&mut cache, &busy));
        assert!(get(&mut cache, &idle));
        for _ in 0..2 {
            cache.release_idle();
        }
        assert_eq!((cache.len(), cache.entries.capacity()), (0, 0));
    }
}
