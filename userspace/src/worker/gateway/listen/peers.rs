//! UDP of a listener: an association for each remote peer, with an id that stands in front of its datagrams.

use super::Gateway;
use crate::worker::{
    account::Way,
    core::Core,
    reverse::{BATCHES_MAX, PEERS_MAX},
    udp::On,
};
use bytes::Bytes;
use masque::{
    Capsule, context_id,
    listen::{Accept, Close},
};
use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};
use udp::{DatagramSocket, Ends, Sent};

/// Looks for idle associations so many times in an idle timeout.
const SWEEPS: u32 = 4;

/// One remote peer.
struct Peer {
    ends: Ends,
    socket: Arc<DatagramSocket>,
    last_active: Instant,
}

/// The peers of one listener. Invariant: the two tables have the same peers.
#[derive(Default)]
pub(super) struct Peers {
    by_id: HashMap<u64, Peer>,
    by_address: HashMap<SocketAddr, u64>,
}

impl Peers {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True if there was one.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let Some(peer) = self.by_id.remove(&id) else { return false };
        self.by_address.remove(&peer.ends.remote);
        true
    }

    fn insert(&mut self, id: u64, peer: Peer) {
        self.by_address.insert(peer.ends.remote, id);
        self.by_id.insert(id, peer);
    }

    /// The one that has been silent the longest. Walks the table: for one that is full.
    fn longest_idle(&self) -> Option<u64> {
        self.by_id.iter().min_by_key(|(_, peer)| peer.last_active).map(|(&id, _)| id)
    }
}

impl Gateway {
    /// Takes datagrams from a listener's socket to the client.
    pub(super) fn datagrams_from_peers(&mut self, core: &mut Core, on: On, socket: &Arc<DatagramSocket>) {
        let mut scratch = core.udp.take_scratch();
        for _ in 0..BATCHES_MAX {
            let received = socket
                .receive(&mut scratch, &mut |ends, payload| self.peer_said(core, on, socket, ends, payload));
            match received {
                Ok(received) if received.drained => break,
                Ok(_) => {}
                Err(error) => {
                    if error.kind() != std::io::ErrorKind::WouldBlock {
                        // An error of an earlier datagram; the next call finds the next datagram.
                        socket.clear_error();
                    }
                    break;
                }
            }
        }
        core.udp.put_scratch(scratch);
    }

    fn peer_said(
        &mut self,
        core: &mut Core,
        on: On,
        socket: &Arc<DatagramSocket>,
        ends: Ends,
        payload: &[u8],
    ) {
        core.reverse.totals.datagrams_from_sockets += 1;
        let Some(id) = self.peer_id(core, on, socket, ends) else {
            core.reverse.totals.unknown_peer += 1;
            return;
        };
        let Some(listening) = self.listens.table.get_mut(&on) else { return };
        if let Some(peer) = listening.peers.by_id.get_mut(&id) {
            (peer.last_active, peer.ends) = (core.now, ends);
        }
        if !core.ledger.take(listening.permit.owner(), Way::Received, payload.len(), core.now) {
            return;
        }
        let Some(mut quic) = core.engine.connection(on.0) else { return };
        listening.stream.send(&mut quic, &mut core.arena, id, payload, &mut core.datagrams);
    }

    /// The association of a peer, which is announced if it is new.
    fn peer_id(&mut self, core: &mut Core, on: On, socket: &Arc<DatagramSocket>, ends: Ends) -> Option<u64> {
        let listening = self.listens.table.get_mut(&on)?;
        if let Some(&id) = listening.peers.by_address.get(&ends.remote) {
            return Some(id);
        }
        if listening.peers.len() >= PEERS_MAX
            && let Some(oldest) = listening.peers.longest_idle()
        {
            core.reverse.totals.peers_evicted += 1;
            self.end_peer(core, on, oldest);
        }
        let id = self.listens.next_id(on.0);
        let accept = Capsule::Accept(Accept::new(id, ends.remote)?);
        if !self.announce(core, on, &accept) {
            return None;
        }
        core.reverse.totals.peers_opened += 1;
        let peer = Peer { ends, socket: socket.clone(), last_active: core.now };
        self.listens.table.get_mut(&on)?.peers.insert(id, peer);
        let interval = core.udp.idle_timeout / SWEEPS;
        self.listens.sweep.get_or_insert(core.now + interval);
        Some(id)
    }

    /// Forgets an association and tells the client.
    fn end_peer(&mut self, core: &mut Core, on: On, id: u64) {
        let Some(listening) = self.listens.table.get_mut(&on) else { return };
        if listening.peers.remove(id)
            && let Some(close) = Close::new(id)
        {
            self.announce(core, on, &Capsule::Close(close));
        }
    }

    /// Takes a datagram of the client to the peer that its context id stands for.
    pub(super) fn datagram_from_client(&mut self, core: &mut Core, on: On, datagram: Bytes) {
        let listening = self.listens.table.get_mut(&on);
        let (Some(listening), Ok((id, payload))) = (listening, context_id(datagram)) else {
            core.reverse.totals.unknown_peer += 1;
            return;
        };
        let Some(peer) = listening.peers.by_id.get_mut(&id) else {
            core.reverse.totals.unknown_peer += 1;
            return;
        };
        peer.last_active = core.now;
        if !core.ledger.take(listening.permit.owner(), Way::Sent, payload.len(), core.now) {
            return;
        }
        match peer.socket.send(peer.ends, &payload, payload.len().max(1)) {
            Sent::Taken => core.reverse.totals.datagrams_to_sockets += 1,
            Sent::Full | Sent::TooBig | Sent::Failed(_) => core.reverse.totals.socket_refused += 1,
        }
    }

    /// Ends associations that were silent for too long.
    pub(super) fn sweep_peers(&mut self, core: &mut Core, now: Instant) {
        if self.listens.sweep.is_none_or(|at| at > now) {
            return;
        }
        let timeout = core.udp.idle_timeout;
        let mut idle = Vec::new();
        let mut any = false;
        for (&on, listening) in &self.listens.table {
            for (&id, peer) in &listening.peers.by_id {
                if now.saturating_duration_since(peer.last_active) >= timeout {
                    idle.push((on, id));
                } else {
                    any = true;
                }
            }
        }
        self.listens.sweep = any.then(|| now + timeout / SWEEPS);
        for (on, id) in idle {
            core.reverse.totals.peers_idle += 1;
            self.end_peer(core, on, id);
        }
    }
}
