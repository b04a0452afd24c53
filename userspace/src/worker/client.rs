//! The client's role: keep tunnels to the gateway up, accept local connections, ask for their destinations, splice.
//!
//! ```text
//!  pool:  link, link, …     each  Resolving ─► Connecting ─► Up ─(lost)─► Pause ─► Resolving …
//!  flow:  accepted ─► [Socks] ─► Waiting (tunnel, stream credit) ─► Asked ─(2xx)─► Open
//! ```
//! [`pool`] keeps the connections, [`flows`] the local TCP connections; what is heard on a connection arrives here and is
//! given to the one that its stream belongs to.

mod early;
mod flows;
mod ip;
mod link;
mod paths;
mod pool;
mod probe;
mod reverse;
mod sleep;
mod trouble;
mod udp;

pub(super) use self::trouble::explain;
use self::{
    ip::IpClient,
    paths::Changes,
    pool::{NothingLeft, Pool},
    probe::Probing,
    reverse::Reverse,
    udp::UdpSide,
};
pub(crate) use self::{
    ip::IpConfig,
    paths::source_towards,
    probe::{Early, Opening, PathFacts, ProbeConfig, Report},
    reverse::Publication,
    sleep::{Habit, SHORTEST},
};

use super::{
    Ended,
    core::Core,
    datagrams,
    flows::{Pending, Phase},
    poll::{FlowKey, Token},
    session::{Slot, close, quic_code},
};
use crate::{cli::Destination, early::AtClient, socks::Reply};
use ::udp::DatagramSocket;
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

/// The ways to the gateway are looked at this often at most: a host may have routes that change all day.
const PATHS_INTERVAL: Duration = Duration::from_millis(200);

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

    fn is_socks(&self) -> bool {
        matches!(self, Self::Socks(_))
    }
}

/// What the client is to do.
pub(crate) struct ClientConfig {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Where our packets come from, one address a connection; the IP must be one that the gateway's address family fits.
    pub(crate) locals: Vec<SocketAddr>,
    pub(crate) quic: quinn_proto::ClientConfig,
    /// What is kept of the gateway from one connection to the next.
    pub(crate) early: Arc<AtClient>,
    pub(crate) token: Option<String>,
    pub(crate) listens: Vec<Listen>,
    /// `-L .../udp`.
    pub(crate) udp_forwards: Vec<(DatagramSocket, Destination)>,
    /// `-R`.
    pub(crate) publications: Vec<Publication>,
    /// `-W`: our end of the pair that standard input and output are copied to and from.
    pub(crate) stdio: Option<(Socket, Destination)>,
    /// `--tun` or `--lan`: carries IP.
    pub(crate) network: Option<IpConfig>,
    /// `beam ping`.
    pub(crate) probe: Option<ProbeConfig>,
    /// When its tunnels sleep; `None` if something has to reach it.
    pub(crate) sleep: Option<Habit>,
    pub(crate) once: bool,
    pub(crate) retries_max: Option<u32>,
    pub(crate) pause_max: Duration,
    pub(crate) resolver: Arc<Resolver>,
}

/// See the module.
pub(crate) struct Client {
    config: ClientConfig,
    pool: Pool,
    /// Says when the way to the gateway may be another; `None` where the kernel doesn't tell.
    changes: Option<Changes>,
    /// When to look at it next, and when that was last done.
    paths_due: Option<Instant>,
    paths_looked: Option<Instant>,
    waiting: VecDeque<FlowKey>,
    /// Listeners that found no descriptor for a connection, and until when they rest.
    resting: Vec<(Instant, u32)>,
    stdio_flow: Option<FlowKey>,
    ip: Option<IpClient>,
    ended: Option<Ended>,
    /// The value of `proxy-authorization`.
    bearer: Option<String>,
    /// The value of `:authority` where the gateway itself is asked.
    authority: String,
    udp: UdpSide,
    reverse: Reverse,
    probing: Option<Probing>,
}

