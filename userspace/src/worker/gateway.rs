//! The gateway's role: accept tunnels, check who asks and where to, connect to upstreams, splice.
//!
//! ```text
//!  stream opened ─► Head ─(HEADERS)─► who? where? ─► Resolving ─► Connecting ─► Open
//!                     └── refusals: 400 401 403 404 407 429 431 501 502 503 504 ──► Answering
//! ```

mod doze;
mod extended;
mod identity;
mod ip;
mod listen;
mod revoke;
mod udp;
mod upstream;

pub(crate) use self::listen::claims::Claims;
pub(super) use self::upstream::start_connect;
use self::{extended::Extended, listen::Listens};
use super::{
    account::Accounts,
    core::{Core, End},
    datagrams,
    flow::Broken,
    flows::Phase,
    ledger::FlowPermit,
    mail::Command,
    poll::FlowKey,
    session::{
        Answering, Pending, Resolving, Session, Slot, Transport, abandon, close, gateway_h3_config,
        quic_code, write_some,
    },
    sleepers::Sleepers,
    udp::Gone,
};
use ::upstream::{
    failure::ConnectFailure,
    policy::Policy,
    resolver::{Names, Resolver},
    users::{ClientPolicy, Users},
};
use bytes::Bytes;
use cache::{Kind as _, LevelReport, Local};
pub(super) use identity::Asker;
pub(crate) use identity::Authorities;
use masque::{Code, Host, Item, Kind, MessageError, MessageReader, Request, RequestReader, Scope, status};
pub(crate) use revoke::Revoked;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tunnel::{CloseReason, ConnId, Dir, Event, Read, RetryPolicy, StreamId, VarInt};

/// What all workers of a gateway share; never changed, only replaced.
pub(crate) struct GatewayConfig {
    pub(crate) users: Option<Users>,
    /// Outlives every replacement.
    pub(crate) accounts: Arc<Accounts>,
    /// So do they.
    pub(crate) sleepers: Arc<Sleepers>,
    pub(crate) policy: Policy,
    /// Where everybody may listen (`--allow-listen`), beside what the users file says.
    pub(crate) listen: ClientPolicy,
    pub(crate) resolver: Arc<Resolver>,
    /// Turns a verified client certificate into a name.
    pub(crate) certificate_name: fn(&rustls::pki_types::CertificateDer<'_>) -> Option<String>,
    /// Who verifies it (`--client-ca`).
    pub(crate) authorities: Authorities,
}

impl GatewayConfig {
    /// The same with other rules.
    pub(crate) fn renewed(&self, Rules { users, policy, listen, authorities }: Rules) -> Self {
        let (accounts, sleepers, resolver) =
            (self.accounts.clone(), self.sleepers.clone(), self.resolver.clone());
        let certificate_name = self.certificate_name;
        Self { users, accounts, sleepers, policy, listen, resolver, certificate_name, authorities }
    }
}

/// The part of a [`GatewayConfig`] that flags and files say.
pub(crate) struct Rules {
    pub(crate) users: Option<Users>,
    pub(crate) policy: Policy,
    pub(crate) listen: ClientPolicy,
    pub(crate) authorities: Authorities,
}

/// Numbers of a worker that may change while it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections_max: usize,
    pub(crate) retry: RetryPolicy,
    pub(crate) udp_idle_timeout: Duration,
}

/// See the module.
pub(crate) struct Gateway {
    config: Arc<GatewayConfig>,
    /// Boxed: half of a table that doubles is empty.
    sessions: HashMap<ConnId, Box<Session>>,
    /// Sessions that had not shown who they are when they came, oldest first.
    unproven: VecDeque<ConnId>,
    /// Names being resolved, by when the client is told that it takes too long.
    lookups: VecDeque<(Instant, ConnId, StreamId)>,
    /// This worker's table of names.
    names: Local<Names>,
    listens: Listens,
    /// What [`Pending`] counts.
    pending: Arc<AtomicUsize>,
    /// The listeners of all workers.
    claims: Arc<Claims>,
}

