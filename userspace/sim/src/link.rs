//! One direction of the path: what the network, and an attacker on it, do to datagrams.
//!
//! ```text
//!  offer ─► MTU ─► blackout ─► loss ─► glue ─► damage ─┬─► bottleneck queue ─► delay, jitter ─► flights
//!                                                      └─► hold back (until many have passed) ─┘
//!              copies, replays, forgeries enter here ──┘
//! ```

use crate::impairments::{Attack, Impairments, Loss};
use crate::trace::{Fate, Trace};
use port::Ecn;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Duration;
use tunnel::cid::CID_LEN_BYTES;

/// Datagrams with a longer way through are let go: an attacker's patience, and a bound on memory.
const HOLD_MAX: Duration = Duration::from_secs(5);
/// Datagrams held back at once.
const HELD_MAX: usize = 64;
/// Datagrams remembered for replays.
const HISTORY_MAX: usize = 64;
/// Where the CID of a short header ends.
const CID_END: usize = 1 + CID_LEN_BYTES;
/// How long the first half of a glued pair waits for the second.
const GLUE_WAIT: Duration = Duration::from_millis(2);

/// A UDP datagram with public addresses.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Sender, as the network sees it.
    pub from: SocketAddr,
    /// Receiver, as the network sees it.
    pub to: SocketAddr,
    /// ECN bits.
    pub ecn: Option<Ecn>,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

/// A datagram in flight.
#[derive(Debug)]
pub struct Flight {
    /// When it arrives, since the start of the run.
    pub at: Duration,
    /// What arrives.
    pub datagram: Datagram,
    /// Breaks ties in the order of sending.
    number: u64,
}

impl Ord for Flight {
    /// The earliest is the greatest: `BinaryHeap` pops that.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Flight {}

#[derive(Debug)]
struct HeldBack {
    until: Duration,
    until_number: u64,
    /// Its own, by which it shows how far it was overtaken.
    number: u64,
    datagram: Datagram,
}

/// One direction.
#[derive(Debug)]
pub struct Link {
    rng: StdRng,
    /// May be changed in mid-run.
    pub impairments: Impairments,
    /// Nothing passes before this time.
    pub dead_until: Duration,
    /// In a bad spell of [`Loss::Burst`].
    bad: bool,
    /// When the bottleneck is done with what it has.
    busy_until: Duration,
    flights: BinaryHeap<Flight>,
    /// Datagrams sent, copies included; names each.
    number: u64,
    held: Vec<HeldBack>,
    half: Option<(Duration, Datagram)>,
    history: Vec<Datagram>,
    /// The highest number that has arrived.
    newest: u64,
    /// The most by which a datagram was overtaken, in datagrams.
    pub overtaken_max: u64,
}

impl Link {
    pub(crate) fn new(rng: StdRng, impairments: Impairments) -> Self {
        Self {
            rng,
            impairments,
            dead_until: Duration::ZERO,
            bad: false,
            busy_until: Duration::ZERO,
            flights: BinaryHeap::new(),
            number: 0,
            held: Vec::new(),
            half: None,
            history: Vec::new(),
            newest: 0,
            overtaken_max: 0,
        }
    }

    /// Datagrams on their way.
    pub fn in_flight(&self) -> usize {
        self.flights.len() + self.held.len() + usize::from(self.half.is_some())
    }

    /// Takes a datagram from a host; the dice decide what becomes of it.
    pub(crate) fn offer(&mut self, now: Duration, mut datagram: Datagram, trace: &mut Trace) {
        trace.record(now, Fate::Sent, datagram.to, &datagram.bytes);
        self.release_held(now);
        if let Some(fate) = self.drop_of(now, datagram.bytes.len()) {
            return trace.record(now, fate, datagram.to, &datagram.bytes);
        }
        self.remember(&datagram);
        self.attack(now, &datagram, trace);
        let Some(whole) = self.glue(now, datagram, trace) else { return };
        datagram = whole;
        self.damage(now, &mut datagram, trace);
        if self.hit(self.impairments.duplicate_permille) {
            trace.record(now, Fate::Duplicated, datagram.to, &datagram.bytes);
            self.launch(now, datagram.clone(), trace);
        }
        if self.held.len() < HELD_MAX && self.hit(self.impairments.hold_permille) {
            trace.record(now, Fate::Held, datagram.to, &datagram.bytes);
            let most = self.impairments.hold_datagrams.max(1);
            self.number += 1;
            let until_number = self.number + self.rng.random_range(1..=most);
            self.held.push(HeldBack { until: now + HOLD_MAX, until_number, number: self.number, datagram });
        } else {
            self.launch(now, datagram, trace);
        }
    }

