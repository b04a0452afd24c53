//! What one client uses, over all workers of a gateway: the shared account, and its rate.
//!
//! ```text
//!  worker 0: Ledger ── plain counters, folded in when somebody looks ──┐
//!  worker 1: Ledger ── tokens taken in quanta ─────────────────────────┴─► Account (atomics; one a client)
//! ```
//! No lock is on the way of a byte: a worker finds an account by name once a connection ([`Accounts`], the only lock),
//! counts in its own [`ledger`](super::ledger), and takes tokens for some 10 ms at once. Limits are atomics, too, so
//! that a reload changes them under running flows.

use super::{bucket::Bucket, sleepers::OfAccount};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use upstream::users::ClientPolicy;

/// Which way payload goes, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// Client to upstream.
    Sent,
    /// Upstream to client.
    Received,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Sent, Self::Received];

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Accounts kept. More than there can be users; beyond it, those that nothing uses are forgotten.
const ACCOUNTS_MAX: usize = 2 * upstream::users::USERS_MAX;

/// All accounts of a gateway, by the client's name.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// Where the buckets' time begins.
    epoch: Instant,
    table: Mutex<HashMap<Arc<str>, Arc<Account>>>,
}

impl Accounts {
    pub(crate) fn new(now: Instant) -> Self {
        Self { epoch: now, table: Mutex::default() }
    }

    /// The account of that name; made if it is the first time.
    pub(crate) fn of(&self, name: &Arc<str>) -> Arc<Account> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = table.get(name) {
            return account.clone();
        }
        if table.len() >= ACCOUNTS_MAX {
            table.retain(|_, account| Arc::strong_count(account) > 1);
        }
        let account = Arc::new(Account::new(name.clone(), self.epoch));
        table.insert(name.clone(), account.clone());
        account
    }

    /// Every account, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Account>> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = table.values().cloned().collect();
        drop(table);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// What all workers know of one client. Limits: 0 is none.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) name: Arc<str>,
    /// Payload by [`Way`], folded in by the workers.
    moved_bytes: [AtomicU64; 2],
    flows_open: AtomicU64,
    flows_opened: AtomicU64,
    flows_max: AtomicU64,
    connections: AtomicU64,
    connections_max: AtomicU64,
    /// Requests and connections refused for a limit.
    refused: AtomicU64,
    /// Times that a flow had to wait for its client's rate.
    waits: AtomicU64,
    /// Datagrams and packets dropped for it.
    dropped: AtomicU64,
    buckets: [Bucket; 2],
    /// Its tunnels that sleep.
    pub(crate) asleep: OfAccount,
}

/// An account at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) flows: u64,
    pub(crate) flows_opened: u64,
    pub(crate) connections: u64,
    pub(crate) refused_limit: u64,
    pub(crate) rate_waits: u64,
    pub(crate) rate_dropped: u64,
}

impl Usage {
    /// What was used since then; what is open now stays.
    pub(crate) fn since(self, before: &Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes.saturating_sub(before.sent_bytes),
            received_bytes: self.received_bytes.saturating_sub(before.received_bytes),
            flows: self.flows,
            flows_opened: self.flows_opened.saturating_sub(before.flows_opened),
            connections: self.connections,
            refused_limit: self.refused_limit.saturating_sub(before.refused_limit),
            rate_waits: self.rate_waits.saturating_sub(before.rate_waits),
            rate_dropped: self.rate_dropped.saturating_sub(before.rate_dropped),
        }
    }
}

impl Account {
    fn new(name: Arc<str>, epoch: Instant) -> Self {
        Self {
            name,
            moved_bytes: Default::default(),
            flows_open: AtomicU64::new(0),
            flows_opened: AtomicU64::new(0),
            flows_max: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_max: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            buckets: [Bucket::new(epoch), Bucket::new(epoch)],
            asleep: OfAccount::default(),
        }
    }

    /// Takes over the limits of a policy; what is running beyond them goes on.
    pub(crate) fn limit(&self, policy: &ClientPolicy) {
        self.flows_max.store(policy.flows_max.map_or(0, |n| n.get().into()), Relaxed);
        self.connections_max.store(policy.connections_max.map_or(0, |n| n.get().into()), Relaxed);
        let rate = policy.rate_max.map_or(0, upstream::users::Rate::bits_per_s);
        self.buckets.iter().for_each(|bucket| bucket.set_rate(rate));
    }

