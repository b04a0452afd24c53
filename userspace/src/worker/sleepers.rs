//! The tunnels of a gateway that may sleep: one compact record each, for all workers (see [`masque::sleep`]).
//!
//! ```text
//!  first connection ─► awake ─(idle timeout, no flow)─► asleep ─(the same client, the same id)─► awake …
//!                        └─(closed, kicked)─► gone         └─(kicked, revoked, lifetime, room for others)─► gone
//! ```
//! A record opens nothing: whoever comes back shows who it is as ever. It keeps what the tunnel has moved, so that it goes
//! on where it was, and tells an operator who sleeps.
//!
//! One lock, taken when a tunnel comes, lapses or ends, and when somebody looks; no packet waits for it. Of `max`
//! sleepers, who needs room takes it from its own oldest, or from the oldest of whoever has more.

use super::account::Account;
use hashbrown::HashTable;
use masque::TunnelId;
use slab::Slab;
use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// No tunnel sleeps for longer: its ticket is void by then, and it comes back as a new one.
pub(crate) const LIFETIME: Duration = crate::early::TICKET_LIFETIME;
/// Records are made room for so many at once, so that growing never copies them.
const CHUNK: usize = 1024;
/// Time between two looks for records that are too old.
const SWEEP_INTERVAL_S: u32 = 60;
/// In place of a record's number.
const NONE: u32 = u32::MAX;
/// In place of the time that it fell asleep.
const AWAKE: u32 = u32::MAX;

/// A tunnel. Invariant: without an account ([`NONE`]) the place is free, and `newer` is the next free one. While awake,
/// `older` is the number of its newest connection; asleep, both are the neighbours in its account's list.
#[derive(Debug)]
struct Record {
    /// Its number in the table: what all records take together counts, so it is no pointer.
    account: u32,
    since_s: u32,
    newer: u32,
    older: u32,
    flows_opened: u32,
    id: [u32; 2],
    tx_bytes: Bytes,
    rx_bytes: Bytes,
}

/// Up to 281 TB, and no more beyond; 6 bytes large.
#[derive(Clone, Copy, Debug, Default)]
struct Bytes([u16; 3]);

impl Bytes {
    fn new(bytes: u64) -> Self {
        let bytes = bytes.min((1 << 48) - 1);
        Self([bytes as u16, (bytes >> 16) as u16, (bytes >> 32) as u16])
    }

    fn get(self) -> u64 {
        self.0.iter().rev().fold(0, |bytes, &part| bytes << 16 | u64::from(part))
    }
}

/// What the index takes for each, at worst: 5 bytes a bucket, and after growing 7 of 16 buckets are in use.
const INDEX_BYTES_MAX: usize = 5 * 16_usize.div_ceil(7);
const _: () = assert!(size_of::<Record>() == 40 && size_of::<Record>() + INDEX_BYTES_MAX <= 55);

/// An account's place among those with tunnels here. Written under the table's lock alone.
#[derive(Debug)]
pub(crate) struct OfAccount {
    /// In the table; [`NONE`] without tunnels.
    number: AtomicU32,
    /// Tunnels asleep.
    count: AtomicU32,
}

impl Default for OfAccount {
    fn default() -> Self {
        Self { number: AtomicU32::new(NONE), count: AtomicU32::new(0) }
    }
}

impl OfAccount {
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }
}

/// What a tunnel has moved: UDP payload by this end, and flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) tx_bytes: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) flows_opened: u32,
}

/// A connection's claim to be the newest of its tunnel.
#[derive(Debug)]
pub(super) struct Awake {
    account: Arc<Account>,
    id: TunnelId,
    connection: u32,
    /// What the tunnel had moved before.
    pub(super) before: Moved,
    /// It has slept until now.
    pub(super) woke: bool,
}

impl Awake {
    pub(super) fn id(&self) -> TunnelId {
        self.id
    }
}

/// A tunnel that sleeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sleeper {
    pub(crate) client: Arc<str>,
    pub(crate) id: u64,
    pub(crate) moved: Moved,
    pub(crate) asleep_s: u64,
}

