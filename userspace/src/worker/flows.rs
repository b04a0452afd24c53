//! The table of a worker's flows, and the queue of those that have something to do.

use super::{
    account::Way,
    fair::Fair,
    flow::{Readiness, Splice},
    ledger::{FlowPermit, Ledger, Owner},
    poll::{FlowKey, Ready},
};
use crate::{cli::Destination, socks::Negotiation};
use masque::{RequestReader, ResponseReader};
use slab::Slab;
use socket2::Socket;
use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tunnel::{ConnId, StreamId};

/// A local socket and what it is doing.
pub(super) struct Flow {
    pub(super) socket: Socket,
    pub(super) ready: Readiness,
    /// The tunnel connection and stream, once there is one.
    pub(super) on: Option<(ConnId, StreamId)>,
    pub(super) phase: Phase,
    /// When the present phase has lasted too long.
    pub(super) deadline: Option<Instant>,
    /// Gateway: counts it among its client's flows.
    pub(super) permit: Option<FlowPermit>,
    /// Where it leads, as it was asked for, and since when.
    pub(super) to: Box<str>,
    pub(super) since: Instant,
    /// Which way the first byte goes that whoever asked waits for; `None` once it has come.
    pub(super) answer: Option<Way>,
    generation: u32,
    queued: bool,
    /// Waits in the ledger, by [`Way`].
    starved: [bool; 2],
}

impl Flow {
    pub(super) fn owner(&self) -> Owner {
        self.permit.as_ref().map_or(Owner::NOBODY, FlowPermit::owner)
    }
}

/// The life of a flow.
pub(super) enum Phase {
    /// Gateway: the upstream's TCP handshake runs; the other addresses are tried in turn.
    Connecting { reader: Box<RequestReader>, candidates: VecDeque<SocketAddr> },
    /// Client: a SOCKS client is talking.
    Socks(Negotiation),
    /// Client: a SOCKS client whose UDP is relayed by this local socket while the connection lives.
    Associated { relay: u32 },
    /// Client: the TCP handshake with a local service runs (`-R`).
    Dialing(Box<Dialed>),
    /// Client: waits for the tunnel, or for stream credit.
    Waiting(Pending),
    /// Client: CONNECT is on its way (what isn't written yet is kept) and the answer outstanding.
    Asked { reader: Box<ResponseReader>, unsent: bytes::Bytes, pending: Pending },
    /// Bytes flow.
    Open(Box<Splice>),
    /// The connection is gone, but all that it carried has arrived: the last of it goes to the socket.
    Last(Box<Splice>),
    /// Between two phases, within one call.
    Moving,
}

/// A connection that the gateway has announced, on its way to a local service.
pub(super) struct Dialed {
    /// Which `-R`.
    pub(super) index: usize,
    /// The listen stream that announced it, and its id there.
    pub(super) on: (ConnId, StreamId),
    pub(super) id: u64,
    /// The service's other addresses.
    pub(super) candidates: VecDeque<SocketAddr>,
}

/// What a client's flow will ask for.
pub(super) struct Pending {
    pub(super) to: Destination,
    /// A SOCKS reply is owed to the socket.
    pub(super) socks: bool,
    /// It can be asked on this one connection alone (`-R`).
    pub(super) bound: bool,
    /// Bytes that came behind the SOCKS request.
    pub(super) early: Vec<u8>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Flows {
    table: Slab<Flow>,
    next_generation: u32,
    ready: Fair,
    /// Flows with a deadline; few, and looked at only when the earliest may have come.
    earliest_deadline: Option<Instant>,
}

impl Flows {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Adds a flow.
    pub(super) fn insert(&mut self, socket: Socket, phase: Phase, now: Instant) -> FlowKey {
        // Whatever closes the socket before its orderly end, be it the death of this process, closes it with a reset:
        // a stream that was cut off must not look like a whole one. A socket pair (`-W`) knows no reset.
        let _ = socket.set_linger(Some(Duration::ZERO));
        self.next_generation = FlowKey::next_generation(self.next_generation);
        let generation = self.next_generation;
        let flow = Flow {
            socket,
            ready: Readiness::default(),
            on: None,
            phase,
            deadline: None,
            permit: None,
            to: Box::default(),
            since: now,
            answer: None,
            generation,
            queued: false,
            starved: [false; 2],
        };
        FlowKey { index: self.table.insert(flow) as u32, generation }
    }

    pub(super) fn get_mut(&mut self, key: FlowKey) -> Option<&mut Flow> {
        self.table.get_mut(key.index as usize).filter(|flow| flow.generation == key.generation)
    }

