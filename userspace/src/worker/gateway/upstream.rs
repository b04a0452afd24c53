//! From a resolved name to an open flow: check each address, connect, answer 200, splice.

use super::{Gateway, Refusal};
use crate::{
    cli::Destination,
    worker::{
        account::Way,
        core::Core,
        flow::{Reader, Splice},
        flows::Phase,
        ledger::FlowPermit,
        poll::{FlowKey, Token},
        session::{Resolving, Slot, Transport},
    },
};
use ::upstream::{
    failure::ConnectFailure,
    policy::{Denied, Reason},
    resolver::ResolveError,
};
use masque::RequestReader;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tunnel::{ConnId, StreamId};

/// How long one upstream address may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses of one name that are tried: each may take [`CONNECT_TIMEOUT`], and the client waits.
const ADDRESSES_TRIED_MAX: usize = 4;

/// A request on its way to an upstream.
pub(super) struct Attempt {
    pub(super) on: (ConnId, StreamId),
    pub(super) reader: Box<RequestReader>,
    pub(super) permit: FlowPermit,
    /// The destination, for people.
    pub(super) to: Box<str>,
    pub(super) since: Instant,
}

impl Gateway {
    /// A name was resolved: check each address, connect to the first that is allowed.
    pub(in crate::worker) fn resolved(
        &mut self,
        core: &mut Core,
        now: Instant,
        conn: ConnId,
        stream: StreamId,
        outcome: Result<Vec<SocketAddr>, ResolveError>,
    ) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        session.lookups = session.lookups.saturating_sub(1);
        // The client may have given up meanwhile.
        if !matches!(session.slots.get(&stream), Some(Slot::Resolving(_))) {
            return;
        }
        let Some(Slot::Resolving(resolving)) = session.slots.remove(&stream) else { return };
        let Resolving { reader, host, port, asker, permit, transport, since, _pending } = *resolving;
        // A reload may have come meanwhile.
        let policy = self.config.client_policy(&asker.identity.name);
        let failure = match outcome {
            Ok(addresses) => {
                let mut failure = ConnectFailure::DnsNotFound;
                let mut candidates = VecDeque::new();
                for address in addresses.into_iter().take(ADDRESSES_TRIED_MAX) {
                    match policy.check(&self.config.policy, Some(&host), address) {
                        Ok(()) => candidates.push_back(address),
                        Err(denied) => {
                            tracing::debug!("{asker} asked for {host} = {address}: {denied}");
                            failure = denied.into();
                        }
                    }
                }
                if candidates.is_empty() {
                    core.totals.refused_denied += 1;
                    failure
                } else {
                    let to = Destination { host, port }.authority().into();
                    let attempt = Attempt { on: (conn, stream), reader: Box::new(reader), permit, to, since };
                    let started = match transport {
                        Transport::Tcp => self.connect_next(core, now, attempt, candidates),
                        Transport::Udp => self.open_udp(core, attempt, candidates),
                    };
                    match started {
                        Ok(()) => return,
                        Err(failure) => failure,
                    }
                }
            }
            Err(error) => {
                core.totals.refused_upstream += 1;
                ConnectFailure::from(error)
            }
        };
        self.refuse(core, conn, stream, Refusal::because(&failure));
    }

    /// Starts the TCP handshake with the first candidate that takes a SYN.
    fn connect_next(
        &mut self,
        core: &mut Core,
        now: Instant,
        attempt: Attempt,
        mut candidates: VecDeque<SocketAddr>,
    ) -> Result<(), ConnectFailure> {
        let Attempt { on, reader, permit, to, since } = attempt;
        let mut failure = ConnectFailure::Unreachable;
        while let Some(address) = candidates.pop_front() {
            match start_connect(address) {
                Ok(socket) => {
                    let key = core.flows.insert(socket, Phase::Connecting { reader, candidates }, since);
                    if let Some(flow) = core.flows.get_mut(key) {
                        (flow.on, flow.permit, flow.to) = (Some(on), Some(permit), to);
                        if let Err(error) = core.poll.watch_edges(&flow.socket, Token::Flow(key)) {
                            core.flows.remove(key);
                            return Err(ConnectFailure::classify(&error));
                        }
                    }
                    core.flows.set_deadline(key, Some(now + CONNECT_TIMEOUT));
                    if let Some(session) = self.sessions.get_mut(&on.0) {
                        session.slots.insert(on.1, Slot::Flow(key));
                    }
                    return Ok(());
                }
                Err(error) => failure = ConnectFailure::classify(&error),
            }
        }
        core.totals.refused_upstream += 1;
        Err(failure)
    }

    /// The TCP handshake ended, one way or the other.
    pub(super) fn connect_done(&mut self, core: &mut Core, now: Instant, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let outcome = match flow.socket.take_error() {
            Ok(None) => flow.socket.peer_addr().map(|_| ()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match outcome {
            // The policy may have changed since the address was chosen.
            Ok(()) if !self.still_permits(core, key) => {
                let Some((conn, stream)) = core.flows.remove(key).and_then(|flow| flow.on) else { return };
                core.totals.refused_denied += 1;
                let denied = Denied { reason: Reason::NotForClient };
                self.refuse(core, conn, stream, Refusal::because(&denied.into()));
            }
            Ok(()) => self.open(core, key),
            Err(error) => self.connect_failed(core, now, key, ConnectFailure::classify(&error)),
        }
    }

    pub(super) fn connect_failed(
        &mut self,
        core: &mut Core,
        now: Instant,
        key: FlowKey,
        failure: ConnectFailure,
    ) {
        let Some(flow) = core.flows.remove(key) else { return };
        let (Phase::Connecting { reader, candidates }, Some(on), Some(permit)) =
            (flow.phase, flow.on, flow.permit)
        else {
            return;
        };
        drop(flow.socket);
        let failure = if candidates.is_empty() {
            core.totals.refused_upstream += 1;
            failure
        } else {
            let attempt = Attempt { on, reader, permit, to: flow.to, since: flow.since };
            match self.connect_next(core, now, attempt, candidates) {
                Ok(()) => return,
                Err(failure) => failure,
            }
        };
        self.refuse(core, on.0, on.1, Refusal::because(&failure));
    }

    /// Connected: answer 200 and splice.
    fn open(&mut self, core: &mut Core, key: FlowKey) {
        core.flows.set_deadline(key, None);
        let Some(flow) = core.flows.get_mut(key) else { return };
        let Some((conn, stream)) = flow.on else { return };
        if let Phase::Connecting { reader, .. } = std::mem::replace(&mut flow.phase, Phase::Moving) {
            let answer = masque::encode_response(200, &[]);
            flow.phase = Phase::Open(Box::new(Splice::new(stream, Reader::Request(*reader), answer)));
            flow.answer = Some(Way::Received);
            core.flow_opened(conn);
            self.pump(core, key);
        }
    }
}

/// A non-blocking TCP socket on its way to `address`.
pub(in crate::worker) fn start_connect(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    // An upstream that vanished in silence is noticed, by the system's intervals (tcp_keepalive_time and so on).
    socket.set_keepalive(true)?;
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => Ok(socket),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}
