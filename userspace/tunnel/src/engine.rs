//! The engine: one worker's endpoint, connections, timers and admission, in one loop.
//!
//! ```text
//!  a burst of datagrams:  receive_burst ── opened ahead ─► a quinn Endpoint ─┬─► burst (connection, event)
//!                                                                            ├─► incoming (first Initials)
//!                                                                            └─► answers (stateless)
//!  once a burst:          run ──── burst, by connection ─► timers due ─► handshakes in budget
//!  while there is room:   transmit ── parked ─► answers ─► released ─► touched connections ─► sealed together
//! ```
//!
//! Only touched connections are polled: those that got a datagram, a timer or an application call.
//! Memory is bounded: see the limits beside each queue.

use crate::admission::{Budget, Retry, RetryPolicy};
use crate::cid::{CidCodec, Tier, WorkerId};
use crate::config::EngineConfig;
use crate::connection::{Conn, ConnId, Phase, raise_streams, report_end, touch};
use crate::event::{CloseReason, Event};
use crate::protection::{Burst, Cid, Mirror, Protection, Verdict};
use crate::stats::{DropReason, Stats};
use crate::wheel::Wheel;
use batch::Batch;
use quinn_proto::{
    ClientConfig, ConnectError, Connection, ConnectionEvent, ConnectionHandle, EndpointEvent, Incoming,
    ServerConfig, StreamEvent, VarInt,
};
use simd::{Guard, GuardStats, Level};
use slot::{Hand, Slot};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tiers::Tiers;
use wire::Path;

mod batch;
mod folded;
mod inbound;
mod meters;
mod outbound;
mod qlog;
mod slot;
mod tiers;
mod timers;

pub(crate) use inbound::Slab;
pub use inbound::{Inbound, Owner};
pub use meters::Batches;
pub use outbound::{Outlet, Reserved, Sink, Transmit};
pub use qlog::Qlog;

/// One worker's QUIC endpoint with everything that quinn-proto leaves to its driver.
///
/// The order of a loop is `receive_burst`, `run`, `poll_event` until `None` with the
/// application's answers, `transmit` while it says `false` and there is room, then sleep until
/// `next_deadline`. All times given to it must not run backwards.
pub struct Engine {
    tiers: Tiers,
    codec: CidCodec,
    worker: WorkerId,
    is_server: bool,
    config: Limits,
    draining: bool,
    /// Connections that memory permits, until told otherwise.
    room: Option<u32>,
    now: Option<Instant>,
    stats: Stats,
    batches: Option<Batches>,
    /// The place of the table whose round trip was told last.
    sampled_to: usize,

    /// By quinn's connection handle.
    slots: Vec<Slot>,
    hand: Hand,
    rest_after: Duration,
    /// What places begin with that are new, or new again: higher than whatever a connection in them was named by before.
    generation_min: u32,
    /// Connections to poll for transmits, each once. Bounded by the connections.
    touched: VecDeque<u32>,
    /// For the application, which empties it each loop. Bounded by the frames of one burst.
    events: VecDeque<(ConnId, Event)>,
    /// What connections had moved that ended since the application last emptied `events`: bytes sent and received.
    ended: Vec<(ConnId, (u64, u64))>,

    /// What one burst brought to connections. Emptied by each `run`.
    burst: Vec<Arrival>,
    order: Vec<(u32, u32)>,
    slab: Slab,
    /// Whether packets are protected in batches; if not, each is on the spot.
    batched: bool,
    /// What the configuration says about it.
    asked_batched: bool,
    /// Batches are copied once more, in here on their way in; to measure.
    extra_copy: bool,
    staging: Vec<u8>,
    guard: Guard,
    /// The canary's alert has been said.
    alerted: bool,
    mirror: Mirror,
    ahead: Burst,
    /// First Initials that wait for the handshake budget; `incoming_queue_max`.
    incoming: VecDeque<Waiting>,
    /// How many of them come from addresses that have not proved themselves.
    incoming_unvalidated: usize,

    budget: Budget,
    retry: Retry,
    wheel: Wheel,
    due: Vec<u32>,
    /// When to give back what nobody uses; and how much had been sealed the last time.
    tidy_at: Option<Instant>,
    sealed_before_tidy: u64,
    /// Server-side handshakes by their time limit; since it is one limit, in order.
    handshakes: VecDeque<(Instant, ConnId)>,