    /// Takes the flow out. Dropping its socket ends the epoll watch, and the connection by a reset.
    pub(super) fn remove(&mut self, key: FlowKey) -> Option<Flow> {
        self.get_mut(key)?;
        Some(self.table.remove(key.index as usize))
    }

    /// As [`Self::remove`], but the connection ends in an orderly way: what was written still arrives.
    pub(super) fn remove_orderly(&mut self, key: FlowKey) -> Option<Flow> {
        let flow = self.remove(key)?;
        let _ = flow.socket.set_linger(None);
        Some(flow)
    }

    /// Notes an epoll report and queues the flow.
    pub(super) fn note_ready(&mut self, key: FlowKey, ready: Ready) {
        if let Some(flow) = self.get_mut(key) {
            flow.ready.readable |= ready.readable;
            flow.ready.writable |= ready.writable;
            flow.ready.hangup |= ready.hangup;
            flow.ready.failed |= ready.failed;
            self.queue(key);
        }
    }

    /// Queues a flow for its next step; once is enough.
    pub(super) fn queue(&mut self, key: FlowKey) {
        if let Some(flow) = self.get_mut(key)
            && !std::mem::replace(&mut flow.queued, true)
        {
            let owner = flow.owner();
            self.ready.push(owner, key);
        }
    }

    /// Lets a flow wait until its client's rate permits more.
    pub(super) fn starve(&mut self, key: FlowKey, way: Way, ledger: &mut Ledger, now: Instant) {
        if let Some(flow) = self.get_mut(key)
            && !std::mem::replace(&mut flow.starved[way.index()], true)
        {
            let owner = flow.owner();
            ledger.starve(owner, way, now, key, |key| self.is_starved(key, way));
        }
    }

    fn is_starved(&self, key: FlowKey, way: Way) -> bool {
        let flow = self.table.get(key.index as usize).filter(|flow| flow.generation == key.generation);
        flow.is_some_and(|flow| flow.starved[way.index()])
    }

    /// Ends the wait; false if the flow is gone.
    pub(super) fn fed(&mut self, key: FlowKey, way: Way) -> bool {
        let starved = self.get_mut(key).is_some_and(|flow| std::mem::take(&mut flow.starved[way.index()]));
        if starved {
            self.queue(key);
        }
        starved
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn next_ready(&mut self) -> Option<FlowKey> {
        while let Some(key) = self.ready.pop() {
            if let Some(flow) = self.get_mut(key) {
                flow.queued = false;
                return Some(key);
            }
        }
        None
    }

    pub(super) fn set_deadline(&mut self, key: FlowKey, at: Option<Instant>) {
        if let Some(flow) = self.get_mut(key) {
            flow.deadline = at;
            self.earliest_deadline = [self.earliest_deadline, at].into_iter().flatten().min();
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.earliest_deadline
    }

    /// The flows whose deadline has passed.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<FlowKey> {
        if self.earliest_deadline.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.earliest_deadline =
            self.table.iter().filter_map(|(_, flow)| flow.deadline).filter(|&at| at > now).min();
        let expired = |flow: &Flow| flow.deadline.is_some_and(|at| at <= now);
        let keys = self.table.iter().filter(|(_, flow)| expired(flow));
        keys.map(|(index, flow)| FlowKey { index: index as u32, generation: flow.generation }).collect()
    }

    /// Whether any flow still delivers what its connection left behind. Walks the table: for the end of a daemon.
    pub(super) fn any_last(&self) -> bool {
        self.table.iter().any(|(_, flow)| matches!(flow.phase, Phase::Last(_)))
    }

    /// The flows at the places from `from` on, of `max` places; and where the next part begins.
    pub(super) fn slice(&self, from: usize, max: usize) -> (impl Iterator<Item = &Flow>, Option<usize>) {
        let end = from.saturating_add(max).min(self.table.capacity());
        let next = (end < self.table.capacity()).then_some(end);
        ((from..end).filter_map(|index| self.table.get(index)), next)
    }

    /// The flows that are so. Walks the table: for changes of the configuration.
    pub(super) fn select(&self, is_so: impl Fn(&Flow) -> bool) -> Vec<FlowKey> {
        let selected = self.table.iter().filter(|(_, flow)| is_so(flow));
        selected.map(|(index, flow)| FlowKey { index: index as u32, generation: flow.generation }).collect()
    }

    /// Every flow, for the end of the worker or of a connection.
    pub(super) fn keys_on(&self, conn: ConnId) -> Vec<FlowKey> {
        let on = self.table.iter().filter(|(_, flow)| flow.on.is_some_and(|(of, _)| of == conn));
        on.map(|(index, flow)| FlowKey { index: index as u32, generation: flow.generation }).collect()
    }
}
