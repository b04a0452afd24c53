//! A client's UDP flows: `-L .../udp` and SOCKS5 UDP ASSOCIATE, one flow for each pair of local address and destination.
//!
//! ```text
//!  local socket ─► source (and SOCKS header) known? ─► its flow ─► tunnel
//!                     └─ no: a new flow  Waiting ─► Asked ─(2xx)─► Open ─► silence, or the gateway ends it
//! ```
//! Datagrams that come before the gateway's answer are held, bounded. A flow that was refused rests for a while, so that
//! a local sender doesn't make a request of each datagram.

mod ask;
pub(super) use ask::read_answer;
mod socks;

use super::{Client, Listen};
use crate::worker::{
    core::Core,
    datagrams,
    poll::{FlowKey, Token},
    udp::{Gone, Outside, Phase, UdpFlow},
};
use crate::{cli::Destination, socks as wire};
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::ConnId;
use udp::{DatagramSocket, Ends, Refuser};

/// UDP flows of one client, as many as a gateway lets it have streams. Beyond it the one that was silent the longest makes
/// room.
const FLOWS_MAX: usize = 4096;
/// Batches read from one local socket before others get their turn.
const BATCHES_MAX: usize = 8;
/// How long a destination rests that the gateway has refused.
const REFUSED_REST: Duration = Duration::from_secs(5);
/// The same where nobody listens at the far end: an application that tries again is told again.
const UNREACHABLE_REST: Duration = Duration::from_secs(1);
/// Destinations that rest at once.
const RESTING_MAX: usize = 1024;

/// What a local socket is for.
enum Use {
    /// `-L .../udp`: everything goes to one destination.
    Forward(Destination),
    /// A SOCKS client's relay.
    Relay(Relay),
}

/// The UDP side of a SOCKS association.
struct Relay {
    /// Whose TCP connection it is: nobody else may send.
    owner: IpAddr,
    /// And from where, if it has said so.
    port: Option<u16>,
}

/// What a flow is found by: our socket, the local address that sends to it, and the SOCKS header (of `-L`: none).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Source {
    socket: u32,
    peer: SocketAddr,
}

/// See the module.
#[derive(Default)]
pub(super) struct UdpSide {
    uses: HashMap<u32, Use>,
    /// Flows by SOCKS header, by source.
    flows: HashMap<Source, HashMap<Bytes, FlowKey>>,
    /// Flows without a stream, in the order in which they came.
    waiting: VecDeque<FlowKey>,
    /// What was refused, and until when it is left alone.
    resting: HashMap<(Source, Bytes), Instant>,
    refuser: Option<Refuser>,
    pub(super) drops: Drops,
    draining: bool,
    /// It was said that the gateway has no CONNECT-UDP.
    missing_said: bool,
}

/// Datagrams of local senders that went nowhere, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct Drops {
    /// The destination was refused a moment ago.
    resting: u64,
    socks_garbage: u64,
    socks_fragment: u64,
    /// From somebody else than the client of the association.
    socks_stranger: u64,
    /// We are going away.
    draining: u64,
}

impl Drops {
    pub(in crate::worker) fn each(&self) -> [(&'static str, u64); 5] {
        [
            ("udp_refused_resting", self.resting),
            ("socks_udp_garbage", self.socks_garbage),
            ("socks_udp_fragment", self.socks_fragment),
            ("socks_udp_stranger", self.socks_stranger),
            ("udp_local_draining", self.draining),
        ]
    }
}

impl UdpSide {
    /// With local sockets it may have to refuse what they send: that takes a raw socket, and a worker that runs may open
    /// none.
    pub(super) fn new(has_local_sockets: bool) -> Self {
        Self { refuser: has_local_sockets.then(Refuser::open), ..Self::default() }
    }
}

impl Client {
    /// Watches the sockets of `-L .../udp`.
    pub(super) fn start_udp(&mut self, core: &mut Core) -> io::Result<()> {
        for (socket, to) in std::mem::take(&mut self.config.udp_forwards) {
            self.watch_local(core, socket, Use::Forward(to))?;
        }
        Ok(())
    }

