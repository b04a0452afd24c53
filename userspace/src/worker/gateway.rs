//! The gateway's role: accept tunnels, check who asks and where to, connect to upstreams, splice.
//!
//! ```text
//!  stream opened ─► Head ─(HEADERS)─► who? where? ─► Resolving ─► Connecting ─► Open
//!                     └── refusals: 400 401 403 404 407 429 431 501 502 503 504 ──► Answering
//! ```

use super::{
    Ended,
    core::Core,
    flow::{Broken, Progress, Reader, Splice},
    flows::Phase,
    mail::Command,
    poll::{FlowKey, Token},
    session::{Resolving, Session, Slot, abandon, close, quic_code, write_some},
};
use bytes::Bytes;
use masque::{
    Code, Credentials, Host, Item, Kind, MessageError, MessageReader, Request, RequestReader, Scheme, Scope,
    Via,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::{CloseReason, ConnId, Dir, Event, Read, StreamId};
use upstream::{
    failure::ConnectFailure,
    policy::Policy,
    resolver::{ResolveError, Resolver},
    users::{How, Identity, Users},
};

/// How long one upstream address may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What all workers of a gateway share; never changed, only replaced.
pub(crate) struct GatewayConfig {
    pub(crate) users: Option<Users>,
    pub(crate) policy: Policy,
    pub(crate) resolver: Arc<Resolver>,
    /// Turns a verified client certificate into a name.
    pub(crate) certificate_name: fn(&rustls::pki_types::CertificateDer<'_>) -> Option<String>,
}

/// See the module.
pub(crate) struct Gateway {
    config: Arc<GatewayConfig>,
    sessions: HashMap<ConnId, Session>,
}

/// An answer that opens nothing.
struct Refusal {
    status: u16,
    fields: Vec<(&'static str, String)>,
}

impl Refusal {
    fn new(status: u16) -> Self {
        Self { status, fields: Vec::new() }
    }

    fn because(failure: &ConnectFailure) -> Self {
        Self { status: failure.status(), fields: vec![("proxy-status", failure.proxy_status())] }
    }
}

impl Gateway {
    pub(crate) fn new(config: Arc<GatewayConfig>) -> Self {
        Self { config, sessions: HashMap::new() }
    }

    pub(super) fn on_event(&mut self, core: &mut Core, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => self.connected(core, conn),
            Event::Closed { reason } | Event::HandshakeFailed { reason } => self.closed(core, conn, &reason),
            Event::StreamOpened { .. } => self.accept_streams(core, conn),
            Event::StreamReadable { id } => self.readable(core, conn, id),
            Event::StreamWritable { id } => self.writable(core, conn, id),
            Event::StreamStopped { id, .. } => self.stopped(core, conn, id),
            // Finished streams, migrations and QUIC datagrams ask nothing of a TCP gateway.
            _ => {}
        }
    }

    fn connected(&mut self, core: &mut Core, conn: ConnId) {
        let Some(mut quic) = core.engine.connection(conn) else { return };
        let h3 = masque::Connection::server(masque::Config::default());
        match Session::open(h3, &mut quic) {
            Ok(mut session) => {
                let chain = quic.peer_identity();
                session.identity = chain
                    .first()
                    .and_then(self.config.certificate_name)
                    .map(|name| Identity { name: name.into(), how: How::Certificate });
                self.sessions.insert(conn, session);
                if core.draining {
                    self.drain_one(core, conn);
                }
            }
            Err(error) => close(&mut quic, &error),
        }
    }

    fn closed(&mut self, core: &mut Core, conn: ConnId, reason: &CloseReason) {
        if self.sessions.remove(&conn).is_some() {
            tracing::debug!("tunnel closed: {reason}");
        }
        for key in core.flows.keys_on(conn) {
            core.totals.flows_reset_by_stream += 1;
            reset_socket(core, key);
        }
    }

    fn accept_streams(&mut self, core: &mut Core, conn: ConnId) {
        for dir in [Dir::Uni, Dir::Bi] {
            while let Some(stream) = core.engine.connection(conn).and_then(|mut quic| quic.accept(dir)) {
                let Some(session) = self.sessions.get_mut(&conn) else { return };
                if dir == Dir::Bi {
                    let reader = MessageReader::request(session.limits());
                    session.slots.insert(stream, Slot::Head(Box::new(reader)));
                } else if let Err(error) = session.add_uni(stream) {
                    if let Some(mut quic) = core.engine.connection(conn) {
                        close(&mut quic, &error);
                    }
                    return;
                }
                self.readable(core, conn, stream);
            }
        }
    }

    fn readable(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        match session.slots.get(&stream) {
            Some(Slot::Uni) => {
                let Some(mut quic) = core.engine.connection(conn) else { return };
                // A client's GOAWAY or MAX_PUSH_ID asks nothing of us: we push nothing.
                if let Err(error) = session.read_uni(&mut quic, stream) {
                    close(&mut quic, &error);
                }
            }
            Some(Slot::Head(_)) => self.read_head(core, conn, stream),
            Some(&Slot::Flow(key)) => core.flows.queue(key),
            // What follows the header section waits in QUIC's receive window.
            Some(Slot::Resolving(_) | Slot::Answering(_)) | None => {}
        }
    }

    fn writable(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        match session.slots.get_mut(&stream) {
            Some(&mut Slot::Flow(key)) => core.flows.queue(key),
            Some(Slot::Answering(rest)) => {
                let Some(mut quic) = core.engine.connection(conn) else { return };
                let alive = write_some(&mut quic, stream, rest);
                if !alive || rest.is_empty() {
                    session.slots.remove(&stream);
                    quic.finish(stream);
                }
            }
            _ => {}
        }
    }

    /// The client reads no more: the flow ends, its socket is reset (RFC 9114 section 4.4).
    fn stopped(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        let Some(slot) = self.sessions.get_mut(&conn).and_then(|session| session.slots.remove(&stream))
        else {
            return;
        };
        if let Slot::Flow(key) = slot {
            core.totals.flows_reset_by_stream += 1;
            reset_socket(core, key);
        }
        if let Some(mut quic) = core.engine.connection(conn) {
            abandon(&mut quic, stream, Code::H3_REQUEST_CANCELLED);
        }
    }

    /// Reads a request's header section and acts on it once it is complete.
    fn read_head(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let Some(Slot::Head(reader)) = session.slots.get_mut(&stream) else { return };
        let Some(mut quic) = core.engine.connection(conn) else { return };
        let request = loop {
            match reader.next() {
                Ok(Some(Item::Headers(request))) => break request,
                // The reader yields the header section first, or an error.
                Ok(Some(_)) => return,
                Ok(None) => match quic.read(stream, usize::MAX) {
                    Read::Chunk(bytes) => reader.push(bytes),
                    Read::Fin => reader.finish(),
                    Read::Blocked => return,
                    Read::Reset(_) | Read::Gone => {
                        session.slots.remove(&stream);
                        quic.reset(stream, quic_code(Code::H3_REQUEST_CANCELLED));
                        return;
                    }
                },
                Err(error) => return self.bad_head(core, conn, stream, error),
            }
        };
        let Some(Slot::Head(reader)) = session.slots.remove(&stream) else { return };
        core.totals.requests += 1;
        if let Err(refusal) = self.take_request(core, conn, stream, *reader, &request) {
            self.refuse(core, conn, stream, refusal);
        }
    }

    /// A header section that can't be read: the connection goes, or the stream is answered.
    fn bad_head(&mut self, core: &mut Core, conn: ConnId, stream: StreamId, error: MessageError) {
        core.totals.refused_bad_request += 1;
        match (error.scope(), error.status()) {
            (Scope::Stream, Some(status)) => self.refuse(core, conn, stream, Refusal::new(status)),
            (Scope::Stream, None) => {
                self.forget_stream(conn, stream);
                if let Some(mut quic) = core.engine.connection(conn) {
                    abandon(&mut quic, stream, error.code());
                }
            }
            (Scope::Connection, _) => {
                if let Some(mut quic) = core.engine.connection(conn) {
                    quic.close(quic_code(error.code()), error.to_string().as_bytes());
                }
            }
        }
    }

    /// Who asks, and for what? Starts the resolution of the destination's name.
    fn take_request(
        &mut self,
        core: &mut Core,
        conn: ConnId,
        stream: StreamId,
        reader: RequestReader,
        request: &Request,
    ) -> Result<(), Refusal> {
        let authority = match &request.kind {
            Kind::Connect { authority } => authority,
            Kind::ExtendedConnect { .. } => {
                self.identify(core, conn, request.authorization.as_ref())?;
                core.totals.refused_not_found += 1;
                return Err(Refusal::new(501));
            }
            Kind::Other { .. } => {
                core.totals.refused_not_found += 1;
                return Err(Refusal::new(404));
            }
        };
        let identity = self.identify(core, conn, request.authorization.as_ref())?;
        if core.draining {
            core.totals.refused_draining += 1;
            return Err(Refusal { status: 503, fields: vec![("retry-after", "1".to_owned())] });
        }
        let Some(port) = authority.port.filter(|&port| port != 0) else {
            core.totals.refused_bad_request += 1;
            return Err(Refusal::new(400));
        };
        let host = match &authority.host {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        };
        if let Err(denied) = self.config.policy.check_name_possible(&host, port) {
            core.totals.refused_denied += 1;
            tracing::debug!("{identity} asked for {host}:{port}: {denied}");
            return Err(Refusal::because(&denied.into()));
        }
        self.resolve(core, conn, stream, reader, host, port, identity)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    fn resolve(
        &mut self,
        core: &mut Core,
        conn: ConnId,
        stream: StreamId,
        reader: RequestReader,
        host: String,
        port: u16,
        identity: Identity,
    ) -> Result<(), Refusal> {
        let mailbox = core.mailbox.clone();
        let done = Box::new(move |outcome| {
            if !mailbox.command(Command::Resolved { conn, stream, outcome }) {
                tracing::warn!("a resolved name was lost: the worker's command queue is full");
            }
        });
        if self.config.resolver.resolve(&host, port, done).is_err() {
            core.totals.refused_limit += 1;
            return Err(Refusal { status: 503, fields: vec![("retry-after", "1".to_owned())] });
        }
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.slots.insert(stream, Slot::Resolving(Box::new(Resolving { reader, host, identity })));
        }
        Ok(())
    }

    /// The identity of the client certificate, else of the token.
    fn identify(
        &self,
        core: &mut Core,
        conn: ConnId,
        credentials: Option<&Credentials>,
    ) -> Result<Identity, Refusal> {
        if let Some(identity) = self.sessions.get(&conn).and_then(|session| session.identity.clone()) {
            return Ok(identity);
        }
        let by_token = credentials
            .filter(|credentials| credentials.scheme == Scheme::Bearer)
            .and_then(|credentials| std::str::from_utf8(credentials.token.expose()).ok())
            .and_then(|token| self.config.users.as_ref()?.authenticate(token));
        by_token.ok_or_else(|| {
            core.totals.refused_unauthenticated += 1;
            // 407 only to a client that speaks to us as its proxy (cli.md).
            match credentials.map(|credentials| credentials.via) {
                Some(Via::ProxyAuthorization) => {
                    Refusal { status: 407, fields: vec![("proxy-authenticate", "Bearer".to_owned())] }
                }
                Some(Via::Authorization) | None => {
                    Refusal { status: 401, fields: vec![("www-authenticate", "Bearer".to_owned())] }
                }
            }
        })
    }

    /// A name was resolved: check each address, connect to the first that is allowed.
    pub(super) fn resolved(
        &mut self,
        core: &mut Core,
        now: Instant,
        conn: ConnId,
        stream: StreamId,
        outcome: Result<Vec<SocketAddr>, ResolveError>,
    ) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        // The client may have given up meanwhile.
        if !matches!(session.slots.get(&stream), Some(Slot::Resolving(_))) {
            return;
        }
        let Some(Slot::Resolving(resolving)) = session.slots.remove(&stream) else { return };
        let Resolving { reader, host, identity } = *resolving;
        let failure = match outcome {
            Ok(addresses) => {
                let mut failure = ConnectFailure::DnsNotFound;
                let mut candidates = VecDeque::new();
                for address in addresses {
                    match self.config.policy.check(Some(&host), address) {
                        Ok(()) => candidates.push_back(address),
                        Err(denied) => {
                            tracing::debug!("{identity} asked for {host} = {address}: {denied}");
                            failure = denied.into();
                        }
                    }
                }
                if candidates.is_empty() {
                    core.totals.refused_denied += 1;
                    failure
                } else {
                    match self.connect_next(core, now, (conn, stream), Box::new(reader), candidates) {
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
        on: (ConnId, StreamId),
        reader: Box<RequestReader>,
        mut candidates: VecDeque<SocketAddr>,
    ) -> Result<(), ConnectFailure> {
        let mut failure = ConnectFailure::Unreachable;
        while let Some(address) = candidates.pop_front() {
            match start_connect(address) {
                Ok(socket) => {
                    let key = core.flows.insert(socket, Phase::Connecting { reader, candidates });
                    if let Some(flow) = core.flows.get_mut(key) {
                        flow.on = Some(on);
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

    /// One step of a flow whose socket or stream has something to say.
    pub(super) fn advance(&mut self, core: &mut Core, now: Instant, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        match &flow.phase {
            Phase::Connecting { .. } if flow.ready.writable || flow.ready.hangup => {
                self.connect_done(core, now, key)
            }
            Phase::Open(_) => self.pump(core, key),
            _ => {}
        }
    }

    /// The TCP handshake ended, one way or the other.
    fn connect_done(&mut self, core: &mut Core, now: Instant, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let outcome = match flow.socket.take_error() {
            Ok(None) => flow.socket.peer_addr().map(|_| ()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => self.open(core, key),
            Err(error) => self.connect_failed(core, now, key, ConnectFailure::classify(&error)),
        }
    }

    fn connect_failed(&mut self, core: &mut Core, now: Instant, key: FlowKey, failure: ConnectFailure) {
        let Some(flow) = core.flows.remove(key) else { return };
        let (Phase::Connecting { reader, candidates }, Some(on)) = (flow.phase, flow.on) else { return };
        drop(flow.socket);
        let failure = if candidates.is_empty() {
            core.totals.refused_upstream += 1;
            failure
        } else {
            match self.connect_next(core, now, on, reader, candidates) {
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
        let Some((_, stream)) = flow.on else { return };
        if let Phase::Connecting { reader, .. } = std::mem::replace(&mut flow.phase, Phase::Moving) {
            let answer = masque::encode_response(200, &[]);
            flow.phase = Phase::Open(Box::new(Splice::new(stream, Reader::Request(*reader), answer)));
            core.totals.flows_opened += 1;
            self.pump(core, key);
        }
    }

    fn pump(&mut self, core: &mut Core, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        let (Phase::Open(splice), Some((conn, stream))) = (&mut flow.phase, flow.on) else { return };
        let Some(mut quic) = core.engine.connection(conn) else { return };
        let progress = splice.pump(&mut quic, &flow.socket, &mut flow.ready, &mut core.arena);
        match progress {
            Progress::Waiting => {}
            Progress::More => core.flows.queue(key),
            Progress::Done => {
                core.totals.finished(splice);
                core.totals.flows_finished += 1;
                core.flows.remove(key);
                self.forget_stream(conn, stream);
            }
            Progress::Broken(broken) => {
                core.totals.finished(splice);
                core.totals.broken(&broken);
                match &broken {
                    Broken::Socket(_) => abandon(&mut quic, stream, Code::H3_CONNECT_ERROR),
                    Broken::Stream => abandon(&mut quic, stream, Code::H3_REQUEST_CANCELLED),
                    Broken::Protocol { code, connection: false } => abandon(&mut quic, stream, *code),
                    Broken::Protocol { code, connection: true } => quic.close(quic_code(*code), b""),
                }
                reset_socket(core, key);
                self.forget_stream(conn, stream);
            }
        }
    }

    fn forget_stream(&mut self, conn: ConnId, stream: StreamId) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.slots.remove(&stream);
        }
    }

    /// Answers without opening anything, and ends the stream.
    fn refuse(&mut self, core: &mut Core, conn: ConnId, stream: StreamId, refusal: Refusal) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let Some(mut quic) = core.engine.connection(conn) else { return };
        let fields: Vec<(&str, &str)> =
            refusal.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut bytes: Bytes = masque::encode_response(refusal.status, &fields);
        // The request's remainder isn't wanted (RFC 9114 section 4.1.1).
        quic.stop(stream, quic_code(Code::H3_NO_ERROR));
        let alive = write_some(&mut quic, stream, &mut bytes);
        if alive && !bytes.is_empty() {
            session.slots.insert(stream, Slot::Answering(bytes));
        } else {
            session.slots.remove(&stream);
            quic.finish(stream);
        }
    }

    /// Says on every connection that this gateway goes away; requests from now on get 503.
    pub(super) fn drain(&mut self, core: &mut Core) {
        for conn in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.drain_one(core, conn);
        }
    }

    fn drain_one(&mut self, core: &mut Core, conn: ConnId) {
        if let (Some(session), Some(mut quic)) = (self.sessions.get_mut(&conn), core.engine.connection(conn))
        {
            // The largest id is a notice, after which requests may still come (RFC 9114 section 5.2); they get 503.
            session.send_goaway(&mut quic, u64::MAX);
        }
    }

    pub(super) fn timers(&mut self, core: &mut Core, now: Instant) -> Option<Ended> {
        for key in core.flows.expired(now) {
            self.connect_failed(core, now, key, ConnectFailure::TimedOut);
        }
        None
    }
}

/// Ends a flow with a TCP reset, so that the upstream sees an error and not an end.
pub(super) fn reset_socket(core: &mut Core, key: FlowKey) {
    if let Some(flow) = core.flows.remove(key) {
        let _ = flow.socket.set_linger(Some(Duration::ZERO));
    }
}

/// A non-blocking TCP socket on its way to `address`.
fn start_connect(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(libc_einprogress()) => Ok(socket),
        Err(error) => Err(error),
    }
}

fn libc_einprogress() -> i32 {
    rustix::io::Errno::INPROGRESS.raw_os_error()
}
