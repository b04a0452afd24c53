//! A worker: one pinned thread that owns a NIC queue, its connections, their timers, their flows and its memory.
//!
//! ```text
//!   ports ─► receive ─► engine.run ─► sessions (HTTP/3) ─► flows ⇄ sockets
//!     ▲        │ not ours: hand over                           │
//!     └────────┴──────────── transmit ◄── engine ◄─────────────┘
//! ```
//! Workers share nothing but bounded queues ([`mail`]). A worker that has nothing to do sleeps in one epoll until a
//! packet, a socket, a letter or a timer needs it; [`Worker::run`] is the whole life of one.

pub(crate) mod account;
mod arena;
pub(crate) mod bench;
mod bucket;
mod capture;
mod churn;
mod client;
mod core;
mod datagrams;
mod fair;
mod flow;
mod flows;
mod gateway;
pub(crate) mod ip;
mod ledger;
pub(crate) mod mail;
pub(crate) mod meters;
pub(crate) mod poll;
pub(crate) mod ports;
mod queue;
mod reverse;
mod session;
pub(crate) mod sleepers;
pub(crate) mod snapshot;
pub(crate) mod tables;
mod udp;

pub(crate) use client::{Client, ClientConfig, IpConfig, Listen, Publication, source_towards};
pub(crate) use client::{Early, Opening, PathFacts, ProbeConfig, Report};
pub(crate) use client::{Habit, SHORTEST as SHORTEST_SLEEP};
pub(crate) use gateway::{Authorities, Claims, Gateway, GatewayConfig, Limits, Revoked, Rules};
pub(crate) use session::gateway_h3_config;

use self::{
    core::Core,
    mail::{Command, Handed, Mailbox},
    meters::Meter,
    poll::{Poll, Ready, Token},
    ports::Ports,
    snapshot::WorkerSnapshot,
};
use crate::{ablation::Ablation, allocator, memory::MemoryLimit, protection::ProtectionStatus};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::{ConnId, Engine, Event, Stats, transport::TransportOptions};

/// What a worker does with its connections.
pub(crate) enum Role {
    /// Accepts tunnels and connects their flows to upstreams.
    Gateway(Box<Gateway>),
    /// Opens a tunnel and feeds local connections into it.
    Client(Box<Client>),
    /// Measures, or is measured: `beam bench`.
    Bench(Box<bench::Bench>),
}

/// How a worker ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As asked.
    Stopped,
    /// The client's tunnel ended and is not to be opened again.
    TunnelLost(String),
    /// A port or the epoll broke for good.
    Broken(io::Error),
}

/// See the module.
pub(crate) struct Worker {
    core: Core,
    ports: Ports,
    role: Role,
    mailbox: Mailbox,
    ready: Vec<Ready>,
    /// Frames that another worker handed over, taken as one burst. Empty between turns.
    handed: Vec<Handed>,
    loops: u64,
    sleeps: u64,
    /// When the present turn began; `None` once its time was taken.
    turn_began: Option<Instant>,
    /// The timer that it sleeps for.
    asleep_until: Option<Instant>,
    /// When to look at round trips again.
    sample_at: Instant,
    /// Connections that come and go.
    churn: churn::Churn,
    /// A gateway's limit, and the last look at it that was heeded.
    memory: Option<(Arc<MemoryLimit>, u32)>,
    /// Never sleep: latency for a whole CPU.
    busy_poll: bool,
    ended: Option<Ended>,
}

/// Steps of flows in one turn: what a client sent meanwhile is not to wait for those of a thousand others.
const STEPS_MAX: usize = 128;
/// Round trips are looked at so often, by a worker that is awake, and at so many places of its table of connections.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
const SAMPLES_MAX: usize = 256;
/// Frames taken over from other workers in one turn.
const HANDED_MAX: usize = 256;

