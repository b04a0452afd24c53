//! One UDP flow: datagrams between a request stream and a socket.

use super::{
    On, Totals,
    queue::{Bounds, Queue},
};
use crate::worker::{
    account::Way,
    arena::Arena,
    datagrams::{DatagramStream, Drops, Next},
    flow::Broken,
    ledger::{FlowPermit, Ledger, Owner},
    poll::Ready,
    session::{abandon, quic_code},
};
use bytes::Bytes;
use masque::{CONTEXT_PAYLOAD, Capsule, Code, ResponseReader, udp_payload};
use rustix::io::Errno;
use slab::Slab;
use std::{io, net::SocketAddr, sync::Arc, time::Instant};
use tunnel::{ConnMut, StreamId};
use udp::{DatagramSocket, Ends, Scratch, Sent, Trouble};

/// Datagrams waiting for a socket: more than one turn brings.
const OUT_MAX: Bounds = Bounds { count: 1024, bytes: 1536 * 1024 };
/// Datagrams waiting for the gateway's answer.
const HELD_MAX: Bounds = Bounds { count: 256, bytes: 256 * 1024 };
/// Datagrams moved in each direction before other flows get their turn: a receive batch with GRO, or eight without.
const QUOTA: usize = 512;
/// ICMP errors read in one go.
const TROUBLES_MAX: usize = 16;

/// A flow's other end.
pub(in crate::worker) enum Outside {
    /// Gateway: the upstream.
    Upstream { socket: DatagramSocket, remote: SocketAddr },
    /// Client: an address that talks to one of our local sockets, by its index; `header` goes in front of each payload (SOCKS5).
    Local { socket: u32, ends: Ends, header: Bytes },
}

/// The life of a flow.
pub(in crate::worker) enum Phase {
    /// Client: waits for the tunnel, its settings, or stream credit.
    Waiting,
    /// Client: the request is on its way and the answer outstanding.
    Asked(Box<Asked>),
    /// Datagrams flow.
    Open(Box<DatagramStream>),
}

/// A request without its answer.
pub(in crate::worker) struct Asked {
    pub(in crate::worker) reader: ResponseReader,
    /// What isn't written of the request.
    pub(in crate::worker) unsent: Bytes,
}

/// How a flow ended, and so what its peer and its other end are told.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) enum Gone {
    /// The peer finished the stream.
    Finished,
    /// No datagram for too long.
    Idle,
    /// Another flow needed the place.
    Evicted,
    /// An ICMP error: nobody is there.
    Unreachable,
    /// The stream ended early.
    Broken(Broken),
    /// The gateway's answer was no.
    Refused,
    /// The connection is gone.
    Lost,
}

/// What a pump works with.
pub(super) struct Tools<'a> {
    pub(super) quic: ConnMut<'a>,
    pub(super) arena: &'a mut Arena,
    pub(super) scratch: &'a mut Scratch,
    pub(super) run: &'a mut Vec<u8>,
    pub(super) locals: &'a Slab<Arc<DatagramSocket>>,
    pub(super) totals: &'a mut Totals,
    pub(super) drops: &'a mut Drops,
    pub(super) ledger: &'a mut Ledger,
    pub(super) now: Instant,
}

/// See the module.
pub(in crate::worker) struct UdpFlow {
    pub(in crate::worker) on: Option<On>,
    pub(in crate::worker) phase: Phase,
    pub(in crate::worker) outside: Outside,
    /// Gateway: whose flow it is, and its place among that client's.
    pub(in crate::worker) owner: Owner,
    pub(in crate::worker) permit: Option<FlowPermit>,
    /// The destination as it was asked for; for people.
    pub(in crate::worker) to: Box<str>,
    /// For the socket.
    out: Queue,
    /// For the peer, until it has answered.
    held: Queue,
    readable: bool,
    writable: bool,
    failed: bool,
    /// The upstream has sent something: an "unreachable" is then for the network to mend.
    heard_outside: bool,
    /// Payload from the tunnel to the other end, and the other way.
    pub(in crate::worker) to_outside_bytes: u64,
    pub(in crate::worker) from_outside_bytes: u64,
    pub(in crate::worker) since: Instant,
    pub(super) last_active: Instant,
    pub(super) generation: u32,
    pub(super) queued: bool,
    pub(super) blocked: bool,
}

impl Gone {
    pub(super) fn count(&self, totals: &mut Totals) {
        match self {
            Self::Finished => totals.finished += 1,
            Self::Idle => totals.idle += 1,
            Self::Evicted => totals.evicted += 1,
            Self::Unreachable => totals.unreachable += 1,
            Self::Refused => totals.refused += 1,
            Self::Broken(Broken::Protocol { .. }) => totals.protocol_error += 1,
            Self::Broken(Broken::Reset(code)) if is_unreachable(*code) => totals.unreachable += 1,
            Self::Broken(_) | Self::Lost => totals.reset += 1,
        }
    }

