//! All tunnels of the client side: one engine, driven by one thread.
//!
//! The caller's loop: [`Fleet::turn`], what happened ([`Fleet::next`]), what it wants done ([`Fleet::open`], [`Fleet::ask`],
//! [`Fleet::close`]), then [`Fleet::send_and_rest`].

use super::{
    ask::{Ask, Told},
    dial::{FleetConfig, GATEWAY_STREAMS},
    sockets::Sockets,
    tickets::{Tickets, server_name},
    users::Users,
};
use anyhow::{Context, Result};
use bytes::Bytes;
use masque::sleep::{BEAM_SLEEP, TunnelId};
use quinn_proto::ClientConfig;
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::{
    CloseReason, ConnId, Dir, Engine, EngineConfig, Event, Protection, Read, Secrets, Side, VarInt, WorkerId,
    Write,
};

/// H3_NO_ERROR.
const NO_ERROR: u32 = 0x100;
/// No tunnel.
const NONE: u32 = u32::MAX;

/// What happened to a tunnel.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// Its handshake is done. Whether early data was accepted, if some was sent.
    Up {
        /// See above.
        early: Option<bool>,
    },
    /// A request of it was answered as wanted.
    Answered {
        /// Which.
        number: u32,
        /// Since the request was due.
        since_due: Duration,
        /// Since it was handed to QUIC.
        since_sent: Duration,
        /// Its connection had to send something again, or once more, since it was opened.
        sent_again: bool,
    },
    /// A request of it came to nothing.
    Failed {
        /// Which.
        number: u32,
        /// Why.
        why: String,
    },
    /// Its connection is over.
    Ended {
        /// Which.
        number: u32,
        /// Why.
        why: CloseReason,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection.
    Down,
    /// In its handshake, with the time that its first request was due.
    Opening {
        due: Instant,
        early: bool,
    },
    Up,
}

struct Tunnel {
    conn: Option<ConnId>,
    phase: Phase,
    asks: Vec<Ask>,
}

/// See the module.
pub(super) struct Fleet {
    config: FleetConfig,
    users: Users,
    engine: Engine,
    sockets: Sockets,
    live: ClientConfig,
    sleeper: ClientConfig,
    tickets: Arc<Tickets>,
    tunnels: Vec<Tunnel>,
    /// By the index of the engine's connection.
    by_conn: Vec<u32>,
    happenings: VecDeque<Happening>,
    /// What each connection's control stream begins with; of those that sleep, see [`Self::opening_of`].
    opening: Bytes,
    /// From which the ids of tunnels that sleep follow.
    id_base: u64,
    authority: String,
    now: Instant,
}

impl Fleet {
    /// Without tunnels.
    pub(super) fn new(config: FleetConfig, users: Users) -> Result<Self> {
        let tickets = Arc::<Tickets>::default();
        let (live, sleeper) = config.clients(&tickets)?;
        let mut engine = EngineConfig::new(WorkerId(0), Secrets::random(), None);
        // No stream of the gateway's beyond those three; and no memory of keys for batches, which are of few packets here.
        engine.remote_streams_max = GATEWAY_STREAMS;
        engine.protection = Protection::Eager;
        let mut id_base = [0; 8];
        SystemRandom::new().fill(&mut id_base).ok().context("the system's random source failed")?;
        let opening = masque::Connection::client(masque::Config::default()).opening();
        Ok(Self {
            sockets: Sockets::bind(config.sockets)?,
            authority: config.gateway.to_string(),
            config,
            users,
            engine: Engine::new(engine),
            live,
            sleeper,
            tickets,
            tunnels: Vec::new(),
            by_conn: Vec::new(),
            happenings: VecDeque::new(),
            opening,
            id_base: u64::from_ne_bytes(id_base),
            now: Instant::now(),
        })
    }

    /// When the present turn began.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Datagrams that were dropped on this side, by name.
    pub(super) fn drops(&self) -> Vec<(&'static str, u64)> {
        let mut drops = self.sockets.drops();
        let names = tunnel::DropReason::ALL.map(tunnel::DropReason::name);
        self.engine.stats().each(&mut |name, count| {
            if count > 0 && names.contains(&name) {
                drops.push((name, count));
            }
        });
        drops
    }

    /// Tunnels with a ticket, and with a token.
    pub(super) fn kept(&self) -> (u64, u64) {
        self.tickets.counts()
    }

    /// Whether tunnel `number` has a connection.
    pub(super) fn is_open(&self, number: u32) -> bool {
        self.tunnels.get(number as usize).is_some_and(|tunnel| tunnel.conn.is_some())
    }

    /// Connections, closing ones included.
    pub(super) fn connections(&self) -> usize {
        self.engine.connections()
    }

