//! The network between the ends: datagrams in flight, impairments, and a NAT before each client.

use crate::trace::{Fate, Trace};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

/// What the network does to datagrams, in each direction. Chances are in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impairments {
    /// Chance that a datagram is lost.
    pub loss_permille: u32,
    /// Chance that it arrives twice.
    pub duplicate_permille: u32,
    /// Chance that one bit of it flips.
    pub corrupt_permille: u32,
    /// Chance that it is late by up to `reorder_by`, so that others overtake it.
    pub reorder_permille: u32,
    /// The most that a late datagram is late.
    pub reorder_by: Duration,
    /// One-way delay.
    pub delay: Duration,
    /// Larger UDP payloads are dropped.
    pub mtu_bytes: usize,
}

impl Impairments {
    /// A clean path.
    pub fn none(delay: Duration) -> Self {
        Self {
            loss_permille: 0,
            duplicate_permille: 0,
            corrupt_permille: 0,
            reorder_permille: 0,
            reorder_by: Duration::ZERO,
            delay,
            mtu_bytes: 1472,
        }
    }

    /// A path drawn from `rng`: from clean to quite bad.
    pub fn random(rng: &mut StdRng) -> Self {
        let delay = Duration::from_micros(rng.random_range(50..60_000));
        let mut draw = |max: u32| if rng.random_ratio(1, 3) { 0 } else { rng.random_range(0..max) };
        Self {
            loss_permille: draw(50),
            duplicate_permille: draw(30),
            corrupt_permille: draw(20),
            reorder_permille: draw(100),
            reorder_by: Duration::from_micros(draw(20_000).into()),
            delay,
            mtu_bytes: 1200 + draw(400) as usize,
        }
    }
}

/// A datagram in flight, with public addresses.
#[derive(Debug)]
pub struct Flight {
    /// When it arrives, since the start of the run.
    pub at: Duration,
    /// Sender, as the network sees it.
    pub from: SocketAddr,
    /// Receiver, as the network sees it.
    pub to: SocketAddr,
    /// The UDP payload.
    pub bytes: Vec<u8>,
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

/// The network: dice, clockwork and address translation.
#[derive(Debug)]
pub struct Network {
    rng: StdRng,
    /// May be changed in mid-run.
    pub impairments: Impairments,
    flights: BinaryHeap<Flight>,
    sent_count: u64,
    /// Inside address to outside address, and back; an outside address that was replaced leads nowhere.
    outside: HashMap<SocketAddr, SocketAddr>,
    inside: HashMap<SocketAddr, SocketAddr>,
    next_port: u16,
    /// What happened so far.
    pub trace: Trace,
}

impl Network {
    /// A network whose dice follow `seed`.
    pub fn new(seed: u64, impairments: Impairments) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed ^ 0x6e65_7477_6f72_6b00),
            impairments,
            flights: BinaryHeap::new(),
            sent_count: 0,
            outside: HashMap::new(),
            inside: HashMap::new(),
            next_port: 20_000,
            trace: Trace::default(),
        }
    }

    /// Gives the client at `inside` another outside address: a NAT that lost its mapping.
    pub fn rebind(&mut self, inside: SocketAddr) {
        let outside = SocketAddr::from(([198, 18, 200, 1], self.next_port));
        self.next_port += 1;
        self.inside.insert(outside, inside);
        if let Some(old) = self.outside.insert(inside, outside) {
            self.inside.remove(&old);
        }
    }

    /// The outside address of a client.
    pub fn outside_of(&mut self, inside: SocketAddr) -> SocketAddr {
        if !self.outside.contains_key(&inside) {
            self.rebind(inside);
        }
        self.outside[&inside]
    }

    /// The client behind an outside address, if the mapping still stands.
    pub fn inside_of(&self, outside: SocketAddr) -> Option<SocketAddr> {
        self.inside.get(&outside).copied()
    }

    /// Takes a datagram; the dice decide what becomes of it.
    pub fn send(&mut self, now: Duration, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let rules = self.impairments;
        if bytes.len() > rules.mtu_bytes {
            self.trace.record(now, Fate::TooLarge, to, bytes);
            return;
        }
        if self.hit(rules.loss_permille) {
            self.trace.record(now, Fate::Lost, to, bytes);
            return;
        }
        let mut bytes = bytes.to_vec();
        self.trace.record(now, Fate::Sent, to, &bytes);
        if self.hit(rules.corrupt_permille) && !bytes.is_empty() {
            let bit = self.rng.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            self.trace.record(now, Fate::Corrupted, to, &bytes);
        }
        if self.hit(rules.duplicate_permille) {
            self.trace.record(now, Fate::Duplicated, to, &bytes);
            self.launch(now, from, to, bytes.clone());
        }
        self.launch(now, from, to, bytes);
    }

    fn launch(&mut self, now: Duration, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let mut at = now + self.impairments.delay;
        if self.hit(self.impairments.reorder_permille) {
            let most = self.impairments.reorder_by.as_micros() as u64;
            at += Duration::from_micros(self.rng.random_range(0..=most));
        }
        self.sent_count += 1;
        self.flights.push(Flight { at, from, to, bytes, number: self.sent_count });
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Duration> {
        self.flights.peek().map(|flight| flight.at)
    }

    /// The next datagram that has arrived by `now`.
    pub fn arrived(&mut self, now: Duration) -> Option<Flight> {
        if self.next_arrival()? > now {
            return None;
        }
        self.flights.pop()
    }

    fn hit(&mut self, permille: u32) -> bool {
        permille > 0 && self.rng.random_range(0..1000) < permille
    }
}