    /// Adds a local socket.
    fn watch_local(&mut self, core: &mut Core, socket: DatagramSocket, what_for: Use) -> io::Result<u32> {
        let index = core.udp.locals.insert(Arc::new(socket));
        if let Some(socket) = core.udp.locals.get(index)
            && let Err(error) = core.poll.watch_readable(&**socket, Token::UdpLocal(index as u32))
        {
            core.udp.locals.remove(index);
            return Err(error);
        }
        self.udp.uses.insert(index as u32, what_for);
        Ok(index as u32)
    }

    /// Reads what waits at a local socket. The watch is level-triggered: what is left is told again.
    pub(in crate::worker) fn read_local(&mut self, core: &mut Core, index: u32) {
        let Some(socket) = core.udp.locals.get(index as usize).map(Arc::clone) else { return };
        // Taken out for the while: the flows that the datagrams go to are in the same table.
        let mut scratch = core.udp.take_scratch();
        for _ in 0..BATCHES_MAX {
            let received = socket.receive(&mut scratch, &mut |ends, payload| {
                self.local_datagram(core, index, ends, payload);
            });
            match received {
                Ok(received) if !received.drained => {}
                _ => break,
            }
        }
        core.udp.put_scratch(scratch);
        self.ask_udp_waiting(core);
    }

    /// One datagram of a local sender.
    fn local_datagram(&mut self, core: &mut Core, socket: u32, ends: Ends, bytes: &[u8]) {
        let source = Source { socket, peer: ends.remote };
        let (header, payload) = match self.udp.uses.get(&socket) {
            Some(Use::Forward(_)) => (&[][..], bytes),
            Some(Use::Relay(relay)) => {
                if !relay.admits(ends.remote) {
                    self.udp.drops.socks_stranger += 1;
                    return;
                }
                match wire::Datagram::split(bytes) {
                    Ok(datagram) => (datagram.header, datagram.payload),
                    Err(wire::BadDatagram::Fragment) => return self.udp.drops.socks_fragment += 1,
                    Err(wire::BadDatagram::Garbage) => return self.udp.drops.socks_garbage += 1,
                }
            }
            None => return,
        };
        let known = self.udp.flows.get(&source).and_then(|flows| flows.get(header)).copied();
        if known.is_some_and(|key| core.send_from_local(key, payload)) {
            return;
        }
        self.new_flow(core, source, ends.local, header, payload);
    }

    fn new_flow(
        &mut self,
        core: &mut Core,
        source: Source,
        local: Option<IpAddr>,
        header: &[u8],
        payload: &[u8],
    ) {
        if self.udp.draining {
            return self.udp.drops.draining += 1;
        }
        let header = Bytes::copy_from_slice(header);
        if self.rests(core.now, &source, &header) {
            return self.udp.drops.resting += 1;
        }
        if !header.is_empty() && (wire::Datagram { header: &header, payload }).to().is_none() {
            return self.udp.drops.socks_garbage += 1;
        }
        while core.udp.len() >= FLOWS_MAX
            && let Some(oldest) = core.udp.longest_idle()
        {
            self.end_udp(core, oldest, &Gone::Evicted);
        }
        let ends = Ends { remote: source.peer, local };
        let outside = Outside::Local { socket: source.socket, ends, header: header.clone() };
        let key = core.udp.insert(outside, Phase::Waiting, core.now);
        core.udp.totals.opened += 1;
        if let Some(flow) = core.udp.get_mut(key) {
            flow.to = self.destination(flow).map(|to| to.authority().into()).unwrap_or_default();
        }
        core.send_from_local(key, payload);
        self.udp.flows.entry(source).or_default().insert(header, key);
        self.udp.waiting.push_back(key);
    }

    fn rests(&mut self, now: Instant, source: &Source, header: &Bytes) -> bool {
        if self.udp.resting.is_empty() {
            return false;
        }
        let of = (source.clone(), header.clone());
        match self.udp.resting.get(&of) {
            Some(&until) if until > now => true,
            Some(_) => {
                self.udp.resting.remove(&of);
                false
            }
            None => false,
        }
    }

