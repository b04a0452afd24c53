//! A worker's IP sessions (CONNECT-IP, RFC 9484), at the gateway and at the client, and its way to the network behind.
//!
//! ```text
//!  QUIC DATAGRAM or capsule ─► inbound: proved, source and destination permitted ─► InnerPort (TUN queue, LAN port)
//!  InnerPort ─► outbound: whose destination? ─┬─► session ─ DatagramStream ─► QUIC
//!                 └ too big, no route: ICMP   └─► another worker's: its mailbox
//! ```
//! The table, its queue of sessions that have something to do, and the inbound half; [`outbound`] is the other.

mod ground;
mod lan;
mod outbound;
mod realm;
mod session;
mod totals;

pub(crate) use ground::{Granted, Ground, LanGround};
pub(crate) use lan::Lan;
pub(crate) use realm::{Owner, Realm};
pub(super) use session::{IpSession, Rules};

use self::{outbound::Outbound, realm::Finder, totals::Totals};
use super::{
    account::Way,
    arena::Arena,
    core::Core,
    datagrams::{Drops, Next},
    flow::Broken,
    ledger::Ledger,
    poll::{FlowKey, Poll, Token},
};
use crate::capture::{
    Point, Way as Direction,
    tap::{Captures, INNER, Seen, Subject},
};
use bytes::Bytes;
use ip::{
    InnerPort, InnerSink as _, Prefix, View, Vnet,
    icmp::{self, Budget, Trouble},
};
use masque::{CONTEXT_PAYLOAD, Capsule, RouteAdvertisement};
use port::Census;
use slab::Slab;
use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::{ConnId, ConnMut};
use xsk::LanPort;

/// ICMP errors of one worker: a thousand a second, a hundred at once; "too big" and all others apart.
const ICMP_EACH: Duration = Duration::from_millis(1);
const ICMP_BURST: u32 = 100;
/// Capsules of one session read in one go.
const CAPSULES_MAX: usize = 256;

/// Which end this is.
pub(in crate::worker) enum Side {
    /// Destinations decide about sessions.
    Gateway(Arc<Realm>),
    /// One session; its addresses are those that the kernel may send from.
    Client {
        session: Option<FlowKey>,
        /// Addresses of this end, and networks behind it.
        own: Arc<[Prefix]>,
    },
    /// This daemon carries no IP.
    Off,
}

/// The network behind this end of the tunnel.
pub(crate) trait Network: InnerPort {
    /// Where the frames of its AF_XDP sockets are, if it has any.
    fn census(&mut self) -> Vec<Census> {
        Vec::new()
    }

    /// A LAN has a new queue. What is none drops it, which leaves it to the kernel.
    fn add_queue(&mut self, _queue: LanPort) {}
}

impl Network for tun::Queue {}

/// See the module.
pub(super) struct Ip {
    port: Option<Box<dyn Network>>,
    /// Packets may wait at the port.
    port_readable: bool,
    /// Packets were given to the port that it hasn't handed on.
    port_dirty: bool,
    sessions: Slab<IpSession>,
    next_generation: u32,
    ready: VecDeque<FlowKey>,
    finder: Finder,
    errors: Budget,
    pub(super) side: Side,
    pub(super) totals: Totals,
}

impl Default for Ip {
    fn default() -> Self {
        Self {
            port: None,
            port_readable: false,
            port_dirty: false,
            sessions: Slab::new(),
            next_generation: 0,
            ready: VecDeque::new(),
            finder: Finder::default(),
            errors: Budget::new(ICMP_EACH, ICMP_BURST),
            side: Side::Off,
            totals: Totals::default(),
        }
    }
}

/// What taking a packet from the tunnel works with.
pub(super) struct Tools<'a, 'q> {
    pub(super) quic: &'a mut ConnMut<'q>,
    pub(super) arena: &'a mut Arena,
    pub(super) drops: &'a mut Drops,
    pub(super) ledger: &'a mut Ledger,
    pub(super) captures: &'a mut Captures,
    pub(super) now: Instant,
}

/// What a step of a session brought for its role.
pub(super) enum Heard {
    /// A capsule that is no datagram.
    Capsule(Capsule),
    /// The session has ended.
    Ended(Option<Broken>),
    /// Nothing more now.
    Nothing,
}