    /// Counts one flow more; false, and counted as refused, if that is one too many.
    pub(super) fn open_flow(&self) -> bool {
        let opened = self.count_up(&self.flows_open, &self.flows_max);
        self.flows_opened.fetch_add(opened.into(), Relaxed);
        opened
    }

    pub(super) fn close_flow(&self) {
        self.flows_open.fetch_sub(1, Relaxed);
    }

    /// As [`Self::open_flow`], for a connection.
    pub(super) fn join(&self) -> bool {
        self.count_up(&self.connections, &self.connections_max)
    }

    pub(super) fn leave(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// Exact, whoever else counts at the same time.
    fn count_up(&self, count: &AtomicU64, max: &AtomicU64) -> bool {
        let max = max.load(Relaxed);
        let up = |n| (max == 0 || n < max).then_some(n + 1);
        let counted = count.fetch_update(Relaxed, Relaxed, up).is_ok();
        self.refused.fetch_add((!counted).into(), Relaxed);
        counted
    }

    /// Adds what a worker has counted by itself.
    pub(super) fn fold(&self, moved_bytes: [u64; 2], waits: u64, dropped: u64) {
        for (sum, more) in self.moved_bytes.iter().zip(moved_bytes) {
            sum.fetch_add(more, Relaxed);
        }
        self.waits.fetch_add(waits, Relaxed);
        self.dropped.fetch_add(dropped, Relaxed);
    }

    pub(super) fn bucket(&self, way: Way) -> &Bucket {
        &self.buckets[way.index()]
    }

    pub(crate) fn usage(&self) -> Usage {
        let [sent, received] = &self.moved_bytes;
        Usage {
            sent_bytes: sent.load(Relaxed),
            received_bytes: received.load(Relaxed),
            flows: self.flows_open.load(Relaxed),
            flows_opened: self.flows_opened.load(Relaxed),
            connections: self.connections.load(Relaxed),
            refused_limit: self.refused.load(Relaxed),
            rate_waits: self.waits.load(Relaxed),
            rate_dropped: self.dropped.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: limits are exact whoever counts at once. Method: threads that race for flows.
    use super::*;

    fn account(options: &[&str]) -> Arc<Account> {
        let account = Accounts::new(Instant::now()).of(&"alice".into());
        account.limit(&ClientPolicy::parse(options.iter().copied()).unwrap());
        account
    }

    #[test]
    fn flows_are_limited_exactly_under_contention() {
        let account = account(&["max-flows=100"]);
        let opened: usize = std::thread::scope(|scope| {
            let racers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| account.open_flow()).count())).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(opened, 100);
        let usage = account.usage();
        assert_eq!((usage.flows, usage.flows_opened, usage.refused_limit), (100, 100, 3900));
        account.close_flow();
        assert!(account.open_flow() && !account.open_flow());
        // A reload lowers the limit: what runs goes on, nothing new comes.
        account.limit(&ClientPolicy::parse(["max-flows=1"]).unwrap());
        account.close_flow();
        assert!(!account.open_flow());
        assert_eq!(account.usage().flows, 99);
        account.limit(&ClientPolicy::default());
        assert!(account.open_flow());
    }

    #[test]
    fn connections_are_limited() {
        let account = account(&["max-connections=2"]);
        assert!(account.join() && account.join() && !account.join());
        account.leave();
        assert!(account.join());
        assert_eq!(account.usage().connections, 2);
    }

    #[test]
    fn a_rate_is_for_each_way() {
        let account = account(&["max-rate=1M"]);
        assert!(Way::BOTH.iter().all(|&way| account.bucket(way).is_limited()));
        account.limit(&ClientPolicy::default());
        assert!(Way::BOTH.iter().all(|&way| !account.bucket(way).is_limited()));
    }

    #[test]
    fn an_account_is_found_by_name() {
        let accounts = Accounts::new(Instant::now());
        let (alice, bob) = (accounts.of(&"alice".into()), accounts.of(&"bob".into()));
        assert!(Arc::ptr_eq(&alice, &accounts.of(&"alice".into())) && !Arc::ptr_eq(&alice, &bob));
        bob.fold([5, 7], 1, 2);
        let all = accounts.all();
        assert_eq!(all.iter().map(|a| &*a.name).collect::<Vec<_>>(), ["alice", "bob"]);
        let usage = all[1].usage();
        assert_eq!(
            (usage.sent_bytes, usage.received_bytes, usage.rate_waits, usage.rate_dropped),
            (5, 7, 1, 2)
        );
    }
}
