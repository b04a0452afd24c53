//! Who may cost us what before they have proved their address.
//!
//! Two pure objects, fed by the engine:
//! - [`Budget`]: bytes to an unvalidated address stay at or below three times those received from
//!   it (RFC 9000 8.1), exactly, per 4-tuple. quinn-proto alone lets the last datagram overshoot.
//! - [`Retry`]: turns stateless Retry on while many unvalidated handshakes are in progress.
//!
//! The sum that the limit is about has two parts. A stateless answer (version negotiation, Retry,
//! reset, refusal) is checked against three times *its own* datagram, and neither enters the table,
//! so a flood of them costs no memory. All else is credited and spent in the table. Each part obeys
//! the limit, hence so does the sum.

use quinn_proto::EcnCodepoint;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use wire::Path;

/// RFC 9000 8.1: bytes sent to an unvalidated address, for each byte received from it.
pub const AMPLIFICATION_FACTOR: u64 = 3;
/// Datagrams held for one address. quinn stops by itself one datagram past the limit, so that more
/// than a few mean probes and retransmissions, which are worth less than the first ones.
const HELD_PER_PATH_MAX: usize = 8;
/// Bytes held for all addresses of one engine.
const HELD_BYTES_MAX: usize = 1 << 20;
/// An address that was silent for so long is forgotten; a handshake gives up sooner.
const PATH_LIFETIME: Duration = Duration::from_secs(30);
/// Addresses forgotten in one call of `expire`, so that none takes long.
const EXPIRE_PER_CALL_MAX: usize = 64;
const NONE: u32 = u32::MAX;

/// When to answer an unvalidated Initial with a stateless Retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPolicy {
    /// On once more than `on_above` unvalidated handshakes are in progress, off again when fewer
    /// than `off_below` are. A handshake in progress costs about 30 KB.
    Auto {
        /// Upper threshold, a count of handshakes.
        on_above: usize,
        /// Lower threshold, a count of handshakes.
        off_below: usize,
    },
    /// Every unvalidated address is asked to prove itself: one more round trip for everybody.
    Always,
    /// Never: a flood of Initials then costs memory up to the connection limit.
    Off,
}

impl Default for RetryPolicy {
    /// 256 handshakes are 8 MB a worker, and at 100 ms round trips 2,560 honest handshakes a second.
    fn default() -> Self {
        Self::Auto { on_above: 256, off_below: 64 }
    }
}

/// The state of a [`RetryPolicy`].
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    policy: RetryPolicy,
    active: bool,
}

impl Retry {
    /// A fresh state: inactive, unless the policy is `Always`.
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, active: policy == RetryPolicy::Always }
    }

    /// Another policy from now on. One that is the same as before leaves things as they are.
    pub fn set_policy(&mut self, policy: RetryPolicy) {
        if policy != self.policy {
            *self = Self::new(policy);
        }
    }

    /// Whether unvalidated Initials are to be answered with Retry now.
    pub fn active(&self) -> bool {
        self.active
    }

    /// Takes the number of unvalidated handshakes in progress; says whether the state changed.
    pub fn update(&mut self, unvalidated_count: usize) -> bool {
        let RetryPolicy::Auto { on_above, off_below } = self.policy else {
            return false;
        };
        let was = self.active;
        self.active = match was {
            false => unvalidated_count > on_above,
            true => unvalidated_count >= off_below,
        };
        was != self.active
    }
}

/// A datagram that waits until its address has earned it.
#[derive(Debug)]
pub struct Held {
    /// ECN codepoint to send with.
    pub ecn: Option<EcnCodepoint>,
    /// The datagram.
    pub bytes: Box<[u8]>,
}

struct Entry {
    path: Path,
    received_bytes: u64,
    sent_bytes: u64,
    heard: Instant,
    held: VecDeque<Held>,
    /// In `Budget::ready`.
    ready: bool,
    newer: u32,
    older: u32,
}

/// The three-times limit, for the addresses that have not been validated.
///
/// Invariant: for each path, the bytes that `spend` and `release` let through never exceed three
/// times the bytes given to `credit`. Forgetting an address forgets its credit as well, which can
/// only send less.
pub struct Budget {
    /// Peers choose the keys: the standard map resists collisions.
    index: HashMap<Path, u32>,
    entries: slab::Slab<Entry>,
    /// Least and most recently heard.
    oldest: u32,
    newest: u32,
    paths_max: usize,
    held_bytes: usize,
    /// Paths with held datagrams that have been credited since.
    ready: VecDeque<Path>,
    expired_count: usize,
}

impl Budget {
    /// Remembers up to `paths_max` addresses.
    pub fn new(paths_max: usize) -> Self {
        Self {
            index: HashMap::new(),
            entries: slab::Slab::new(),
            oldest: NONE,
            newest: NONE,
            paths_max: paths_max.clamp(1, NONE as usize - 1),
            held_bytes: 0,
            ready: VecDeque::new(),
            expired_count: 0,
        }
    }

