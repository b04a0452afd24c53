//! The client's role: keep a tunnel to the gateway up, accept local connections, ask for their destinations, splice.
//!
//! ```text
//!  link:  Resolving ─► Connecting ─► Up ─(lost)─► Pause ─► Resolving …
//!  flow:  accepted ─► [Socks] ─► Waiting (tunnel, stream credit) ─► Asked ─(2xx)─► Open
//! ```

use super::{
    Ended,
    core::Core,
    flow::{Broken, Progress, Reader, Splice},
    flows::{Pending, Phase},
    gateway::reset_socket,
    mail::Command,
    poll::{FlowKey, Token},
    session::{Session, Slot, abandon, close, quic_code, write_some},
};
use crate::{
    cli::Destination,
    socks::{Negotiation, Reply, Step},
};
use bytes::Bytes;
use masque::{Code, Event as H3Event, Item, MessageReader, Response, ResponseTo, Scope, status};
use socket2::Socket;
use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::{CloseReason, ConnId, Dir, Event, Read, StreamId};
use upstream::resolver::{ResolveError, Resolver};

/// Flows of one client; more are closed at once, and counted.
const FLOWS_MAX: usize = 16_384;
/// Connections accepted from one listener in one go.
const ACCEPT_MAX: usize = 64;
/// How long a flow waits for the tunnel, for stream credit or for the gateway's answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// First pause before a reconnect; it doubles up to the maximum that the user sets.
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// What a local listener is for.
pub(crate) enum Listen {
    /// `-L`: everything goes to one destination.
    Forward(TcpListener, Destination),
    /// `-D`: the SOCKS client names the destination.
    Socks(TcpListener),
}

impl Listen {
    fn listener(&self) -> &TcpListener {
        match self {
            Self::Forward(listener, _) | Self::Socks(listener) => listener,
        }
    }
}

/// What the client is to do.
pub(crate) struct ClientConfig {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Where our packets come from; the IP must be one that the gateway's address family fits.
    pub(crate) local: SocketAddr,
    pub(crate) quic: quinn_proto::ClientConfig,
    pub(crate) token: Option<String>,
    pub(crate) listens: Vec<Listen>,
    /// `-W`: our end of the pair that standard input and output are copied to and from.
    pub(crate) stdio: Option<(Socket, Destination)>,
    pub(crate) once: bool,
    pub(crate) retries_max: Option<u32>,
    pub(crate) pause_max: Duration,
    pub(crate) resolver: Arc<Resolver>,
}

/// The state of the tunnel.
enum Link {
    Resolving,
    Connecting { conn: ConnId, remote: SocketAddr, rest: VecDeque<SocketAddr> },
    Up { conn: ConnId, session: Box<Session>, going_away: bool },
    Pause { until: Instant },
}

/// See the module.
pub(crate) struct Client {
    config: ClientConfig,
    link: Link,
    /// Attempts since the tunnel was last up.
    attempts: u32,
    last_error: Option<String>,
    waiting: VecDeque<FlowKey>,
    stdio_flow: Option<FlowKey>,
    ended: Option<Ended>,
    ready_said: bool,
    /// The value of `proxy-authorization`.
    bearer: Option<String>,
}

