//! A client's flows: accepted, negotiated, asked for, answered, spliced; and their ends.

use super::{Client, Listen};
use crate::{
    socks::{self, Negotiation, Reply, Step},
    worker::{
        Ended,
        account::Way,
        core::{Core, End},
        flow::{Reader, Splice},
        flows::{Pending, Phase},
        poll::{FlowKey, Token},
        session::{Slot, abandon, quic_code, write_some},
        udp::On,
    },
};
use bytes::Bytes;
use masque::{Code, Item, MessageReader, Response, ResponseTo, Scope, status};
use socket2::Socket;
use std::{
    io::{self, Read as _, Write as _},
    time::{Duration, Instant},
};
use tunnel::{ConnId, Read, StreamId};

/// Flows of one client; more are closed at once, and counted.
const FLOWS_MAX: usize = 16_384;
/// Connections accepted from one listener in one go.
const ACCEPT_MAX: usize = 64;
/// How long a flow waits for the tunnel and for stream credit.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it waits for the answer: longer than a gateway tries names and addresses.
const ANSWER_PATIENCE: Duration = Duration::from_secs(75);
/// How long a listener rests when there is no descriptor for another connection.
pub(super) const ACCEPT_REST: Duration = Duration::from_millis(100);

impl Client {
    /// Accepts what waits at a listener.
    pub(in crate::worker) fn accept(&mut self, core: &mut Core, now: Instant, index: u32) {
        for _ in 0..ACCEPT_MAX {
            let Some(listen) = self.config.listens.get(index as usize) else { return };
            let socket = match listen.listener().accept() {
                Ok((stream, _)) => Socket::from(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // No descriptor, most likely. The listener stays readable: without a rest this would spin.
                    tracing::warn!("can't accept a local connection: {error}; see `ulimit -n`");
                    core.totals.refused_limit += 1;
                    core.poll.forget(listen.listener());
                    self.resting.push((now + ACCEPT_REST, index));
                    return;
                }
            };
            let phase = match listen {
                Listen::Forward(_, to) => {
                    Phase::Waiting(Pending { to: to.clone(), socks: false, bound: false, early: Vec::new() })
                }
                Listen::Socks(_) => Phase::Socks(Negotiation::default()),
            };
            if socket.set_nonblocking(true).and_then(|()| socket.set_tcp_nodelay(true)).is_ok() {
                self.admit(core, now, socket, phase);
            }
        }
    }

    pub(super) fn admit(
        &mut self,
        core: &mut Core,
        now: Instant,
        socket: Socket,
        phase: Phase,
    ) -> Option<FlowKey> {
        if core.flows.len() >= FLOWS_MAX {
            core.totals.refused_limit += 1;
            return None;
        }
        let waits = matches!(phase, Phase::Waiting(_));
        let key = core.flows.insert(socket, phase, now);
        let flow = core.flows.get_mut(key)?;
        if core.poll.watch_edges(&flow.socket, Token::Flow(key)).is_err() {
            core.flows.remove(key);
            return None;
        }
        core.flows.set_deadline(key, Some(now + PATIENCE));
        if waits {
            self.wait_for_stream(core, key);
        }
        Some(key)
    }

    /// One step of a flow whose socket or stream has something to say.
    pub(in crate::worker) fn advance(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        match &flow.phase {
            Phase::Socks(_) => self.negotiate(core, key),
            Phase::Asked { .. } => self.hear_answer(core, key),
            Phase::Open(_) | Phase::Last(_) => self.pump(core, key),
            Phase::Dialing(_) => self.dial_done(core, key),
            Phase::Associated { .. } => self.watch_association(core, key),
            Phase::Waiting(_) | Phase::Connecting { .. } | Phase::Moving => {}
        }
    }

