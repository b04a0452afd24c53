//! One worker: its engine, its application, its queue of the card, and its letter box.
//!
//! The turn is that of the real worker (`userspace/src/worker`): a burst from the port, what others handed over, the
//! engine, its events, the application, transmit while there is room. The hand-over keeps its rules and its names:
//! frames travel, come home, and are dropped under a name where the owner's ring is full.

use crate::nic::{Nic, Rings, Slot, datagrams_of};
use crate::trace::{Fate, Trace};
use port::{Ecn, Frame, Received};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tunnel::{
    ConnId, EcnCodepoint, Engine, Event, Inbound, Memory, Outlet, Owner, Reserved, Sealed, Transmit, WorkerId,
};

/// An application over one engine.
pub trait App {
    /// Something happened to a connection.
    fn event(&mut self, engine: &mut Engine, id: ConnId, event: Event);
    /// Called after the events of each step: the place to go on with what was blocked.
    fn poll(&mut self, now: Instant, engine: &mut Engine);
}

/// Entries taken from the RX ring in one turn.
const BURST_MAX: usize = 64;
/// Frames taken from the letter box in one turn.
const HANDED_MAX: usize = 64;
/// How long a worker whose sink refused waits before it tries again.
const REFUSED_RETRY: Duration = Duration::from_millis(1);

/// How fast a worker is, and how reliable its sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// What a turn takes; meanwhile a burst gathers in the ring.
    pub turn_time: Duration,
    /// Chance that the queue refuses a transmit although it had room, in thousandths.
    pub refuse_permille: u32,
    /// Sends through a sink that copies, and may refuse when all is sealed; else the engine seals into the frames.
    pub copies: bool,
}

/// A frame on its way to the owner of its datagrams.
pub(crate) struct Handed {
    received: Received,
    /// Datagrams in it that are the owner's.
    count: usize,
    /// The worker whose frame it is.
    pub(crate) home: usize,
}

/// What a turn has for other workers. The world carries it there.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) handed: Vec<(usize, Handed)>,
    pub(crate) homeward: Vec<(usize, Frame)>,
}

/// What a turn needs to know.
pub(crate) struct Turn<'a> {
    pub(crate) at: Duration,
    pub(crate) instant: Instant,
    pub(crate) trace: &'a mut Trace,
    pub(crate) rng: &'a mut StdRng,
    pub(crate) outbox: &'a mut Outbox,
}

/// Each connection ends with exactly one event that says so.
#[derive(Debug, Default)]
pub struct Ends {
    seen: BTreeSet<ConnId>,
    ended: BTreeSet<ConnId>,
}

impl Ends {
    fn note(&mut self, id: ConnId, event: &Event) {
        self.seen.insert(id);
        if matches!(event, Event::Closed { .. } | Event::HandshakeFailed { .. }) {
            assert!(self.ended.insert(id), "a connection ended twice: {id:?} {event:?}");
        }
    }

    /// Connections whose end was not reported.
    pub fn missing(&self) -> impl Iterator<Item = &ConnId> {
        self.seen.difference(&self.ended)
    }
}

/// See the module.
pub struct Node<A> {
    /// The engine.
    pub engine: Engine,
    /// What runs over it.
    pub app: A,
    /// Where it is; clients see the inside of their NAT.
    pub address: SocketAddr,
    /// Its queue.
    pub nic: Nic,
    /// Its speed.
    pub pace: Pace,
    /// Ends of connections.
    pub ends: Ends,
    /// The most that the engine has held, connections apart.
    pub memory_peak_bytes: usize,
    /// By holder, at that moment.
    pub memory_peak: Memory,
    /// The most connections that it has had.
    pub connections_peak: usize,
    /// The most datagrams that one turn gave to the engine.
    pub burst_peak: usize,
    letters: VecDeque<Handed>,
    returns: Vec<Frame>,
    /// Something happened that asks for a turn.
    pub(crate) due: bool,
    /// Busy or stalled: no turn before this.
    pub(crate) idle_from: Duration,
    /// The sink refused: try again then.
    retry_at: Option<Duration>,
}

impl<A: App> Node<A> {
    pub(crate) fn new(engine: Engine, app: A, address: SocketAddr, rings: Rings, pace: Pace) -> Self {
        Self {
            engine,
            app,
            address,
            nic: Nic::new(rings),
            pace,
            ends: Ends::default(),
            memory_peak_bytes: 0,
            memory_peak: Memory::default(),
            connections_peak: 0,
            burst_peak: 0,
            letters: VecDeque::new(),
            returns: Vec::new(),
            due: true,
            idle_from: Duration::ZERO,
            retry_at: None,
        }
    }