    /// "The UDP proxy MUST close the request stream" (RFC 9298 section 3.1): in order where nothing went wrong, else with
    /// the code that CONNECT has for a broken connection (RFC 9114 section 4.4), from which our client knows.
    pub(super) fn tell(&self, quic: &mut ConnMut<'_>, stream: StreamId) {
        match *self {
            Self::Finished | Self::Idle | Self::Evicted => {
                quic.finish(stream);
                quic.stop(stream, quic_code(Code::H3_NO_ERROR));
            }
            Self::Unreachable => abandon(quic, stream, Code::H3_CONNECT_ERROR),
            Self::Broken(Broken::Protocol { code, connection: false }) => abandon(quic, stream, code),
            Self::Broken(Broken::Protocol { code, connection: true }) => quic.close(quic_code(code), b""),
            Self::Broken(_) | Self::Refused | Self::Lost => abandon(quic, stream, Code::H3_REQUEST_CANCELLED),
        }
    }

    /// The far end said that nobody is there.
    pub(in crate::worker) fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable => true,
            Self::Broken(Broken::Reset(code)) => is_unreachable(*code),
            _ => false,
        }
    }
}

fn is_unreachable(code: tunnel::VarInt) -> bool {
    code == quic_code(Code::H3_CONNECT_ERROR)
}

impl UdpFlow {
    pub(super) fn new(outside: Outside, phase: Phase, now: Instant, generation: u32) -> Self {
        Self {
            on: None,
            phase,
            outside,
            owner: Owner::NOBODY,
            permit: None,
            to: Box::default(),
            out: Queue::new(OUT_MAX),
            held: Queue::new(HELD_MAX),
            readable: false,
            writable: true,
            failed: false,
            heard_outside: false,
            to_outside_bytes: 0,
            from_outside_bytes: 0,
            since: now,
            last_active: now,
            generation,
            queued: false,
            blocked: false,
        }
    }

    pub(super) fn note_ready(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
        self.failed |= ready.failed;
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(&self.phase, Phase::Open(tunnel) if tunnel.is_waiting())
    }

    pub(super) fn unsent_count(&self) -> usize {
        self.out.items.len()
    }

    pub(super) fn held_count(&self) -> usize {
        self.held.items.len()
    }

    /// A QUIC DATAGRAM frame: what it carries waits for the next pump, of this turn.
    pub(super) fn receive_frame(
        &mut self,
        datagram: Bytes,
        now: Instant,
        totals: &mut Totals,
        drops: &mut Drops,
        ledger: &mut Ledger,
    ) {
        if let Phase::Open(tunnel) = &mut self.phase {
            tunnel.heard_frame();
        }
        self.last_active = now;
        match udp_payload(datagram) {
            Ok(Some(payload)) => self.put_out(payload, now, totals, ledger),
            // No frame is as long as the longest payload, so that the error can only be a missing context.
            Ok(None) | Err(_) => drops.unknown_context += 1,
        }
    }

    /// Queues a payload for the socket, unless its client is over its rate.
    fn put_out(&mut self, payload: Bytes, now: Instant, totals: &mut Totals, ledger: &mut Ledger) {
        if ledger.take(self.owner, Way::Sent, payload.len(), now) {
            totals.socket_full += self.out.push(payload);
        } else {
            totals.over_rate += 1;
        }
    }

    /// A payload of the local end: sent, or kept until the peer has answered.
    pub(super) fn send_from_local(
        &mut self,
        payload: &[u8],
        quic: Option<ConnMut<'_>>,
        arena: &mut Arena,
        totals: &mut Totals,
        drops: &mut Drops,
        now: Instant,
    ) {
        self.last_active = now;
        self.from_outside_bytes += payload.len() as u64;
        match (&mut self.phase, quic) {
            (Phase::Open(tunnel), Some(mut quic)) => {
                totals.note_from_socket(payload.len());
                tunnel.send(&mut quic, arena, CONTEXT_PAYLOAD, payload, drops);
            }
            _ => totals.not_opened += self.held.push(Bytes::copy_from_slice(payload)),
        }
    }

    /// Moves datagrams both ways until nothing moves or the quota is used up: then true.
    pub(super) fn pump(&mut self, tools: &mut Tools<'_>) -> Result<bool, Gone> {
        if let Phase::Open(tunnel) = &mut self.phase {
            tunnel.flush(&mut tools.quic, tools.drops);
            while let Some(payload) = self.held.pop() {
                tools.totals.note_from_socket(payload.len());
                tunnel.send(&mut tools.quic, tools.arena, CONTEXT_PAYLOAD, &payload, tools.drops);
            }
        }
        self.read_troubles(tools)?;
        let inward = self.read_stream(tools);
        // What came before the end goes out before it.
        self.write_outside(tools);
        let outward = self.read_upstream(tools);
        Ok(inward? | outward)
    }

