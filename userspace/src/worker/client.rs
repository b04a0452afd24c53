//! The client's role: keep a tunnel to the gateway up, accept local connections, ask for their destinations, splice.
//!
//! ```text
//!  link:  Resolving ─► Connecting ─► Up ─(lost)─► Pause ─► Resolving …
//!  flow:  accepted ─► [Socks] ─► Waiting (tunnel, stream credit) ─► Asked ─(2xx)─► Open
//! ```

mod flows;
mod trouble;

use self::trouble::{explain, is_verification_failure, no_answer};

use super::{
    Ended,
    core::Core,
    datagrams,
    flows::{Pending, Phase},
    mail::Command,
    poll::{FlowKey, Token},
    session::{Session, Slot, close, h3_config, quic_code},
};
use crate::{cli::Destination, socks::Reply};
use masque::{Code, Event as H3Event};
use socket2::Socket;
use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::{CloseReason, ConnId, Dir, Event, StreamId};
use upstream::resolver::{ResolveError, Resolver};

/// First pause before a reconnect; it doubles up to the maximum that the user sets.
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// A gateway that has not finished the handshake by then is taken for absent.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

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
    Connecting {
        conn: ConnId,
        remote: SocketAddr,
        until: Instant,
        rest: VecDeque<SocketAddr>,
    },
    Up {
        conn: ConnId,
        session: Box<Session>,
        remote: SocketAddr,
        accepted: bool,
        going_away: bool,
    },
    Pause {
        until: Instant,
    },
    /// Nothing more is tried.
    Over,
}

