//! A worker's UDP flows, at the gateway and at the client: the table, the queue of those that have something to do, and
//! the local sockets of a client.
//!
//! ```text
//!  gateway:  stream ─ DatagramStream ─ UdpFlow ─ connected socket, one a flow ─► upstream
//!  client:   stream ─ DatagramStream ─ UdpFlow ─ a socket for many flows ─► one local address each
//! ```
//! Flows never wait for a slow side: every queue is bounded, and the oldest datagram makes room, counted.

mod flow;
mod queue;

pub(super) use flow::{Asked, Gone, Outside, Phase, UdpFlow};

use self::flow::Tools;
use super::{
    core::Core,
    datagrams::Drops,
    fair::Fair,
    ledger::Ledger,
    poll::{FlowKey, Ready},
};
use bytes::Bytes;
use slab::Slab;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::{ConnId, StreamId};
use udp::{DatagramSocket, Scratch};

/// A flow without a datagram for so long is closed: "SHOULD NOT use a period lower than two minutes" (RFC 9298 section
/// 3.1).
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The same while the daemon drains.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// Counters of UDP flows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) opened: u64,
    /// Ended by the peer, in order.
    pub(super) finished: u64,
    pub(super) idle: u64,
    /// Ended because an ICMP error said that nobody is there.
    pub(super) unreachable: u64,
    /// Reset by the peer, or ended with its connection.
    pub(super) reset: u64,
    pub(super) protocol_error: u64,
    /// Closed to make room for another one.
    pub(super) evicted: u64,
    /// The gateway said no.
    pub(super) refused: u64,
    pub(super) datagrams_to_sockets: u64,
    pub(super) datagrams_from_sockets: u64,
    pub(super) bytes_to_sockets: u64,
    pub(super) bytes_from_sockets: u64,
    /// ICMP errors that ended nothing.
    pub(super) icmp_ignored: u64,
    /// ICMP errors passed on to local clients.
    pub(super) icmp_sent: u64,
    /// Dropped: a socket's buffer or the queue in front of it was full.
    pub(super) socket_full: u64,
    /// Dropped: longer than the MTU on the way; the "don't fragment" bit is set.
    pub(super) too_big: u64,
    /// Dropped: the kernel did not send it.
    pub(super) send_failed: u64,
    /// Dropped: waited too long for its flow, or the flow came to nothing.
    pub(super) not_opened: u64,
    /// Dropped: its client is over its rate.
    pub(super) over_rate: u64,
}