    /// Stateless answers; `ANSWER_QUEUE_MAX`.
    answers: VecDeque<(Path, Vec<u8>)>,
    /// What quinn's endpoint answers into. Kept for its capacity.
    out: Vec<u8>,
    /// What quinn wrote and the outlet hasn't got yet. Empty between calls.
    batch: Batch,
    /// What new connections accept with, for those that have a log of their own.
    server: Option<Arc<ServerConfig>>,
    qlog: Option<Qlog>,
    /// What was dropped of the last burst, while somebody wants to know.
    dropped: Option<Vec<(usize, DropReason)>>,
    /// What the outlet refused (at most one batch) and what a freshly proved address had been owed (at
    /// most eight datagrams each).
    parked: VecDeque<Parked>,
}

struct Limits {
    connections_max: usize,
    handshakes_per_run: usize,
    incoming_queue_max: usize,
    incoming_proven_max: usize,
    handshake_timeout: Duration,
    remote_streams_max: u32,
}

/// An event for a connection, from one datagram.
struct Arrival {
    /// The way it came, when that is not from the address that the peer has proved.
    unproven: Option<Path>,
    /// During a handshake: it holds no packet that a stranger could have sealed.
    handshake_only: bool,
    event: Option<ConnectionEvent>,
    /// What is known of its packet already.
    verdict: Option<Verdict>,
    /// Whom it is for, if its packet has a short header and hasn't been opened.
    short_cid: Option<Cid>,
}

/// A first Initial that waits for the handshake budget.
struct Waiting {
    incoming: Incoming,
    tier: Tier,
    path: Path,
    datagram_bytes: usize,
}

/// Bytes as the wire may see them.
struct Parked {
    transmit: Transmit,
    bytes: Vec<u8>,
}

/// Bytes that an engine holds, by holder. Connections are estimates; the rest is exact, but for the working memory of one
/// batch, some tens of KB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Connections alive, at [`CONNECTION_BYTES`] and [`FOLDED_BYTES`] each, stream buffers apart.
    pub connections_bytes: usize,
    /// First Initials that wait for the handshake budget.
    pub incoming_bytes: usize,
    /// Addresses under the three-times limit, and the datagrams held for them.
    pub budget_bytes: usize,
    /// Timers.
    pub wheel_bytes: usize,
    /// Stateless answers, and the parked transmit.
    pub answers_bytes: usize,
    /// The connection table, event and touched queues, and the working buffers.
    pub tables_bytes: usize,
}

impl Memory {
    /// The sum.
    pub fn total_bytes(&self) -> usize {
        self.connections_bytes
            + self.incoming_bytes
            + self.budget_bytes
            + self.wheel_bytes
            + self.answers_bytes
            + self.tables_bytes
    }
}

/// Heap of one live server connection, its HTTP/3 streams and its places in the tables included, when nothing is under way
/// (12,800 bytes when last measured; `tests/heap.rs` holds it).
///
/// | bytes | what |
/// |---|---|
/// | 6,608 | [`Conn`]: 6,464 are quinn's connection (three packet spaces, two of them dead; random numbers; two paths); at rest 2,800 |
/// | 2,300 | quinn's vectors and maps: streams permitted (370), receive buffers and events of four bursts (900), queues |
/// | 1,160 | one node of its map of packets in flight: the last ACK waits there for its own |
/// | 1,060 | quinn's endpoint: 336 in its table, connection IDs, reset tokens |
/// | 640 | HTTP/3: our control stream and the peer's, settings |
/// | 600 | keys in short form: two for packets, two for headers, and the secrets of the next phase |
/// | 440 | what is left of TLS, our mirror of its keys, timer, slots, slack of tables that double |
pub const CONNECTION_BYTES: usize = 13_000;

/// The same of one at rest: of a tunnel that has been idle for a second.
pub const FOLDED_BYTES: usize = 9_200;

// What is ours of it. Whoever makes one of these larger makes it so a hundred thousand times.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<Conn>() <= size_of::<Connection>() + 144);
};

