//! The run loop: clients, one gateway of several workers, and the network between them.

use crate::link::Datagram;
use crate::net::Network;
use crate::nic::Rings;
pub use crate::node::App;
use crate::node::{Node, Outbox, Pace, Turn};
use crate::trace::Fate;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tunnel::{Engine, Stats};

/// Steps between two looks at every frame. Sums are compared at every step.
const STEPS_BETWEEN_AUDITS: u64 = 512;
/// Steps of one instant. A world that does not get on has a worker that spins.
const STEPS_PER_INSTANT_MAX: u32 = 10_000;

/// A gateway and its clients.
///
/// Time is a duration since the start, so that traces of two runs compare; engines see it added to
/// an arbitrary `Instant`.
pub struct World<C, S> {
    base: Instant,
    now: Duration,
    rng: StdRng,
    /// The network.
    pub net: Network,
    /// Each with its own address.
    pub clients: Vec<Node<C>>,
    /// All behind one address.
    pub workers: Vec<Node<S>>,
    gateway: SocketAddr,
    /// What engines that were replaced had counted: of clients and workers.
    pub retired: Stats,
    steps: u64,
    steps_now: u32,
}

impl<C: App, S: App> World<C, S> {
    /// A world without hosts, its gateway at `gateway`. The sinks' dice follow `seed`.
    pub fn new(seed: u64, net: Network, gateway: SocketAddr) -> Self {
        Self {
            base: Instant::now(),
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed ^ 0x776f_726c_6400),
            net,
            clients: Vec::new(),
            workers: Vec::new(),
            gateway,
            retired: Stats::default(),
            steps: 0,
            steps_now: 0,
        }
    }

    /// Adds a client; returns its place in `clients`.
    pub fn add_client(&mut self, engine: Engine, app: C, rings: Rings, pace: Pace) -> usize {
        let address = self.next_client_address();
        self.clients.push(Node::new(engine, app, address, rings, pace));
        self.clients.len() - 1
    }

    /// The inside address of the client that is added next.
    pub fn next_client_address(&self) -> SocketAddr {
        SocketAddr::from(([198, 18, 100, self.clients.len() as u8], 5000))
    }

    /// Adds a worker to the gateway. Its id must be its place in `workers`.
    pub fn add_worker(&mut self, engine: Engine, app: S, rings: Rings, pace: Pace) {
        self.workers.push(Node::new(engine, app, self.gateway, rings, pace));
    }

    /// The virtual clock, since the start.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The virtual clock, as engines see it.
    pub fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// Where the gateway is.
    pub fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// The NIC queue, and so the worker, that a client's datagrams reach: RSS by its outside address.
    pub fn rss(&self, remote: SocketAddr) -> usize {
        usize::from(remote.port()).wrapping_mul(0x9e37) / 7 % self.workers.len()
    }

    /// Gives client `client` another outside address.
    pub fn rebind(&mut self, client: usize) {
        self.net.rebind(self.clients[client].address);
    }

    /// Gives client `client` another outside address, whose queue is another worker's if there is one.
    pub fn rebind_to_another_queue(&mut self, client: usize) {
        let before = self.worker_of(client);
        self.rebind(client);
        while self.workers.len() > 1 && self.worker_of(client) == before {
            self.rebind(client);
        }
    }

    /// Which worker a client's datagrams reach at present.
    pub fn worker_of(&mut self, client: usize) -> usize {
        let outside = self.net.outside_of(self.clients[client].address);
        self.rss(outside)
    }

    /// Lets a worker do nothing for a while; its rings fill.
    pub fn stall_worker(&mut self, worker: usize, time: Duration) {
        let node = &mut self.workers[worker];
        node.idle_from = node.idle_from.max(self.now + time);
    }

    /// As [`Self::stall_worker`], for a client.
    pub fn stall_client(&mut self, client: usize, time: Duration) {
        let node = &mut self.clients[client];
        node.idle_from = node.idle_from.max(self.now + time);
    }

    /// A worker starts anew: connections, application and all. Its rings stay.
    pub fn replace_worker(&mut self, worker: usize, engine: Engine, app: S) {
        let node = &mut self.workers[worker];
        self.retired.add(&node.engine.stats());
        (node.engine, node.app, node.ends, node.due) = (engine, app, Default::default(), true);
    }

    /// As [`Self::replace_worker`], for a client.
    pub fn replace_client(&mut self, client: usize, engine: Engine, app: C) {
        let node = &mut self.clients[client];
        self.retired.add(&node.engine.stats());
        (node.engine, node.app, node.ends, node.due) = (engine, app, Default::default(), true);
    }

    /// Wakes every application at the next step, after the test changed something by hand.
    pub fn wake(&mut self) {
        self.clients.iter_mut().for_each(|node| node.due = true);
        self.workers.iter_mut().for_each(|node| node.due = true);
    }

    /// Runs until `until` says so or the clock reaches `limit`; says whether `until` did.
    ///
    /// # Panics
    /// If datagrams or frames are not conserved, or the clock stands still.
    pub fn run_until(&mut self, limit: Duration, mut until: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            self.step();
            if until(self) {
                return true;
            }
            match self.next_time() {
                Some(next) if next <= limit => self.advance(next),
                _ => {
                    self.now = self.now.max(limit);
                    return false;
                }
            }
        }
    }

    fn advance(&mut self, next: Duration) {
        self.steps_now = if next > self.now { 0 } else { self.steps_now + 1 };
        assert!(self.steps_now < STEPS_PER_INSTANT_MAX, "the clock stands still at {:?}", self.now);
        self.now = self.now.max(next);
    }

    /// Everything that happens at the present instant.
    fn step(&mut self) {
        while let Some(datagram) = self.net.arrived(self.now) {
            self.arrive(&datagram);
        }
        let (at, instant, base) = (self.now, self.instant(), self.base);
        let mut outbox = Outbox::default();
        for node in &mut self.clients {
            if node.next_turn(base).is_some_and(|next| next <= at) {
                let (trace, rng) = (&mut self.net.trace, &mut self.rng);
                node.turn(&mut Turn { at, instant, trace, rng, outbox: &mut outbox }, 1);
                assert!(outbox.handed.is_empty(), "a client hands nothing over");
            }
        }
        for worker in 0..self.workers.len() {
            let peers = self.workers.len();
            let node = &mut self.workers[worker];
            if node.next_turn(base).is_some_and(|next| next <= at) {
                let (trace, rng) = (&mut self.net.trace, &mut self.rng);
                node.turn(&mut Turn { at, instant, trace, rng, outbox: &mut outbox }, peers);
                self.carry(worker, &mut outbox);
            }
        }
        self.depart();
        self.check();
    }

    /// From the wire into an RX ring.
    fn arrive(&mut self, datagram: &Datagram) {
        let fate = if datagram.to == self.gateway {
            let worker = self.rss(datagram.from);
            self.workers[worker].nic.arrive(self.gateway, datagram)
        } else {
            let inside = self.net.inside_of(datagram.to);
            match self.clients.iter_mut().find(|node| Some(node.address) == inside) {
                Some(node) => node.nic.arrive(node.address, datagram),
                None => Fate::Unroutable,
            }
        };
        self.net.trace.record(self.now, fate, datagram.to, &datagram.bytes);
    }

    /// Frames from worker to worker: to the owners of their datagrams, and home.
    fn carry(&mut self, from: usize, outbox: &mut Outbox) {
        for (owner, mut handed) in outbox.handed.drain(..) {
            handed.home = from;
            if let Err(refused) = self.workers[owner].hand_over(handed) {
                for _ in 0..refused.count() {
                    self.net.trace.record(self.now, Fate::HandoverFull, refused.to(), &[]);
                }
                self.workers[from].nic.recycle(refused.into_frame());
            }
        }
        for (home, frame) in outbox.homeward.drain(..) {
            self.workers[home].take_home(frame);
        }
    }

    /// From the TX rings onto the wire.
    fn depart(&mut self) {
        for node in &mut self.clients {
            while let Some(departed) = node.nic.departed(self.now) {
                let from = self.net.outside_of(node.address);
                self.net.send(self.now, from, &departed);
            }
        }
        for node in &mut self.workers {
            while let Some(departed) = node.nic.departed(self.now) {
                self.net.send(self.now, self.gateway, &departed);
            }
        }
    }

    fn next_time(&self) -> Option<Duration> {
        let clients =
            self.clients.iter().flat_map(|node| [node.next_turn(self.base), node.nic.next_departure()]);
        let workers =
            self.workers.iter().flat_map(|node| [node.next_turn(self.base), node.nic.next_departure()]);
        clients.chain(workers).chain([self.net.next_time()]).flatten().min()
    }

    /// Conservation: of datagrams and frames, at every step; of each single frame now and then.
    fn check(&mut self) {
        let waiting_clients: usize = self.clients.iter().map(|node| node.waiting_datagrams()).sum();
        let waiting_workers: usize = self.workers.iter().map(|node| node.waiting_datagrams()).sum();
        let (in_flight, in_rings) = (self.net.in_flight() as u64, (waiting_clients + waiting_workers) as u64);
        let balance = self.net.trace.balance(in_flight, in_rings);
        assert_eq!(balance, Ok(()), "datagrams are not conserved: {:?}", self.net.trace);
        for node in &self.clients {
            assert_eq!(node.frames_at_home(), node.nic.rings().frames, "frames not conserved at a client");
        }
        for (home, node) in self.workers.iter().enumerate() {
            let lent: usize = self.workers.iter().map(|other| other.letters_of(home)).sum();
            assert_eq!(node.frames_at_home() + lent, node.nic.rings().frames, "frames not conserved: {home}");
        }
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_BETWEEN_AUDITS) {
            self.audit();
        }
    }

    /// Looks at every frame, and compares what the engines counted with what the network did.
    ///
    /// # Panics
    /// If they disagree.
    pub fn audit(&self) {
        self.clients.iter().for_each(|node| node.nic.check());
        self.workers.iter().for_each(|node| node.nic.check());
        let mut counted = self.retired;
        let mut leaving = 0;
        for (stats, tx_datagrams) in self
            .clients
            .iter()
            .map(|node| (node.engine.stats(), node.nic.tx_datagrams()))
            .chain(self.workers.iter().map(|node| (node.engine.stats(), node.nic.tx_datagrams())))
        {
            counted.add(&stats);
            leaving += tx_datagrams as u64;
        }
        let trace = &self.net.trace;
        assert_eq!(counted.datagrams_in, trace.count(Fate::Delivered), "what engines received");
        assert_eq!(counted.datagrams_out, trace.count(Fate::Sent) + leaving, "what engines sent");
    }
}
