//! Datagrams in: whose they are, what they bring, and which of them begin a handshake.

use super::tiers::Handled;
use super::{Arrival, Engine, Waiting, conn_at};
use crate::admission::AMPLIFICATION_FACTOR;
use crate::cid::{Tier, WorkerId};
use crate::connection::{Conn, Phase, touch};
use crate::header::{
    Header, MIN_INITIAL_DATAGRAM_BYTES, MIN_INITIAL_DCID_BYTES, MIN_RESET_DATAGRAM_BYTES, is_handshake_only,
};
use crate::protection::{Ahead, Reading, Verdict, short_cid};
use crate::stats::DropReason;
use bytes::BytesMut;
use quinn_proto::{
    AcceptError, ConnectionError, ConnectionEvent, ConnectionHandle, DatagramEvent, EcnCodepoint, FrameStats,
    Incoming, Side,
};
use std::time::Instant;
use wire::Path;

/// Received datagrams are copied into slabs of this size: 0.05 allocations a packet and not two.
/// What is still referenced of a slab keeps all of it, which quinn bounds by copying sparse buffers.
const SLAB_BYTES: usize = 64 << 10;
/// Stateless answers that wait for `transmit`. A burst is 32 to 64 datagrams; more is a flood.
const ANSWER_QUEUE_MAX: usize = 512;

/// Which engine a datagram belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This one: `receive` it.
    Here,
    /// Another worker's, by its CID: hand it over. The worker might not exist (any longer).
    Worker(WorkerId),
    /// Nobody's; it has been counted.
    Drop(DropReason),
}

/// One datagram of a burst.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    /// Where it came from and which of our addresses it was sent to.
    pub path: Path,
    /// ECN codepoint of its IP header.
    pub ecn: Option<EcnCodepoint>,
    /// The UDP payload. It is not needed any longer once `receive_burst` returns.
    pub bytes: &'a [u8],
}

/// Where received datagrams are put; split, never reused while anyone holds a part.
#[derive(Debug, Default)]
pub(crate) struct Slab(BytesMut);

impl Slab {
    fn copy(&mut self, datagram: &[u8]) -> BytesMut {
        self.make_room(datagram.len());
        self.0.extend_from_slice(datagram);
        self.0.split()
    }

    /// A buffer of `len` bytes, all zero.
    pub(crate) fn take(&mut self, len: usize) -> BytesMut {
        self.make_room(len);
        self.0.resize(len, 0);
        self.0.split()
    }

    fn make_room(&mut self, len: usize) {
        if self.0.capacity() < len {
            self.0 = BytesMut::with_capacity(SLAB_BYTES.max(len));
        }
    }

    pub(super) fn capacity_bytes(&self) -> usize {
        self.0.capacity()
    }
}

impl Engine {
    /// Which engine a datagram belongs to, by the CID of its first packet.
    ///
    /// A first Initial bears a CID of the client's choice, so it stays where the NIC put it. Counts
    /// hand-overs and drops.
    pub fn owner_of(&mut self, datagram: &[u8]) -> Owner {
        let owner = self.route(datagram);
        match owner {
            Owner::Here => {}
            Owner::Worker(_) => self.stats.handovers += 1,
            Owner::Drop(reason) => {
                self.stats.datagrams_in += 1;
                self.stats.bytes_in += datagram.len() as u64;
                self.stats.drop(reason);
            }
        }
        owner
    }

    /// Whether a datagram's CID names this engine, for one of a batch that another worker handed over. Counts nothing.
    ///
    /// Others of that batch may be anybody's (a first Initial, say): those stayed with the worker that received it.
    pub fn owns(&self, datagram: &[u8]) -> bool {
        match Header::parse(datagram) {
            Header::Malformed | Header::UnknownVersion { .. } => false,
            Header::Initial { dcid }
            | Header::ZeroRtt { dcid }
            | Header::Other { dcid }
            | Header::Short { dcid } => self.codec.decode(dcid) == Some(self.worker),
        }
    }