/// Sessions on one worker that have not shown who they are. Beyond it the oldest is closed: strangers who merely finish
/// a handshake must not fill the table, nor the memory (each may hold 32 half-read header sections of 16 KiB).
const UNPROVEN_MAX: usize = 1024;
/// Names that one connection may have resolved at once: the resolver's threads are everybody's.
const LOOKUPS_PER_CONNECTION_MAX: u32 = 128;
/// How long a name may take; then 504.
const LOOKUP_LIMIT: Duration = Duration::from_secs(15);
/// An answer that opens nothing.
pub(super) struct Refusal {
    status: u16,
    fields: Vec<(&'static str, String)>,
}

/// What an accepted request wants to reach.
struct Wanted {
    conn: ConnId,
    stream: StreamId,
    /// What follows the header section.
    reader: RequestReader,
    host: Host,
    /// Not 0.
    port: u16,
    asker: Asker,
    permit: FlowPermit,
    transport: Transport,
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
    pub(crate) fn new(config: Arc<GatewayConfig>, claims: Arc<Claims>) -> Self {
        Self {
            names: config.resolver.local(),
            config,
            sessions: HashMap::new(),
            unproven: VecDeque::new(),
            lookups: VecDeque::new(),
            listens: Listens::default(),
            pending: Arc::default(),
            claims,
        }
    }

    pub(super) fn on_event(&mut self, core: &mut Core, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => {
                self.meet(core, conn);
            }
            Event::Closed { reason } | Event::HandshakeFailed { reason } => self.closed(core, conn, &reason),
            Event::StreamOpened { .. } => {
                // Early data comes before the handshake is done. That it comes is the permission to run it: see `early`.
                if self.meet(core, conn) {
                    core.totals.early_connections += 1;
                }
                self.accept_streams(core, conn);
            }
            Event::StreamReadable { id } => self.readable(core, conn, id),
            Event::StreamWritable { id } => self.writable(core, conn, id),
            Event::StreamStopped { id, code } => self.stopped(core, conn, id, code),
            Event::StreamFinished { id } => self.acknowledged(core, conn, id),
            Event::DatagramReadable => {
                if let Some(session) = self.sessions.get_mut(&conn) {
                    datagrams::receive(core, session, conn);
                }
                self.listen_frames(core);
            }
            Event::DatagramsUnblocked => {
                core.udp.unblocked(conn);
                core.ip.unblocked(conn);
                self.listens_unblocked(core, conn);
            }
            // A migration asks nothing of the layers above.
            _ => {}
        }
    }

    /// Makes a session for a connection that has none. True if it has one now, and hadn't.
    fn meet(&mut self, core: &mut Core, conn: ConnId) -> bool {
        if self.sessions.contains_key(&conn) {
            return false;
        }
        let Some(mut quic) = core.engine.connection(conn).filter(|quic| !quic.is_closed()) else {
            return false;
        };
        let h3 = masque::Connection::server(gateway_h3_config());
        match Session::open(h3, &mut quic) {
            Ok(mut session) => {
                // Of a resumed session: the one of the connection that its ticket is from.
                session.since = Some(core.now);
                let chain = quic.peer_identity();
                let shown = self.config.recognise(&chain);
                let is_by_key = shown.as_ref().is_some_and(|(_, key)| key.is_some());
                // A resumed session brings the certificate of the first handshake, which nobody has looked at since.
                if !is_by_key && chain.first().is_some_and(crate::identity::is_expired) {
                    quic.close(quic_code(Code::H3_NO_ERROR), b"the client's certificate has expired");
                    core.totals.closed_revoked += 1;
                    return false;
                }
                session.authorities = self.config.authorities.file.clone();
                (session.identity, session.key) =
                    shown.map_or((None, None), |(identity, key)| (Some(identity), key));
                match &session.identity {
                    Some(_) => quic.permit_streams(identity::STREAMS_MAX),
                    None => self.unproven.push_back(conn),
                }
                self.sessions.insert(conn, Box::new(session));
                self.limit_unproven(core);
                if core.draining {
                    self.drain_one(core, conn);
                }
                true
            }
            Err(error) => {
                close(&mut quic, &error);
                false
            }
        }
    }