    /// When it wants its next turn.
    pub(crate) fn next_turn(&self, base: Instant) -> Option<Duration> {
        let wanted = if self.due || self.nic.rx_len() > 0 || !self.letters.is_empty() {
            Some(Duration::ZERO)
        } else {
            let timer = self.engine.next_deadline().map(|at| at.saturating_duration_since(base));
            let pending = self.engine.pending_transmit();
            // While the ring is full it is the departure that makes room.
            let room =
                (pending && self.retry_at.is_none() && self.nic.send_room() > 0).then_some(Duration::ZERO);
            [timer, self.retry_at, room].into_iter().flatten().min()
        };
        wanted.map(|at| at.max(self.idle_from))
    }

    /// One turn of the worker's loop.
    pub(crate) fn turn(&mut self, turn: &mut Turn<'_>, peers: usize) {
        self.due = false;
        self.retry_at = None;
        self.idle_from = turn.at + self.pace.turn_time;
        for frame in self.returns.drain(..) {
            self.nic.recycle(frame);
        }
        self.receive(turn, peers);
        self.read_letters(turn);
        self.engine.run(turn.instant);
        loop {
            while let Some((id, event)) = self.engine.poll_event() {
                self.ends.note(id, &event);
                self.app.event(&mut self.engine, id, event);
            }
            self.app.poll(turn.instant, &mut self.engine);
            if !self.engine.pending_transmit() || !self.transmit(turn) {
                break;
            }
        }
        let memory = self.engine.memory();
        let apart_bytes = memory.total_bytes() - memory.connections_bytes;
        if apart_bytes > self.memory_peak_bytes {
            (self.memory_peak_bytes, self.memory_peak) = (apart_bytes, memory);
        }
        self.connections_peak = self.connections_peak.max(self.engine.connections());
    }

    /// A burst from the ring: to the engine, or to the workers that own the datagrams.
    fn receive(&mut self, turn: &mut Turn<'_>, peers: usize) {
        let mut burst = Vec::new();
        self.nic.receive(&mut burst, BURST_MAX);
        let mut inbound = Vec::with_capacity(burst.len());
        let mut owners = Vec::with_capacity(burst.len());
        for received in &burst {
            let mut owner = None;
            let mut owned_count = 0;
            if received.frame.is_empty() {
                turn.trace.record(turn.at, Fate::Empty, received.path.local, &[]);
            }
            for datagram in received.datagrams() {
                let fate = match self.engine.owner_of(datagram) {
                    Owner::Here => {
                        inbound.push(Inbound {
                            path: received.path,
                            ecn: received.ecn.and_then(codepoint),
                            bytes: datagram,
                        });
                        Fate::Delivered
                    }
                    // The engine has counted it under its reason.
                    Owner::Drop(_) => Fate::Delivered,
                    Owner::Worker(WorkerId(other)) if *owner.get_or_insert(other) == other => {
                        owned_count += 1;
                        match usize::from(other) < peers {
                            true => Fate::HandedOver,
                            false => Fate::NoSuchWorker,
                        }
                    }
                    Owner::Worker(_) => Fate::MixedBatch,
                };
                turn.trace.record(turn.at, fate, received.path.local, datagram);
            }
            owners.push(owner.map(|worker| (usize::from(worker), owned_count)));
        }
        self.burst_peak = self.burst_peak.max(inbound.len());
        self.engine.receive_burst(turn.instant, &inbound);
        for (received, owner) in burst.into_iter().zip(owners) {
            match owner {
                Some((worker, count)) if worker < peers => {
                    // The home is filled in by the world, which knows our place.
                    let handed = Handed { received, count, home: usize::MAX };
                    turn.outbox.handed.push((worker, handed));
                }
                _ => self.nic.recycle(received.frame),
            }
        }
    }