    fn negotiate(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let Phase::Socks(negotiation) = &mut flow.phase else { return };
        loop {
            match negotiation.step() {
                Step::More => {
                    let mut buffer = [0; socks::HANDSHAKE_BYTES_MAX];
                    let room = negotiation.room();
                    match (&flow.socket).read(&mut buffer[..room]) {
                        Ok(length) if length > 0 => negotiation.push(&buffer[..length]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        _ => {
                            core.totals.socks_refused += 1;
                            return self.drop_flow(core, key, "its local end is gone");
                        }
                    }
                }
                Step::Answer(bytes) => {
                    // Two bytes into an empty socket buffer: they go whole, or the client is gone.
                    if !matches!((&flow.socket).write(&bytes), Ok(2)) {
                        return self.drop_flow(core, key, "its local end is gone");
                    }
                }
                Step::Connect { to, early } => {
                    flow.phase = Phase::Waiting(Pending { to, socks: true, bound: false, early });
                    return self.wait_for_stream(core, key);
                }
                Step::Associate { port } => return self.associate(core, key, port),
                Step::Refuse(bytes) => {
                    core.totals.socks_refused += 1;
                    let _ = (&flow.socket).write(&bytes);
                    // An orderly end, so that the reply is not overtaken by a reset.
                    return self.forget(core, key, End::Orderly, "");
                }
            }
        }
    }

    fn wait_for_stream(&mut self, core: &mut Core, key: FlowKey) {
        self.waiting.push_back(key);
        self.ask_waiting(core);
    }

    /// Opens streams for flows that wait, as far as the tunnels' credit goes.
    pub(super) fn ask_waiting(&mut self, core: &mut Core) {
        while let Some(&key) = self.waiting.front() {
            if !matches!(core.flows.get_mut(key), Some(flow) if matches!(flow.phase, Phase::Waiting(_))) {
                self.waiting.pop_front();
                continue;
            }
            self.rouse(core);
            let Some((conn, stream)) = self.pool.open(core) else { return };
            self.waiting.pop_front();
            self.ask(core, key, conn, stream);
        }
    }

    /// Flows that asked on this connection, and have no answer, wait again.
    pub(super) fn ask_flows_again(&mut self, core: &mut Core, conn: ConnId) {
        for key in core.flows.keys_on(conn) {
            let now = core.now;
            let Some(flow) = core.flows.get_mut(key) else { continue };
            if !matches!(flow.phase, Phase::Asked { .. }) {
                continue;
            }
            let Phase::Asked { pending, .. } = std::mem::replace(&mut flow.phase, Phase::Moving) else {
                continue;
            };
            flow.phase = Phase::Waiting(pending);
            let on = flow.on.take();
            core.flows.set_deadline(key, Some(now + PATIENCE));
            if let Some((conn, stream)) = on {
                self.pool.release(conn, stream);
            }
            self.waiting.push_front(key);
        }
    }

    /// Drops the flows that asked on this connection what no other can answer.
    pub(super) fn drop_bound(&mut self, core: &mut Core, conn: ConnId, why: &str) {
        for key in core.flows.keys_on(conn) {
            let phase = core.flows.get_mut(key).map(|flow| &flow.phase);
            if matches!(phase, Some(Phase::Asked { pending, .. }) if pending.bound) {
                core.totals.flows_reset_by_stream += 1;
                self.drop_flow(core, key, why);
            }
        }
    }

    /// Sends CONNECT for a flow.
    fn ask(&mut self, core: &mut Core, key: FlowKey, conn: ConnId, stream: StreamId) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let Phase::Waiting(pending) = std::mem::replace(&mut flow.phase, Phase::Moving) else { return };
        let fields: Vec<(&str, &str)> =
            self.bearer.iter().map(|bearer| ("proxy-authorization", bearer.as_str())).collect();
        let unsent = masque::encode_request(&masque::RequestHead::connect(&pending.to.authority(), &fields));
        let reader = Box::new(MessageReader::response(masque::Limits::default(), ResponseTo::Connect));
        flow.to = pending.to.authority().into();
        core.totals.requests += 1;
        self.asked(core, key, (conn, stream), Phase::Asked { reader, unsent, pending });
    }