impl Client {
    pub(crate) fn new(mut config: ClientConfig) -> Self {
        let is_socks = |listen: &Listen| matches!(listen, Listen::Socks(_));
        let has_local_udp = !config.udp_forwards.is_empty() || config.listens.iter().any(is_socks);
        Self {
            ip: config.network.take().map(IpClient::new),
            probing: config.probe.take().map(Probing::new),
            authority: Destination { host: config.host.clone(), port: config.port }.authority(),
            udp: UdpSide::new(has_local_udp),
            reverse: Reverse::new(std::mem::take(&mut config.publications)),
            bearer: config.token.as_ref().map(|token| format!("Bearer {token}")),
            pool: Pool::new(&config.locals, Instant::now(), config.sleep.is_some()),
            config,
            changes: None,
            paths_due: None,
            paths_looked: None,
            waiting: VecDeque::new(),
            resting: Vec::new(),
            stdio_flow: None,
            ended: None,
        }
    }

    pub(super) fn start(&mut self, core: &mut Core, now: Instant) -> io::Result<()> {
        for (index, listen) in self.config.listens.iter().enumerate() {
            listen.listener().set_nonblocking(true)?;
            core.poll.watch_readable(listen.listener(), Token::Listener(index as u32))?;
        }
        self.start_udp(core)?;
        if let Some((socket, to)) = self.config.stdio.take() {
            socket.set_nonblocking(true)?;
            let pending = Pending { to, socks: false, bound: false, early: Vec::new() };
            self.stdio_flow = self.admit(core, now, socket, Phase::Waiting(pending));
        }
        match Changes::open() {
            Ok(changes) => {
                core.poll.watch_readable(&changes, Token::Paths)?;
                self.changes = Some(changes);
            }
            Err(error) => tracing::debug!("changes of addresses and routes go unnoticed: {error}"),
        }
        // All links are due.
        let nothing_left = self.pool.timers(core, now, &self.config);
        self.end_if(nothing_left);
        Ok(())
    }

    /// Up or not, and what for.
    pub(super) fn state(&self) -> (bool, Option<String>) {
        let is_up = self.pool.up_count().0 > 0;
        (is_up, if is_up { None } else { self.pool.waits_for(&self.config) })
    }

    /// How many tunnels are up, of how many.
    pub(super) fn up_count(&self) -> (usize, usize) {
        self.pool.up_count()
    }

    pub(super) fn next_deadline(&self, core: &Core) -> Option<Instant> {
        let rest = self.resting.iter().map(|&(until, _)| until).min();
        let ip = self.ip.as_ref().and_then(|ip| ip.next_deadline(core));
        let (udp, reverse) = (core.udp.next_deadline(), self.reverse.next_deadline());
        let probe = self.probing.as_ref().and_then(Probing::next_deadline);
        [self.pool.next_deadline(), self.paths_due, rest, core.flows.next_deadline(), udp, reverse, ip, probe]
            .into_iter()
            .flatten()
            .min()
    }

    /// The gateway's name was resolved, or not, for one of the links.
    pub(super) fn gateway_resolved(
        &mut self,
        core: &mut Core,
        now: Instant,
        link: u8,
        outcome: Result<Vec<SocketAddr>, ResolveError>,
    ) {
        let nothing_left = self.pool.resolved(core, now, &self.config, link, outcome);
        self.end_if(nothing_left);
        // With a ticket there is somewhere to ask already.
        self.ask_all_waiting(core);
    }

    /// The kernel says that links, addresses or routes have changed: looks at them soon.
    pub(super) fn paths_changed(&mut self, now: Instant) {
        if self.changes.as_ref().is_some_and(Changes::drain) {
            let at = self.paths_looked.map_or(now, |looked| now.max(looked + PATHS_INTERVAL));
            self.paths_due.get_or_insert(at);
        }
    }