impl Ip {
    /// Gives the worker its way to the network.
    pub(super) fn set_port(&mut self, poll: &Poll, port: Box<dyn Network>) -> io::Result<()> {
        port.poll_fds().into_iter().try_for_each(|fd| poll.watch_edges(fd, Token::Inner))?;
        self.port = Some(port);
        self.port_readable = true;
        Ok(())
    }

    /// Serves another queue of the LAN.
    pub(super) fn add_lan_queue(&mut self, poll: &Poll, queue: LanPort) -> io::Result<()> {
        let Some(port) = &mut self.port else { return Ok(()) };
        queue.poll_fds().into_iter().try_for_each(|fd| poll.watch_edges(fd, Token::Inner))?;
        port.add_queue(queue);
        self.port_readable = true;
        Ok(())
    }

    pub(super) fn note_ready(&mut self) {
        self.port_readable = true;
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn insert(&mut self, mut session: IpSession) -> FlowKey {
        self.next_generation = FlowKey::next_generation(self.next_generation);
        session.generation = self.next_generation;
        self.totals.sessions_opened += 1;
        FlowKey { index: self.sessions.insert(session) as u32, generation: self.next_generation }
    }

    pub(super) fn get_mut(&mut self, key: FlowKey) -> Option<&mut IpSession> {
        self.sessions.get_mut(key.index as usize).filter(|session| session.generation == key.generation)
    }

    pub(super) fn remove(&mut self, key: FlowKey) -> Option<IpSession> {
        self.get_mut(key)?;
        self.totals.sessions_ended += 1;
        Some(self.sessions.remove(key.index as usize))
    }

    /// Queues a session whose stream has something to say or takes something again; once is enough.
    pub(super) fn queue(&mut self, key: FlowKey) {
        if let Some(session) = self.get_mut(key)
            && !std::mem::replace(&mut session.queued, true)
        {
            self.ready.push_back(key);
        }
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn next_ready(&mut self) -> Option<FlowKey> {
        while let Some(key) = self.ready.pop_front() {
            if let Some(session) = self.get_mut(key) {
                session.queued = false;
                return Some(key);
            }
        }
        None
    }

    /// QUIC's datagram buffer of a connection has room again.
    pub(super) fn unblocked(&mut self, conn: ConnId) {
        for key in self.keys_on(conn) {
            self.queue(key);
        }
    }

    pub(super) fn keys_on(&self, conn: ConnId) -> Vec<FlowKey> {
        self.select(|session| session.on.0 == conn)
    }

    /// Sessions of some kind. Walks the table.
    pub(super) fn select(&self, which: impl Fn(&IpSession) -> bool) -> Vec<FlowKey> {
        let found = self.sessions.iter().filter(|(_, session)| which(session));
        found
            .map(|(index, session)| FlowKey { index: index as u32, generation: session.generation })
            .collect()
    }

    /// The sessions at the places from `from` on, of `max` places; and where the next part begins.
    pub(super) fn slice(&self, from: usize, max: usize) -> (impl Iterator<Item = &IpSession>, Option<usize>) {
        let end = from.saturating_add(max).min(self.sessions.capacity());
        let next = (end < self.sessions.capacity()).then_some(end);
        ((from..end).filter_map(|index| self.sessions.get(index)), next)
    }

    /// When the MTU of a session may become smaller by itself, if it still may.
    pub(super) fn settles_at(&self, key: FlowKey, now: Instant) -> Option<Instant> {
        self.sessions.get(key.index as usize).map(IpSession::settles_at).filter(|&at| at > now)
    }

    /// Counters of the device, by name.
    pub(super) fn port_counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        if let Some(port) = &self.port {
            port.counters(each);
        }
    }

    /// The same of what it dropped.
    pub(super) fn port_drops(&self, each: &mut dyn FnMut(&'static str, u64)) {
        if let Some(port) = &self.port {
            port.drops(each);
        }
    }

    pub(super) fn census(&mut self) -> Vec<Census> {
        self.port.as_mut().map_or_else(Vec::new, |port| port.census())
    }

    /// A packet for the network that another worker took from the tunnel.
    pub(super) fn send_outward(&mut self, packet: Bytes) {
        let Some(port) = &mut self.port else { return self.totals.no_device += 1 };
        port.send(packet);
        self.port_dirty = true;
    }

    /// A QUIC DATAGRAM frame for a session.
    pub(super) fn receive_frame(&mut self, key: FlowKey, datagram: Bytes, tools: &mut Tools<'_, '_>) {
        match self.get_mut(key) {
            Some(session) => session.tunnel.heard_frame(),
            None => return tools.drops.unknown_flow += 1,
        }
        self.inbound(key, datagram, tools);
    }

    /// An HTTP datagram of the peer: one packet for the network.
    fn inbound(&mut self, key: FlowKey, datagram: Bytes, tools: &mut Tools<'_, '_>) {
        if !tools.captures.wants(Point::Drop) {
            return self.take_inbound(key, datagram, tools);
        }
        let (copy, before) = (datagram.clone(), self.totals);
        self.take_inbound(key, datagram, tools);
        if let Some(reason) = self.totals.dropped_since(&before)
            && let Ok((_, packet)) = masque::context_id(copy)
            && let Some(session) = self.sessions.get(key.index as usize)
        {
            tools.captures.show(&inner(Point::Drop, Direction::Out, session, reason, &packet));
        }
    }

    fn take_inbound(&mut self, key: FlowKey, datagram: Bytes, tools: &mut Tools<'_, '_>) {
        let mut packet = match masque::context_id(datagram) {
            Ok((CONTEXT_PAYLOAD, packet)) => packet,
            Ok(_) | Err(_) => return tools.drops.unknown_context += 1,
        };
        let Ok(view) = View::read(&packet) else { return self.totals.malformed += 1 };
        let Some(session) = self.sessions.get_mut(key.index as usize) else { return };
        if !session.rules.permit_source(&view) {
            return self.totals.spoofed_source += 1;
        }
        if !session.rules.permit_destination(&view) {
            return self.refuse_destination(key, &packet, &view, tools);
        }
        let Some(port) = &mut self.port else { return self.totals.no_device += 1 };
        packet.truncate(view.total_bytes);
        if !tools.ledger.take(session.account, Way::Sent, packet.len(), tools.now) {
            return self.totals.over_rate += 1;
        }
        self.totals.packets_from_tunnel += 1;
        self.totals.bytes_from_tunnel += packet.len() as u64;
        session.from_tunnel_bytes += packet.len() as u64;
        if tools.captures.wants(Point::Inner) {
            tools.captures.show(&inner(Point::Inner, Direction::Out, session, "", &packet));
        }
        port.send(packet);
        self.port_dirty = true;
    }

    /// The peer may not send there. A client of ours is told so.
    fn refuse_destination(&mut self, key: FlowKey, packet: &[u8], view: &View, tools: &mut Tools<'_, '_>) {
        let Side::Gateway(realm) = &self.side else { return self.totals.other_destination += 1 };
        self.totals.denied_destination += 1;
        let from = realm.gateway_address(view.source.is_ipv4());
        let Some(session) = self.sessions.get_mut(key.index as usize) else { return };
        if let Some(error) = from.and_then(|from| icmp::error(packet, view, from, Trouble::Prohibited))
            && self.errors.take(Trouble::Prohibited, tools.now)
        {
            self.totals.icmp_sent += 1;
            let Tools { quic, arena, drops, .. } = tools;
            session.tunnel.send(quic, arena, CONTEXT_PAYLOAD, &error, drops);
        }
    }
}

/// A session's packet as captures see it; outwards is to the network, away from the tunnel.
fn inner<'a>(
    point: Point,
    way: Direction,
    session: &'a IpSession,
    reason: &'a str,
    packet: &'a [u8],
) -> Seen<'a> {
    let subject = Subject::Session { client: &session.name, conn: session.on.0 };
    Seen { point, way, interface: INNER, subject, reason, head: &[], body: packet }
}