    /// Opens the connection of tunnel `number`. Its first request, which was due at `due`, goes as soon as it may.
    pub(super) fn open(&mut self, number: u32, due: Instant) -> Result<()> {
        let port = self.sockets.local_port(number as usize % self.sockets.count());
        let local = SocketAddr::new(self.config.sources.of(number), port);
        let name = server_name(number);
        let client = if self.sleeps(number) { &self.sleeper } else { &self.live };
        let id = self.engine.connect(self.now, client.clone(), self.config.gateway, local, &name)?;
        if self.tunnels.len() <= number as usize {
            let down = || Tunnel { conn: None, phase: Phase::Down, asks: Vec::new() };
            self.tunnels.resize_with(number as usize + 1, down);
        }
        if self.by_conn.len() <= id.index as usize {
            self.by_conn.resize(id.index as usize + 1, NONE);
        }
        self.by_conn[id.index as usize] = number;
        let early = self.engine.connection(id).is_some_and(|conn| conn.has_early_data());
        let tunnel = &mut self.tunnels[number as usize];
        tunnel.conn = Some(id);
        tunnel.phase = Phase::Opening { due, early };
        if early {
            self.begin(number, due);
        }
        Ok(())
    }

    fn sleeps(&self, number: u32) -> bool {
        self.config.sleepers.is_some_and(|(first, _)| number >= first)
    }

    /// One that sleeps announces its id, the same each time ([`masque::sleep`]).
    fn opening_of(&self, number: u32) -> Bytes {
        if !self.sleeps(number) {
            return self.opening.clone();
        }
        let id = TunnelId::from_random(self.id_base.wrapping_add(number.into()));
        let extra_settings = vec![(BEAM_SLEEP, id.get())];
        let config = masque::Config { extra_settings, ..masque::Config::default() };
        masque::Connection::client(config).opening()
    }

    /// HTTP/3's control stream, and the first request.
    fn begin(&mut self, number: u32, due: Instant) {
        let conn = self.tunnels[number as usize].conn;
        let opening = self.opening_of(number);
        if let Some(mut conn) = conn.and_then(|id| self.engine.connection(id)) {
            let stream = conn.open_uni();
            let size = opening.len();
            let written = stream.map(|stream| conn.write_chunks(stream, &mut [opening]));
            if !matches!(written, Some(Write::Written { bytes, .. }) if bytes == size) {
                conn.close(NO_ERROR.into(), b"");
                let why = format!("no room for HTTP/3's control stream: {written:?}");
                return self.happenings.push_back(Happening::Failed { number, why });
            }
        }
        self.ask(number, due);
    }

    /// Sends a request on tunnel `number`, which was due at `due`.
    pub(super) fn ask(&mut self, number: u32, due: Instant) {
        let request = self.config.wanted.encode(&self.authority, &self.users.token(number));
        let conn = self.tunnels.get(number as usize).and_then(|tunnel| tunnel.conn);
        let stream = conn.and_then(|id| self.engine.connection(id)).and_then(|mut conn| conn.open_bi());
        let Some(stream) = stream else {
            let why = if conn.is_some() { "no stream for a request" } else { "no connection for a request" };
            return self.happenings.push_back(Happening::Failed { number, why: why.into() });
        };
        let ask = Ask::new(self.config.wanted, stream, request, due, self.now);
        self.tunnels[number as usize].asks.push(ask);
        self.advance(number, stream);
    }

    /// Closes tunnel `number`'s connection.
    pub(super) fn close(&mut self, number: u32) {
        let conn = self.tunnels.get(number as usize).and_then(|tunnel| tunnel.conn);
        if let Some(mut conn) = conn.and_then(|id| self.engine.connection(id)) {
            conn.close(NO_ERROR.into(), b"");
        }
    }

    /// Closes all of them.
    pub(super) fn close_all(&mut self) {
        self.engine.close_all(self.now, NO_ERROR.into(), b"");
    }

    /// Takes what has come. True if there may be more at once.
    pub(super) fn turn(&mut self) -> Result<bool> {
        self.now = Instant::now();
        let more = self.sockets.receive(self.now, &mut self.engine)?;
        self.engine.run(self.now);
        while let Some((id, event)) = self.engine.poll_event() {
            self.on_event(id, event);
        }
        Ok(more)
    }

    /// What happened, oldest first.
    pub(super) fn next(&mut self) -> Option<Happening> {
        self.happenings.pop_front()
    }

    /// Sends what there is to send. True if nothing is left.
    pub(super) fn send(&mut self) -> Result<bool> {
        self.sockets.transmit(self.now, &mut self.engine)
    }