impl Engine {
    /// An engine without connections.
    pub fn new(config: EngineConfig) -> Self {
        let codec = CidCodec::new(config.secrets.cid_key, config.node);
        let is_server = config.server.is_some();
        let server = config.server.clone();
        Self {
            tiers: Tiers::new(config.clone(), codec.clone()),
            codec,
            worker: config.worker,
            is_server,
            config: Limits {
                connections_max: config.connections_max,
                handshakes_per_run: config.handshakes_per_run.max(1),
                incoming_queue_max: config.incoming_queue_max,
                incoming_proven_max: config.incoming_proven_max,
                handshake_timeout: config.handshake_timeout,
                remote_streams_max: config.remote_streams_max,
            },
            draining: false,
            room: None,
            now: None,
            stats: Stats::default(),
            batches: config.count_batches.then(Batches::default),
            sampled_to: 0,
            slots: Vec::new(),
            hand: Hand::default(),
            rest_after: config.rest_after,
            generation_min: 0,
            touched: VecDeque::new(),
            events: VecDeque::new(),
            ended: Vec::new(),
            burst: Vec::new(),
            order: Vec::new(),
            slab: Slab::default(),
            batched: config.protection != Protection::Eager,
            asked_batched: config.protection != Protection::Eager,
            extra_copy: config.extra_copy,
            staging: Vec::new(),
            guard: Guard::new(match config.protection {
                Protection::Eager => Level::RING,
                Protection::Batched(level) => level,
            }),
            alerted: false,
            mirror: Mirror::default(),
            ahead: Burst::default(),
            incoming: VecDeque::new(),
            incoming_unvalidated: 0,
            budget: Budget::new(config.unvalidated_paths_max),
            retry: Retry::new(config.retry),
            wheel: Wheel::new(),
            due: Vec::new(),
            tidy_at: None,
            sealed_before_tidy: 0,
            handshakes: VecDeque::new(),
            answers: VecDeque::new(),
            out: Vec::new(),
            batch: Batch::default(),
            server,
            qlog: None,
            dropped: None,
            parked: VecDeque::new(),
        }
    }

    /// Opens a connection from `local` to `remote`. The first packet goes with the next `transmit`.
    pub fn connect(
        &mut self,
        now: Instant,
        config: ClientConfig,
        remote: SocketAddr,
        local: SocketAddr,
        server_name: &str,
    ) -> Result<ConnId, ConnectError> {
        self.now = Some(now);
        let config = self.logged_client(config);
        let (handle, quic) = self.tiers.connect(now, config, remote, server_name)?;
        Ok(self.insert(handle, quic, Path { local, remote }, true))
    }

    /// The next event of any connection.
    pub fn poll_event(&mut self) -> Option<(ConnId, Event)> {
        let event = self.events.pop_front();
        if event.is_none() {
            self.ended.clear();
        }
        event
    }

    /// Forgets a connection at once, without a word to its peer, which finds out by its idle timeout: that is how a
    /// tunnel falls asleep. `Closed` with `Local` follows.
    pub fn forget(&mut self, id: ConnId) {
        self.abandon(id, CloseReason::Local);
    }

    /// Connections alive, those that are closing included.
    pub fn connections(&self) -> usize {
        self.stats.connections as usize
    }

    /// Endpoints of quinn's that they are spread over: tables for a thousand connections, and for twice as many each.
    pub fn endpoints(&self) -> usize {
        self.tiers.count()
    }