/// A prefix as the packets' room has it.
pub(super) fn prefix_of(prefix: masque::IpPrefix) -> Option<Prefix> {
    Prefix::new(prefix.address(), prefix.prefix_len())
}

/// The ROUTE_ADVERTISEMENT of these networks; neighbours become one range. `None`: more than it holds.
pub(crate) fn advertisement(networks: &[Prefix]) -> Option<RouteAdvertisement> {
    RouteAdvertisement::covering(networks.iter().filter_map(|&prefix| masque_prefix(prefix))).ok()
}

/// A prefix as the capsules have it.
fn masque_prefix(prefix: Prefix) -> Option<masque::IpPrefix> {
    masque::IpPrefix::new(prefix.first(), prefix.length()).ok()
}

impl Core {
    /// Reads a session's stream on: datagrams go to the network, what else there is to the caller, which asks again until
    /// there is nothing.
    pub(super) fn hear_ip(&mut self, key: FlowKey) -> Heard {
        for _ in 0..CAPSULES_MAX {
            let Some(session) = self.ip.get_mut(key) else { return Heard::Nothing };
            let Some(mut quic) = self.engine.connection(session.on.0) else { return Heard::Nothing };
            match session.tunnel.next(&mut quic, &mut self.arena, &mut self.datagrams) {
                Ok(Next::Capsule(Capsule::Datagram(datagram))) => {
                    let mut tools = Tools {
                        quic: &mut quic,
                        arena: &mut self.arena,
                        drops: &mut self.datagrams,
                        ledger: &mut self.ledger,
                        captures: &mut self.captures,
                        now: self.now,
                    };
                    self.ip.inbound(key, datagram, &mut tools);
                }
                Ok(Next::Capsule(capsule)) => return Heard::Capsule(capsule),
                Ok(Next::Blocked) => {
                    session.tunnel.flush(&mut quic, &mut self.datagrams);
                    return Heard::Nothing;
                }
                Ok(Next::End) => return Heard::Ended(None),
                Err(broken) => return Heard::Ended(Some(broken)),
            }
        }
        // Others get their turn.
        self.ip.queue(key);
        Heard::Nothing
    }