    fn route(&self, datagram: &[u8]) -> Owner {
        let (dcid, otherwise) = match Header::parse(datagram) {
            Header::Malformed => return Owner::Drop(DropReason::Malformed),
            Header::UnknownVersion { .. } => return Owner::Here,
            Header::Initial { dcid } | Header::ZeroRtt { dcid } => (dcid, Owner::Here),
            Header::Other { dcid } => (dcid, Owner::Drop(DropReason::LongUnknown)),
            // It may be a stateless reset for us: those bear random bytes where the CID is.
            Header::Short { dcid } if datagram.len() >= MIN_RESET_DATAGRAM_BYTES => (dcid, Owner::Here),
            Header::Short { dcid } => (dcid, Owner::Drop(DropReason::CidUnknown)),
        };
        match self.codec.decode(dcid) {
            Some(worker) if worker == self.worker => Owner::Here,
            Some(worker) => Owner::Worker(worker),
            None => otherwise,
        }
    }

    /// Takes one datagram, as a burst of one.
    pub fn receive(&mut self, now: Instant, path: Path, ecn: Option<EcnCodepoint>, datagram: &[u8]) {
        self.receive_burst(now, &[Inbound { path, ecn, bytes: datagram }]);
    }

    /// Takes a burst of datagrams, and opens together what can be opened. Nothing happens to
    /// connections until `run`.
    pub fn receive_burst(&mut self, now: Instant, burst: &[Inbound<'_>]) {
        self.now = Some(now);
        let datagrams = burst.iter().map(|inbound| inbound.bytes);
        match self.batched {
            true if self.extra_copy => self.open_copies(datagrams),
            true => {
                let opened_count = self.ahead.open(datagrams, &self.mirror, &mut self.guard, &mut self.slab);
                self.count_opened(opened_count);
            }
            false => self.ahead.opened.clear(),
        }
        if self.dropped.is_some() {
            return self.receive_watched(now, burst);
        }
        for (at, inbound) in burst.iter().enumerate() {
            let ahead = self.ahead.opened.get_mut(at).and_then(Option::take);
            self.receive_one(now, *inbound, ahead);
        }
    }

    /// Opens a burst from a copy of it: what [`EngineConfig::extra_copy`](crate::EngineConfig::extra_copy) measures.
    fn open_copies<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
        let mut staging = std::mem::take(&mut self.staging);
        staging.clear();
        let lengths: Vec<usize> = datagrams
            .map(|datagram| {
                staging.extend_from_slice(datagram);
                datagram.len()
            })
            .collect();
        let mut rest = staging.as_slice();
        let copies = lengths.into_iter().map(|length| {
            let (copy, behind) = rest.split_at(length);
            rest = behind;
            copy
        });
        let opened_count = self.ahead.open(copies, &self.mirror, &mut self.guard, &mut self.slab);
        self.count_opened(opened_count);
        self.staging = staging;
    }

    /// Notes which datagrams of each burst are dropped, for [`take_dropped`](Self::take_dropped), or doesn't any longer.
    pub fn watch_dropped(&mut self, watch: bool) {
        self.dropped = watch.then(Vec::new);
    }

    /// What of the last burst was dropped: its index there, and why. What waits for its handshake isn't among it.
    pub fn take_dropped(&mut self) -> Vec<(usize, DropReason)> {
        self.dropped.as_mut().map_or_else(Vec::new, std::mem::take)
    }