    /// Where a flow's datagrams go.
    fn destination(&self, flow: &UdpFlow) -> Option<Destination> {
        let Outside::Local { socket, header, .. } = &flow.outside else { return None };
        match self.udp.uses.get(socket)? {
            Use::Forward(to) => Some(to.clone()),
            Use::Relay(_) => wire::Datagram { header, payload: &[] }.to(),
        }
    }

    /// Ends a flow. The next datagram of its source opens another one, after a rest if it was refused.
    pub(super) fn end_udp(&mut self, core: &mut Core, key: FlowKey, gone: &Gone) {
        let Some(flow) = core.end_udp(key, gone) else { return };
        if let Some((conn, stream)) = flow.on {
            self.pool.release(conn, stream);
        }
        if matches!(flow.phase, Phase::Waiting) {
            self.udp.waiting.retain(|waiting| *waiting != key);
        }
        let Outside::Local { socket, ends, header } = flow.outside else { return };
        let source = Source { socket, peer: ends.remote };
        if let Some(flows) = self.udp.flows.get_mut(&source) {
            flows.remove(&header);
            if flows.is_empty() {
                self.udp.flows.remove(&source);
            }
        }
        let rest = if gone.is_unreachable() {
            self.tell_unreachable(core, socket, ends);
            UNREACHABLE_REST
        } else if *gone == Gone::Refused {
            REFUSED_REST
        } else {
            return;
        };
        if self.udp.resting.len() >= RESTING_MAX {
            let now = core.now;
            self.udp.resting.retain(|_, until| *until > now);
        }
        if self.udp.resting.len() < RESTING_MAX {
            self.udp.resting.insert((source, header), core.now + rest);
        }
    }

    /// The far end has no such port: the local sender hears it as from a kernel, where we may send that.
    fn tell_unreachable(&self, core: &mut Core, socket: u32, ends: Ends) {
        let Some(local) = core.udp.locals.get(socket as usize) else { return };
        let mut port = local.local();
        if let Some(ip) = ends.local {
            port.set_ip(ip);
        }
        let told = self.udp.refuser.as_ref().is_some_and(|refuser| refuser.refuse(ends.remote, port));
        core.udp.totals.icmp_sent += u64::from(told);
    }

    /// The connection under some flows has ended.
    pub(super) fn udp_connection_ended(&mut self, core: &mut Core, conn: ConnId) {
        if let Some(session) = self.pool.session_on(conn) {
            datagrams::count_lost(core, session, conn);
        }
        for key in core.udp.keys_on(conn) {
            self.end_udp(core, key, &Gone::Lost);
        }
    }

    pub(super) fn udp_timers(&mut self, core: &mut Core, now: Instant) {
        for key in core.udp.idle(now) {
            self.end_udp(core, key, &Gone::Idle);
        }
    }

    pub(in crate::worker) fn udp_drops(&self) -> [(&'static str, u64); 5] {
        self.udp.drops.each()
    }

    /// Says how long a UDP payload may be for one QUIC DATAGRAM frame. It grows as the path's MTU is found out.
    pub(super) fn say_datagram_size(&mut self, core: &mut Core, conn: ConnId) {
        if self.udp.uses.is_empty() && !self.config.listens.iter().any(Listen::is_socks) {
            return;
        }
        let quic = core.engine.connection(conn);
        match quic.and_then(|mut quic| datagrams::payload_max_bytes(&mut quic)) {
            Some(bytes) => tracing::info!(
                "UDP payloads up to {bytes} bytes travel in one datagram, and more once the path's MTU is known; longer ones as capsules"
            ),
            None => tracing::info!("the gateway takes no QUIC datagrams: UDP payloads travel as capsules"),
        }
    }

    /// Opens no more flows; those that are silent soon end.
    pub(super) fn drain_udp(&mut self, core: &mut Core) {
        self.udp.draining = true;
        core.udp.drain(core.now);
    }
}

impl Relay {
    fn admits(&self, sender: SocketAddr) -> bool {
        sender.ip().to_canonical() == self.owner && self.port.is_none_or(|port| port == sender.port())
    }
}