    /// Counts a datagram of `bytes` received over `path`.
    pub fn credit(&mut self, now: Instant, path: &Path, bytes: usize) {
        let key = match self.index.get(path) {
            Some(&key) => {
                self.unlink(key);
                key
            }
            None => self.insert(now, path),
        };
        self.link_newest(key);
        let entry = &mut self.entries[key as usize];
        entry.heard = now;
        entry.received_bytes += bytes as u64;
        if !entry.held.is_empty() && !entry.ready {
            entry.ready = true;
            self.ready.push_back(*path);
        }
    }

    /// Whether a datagram of `bytes` may go to `path` now; if so it is counted as sent.
    pub fn spend(&mut self, path: &Path, bytes: usize) -> bool {
        let Some(&key) = self.index.get(path) else {
            return false;
        };
        let entry = &mut self.entries[key as usize];
        // First in, first out: nothing overtakes what is held.
        entry.held.is_empty() && entry.spend(bytes)
    }

    /// Keeps a datagram that `spend` refused. `false`: there was no room, and it is lost.
    pub fn hold(&mut self, path: &Path, ecn: Option<EcnCodepoint>, bytes: &[u8]) -> bool {
        let Some(&key) = self.index.get(path) else {
            return false;
        };
        let entry = &mut self.entries[key as usize];
        if entry.held.len() >= HELD_PER_PATH_MAX || self.held_bytes + bytes.len() > HELD_BYTES_MAX {
            return false;
        }
        self.held_bytes += bytes.len();
        entry.held.push_back(Held { ecn, bytes: bytes.into() });
        true
    }

    /// The next held datagram that may go now; it is counted as sent.
    pub fn release(&mut self) -> Option<(Path, Held)> {
        while let Some(&path) = self.ready.front() {
            if let Some(&key) = self.index.get(&path) {
                let entry = &mut self.entries[key as usize];
                if let Some(held) = entry.release() {
                    self.held_bytes -= held.bytes.len();
                    return Some((path, held));
                }
                entry.ready = false;
            }
            self.ready.pop_front();
        }
        None
    }

    /// Drops what is held for `path`, which keeps its credit. Returns how many datagrams that were.
    ///
    /// For a peer that moved there anew: a path challenge of its earlier attempt is void by now, and
    /// would spend what the next one needs.
    pub fn discard_held(&mut self, path: &Path) -> usize {
        let Some(&key) = self.index.get(path) else {
            return 0;
        };
        let held = std::mem::take(&mut self.entries[key as usize].held);
        self.held_bytes -= held.iter().map(|held| held.bytes.len()).sum::<usize>();
        held.len()
    }

    /// Takes `path` out, because it has been validated; what was held may go.
    pub fn validated(&mut self, path: &Path) -> VecDeque<Held> {
        let Some(&key) = self.index.get(path) else {
            return VecDeque::new();
        };
        self.remove(key)
    }

    /// Forgets addresses that have long been silent. Returns how many held datagrams were lost so,
    /// here and by the limit on addresses, since the last call.
    pub fn expire(&mut self, now: Instant) -> usize {
        for _ in 0..EXPIRE_PER_CALL_MAX {
            let Some(entry) = self.entries.get(self.oldest as usize) else { break };
            if now.saturating_duration_since(entry.heard) < PATH_LIFETIME {
                break;
            }
            self.expired_count += self.remove(self.oldest).len();
        }
        std::mem::take(&mut self.expired_count)
    }

    /// When `expire` has something to do next.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.entries.get(self.oldest as usize).map(|entry| entry.heard + PATH_LIFETIME)
    }

    /// Whether `release` might return something.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Addresses remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no address is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory held, datagrams included.
    pub fn memory_bytes(&self) -> usize {
        self.held_bytes
            + self.entries.capacity() * size_of::<Entry>()
            + self.index.capacity() * size_of::<(Path, u32)>()
            + self.ready.capacity() * size_of::<Path>()
    }

    fn insert(&mut self, now: Instant, path: &Path) -> u32 {
        if self.entries.len() >= self.paths_max {
            self.expired_count += self.remove(self.oldest).len();
        }
        let key = self.entries.insert(Entry {
            path: *path,
            received_bytes: 0,
            sent_bytes: 0,
            heard: now,
            held: VecDeque::new(),
            ready: false,
            newer: NONE,
            older: NONE,
        }) as u32;
        self.index.insert(*path, key);
        key
    }

    fn remove(&mut self, key: u32) -> VecDeque<Held> {
        self.unlink(key);
        let entry = self.entries.remove(key as usize);
        self.index.remove(&entry.path);
        if entry.ready {
            // At most one entry a path; the queue is short, since `release` empties it every round.
            self.ready.retain(|path| *path != entry.path);
        }
        self.held_bytes -= entry.held.iter().map(|held| held.bytes.len()).sum::<usize>();
        entry.held
    }

    fn link_newest(&mut self, key: u32) {
        let before = std::mem::replace(&mut self.newest, key);
        let entry = &mut self.entries[key as usize];
        (entry.older, entry.newer) = (before, NONE);
        match before {
            NONE => self.oldest = key,
            before => self.entries[before as usize].newer = key,
        }
    }

    fn unlink(&mut self, key: u32) {
        let Entry { newer, older, .. } = self.entries[key as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
    }
}

