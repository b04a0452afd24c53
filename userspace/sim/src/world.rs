//! The run loop: clients, one gateway of several workers, and the network between them.

use crate::net::{Flight, Network};
use crate::trace::Fate;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tunnel::{ConnId, Engine, Event, Owner};
use wire::Path;

/// An application over one engine.
pub trait App {
    /// Something happened to a connection.
    fn event(&mut self, engine: &mut Engine, id: ConnId, event: Event);
    /// Called after the events of each step: the place to go on with what was blocked.
    fn poll(&mut self, now: Instant, engine: &mut Engine);
}

/// An engine with its application.
pub struct Node<A> {
    /// The engine.
    pub engine: Engine,
    /// What runs over it.
    pub app: A,
    /// Where it is; clients see the inside of their NAT.
    pub address: SocketAddr,
    due: bool,
}

/// Datagrams that a worker may transmit in one go, so that engines meet a full ring.
const TRANSMIT_ROOM_DATAGRAMS: usize = 64;

/// A gateway and its clients.
///
/// Time is a duration since the start, so that traces of two runs compare; engines see it added to
/// an arbitrary `Instant`.
pub struct World<C, S> {
    base: Instant,
    now: Duration,
    /// The network.
    pub net: Network,
    /// Each with its own address.
    pub clients: Vec<Node<C>>,
    /// All behind one address.
    pub workers: Vec<Node<S>>,
    gateway: SocketAddr,
}

impl<C: App, S: App> World<C, S> {
    /// A world without hosts, its gateway at `gateway`.
    pub fn new(net: Network, gateway: SocketAddr) -> Self {
        Self {
            base: Instant::now(),
            now: Duration::ZERO,
            net,
            clients: Vec::new(),
            workers: Vec::new(),
            gateway,
        }
    }

    /// Adds a client; returns its place in `clients`.
    pub fn add_client(&mut self, engine: Engine, app: C) -> usize {
        let address = SocketAddr::from(([198, 18, 100, self.clients.len() as u8], 5000));
        self.clients.push(Node { engine, app, address, due: true });
        self.clients.len() - 1
    }

    /// Adds a worker to the gateway. Its id must be its place in `workers`.
    pub fn add_worker(&mut self, engine: Engine, app: S) {
        self.workers.push(Node { engine, app, address: self.gateway, due: true });
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

    /// Which worker a client's datagrams reach at present.
    pub fn worker_of(&mut self, client: usize) -> usize {
        let outside = self.net.outside_of(self.clients[client].address);
        self.rss(outside)
    }

    /// Wakes every application at the next step, after the test changed something by hand.
    pub fn wake(&mut self) {
        self.clients.iter_mut().for_each(|node| node.due = true);
        self.workers.iter_mut().for_each(|node| node.due = true);
    }

    /// Runs until `until` says so or the clock reaches `limit`; says whether `until` did.
    pub fn run_until(&mut self, limit: Duration, mut until: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            self.step();
            if until(self) {
                return true;
            }
            match self.next_time() {
                Some(next) if next <= limit => self.now = self.now.max(next),
                _ => {
                    self.now = self.now.max(limit);
                    return false;
                }
            }
        }
    }

    /// Everything that happens at the present instant.
    fn step(&mut self) {
        while let Some(flight) = self.net.arrived(self.now) {
            self.deliver(flight);
        }
        let instant = self.instant();
        for node in &mut self.clients {
            let outside = self.net.outside_of(node.address);
            node.turn(instant, &mut |to, bytes| self.net.send(self.now, outside, to, bytes));
        }
        for node in &mut self.workers {
            let from = self.gateway;
            node.turn(instant, &mut |to, bytes| self.net.send(self.now, from, to, bytes));
        }
    }

    fn deliver(&mut self, flight: Flight) {
        let Flight { from, to, bytes, .. } = flight;
        if to == self.gateway {
            let mut worker = self.rss(from);
            match self.workers[worker].engine.owner_of(&bytes) {
                Owner::Here => {}
                Owner::Worker(id) if usize::from(id.0) < self.workers.len() => {
                    worker = usize::from(id.0);
                    self.net.trace.record(self.now, Fate::HandedOver, to, &bytes);
                }
                Owner::Worker(_) | Owner::Drop(_) => return,
            }
            let instant = self.instant();
            self.net.trace.record(self.now, Fate::Delivered, to, &bytes);
            self.workers[worker].receive(instant, Path { local: to, remote: from }, &bytes);
            return;
        }
        let instant = self.instant();
        let inside = self.net.inside_of(to);
        match self.clients.iter_mut().find(|node| Some(node.address) == inside) {
            Some(node) => {
                self.net.trace.record(self.now, Fate::Delivered, to, &bytes);
                node.receive(instant, Path { local: node.address, remote: from }, &bytes);
            }
            None => self.net.trace.record(self.now, Fate::Unroutable, to, &bytes),
        }
    }

    fn next_time(&self) -> Option<Duration> {
        let clients = self.clients.iter().filter_map(|node| node.engine.next_deadline());
        let workers = self.workers.iter().filter_map(|node| node.engine.next_deadline());
        let deadlines = clients.chain(workers).map(|at| at.saturating_duration_since(self.base));
        deadlines.chain(self.net.next_arrival()).min()
    }
}

impl<A: App> Node<A> {
    fn receive(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        self.due = true;
        self.engine.receive(now, path, None, bytes);
    }

    /// The worker's loop: run, events, application, transmit; again while there is something to do.
    fn turn(&mut self, now: Instant, send: &mut dyn FnMut(SocketAddr, &[u8])) {
        if !self.due && self.engine.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        self.due = false;
        self.engine.run(now);
        loop {
            while let Some((id, event)) = self.engine.poll_event() {
                self.app.event(&mut self.engine, id, event);
            }
            self.app.poll(now, &mut self.engine);
            if !self.engine.pending_transmit() {
                break;
            }
            self.engine.transmit(now, TRANSMIT_ROOM_DATAGRAMS, &mut |path, _, bytes, segment| {
                for datagram in bytes.chunks(segment.unwrap_or(bytes.len())) {
                    send(path.remote, datagram);
                }
                true
            });
        }
    }
}