    /// Whether the path loses a datagram of this size now, and how.
    fn drop_of(&mut self, now: Duration, bytes: usize) -> Option<Fate> {
        if bytes > self.impairments.mtu_bytes {
            return Some(Fate::TooLarge);
        }
        if now < self.dead_until {
            return Some(Fate::Blackout);
        }
        match self.impairments.loss {
            Loss::None => None,
            Loss::Uniform { lost_permille } => self.hit(lost_permille).then_some(Fate::Lost),
            Loss::Burst { enter_permille, leave_permille, lost_permille } => {
                let turns = self.hit(if self.bad { leave_permille } else { enter_permille });
                self.bad ^= turns;
                (self.bad && self.hit(lost_permille)).then_some(Fate::BurstLost)
            }
        }
    }

    fn remember(&mut self, datagram: &Datagram) {
        let Attack { replay_permille, forge_permille, .. } = self.impairments.attack;
        if replay_permille + forge_permille == 0 {
            return;
        }
        if self.history.len() < HISTORY_MAX {
            self.history.push(datagram.clone());
        } else if self.rng.random_ratio(1, 8) {
            // Seldom, so that some are old.
            let at = self.rng.random_range(0..HISTORY_MAX);
            self.history[at] = datagram.clone();
        }
    }

    /// What an attacker adds when he sees this datagram.
    fn attack(&mut self, now: Duration, seen: &Datagram, trace: &mut Trace) {
        let attack = self.impairments.attack;
        if !self.history.is_empty() && self.hit(attack.replay_permille) {
            let old = self.history[self.rng.random_range(0..self.history.len())].clone();
            trace.record(now, Fate::Replayed, old.to, &old.bytes);
            self.launch(now, old, trace);
        }
        if self.hit(attack.spoof_permille) {
            let mut copy = seen.clone();
            copy.from = SocketAddr::from(([198, 18, 201, self.rng.random_range(1..5)], 7000));
            trace.record(now, Fate::Spoofed, copy.to, &copy.bytes);
            // It is always the earlier in number; half of them come from nearer as well.
            let head_start = match self.rng.random_ratio(1, 2) {
                true => self.impairments.delay.min(Duration::from_micros(20)),
                false => Duration::ZERO,
            };
            self.launch_early(now, head_start, copy, trace);
        }
        if self.hit(attack.forge_permille) {
            let forged = self.forge(seen);
            trace.record(now, Fate::Forged, forged.to, &forged.bytes);
            self.launch(now, forged, trace);
        }
    }

    fn forge(&mut self, seen: &Datagram) -> Datagram {
        let mut forged = seen.clone();
        let other = &self.history[self.rng.random_range(0..self.history.len())].bytes;
        let short = |bytes: &[u8]| bytes.len() > CID_END && bytes[0] & 0x80 == 0;
        if short(other) && short(&forged.bytes) && self.rng.random_ratio(1, 2) {
            forged.bytes[1..CID_END].copy_from_slice(&other[1..CID_END]);
        } else {
            // The header in the clear up to the CIDs stays: it is what gets a forgery to a connection.
            let kept = CID_END.min(forged.bytes.len());
            self.rng.fill_bytes(&mut forged.bytes[kept..]);
        }
        forged
    }

    /// Joins two datagrams of one path into one; `None`: it is kept for the next.
    fn glue(&mut self, now: Duration, datagram: Datagram, trace: &mut Trace) -> Option<Datagram> {
        if let Some((_, mut first)) = self.half.take() {
            let same = (first.from, first.to) == (datagram.from, datagram.to);
            if same && first.bytes.len() + datagram.bytes.len() <= self.impairments.mtu_bytes {
                first.bytes.extend_from_slice(&datagram.bytes);
                trace.record(now, Fate::Glued, datagram.to, &datagram.bytes);
                return Some(first);
            }
            self.launch(now, first, trace);
        } else if datagram.bytes.first().is_some_and(|first| first & 0x80 != 0)
            && self.hit(self.impairments.glue_permille)
        {
            self.half = Some((now + GLUE_WAIT, datagram));
            return None;
        }
        Some(datagram)
    }