    /// The rest of [`receive_burst`](Self::receive_burst), looking at what each datagram does to the counters.
    fn receive_watched(&mut self, now: Instant, burst: &[Inbound<'_>]) {
        let mut dropped = Vec::new();
        for (at, inbound) in burst.iter().enumerate() {
            let ahead = self.ahead.opened.get_mut(at).and_then(Option::take);
            let before = self.stats.drops;
            self.receive_one(now, *inbound, ahead);
            let counted = DropReason::ALL.into_iter().find(|&r| self.stats.dropped(r) > before[r as usize]);
            dropped.extend(counted.map(|reason| (at, reason)));
        }
        self.dropped = Some(dropped);
    }

    fn receive_one(&mut self, now: Instant, inbound: Inbound<'_>, ahead: Option<Ahead>) {
        let Inbound { path, bytes: datagram, .. } = inbound;
        self.stats.datagrams_in += 1;
        self.stats.bytes_in += datagram.len() as u64;
        let header = Header::parse(datagram);
        if let Some(reason) = self.unwanted(header, datagram.len()) {
            self.stats.drop(reason);
            return;
        }
        let (data, opened) = match ahead {
            Some(Ahead { buffer, verdict, index }) => (buffer, Some((verdict, index))),
            None => (self.slab.copy(datagram), None),
        };
        self.out.clear();
        let index = opened.map(|(_, index)| index);
        let Handled { tier, event, buffered } =
            self.tiers.handle(now, &inbound, header, index, data, &mut self.out);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                self.arrive(now, path, datagram, handle, event, opened);
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.meet(now, inbound, incoming, tier, header.dcid());
            }
            Some(DatagramEvent::Response(_)) => self.respond(header, path, datagram.len()),
            None if buffered => {
                self.stats.initials_buffered += 1;
                self.budget.credit(now, &path, datagram.len());
            }
            None => {
                let reason = self.why_silent(header, datagram.len());
                self.stats.drop(reason);
            }
        }
    }

    /// What must not reach quinn, either because it would answer or because it would be misled.
    fn unwanted(&self, header: Header<'_>, datagram_bytes: usize) -> Option<DropReason> {
        match header {
            Header::Malformed => Some(DropReason::Malformed),
            // quinn finds the connection, or asks the CID generator, which knows only this worker's.
            Header::Short { .. } => None,
            Header::UnknownVersion { .. } if !self.is_server => Some(DropReason::VersionNoServer),
            Header::UnknownVersion { .. } if datagram_bytes < MIN_INITIAL_DATAGRAM_BYTES => {
                Some(DropReason::VersionTooShort)
            }
            Header::UnknownVersion { .. } => None,
            Header::Initial { dcid } => match self.codec.decode(dcid) {
                Some(worker) => (worker != self.worker).then_some(DropReason::OtherWorker),
                None if !self.is_server => Some(DropReason::NoServer),
                None if datagram_bytes < MIN_INITIAL_DATAGRAM_BYTES => Some(DropReason::InitialTooShort),
                None if dcid.len() < MIN_INITIAL_DCID_BYTES => Some(DropReason::InitialShortCid),
                None => None,
            },
            Header::ZeroRtt { dcid } | Header::Other { dcid } => match self.codec.decode(dcid) {
                Some(worker) => (worker != self.worker).then_some(DropReason::OtherWorker),
                None if matches!(header, Header::ZeroRtt { .. }) && self.is_server => None,
                None => Some(DropReason::LongUnknown),
            },
        }
    }

    /// Why quinn had nothing to do with a datagram.
    fn why_silent(&self, header: Header<'_>, datagram_bytes: usize) -> DropReason {
        match header {
            Header::Malformed | Header::UnknownVersion { .. } => DropReason::Malformed,
            Header::Initial { .. } if !self.is_server => DropReason::NoServer,
            Header::Initial { .. } if datagram_bytes < MIN_INITIAL_DATAGRAM_BYTES => {
                DropReason::InitialTooShort
            }
            Header::Initial { .. } => DropReason::InitialInvalid,
            Header::ZeroRtt { .. } | Header::Other { .. } => DropReason::LongUnknown,
            Header::Short { dcid } => match self.codec.decode(dcid) {
                None => DropReason::CidUnknown,
                Some(worker) if worker == self.worker => DropReason::ResetSuppressed,
                Some(_) => DropReason::OtherWorker,
            },
        }
    }

    /// A datagram for a connection: remembered for `run`.
    fn arrive(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        handle: ConnectionHandle,
        event: ConnectionEvent,
        opened: Option<(Verdict, u32)>,
    ) {
        if opened.is_some_and(|(_, index)| index as usize != handle.0) {
            // A CID that has changed hands: its old owner's keys have made nonsense of the packet.
            self.stats.drop(DropReason::Misdirected);
            return;
        }
        let Some(conn) = conn_at(&mut self.slots, handle.0 as u32) else {
            self.stats.drop(DropReason::ConnectionGone);
            return;
        };
        let proven = conn.validated == Some(path.remote);
        if !proven && conn.quic.side() == Side::Server {
            self.budget.credit(now, &path, datagram.len());
        }
        let handshake_only = !proven && conn.phase == Phase::Handshake && is_handshake_only(datagram);
        self.stats.datagrams_routed += 1;
        self.order.push((handle.0 as u32, self.burst.len() as u32));
        let verdict = opened.map(|(verdict, _)| verdict);
        let learns = verdict.is_none() && self.batched;
        self.burst.push(Arrival {
            unproven: (!proven).then_some(path),
            handshake_only,
            event: Some(event),
            verdict,
            short_cid: if learns { short_cid(datagram).copied() } else { None },
        });
    }

    /// A first Initial: refused, sent back for a token, or queued for its handshake.
    fn meet(&mut self, now: Instant, inbound: Inbound<'_>, incoming: Incoming, tier: Tier, dcid: &[u8]) {
        let (path, datagram_bytes) = (inbound.path, inbound.bytes.len());
        let validated = incoming.remote_address_validated();
        self.out.clear();
        if self.draining || self.connections() + self.incoming.len() >= self.config.connections_max {
            let _ = self.tiers.of(tier).refuse(incoming, &mut self.out);
            if self.answer(path, datagram_bytes) {
                self.stats.refused += 1;
            }
        } else if self.room == Some(0) {
            let _ = self.tiers.of(tier).refuse(incoming, &mut self.out);
            if self.answer(path, datagram_bytes) {
                self.stats.refused_memory += 1;
            }
        } else if !validated && self.retry.active() && incoming.may_retry() {
            // It cannot fail: `may_retry` was asked.
            if self.tiers.of(tier).retry(incoming, &mut self.out).is_ok() && self.answer(path, datagram_bytes)
            {
                self.stats.retries_sent += 1;
            }
        } else if self.incoming_is_full(validated) || !self.tiers.wait(now, tier, dcid) {
            self.tiers.of(tier).ignore(incoming);
            self.stats.drop(DropReason::InitialQueueFull);
        } else {
            self.stats.initials_queued += 1;
            if let Some(room) = &mut self.room {
                *room -= 1;
            }
            self.incoming_unvalidated += usize::from(!validated);
            self.incoming.push_back(Waiting { incoming, tier, path, datagram_bytes });
            self.update_retry();
        }
    }

    /// Whether no further first Initial is taken. Strangers have places of their own, so that a flood of them keeps nobody
    /// out who has shown his address before; and nobody gets a token for an address that isn't his.
    fn incoming_is_full(&self, validated: bool) -> bool {
        if validated {
            self.incoming.len() - self.incoming_unvalidated >= self.config.incoming_proven_max
        } else {
            self.incoming_unvalidated >= self.config.incoming_queue_max
        }
    }

    /// quinn answered without a connection; the answer lies in `out`.
    fn respond(&mut self, header: Header<'_>, path: Path, datagram_bytes: usize) {
        if !self.is_server && !matches!(header, Header::Short { .. }) {
            // A client-only endpoint of quinn's answers an Initial by a stateless reset.
            self.stats.drop(DropReason::NoServer);
        } else if self.answer(path, datagram_bytes) {
            match header {
                Header::Short { .. } => self.stats.stateless_resets_sent += 1,
                Header::UnknownVersion { .. } => self.stats.version_negotiations_sent += 1,
                _ => self.stats.stateless_closes_sent += 1,
            }
        }
    }

    /// Queues what lies in `out` as the answer to a datagram, within three times its size.
    fn answer(&mut self, path: Path, datagram_bytes: usize) -> bool {
        let dropped = if self.out.len() as u64 > AMPLIFICATION_FACTOR * datagram_bytes as u64 {
            DropReason::AnswerTooLarge
        } else if self.answers.len() >= ANSWER_QUEUE_MAX {
            DropReason::AnswerQueueFull
        } else {
            self.answers.push_back((path, self.out.as_slice().into()));
            return true;
        };
        self.stats.drop(dropped);
        false
    }

    /// Ends a burst: connections handle what came for them, then timers, then new handshakes.
    pub fn run(&mut self, now: Instant) {
        self.now = Some(now);
        self.handle_burst(now);
        self.expire_timers(now);
        self.tidy_in_time(now);
        self.fold_in_time(now);
        self.begin_handshakes(now);
        let lost = self.budget.expire(now);
        self.stats.drop_many(DropReason::AmplificationExpired, lost);
        self.update_retry();
        if self.batched && self.guard.is_stopped() && !std::mem::replace(&mut self.alerted, true) {
            tracing::error!(
                "ring and the SIMD path differed on a packet: ring does all the work from now on; run `beam doctor simd`"
            );
        }
    }

    /// Connection by connection, each one's datagrams in their order: its state is loaded once.
    fn handle_burst(&mut self, now: Instant) {
        let mut order = std::mem::take(&mut self.order);
        let mut burst = std::mem::take(&mut self.burst);
        order.sort_unstable();
        let mut keys = std::mem::take(&mut self.ahead.keys);
        // Verdicts are collected even if batching was given up since they were made.
        let reading = (self.batched || !keys.is_empty()).then(|| Reading::enter(&mut keys));
        for of_one in order.chunk_by(|a, b| a.0 == b.0) {
            for &(index, at) in of_one {
                self.handle_arrival(index, &mut burst[at as usize], reading.as_ref());
            }
            self.note_heard(of_one[0].0);
            self.settle(now, of_one[0].0);
        }
        drop(reading);
        keys.clear();
        self.ahead.keys = keys;
        order.clear();
        burst.clear();
        (self.order, self.burst) = (order, burst);
    }

    fn handle_arrival(&mut self, index: u32, arrival: &mut Arrival, reading: Option<&Reading<'_>>) {
        let Some(event) = arrival.event.take() else { return };
        let Some(conn) = conn_at(&mut self.slots, index) else { return };
        touch(index, conn, &mut self.touched);
        let handle = |conn: &mut Conn| match reading {
            None => conn.quic.handle_event(event),
            Some(reading) => {
                let shown = reading.one(arrival.verdict, || conn.quic.handle_event(event));
                self.stats.packets_restored += u64::from(shown.restored);
                self.mirror.learn(index, arrival.short_cid.as_ref(), shown);
            }
        };
        let Some(path) = arrival.unproven else {
            handle(conn);
            return;
        };
        // The handshake is under way; or the peer has moved, or someone forges its address.
        if path.remote != conn.path.remote {
            conn.other_path = Some(Box::new(path));
        }
        let before = conn.quic.stats().frame_rx;
        handle(conn);
        let after = conn.quic.stats().frame_rx;
        if conn.quic.side() == Side::Client || conn.quic.remote_address() != path.remote {
            return;
        }
        // quinn knows when an address has proved itself, and doesn't say so. What it goes by follows.
        // The strict limit costs a moved peer little: quinn pads its path challenge to 1200 bytes
        // whatever the limit says, so 400 bytes must come from the new address first, but of 44,161
        // simulated flows over rebinding NATs 108 failed with it and 104 without. (Making a silent
        // client probe the MTU anew, for the probe's size, was tried: 196.)
        let proven = match conn.phase {
            // An authentic Handshake packet (RFC 9000 8.1).
            Phase::Handshake => arrival.handshake_only && frame_count(&after) > frame_count(&before),
            // The PATH_RESPONSE to its challenge, from the new address. That the token was right
            // isn't seen here: an authenticated peer could lie with a wrong one, and then meets
            // quinn's own limit, which is the same but for one datagram.
            Phase::Established => after.path_response > before.path_response,
            Phase::Closed => false,
        };
        if proven {
            conn.validated = Some(path.remote);
            if conn.phase == Phase::Established {
                self.stats.paths_validated += 1;
            }
            if std::mem::take(&mut conn.unvalidated_handshake) {
                self.stats.unvalidated_handshakes -= 1;
            }
            self.release_all(path);
        }
    }

    /// Begins the handshakes that have waited longest, as many as the budget allows.
    fn begin_handshakes(&mut self, now: Instant) {
        for _ in 0..self.config.handshakes_per_run {
            let Some(waiting) = self.incoming.pop_front() else { break };
            self.begin_handshake(now, waiting);
        }
    }

    fn begin_handshake(&mut self, now: Instant, waiting: Waiting) {
        let Waiting { incoming, tier, path, datagram_bytes } = waiting;
        let validated = incoming.remote_address_validated();
        self.incoming_unvalidated -= usize::from(!validated);
        self.out.clear();
        let logged = self.logged_server(&incoming);
        match self.tiers.accept(tier, incoming, now, &mut self.out, logged) {
            Ok((handle, quic)) => {
                if !validated {
                    self.budget.credit(now, &path, datagram_bytes);
                }
                let id = self.insert(handle, quic, path, validated);
                self.handshakes.push_back((now + self.config.handshake_timeout, id));
                self.settle(now, id.index);
            }
            Err(AcceptError { response: Some(_), .. }) => {
                if self.answer(path, datagram_bytes) {
                    self.stats.stateless_closes_sent += 1;
                }
            }
            Err(AcceptError { cause: ConnectionError::TransportError(_), .. }) => {
                self.stats.drop(DropReason::InitialUnauthenticated);
            }
            Err(_) => self.stats.drop(DropReason::InitialInvalid),
        }
    }
}

/// Frames that a Handshake packet can hold; quinn counts them once the packet has authenticated.
fn frame_count(frames: &FrameStats) -> u64 {
    frames.acks + frames.crypto + frames.ping + frames.connection_close
}