    /// Capsules of the stream.
    fn read_stream(&mut self, tools: &mut Tools<'_>) -> Result<bool, Gone> {
        for _ in 0..QUOTA {
            let Phase::Open(tunnel) = &mut self.phase else { return Ok(false) };
            match tunnel.next(&mut tools.quic, tools.arena, tools.drops).map_err(Gone::Broken)? {
                Next::Capsule(Capsule::Datagram(datagram)) => {
                    self.last_active = tools.now;
                    match udp_payload(datagram) {
                        Ok(Some(payload)) => self.put_out(payload, tools.now, tools.totals, tools.ledger),
                        Ok(None) => tools.drops.unknown_context += 1,
                        Err(error) => {
                            let broken = Broken::Protocol { code: error.code(), connection: false };
                            return Err(Gone::Broken(broken));
                        }
                    }
                }
                // The set for UDP has no other.
                Next::Capsule(_) => {}
                Next::Blocked => return Ok(false),
                Next::End => return Err(Gone::Finished),
            }
        }
        Ok(true)
    }

    fn write_outside(&mut self, tools: &mut Tools<'_>) {
        let (socket, to, header) = match &self.outside {
            Outside::Upstream { socket, remote } => (Some(socket), Ends::from(*remote), &Bytes::new()),
            Outside::Local { socket, ends, header } => {
                (tools.locals.get(*socket as usize).map(|socket| &**socket), *ends, header)
            }
        };
        let Some(socket) = socket else { return };
        while self.writable
            && let Some(first) = self.out.items.front()
        {
            let size = header.len() + first.len();
            let count = self.out.run_len(socket.run_len_max(size));
            let sent = if count == 1 && header.is_empty() {
                socket.send(to, first, size)
            } else {
                tools.run.clear();
                for payload in self.out.items.iter().take(count) {
                    tools.run.extend_from_slice(header);
                    tools.run.extend_from_slice(payload);
                }
                socket.send(to, tools.run, size)
            };
            match sent {
                Sent::Taken => {
                    for payload in self.out.take(count) {
                        tools.totals.datagrams_to_sockets += 1;
                        tools.totals.bytes_to_sockets += payload.len() as u64;
                        self.to_outside_bytes += payload.len() as u64;
                    }
                }
                // An edge tells when a flow's own socket has room; a shared one is not waited for.
                Sent::Full if matches!(self.outside, Outside::Upstream { .. }) => {
                    self.writable = false;
                    self.out.copy_out();
                }
                Sent::Full => tools.totals.socket_full += self.out.take(count).count() as u64,
                // All of a run have one size, but the last may be shorter.
                Sent::TooBig => tools.totals.too_big += self.out.take((count - 1).max(1)).count() as u64,
                Sent::Failed(error) if count > 1 && is_about_segments(&error) => {}
                Sent::Failed(_) => {
                    // Most likely an ICMP error about an earlier one.
                    self.failed = true;
                    tools.totals.send_failed += self.out.take(count).count() as u64;
                }
            }
        }
    }

    /// True if the quota ended it.
    fn read_upstream(&mut self, tools: &mut Tools<'_>) -> bool {
        let (Outside::Upstream { socket, .. }, Phase::Open(tunnel)) = (&self.outside, &mut self.phase) else {
            return false;
        };
        let mut moved = 0;
        while self.readable && moved < QUOTA {
            let Tools { quic, arena, scratch, totals, drops, ledger, now, .. } = &mut *tools;
            let received = socket.receive(scratch, &mut |_, payload| {
                totals.note_from_socket(payload.len());
                if ledger.take(self.owner, Way::Received, payload.len(), *now) {
                    self.from_outside_bytes += payload.len() as u64;
                    tunnel.send(quic, arena, CONTEXT_PAYLOAD, payload, drops);
                } else {
                    totals.over_rate += 1;
                }
            });
            match received {
                Ok(received) => {
                    moved += received.datagrams;
                    self.readable = !received.drained;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => {
                    self.failed = true;
                    break;
                }
            }
        }
        if moved > 0 {
            self.heard_outside = true;
            self.last_active = tools.now;
        }
        (self.readable && moved >= QUOTA) || self.failed
    }

    /// ICMP errors. "Port unreachable" ends the flow, since nobody is there; "host unreachable" and the like do only while
    /// nothing came from there, since RFC 1122 section 3.2.2.1 has them as hints that may pass.
    fn read_troubles(&mut self, tools: &mut Tools<'_>) -> Result<(), Gone> {
        let Outside::Upstream { socket, .. } = &self.outside else { return Ok(()) };
        if !std::mem::take(&mut self.failed) {
            return Ok(());
        }
        socket.clear_error();
        for _ in 0..TROUBLES_MAX {
            match socket.next_trouble() {
                None => return Ok(()),
                Some(Trouble::Refused) => return Err(Gone::Unreachable),
                Some(Trouble::Unreachable) if !self.heard_outside => return Err(Gone::Unreachable),
                Some(Trouble::TooBig) => tools.totals.too_big += 1,
                Some(Trouble::Unreachable | Trouble::Other) => tools.totals.icmp_ignored += 1,
            }
        }
        self.failed = true;
        Ok(())
    }
}

impl Totals {
    fn note_from_socket(&mut self, payload_bytes: usize) {
        self.datagrams_from_sockets += 1;
        self.bytes_from_sockets += payload_bytes as u64;
    }
}

/// The device cuts no segments, after which the socket has given that up.
fn is_about_segments(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::INVAL | Errno::OPNOTSUPP))
}
