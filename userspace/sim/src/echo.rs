//! Two applications: a gateway side that echoes every stream and datagram, and a client that checks the echo.
//!
//! Byte `i` of a flow is a function of the flow's key and `i`, so that a lost, repeated or swapped
//! byte is seen where it happens.

use crate::world::App;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;
use tunnel::{ConnId, DatagramSend, Dir, Engine, Event, Read, StreamId, VarInt, Write};

/// Bytes that the echo holds for one stream before it stops reading: flow control does the rest.
const ECHO_BUFFER_BYTES: usize = 32 << 10;

/// Byte `offset` of the flow with this key.
pub fn pattern(key: u64, offset: u64) -> u8 {
    let word = (key ^ (offset / 8)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word ^ word >> 29).to_le_bytes()[(offset % 8) as usize]
}

/// Echoes every bidirectional stream back, and datagrams as they come.
#[derive(Debug, Default)]
pub struct Echo {
    streams: BTreeMap<(ConnId, StreamId), EchoStream>,
    active: BTreeSet<(ConnId, StreamId)>,
    /// Accepts streams, and never reads them.
    pub stalled: bool,
    /// The most that was held for one stream.
    pub peak_bytes: usize,
}

#[derive(Debug, Default)]
struct EchoStream {
    held: VecDeque<Bytes>,
    held_bytes: usize,
    ended: bool,
}

impl App for Echo {
    fn event(&mut self, engine: &mut Engine, id: ConnId, event: Event) {
        match event {
            Event::StreamOpened { dir: Dir::Bi } => {
                let Some(mut conn) = engine.connection(id) else { return };
                while let Some(stream) = conn.accept(Dir::Bi) {
                    self.streams.insert((id, stream), EchoStream::default());
                    self.active.insert((id, stream));
                }
            }
            Event::StreamReadable { id: stream } | Event::StreamWritable { id: stream } => {
                self.active.insert((id, stream));
            }
            Event::DatagramReadable => {
                let Some(mut conn) = engine.connection(id) else { return };
                while let Some(datagram) = conn.recv_datagram() {
                    conn.send_datagram(datagram, true);
                }
            }
            Event::Closed { .. } | Event::HandshakeFailed { .. } => {
                self.streams.retain(|&(conn, _), _| conn != id);
            }
            _ => {}
        }
    }

    fn poll(&mut self, _now: Instant, engine: &mut Engine) {
        if self.stalled {
            return;
        }
        for key in std::mem::take(&mut self.active) {
            let Some(stream) = self.streams.get_mut(&key) else { continue };
            if stream.pump(engine, key.0, key.1) {
                self.streams.remove(&key);
            } else {
                self.peak_bytes = self.peak_bytes.max(stream.held_bytes);
            }
        }
    }
}

impl EchoStream {
    /// Reads and writes until neither goes on; `true` when the stream is over.
    fn pump(&mut self, engine: &mut Engine, id: ConnId, stream: StreamId) -> bool {
        let Some(mut conn) = engine.connection(id) else { return true };
        loop {
            let mut moved = false;
            while !self.ended && self.held_bytes < ECHO_BUFFER_BYTES {
                match conn.read(stream, ECHO_BUFFER_BYTES - self.held_bytes) {
                    Read::Chunk(chunk) => {
                        moved = true;
                        self.held_bytes += chunk.len();
                        self.held.push_back(chunk);
                    }
                    Read::Blocked => break,
                    Read::Fin => self.ended = true,
                    Read::Reset(code) => {
                        conn.reset(stream, code);
                        return true;
                    }
                    Read::Gone => return true,
                }
            }
            let chunks = self.held.make_contiguous();
            match conn.write_chunks(stream, chunks) {
                _ if chunks.is_empty() => {}
                Write::Written { bytes, chunks } => {
                    moved |= bytes > 0;
                    self.held_bytes -= bytes;
                    self.held.drain(..chunks);
                }
                Write::Blocked => {}
                Write::Stopped(code) => {
                    conn.stop(stream, code);
                    return true;
                }
                Write::Gone => return true,
            }
            if self.ended && self.held.is_empty() {
                conn.finish(stream);
                return true;
            }
            if !moved {
                return false;
            }
        }
    }
}

/// How a flow stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Under way.
    Open,
    /// Every byte came back once and in order, and then the end.
    Complete,
    /// Reported as failed, with the reason.
    Failed(String),
}