    /// The connection is gone. Flows on it are reset, but for those whose bytes have all arrived; those that wait go on
    /// waiting.
    fn closed(&mut self, core: &mut Core, now: Instant, conn: ConnId, reason: &CloseReason) {
        // A gateway that was killed, or is out of reach, has not answered: the next one is asked.
        if matches!(reason, CloseReason::Reset | CloseReason::TimedOut) {
            self.drop_bound(core, conn, &explain(reason));
            self.ask_flows_again(core, conn);
        }
        for key in core.flows.keys_on(conn) {
            if !core.outlives(key, conn) {
                core.totals.flows_reset_by_stream += 1;
                self.drop_flow(core, key, &explain(reason));
            }
        }
        self.udp_connection_ended(core, conn);
        self.reverse_connection_ended(core, conn);
        self.probe_closed(conn);
        let nothing_left = self.pool.closed(core, now, &self.config, conn, reason);
        core.connection_ended(conn);
        self.ip_closed(core, conn);
        self.end_if(nothing_left);
        self.publish(core);
        // The next attempt may have begun, with a ticket.
        self.ask_all_waiting(core);
    }

    /// Ends with the last link.
    fn end_if(&mut self, nothing_left: NothingLeft) {
        if let Some(error) = nothing_left {
            self.ended = Some(Ended::TunnelLost(error));
        }
    }