    /// A request is made for a flow: `phase` has it.
    pub(super) fn asked(&mut self, core: &mut Core, key: FlowKey, on: On, phase: Phase) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        (flow.on, flow.phase) = (Some(on), phase);
        core.flows.set_deadline(key, Some(core.now + ANSWER_PATIENCE));
        self.pool.assign(on.0, on.1, Slot::Flow(key));
        self.hear_answer(core, key);
    }

    /// Writes what is left of the request and reads the response's header section.
    fn hear_answer(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let (Phase::Asked { reader, unsent, .. }, Some((conn, stream))) = (&mut flow.phase, flow.on) else {
            return;
        };
        let Some(mut quic) = core.engine.connection(conn) else { return };
        // A stream that takes nothing more may still carry the answer.
        write_some(&mut quic, stream, unsent);
        let response = loop {
            match reader.next() {
                // Interim responses (RFC 9114 section 4.1) are skipped.
                Ok(Some(Item::Headers(response))) if status::is_interim(response.status) => {}
                Ok(Some(Item::Headers(response))) => break response,
                Ok(Some(_)) => {}
                Ok(None) => match quic.read(stream, usize::MAX) {
                    Read::Chunk(bytes) => reader.push(bytes),
                    Read::Fin => reader.finish(),
                    Read::Blocked => return,
                    Read::Reset(code) => {
                        tracing::warn!("the gateway reset a request (code {code})");
                        return self.refuse_flow(core, key, Reply::GeneralFailure);
                    }
                    Read::Gone => return self.refuse_flow(core, key, Reply::GeneralFailure),
                },
                Err(error) => {
                    tracing::warn!("the gateway's answer breaks HTTP/3: {error}");
                    if error.scope() == Scope::Connection {
                        quic.close(quic_code(error.code()), error.to_string().as_bytes());
                    } else {
                        abandon(&mut quic, stream, error.code());
                    }
                    return self.refuse_flow(core, key, Reply::GeneralFailure);
                }
            }
        };
        self.answered(core, key, &response);
    }

    fn answered(&mut self, core: &mut Core, key: FlowKey, response: &Response) {
        let proxy_status = response.fields.get("proxy-status").unwrap_or_default();
        let reply = Reply::from_response(response.status, proxy_status);
        if reply != Reply::Succeeded {
            let Some(flow) = core.flows.get_mut(key) else { return };
            let Phase::Asked { pending, .. } = &flow.phase else { return };
            let why = refusal(&pending.to.authority(), response.status, proxy_status);
            if self.stdio_flow == Some(key) {
                self.ended = Some(Ended::TunnelLost(why));
            } else {
                tracing::warn!("{why}");
            }
            return self.refuse_flow(core, key, reply);
        }
        core.flows.set_deadline(key, None);
        let Some(flow) = core.flows.get_mut(key) else { return };
        let Some((conn, stream)) = flow.on else { return };
        if let Phase::Asked { reader, unsent: _, pending } = std::mem::replace(&mut flow.phase, Phase::Moving)
        {
            if pending.socks && !matches!((&flow.socket).write(&Reply::Succeeded.bytes()), Ok(10)) {
                return self.drop_flow(core, key, "its local end is gone");
            }
            let early =
                if pending.early.is_empty() { Bytes::new() } else { core.arena.data_frame(&pending.early) };
            let mut splice = Splice::new(stream, Reader::Response(*reader), early);
            splice.bytes_to_stream = pending.early.len() as u64;
            flow.phase = Phase::Open(Box::new(splice));
            flow.answer = (!pending.bound).then_some(Way::Sent);
            core.flow_opened(conn);
            self.pump(core, key);
        }
    }

    fn pump(&mut self, core: &mut Core, key: FlowKey) {
        let on = core.flows.get_mut(key).and_then(|flow| flow.on);
        if let Some(end) = core.pump(key) {
            self.forgotten(key, on, end, "reset by one of its ends");
        }
    }

    /// Tells a SOCKS client why, and closes.
    pub(super) fn refuse_flow(&mut self, core: &mut Core, key: FlowKey, reply: Reply) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let owed = match &flow.phase {
            Phase::Waiting(pending) | Phase::Asked { pending, .. } => pending.socks,
            _ => false,
        };
        if owed {
            core.totals.socks_refused += 1;
            let _ = (&flow.socket).write(&reply.bytes());
            // An orderly end, so that the reply is not overtaken by a reset.
            self.forget(core, key, End::Orderly, "");
        } else {
            self.forget(core, key, End::Reset, "the gateway did not open it");
        }
    }

    /// Listens again where a rest is over.
    pub(super) fn end_rests(&mut self, core: &mut Core, now: Instant) {
        let (over, still) =
            std::mem::take(&mut self.resting).into_iter().partition(|&(until, _)| until <= now);
        self.resting = still;
        let over: Vec<(Instant, u32)> = over;
        for (_, index) in over {
            if let Some(listen) = self.config.listens.get(index as usize)
                && core.poll.watch_readable(listen.listener(), Token::Listener(index)).is_err()
            {
                self.resting.push((now + ACCEPT_REST, index));
            }
        }
    }

    /// Resets a flow. With `-W` it was the one that mattered, and `why` goes to the user.
    pub(super) fn drop_flow(&mut self, core: &mut Core, key: FlowKey, why: &str) {
        self.forget(core, key, End::Reset, why);
    }

    /// Removes a flow, with a TCP reset or with an orderly end.
    pub(super) fn forget(&mut self, core: &mut Core, key: FlowKey, end: End, why: &str) {
        let on = core.flows.get_mut(key).and_then(|flow| flow.on);
        if let Some((conn, stream)) = on
            && let Some(mut quic) = core.engine.connection(conn)
        {
            // Else the gateway would go on with it, and what it sends would fill our window.
            abandon(&mut quic, stream, Code::H3_REQUEST_CANCELLED);
        }
        core.end_flow(key, end);
        self.forgotten(key, on, end, why);
    }

    /// Forgets the stream of a flow that is gone; with `-W` that was the last work.
    fn forgotten(&mut self, key: FlowKey, on: Option<(ConnId, StreamId)>, end: End, why: &str) {
        if let Some((conn, stream)) = on {
            self.pool.release(conn, stream);
        }
        if self.stdio_flow == Some(key) && self.ended.is_none() {
            self.ended = Some(match end {
                End::Orderly => Ended::Stopped,
                End::Reset => Ended::TunnelLost(format!("the connection of -W was cut off: {why}")),
            });
        }
    }
}

/// A refusal in words, and what a user can do about it.
pub(super) fn refusal(destination: &str, status: u16, proxy_status: &str) -> String {
    let advice = match status {
        401 | 407 => ": no valid identity; give --token-file FILE or --cert/--key that the gateway knows",
        403 => ": the gateway's --allow does not cover it, or its users file does not for this client",
        429 => ": a limit of this client's in the gateway's users file",
        503 => ": the gateway is draining or at its limit",
        _ => "",
    };
    let details = if proxy_status.is_empty() { String::new() } else { format!(" ({proxy_status})") };
    format!("the gateway refused {destination}: {status}{details}{advice}")
}