/// One flow of a [`Checker`].
#[derive(Clone, Debug)]
pub struct Flow {
    /// Names the pattern.
    pub key: u64,
    /// Bytes to send, and to get back.
    pub size_bytes: u64,
    /// Bytes sent so far.
    pub sent_bytes: u64,
    /// Bytes that came back so far, all of them right.
    pub received_bytes: u64,
    /// How it stands.
    pub outcome: Outcome,
    stream: Option<StreamId>,
    /// What is to be written next, in part.
    pending: Bytes,
    finished: bool,
}

impl Flow {
    /// A flow to run.
    pub fn new(key: u64, size_bytes: u64) -> Self {
        Self {
            key,
            size_bytes,
            sent_bytes: 0,
            received_bytes: 0,
            outcome: Outcome::Open,
            stream: None,
            pending: Bytes::new(),
            finished: false,
        }
    }
}

/// Datagrams to send, and what came back of them: each at most once, and as it was sent.
#[derive(Clone, Debug)]
pub struct Datagrams {
    key: u64,
    size_bytes: usize,
    sent: u64,
    count: u64,
    came_back: BTreeSet<u64>,
}

impl Datagrams {
    /// `count` datagrams of up to `size_bytes`, at least the 8 bytes of a number.
    pub fn new(key: u64, size_bytes: usize, count: u64) -> Self {
        Self { key, size_bytes: size_bytes.max(8), sent: 0, count, came_back: BTreeSet::new() }
    }

    /// How many were sent, and how many came back.
    pub fn totals(&self) -> (u64, u64) {
        (self.sent, self.came_back.len() as u64)
    }

    /// The datagram of this number. Sizes vary.
    fn make(&self, number: u64) -> Bytes {
        let size = 8 + (number as usize * 37) % (self.size_bytes - 7);
        let body = (8..size as u64).map(|offset| pattern(self.key ^ number << 32, offset));
        number.to_le_bytes().into_iter().chain(body).collect()
    }

    fn send(&mut self, engine: &mut Engine, id: ConnId) {
        let Some(mut conn) = engine.connection(id) else { return };
        if self.sent < self.count && conn.send_datagram(self.make(self.sent), false) == DatagramSend::Queued {
            self.sent += 1;
        }
    }

    fn receive(&mut self, engine: &mut Engine, id: ConnId) {
        let Some(mut conn) = engine.connection(id) else { return };
        while let Some(datagram) = conn.recv_datagram() {
            let Some((number, _)) = datagram.split_first_chunk() else { panic!("a stranger's datagram") };
            let number = u64::from_le_bytes(*number);
            assert!(number < self.sent, "a datagram that was never sent: {number}");
            assert!(datagram == self.make(number), "datagram {number} came back changed");
            assert!(self.came_back.insert(number), "datagram {number} came back twice");
        }
    }
}

/// Runs flows over one connection and checks what comes back.
#[derive(Debug)]
pub struct Checker {
    /// The connection.
    pub id: ConnId,
    /// Its flows.
    pub flows: Vec<Flow>,
    /// Its datagrams.
    pub datagrams: Datagrams,
    /// Whether the handshake has completed.
    pub connected: bool,
    /// Whether to write until blocked only, and never read (a stalled reader).
    pub never_read: bool,
    /// Whether flows begin before the handshake is done.
    early: bool,
    /// The gateway took what was sent before.
    pub early_accepted: bool,
    /// It did not, so that the flows began anew.
    pub early_rejected: bool,
    write_chunk_bytes: usize,
}

impl Checker {
    /// Flows over the connection `id`, written in chunks of `write_chunk_bytes`. With a ticket that
    /// permits 0-RTT they begin at once.
    pub fn new(engine: &mut Engine, id: ConnId, flows: Vec<Flow>, write_chunk_bytes: usize) -> Self {
        Self {
            id,
            flows,
            datagrams: Datagrams::new(0, 8, 0),
            connected: false,
            never_read: false,
            early: engine.connection(id).is_some_and(|conn| conn.has_early_data()),
            early_accepted: false,
            early_rejected: false,
            write_chunk_bytes,
        }
    }

    /// Whether every flow came to an end.
    pub fn is_done(&self) -> bool {
        self.flows.iter().all(|flow| flow.outcome != Outcome::Open)
    }

    /// Bytes written and bytes checked, of all flows.
    pub fn totals(&self) -> (u64, u64) {
        let sent = self.flows.iter().map(|flow| flow.sent_bytes).sum();
        (sent, self.flows.iter().map(|flow| flow.received_bytes).sum())
    }

    /// Gives all open flows up.
    pub fn fail(&mut self, why: &str) {
        for flow in self.flows.iter_mut().filter(|flow| flow.outcome == Outcome::Open) {
            flow.outcome = Outcome::Failed(why.into());
        }
    }