    /// Gives back room that a crowd of sessions has left.
    pub(super) fn tidy(&mut self) {
        self.sessions.shrink_to_fit();
        self.unproven.shrink_to_fit();
    }

    /// Closes the oldest sessions that have not shown who they are, where there are too many.
    fn limit_unproven(&mut self, core: &mut Core) {
        if self.unproven.len() <= UNPROVEN_MAX {
            return;
        }
        let sessions = &self.sessions;
        self.unproven.retain(|conn| sessions.get(conn).is_some_and(|session| !session.is_proven()));
        while self.unproven.len() > UNPROVEN_MAX {
            let Some(oldest) = self.unproven.pop_front() else { return };
            if let Some(mut quic) = core.engine.connection(oldest) {
                core.totals.closed_unproven += 1;
                quic.close(quic_code(Code::H3_EXCESSIVE_LOAD), b"too many connections without a request");
            }
        }
    }

    fn closed(&mut self, core: &mut Core, conn: ConnId, reason: &CloseReason) {
        if let Some(session) = self.sessions.remove(&conn) {
            self.left(core, conn, &session, reason);
            datagrams::count_lost(core, &session, conn);
            tracing::debug!("tunnel closed: {reason}");
        }
        core.connection_ended(conn);
        for key in core.flows.keys_on(conn) {
            if !core.outlives(key, conn) {
                core.totals.flows_reset_by_stream += 1;
                core.end_flow(key, End::Reset);
            }
        }
        for key in core.udp.keys_on(conn) {
            core.end_udp(key, &Gone::Lost);
        }
        self.listens_ended(core, conn);
        for key in core.ip.keys_on(conn) {
            self.end_ip(core, key, Some(&Broken::Stream));
        }
    }

