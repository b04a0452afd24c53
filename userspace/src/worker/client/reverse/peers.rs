//! UDP of `-R`: a socket of our own for each of the gateway's peers, so that the local service can tell them apart.

use super::{Client, On, State};
use crate::worker::{
    core::Core,
    mail::Command,
    poll::Token,
    reverse::{BATCHES_MAX, PEERS_MAX},
};
use bytes::Bytes;
use masque::{
    Capsule, context_id,
    listen::{Close, Transport},
};
use slab::Slab;
use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};
use udp::{DatagramSocket, Sent};
use upstream::resolver::ResolveError;

/// Stands for the id where it is the service's name that was resolved.
pub(super) const SERVICE_ITSELF: u64 = 0;
/// Peers that are remembered as over.
const OVER_MAX: usize = 256;
/// Looks for idle associations so many times in an idle timeout.
const SWEEPS: u32 = 4;

/// One of the gateway's peers.
struct Peer {
    index: usize,
    id: u64,
    remote: SocketAddr,
    socket: Arc<DatagramSocket>,
    last_active: Instant,
}

/// The peers of all services. Invariant: the two tables have the same peers.
#[derive(Default)]
pub(super) struct Peers {
    table: Slab<Peer>,
    /// By service and id.
    by_id: HashMap<(usize, u64), usize>,
    /// Where the services are, as far as that is known.
    services: HashMap<usize, SocketAddr>,
    /// Peers that are over, the latest last: their late datagrams make no new ones.
    over: VecDeque<(usize, u64)>,
    sweep: Option<Instant>,
}

impl Peers {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.sweep
    }

    fn count_of(&self, index: usize) -> usize {
        self.table.iter().filter(|(_, peer)| peer.index == index).count()
    }

    fn longest_idle(&self, index: usize) -> Option<u64> {
        let peers = self.table.iter().filter(|(_, peer)| peer.index == index);
        peers.min_by_key(|(_, peer)| peer.last_active).map(|(_, peer)| peer.id)
    }
}

impl Client {
    /// Finds out where the service of a new listener is.
    pub(super) fn find_udp_service(&mut self, core: &mut Core, index: usize) {
        let item = &self.reverse.items[index];
        let (Transport::Udp, Some(on)) = (item.publication.target.transport, item.state.on()) else { return };
        let to = &item.publication.to;
        if let Ok(ip) = to.host.parse::<IpAddr>() {
            self.reverse.peers.services.insert(index, SocketAddr::new(ip, to.port));
            return;
        }
        let mailbox = core.mailbox.clone();
        let done = Box::new(move |outcome| {
            mailbox.command(Command::ServiceResolved { index, on, id: SERVICE_ITSELF, outcome });
        });
        if self.config.resolver.resolve(&to.host, to.port, done).is_err() {
            tracing::warn!("{}: the resolver is busy", item.publication.words());
        }
    }

    pub(super) fn udp_service_found(
        &mut self,
        index: usize,
        on: On,
        outcome: Result<Vec<SocketAddr>, ResolveError>,
    ) {
        let Some(item) = self.reverse.items.get(index).filter(|item| item.state.on() == Some(on)) else {
            return;
        };
        match outcome.map(|addresses| addresses.first().copied()) {
            Ok(Some(address)) => drop(self.reverse.peers.services.insert(index, address)),
            Ok(None) => tracing::warn!("{}: its service's name has no address", item.publication.words()),
            Err(error) => tracing::warn!("{}: {error}", item.publication.words()),
        }
    }

    /// Takes a datagram of one of the gateway's peers to the service.
    pub(super) fn datagram_for_service(&mut self, core: &mut Core, index: usize, datagram: Bytes) {
        let Ok((id, payload)) = context_id(datagram) else {
            core.reverse.totals.unknown_peer += 1;
            return;
        };
        let Some(at) = self.peer(core, index, id) else {
            core.reverse.totals.unknown_peer += 1;
            return;
        };
        let peer = &mut self.reverse.peers.table[at];
        peer.last_active = core.now;
        match peer.socket.send(peer.remote, &payload, payload.len().max(1)) {
            Sent::Taken => core.reverse.totals.datagrams_to_sockets += 1,
            // A closed port is told by the next call; the service may come back.
            Sent::Full | Sent::TooBig | Sent::Failed(_) => core.reverse.totals.socket_refused += 1,
        }
    }