    fn connect(&mut self, engine: &mut Engine) {
        self.connected = true;
        let accepted = engine.connection(self.id).is_some_and(|conn| conn.early_data_accepted());
        self.early_accepted = self.early && accepted;
        self.early_rejected = self.early && !accepted;
        if self.early_rejected {
            // quinn has forgotten the streams, and the gateway never saw them.
            for flow in &mut self.flows {
                assert_eq!(flow.received_bytes, 0, "an answer to data that was rejected");
                *flow = Flow::new(flow.key, flow.size_bytes);
            }
        }
    }
}

impl App for Checker {
    fn event(&mut self, engine: &mut Engine, id: ConnId, event: Event) {
        assert_eq!(id, self.id, "an event for a connection that was never opened: {event:?}");
        match event {
            Event::Connected { .. } => self.connect(engine),
            Event::DatagramReadable => self.datagrams.receive(engine, id),
            Event::Closed { reason } | Event::HandshakeFailed { reason } => self.fail(&reason.to_string()),
            _ => {}
        }
    }

    fn poll(&mut self, _now: Instant, engine: &mut Engine) {
        if !self.connected && !self.early {
            return;
        }
        let (id, chunk_bytes, never_read) = (self.id, self.write_chunk_bytes, self.never_read);
        for flow in self.flows.iter_mut().filter(|flow| flow.outcome == Outcome::Open) {
            flow.write(engine, id, chunk_bytes);
            if !never_read {
                flow.check(engine, id);
            }
        }
        if self.connected {
            self.datagrams.send(engine, id);
        }
    }
}

impl Flow {
    fn write(&mut self, engine: &mut Engine, id: ConnId, chunk_bytes: usize) {
        let Some(mut conn) = engine.connection(id) else { return };
        let Some(stream) = self.stream.or_else(|| conn.open_bi()) else { return };
        self.stream = Some(stream);
        while self.sent_bytes < self.size_bytes {
            if self.pending.is_empty() {
                let end = self.size_bytes.min(self.sent_bytes + chunk_bytes as u64);
                self.pending = (self.sent_bytes..end).map(|offset| pattern(self.key, offset)).collect();
            }
            match conn.write_chunks(stream, std::slice::from_mut(&mut self.pending)) {
                Write::Written { bytes, .. } => self.sent_bytes += bytes as u64,
                Write::Blocked => return,
                Write::Stopped(code) => return self.outcome = Outcome::Failed(format!("stopped: {code}")),
                Write::Gone => return self.gone(conn.is_closed()),
            }
        }
        if !self.finished {
            self.finished = true;
            assert!(conn.finish(stream));
        }
    }

    fn check(&mut self, engine: &mut Engine, id: ConnId) {
        let (Some(mut conn), Some(stream)) = (engine.connection(id), self.stream) else { return };
        loop {
            match conn.read(stream, usize::MAX) {
                Read::Chunk(chunk) => {
                    for &byte in &chunk {
                        assert!(byte == pattern(self.key, self.received_bytes), "at {}", self.received_bytes);
                        self.received_bytes += 1;
                    }
                    assert!(self.received_bytes <= self.sent_bytes, "more came back than was sent");
                }
                Read::Blocked => return,
                Read::Fin => {
                    assert_eq!(self.received_bytes, self.size_bytes, "the end came early");
                    return self.outcome = Outcome::Complete;
                }
                Read::Reset(code) => return self.outcome = Outcome::Failed(format!("reset: {code}")),
                Read::Gone => return self.gone(conn.is_closed()),
            }
        }
    }

    /// A stream may go with its connection, and only then.
    fn gone(&mut self, closed: bool) {
        assert!(closed, "a stream vanished from a connection that lives: {self:?}");
        self.outcome = Outcome::Failed("stream gone".into());
    }
}

/// A client's connections, one after the other or at once.
#[derive(Debug, Default)]
pub struct Sessions {
    /// All that were ever opened.
    pub list: Vec<Checker>,
}

impl Sessions {
    /// Whether every flow of every connection came to an end.
    pub fn is_done(&self) -> bool {
        self.list.iter().all(Checker::is_done)
    }
}

impl App for Sessions {
    fn event(&mut self, engine: &mut Engine, id: ConnId, event: Event) {
        // The newest first: an index is used again, with another generation.
        let Some(checker) = self.list.iter_mut().rev().find(|checker| checker.id == id) else {
            panic!("an event for a connection that was never opened: {event:?}");
        };
        checker.event(engine, id, event);
    }

    fn poll(&mut self, now: Instant, engine: &mut Engine) {
        self.list.iter_mut().for_each(|checker| checker.poll(now, engine));
    }
}

/// The code that tests close with.
pub const DONE: VarInt = VarInt::from_u32(0);