    fn damage(&mut self, now: Duration, datagram: &mut Datagram, trace: &mut Trace) {
        let (rules, bytes) = (self.impairments, &mut datagram.bytes);
        let mut done = Vec::new();
        if hit(&mut self.rng, rules.corrupt_permille) && !bytes.is_empty() {
            let bit = self.rng.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            done.push(Fate::Corrupted);
        }
        if hit(&mut self.rng, rules.truncate_permille) {
            // Nothing at all is a length of its own.
            let nothing = self.rng.random_ratio(1, 8);
            bytes.truncate(if nothing { 0 } else { self.rng.random_range(0..=bytes.len()) });
            done.push(Fate::Truncated);
        }
        if hit(&mut self.rng, rules.tail_permille) {
            let room = rules.mtu_bytes.saturating_sub(bytes.len()).min(100);
            let start = bytes.len();
            bytes.resize(start + self.rng.random_range(0..=room), 0);
            self.rng.fill_bytes(&mut bytes[start..]);
            done.push(Fate::Tailed);
        }
        if hit(&mut self.rng, rules.mark_permille) && datagram.ecn.is_some() {
            datagram.ecn = Some(Ecn::Ce);
            done.push(Fate::Marked);
        }
        if !rules.ecn {
            datagram.ecn = None;
        }
        for fate in done {
            trace.record(now, fate, datagram.to, &datagram.bytes);
        }
    }

    fn launch(&mut self, now: Duration, datagram: Datagram, trace: &mut Trace) {
        self.launch_early(now, Duration::ZERO, datagram, trace);
    }

    /// Through the bottleneck and on its way.
    fn launch_early(&mut self, now: Duration, head_start: Duration, datagram: Datagram, trace: &mut Trace) {
        let rules = self.impairments;
        let mut leaves = now;
        if rules.bottleneck_bytes_per_ms > 0 {
            let speed = u64::from(rules.bottleneck_bytes_per_ms);
            let waiting = self.busy_until.saturating_sub(now);
            if waiting.as_micros() as u64 * speed / 1000 > u64::from(rules.queue_bytes) {
                return trace.record(now, Fate::QueueFull, datagram.to, &datagram.bytes);
            }
            let takes = Duration::from_nanos(datagram.bytes.len() as u64 * 1_000_000 / speed);
            self.busy_until = self.busy_until.max(now) + takes;
            leaves = self.busy_until;
        }
        let mut at = leaves + rules.delay.saturating_sub(head_start) + self.up_to(rules.jitter);
        if self.hit(rules.reorder_permille) {
            at += self.up_to(rules.reorder_by);
        }
        self.number += 1;
        self.flights.push(Flight { at, datagram, number: self.number });
    }

    /// Lets those go that have been held back long enough.
    fn release_held(&mut self, now: Duration) {
        let mut at = 0;
        while at < self.held.len() {
            if self.held[at].until <= now || self.held[at].until_number <= self.number {
                let HeldBack { number, datagram, .. } = self.held.swap_remove(at);
                self.flights.push(Flight { at: now + self.impairments.delay, datagram, number });
            } else {
                at += 1;
            }
        }
    }

    /// When the next datagram arrives, or is let go.
    pub(crate) fn next_time(&self) -> Option<Duration> {
        let flight = self.flights.peek().map(|flight| flight.at);
        let held = self.held.iter().map(|held| held.until).min();
        let half = self.half.as_ref().map(|&(until, _)| until);
        [flight, held, half].into_iter().flatten().min()
    }

    /// The next datagram that has arrived by `now`.
    pub(crate) fn arrived(&mut self, now: Duration, trace: &mut Trace) -> Option<Datagram> {
        self.release_held(now);
        if let Some((_, half)) = self.half.take_if(|&mut (until, _)| until <= now) {
            self.launch(now, half, trace);
        }
        if self.flights.peek()?.at > now {
            return None;
        }
        let flight = self.flights.pop()?;
        self.overtaken_max = self.overtaken_max.max(self.newest.saturating_sub(flight.number));
        self.newest = self.newest.max(flight.number);
        Some(flight.datagram)
    }

    fn hit(&mut self, permille: u32) -> bool {
        hit(&mut self.rng, permille)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        match most.as_micros() as u64 {
            0 => Duration::ZERO,
            most => Duration::from_micros(self.rng.random_range(0..=most)),
        }
    }
}

fn hit(rng: &mut StdRng, permille: u32) -> bool {
    permille > 0 && rng.random_range(0..1000) < permille
}
