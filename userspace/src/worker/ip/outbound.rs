//! From the network into the tunnel: whose packet it is, whether it fits, and its segments as HTTP datagrams.
//!
//! A port is read only while there is room: at a client, and at a gateway with one session, for its session's datagrams,
//! so that the kernel's queue fills instead and TCP slows down. With several sessions nobody waits for a slow one; what
//! doesn't fit its bounded queue is dropped.

use super::{FlowKey, IpSession, Owner, Side, inner, realm::Finder};
use crate::capture::{
    Point, Way as Direction,
    tap::{Captures, INNER, Seen, Subject},
};
use crate::worker::{
    account::Way,
    arena::Arena,
    core::Core,
    datagrams::Drops,
    ip::totals::Totals,
    ledger::Ledger,
    mail::{HandedInner, Mailbox},
};
use bytes::Bytes;
use ip::{
    InnerSink, Prefix, Split, View, Vnet, fragment,
    icmp::{self, Budget, Trouble},
    packet,
};
use masque::CONTEXT_PAYLOAD;
use slab::Slab;
use std::{net::IpAddr, time::Instant};
use tunnel::{ConnMut, Engine};

/// The room that one super-packet of full segments takes in QUIC's datagram buffer, its records included.
const ROOM_BYTES: usize = 72 * 1024;
/// ICMP errors of one burst.
const ERRORS_MAX: usize = 64;

/// Borrows what a burst of packets needs.
pub(super) struct Outbound<'a> {
    engine: &'a mut Engine,
    arena: &'a mut Arena,
    drops: &'a mut Drops,
    mailbox: &'a Mailbox,
    sessions: &'a mut Slab<IpSession>,
    side: &'a Side,
    finder: &'a mut Finder,
    budget: &'a mut Budget,
    totals: &'a mut Totals,
    ledger: &'a mut Ledger,
    captures: &'a mut Captures,
    worker: u8,
    now: Instant,
    /// The kernel behind the port has taken a hop off already.
    behind_router: bool,
    /// It said that it wants no more.
    stopped: bool,
    errors: Vec<Bytes>,
}

impl<'a> Outbound<'a> {
    pub(super) fn new(core: &'a mut Core, behind_router: bool) -> Self {
        let Core { engine, arena, datagrams, mailbox, ip, ledger, captures, id, now, .. } = core;
        Self {
            engine,
            arena,
            drops: datagrams,
            mailbox,
            sessions: &mut ip.sessions,
            side: &ip.side,
            finder: &mut ip.finder,
            budget: &mut ip.errors,
            totals: &mut ip.totals,
            ledger,
            captures,
            worker: *id,
            now: *now,
            behind_router,
            stopped: false,
            errors: Vec::new(),
        }
    }

    pub(super) fn was_stopped(&self) -> bool {
        self.stopped
    }

    /// ICMP errors for the network.
    pub(super) fn take_errors(self) -> Vec<Bytes> {
        self.errors
    }

    /// The session that the port waits for, if it does for one.
    fn only_session(&mut self) -> Option<&mut IpSession> {
        match self.side {
            Side::Client { session: Some(key), .. } => self.sessions.get_mut(key.index as usize),
            // Of the whole gateway: any worker's port brings packets for the sessions of all.
            Side::Gateway(realm) if self.sessions.len() == 1 && realm.session_count() == 1 => {
                self.sessions.iter_mut().next().map(|(_, session)| session)
            }
            _ => None,
        }
    }

    /// Sends a packet to one of this worker's sessions.
    pub(super) fn packet_for(&mut self, key: FlowKey, vnet: Vnet, packet: &[u8]) {
        self.watched(packet, |this| this.take_for(key, vnet, packet));
    }

    /// Does something with a packet; if that drops it, captures see it.
    fn watched(&mut self, packet: &[u8], take: impl FnOnce(&mut Self)) {
        if !self.captures.wants(Point::Drop) {
            return take(self);
        }
        let before = *self.totals;
        take(self);
        if let Some(reason) = self.totals.dropped_since(&before) {
            self.captures.show(&Seen {
                point: Point::Drop,
                way: Direction::In,
                interface: INNER,
                subject: Subject::Unknown,
                reason,
                head: &[],
                body: packet,
            });
        }
    }