impl Entry {
    fn spend(&mut self, bytes: usize) -> bool {
        let after = self.sent_bytes + bytes as u64;
        if after > self.received_bytes * AMPLIFICATION_FACTOR {
            return false;
        }
        self.sent_bytes = after;
        true
    }

    fn release(&mut self) -> Option<Held> {
        let bytes = self.held.front()?.bytes.len();
        if self.spend(bytes) { self.held.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn path(port: u16) -> Path {
        Path { local: ([198, 18, 0, 1], 443).into(), remote: ([198, 18, 0, 2], port).into() }
    }

    // RFC 9000 8.1: "an endpoint MUST limit the amount of data it sends to the unvalidated address to
    // three times the amount of data received from that address".
    // Method: 50 seeds of 5,000 random credits, sends and releases over 20 paths in a table of 8, with
    // an oracle that sums every byte ever received and let through.
    #[test]
    fn never_more_than_three_times_whatever_is_forgotten() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut now = Instant::now();
            let mut budget = Budget::new(8);
            let mut received = [0u64; 20];
            let mut sent = [0u64; 20];
            let (mut held, mut released, mut lost) = (0, 0, 0);
            for _ in 0..5_000 {
                let port = rng.random_range(0..20u16);
                let bytes = rng.random_range(1..1500);
                match rng.random_range(0..4) {
                    0 => {
                        received[usize::from(port)] += bytes as u64;
                        budget.credit(now, &path(port), bytes);
                    }
                    1 | 2 if budget.spend(&path(port), bytes) => sent[usize::from(port)] += bytes as u64,
                    1 | 2 => held += usize::from(budget.hold(&path(port), None, &vec![0; bytes])),
                    _ => {
                        now += Duration::from_millis(rng.random_range(0..2_000));
                        while let Some((path, held)) = budget.release() {
                            sent[usize::from(path.remote.port())] += held.bytes.len() as u64;
                            released += 1;
                        }
                        lost += budget.expire(now);
                    }
                }
                for port in 0..20 {
                    assert!(sent[port] <= 3 * received[port], "seed {seed} port {port}");
                }
                assert!(budget.len() <= 8);
            }
            // Conservation of what was held: released, lost, or still here.
            let here: usize = budget.entries.iter().map(|(_, entry)| entry.held.len()).sum();
            lost += std::mem::take(&mut budget.expired_count);
            assert_eq!(held, released + lost + here, "seed {seed}");
            assert!(released > 10 && lost > 10, "seed {seed}: {released} {lost}");
        }
    }

    // Goal: held datagrams are sent in order when bytes arrive, and none overtakes them.
    #[test]
    fn holds_in_order_and_releases_on_credit() {
        let now = Instant::now();
        let mut budget = Budget::new(8);
        budget.credit(now, &path(1), 400);
        assert!(budget.spend(&path(1), 1000));
        assert!(!budget.spend(&path(1), 300));
        assert!(budget.hold(&path(1), None, &[1; 300]));
        assert!(!budget.spend(&path(1), 10), "a small one must not overtake");
        assert!(budget.hold(&path(1), None, &[2; 10]));
        assert!(budget.release().is_none());
        budget.credit(now, &path(1), 34);
        assert_eq!(budget.release().unwrap().1.bytes[..], [1; 300]);
        assert!(budget.release().is_none(), "302 of 302 bytes allow no ten more");
        budget.credit(now, &path(1), 3);
        assert_eq!(budget.release().unwrap().1.bytes[..], [2; 10]);
        assert!(!budget.has_ready() || budget.release().is_none());
    }

    // Goal: hysteresis. Method: walk the count over both thresholds and back.
    #[test]
    fn retry_turns_on_above_and_off_below() {
        let mut retry = Retry::new(RetryPolicy::Auto { on_above: 10, off_below: 4 });
        assert!(!retry.update(10) && !retry.active());
        assert!(retry.update(11) && retry.active());
        assert!(!retry.update(4) && retry.active());
        assert!(retry.update(3) && !retry.active());
        assert!(!retry.update(10) && !retry.active());
        assert!(Retry::new(RetryPolicy::Always).active());
        let mut off = Retry::new(RetryPolicy::Off);
        assert!(!off.update(1_000_000) && !off.active());
    }
}