/// See the module.
pub(crate) struct Client {
    config: ClientConfig,
    link: Link,
    /// Attempts since the tunnel was last up.
    attempts: u32,
    last_error: Option<String>,
    waiting: VecDeque<FlowKey>,
    /// Listeners that found no descriptor for a connection, and until when they rest.
    resting: Vec<(Instant, u32)>,
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
            resting: Vec::new(),
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
            Link::Up { accepted: true, .. } => return (true, None),
            Link::Up { remote, .. } => format!("a word from {remote}"),
            Link::Over => "the end".to_owned(),
            Link::Resolving => format!("resolving {}", self.config.host),
            Link::Connecting { remote, .. } => format!("handshake with {remote}"),
            Link::Pause { .. } => "pause before the next attempt".to_owned(),
        };
        let why = self.last_error.as_ref().map_or(String::new(), |error| format!("; last error: {error}"));
        (false, Some(format!("{waits}{why}")))
    }

    pub(super) fn next_deadline(&self, core: &Core) -> Option<Instant> {
        let link = match self.link {
            Link::Connecting { until, .. } | Link::Pause { until } => Some(until),
            Link::Resolving | Link::Up { .. } | Link::Over => None,
        };
        let rest = self.resting.iter().map(|&(until, _)| until).min();
        [link, rest, core.flows.next_deadline()].into_iter().flatten().min()
    }

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
                let host = &self.config.host;
                let error = format!("gateway name {host}: {error}; see: getent hosts {host}");
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
                    let until = now + HANDSHAKE_LIMIT;
                    self.link = Link::Connecting { conn, remote, until, rest: candidates };
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
        let h3 = masque::Connection::client(h3_config());
        match Session::open(h3, &mut quic) {
            Ok(session) => {
                let session = Box::new(session);
                self.link = Link::Up { conn, session, remote, accepted: false, going_away: false };
                self.ask_waiting(core);
            }
            Err(error) => close(&mut quic, &error),
        }
    }

    /// The connection is gone. Flows on it are reset, but for those whose bytes have all arrived; those that wait go on
    /// waiting.
    fn closed(&mut self, core: &mut Core, now: Instant, conn: ConnId, reason: &CloseReason) {
        for key in core.flows.keys_on(conn) {
            if !core.outlives(key, conn) {
                core.totals.flows_reset_by_stream += 1;
                self.drop_flow(core, key, &explain(reason));
            }
        }
        core.connection_ended(conn);
        let fatal = is_verification_failure(reason);
        match &mut self.link {
            Link::Connecting { conn: of, rest, remote, .. } if *of == conn => {
                let error = format!("gateway {} ({remote}): {}", self.config.host, explain(reason));
                let rest = std::mem::take(rest);
                self.not_reached(core, now, error, rest, fatal);
            }
            Link::Up { conn: of, accepted, remote, .. } if *of == conn => {
                let host = &self.config.host;
                let error = if *accepted {
                    format!("tunnel to {host} ended: {}", explain(reason))
                } else {
                    format!("gateway {host} ({remote}): {}", explain(reason))
                };
                self.link_lost(now, error, fatal);
            }
            _ => {}
        }
    }

    /// One address did not lead to a tunnel.
    fn not_reached(
        &mut self,
        core: &mut Core,
        now: Instant,
        error: String,
        rest: VecDeque<SocketAddr>,
        fatal: bool,
    ) {
        if rest.is_empty() || fatal {
            self.link_lost(now, error, fatal);
        } else {
            tracing::warn!("{error}; trying the next address");
            self.connect(core, now, rest);
        }
    }

    /// Gives up on a handshake that takes too long.
    fn handshake_expired(&mut self, core: &mut Core, now: Instant) {
        let Link::Connecting { conn, remote, rest, .. } = &mut self.link else { return };
        let error = no_answer(&self.config.host, *remote, HANDSHAKE_LIMIT);
        let (conn, rest) = (*conn, std::mem::take(rest));
        if let Some(mut quic) = core.engine.connection(conn) {
            quic.close(quic_code(Code::H3_NO_ERROR), b"");
        }
        self.not_reached(core, now, error, rest, false);
    }

    /// Pauses before the next attempt, or gives up.
    fn link_lost(&mut self, now: Instant, error: String, fatal: bool) {
        let exhausted = self.config.retries_max.is_some_and(|max| self.attempts > max);
        if fatal || self.config.once || exhausted {
            self.ended = Some(Ended::TunnelLost(error));
            self.link = Link::Over;
            return;
        }
        let pause = PAUSE_FIRST.saturating_mul(1 << self.attempts.min(16)).min(self.config.pause_max);
        tracing::warn!("{error}; next attempt in {:.1} s", pause.as_secs_f64());
        self.last_error = Some(error);
        self.link = Link::Pause { until: now + pause };
    }

    pub(super) fn timers(&mut self, core: &mut Core, now: Instant) -> Option<Ended> {
        match self.link {
            Link::Pause { until } if until <= now && self.ended.is_none() => self.resolve(core, now),
            Link::Connecting { until, .. } if until <= now => self.handshake_expired(core, now),
            _ => {}
        }
        self.end_rests(core, now);
        for key in core.flows.expired(now) {
            tracing::warn!(
                "a local connection waited too long for the gateway, or for its reader, and was closed"
            );
            self.refuse_flow(core, key, Reply::GeneralFailure);
        }
        // What has arrived is delivered before the end.
        if self.ended.is_some() && core.flows.any_last() {
            return None;
        }
        self.ended.take()
    }

    /// Accepts nothing more. Closing the listeners takes them out of the epoll, too.
    pub(super) fn drain(&mut self) {
        self.config.listens.clear();
        self.resting.clear();
    }

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
            Event::StreamFinished { id } => {
                if let Some(&Slot::Flow(key)) =
                    self.session_on(conn).and_then(|session| session.slots.get(&id))
                {
                    core.stream_acknowledged(key);
                }
            }
            Event::StreamsAvailable { .. } => self.ask_waiting(core),
            Event::DatagramReadable => {
                if let Some(session) = self.session_on(conn) {
                    datagrams::receive(core, session, conn);
                }
            }
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
        let Some(session) = self.session_on(conn) else { return };
        match session.slots.get(&stream) {
            Some(Slot::Uni) => {
                let Some(mut quic) = core.engine.connection(conn) else { return };
                match session.read_uni(&mut quic, stream) {
                    Ok(events) => events.iter().for_each(|event| self.heard(core, event)),
                    Err(error) => close(&mut quic, &error),
                }
            }
            Some(&Slot::Flow(key)) => core.flows.queue(key),
            _ => {}
        }
    }

    /// What the gateway says on its control stream.
    fn heard(&mut self, core: &mut Core, event: &H3Event) {
        let Link::Up { remote, accepted, going_away, .. } = &mut self.link else { return };
        match event {
            // Its first word. Only now is it sure that the gateway has taken us: with TLS 1.3 a client's handshake is
            // complete before its certificate is judged.
            H3Event::Settings(_) => {
                *accepted = true;
                core.totals.reconnects += u64::from(self.ready_said);
                self.ready_said = true;
                self.attempts = 0;
                self.last_error = None;
                tracing::info!("ready: tunnel to {} ({remote}) is up", self.config.host);
            }
            H3Event::GoAway { .. } if !*going_away => {
                *going_away = true;
                tracing::info!("the gateway is draining: running flows finish, new ones will be refused");
            }
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
        // An open flow goes on in the other direction. RFC 9000 section 3.5: the stopped one is reset.
        if let Some(flow) = core.flows.get_mut(key)
            && let Phase::Open(splice) = &mut flow.phase
            && let Some(mut quic) = core.engine.connection(conn)
        {
            quic.reset(stream, quic_code(Code::H3_REQUEST_CANCELLED));
            splice.stopped();
        }
    }
}