    /// Sends nothing: sleeps until something comes, or `until`.
    pub(super) fn listen(&self, until: Instant) -> Result<()> {
        self.sockets.wait(Some(until))
    }

    /// Sends what there is to send, then sleeps until something comes, a timer fires, or `until`; not if there is `more`.
    pub(super) fn send_and_rest(&mut self, more: bool, until: Option<Instant>) -> Result<()> {
        let done = self.send()?;
        // A close, say, has produced some.
        if more || !done || self.engine.next_deadline().is_some_and(|at| at <= self.now) {
            return Ok(());
        }
        let until = [until, self.engine.next_deadline()].into_iter().flatten().min();
        self.sockets.wait(until)
    }

    fn on_event(&mut self, id: ConnId, event: Event) {
        let number = self.by_conn.get(id.index as usize).copied().unwrap_or(NONE);
        let Some(tunnel) = self.tunnels.get_mut(number as usize).filter(|tunnel| tunnel.conn == Some(id))
        else {
            return;
        };
        match event {
            Event::Connected { .. } => self.connected(number),
            Event::StreamOpened { dir: Dir::Uni } => {
                while let Some(stream) = self.engine.connection(id).and_then(|mut conn| conn.accept(Dir::Uni))
                {
                    self.drain(id, stream);
                }
            }
            Event::StreamReadable { id: stream } | Event::StreamWritable { id: stream } => {
                match stream.initiator() == Side::Client {
                    true => self.advance(number, stream),
                    false => self.drain(id, stream),
                }
            }
            Event::StreamStopped { id: stream, .. } => self.advance(number, stream),
            Event::Closed { reason } | Event::HandshakeFailed { reason } => {
                let asks = std::mem::take(&mut tunnel.asks);
                (tunnel.conn, tunnel.phase) = (None, Phase::Down);
                for _ in asks {
                    let why = format!("the connection ended: {reason}");
                    self.happenings.push_back(Happening::Failed { number, why });
                }
                self.happenings.push_back(Happening::Ended { number, why: reason });
            }
            _ => {}
        }
    }

    fn connected(&mut self, number: u32) {
        let tunnel = &mut self.tunnels[number as usize];
        let Phase::Opening { due, early } = std::mem::replace(&mut tunnel.phase, Phase::Up) else { return };
        let conn = tunnel.conn.and_then(|id| self.engine.connection(id));
        let accepted = early.then(|| conn.is_some_and(|conn| conn.early_data_accepted()));
        if accepted == Some(false) {
            // Its streams are gone, and nobody has read them.
            tunnel.asks = Vec::new();
        }
        self.happenings.push_back(Happening::Up { early: accepted });
        if accepted != Some(true) {
            self.begin(number, due);
        }
    }

    /// Nothing that the gateway says on its own streams is of interest: SETTINGS, QPACK without a table.
    fn drain(&mut self, id: ConnId, stream: tunnel::StreamId) {
        if let Some(mut conn) = self.engine.connection(id) {
            while let Read::Chunk(_) = conn.read(stream, usize::MAX) {}
        }
    }

    /// One step of a request.
    fn advance(&mut self, number: u32, stream: tunnel::StreamId) {
        let tunnel = &mut self.tunnels[number as usize];
        let Some(at) = tunnel.asks.iter().position(|ask| ask.stream == stream) else { return };
        let Some(mut conn) = tunnel.conn.and_then(|id| self.engine.connection(id)) else { return };
        let ask = &mut tunnel.asks[at];
        let mut told = ask.advance(&mut conn);
        if told == Told::Answered {
            self.happenings.push_back(Happening::Answered {
                number,
                since_due: self.now.saturating_duration_since(ask.due),
                since_sent: self.now.saturating_duration_since(ask.sent),
                sent_again: sent_again(&conn.stats()),
            });
            told = ask.advance(&mut conn);
        }
        match told {
            Told::Nothing | Told::Answered => return,
            Told::Over => {}
            Told::Failed(why) => {
                conn.reset(stream, VarInt::from_u32(NO_ERROR));
                conn.stop(stream, VarInt::from_u32(NO_ERROR));
                self.happenings.push_back(Happening::Failed { number, why });
            }
        }
        tunnel.asks.swap_remove(at);
        if tunnel.asks.is_empty() {
            // With its capacity, of which there would be a hundred thousand.
            tunnel.asks = Vec::new();
        }
    }
}

/// Whether a young connection had to repeat itself: a ClientHello and a Finished are one CRYPTO frame each.
fn sent_again(stats: &quinn_proto::ConnectionStats) -> bool {
    stats.path.lost_packets > 0 || stats.frame_tx.crypto > 2
}