    fn take_for(&mut self, key: FlowKey, vnet: Vnet, packet: &[u8]) {
        match Split::new(vnet, packet) {
            Ok(split) => self.split_for(key, &split, packet),
            Err(_) => self.totals.malformed += 1,
        }
    }

    fn split_for(&mut self, key: FlowKey, split: &Split<'_>, packet: &[u8]) {
        let session = self.sessions.get_mut(key.index as usize);
        let Some(session) = session.filter(|session| session.generation == key.generation) else {
            // It ended a moment ago.
            return self.totals.no_route += 1;
        };
        let Some(mut quic) = self.engine.connection(session.on.0) else { return self.totals.no_route += 1 };
        if !self.behind_router && split.view().hop_limit <= 1 {
            self.totals.hop_limit += 1;
            return self.complain(split.view(), packet, Trouble::TimeExceeded);
        }
        let mtu_bytes = session.mtu_bytes(&mut quic, self.now);
        if split.segment_bytes_max() > mtu_bytes {
            return self.too_big(key, split, packet, mtu_bytes);
        }
        let bytes = split.total_bytes();
        if !self.ledger.take(session.account, Way::Received, bytes, self.now) {
            return self.totals.over_rate += split.count() as u64;
        }
        session.to_tunnel_bytes += bytes as u64;
        let mut carrier = Carrier {
            arena: self.arena,
            drops: self.drops,
            totals: self.totals,
            captures: self.captures,
            takes_hop: !self.behind_router,
        };
        for index in 0..split.count() {
            carrier.segment(session, &mut quic, split, index);
        }
    }

    /// Cuts a packet that may be cut; else its sender is told.
    fn too_big(&mut self, key: FlowKey, split: &Split<'_>, packet: &[u8], mtu_bytes: usize) {
        let mut fragments = Vec::new();
        // The checksum of a plain packet may still be to do: as it will be in its one segment.
        let mut whole = vec![0; split.segment_bytes_max()];
        let plain = split.count() == 1 && split.write(0, &mut whole).is_some();
        let cut = plain && matches!(fragment::fragment(&whole, mtu_bytes, &mut fragments), Ok(true));
        if !cut {
            self.totals.too_big += 1;
            // Of a super-packet the first segment is quoted: the sender looks for its own sequence numbers.
            let first = if plain || split.write(0, &mut whole).is_some() { &whole } else { packet };
            let view = View::read_unsummed(first).unwrap_or(*split.view());
            let first = first.to_vec();
            return self.complain(&view, &first, Trouble::TooBig { mtu_bytes });
        }
        self.totals.fragmented += 1;
        for fragment in &fragments {
            self.take_for(key, Vnet::NONE, fragment);
        }
    }

    /// Tells the sender of a packet what is wrong with it, as often as may be.
    fn complain(&mut self, view: &View, packet: &[u8], trouble: Trouble) {
        let from = self.own_address(view);
        if self.errors.len() >= ERRORS_MAX {
            return;
        }
        let Some(error) = from.and_then(|from| icmp::error(packet, view, from, trouble)) else { return };
        if self.budget.take(trouble, self.now) {
            self.totals.icmp_sent += 1;
            self.errors.push(error.into());
        }
    }

    /// What this end's ICMP errors about a packet come from.
    fn own_address(&self, view: &View) -> Option<IpAddr> {
        let is_ipv4 = view.source.is_ipv4();
        match self.side {
            Side::Gateway(realm) => realm.gateway_address(is_ipv4),
            // The client's own kernel is told; it knows no router behind its device.
            Side::Client { .. } if self.behind_router => Some(view.destination),
            // Its address in the tunnel comes first.
            Side::Client { own, .. } => {
                let own =
                    own.iter().find(|prefix| prefix.is_ipv4() == is_ipv4 && prefix.first() == prefix.last());
                Some(own.map_or(view.destination, |prefix| prefix.first()))
            }
            Side::Off => None,
        }
    }

    /// Tells the sender of a packet that came through the tunnel why the network refused it.
    pub(super) fn refused(&mut self, packet: &[u8], trouble: Trouble) {
        let Ok(view) = View::read_unsummed(packet) else { return };
        let from = match self.side {
            Side::Client { own, .. } => {
                let is_ipv4 = view.source.is_ipv4();
                own.iter().find(|prefix| prefix.is_ipv4() == is_ipv4).map(|prefix| prefix.first())
            }
            _ => self.own_address(&view),
        };
        if let Some(error) = from.and_then(|from| icmp::error(packet, &view, from, trouble))
            && self.budget.take(trouble, self.now)
        {
            self.totals.icmp_sent += 1;
            self.packet(Vnet::NONE, &error);
        }
    }

