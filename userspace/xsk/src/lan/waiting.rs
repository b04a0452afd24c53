//! Packets that wait for a neighbour's MAC address. The kernel's own queue for that (`unres_qlen`) never sees them.
//!
//! Whoever sends to many addresses where nobody is fills it (a scan does, and somebody hostile may: RFC 6583). So the
//! sender that has most packets here is the one that gives way: others still reach hosts that nobody has sent to yet.

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
/// Neighbours that were asked for within [`ASK_AGAIN`]; more aren't asked for. Few, because each is an entry of the table
/// that the kernel has for all interfaces, for five seconds at least, and that one takes 1024 (`gc_thresh3`).
const ASKED_COUNT_MAX: usize = 64;
/// How soon to look whether the kernel has an answer. Later and later, for as long again as was waited already.
const LOOK_FIRST: Duration = Duration::from_millis(1);

/// A neighbour: its device, its address.
pub(super) type Neighbour = (u32, IpAddr);

/// Who a packet waits for, and who sent it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) neighbour: Neighbour,
    pub(super) from: IpAddr,
}

/// A packet that waits.
pub(super) struct Parked {
    pub(super) packet: Bytes,
    neighbour: Neighbour,
    from: IpAddr,
    since: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Waiting {
    parked: VecDeque<Parked>,
    /// How many packets each has in `parked`.
    senders: BTreeMap<IpAddr, usize>,
    asked: BTreeMap<Neighbour, Instant>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Keeps a packet. `since` is when it began to wait, if it did before. False if one had to go for it, or it itself: too
    /// many wait.
    pub(super) fn park(&mut self, wait: Wait, packet: Bytes, since: Option<Instant>) -> bool {
        let Wait { neighbour, from } = wait;
        let has_room = self.parked.len() < PACKET_COUNT_MAX;
        if !has_room && !self.make_room(from) {
            return false;
        }
        *self.senders.entry(from).or_default() += 1;
        self.parked.push_back(Parked { packet, neighbour, from, since });
        has_room
    }

    /// Drops the youngest packet of the sender that has most, if that is more than `newcomer` will have with one more.
    fn make_room(&mut self, newcomer: IpAddr) -> bool {
        let newcomer_count = self.senders.get(&newcomer).map_or(0, |&count| count);
        let Some((&heaviest, count)) = self.senders.iter_mut().max_by_key(|(_, count)| **count) else {
            return false;
        };
        if *count <= newcomer_count + 1 {
            return false;
        }
        *count -= 1;
        let youngest = self.parked.iter().rposition(|parked| parked.from == heaviest);
        youngest.is_some_and(|at| self.parked.remove(at).is_some())
    }

    /// Takes all packets, oldest first, those that have waited for too long apart.
    pub(super) fn take(&mut self, now: Instant) -> (VecDeque<Parked>, VecDeque<Parked>) {
        let is_late = |parked: &Parked| parked.since.is_some_and(|since| now >= since + PATIENCE);
        self.senders.clear();
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
    //! Goal: a bounded number of packets waits for a bounded time, and one sender doesn't keep the others out; each neighbour
    //! is asked for once a second; looks become rare. Method: a clock made by hand.
    use super::*;

    fn neighbour(n: u16) -> Neighbour {
        (7, std::net::Ipv4Addr::from([198, 18, (n >> 8) as u8, n as u8]).into())
    }

    /// For a neighbour, from the only sender or the one of that number.
    fn wait(n: u16) -> Wait {
        wait_of(n, 1)
    }

    fn wait_of(n: u16, sender: u8) -> Wait {
        Wait { neighbour: neighbour(n), from: [198, 18, 64, sender].into() }
    }

    fn packet(n: u16) -> Bytes {
        Bytes::copy_from_slice(&n.to_be_bytes())
    }

    #[test]
    fn packets_wait_in_order_and_not_for_ever() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        assert!(waiting.is_empty() && waiting.next_look(start).is_none());
        for n in 0..PACKET_COUNT_MAX as u16 {
            assert!(waiting.park(wait(n % 2), packet(n), None));
        }
        assert!(!waiting.park(wait(0), packet(99), None), "there is an end");
        assert_eq!(waiting.neighbours_to_ask(start), [neighbour(0), neighbour(1)]);
        assert_eq!(waiting.neighbours_to_ask(start + ASK_AGAIN - Duration::from_millis(1)), []);

        let (kept, late) = waiting.take(start + PATIENCE - Duration::from_millis(1));
        assert_eq!((kept.len(), late.len()), (PACKET_COUNT_MAX, 0));
        assert!(kept.iter().enumerate().all(|(n, parked)| parked.packet == packet(n as u16)));
        for parked in kept {
            let wait = Wait { neighbour: parked.neighbour, from: parked.from };
            let (packet, since) = parked.into_parts();
            assert!(waiting.park(wait, packet, since));
        }
        // They have their neighbours asked for again.
        assert_eq!(waiting.neighbours_to_ask(start + ASK_AGAIN), [neighbour(0), neighbour(1)]);
        let (kept, late) = waiting.take(start + PATIENCE);
        assert_eq!((kept.len(), late.len()), (0, PACKET_COUNT_MAX));
    }

    #[test]
    fn looks_become_rare() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        waiting.park(wait(1), packet(1), None);
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
            waiting.park(wait(n), packet(n), None);
            asked_count += waiting.neighbours_to_ask(now).len();
            waiting.take(now + PATIENCE);
        }
        assert_eq!(asked_count, ASKED_COUNT_MAX);
    }

    // A client that scans the LAN, at any rate, doesn't keep another's first packets from a host, nor has them wait for
    // more than a second until that host is asked for.
    #[test]
    fn who_sends_to_nobody_keeps_nobody_else_out() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let mut scanned = 0..u16::MAX;
        let mut scan = |waiting: &mut Waiting, now| {
            for n in scanned.by_ref().take(500) {
                waiting.park(wait_of(n, 66), packet(n), None);
            }
            waiting.neighbours_to_ask(now)
        };
        assert_eq!(scan(&mut waiting, start).len(), ASKED_COUNT_MAX);
        let wanted = neighbour(u16::MAX);
        for n in 0..3 {
            assert!(
                !waiting.park(Wait { neighbour: wanted, ..wait_of(0, 7) }, packet(n), None),
                "one gave way"
            );
        }
        let mut asked = Vec::new();
        for ms in (0..=1000).step_by(100) {
            asked.extend(scan(&mut waiting, start + Duration::from_millis(ms)));
        }
        assert!(asked.contains(&wanted), "of {}", asked.len());
        assert_eq!(waiting.parked.len(), PACKET_COUNT_MAX);
        let of_other = waiting.parked.iter().filter(|parked| parked.from == wait_of(0, 7).from);
        assert_eq!(of_other.map(|parked| parked.packet.clone()).collect::<Vec<_>>(), [0, 1, 2].map(packet));
    }

    #[test]
    fn equal_senders_share() {
        let mut waiting = Waiting::default();
        for n in 0..PACKET_COUNT_MAX as u16 * 2 {
            waiting.park(wait_of(n, (n % 4) as u8), packet(n), None);
        }
        let count = |sender: u8| waiting.parked.iter().filter(|p| p.from == wait_of(0, sender).from).count();
        assert_eq!([0, 1, 2, 3].map(count), [PACKET_COUNT_MAX / 4; 4]);
    }
}