    /// Takes packets from the network, as far as the tunnel has room for them, and hands those to the network that came
    /// from the tunnel. True if more packets wait that there is room for.
    pub(super) fn move_inner(&mut self, now: Instant) -> io::Result<bool> {
        let Some(mut port) = self.ip.port.take() else { return Ok(false) };
        let result = self.move_through(now, &mut *port);
        self.ip.port = Some(port);
        result
    }

    fn move_through(&mut self, now: Instant, port: &mut dyn InnerPort) -> io::Result<bool> {
        let due = port.next_deadline().is_some_and(|at| at <= now);
        if std::mem::take(&mut self.ip.port_dirty) || due {
            port.flush(now)?;
            self.answer_refused(port);
        }
        if !self.ip.port_readable {
            return Ok(false);
        }
        let mut outbound = Outbound::new(self, port.is_behind_router());
        // Asked first: a port that isn't read stays readable.
        if !outbound.wants_more() {
            return Ok(false);
        }
        let more = port.receive(now, &mut outbound)?;
        let was_stopped = outbound.was_stopped();
        let errors = outbound.take_errors();
        self.ip.port_readable = more || was_stopped;
        if !errors.is_empty() {
            errors.into_iter().for_each(|error| port.send(error));
            port.flush(now)?;
        }
        Ok(more)
    }

    /// Tells the senders, beyond the tunnel, of packets that the network refused.
    fn answer_refused(&mut self, port: &mut dyn InnerPort) {
        while let Some((packet, trouble)) = port.next_refused() {
            // What beam itself says has taken no hop yet.
            Outbound::new(self, true).refused(&packet, trouble);
        }
    }

    /// Whether packets wait at the network that the tunnel has room for.
    pub(super) fn inner_waits(&mut self) -> bool {
        self.ip.port_readable && self.ip.port.is_some() && Outbound::new(self, true).wants_more()
    }

    /// A packet or super-packet that another worker took from the network for a session of this one.
    pub(super) fn take_handed(&mut self, key: FlowKey, vnet: Vnet, packet: &[u8], behind_router: bool) {
        let mut outbound = Outbound::new(self, behind_router);
        outbound.packet_for(key, vnet, packet);
        let errors = outbound.take_errors();
        if let Some(port) = &mut self.ip.port {
            self.ip.port_dirty |= !errors.is_empty();
            errors.into_iter().for_each(|error| port.send(error));
        }
    }

    pub(super) fn inner_deadline(&self) -> Option<Instant> {
        self.ip.port.as_ref().and_then(|port| port.next_deadline())
    }
}

/// The names of the counters here, for tests.
#[cfg(test)]
pub(super) fn counters_of_nothing() -> Vec<&'static str> {
    Totals::default().counters().map(|(name, _)| name).to_vec()
}

/// The names of the drops here, for tests.
#[cfg(test)]
pub(super) fn drops_of_nothing() -> [(&'static str, u64); 12] {
    Totals::default().drops()
}