impl Worker {
    pub(crate) fn new(
        id: u8,
        engine: Engine,
        ports: Vec<Box<dyn port::Port>>,
        mailboxes: Vec<Mailbox>,
        role: Role,
    ) -> io::Result<Self> {
        let mailbox = mailboxes[usize::from(id)].clone();
        let poll = Poll::new()?;
        poll.watch_readable(mailbox.waker().fd(), Token::Mail)?;
        let ports = Ports::new(id, ports, mailboxes);
        ports.register(&poll)?;
        let windows = match role {
            Role::Gateway(_) => TransportOptions::gateway(),
            Role::Client(_) => TransportOptions::client(),
            Role::Bench(_) => TransportOptions::gateway(),
        };
        let core = Core::new(id, engine, poll, mailbox.clone(), windows);
        Ok(Self {
            core,
            ports,
            role,
            mailbox,
            ready: Vec::new(),
            handed: Vec::new(),
            loops: 0,
            sleeps: 0,
            turn_began: None,
            asleep_until: None,
            sample_at: Instant::now(),
            churn: churn::Churn::default(),
            memory: None,
            busy_poll: false,
            ended: None,
        })
    }

    /// Makes it turn without sleeping (`--busy-poll`).
    pub(crate) fn set_busy_poll(&mut self, busy_poll: bool) {
        self.busy_poll = busy_poll;
    }

    /// Leaves out what `BEAM_ABLATION` names of a worker's own parts.
    pub(crate) fn ablate(&mut self, ablation: Ablation) {
        if !ablation.arenas {
            self.core.arena = arena::Arena::plain();
        }
    }

    /// Closes UDP flows that are silent for so long.
    pub(crate) fn set_udp_idle_timeout(&mut self, timeout: Duration) {
        self.core.udp.idle_timeout = timeout;
    }

