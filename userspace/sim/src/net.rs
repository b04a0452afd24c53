//! The network between the ends: a link each way, and a NAT before each client.

use crate::impairments::Impairments;
use crate::link::{Datagram, Link};
use crate::nic::Departed;
use crate::trace::Trace;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Links and address translation.
#[derive(Debug)]
pub struct Network {
    /// Towards the gateway.
    pub up: Link,
    /// Towards the clients.
    pub down: Link,
    gateway: SocketAddr,
    /// Inside address to outside address, and back; an outside address that was replaced leads nowhere.
    outside: HashMap<SocketAddr, SocketAddr>,
    inside: HashMap<SocketAddr, SocketAddr>,
    next_port: u16,
    /// What happened so far.
    pub trace: Trace,
}

impl Network {
    /// A network around `gateway` whose dice follow `seed`; `[up, down]` say what they decide.
    pub fn new(seed: u64, gateway: SocketAddr, [up, down]: [Impairments; 2]) -> Self {
        let rng = |salt: u64| StdRng::seed_from_u64(seed ^ salt);
        Self {
            up: Link::new(rng(0x6e65_7477_6f72_6b00), up),
            down: Link::new(rng(0x6e65_7477_6f72_6b01), down),
            gateway,
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

    /// Takes what a host's card sent; `from` is where the network sees it come from.
    pub fn send(&mut self, now: Duration, from: SocketAddr, departed: &Departed) {
        let (to, ecn) = (departed.path.remote, departed.ecn);
        let link = if to == self.gateway { &mut self.up } else { &mut self.down };
        for bytes in departed.bytes.chunks(departed.segment_bytes) {
            link.offer(now, Datagram { from, to, ecn, bytes: bytes.to_vec() }, &mut self.trace);
        }
    }

    /// Datagrams on their way.
    pub fn in_flight(&self) -> usize {
        self.up.in_flight() + self.down.in_flight()
    }

    /// When the next datagram arrives.
    pub fn next_time(&self) -> Option<Duration> {
        [self.up.next_time(), self.down.next_time()].into_iter().flatten().min()
    }

    /// The next datagram that has arrived by `now`.
    pub fn arrived(&mut self, now: Duration) -> Option<Datagram> {
        self.up.arrived(now, &mut self.trace).or_else(|| self.down.arrived(now, &mut self.trace))
    }
}
