//! A client's tickets and tokens for one gateway: in memory for this process, a copy on the disk for the next one.
//!
//! ```text
//!  start ─ take_some (the disk's copy is gone for good) ─► memory ─ take (and the disk's copy goes soon) ─► a connection
//!  a connection ─► memory, and a copy to the disk (by the writer)
//! ```
//! So one for each connection is enough for a tunnel that sleeps and for a process that was killed, and workers wait for no
//! disk. This process uses each once. Another one of the same user that begins meanwhile, or after this one was killed in
//! the moment before the disk's copy went, may hold the same: the gateway gives its session to the first that comes, and
//! the second has a full handshake, its first bytes asked again.

use super::{Circumstances, TICKET_LIFETIME, now};
use cache::{Cache, CacheReport, Kind, Stamp};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};
use tunnel::resume::{Ticket, Vault};

/// How many of one gateway are kept: a pool of connections has one each.
const PLACES: u8 = 32;

/// Things of one gateway that are used once.
pub(crate) struct Pile<K: Kind<Key = (Circumstances, u8)>> {
    cache: Arc<Cache<K>>,
    of: Circumstances,
    /// Where the next one goes; the oldest makes room.
    next: AtomicU8,
}

impl<K: Kind<Key = (Circumstances, u8)>> Pile<K> {
    /// What an earlier process left for `count` connections, and what this one gets.
    pub(crate) fn open(cache: Arc<Cache<K>>, of: Circumstances, count: u8) -> Self {
        let count = count.clamp(1, PLACES);
        cache.take_some(now(), &of, usize::from(count));
        // Not where an earlier process put its last ones.
        Self { cache, of, next: AtomicU8::new(rand::random()) }
    }

    /// For a connection that begins.
    pub(crate) fn take(&self) -> Option<K::Value> {
        let now = now();
        // The newest first; those that an earlier process left are wherever it had put them.
        let newest = self.next.load(Relaxed);
        (1..=PLACES).find_map(|back| {
            let place = newest.wrapping_sub(back) % PLACES;
            self.cache.take_soon_everywhere(now, &(self.of, place))
        })
    }

    pub(crate) fn put(&self, value: K::Value, ttl: Duration) {
        let place = self.next.fetch_add(1, Relaxed) % PLACES;
        self.cache.put_through(now(), (self.of, place), value, ttl);
    }

    /// Nothing is here for this process.
    pub(crate) fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// What is here is of no use.
    pub(crate) fn clear(&self) {
        self.cache.clear();
    }

    /// For the next process. No worker runs any more.
    pub(crate) fn keep(&self) {
        self.cache.save_all(now());
    }

    pub(crate) fn report(&self) -> CacheReport {
        self.cache.report()
    }
}

/// Tickets that gateways gave a client.
pub(crate) struct ClientTickets;

impl Kind for ClientTickets {
    const NAME: &'static str = "tickets";
    const LIMITS: cache::Limits = cache::Limits {
        local_entries_max: 0,
        shared: cache::Bounds { entries_max: 512, bytes_max: 2 << 20 },
        disk: cache::Bounds { entries_max: 512, bytes_max: 2 << 20 },
        ttl_max: Duration::from_secs(7 * 24 * 3600),
    };
    type Key = (Circumstances, u8);
    type Value = Arc<Ticket>;

    fn weight_bytes(_key: &Self::Key, value: Option<&Arc<Ticket>>) -> usize {
        33 + value.map_or(0, |ticket| ticket.size_bytes())
    }

    fn encode(_key: &Self::Key, value: &Arc<Ticket>) -> Option<Vec<u8>> {
        Some(value.to_bytes().to_vec())
    }

    fn encode_key((of, place): &Self::Key) -> Vec<u8> {
        [&of[..], &[*place]].concat()
    }

    fn decode(key: &[u8], value: &[u8]) -> Option<(Self::Key, Arc<Ticket>)> {
        let (&of, place) = key.split_first_chunk::<32>()?;
        let &[place] = place else { return None };
        Some(((of, place), Arc::new(Ticket::from_bytes(value)?)))
    }
}

/// TLS' view of a client's tickets.
pub(crate) struct TicketsHeld(pub(crate) Pile<ClientTickets>);

impl fmt::Debug for TicketsHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketsHeld")
    }
}

impl TicketsHeld {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is here is of no use.
    pub(crate) fn forget(&self) {
        self.0.clear();
    }
}

impl Vault for TicketsHeld {
    fn take(&self) -> Option<Ticket> {
        self.0.take().map(Arc::unwrap_or_clone)
    }

    fn put(&self, ticket: Ticket) {
        let age = now().0.saturating_sub(Stamp(ticket.issued_unix_s().saturating_mul(1000)).0);
        let lifetime = Duration::from_secs(ticket.lifetime_s().into()).min(2 * TICKET_LIFETIME);
        self.0.put(Arc::new(ticket), lifetime.saturating_sub(Duration::from_millis(age)));
    }
}