    fn accept_streams(&mut self, core: &mut Core, conn: ConnId) {
        for dir in [Dir::Uni, Dir::Bi] {
            while let Some(stream) = core.engine.connection(conn).and_then(|mut quic| quic.accept(dir)) {
                let Some(session) = self.sessions.get_mut(&conn) else { return };
                if dir == Dir::Bi {
                    session.datagrams.request_opened(stream);
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
                match session.read_uni(&mut quic, stream) {
                    Ok(events) => self.heard(core, conn, &events),
                    Err(error) => close(&mut quic, &error),
                }
            }
            Some(Slot::Head(_)) => self.read_head(core, conn, stream),
            Some(&Slot::Flow(key)) => core.flows.queue(key),
            Some(&Slot::Udp(key)) => core.udp.queue(key),
            Some(Slot::Listen) => self.pump_listen(core, (conn, stream)),
            Some(&Slot::Ip(key)) => core.ip.queue(key),
            // What follows the header section waits in QUIC's receive window.
            Some(
                Slot::Resolving(_) | Slot::Answering(_) | Slot::Reverse(_) | Slot::IpAsked | Slot::Probe,
            )
            | None => {}
        }
    }

    fn writable(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        match session.slots.get_mut(&stream) {
            Some(&mut Slot::Flow(key)) => core.flows.queue(key),
            Some(&mut Slot::Udp(key)) => core.udp.queue(key),
            Some(Slot::Listen) => self.pump_listen(core, (conn, stream)),
            Some(&mut Slot::Ip(key)) => core.ip.queue(key),
            Some(Slot::Answering(answer)) => {
                let Some(mut quic) = core.engine.connection(conn) else { return };
                let alive = write_some(&mut quic, stream, &mut answer.rest);
                if !alive || answer.rest.is_empty() {
                    session.slots.remove(&stream);
                    quic.finish(stream);
                }
            }
            _ => {}
        }
    }

    fn acknowledged(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        let slot = self.sessions.get(&conn).and_then(|session| session.slots.get(&stream));
        if let Some(&Slot::Flow(key)) = slot {
            core.stream_acknowledged(key);
        }
    }

    /// The client reads no more: the flow ends, its socket is reset (RFC 9114 section 4.4).
    fn stopped(&mut self, core: &mut Core, conn: ConnId, stream: StreamId, code: VarInt) {
        let Some(slot) = self.sessions.get_mut(&conn).and_then(|session| session.slots.remove(&stream))
        else {
            return;
        };
        match slot {
            Slot::Flow(key) => {
                core.totals.flows_reset_by_stream += 1;
                core.end_flow(key, End::Reset);
            }
            Slot::Udp(key) => {
                // What came before the end goes out before it.
                let in_order = code == quic_code(Code::H3_NO_ERROR);
                let gone = core.pump_udp(key).unwrap_or(if in_order { Gone::Finished } else { Gone::Lost });
                core.end_udp(key, &gone);
                return;
            }
            Slot::Listen => return self.listener_stopped(core, (conn, stream)),
            Slot::Ip(key) => self.end_ip(core, key, Some(&Broken::Stream)),
            _ => {}
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
        if let Kind::Other { path, .. } = &request.kind {
            return Err(self.answer_no_tunnel(core, conn, request, path));
        }
        let asker = self.identify(core, conn, request.authorization.as_ref())?;
        if core.draining {
            core.totals.refused_draining += 1;
            return Err(Refusal { status: 503, fields: vec![("retry-after", "1".to_owned())] });
        }
        let permit = asker.open_flow(core)?;
        let authority = match &request.kind {
            Kind::Connect { authority } => authority,
            Kind::ExtendedConnect { protocol, scheme: _, authority: _, path } => {
                let extended = Extended { conn, stream, reader, request, path, asker, permit };
                return self.take_extended(core, protocol, extended);
            }
            Kind::Other { .. } => return Err(Refusal::new(404)),
        };
        let Some(port) = authority.port.filter(|&port| port != 0) else {
            core.totals.refused_bad_request += 1;
            return Err(Refusal::new(400));
        };
        let host = authority.host.clone();
        self.reach(
            core,
            Wanted { conn, stream, reader, host, port, asker, permit, transport: Transport::Tcp },
        )
    }

    /// A request for no tunnel. Who shows credentials learns whether they hold; to strangers there is nothing here but
    /// the answer to `OPTIONS *`, by which `beam ping` and others measure (RFC 9110 section 9.3.7).
    fn answer_no_tunnel(&mut self, core: &mut Core, conn: ConnId, request: &Request, path: &str) -> Refusal {
        let by_certificate = self.sessions.get(&conn).is_some_and(|session| session.identity.is_some());
        if (by_certificate || request.authorization.is_some())
            && let Err(refusal) = self.identify(core, conn, request.authorization.as_ref())
        {
            return refusal;
        }
        if request.method == "OPTIONS" && path == "*" {
            return Refusal::new(status::NO_CONTENT);
        }
        core.totals.refused_not_found += 1;
        Refusal::new(404)
    }

    /// Starts the resolution of the destination's name, unless no address of it could be allowed.
    fn reach(&mut self, core: &mut Core, wanted: Wanted) -> Result<(), Refusal> {
        let Wanted { conn, stream, reader, host, port, asker, permit, transport } = wanted;
        // An address needs no lookup.
        let is_name = matches!(host, Host::Name(_));
        let lookups = self.sessions.get(&conn).map_or(0, |session| session.lookups);
        if is_name && lookups >= LOOKUPS_PER_CONNECTION_MAX {
            core.totals.refused_limit += 1;
            return Err(Refusal { status: 429, fields: vec![("retry-after", "1".to_owned())] });
        }
        let host = match host {
            Host::Name(name) => name,
            Host::Address(address) => address.to_string(),
        };
        if let Err(denied) = asker.policy.check_name_possible(&self.config.policy, &host, port) {
            core.totals.refused_denied += 1;
            tracing::debug!("{asker} asked for {host}:{port}: {denied}");
            return Err(Refusal::because(&denied.into()));
        }
        let mailbox = core.mailbox.clone();
        let done = Box::new(move |outcome| {
            if !mailbox.command(Command::Resolved { conn, stream, outcome }) {
                tracing::warn!("a resolved name was lost: the worker's command queue is full");
            }
        });
        if self.config.resolver.resolve_with(&mut self.names, &host, port, done).is_err() {
            core.totals.refused_limit += 1;
            return Err(Refusal { status: 503, fields: vec![("retry-after", "1".to_owned())] });
        }
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.lookups += 1;
            let since = core.now;
            let _pending = Pending::among(&self.pending);
            let resolving = Resolving { reader, host, port, asker, permit, transport, since, _pending };
            session.slots.insert(stream, Slot::Resolving(Box::new(resolving)));
            self.lookups.push_back((core.now + LOOKUP_LIMIT, conn, stream));
        }
        Ok(())
    }

    /// One step of a flow whose socket or stream has something to say.
    pub(super) fn advance(&mut self, core: &mut Core, now: Instant, key: FlowKey) {
        let Some(flow) = core.flows.get_mut(key) else { return };
        match &flow.phase {
            Phase::Connecting { .. } if flow.ready.writable || flow.ready.hangup => {
                self.connect_done(core, now, key)
            }
            Phase::Open(_) | Phase::Last(_) => self.pump(core, key),
            _ => {}
        }
    }

    fn pump(&mut self, core: &mut Core, key: FlowKey) {
        let on = core.flows.get_mut(key).and_then(|flow| flow.on);
        if core.pump(key).is_some()
            && let Some((conn, stream)) = on
        {
            self.forget_stream(conn, stream);
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
        core.datagrams.early += session.datagrams.take_early(stream).len() as u64;
        let fields: Vec<(&str, &str)> =
            refusal.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut bytes: Bytes = masque::encode_response(refusal.status, &fields);
        // The request's remainder isn't wanted (RFC 9114 section 4.1.1).
        quic.stop(stream, quic_code(Code::H3_NO_ERROR));
        let alive = write_some(&mut quic, stream, &mut bytes);
        if alive && !bytes.is_empty() {
            let answer = Answering { rest: bytes, _pending: Pending::among(&self.pending) };
            session.slots.insert(stream, Slot::Answering(Box::new(answer)));
        } else {
            session.slots.remove(&stream);
            quic.finish(stream);
        }
    }

    /// Says on every connection that this gateway goes away; requests from now on get 503.
    pub(super) fn drain(&mut self, core: &mut Core) {
        core.udp.drain(core.now);
        self.drain_listens(core);
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

    /// Whose connection it is, and since when there is a tunnel.
    pub(super) fn about(&self, conn: ConnId) -> (Option<String>, Option<Instant>) {
        let session = self.sessions.get(&conn);
        let membership = session.and_then(|session| session.membership.as_ref());
        (
            membership.map(|membership| membership.client().to_string()),
            session.and_then(|session| session.since),
        )
    }

    pub(super) fn next_deadline(&self, core: &Core) -> Option<Instant> {
        let lookup = self.lookups.front().map(|&(at, ..)| at);
        let deadlines =
            [lookup, core.flows.next_deadline(), core.udp.next_deadline(), self.listens.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// This worker's part of the caches.
    pub(super) fn caches(&self) -> Vec<(&'static str, LevelReport)> {
        self.names.report().map(|report| (Names::NAME, report)).into_iter().collect()
    }

    /// Requests that are neither refused nor flows yet.
    pub(super) fn pending_count(&self) -> usize {
        self.pending.load(Relaxed)
    }

    pub(super) fn timers(&mut self, core: &mut Core, now: Instant) {
        for key in core.flows.expired(now) {
            match core.flows.get_mut(key).map(|flow| &flow.phase) {
                Some(Phase::Connecting { .. }) => {
                    self.connect_failed(core, now, key, ConnectFailure::TimedOut)
                }
                _ => {
                    core.totals.flows_reset_by_socket += 1;
                    core.end_flow(key, End::Reset);
                }
            }
        }
        for key in core.udp.idle(now) {
            self.end_udp(core, key, &Gone::Idle);
        }
        self.listen_timers(core, now);
        while let Some(&(at, conn, stream)) = self.lookups.front()
            && at <= now
        {
            self.lookups.pop_front();
            let slot = self.sessions.get(&conn).and_then(|session| session.slots.get(&stream));
            if matches!(slot, Some(Slot::Resolving(_))) {
                core.totals.refused_upstream += 1;
                self.refuse(core, conn, stream, Refusal::because(&ConnectFailure::DnsTemporary));
            }
        }
    }
}