    pub(super) fn timers(&mut self, core: &mut Core, now: Instant) -> Option<Ended> {
        if self.paths_due.is_some_and(|at| at <= now) {
            (self.paths_due, self.paths_looked) = (None, Some(now));
            self.pool.follow_paths(core, now, &self.config);
        }
        if self.ended.is_none() {
            let nothing_left = self.pool.timers(core, now, &self.config);
            self.end_if(nothing_left);
            self.ask_all_waiting(core);
        }
        self.end_rests(core, now);
        self.ip_timers(core, now);
        self.udp_timers(core, now);
        self.reverse_timers(core, now);
        self.probe_timers(core, now);
        for key in core.flows.expired(now) {
            if matches!(core.flows.get_mut(key), Some(flow) if matches!(flow.phase, Phase::Dialing(_))) {
                self.dial_failed(core, key, "no answer");
                continue;
            }
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
    pub(super) fn drain(&mut self, core: &mut Core) {
        self.drain_udp(core);
        self.drain_reverse(core);
        self.config.listens.clear();
        self.resting.clear();
    }

    pub(super) fn on_event(&mut self, core: &mut Core, now: Instant, conn: ConnId, event: Event) {
        match event {
            Event::Connected { .. } => self.connected(core, conn),
            Event::HandshakeFailed { reason } => {
                self.ask_again(core, conn);
                self.closed(core, now, conn, &reason);
            }
            Event::Closed { reason } => self.closed(core, now, conn, &reason),
            Event::StreamOpened { .. } => self.accept_streams(core, now, conn),
            Event::StreamReadable { id } => self.readable(core, now, conn, id),
            Event::StreamWritable { id } => self.queue_stream(core, conn, id),
            Event::StreamStopped { id, .. } => self.stopped(core, conn, id),
            Event::StreamFinished { id } => {
                if let Some(&Slot::Flow(key)) =
                    self.pool.session_on(conn).and_then(|session| session.slots.get(&id))
                {
                    core.stream_acknowledged(key);
                }
            }
            Event::StreamsAvailable { .. } => {
                self.ask_waiting(core);
                self.ask_ip(core);
                self.ask_udp_waiting(core);
                self.publish(core);
            }
            Event::DatagramsUnblocked => {
                core.udp.unblocked(conn);
                core.ip.unblocked(conn);
                self.reverse_unblocked(core, conn);
            }
            Event::DatagramReadable => {
                if let Some(session) = self.pool.session_on(conn) {
                    datagrams::receive(core, session, conn);
                }
                self.reverse_frames(core);
            }
            _ => {}
        }
    }

    fn accept_streams(&mut self, core: &mut Core, now: Instant, conn: ConnId) {
        while let Some(stream) = core.engine.connection(conn).and_then(|mut quic| quic.accept(Dir::Uni)) {
            let Some(session) = self.pool.session_on(conn) else { return };
            if let Err(error) = session.add_uni(stream) {
                if let Some(mut quic) = core.engine.connection(conn) {
                    close(&mut quic, &error);
                }
                return;
            }
            self.readable(core, now, conn, stream);
        }
        if let Some(mut quic) = core.engine.connection(conn)
            && quic.accept(Dir::Bi).is_some()
        {
            // A server opens no bidirectional streams (RFC 9114 section 6.1).
            quic.close(quic_code(Code::H3_STREAM_CREATION_ERROR), b"server-initiated bidirectional stream");
        }
    }

    fn readable(&mut self, core: &mut Core, now: Instant, conn: ConnId, stream: StreamId) {
        let Some(session) = self.pool.session_on(conn) else { return };
        match session.slots.get(&stream) {
            Some(Slot::Uni) => {
                let Some(mut quic) = core.engine.connection(conn) else { return };
                match session.read_uni(&mut quic, stream) {
                    Ok(events) => events.iter().for_each(|event| self.heard(core, now, conn, event)),
                    Err(error) => close(&mut quic, &error),
                }
            }
            Some(&Slot::Flow(key)) => core.flows.queue(key),
            Some(&Slot::Ip(key)) => core.ip.queue(key),
            Some(Slot::IpAsked) => self.hear_ip_answer(core, conn, stream),
            Some(&Slot::Udp(key)) => core.udp.queue(key),
            Some(&Slot::Reverse(index)) => self.advance_reverse(core, index),
            Some(Slot::Probe) => self.hear_probe(core, (conn, stream)),
            _ => {}
        }
    }

    /// What the gateway says on its control stream.
    fn heard(&mut self, core: &mut Core, now: Instant, conn: ConnId, event: &H3Event) {
        match event {
            H3Event::Settings(settings) => {
                self.config.early.settings.put(settings);
                self.pool.heard(core, now, &self.config, conn);
                self.ask_ip(core);
                self.say_datagram_size(core, conn);
                self.ask_udp_waiting(core);
                self.publish(core);
            }
            H3Event::GoAway { .. } if self.pool.going_away(conn) => {
                tracing::info!("the gateway is draining: running flows finish, new ones will be refused");
            }
            _ => {}
        }
    }

    fn queue_stream(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        match self.pool.session_on(conn).and_then(|session| session.slots.get(&stream)) {
            Some(&Slot::Flow(key)) => core.flows.queue(key),
            Some(&Slot::Ip(key)) => core.ip.queue(key),
            Some(Slot::IpAsked) => self.hear_ip_answer(core, conn, stream),
            Some(&Slot::Udp(key)) => core.udp.queue(key),
            Some(&Slot::Reverse(index)) => self.advance_reverse(core, index),
            Some(Slot::Probe) => self.hear_probe(core, (conn, stream)),
            _ => {}
        }
    }

    /// The gateway reads no more. With an answer pending that is part of a refusal, which then tells why.
    fn stopped(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        let key = match self.pool.session_on(conn).and_then(|session| session.slots.get(&stream)) {
            Some(&Slot::Flow(key)) => key,
            // What it reads next is the answer, or the end.
            Some(&Slot::Udp(key)) => return core.udp.queue(key),
            Some(&Slot::Reverse(index)) => return self.advance_reverse(core, index),
            _ => return,
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

/// Names of what a client drops of its local senders', for tests.
#[cfg(test)]
pub(super) fn udp_drop_names() -> impl Iterator<Item = &'static str> {
    udp::Drops::default().each().into_iter().map(|(name, _)| name)
}