/// The table at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) asleep: u64,
    /// Tunnels that fell asleep, and came back.
    pub(crate) lapses: u64,
    pub(crate) wakes: u64,
    /// Sleepers that made room for others, and those that slept too long.
    pub(crate) evicted: u64,
    pub(crate) expired: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sleepers {
    epoch: Instant,
    max: AtomicUsize,
    table: Mutex<Table>,
}

/// An account with tunnels, and its list of those asleep.
#[derive(Debug)]
struct Owner {
    account: Arc<Account>,
    /// Tunnels, awake and asleep.
    records: u32,
    oldest: u32,
    newest: u32,
}

#[derive(Debug, Default)]
struct Table {
    chunks: Vec<Vec<Record>>,
    free: Option<u32>,
    /// By number.
    owners: Slab<Owner>,
    /// Records in use, by account and id.
    index: HashTable<u32>,
    hasher: RandomState,
    connections: u32,
    swept_s: u32,
    /// Has had the most sleepers.
    largest: Option<Arc<Account>>,
    report: Report,
}

impl Sleepers {
    pub(crate) fn new(now: Instant, max: usize) -> Self {
        Self { epoch: now, max: AtomicUsize::new(max), table: Mutex::default() }
    }

    /// Sleepers at once; those beyond it go as others come.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// A connection of this client says that it is this tunnel.
    pub(super) fn begin(&self, now: Instant, account: &Arc<Account>, id: TunnelId) -> Awake {
        let now_s = self.seconds(now);
        let mut table = self.lock();
        let mut woke = false;
        let at = match table.find(account, id.get()) {
            Some(at) => {
                let since_s = table.record(at).since_s;
                if since_s != AWAKE {
                    table.unlink(at);
                    woke = !is_over(since_s, now_s);
                    if woke {
                        table.report.wakes += 1;
                    } else {
                        table.report.expired += 1;
                        table.set_moved(at, Moved::default());
                    }
                }
                at
            }
            None => table.insert(account, id.get()),
        };
        table.connections = table.connections.wrapping_add(1);
        let connection = table.connections;
        let record = table.record_mut(at);
        (record.since_s, record.older) = (AWAKE, connection);
        let before = record.moved();
        Awake { account: account.clone(), id, connection, before, woke }
    }

    /// A connection has ended for want of packets, after `moved` of its own: its tunnel sleeps, unless it has a newer one.
    pub(super) fn lapse(&self, now: Instant, awake: &Awake, moved: Moved) {
        let now_s = self.seconds(now);
        let max = self.max.load(Relaxed);
        let mut table = self.lock();
        let Some(at) = table.find(&awake.account, awake.id.get()) else { return };
        let sum = table.record(at).moved().and(moved);
        table.set_moved(at, sum);
        if !table.is_newest(at, awake) {
            return;
        }
        table.report.lapses += 1;
        while table.report.asleep as usize >= max.max(1) {
            let victim = table.victim(&awake.account);
            let Some(victim) = victim else { break };
            table.evict(victim);
        }
        if max == 0 {
            table.report.evicted += 1;
            return table.remove(at);
        }
        table.record_mut(at).since_s = now_s;
        table.link(at);
    }

    /// A connection has ended for another reason: so has its tunnel, unless it has a newer one.
    pub(super) fn end(&self, awake: &Awake) {
        let mut table = self.lock();
        if let Some(at) = table.find(&awake.account, awake.id.get())
            && table.is_newest(at, awake)
        {
            table.remove(at);
        }
    }

    /// Forgets the sleepers of a client; how many there were.
    pub(crate) fn forget(&self, account: &Account) -> u64 {
        let mut table = self.lock();
        let mut forgotten = 0;
        while let Some(oldest) = table.oldest_of(account) {
            table.unlink(oldest);
            table.remove(oldest);
            forgotten += 1;
        }
        forgotten
    }