    /// The ids of the connections alive. For housekeeping: it walks the table.
    pub fn connection_ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        let alive = self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_empty());
        alive.map(|(index, slot)| ConnId { index: index as u32, generation: slot.generation })
    }

    /// Refuses connection attempts from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Closes every connection with `code`, and refuses further attempts.
    pub fn close_all(&mut self, now: Instant, code: VarInt, reason: &[u8]) {
        self.now = Some(now);
        self.drain();
        let ids: Vec<ConnId> = self.connection_ids().collect();
        for id in ids {
            if let Some(mut conn) = self.connection(id) {
                conn.close(code, reason);
            }
        }
    }

    /// Accepts further connections with another configuration (a renewed certificate).
    pub fn set_server_config(&mut self, server: Option<Arc<ServerConfig>>) {
        self.is_server = server.is_some();
        self.server = server.clone();
        self.tiers.set_server_config(server);
    }

    /// Other limits from now on. Connections beyond them live on.
    pub fn set_limits(&mut self, connections_max: usize, retry: RetryPolicy) {
        self.config.connections_max = connections_max;
        self.retry.set_policy(retry);
    }

    /// Refuses connection attempts after so many more, until told otherwise; `None` is no such limit. Handshakes that wait
    /// count as connections from the start.
    pub fn set_room(&mut self, connections: Option<u32>) {
        self.room = connections;
    }

    /// Lowers the windows of all connections, each once and for its lifetime. How many were lowered.
    ///
    /// For its lifetime, because quinn books a smaller receive window as a debt, and pays a larger one out at once: windows
    /// that went down and up again would add to the peer's credit each time.
    pub fn lower_windows(&mut self, bytes: u32) -> usize {
        let ids: Vec<ConnId> = self.connection_ids().collect();
        let mut lowered = 0;
        for id in ids {
            let is_lowered = self.look(id, |mut conn| !conn.is_closed() && conn.lower_windows(bytes));
            lowered += usize::from(is_lowered == Some(true));
        }
        lowered
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let GuardStats { sealed, opened, batches, canary_checked, canary_failed } = self.guard.stats();
        Stats {
            retry_active: u64::from(self.retry.active()),
            packets_sealed_in_batches: sealed,
            packets_opened_in_batches: opened,
            protection_batches: batches,
            canary_checked,
            canary_failed,
            ..self.stats
        }
    }

    /// The level that packets are protected at, and whether that isn't what was asked for: a canary has stopped it, or
    /// quinn can't be followed any longer.
    pub fn protection_level(&self) -> (Level, bool) {
        let given_up = self.asked_batched && !self.batched;
        let level = if self.batched { self.guard.level() } else { Level::RING };
        (level, given_up || (self.asked_batched && self.guard.is_stopped()))
    }

    /// What the engine holds.
    pub fn memory(&self) -> Memory {
        let waiting: usize = self.incoming.iter().map(|w| w.datagram_bytes + size_of::<Waiting>()).sum();
        let answers: usize = self.answers.iter().map(|(_, bytes)| bytes.capacity()).sum();
        let parked: usize = self.parked.iter().map(|parked| parked.bytes.capacity()).sum();
        Memory {
            connections_bytes: self.connections() * CONNECTION_BYTES
                - self.folded() * (CONNECTION_BYTES - FOLDED_BYTES),
            incoming_bytes: waiting + self.tiers.incoming_buffer_bytes(),
            budget_bytes: self.budget.memory_bytes(),
            wheel_bytes: self.wheel.memory_bytes(),
            answers_bytes: answers + parked,
            tables_bytes: self.slots.capacity() * size_of::<Slot>()
                + self.touched.capacity() * size_of::<u32>()
                + self.events.capacity() * size_of::<(ConnId, Event)>()
                + self.burst.capacity() * size_of::<Arrival>()
                + self.handshakes.capacity() * size_of::<(Instant, ConnId)>()
                + self.out.capacity()
                + self.batch.memory_bytes()
                + self.mirror.memory_bytes()
                + self.slab.capacity_bytes(),
        }
    }

    fn insert(&mut self, handle: ConnectionHandle, quic: Connection, path: Path, proven: bool) -> ConnId {
        if self.slots.len() <= handle.0 {
            let generation = self.generation_min;
            self.slots.resize_with(handle.0 + 1, || Slot::empty(generation));
        }
        let slot = &mut self.slots[handle.0];
        let id = ConnId { index: handle.0 as u32, generation: slot.generation };
        self.stats.handshakes_started += 1;
        self.stats.connections += 1;
        self.stats.unvalidated_handshakes += u64::from(!proven);
        slot.put(Conn {
            quic,
            path,
            other_path: None,
            validated: proven.then_some(path.remote),
            phase: Phase::Handshake,
            began: self.now,
            touched: true,
            streams_max: self.config.remote_streams_max,
            unvalidated_handshake: !proven,
            window_max: None,
        });
        self.touched.push_back(id.index);
        id
    }

    /// Moves a connection's news on: to the endpoint, to the application, and into the wheel.
    ///
    /// Called after whatever may have produced news: events, timers, transmits.
    fn settle(&mut self, now: Instant, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let id = ConnId { index, generation: slot.generation };
        let Some(conn) = slot.conn() else { return };
        if conn.follow_peer() {
            self.stats.migrations += 1;
            self.events.push_back((id, Event::Migrated));
            let void = self.budget.discard_held(&conn.path);
            self.stats.drop_many(DropReason::AmplificationExpired, void);
        }
        let mut drained = false;
        let mut newly_proven = None;
        while let Some(event) = conn.quic.poll_endpoint_events() {
            drained |= event.is_drained();
            if let Some(answer) = self.tiers.handle_event(index, event) {
                conn.quic.handle_event(answer);
                touch(index, conn, &mut self.touched);
            }
        }
        while let Some(event) = conn.quic.poll() {
            use quinn_proto::Event as Quic;
            let event = match event {
                Quic::HandshakeDataReady => continue,
                Quic::Connected => {
                    conn.phase = Phase::Established;
                    self.stats.handshakes_completed += 1;
                    if std::mem::take(&mut conn.unvalidated_handshake) {
                        self.stats.unvalidated_handshakes -= 1;
                    }
                    // The client has answered with keys that it had to receive to know (RFC 9000 8.1).
                    conn.validated = Some(conn.quic.remote_address());
                    newly_proven = Some(conn.path);
                    let took =
                        conn.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
                    Event::Connected { side: conn.quic.side(), took }
                }
                Quic::ConnectionLost { reason } => {
                    // One that is lost in silence is gone before the application hears of it.
                    if conn.phase == Phase::Established {
                        self.ended.push((id, moved(&conn.quic)));
                    }
                    report_end(id, conn, reason.into(), &mut self.events, &mut self.stats);
                    continue;
                }
                Quic::Stream(StreamEvent::Opened { dir }) => {
                    if raise_streams(conn, dir) {
                        touch(index, conn, &mut self.touched);
                    }
                    Event::StreamOpened { dir }
                }
                Quic::Stream(StreamEvent::Readable { id }) => Event::StreamReadable { id },
                Quic::Stream(StreamEvent::Writable { id }) => Event::StreamWritable { id },
                Quic::Stream(StreamEvent::Finished { id }) => Event::StreamFinished { id },
                Quic::Stream(StreamEvent::Stopped { id, error_code: code }) => {
                    Event::StreamStopped { id, code }
                }
                Quic::Stream(StreamEvent::Available { dir }) => Event::StreamsAvailable { dir },
                Quic::DatagramReceived => Event::DatagramReadable,
                Quic::DatagramsUnblocked => Event::DatagramsUnblocked,
            };
            self.events.push_back((id, event));
        }
        if drained {
            self.remove(id);
        } else if let Some(deadline) = conn.quic.poll_timeout() {
            self.wheel.schedule(now, index, deadline);
        }
        if let Some(path) = newly_proven {
            self.release_all(path);
        }
    }

    /// Gives back the places behind the last connection.
    fn tidy_slots(&mut self) {
        while let Some(slot) = self.slots.pop_if(|slot| slot.is_empty()) {
            self.generation_min = self.generation_min.max(slot.generation);
        }
        self.slots.shrink_to(2 * self.slots.len());
    }

    /// Frees a connection that quinn's endpoint has forgotten already.
    fn remove(&mut self, id: ConnId) {
        let slot = &mut self.slots[id.index as usize];
        let Some(conn) = slot.conn() else { return };
        self.stats.connections -= 1;
        report_end(id, conn, CloseReason::Local, &mut self.events, &mut self.stats);
        *slot = Slot::empty(slot.generation.wrapping_add(1));
        self.wheel.cancel(id.index);
        self.mirror.forget(id.index);
    }

    /// Drops a connection at once, without a word to its peer.
    fn abandon(&mut self, id: ConnId, reason: CloseReason) {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation);
        let Some(conn) = slot.and_then(Slot::conn) else { return };
        report_end(id, conn, reason, &mut self.events, &mut self.stats);
        self.tiers.handle_event(id.index, EndpointEvent::drained());
        self.remove(id);
    }

    /// Counts what the Retry policy looks at, and lets it decide.
    fn update_retry(&mut self) {
        let unvalidated = self.stats.unvalidated_handshakes as usize + self.incoming_unvalidated;
        if self.retry.update(unvalidated) {
            match self.retry.active() {
                true => self.stats.retry_engaged += 1,
                false => self.stats.retry_disengaged += 1,
            }
        }
    }
}

/// The connection in a place, if it is there still; open from now on.
fn conn_at(slots: &mut [Slot], index: u32) -> Option<&mut Conn> {
    slots.get_mut(index as usize)?.conn()
}

/// UDP payload that a connection has sent and received.
fn moved(quic: &Connection) -> (u64, u64) {
    let stats = quic.stats();
    (stats.udp_tx.bytes, stats.udp_rx.bytes)
}

/// An engine may be made on one thread and run on another.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Engine>();
};