    /// Sets a gateway's limits, at the start and by a reload. What is beyond them goes on.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        let Limits { connections_max, retry, udp_idle_timeout } = limits;
        self.core.engine.set_limits(connections_max, retry);
        self.set_udp_idle_timeout(udp_idle_timeout);
    }

    /// Has it heed this limit.
    pub(crate) fn set_memory(&mut self, memory: Arc<MemoryLimit>) {
        self.memory = Some((memory, 0));
    }

    /// Does what the last look at the memory asks for.
    fn heed_memory(&mut self) {
        let Some((memory, seen)) = &mut self.memory else { return };
        let Some(orders) = memory.orders(seen) else { return };
        self.core.engine.set_room(orders.room);
        if let Some(bytes) = orders.window_bytes {
            memory.lowered(self.core.engine.lower_windows(bytes));
        }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) -> Ended {
        if let Err(error) = self.start() {
            return Ended::Broken(error);
        }
        loop {
            let now = Instant::now();
            self.measure_time(now);
            let busy = match self.turn(now) {
                Ok(busy) => busy,
                Err(error) => return Ended::Broken(error),
            };
            if let Some(ended) = self.ended.take() {
                self.say_goodbye(now);
                return ended;
            }
            if let Err(error) = self.rest(busy) {
                return Ended::Broken(error);
            }
        }
    }

    /// Makes it one of the workers that serve IP sessions of a gateway.
    pub(crate) fn set_realm(&mut self, realm: std::sync::Arc<ip::Realm>) {
        self.core.ip.side = ip::Side::Gateway(realm);
    }

    /// Gives it a way to the network behind this end of the tunnel, for IP sessions.
    pub(crate) fn set_inner(&mut self, port: Box<dyn ip::Network>) -> io::Result<()> {
        self.core.ip.set_port(&self.core.poll, port)
    }

    fn start(&mut self) -> io::Result<()> {
        match &mut self.role {
            Role::Client(client) => client.start(&mut self.core, Instant::now()),
            Role::Gateway(_) | Role::Bench(_) => Ok(()),
        }
    }

    /// One turn: each line moves a burst one step on. True if there is more to do at once.
    fn turn(&mut self, now: Instant) -> io::Result<bool> {
        self.loops += 1;
        self.core.now = now;
        self.heed_memory();
        // First, so that the ports put them on their fill rings in this turn: a queue whose frames were all with other
        // workers hears of no packet that would cause another one.
        while let Some((port, frame)) = self.mailbox.next_return() {
            self.ports.take_home(port, frame);
        }
        self.core.captures.begin(now);
        let Core { engine, meters, captures, .. } = &mut self.core;
        let mut more = self.ports.receive(now, engine, meters, captures)?;
        more |= self.read_mail(now);
        self.core.engine.run(now);
        self.serve_events(now);
        self.serve_sockets(now);
        more |= self.pump_flows(now);
        more |= self.pump_ip(now)?;
        if let Role::Bench(bench) = &mut self.role {
            more |= bench.turn(&mut self.core, now);
        }
        self.role_timers(now);
        let drained = self.ports.transmit(now, &mut self.core.engine, &mut self.core.captures);
        self.ports.flush(now, &self.core.poll)?;
        if self.core.captures.is_on() {
            self.publish_captures();
        }
        more |= self.core.inner_waits();
        Ok(more || (!drained && !self.ports.is_blocked()))
    }

    /// Looks at the epoll: at once if there is work, else asleep until something needs the worker. In every turn: a turn of a
    /// busy worker takes a tenth of a millisecond, for which what came to a socket has waited already, and a look far less.
    fn rest(&mut self, busy: bool) -> io::Result<()> {
        if busy || self.busy_poll {
            return self.core.poll.wait(Some(Duration::ZERO), &mut self.ready);
        }
        let now = Instant::now();
        self.end_turn(now);
        self.mailbox.waker().announce_sleep();
        let until = if self.mailbox.is_empty() { self.sleep_until(now) } else { Some(now) };
        let timeout = until.map(|until| until.saturating_duration_since(now));
        self.asleep_until = until.filter(|&until| until > now);
        self.sleeps += 1;
        let waited = self.core.poll.wait(timeout, &mut self.ready);
        let rung = self.ready.iter().any(|ready| ready.token == Token::Mail);
        self.mailbox.waker().awake(rung);
        waited
    }

    /// Takes the times that show when a turn begins: of the one before, unless it ended in sleep; of the wake-up; and once in
    /// a while the round trips. The only clock is the loop's own.
    fn measure_time(&mut self, now: Instant) {
        self.end_turn(now);
        self.turn_began = Some(now);
        // Whatever else ended the sleep wasn't late for the timer.
        if let Some(until) = self.asleep_until.take().filter(|_| self.ready.is_empty()) {
            self.core.meters.time(Meter::TimerLag, now.saturating_duration_since(until));
        }
        if now >= self.sample_at {
            self.sample_at = now + SAMPLE_INTERVAL;
            let Core { engine, meters, .. } = &mut self.core;
            engine.sample_round_trips(SAMPLES_MAX, &mut |rtt| meters.time(Meter::RoundTrip, rtt));
            let Stats { handshakes_started, handshakes_failed, connections_closed, .. } = engine.stats();
            if self.churn.is_over(handshakes_started + handshakes_failed + connections_closed) {
                engine.tidy(now);
                if let Role::Gateway(gateway) = &mut self.role {
                    gateway.tidy();
                }
                allocator::give_back();
                confine::release_program_again();
            }
        }
    }

    fn end_turn(&mut self, now: Instant) {
        if let Some(began) = self.turn_began.take() {
            self.core.meters.time(Meter::LoopLag, now.saturating_duration_since(began));
        }
    }

    /// Until the next timer, or for ever.
    fn sleep_until(&mut self, now: Instant) -> Option<Instant> {
        let blocked = (self.core.engine.pending_transmit() && self.ports.is_blocked())
            .then(|| now + ports::BLOCKED_RETRY);
        let role = match &self.role {
            Role::Gateway(gateway) => gateway.next_deadline(&self.core),
            Role::Client(client) => client.next_deadline(&self.core),
            Role::Bench(bench) => bench.next_deadline(),
        };
        let inner = self.core.inner_deadline();
        let churn = self.churn.goes_on().then_some(self.sample_at);
        let starved = self.core.ledger.next_deadline();
        [self.core.engine.next_deadline(), self.ports.next_deadline(), blocked, role, starved, inner, churn]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes what other threads sent. True if something was there.
    fn read_mail(&mut self, now: Instant) -> bool {
        let mut any = false;
        self.handed.extend(std::iter::from_fn(|| self.mailbox.next_frame()).take(HANDED_MAX));
        if !self.handed.is_empty() {
            let Core { engine, captures, .. } = &mut self.core;
            self.ports.accept_handed(now, engine, &mut self.handed, captures);
            any = true;
        }
        for handed in std::iter::from_fn(|| self.mailbox.next_inner()).take(HANDED_MAX) {
            self.core.take_handed(handed.key, handed.vnet, &handed.packet, handed.behind_router);
            any = true;
        }
        for packet in std::iter::from_fn(|| self.mailbox.next_outward()).take(HANDED_MAX) {
            self.core.ip.send_outward(packet);
            any = true;
        }
        while let Some(command) = self.mailbox.next_command() {
            self.obey(now, command);
            any = true;
        }
        any
    }

    fn obey(&mut self, now: Instant, command: Command) {
        match command {
            Command::Snapshot(reply) => {
                // The asker may have given up; then nobody misses the answer.
                let _ = reply.send(Box::new(self.snapshot()));
            }
            // The ports of the tunnel look in each turn, that of the network behind it when it may have something.
            Command::Look => self.core.ip.note_ready(),
            Command::Stop => self.ended = Some(Ended::Stopped),
            Command::AddPort(port) => {
                // The port is dropped, and its queue left to the kernel again.
                if let Err(error) = self.ports.add(&self.core.poll, port) {
                    tracing::error!(%error, "a new queue can't be served");
                }
                self.note_new_port();
            }
            Command::Capture { tap, reply } => self.begin_capture(*tap, &reply),
            Command::CaptureRemotes { id, remotes } => self.core.captures.set_remotes(id, &remotes),
            Command::CaptureEnd { id, reply } => self.end_capture(id, &reply),
            Command::Qlog { qlog, reply } => {
                self.core.engine.set_qlog(qlog.map(|qlog| *qlog));
                let _ = reply.send(());
            }
            Command::Remotes { who, reply } => {
                let _ = reply.send(self.remotes(&who));
            }
            Command::AddLanQueue(queue) => {
                if let Err(error) = self.core.ip.add_lan_queue(&self.core.poll, *queue) {
                    tracing::error!(%error, "a new queue of the LAN can't be served");
                }
            }
            Command::Drain => {
                self.core.draining = true;
                match &mut self.role {
                    Role::Gateway(gateway) => gateway.drain(&mut self.core),
                    Role::Client(client) => client.drain(&mut self.core),
                    Role::Bench(bench) => bench.drain(&mut self.core),
                }
            }
            Command::Fold(reply) => {
                self.core.ledger.fold();
                let _ = reply.send(());
            }
            Command::Tunnels { from, reply } => {
                let _ = reply.send(self.tunnels(from));
            }
            Command::Flows { kind, from, reply } => {
                let _ = reply.send(self.flows(kind, from));
            }
            Command::Routes { from, reply } => {
                let _ = reply.send(self.routes(from));
            }
            Command::AddressMoved { key, address } => {
                if let Role::Gateway(gateway) = &mut self.role {
                    gateway.address_moved(&mut self.core, key, address);
                }
            }
            Command::Configure { config, server, limits, reply } => {
                let mut revoked = Revoked::default();
                self.set_limits(limits);
                if let Role::Gateway(gateway) = &mut self.role {
                    self.core.engine.set_server_config(Some(server));
                    revoked = gateway.configure(&mut self.core, config);
                }
                let _ = reply.send(revoked);
            }
            Command::Kick { who, reply } => {
                let kicked = match &mut self.role {
                    Role::Gateway(gateway) => gateway.kick(&mut self.core, &who),
                    Role::Client(_) | Role::Bench(_) => 0,
                };
                let _ = reply.send(kicked);
            }
            Command::Bench(order) => {
                if let Role::Bench(bench) = &mut self.role {
                    bench.obey(&mut self.core, now, order);
                }
            }
            Command::Resolved { conn, stream, outcome } => {
                if let Role::Gateway(gateway) = &mut self.role {
                    gateway.resolved(&mut self.core, now, conn, stream, outcome);
                }
            }
            Command::ListenerMoved { conn, stream } => {
                if let Role::Gateway(gateway) = &mut self.role {
                    gateway.listener_moved(&mut self.core, (conn, stream));
                }
            }
            Command::ListenerDoubted { conn } => {
                if let Role::Gateway(gateway) = &mut self.role {
                    gateway.listener_doubted(&mut self.core, conn);
                }
            }
            Command::ServiceResolved { index, on, id, outcome } => {
                if let Role::Client(client) = &mut self.role {
                    client.service_resolved(&mut self.core, index, on, id, outcome);
                }
            }
            Command::GatewayResolved { link, outcome } => {
                if let Role::Client(client) = &mut self.role {
                    client.gateway_resolved(&mut self.core, now, link, outcome);
                }
            }
        }
    }

    /// Tells the role what happened to connections and streams.
    fn serve_events(&mut self, now: Instant) {
        while let Some((conn, event)) = self.core.engine.poll_event() {
            if let Event::Connected { took, .. } = event {
                self.core.meters.time(Meter::Handshake, took);
            }
            self.serve_event(now, conn, event);
        }
    }

    fn serve_event(&mut self, now: Instant, conn: ConnId, event: Event) {
        match &mut self.role {
            Role::Gateway(gateway) => gateway.on_event(&mut self.core, conn, event),
            Role::Client(client) => client.on_event(&mut self.core, now, conn, event),
            Role::Bench(bench) => bench.on_event(&mut self.core, now, conn, &event),
        }
    }

    /// Notes what epoll reported: flows become ready, listeners accept.
    fn serve_sockets(&mut self, now: Instant) {
        for ready in std::mem::take(&mut self.ready) {
            match ready.token {
                Token::Mail | Token::Port(_) => {}
                Token::Inner => self.core.ip.note_ready(),
                Token::Udp(key) => self.core.udp.note_ready(key, ready),
                Token::UdpLocal(index) => {
                    if let Role::Client(client) = &mut self.role {
                        client.read_local(&mut self.core, index);
                    }
                }
                Token::Flow(key) => self.core.flows.note_ready(key, ready),
                Token::ReversePeer(index) => {
                    if let Role::Client(client) = &mut self.role {
                        client.read_service(&mut self.core, index);
                    }
                }
                Token::Paths => {
                    if let Role::Client(client) = &mut self.role {
                        client.paths_changed(now);
                    }
                }
                Token::Listener(index) => match &mut self.role {
                    Role::Client(client) => client.accept(&mut self.core, now, index),
                    Role::Gateway(gateway) => gateway.knocked(&mut self.core, index),
                    Role::Bench(_) => {}
                },
            }
        }
    }

    /// Gives ready flows one quota each, clients in turn. True if some have more to move.
    fn pump_flows(&mut self, now: Instant) -> bool {
        self.core.wake_starved();
        for _ in 0..self.core.flows.ready_count().min(STEPS_MAX) {
            let Some(key) = self.core.flows.next_ready() else { break };
            match &mut self.role {
                Role::Gateway(gateway) => gateway.advance(&mut self.core, now, key),
                Role::Client(client) => client.advance(&mut self.core, key),
                Role::Bench(_) => {}
            }
        }
        for _ in 0..self.core.udp.ready_count().min(STEPS_MAX) {
            let Some(key) = self.core.udp.next_ready() else { break };
            match &mut self.role {
                Role::Gateway(gateway) => gateway.advance_udp(&mut self.core, key),
                Role::Client(client) => client.advance_udp(&mut self.core, key),
                Role::Bench(_) => {}
            }
        }
        self.core.flows.ready_count() + self.core.udp.ready_count() > 0
    }

    /// Moves inner packets both ways. True if there are more.
    fn pump_ip(&mut self, now: Instant) -> io::Result<bool> {
        for _ in 0..self.core.ip.ready_count() {
            let Some(key) = self.core.ip.next_ready() else { break };
            match &mut self.role {
                Role::Gateway(gateway) => gateway.advance_ip(&mut self.core, key),
                Role::Client(client) => client.advance_ip(&mut self.core, key),
                Role::Bench(_) => {}
            }
        }
        let more = self.core.move_inner(now)?;
        Ok(more || self.core.ip.ready_count() > 0)
    }

    fn role_timers(&mut self, now: Instant) {
        match &mut self.role {
            Role::Bench(_) => {}
            Role::Gateway(gateway) => gateway.timers(&mut self.core, now),
            Role::Client(client) => {
                if let Some(ended) = client.timers(&mut self.core, now) {
                    self.ended.get_or_insert(ended);
                }
            }
        }
    }

    /// Closes what is open, so that peers need not wait for their idle timers.
    fn say_goodbye(&mut self, now: Instant) {
        let code = match self.role {
            Role::Bench(_) => tunnel::VarInt::from_u32(0),
            Role::Gateway(_) | Role::Client(_) => session::quic_code(masque::Code::H3_NO_ERROR),
        };
        self.core.engine.close_all(now, code, b"");
        self.core.engine.run(now);
        for _ in 0..1024 {
            let drained = self.ports.transmit(now, &mut self.core.engine, &mut self.core.captures);
            if self.ports.flush(now, &self.core.poll).is_err() || drained {
                break;
            }
        }
    }

    fn snapshot(&mut self) -> WorkerSnapshot {
        let (up, waits_for) = match &self.role {
            Role::Client(client) => client.state(),
            Role::Gateway(_) | Role::Bench(_) => (true, None),
        };
        let streams = match &self.role {
            Role::Bench(bench) => bench.streams(),
            Role::Gateway(_) | Role::Client(_) => 0,
        };
        let stats = self.core.engine.stats();
        let (level, stopped) = self.core.engine.protection_level();
        let mut snapshot = WorkerSnapshot {
            protection: ProtectionStatus::new(level, stopped, &stats),
            id: self.core.id,
            ports: self.ports.snapshot(),
            hand_over: self.ports.counters,
            connections: self.core.engine.connections() as u64,
            flows: (self.core.flows.len() + self.core.udp.len()) as u64 + streams,
            pending: match &self.role {
                Role::Gateway(gateway) => gateway.pending_count() as u64,
                Role::Client(_) | Role::Bench(_) => 0,
            },
            flows_opened: self.core.totals.flows_opened + self.core.udp.totals.opened,
            caches: match &self.role {
                Role::Gateway(gateway) => gateway.caches(),
                Role::Client(_) | Role::Bench(_) => Vec::new(),
            },
            loops: self.loops,
            sleeps: self.sleeps,
            meters: Some(self.core.meters.with(self.core.engine.batches())),
            up,
            tunnels: match &self.role {
                Role::Client(client) => Some(client.up_count()),
                Role::Gateway(_) | Role::Bench(_) => None,
            },
            asleep: match &self.role {
                Role::Client(client) => client.sleepers(self.core.now).count() as u64,
                Role::Gateway(_) | Role::Bench(_) => 0,
            },
            waits_for,
            ..WorkerSnapshot::default()
        };
        let drop_names = tunnel::DropReason::ALL.map(tunnel::DropReason::name);
        stats.each(&mut |name, value| {
            let list = if drop_names.contains(&name) { &mut snapshot.drops } else { &mut snapshot.counters };
            list.push((name, value));
        });
        snapshot.counters.push(("ecn_marked", self.ports.counters.ecn_marked));
        snapshot.counters.extend(self.core.totals.counters());
        snapshot.counters.extend(self.core.datagrams.counters());
        snapshot.counters.extend(self.core.udp.totals.counters());
        snapshot.drops.extend(self.core.datagrams.drops());
        snapshot.counters.extend(self.core.ip.totals.counters());
        snapshot.drops.extend(self.core.ip.totals.drops());
        self.core.ip.port_counters(&mut |name, value| snapshot.counters.push((name, value)));
        self.core.ip.port_drops(&mut |name, value| snapshot.drops.push((name, value)));
        snapshot.inner_frames = self.core.ip.census();
        snapshot.drops.extend(self.core.udp.totals.drops());
        snapshot.counters.extend(self.core.reverse.totals.counters());
        snapshot.drops.extend(self.core.reverse.totals.drops());
        match &self.role {
            Role::Client(client) => snapshot.drops.extend(client.udp_drops()),
            Role::Bench(bench) => snapshot.counters.extend(bench.counters()),
            Role::Gateway(_) => {}
        }
        for port in self.ports.iter() {
            port.kernel_drops(&mut |name, value| snapshot.drops.push((name, value)));
        }
        snapshot
    }
}

/// Names of what the layers above the engine drop, for tests.
#[cfg(test)]
pub(crate) fn drop_names() -> Vec<&'static str> {
    let http = datagrams::Drops::default().drops();
    let udp = udp::Totals::default().drops();
    let reverse = reverse::Totals::default().drops();
    let ip = ip::drops_of_nothing();
    let named = http.into_iter().chain(udp).chain(reverse).chain(ip).map(|(name, _)| name);
    named.chain(client::udp_drop_names()).collect()
}

/// Names of what the layers above the engine and the ports to inner networks count, for tests.
#[cfg(test)]
pub(crate) fn counter_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = core::Totals::default().counters().map(|(name, _)| name).to_vec();
    names.push("ecn_marked");
    names.extend(datagrams::Drops::default().counters().map(|(name, _)| name));
    names.extend(udp::Totals::default().counters().map(|(name, _)| name));
    names.extend(reverse::Totals::default().counters().map(|(name, _)| name));
    names.extend(ip::counters_of_nothing());
    names.extend(bench::counter_names());
    names
}