    /// The numbers of now; forgets who has slept too long.
    pub(crate) fn report(&self, now: Instant) -> Report {
        let now_s = self.seconds(now);
        let mut table = self.lock();
        if now_s >= table.swept_s.saturating_add(SWEEP_INTERVAL_S) {
            table.swept_s = now_s;
            table.sweep(now_s);
        }
        table.report
    }

    /// A part of the sleepers, from a place on; and where the next part begins.
    pub(crate) fn slice(&self, now: Instant, from: usize, places: usize) -> (Vec<Sleeper>, Option<usize>) {
        let now_s = self.seconds(now);
        let table = self.lock();
        let end = from.saturating_add(places).min(table.places());
        let asleep = (from..end).map(|at| table.record(at as u32)).filter_map(|record| {
            let Owner { account, .. } = table.owners.get(record.account as usize)?;
            (record.since_s != AWAKE && !is_over(record.since_s, now_s)).then(|| Sleeper {
                client: account.name.clone(),
                id: record.id(),
                moved: record.moved(),
                asleep_s: now_s.saturating_sub(record.since_s).into(),
            })
        });
        (asleep.collect(), (end < table.places()).then_some(end))
    }

    fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.epoch).as_secs())
            .map_or(AWAKE - 1, |s| s.min(AWAKE - 1))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_over(since_s: u32, now_s: u32) -> bool {
    u64::from(now_s.saturating_sub(since_s)) >= LIFETIME.as_secs()
}

impl Moved {
    pub(super) fn and(self, more: Self) -> Self {
        Self {
            tx_bytes: self.tx_bytes.saturating_add(more.tx_bytes),
            rx_bytes: self.rx_bytes.saturating_add(more.rx_bytes),
            flows_opened: self.flows_opened.saturating_add(more.flows_opened),
        }
    }
}

impl Record {
    fn moved(&self) -> Moved {
        Moved {
            tx_bytes: self.tx_bytes.get(),
            rx_bytes: self.rx_bytes.get(),
            flows_opened: self.flows_opened,
        }
    }

    fn id(&self) -> u64 {
        u64::from(self.id[1]) << 32 | u64::from(self.id[0])
    }

    fn is_asleep(&self) -> bool {
        self.account != NONE && self.since_s != AWAKE
    }
}