impl Totals {
    pub(super) fn counters(&self) -> [(&'static str, u64); 14] {
        [
            ("udp_flows_opened", self.opened),
            ("udp_flows_finished", self.finished),
            ("udp_flows_idle", self.idle),
            ("udp_flows_unreachable", self.unreachable),
            ("udp_flows_reset", self.reset),
            ("udp_flows_protocol_error", self.protocol_error),
            ("udp_flows_evicted", self.evicted),
            ("udp_flows_refused", self.refused),
            ("udp_datagrams_to_sockets", self.datagrams_to_sockets),
            ("udp_datagrams_from_sockets", self.datagrams_from_sockets),
            ("udp_bytes_to_sockets", self.bytes_to_sockets),
            ("udp_bytes_from_sockets", self.bytes_from_sockets),
            ("udp_icmp_ignored", self.icmp_ignored),
            ("udp_icmp_sent", self.icmp_sent),
        ]
    }

    pub(super) fn drops(&self) -> [(&'static str, u64); 5] {
        [
            ("udp_socket_full", self.socket_full),
            ("udp_too_big_for_path", self.too_big),
            ("udp_send_failed", self.send_failed),
            ("udp_flow_not_opened", self.not_opened),
            ("udp_over_rate", self.over_rate),
        ]
    }
}

/// See the module.
pub(super) struct Udp {
    table: Slab<UdpFlow>,
    next_generation: u32,
    ready: Fair,
    /// Flows whose datagrams wait for room in QUIC's buffer.
    blocked: Vec<FlowKey>,
    /// Local sockets of a client, by the index in their epoll token.
    pub(super) locals: Slab<Arc<DatagramSocket>>,
    scratch: Option<Box<Scratch>>,
    /// Where datagrams of one size are put one behind the other, for the kernel to cut.
    run: Vec<u8>,
    pub(super) totals: Totals,
    pub(super) idle_timeout: Duration,
    /// When idle flows are looked for next, while there are flows.
    sweep: Option<Instant>,
}

impl Default for Udp {
    fn default() -> Self {
        Self {
            table: Slab::new(),
            next_generation: 0,
            ready: Fair::default(),
            blocked: Vec::new(),
            locals: Slab::new(),
            scratch: None,
            run: Vec::new(),
            totals: Totals::default(),
            idle_timeout: IDLE_TIMEOUT,
            sweep: None,
        }
    }
}

impl Udp {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Adds a flow, which has just had a datagram.
    pub(super) fn insert(&mut self, outside: Outside, phase: Phase, now: Instant) -> FlowKey {
        self.next_generation = FlowKey::next_generation(self.next_generation);
        let generation = self.next_generation;
        self.sweep.get_or_insert(now + self.sweep_interval());
        let flow = UdpFlow::new(outside, phase, now, generation);
        FlowKey { index: self.table.insert(flow) as u32, generation }
    }

    pub(super) fn get_mut(&mut self, key: FlowKey) -> Option<&mut UdpFlow> {
        self.table.get_mut(key.index as usize).filter(|flow| flow.generation == key.generation)
    }

    /// Takes the flow out; what it had for a socket that takes no more is lost.
    pub(super) fn remove(&mut self, key: FlowKey) -> Option<UdpFlow> {
        self.get_mut(key)?;
        let flow = self.table.remove(key.index as usize);
        self.totals.socket_full += flow.unsent_count() as u64;
        self.totals.not_opened += flow.held_count() as u64;
        Some(flow)
    }

    /// Notes an epoll report and queues the flow.
    pub(super) fn note_ready(&mut self, key: FlowKey, ready: Ready) {
        if let Some(flow) = self.get_mut(key) {
            flow.note_ready(ready);
            self.queue(key);
        }
    }

    /// Queues a flow for its next step; once is enough.
    pub(super) fn queue(&mut self, key: FlowKey) {
        if let Some(flow) = self.get_mut(key)
            && !std::mem::replace(&mut flow.queued, true)
        {
            let owner = flow.owner;
            self.ready.push(owner, key);
        }
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

    /// A QUIC DATAGRAM frame for a flow.
    pub(super) fn receive_frame(
        &mut self,
        key: FlowKey,
        payload: Bytes,
        now: Instant,
        drops: &mut Drops,
        ledger: &mut Ledger,
    ) {
        let Some(flow) =
            self.table.get_mut(key.index as usize).filter(|flow| flow.generation == key.generation)
        else {
            drops.unknown_flow += 1;
            return;
        };
        flow.receive_frame(payload, now, &mut self.totals, drops, ledger);
        self.queue(key);
    }

    /// QUIC's datagram buffer of a connection has room again.
    pub(super) fn unblocked(&mut self, conn: ConnId) {
        for key in std::mem::take(&mut self.blocked) {
            match self.get_mut(key) {
                Some(flow) if flow.on.is_some_and(|(of, _)| of == conn) => {
                    flow.blocked = false;
                    self.queue(key);
                }
                Some(_) => self.blocked.push(key),
                None => {}
            }
        }
    }

    /// The flows at the places from `from` on, of `max` places; and where the next part begins.
    pub(super) fn slice(&self, from: usize, max: usize) -> (impl Iterator<Item = &UdpFlow>, Option<usize>) {
        let end = from.saturating_add(max).min(self.table.capacity());
        let next = (end < self.table.capacity()).then_some(end);
        ((from..end).filter_map(|index| self.table.get(index)), next)
    }

    /// The flows on one connection, for its end.
    pub(super) fn keys_on(&self, conn: ConnId) -> Vec<FlowKey> {
        self.keys(|flow| flow.on.is_some_and(|(of, _)| of == conn))
    }

    /// The flows that are so. Walks the table.
    pub(super) fn keys(&self, which: impl Fn(&UdpFlow) -> bool) -> Vec<FlowKey> {
        let found = self.table.iter().filter(|(_, flow)| which(flow));
        found.map(|(index, flow)| FlowKey { index: index as u32, generation: flow.generation }).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.sweep
    }

    /// The daemon goes away: flows that fall silent end soon.
    pub(super) fn drain(&mut self, now: Instant) {
        self.idle_timeout = self.idle_timeout.min(DRAIN_IDLE);
        self.sweep = (!self.table.is_empty()).then(|| now + self.sweep_interval());
    }

    /// The receive buffers, for a caller who gives them [back](Self::put_scratch).
    pub(super) fn take_scratch(&mut self) -> Box<Scratch> {
        self.scratch.take().unwrap_or_default()
    }

    pub(super) fn put_scratch(&mut self, scratch: Box<Scratch>) {
        self.scratch = Some(scratch);
    }

    /// Flows without a datagram for the idle timeout. Looked for four times in that time, not by a timer for each: a
    /// flow lives up to a quarter longer.
    pub(super) fn idle(&mut self, now: Instant) -> Vec<FlowKey> {
        if self.sweep.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.sweep = (!self.table.is_empty()).then(|| now + self.sweep_interval());
        self.keys(|flow| now.saturating_duration_since(flow.last_active) >= self.idle_timeout)
    }

    fn sweep_interval(&self) -> Duration {
        (self.idle_timeout / 4).max(Duration::from_millis(100))
    }

    /// The flow that has been without a datagram the longest. Walks the table: for one that is full.
    pub(super) fn longest_idle(&self) -> Option<FlowKey> {
        let (index, flow) = self.table.iter().min_by_key(|(_, flow)| flow.last_active)?;
        Some(FlowKey { index: index as u32, generation: flow.generation })
    }
}

impl Core {
    /// Moves an open flow's datagrams both ways. Says how, if the flow has ended; it is then for the caller to
    /// [end](Self::end_udp).
    pub(super) fn pump_udp(&mut self, key: FlowKey) -> Option<Gone> {
        let Udp { table, locals, scratch, run, totals, blocked, .. } = &mut self.udp;
        let flow = table.get_mut(key.index as usize).filter(|flow| flow.generation == key.generation)?;
        let quic = self.engine.connection(flow.on?.0)?;
        let scratch = scratch.get_or_insert_default();
        let (arena, drops, ledger) = (&mut self.arena, &mut self.datagrams, &mut self.ledger);
        let mut tools = Tools { quic, arena, scratch, run, locals, totals, drops, ledger, now: self.now };
        let outcome = flow.pump(&mut tools);
        if flow.is_waiting() && !std::mem::replace(&mut flow.blocked, true) {
            blocked.push(key);
        }
        match outcome {
            Ok(more) => {
                if more {
                    self.udp.queue(key);
                }
                None
            }
            Err(gone) => Some(gone),
        }
    }

    /// A payload of a flow's local end. False if there is no such flow any more.
    pub(super) fn send_from_local(&mut self, key: FlowKey, payload: &[u8]) -> bool {
        let Udp { table, totals, blocked, .. } = &mut self.udp;
        let flow = table.get_mut(key.index as usize).filter(|flow| flow.generation == key.generation);
        let Some(flow) = flow else { return false };
        let quic = flow.on.and_then(|(conn, _)| self.engine.connection(conn));
        flow.send_from_local(payload, quic, &mut self.arena, totals, &mut self.datagrams, self.now);
        if flow.is_waiting() && !std::mem::replace(&mut flow.blocked, true) {
            blocked.push(key);
        }
        true
    }

    /// A QUIC DATAGRAM frame for a flow.
    pub(super) fn receive_udp_frame(&mut self, key: FlowKey, payload: Bytes) {
        self.udp.receive_frame(key, payload, self.now, &mut self.datagrams, &mut self.ledger);
    }

    /// Ends a flow: tells the peer in the words that fit, counts, and closes its socket. The caller forgets the stream.
    pub(super) fn end_udp(&mut self, key: FlowKey, gone: &Gone) -> Option<UdpFlow> {
        let flow = self.udp.remove(key)?;
        gone.count(&mut self.udp.totals);
        if let Some((conn, stream)) = flow.on
            && let Some(mut quic) = self.engine.connection(conn)
        {
            gone.tell(&mut quic, stream);
        }
        Some(flow)
    }
}

/// Where a flow's stream is.
pub(super) type On = (ConnId, StreamId);
