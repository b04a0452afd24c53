//! Packets that wait for a neighbour's MAC address. The kernel's own queue for that (`unres_qlen`) never sees them.

use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

/// Packets that wait at once, whoever for.
const PACKET_COUNT_MAX: usize = 64;
/// How long one waits. The kernel gives up on a neighbour then, after three solicitations a second apart.
const PATIENCE: Duration = Duration::from_secs(3);
/// The kernel is asked for a neighbour at most this often.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Neighbours that were asked for within [`ASK_AGAIN`]; more aren't asked for.
const ASKED_COUNT_MAX: usize = 256;
/// How soon to look whether the kernel has an answer. Later and later, for as long again as was waited already.
const LOOK_FIRST: Duration = Duration::from_millis(1);

/// A neighbour: its device, its address.
pub(super) type Neighbour = (u32, IpAddr);

/// A packet that waits.
pub(super) struct Parked {
    pub(super) packet: Bytes,
    neighbour: Neighbour,
    since: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Waiting {
    parked: VecDeque<Parked>,
    asked: BTreeMap<Neighbour, Instant>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Keeps a packet; false if too many wait. `since` is when it began to wait, if it did before.
    pub(super) fn park(&mut self, neighbour: Neighbour, packet: Bytes, since: Option<Instant>) -> bool {
        if self.parked.len() >= PACKET_COUNT_MAX {
            return false;
        }
        self.parked.push_back(Parked { packet, neighbour, since });
        true
    }

    /// Takes all packets, oldest first, those that have waited for too long apart.
    pub(super) fn take(&mut self, now: Instant) -> (VecDeque<Parked>, VecDeque<Parked>) {
        let is_late = |parked: &Parked| parked.since.is_some_and(|since| now >= since + PATIENCE);
        std::mem::take(&mut self.parked).into_iter().partition(|parked| !is_late(parked))
    }

    /// Starts the clocks of those that are new, and returns the neighbours to ask the kernel for.
    pub(super) fn neighbours_to_ask(&mut self, now: Instant) -> Vec<Neighbour> {
        if self.parked.is_empty() {
            return Vec::new();
        }
        self.asked.retain(|_, at| now < *at + ASK_AGAIN);
        let mut wanted = Vec::new();
        for parked in &mut self.parked {
            parked.since.get_or_insert(now);
            let room = self.asked.len() < ASKED_COUNT_MAX;
            if room && !self.asked.contains_key(&parked.neighbour) {
                self.asked.insert(parked.neighbour, now);
                wanted.push(parked.neighbour);
            }
        }
        wanted
    }

    /// When to look again; `None` if nothing waits.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        let since = self.parked.front()?.since.unwrap_or(now);
        Some((now + (now - since).max(LOOK_FIRST)).min(since + PATIENCE))
    }
}

impl Parked {
    pub(super) fn into_parts(self) -> (Bytes, Option<Instant>) {
        (self.packet, self.since)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a bounded number of packets waits for a bounded time; each neighbour is asked for once a second; looks become
    //! rare. Method: a clock made by hand.
    use super::*;

    fn neighbour(n: u16) -> Neighbour {
        (7, std::net::Ipv4Addr::from([198, 18, (n >> 8) as u8, n as u8]).into())
    }

    fn packet(n: u16) -> Bytes {
        Bytes::copy_from_slice(&n.to_be_bytes())
    }

    #[test]
    fn packets_wait_in_order_and_not_for_ever() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        assert!(waiting.is_empty() && waiting.next_look(start).is_none());
        for n in 0..PACKET_COUNT_MAX as u16 {
            assert!(waiting.park(neighbour(n % 2), packet(n), None));
        }
        assert!(!waiting.park(neighbour(0), packet(99), None), "there is an end");
        assert_eq!(waiting.neighbours_to_ask(start), [neighbour(0), neighbour(1)]);
        assert_eq!(waiting.neighbours_to_ask(start + ASK_AGAIN - Duration::from_millis(1)), []);

        let (kept, late) = waiting.take(start + PATIENCE - Duration::from_millis(1));
        assert_eq!((kept.len(), late.len()), (PACKET_COUNT_MAX, 0));
        assert!(kept.iter().enumerate().all(|(n, parked)| parked.packet == packet(n as u16)));
        for parked in kept {
            let neighbour = parked.neighbour;
            let (packet, since) = parked.into_parts();
            assert!(waiting.park(neighbour, packet, since));
        }
        // They have their neighbours asked for again.
        assert_eq!(waiting.neighbours_to_ask(start + ASK_AGAIN), [neighbour(0), neighbour(1)]);
        let (kept, late) = waiting.take(start + PATIENCE);
        assert_eq!((kept.len(), late.len()), (0, PACKET_COUNT_MAX));
    }

    #[test]
    fn looks_become_rare() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        waiting.park(neighbour(1), packet(1), None);
        waiting.neighbours_to_ask(start);
        let (mut now, mut look_count) = (start, 0);
        while now < start + PATIENCE {
            let next = waiting.next_look(now).unwrap();
            assert!(next > now && next <= start + PATIENCE);
            (now, look_count) = (next, look_count + 1);
        }
        assert!(look_count < 15, "{look_count}");
    }

    #[test]
    fn not_everybody_is_asked_for() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let mut asked_count = 0;
        for n in 0..1000 {
            waiting.park(neighbour(n), packet(n), None);
            asked_count += waiting.neighbours_to_ask(now).len();
            waiting.take(now + PATIENCE);
        }
        assert_eq!(asked_count, ASKED_COUNT_MAX);
    }
}