    /// What other workers handed over: to the engine, and the frames home.
    fn read_letters(&mut self, turn: &mut Turn<'_>) {
        let letters: Vec<Handed> = self.letters.drain(..self.letters.len().min(HANDED_MAX)).collect();
        let mut inbound = Vec::with_capacity(letters.len());
        for Handed { received, count, .. } in &letters {
            let before = inbound.len();
            // The others were counted by the worker that received the frame.
            for bytes in received.datagrams().filter(|datagram| self.engine.owns(datagram)) {
                turn.trace.record(turn.at, Fate::Delivered, received.path.local, bytes);
                inbound.push(Inbound { path: received.path, ecn: received.ecn.and_then(codepoint), bytes });
            }
            assert_eq!(inbound.len() - before, *count, "handed over were others than the owner owns");
        }
        self.burst_peak = self.burst_peak.max(inbound.len());
        self.engine.receive_burst(turn.instant, &inbound);
        turn.outbox.homeward.extend(letters.into_iter().map(|handed| (handed.home, handed.received.frame)));
    }

    /// Fills the TX ring. Says whether the application may have more: it does not when nothing was sent. (A blocked read
    /// marks its connection as touched as long as a window update waits for the congestion window.)
    fn transmit(&mut self, turn: &mut Turn<'_>) -> bool {
        let room = self.nic.send_room();
        if room == 0 {
            return false;
        }
        let Self { nic, engine, pace, .. } = self;
        let sent_before = engine.stats().datagrams_out;
        let refuses = |rng: &mut StdRng| rng.random_range(0..1000) < pace.refuse_permille;
        let refused = match pace.copies {
            false => {
                let mut way = Way { nic, at: turn.at, refuse: &mut || refuses(turn.rng), refused: false };
                engine.transmit_into(turn.instant, room, &mut way);
                way.refused
            }
            true => {
                let mut refused = false;
                engine.transmit(turn.instant, room, &mut |path, ecn, bytes, segment| {
                    refused |= refuses(turn.rng);
                    if !refused {
                        let ecn = ecn.and_then(|ecn| Ecn::from_bits(ecn as u8));
                        nic.send(turn.at, *path, ecn, bytes, segment.unwrap_or(bytes.len()));
                    }
                    !refused
                });
                refused
            }
        };
        if refused {
            self.retry_at = Some(turn.at + REFUSED_RETRY);
        }
        self.engine.stats().datagrams_out > sent_before && !refused
    }

    /// Puts a frame into the letter box, or gives it back.
    pub(crate) fn hand_over(&mut self, handed: Handed) -> Result<(), Handed> {
        if self.letters.len() >= self.nic.rings().handover {
            return Err(handed);
        }
        self.letters.push_back(handed);
        Ok(())
    }

    /// Takes a frame of ours back, to be recycled at the next turn.
    pub(crate) fn take_home(&mut self, frame: Frame) {
        self.returns.push(frame);
        self.due = true;
    }

    /// Datagrams that wait for a turn.
    pub(crate) fn waiting_datagrams(&self) -> usize {
        self.nic.rx_datagrams() + self.letters.iter().map(|handed| handed.count).sum::<usize>()
    }

    /// Letters here that belong to `home`.
    pub(crate) fn letters_of(&self, home: usize) -> usize {
        self.letters.iter().filter(|handed| handed.home == home).count()
    }

    /// Frames of ours that are not in other workers' hands.
    pub(crate) fn frames_at_home(&self) -> usize {
        self.nic.at_home() + self.returns.len()
    }
}

/// The way of sealed datagrams out: straight into the queue's frames.
struct Way<'a> {
    nic: &'a mut Nic,
    at: Duration,
    refuse: &'a mut dyn FnMut() -> bool,
    refused: bool,
}

impl Outlet for Way<'_> {
    type Slot = Slot;

    fn reserve(&mut self, transmit: &Transmit, slots: &mut Vec<Slot>) -> Reserved {
        self.refused |= (self.refuse)();
        match !self.refused && self.nic.reserve(transmit, slots) {
            true => Reserved::Slots,
            false => Reserved::Full,
        }
    }

    fn submit(&mut self, transmit: &Transmit, sealed: &mut Vec<Sealed<Slot>>) -> bool {
        self.nic.submit(self.at, transmit, sealed);
        true
    }

    fn release(&mut self, slots: Vec<Slot>) {
        self.nic.release(slots);
    }
}

impl Handed {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn to(&self) -> SocketAddr {
        self.received.path.local
    }

    pub(crate) fn into_frame(self) -> Frame {
        debug_assert!(self.count <= datagrams_of(&self.received));
        self.received.frame
    }
}

fn codepoint(ecn: Ecn) -> Option<EcnCodepoint> {
    EcnCodepoint::from_bits(ecn as u8)
}
