//! What one client uses, over all workers of a gateway: the shared account, and its rate.
//!
//! ```text
//!  worker 0: Ledger ── plain counters, folded in when somebody looks ──┐
//!  worker 1: Ledger ── tokens taken in quanta ─────────────────────────┴─► Account (atomics; one a client)
//! ```
//! No lock is on the way of a byte: a worker finds an account by name once a connection ([`Accounts`], the only lock),
//! counts in its own [`ledger`](super::ledger), and takes tokens for some 10 ms at once. Limits are atomics, too, so
//! that a reload changes them under running flows.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
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

/// Bytes taken at once: the rate's [`QUANTUM_TIME`], within these bounds.
const QUANTUM_BYTES_MIN: u64 = 1_500;
const QUANTUM_BYTES_MAX: u64 = 256 * 1024;
const QUANTUM_TIME: Duration = Duration::from_millis(10);
/// What an idle client may save up for a burst: so much time, and two quanta at least.
const BURST_TIME: Duration = Duration::from_millis(100);

/// A token bucket in one atomic, without a timer of its own: what is kept is the time up to which tokens are spent.
///
/// Invariant: over any span, the bytes granted are at most the rate times the span and one burst.
#[derive(Debug)]
pub(super) struct Bucket {
    epoch: Instant,
    /// Nanoseconds from the epoch.
    spent_until_ns: AtomicU64,
    /// 0: no limit.
    bits_per_s: AtomicU64,
}

/// What a bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Unlimited,
    /// So many bytes may go.
    Bytes(u64),
    /// Nothing before then.
    Not(Instant),
}

impl Bucket {
    fn new(epoch: Instant) -> Self {
        Self { epoch, spent_until_ns: AtomicU64::new(0), bits_per_s: AtomicU64::new(0) }
    }

    fn set_rate(&self, bits_per_s: u64) {
        self.bits_per_s.store(bits_per_s, Relaxed);
    }

    /// True if there is a rate to keep.
    pub(super) fn is_limited(&self) -> bool {
        self.bits_per_s.load(Relaxed) != 0
    }

    /// Takes one quantum, if there is one.
    pub(super) fn take(&self, now: Instant) -> Grant {
        let bits_per_s = self.bits_per_s.load(Relaxed);
        if bits_per_s == 0 {
            return Grant::Unlimited;
        }
        let per_quantum_time = bits_per_s / 8 * QUANTUM_TIME.as_millis() as u64 / 1_000;
        let bytes = per_quantum_time.clamp(QUANTUM_BYTES_MIN, QUANTUM_BYTES_MAX);
        let price_ns = (bytes * 8_000_000_000).div_ceil(bits_per_s);
        let burst_ns = (BURST_TIME.as_nanos() as u64).max(2 * price_ns);
        let now_ns = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        let spend = |spent: u64| spent.max(now_ns.saturating_sub(burst_ns)) + price_ns;
        let taken = self
            .spent_until_ns
            .fetch_update(Relaxed, Relaxed, |spent| Some(spend(spent)).filter(|&spent| spent <= now_ns));
        match taken {
            Ok(_) => Grant::Bytes(bytes),
            Err(spent) => Grant::Not(self.epoch + Duration::from_nanos(spend(spent))),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: limits are exact whoever counts at once; a bucket grants its rate and one burst, no more and no less.
    //! Method: threads that race for flows; a bucket under a virtual clock.
    use super::*;
    use upstream::users::Rate;

    fn account(options: &[&str]) -> (Arc<Account>, Instant) {
        let epoch = Instant::now();
        let account = Accounts::new(epoch).of(&"alice".into());
        account.limit(&ClientPolicy::parse(options.iter().copied()).unwrap());
        (account, epoch)
    }

    #[test]
    fn flows_are_limited_exactly_under_contention() {
        let (account, _) = account(&["max-flows=100"]);
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
        let (account, _) = account(&["max-connections=2"]);
        assert!(account.join() && account.join() && !account.join());
        account.leave();
        assert!(account.join());
        assert_eq!(account.usage().connections, 2);
    }

    /// Takes greedily for `span`, `step` at a time; the bytes granted.
    fn greedy(bucket: &Bucket, from: Instant, span: Duration, step: Duration) -> u64 {
        let mut now = from;
        let mut granted = 0;
        while now <= from + span {
            while let Grant::Bytes(bytes) = bucket.take(now) {
                granted += bytes;
            }
            now += step;
        }
        granted
    }

    #[test]
    fn a_bucket_grants_the_rate_and_one_burst() {
        for rate in [Rate::MIN, 64_000, 1_000_000, 50_000_000, 10_000_000_000, Rate::MAX] {
            let (account, epoch) = account(&[&format!("max-rate={rate}")]);
            let bucket = account.bucket(Way::Sent);
            // From long before the first byte on, so that the burst is saved up.
            let span = Duration::from_secs(20);
            let granted = greedy(bucket, epoch + Duration::from_secs(3600), span, Duration::from_millis(1));
            let exact = rate / 8 * span.as_secs();
            let burst = (rate / 8 / 10).max(2 * QUANTUM_BYTES_MAX.min((rate / 800).max(QUANTUM_BYTES_MIN)));
            assert!(granted <= exact + burst, "{rate}: {granted} of {exact} and {burst}");
            assert!(granted + QUANTUM_BYTES_MAX >= exact, "{rate}: {granted} of {exact}");
        }
    }

    #[test]
    fn it_says_when_to_come_back_and_then_grants() {
        let (account, epoch) = account(&["max-rate=1M"]);
        let bucket = account.bucket(Way::Received);
        let mut now = epoch + Duration::from_secs(10);
        let mut waits = 0;
        while waits < 100 {
            match bucket.take(now) {
                Grant::Bytes(bytes) => assert_eq!(bytes, QUANTUM_BYTES_MIN),
                Grant::Not(until) => {
                    assert!(until > now && until <= now + Duration::from_millis(12), "1500 bytes take 12 ms");
                    assert_eq!(bucket.take(until - Duration::from_nanos(1)), Grant::Not(until));
                    now = until;
                    waits += 1;
                    assert_eq!(bucket.take(now), Grant::Bytes(QUANTUM_BYTES_MIN), "as it said");
                }
                Grant::Unlimited => panic!("there is a limit"),
            }
        }
        assert!(account.bucket(Way::Sent).is_limited(), "each way by itself");
        assert_eq!(
            account.bucket(Way::Sent).take(epoch + Duration::from_secs(1)),
            Grant::Bytes(QUANTUM_BYTES_MIN)
        );
    }

    #[test]
    fn workers_share_one_rate() {
        let (account, epoch) = account(&["max-rate=80M"]);
        let now = epoch + Duration::from_secs(1);
        let granted: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| greedy(account.bucket(Way::Sent), now, Duration::ZERO, QUANTUM_TIME)))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(granted, 1_000_000, "100 ms of 10 MB/s, however many take them");
    }

    #[test]
    fn without_a_limit_there_is_none() {
        let (account, epoch) = account(&[]);
        assert_eq!(account.bucket(Way::Sent).take(epoch), Grant::Unlimited);
        assert!(!account.bucket(Way::Sent).is_limited());
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