impl Table {
    fn places(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    fn record(&self, at: u32) -> &Record {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn record_mut(&mut self, at: u32) -> &mut Record {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn set_moved(&mut self, at: u32, Moved { tx_bytes, rx_bytes, flows_opened }: Moved) {
        let record = self.record_mut(at);
        (record.tx_bytes, record.rx_bytes) = (Bytes::new(tx_bytes), Bytes::new(rx_bytes));
        record.flows_opened = flows_opened;
    }

    /// Ids are the client's choice: the hash is keyed.
    fn hash(hasher: &RandomState, account: u32, id: u64) -> u64 {
        hasher.hash_one((account, id))
    }

    fn find(&self, account: &Account, id: u64) -> Option<u32> {
        let account = account.asleep.number.load(Relaxed);
        let is = |&at: &u32| {
            let record = self.record(at);
            record.account == account && record.id() == id
        };
        self.index.find(Self::hash(&self.hasher, account, id), is).copied()
    }

    /// Its number, for one record more.
    fn number(&mut self, account: &Arc<Account>) -> u32 {
        let number = account.asleep.number.load(Relaxed);
        if let Some(owner) = self.owners.get_mut(number as usize) {
            owner.records += 1;
            return number;
        }
        let owner = Owner { account: account.clone(), records: 1, oldest: NONE, newest: NONE };
        let number = self.owners.insert(owner) as u32;
        account.asleep.number.store(number, Relaxed);
        number
    }

    fn is_newest(&self, at: u32, awake: &Awake) -> bool {
        let record = self.record(at);
        record.since_s == AWAKE && record.older == awake.connection
    }

    fn insert(&mut self, account: &Arc<Account>, id: u64) -> u32 {
        let account = self.number(account);
        let record = Record {
            account,
            since_s: AWAKE,
            newer: NONE,
            older: NONE,
            flows_opened: 0,
            id: [id as u32, (id >> 32) as u32],
            tx_bytes: Bytes::default(),
            rx_bytes: Bytes::default(),
        };
        let at = match self.free {
            Some(at) => {
                let next = self.record(at).newer;
                self.free = (next != NONE).then_some(next);
                *self.record_mut(at) = record;
                at
            }
            None => {
                if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                let at = self.places() as u32;
                if let Some(chunk) = self.chunks.last_mut() {
                    chunk.push(record);
                }
                at
            }
        };
        let hash = Self::hash(&self.hasher, account, id);
        let Self { index, chunks, hasher, .. } = self;
        index.insert_unique(hash, at, |&at| {
            let record = &chunks[at as usize / CHUNK][at as usize % CHUNK];
            Self::hash(hasher, record.account, record.id())
        });
        at
    }

    /// Frees a record that is in no list.
    fn remove(&mut self, at: u32) {
        let (number, id) = (self.record(at).account, self.record(at).id());
        let Some(owner) = self.owners.get_mut(number as usize) else { return };
        owner.records -= 1;
        if owner.records == 0 {
            owner.account.asleep.number.store(NONE, Relaxed);
            self.owners.remove(number as usize);
        }
        if let Ok(entry) = self.index.find_entry(Self::hash(&self.hasher, number, id), |&other| other == at) {
            entry.remove();
        }
        let next = self.free.replace(at).unwrap_or(NONE);
        let record = self.record_mut(at);
        (record.account, record.newer) = (NONE, next);
    }

    /// Puts a record at the new end of its account's list.
    fn link(&mut self, at: u32) {
        let number = self.record(at).account as usize;
        let Some(owner) = self.owners.get_mut(number) else { return };
        let before = std::mem::replace(&mut owner.newest, at);
        if before == NONE {
            owner.oldest = at;
        }
        let count = owner.account.asleep.count.fetch_add(1, Relaxed) + 1;
        if self.largest.as_ref().is_none_or(|largest| largest.asleep.count() < count) {
            self.largest = Some(owner.account.clone());
        }
        let record = self.record_mut(at);
        (record.older, record.newer) = (before, NONE);
        if before != NONE {
            self.record_mut(before).newer = at;
        }
        self.report.asleep += 1;
    }

    fn unlink(&mut self, at: u32) {
        let Record { newer, older, account, .. } = *self.record(at);
        let Some(owner) = self.owners.get_mut(account as usize) else { return };
        if older == NONE {
            owner.oldest = newer;
        }
        if newer == NONE {
            owner.newest = older;
        }
        owner.account.asleep.count.fetch_sub(1, Relaxed);
        if older != NONE {
            self.record_mut(older).newer = newer;
        }
        if newer != NONE {
            self.record_mut(newer).older = older;
        }
        self.report.asleep -= 1;
    }

    fn oldest_of(&self, account: &Account) -> Option<u32> {
        let owner = self.owners.get(account.asleep.number.load(Relaxed) as usize)?;
        Some(owner.oldest).filter(|&at| at != NONE)
    }

    /// Who makes room for one more of this account.
    fn victim(&self, account: &Account) -> Option<u32> {
        let largest = self.largest.as_deref();
        let larger = largest.filter(|largest| largest.asleep.count() > account.asleep.count() + 1);
        let of = larger.unwrap_or(account);
        self.oldest_of(of).or_else(|| {
            // The one that had the most has none any more.
            let mut records = self.chunks.iter().flatten().zip(0..);
            records.find(|(record, _)| record.is_asleep()).map(|(_, at)| at)
        })
    }

    fn evict(&mut self, at: u32) {
        self.unlink(at);
        self.remove(at);
        self.report.evicted += 1;
    }

    fn sweep(&mut self, now_s: u32) {
        for at in 0..self.places() as u32 {
            let record = self.record(at);
            if record.is_asleep() && is_over(record.since_s, now_s) {
                self.unlink(at);
                self.remove(at);
                self.report.expired += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