    /// The place of a peer. One whose first datagram has overtaken its BEAM_ACCEPT is made now: QUIC puts DATAGRAM frames
    /// in front of stream data, so that is the rule.
    pub(super) fn peer(&mut self, core: &mut Core, index: usize, id: u64) -> Option<usize> {
        let peers = &mut self.reverse.peers;
        if let Some(&at) = peers.by_id.get(&(index, id)) {
            return Some(at);
        }
        if peers.over.contains(&(index, id)) {
            return None;
        }
        let remote = *peers.services.get(&index)?;
        let socket = Arc::new(DatagramSocket::connected(remote).ok()?);
        if peers.count_of(index) >= PEERS_MAX
            && let Some(oldest) = peers.longest_idle(index)
        {
            core.reverse.totals.peers_evicted += 1;
            self.end_peer(core, index, oldest);
        }
        let peers = &mut self.reverse.peers;
        let peer = Peer { index, id, remote, socket: socket.clone(), last_active: core.now };
        let at = peers.table.insert(peer);
        if core.poll.watch_readable(&*socket, Token::ReversePeer(at as u32)).is_err() {
            peers.table.remove(at);
            return None;
        }
        peers.by_id.insert((index, id), at);
        core.reverse.totals.peers_opened += 1;
        let interval = core.udp.idle_timeout / SWEEPS;
        peers.sweep.get_or_insert(core.now + interval);
        Some(at)
    }

    /// The service has answered a peer.
    pub(in crate::worker) fn read_service(&mut self, core: &mut Core, at: u32) {
        let Some(peer) = self.reverse.peers.table.get(at as usize) else { return };
        let (index, id, socket) = (peer.index, peer.id, peer.socket.clone());
        let mut scratch = core.udp.take_scratch();
        for _ in 0..BATCHES_MAX {
            let received =
                socket.receive(&mut scratch, &mut |_, payload| self.service_said(core, index, id, payload));
            match received {
                Ok(received) => {
                    if received.datagrams > 0
                        && let Some(peer) = self.reverse.peers.table.get_mut(at as usize)
                    {
                        peer.last_active = core.now;
                    }
                    if received.drained {
                        break;
                    }
                }
                Err(_) => {
                    // Nobody listens there just now. A send may have taken the error itself, and left the queue that
                    // tells of it, for which epoll wakes again and again: so whatever the call says.
                    socket.clear_error();
                    while socket.next_trouble().is_some() {}
                    break;
                }
            }
        }
        core.udp.put_scratch(scratch);
    }

    fn service_said(&mut self, core: &mut Core, index: usize, id: u64, payload: &[u8]) {
        core.reverse.totals.datagrams_from_sockets += 1;
        let State::Open { on, stream } = &mut self.reverse.items[index].state else { return };
        let Some(mut quic) = core.engine.connection(on.0) else { return };
        stream.send(&mut quic, &mut core.arena, id, payload, &mut core.datagrams);
    }

    /// The gateway has forgotten a peer.
    pub(super) fn peer_gone(&mut self, core: &mut Core, index: usize, id: u64) {
        core.reverse.totals.peers_closed += u64::from(self.remove_peer(core, index, id));
    }

    fn remove_peer(&mut self, core: &mut Core, index: usize, id: u64) -> bool {
        let Some(at) = self.reverse.peers.by_id.remove(&(index, id)) else { return false };
        let peers = &mut self.reverse.peers;
        let peer = peers.table.remove(at);
        core.poll.forget(&*peer.socket);
        if peers.over.len() == OVER_MAX {
            peers.over.pop_front();
        }
        peers.over.push_back((index, id));
        true
    }

    /// Forgets a peer and tells the gateway.
    fn end_peer(&mut self, core: &mut Core, index: usize, id: u64) {
        if self.remove_peer(core, index, id)
            && let (Some(on), Some(close)) = (self.reverse.items[index].state.on(), Close::new(id))
        {
            self.tell_listener(core, index, on, &Capsule::Close(close));
        }
    }

    /// The listener is gone, and its peers with it. Ids begin anew on another connection.
    pub(super) fn forget_peers(&mut self, core: &mut Core, index: usize) {
        let of_it = self.reverse.peers.table.iter().filter(|(_, peer)| peer.index == index);
        for id in of_it.map(|(_, peer)| peer.id).collect::<Vec<_>>() {
            self.peer_gone(core, index, id);
        }
        self.reverse.peers.over.retain(|&(of, _)| of != index);
    }

    /// Ends associations that were silent for too long.
    pub(super) fn sweep_peers(&mut self, core: &mut Core, now: Instant) {
        if self.reverse.peers.sweep.is_none_or(|at| at > now) {
            return;
        }
        let timeout = core.udp.idle_timeout;
        let table = &self.reverse.peers.table;
        let is_idle = |peer: &Peer| now.saturating_duration_since(peer.last_active) >= timeout;
        let idle: Vec<(usize, u64)> =
            table.iter().filter(|(_, peer)| is_idle(peer)).map(|(_, peer)| (peer.index, peer.id)).collect();
        for &(index, id) in &idle {
            core.reverse.totals.peers_idle += 1;
            self.end_peer(core, index, id);
        }
        self.reverse.peers.sweep = (!self.reverse.peers.table.is_empty()).then(|| now + timeout / SWEEPS);
    }
}