impl Client {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self {
            bearer: config.token.as_ref().map(|token| format!("Bearer {token}")),
            config,
            link: Link::Pause { until: Instant::now() },
            attempts: 0,
            last_error: None,
            waiting: VecDeque::new(),
            stdio_flow: None,
            ended: None,
            ready_said: false,
        }
    }

    pub(super) fn start(&mut self, core: &mut Core, now: Instant) -> io::Result<()> {
        for (index, listen) in self.config.listens.iter().enumerate() {
            listen.listener().set_nonblocking(true)?;
            core.poll.watch_readable(listen.listener(), Token::Listener(index as u32))?;
        }
        if let Some((socket, to)) = self.config.stdio.take() {
            socket.set_nonblocking(true)?;
            let pending = Pending { to, socks: false, early: Vec::new() };
            self.stdio_flow = self.admit(core, now, socket, Phase::Waiting(pending));
        }
        self.resolve(core, now);
        Ok(())
    }

    /// Up or not, and what for.
    pub(super) fn state(&self) -> (bool, Option<String>) {
        let waits = match &self.link {
            Link::Up { .. } => return (true, None),
            Link::Resolving => format!("resolving {}", self.config.host),
            Link::Connecting { remote, .. } => format!("handshake with {remote}"),
            Link::Pause { .. } => "pause before the next attempt".to_owned(),
        };
        let why = self.last_error.as_ref().map_or(String::new(), |error| format!("; last error: {error}"));
        (false, Some(format!("{waits}{why}")))
    }

    pub(super) fn next_deadline(&self, core: &Core) -> Option<Instant> {
        let pause = if let Link::Pause { until } = self.link { Some(until) } else { None };
        [pause, core.flows.next_deadline()].into_iter().flatten().min()
    }

    // ---- the link ----

    fn resolve(&mut self, core: &mut Core, now: Instant) {
        self.link = Link::Resolving;
        self.attempts += 1;
        let mailbox = core.mailbox.clone();
        let done = Box::new(move |outcome| {
            mailbox.command(Command::GatewayResolved { outcome });
        });
        if self.config.resolver.resolve(&self.config.host, self.config.port, done).is_err() {
            self.link_lost(now, "the resolver is busy".to_owned(), false);
        }
    }

    pub(super) fn gateway_resolved(
        &mut self,
        core: &mut Core,
        now: Instant,
        outcome: Result<Vec<SocketAddr>, ResolveError>,
    ) {
        if !matches!(self.link, Link::Resolving) {
            return;
        }
        match outcome {
            Ok(addresses) => {
                let fits = |address: &SocketAddr| address.is_ipv4() == self.config.local.is_ipv4();
                let candidates: VecDeque<_> = addresses.into_iter().filter(fits).collect();
                self.connect(core, now, candidates);
            }
            Err(error) => {
                let error = format!("gateway name {}: {error}", self.config.host);
                self.link_lost(now, error, false);
            }
        }
    }

    fn connect(&mut self, core: &mut Core, now: Instant, mut candidates: VecDeque<SocketAddr>) {
        let mut last =
            format!("{} has no address in the family of {}", self.config.host, self.config.local.ip());
        while let Some(remote) = candidates.pop_front() {
            let quic = self.config.quic.clone();
            match core.engine.connect(now, quic, remote, self.config.local, &self.config.host) {
                Ok(conn) => {
                    tracing::debug!("handshake with {remote}");
                    self.link = Link::Connecting { conn, remote, rest: candidates };
                    return;
                }
                Err(error) => last = format!("{remote}: {error}"),
            }
        }
        self.link_lost(now, last, false);
    }

    fn connected(&mut self, core: &mut Core, conn: ConnId) {
        let Link::Connecting { conn: expected, remote, .. } = self.link else { return };
        let Some(mut quic) = core.engine.connection(conn).filter(|_| conn == expected) else { return };
        let h3 = masque::Connection::client(masque::Config::default());
        match Session::open(h3, &mut quic) {
            Ok(session) => {
                if self.ready_said {
                    core.totals.reconnects += 1;
                }
                self.ready_said = true;
                self.attempts = 0;
                self.last_error = None;
                self.link = Link::Up { conn, session: Box::new(session), going_away: false };
                tracing::info!("ready: tunnel to {} ({remote}) is up", self.config.host);
                self.ask_waiting(core);
            }
            Err(error) => close(&mut quic, &error),
        }
    }

    /// The connection is gone. Flows on it are reset; those that wait go on waiting.
    fn closed(&mut self, core: &mut Core, now: Instant, conn: ConnId, reason: &CloseReason) {
        for key in core.flows.keys_on(conn) {
            core.totals.flows_reset_by_stream += 1;
            self.drop_flow(core, key);
        }
        match &mut self.link {
            Link::Connecting { conn: of, rest, remote } if *of == conn => {
                let error = format!("gateway {} ({remote}): {reason}", self.config.host);
                let rest = std::mem::take(rest);
                if rest.is_empty() || is_verification_failure(reason) {
                    self.link_lost(now, error, is_verification_failure(reason));
                } else {
                    tracing::warn!("{error}; trying the next address");
                    self.connect(core, now, rest);
                }
            }
            Link::Up { conn: of, .. } if *of == conn => {
                self.link_lost(now, format!("tunnel to {} ended: {reason}", self.config.host), false);
            }
            _ => {}
        }
    }

    /// Pauses before the next attempt, or gives up.
    fn link_lost(&mut self, now: Instant, error: String, fatal: bool) {
        let exhausted = self.config.retries_max.is_some_and(|max| self.attempts > max);
        if fatal || self.config.once || exhausted {
            self.ended = Some(Ended::TunnelLost(error));
            return;
        }
        let pause = PAUSE_FIRST.saturating_mul(1 << self.attempts.min(16)).min(self.config.pause_max);
        tracing::warn!("{error}; next attempt in {:.1} s", pause.as_secs_f64());
        self.last_error = Some(error);
        self.link = Link::Pause { until: now + pause };
    }

    pub(super) fn timers(&mut self, core: &mut Core, now: Instant) -> Option<Ended> {
        if let Link::Pause { until } = self.link
            && until <= now
            && self.ended.is_none()
        {
            self.resolve(core, now);
        }
        for key in core.flows.expired(now) {
            tracing::warn!(
                "a local connection waited {} s for the gateway and was closed",
                PATIENCE.as_secs()
            );
            self.refuse_flow(core, key, Reply::GeneralFailure);
        }
        self.ended.take()
    }

    // ---- events of the tunnel ----

    pub(super) fn on_event(&mut self, core: &mut Core, now: Instant, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => self.connected(core, conn),
            Event::Closed { reason } | Event::HandshakeFailed { reason } => {
                self.closed(core, now, conn, &reason)
            }
            Event::StreamOpened { .. } => self.accept_streams(core, conn),
            Event::StreamReadable { id } => self.readable(core, conn, id),
            Event::StreamWritable { id } => self.queue_stream(core, id),
            Event::StreamStopped { id, .. } => self.stopped(core, conn, id),
            Event::StreamsAvailable { .. } => self.ask_waiting(core),
            _ => {}
        }
    }

    fn session_on(&mut self, conn: ConnId) -> Option<&mut Session> {
        match &mut self.link {
            Link::Up { conn: of, session, .. } if *of == conn => Some(session),
            _ => None,
        }
    }

    fn accept_streams(&mut self, core: &mut Core, conn: ConnId) {
        while let Some(stream) = core.engine.connection(conn).and_then(|mut quic| quic.accept(Dir::Uni)) {
            let Some(session) = self.session_on(conn) else { return };
            if let Err(error) = session.add_uni(stream) {
                if let Some(mut quic) = core.engine.connection(conn) {
                    close(&mut quic, &error);
                }
                return;
            }
            self.readable(core, conn, stream);
        }
        if let Some(mut quic) = core.engine.connection(conn)
            && quic.accept(Dir::Bi).is_some()
        {
            // A server opens no bidirectional streams (RFC 9114 section 6.1).
            quic.close(quic_code(Code::H3_STREAM_CREATION_ERROR), b"server-initiated bidirectional stream");
        }
    }

    fn readable(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        let Link::Up { conn: of, session, going_away } = &mut self.link else { return };
        if *of != conn {
            return;
        }
        match session.slots.get(&stream) {
            Some(Slot::Uni) => {
                let Some(mut quic) = core.engine.connection(conn) else { return };
                match session.read_uni(&mut quic, stream) {
                    Ok(events) => {
                        if events.iter().any(|event| matches!(event, H3Event::GoAway { .. })) && !*going_away
                        {
                            *going_away = true;
                            tracing::info!(
                                "the gateway is draining: running flows finish, new ones will be refused"
                            );
                        }
                    }
                    Err(error) => close(&mut quic, &error),
                }
            }
            Some(&Slot::Flow(key)) => core.flows.queue(key),
            _ => {}
        }
    }

    fn queue_stream(&mut self, core: &mut Core, stream: StreamId) {
        if let Link::Up { session, .. } = &self.link
            && let Some(&Slot::Flow(key)) = session.slots.get(&stream)
        {
            core.flows.queue(key);
        }
    }

    /// The gateway reads no more. With an answer pending that is part of a refusal, which then tells why.
    fn stopped(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        let Some(&Slot::Flow(key)) = self.session_on(conn).and_then(|session| session.slots.get(&stream))
        else {
            return;
        };
        core.flows.queue(key);
    }

    // ---- flows ----

    /// Accepts what waits at a listener.
    pub(super) fn accept(&mut self, core: &mut Core, now: Instant, index: u32) {
        for _ in 0..ACCEPT_MAX {
            let Some(listen) = self.config.listens.get(index as usize) else { return };
            let socket = match listen.listener().accept() {
                Ok((stream, _)) => Socket::from(stream),
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!("accept: {error}");
                    }
                    return;
                }
            };
            let phase = match listen {
                Listen::Forward(_, to) => {
                    Phase::Waiting(Pending { to: to.clone(), socks: false, early: Vec::new() })
                }
                Listen::Socks(_) => Phase::Socks(Negotiation::default()),
            };
            if socket.set_nonblocking(true).and_then(|()| socket.set_tcp_nodelay(true)).is_ok() {
                self.admit(core, now, socket, phase);
            }
        }
    }

    fn admit(&mut self, core: &mut Core, now: Instant, socket: Socket, phase: Phase) -> Option<FlowKey> {
        if core.flows.len() >= FLOWS_MAX {
            core.totals.refused_limit += 1;
            return None;
        }
        let waits = matches!(phase, Phase::Waiting(_));
        let key = core.flows.insert(socket, phase);
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
    pub(super) fn advance(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        match &flow.phase {
            Phase::Socks(_) => self.negotiate(core, key),
            Phase::Asked { .. } => self.hear_answer(core, key),
            Phase::Open(_) => self.pump(core, key),
            Phase::Waiting(_) | Phase::Connecting { .. } | Phase::Moving => {}
        }
    }

    fn negotiate(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let Phase::Socks(negotiation) = &mut flow.phase else { return };
        loop {
            match negotiation.step() {
                Step::More => {
                    let mut buffer = [0; crate::socks::HANDSHAKE_BYTES_MAX];
                    let room = negotiation.room();
                    match (&flow.socket).read(&mut buffer[..room]) {
                        Ok(length) if length > 0 => negotiation.push(&buffer[..length]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        _ => return self.drop_flow(core, key),
                    }
                }
                Step::Answer(bytes) => {
                    // Two bytes into an empty socket buffer: they go whole, or the client is gone.
                    if !matches!((&flow.socket).write(&bytes), Ok(2)) {
                        return self.drop_flow(core, key);
                    }
                }
                Step::Connect { to, early } => {
                    flow.phase = Phase::Waiting(Pending { to, socks: true, early });
                    return self.wait_for_stream(core, key);
                }
                Step::Refuse(bytes) => {
                    core.totals.socks_refused += 1;
                    let _ = (&flow.socket).write(&bytes);
                    return self.drop_flow(core, key);
                }
            }
        }
    }

    fn wait_for_stream(&mut self, core: &mut Core, key: FlowKey) {
        self.waiting.push_back(key);
        self.ask_waiting(core);
    }

    /// Opens streams for flows that wait, as far as the gateway's credit goes.
    fn ask_waiting(&mut self, core: &mut Core) {
        while let Some(&key) = self.waiting.front() {
            let Link::Up { conn, .. } = &self.link else { return };
            let conn = *conn;
            if !matches!(core.flows.get_mut(key), Some(flow) if matches!(flow.phase, Phase::Waiting(_))) {
                self.waiting.pop_front();
                continue;
            }
            let Some(stream) = core.engine.connection(conn).and_then(|mut quic| quic.open_bi()) else {
                return;
            };
            self.waiting.pop_front();
            self.ask(core, key, conn, stream);
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
        flow.on = Some((conn, stream));
        flow.phase = Phase::Asked { reader, unsent, pending };
        core.totals.requests += 1;
        if let Some(session) = self.session_on(conn) {
            session.slots.insert(stream, Slot::Flow(key));
        }
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
            let (Phase::Asked { pending, .. }, Some((conn, stream))) = (&flow.phase, flow.on) else { return };
            let hint = refusal_hint(response.status);
            tracing::warn!(
                "the gateway refused {}: {} {proxy_status}{hint}",
                pending.to.authority(),
                response.status
            );
            if self.stdio_flow == Some(key) {
                let error = format!(
                    "the gateway refused {}: {} {proxy_status}{hint}",
                    pending.to.authority(),
                    response.status
                );
                self.ended = Some(Ended::TunnelLost(error));
            }
            if let Some(mut quic) = core.engine.connection(conn) {
                abandon(&mut quic, stream, Code::H3_REQUEST_CANCELLED);
            }
            return self.refuse_flow(core, key, reply);
        }
        core.flows.set_deadline(key, None);
        let Some(flow) = core.flows.get_mut(key) else { return };
        let Some((_, stream)) = flow.on else { return };
        if let Phase::Asked { reader, unsent: _, pending } = std::mem::replace(&mut flow.phase, Phase::Moving)
        {
            if pending.socks && !matches!((&flow.socket).write(&Reply::Succeeded.bytes()), Ok(10)) {
                return self.drop_flow(core, key);
            }
            let early =
                if pending.early.is_empty() { Bytes::new() } else { core.arena.data_frame(&pending.early) };
            flow.phase = Phase::Open(Box::new(Splice::new(stream, Reader::Response(*reader), early)));
            core.totals.flows_opened += 1;
            self.pump(core, key);
        }
    }

    fn pump(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let (Phase::Open(splice), Some((conn, stream))) = (&mut flow.phase, flow.on) else { return };
        let Some(mut quic) = core.engine.connection(conn) else { return };
        match splice.pump(&mut quic, &flow.socket, &mut flow.ready, &mut core.arena) {
            Progress::Waiting => {}
            Progress::More => core.flows.queue(key),
            Progress::Done => {
                core.totals.finished(splice);
                core.totals.flows_finished += 1;
                self.forget(core, key, false);
            }
            Progress::Broken(broken) => {
                core.totals.finished(splice);
                core.totals.broken(&broken);
                match &broken {
                    Broken::Socket(_) | Broken::Stream => {
                        abandon(&mut quic, stream, Code::H3_REQUEST_CANCELLED)
                    }
                    Broken::Protocol { code, connection: false } => abandon(&mut quic, stream, *code),
                    Broken::Protocol { code, connection: true } => quic.close(quic_code(*code), b""),
                }
                self.forget(core, key, true);
            }
        }
    }

    /// Tells a SOCKS client why, and closes.
    fn refuse_flow(&mut self, core: &mut Core, key: FlowKey, reply: Reply) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let owed = match &flow.phase {
            Phase::Waiting(pending) | Phase::Asked { pending, .. } => pending.socks,
            _ => false,
        };
        if owed {
            core.totals.socks_refused += 1;
            let _ = (&flow.socket).write(&reply.bytes());
            // An orderly end, so that the reply is not overtaken by a reset.
            self.forget(core, key, false);
        } else {
            self.forget(core, key, true);
        }
    }

    fn drop_flow(&mut self, core: &mut Core, key: FlowKey) {
        self.forget(core, key, true);
    }

    /// Removes a flow and its stream's slot; with `-W` that was the last work.
    fn forget(&mut self, core: &mut Core, key: FlowKey, reset: bool) {
        if let Some((conn, stream)) = core.flows.get_mut(key).and_then(|flow| flow.on)
            && let Some(session) = self.session_on(conn)
        {
            session.slots.remove(&stream);
        }
        if reset {
            reset_socket(core, key);
        } else {
            core.flows.remove(key);
        }
        if self.stdio_flow == Some(key) && self.ended.is_none() {
            self.ended = Some(Ended::Stopped);
        }
    }
}

/// Our TLS stack refused the gateway's certificate, or the gateway refused ours: trying again won't help.
/// QUIC carries TLS alerts as codes 0x100 to 0x1ff (RFC 9001 section 4.8).
fn is_verification_failure(reason: &CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::Transport { code: 0x100..=0x1ff, .. }
            | CloseReason::PeerTransport { code: 0x100..=0x1ff, .. }
    )
}

/// What a user can do about a refusal.
fn refusal_hint(status: u16) -> &'static str {
    match status {
        401 | 407 => " (no valid identity: give --token-file FILE or --cert/--key that the gateway knows)",
        403 => " (the gateway's --allow does not cover it)",
        503 => " (the gateway is draining or at its limit)",
        _ => "",
    }
}