    /// Whose the packet is, at a gateway.
    fn at_gateway(&mut self, vnet: Vnet, packet: &[u8], split: &Split<'_>) {
        let Side::Gateway(realm) = self.side else { return };
        // Who sends so from the LAN would pass for a client, or for a host behind one, or for the gateway itself. A kernel
        // behind a TUN device has its own say there (`rp_filter`).
        if !self.behind_router && self.finder.is_of_tunnel(realm, split.view().source) {
            return self.totals.spoofed_source += 1;
        }
        match self.finder.find(realm, split.view().destination) {
            None => {
                self.totals.no_route += 1;
                self.complain(split.view(), packet, Trouble::NoRoute);
            }
            Some(owner) if owner.worker == self.worker => self.split_for(owner.key, split, packet),
            Some(owner) => {
                let Some(mailbox) = realm.mailbox(owner.worker) else { return };
                self.hand_over(mailbox, owner, vnet, packet);
            }
        }
    }

    fn hand_over(&mut self, mailbox: &Mailbox, owner: Owner, vnet: Vnet, packet: &[u8]) {
        debug_assert!(!std::ptr::eq(mailbox, self.mailbox));
        let handed = HandedInner {
            key: owner.key,
            vnet,
            packet: Bytes::copy_from_slice(packet),
            behind_router: self.behind_router,
        };
        match mailbox.hand_over_inner(handed) {
            true => self.totals.handed_over += 1,
            false => self.totals.hand_over_full += 1,
        }
        mailbox.waker().wake();
    }

    fn at_client(&mut self, packet: &[u8], split: &Split<'_>, session: Option<FlowKey>, own: &[Prefix]) {
        // Its kernel says things of its own on every interface: neighbour and group messages.
        let is_own = own.iter().any(|prefix| prefix.contains(split.view().source));
        if !is_own || split.view().is_destination_special() {
            return self.totals.other_source += 1;
        }
        match session {
            Some(key) => self.split_for(key, split, packet),
            None => self.totals.no_session += 1,
        }
    }
}

impl InnerSink for Outbound<'_> {
    fn wants_more(&mut self) -> bool {
        let Some(session) = self.only_session() else { return true };
        let (conn, waiting) = (session.on.0, session.tunnel.is_waiting());
        let has_room = match self.engine.connection(conn) {
            Some(mut quic) => !waiting && quic.datagram_space_bytes() >= ROOM_BYTES,
            None => true,
        };
        self.stopped = !has_room;
        has_room
    }

    fn packet(&mut self, vnet: Vnet, packet: &[u8]) {
        self.watched(packet, |this| this.take_packet(vnet, packet));
    }
}

impl Outbound<'_> {
    fn take_packet(&mut self, vnet: Vnet, packet: &[u8]) {
        let Ok(split) = Split::new(vnet, packet) else { return self.totals.malformed += 1 };
        match self.side {
            Side::Gateway(_) => self.at_gateway(vnet, packet, &split),
            Side::Client { session, own } => self.at_client(packet, &split, *session, own),
            Side::Off => self.totals.no_session += 1,
        }
    }
}

/// What sending a segment needs.
struct Carrier<'a> {
    arena: &'a mut Arena,
    drops: &'a mut Drops,
    totals: &'a mut Totals,
    captures: &'a mut Captures,
    takes_hop: bool,
}

impl Carrier<'_> {
    /// Writes a segment where its datagram leaves from: the one copy.
    fn segment(&mut self, session: &mut IpSession, quic: &mut ConnMut<'_>, split: &Split<'_>, index: usize) {
        let bytes = split.segment_bytes(index);
        let space = self.arena.datagram_space(bytes);
        if split.write(index, space).is_none() {
            return;
        }
        if self.takes_hop {
            packet::decrement_hop_limit(space, split.view());
        }
        self.totals.packets_to_tunnel += 1;
        self.totals.bytes_to_tunnel += bytes as u64;
        if self.captures.wants(Point::Inner) {
            self.captures.show(&inner(Point::Inner, Direction::In, session, "", &space[..bytes]));
        }
        session.tunnel.send_filled(quic, self.arena, CONTEXT_PAYLOAD, bytes, self.drops);
    }
}
