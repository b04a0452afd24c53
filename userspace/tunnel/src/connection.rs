//! One connection as the application sees it: streams, datagrams, identity, and its end.
//!
//! [`ConnMut`] borrows the engine. Every call that may produce packets marks the connection as
//! touched, so that the next `Engine::transmit` polls it; calls that don't, don't.

use crate::event::{CloseReason, Event};
use crate::stats::Stats;
use bytes::Bytes;
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{
    Connection, ConnectionStats, Dir, FinishError, ReadError, ReadableError, SendDatagramError, Side,
    StreamId, VarInt, WriteError,
};
use rustls::pki_types::CertificateDer;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use wire::Path;

/// Names a connection of one engine. The generation tells a reused index apart: a stale id finds
/// nothing, and never another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Place in the engine's table; dense, so that callers can keep their own tables by it.
    pub index: u32,
    /// How often that place was used before.
    pub generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Handshake,
    Established,
    /// The end was reported; the state lingers for late packets.
    Closed,
}

/// What the engine keeps of a connection.
pub(crate) struct Conn {
    pub(crate) quic: Connection,
    /// The addresses in use, as the peer's last move left them.
    pub(crate) path: Path,
    /// Other addresses that a datagram for this connection came over most recently. Boxed: most never have any.
    pub(crate) other_path: Option<Box<Path>>,
    /// The peer's address that has proved itself.
    pub(crate) validated: Option<SocketAddr>,
    pub(crate) phase: Phase,
    /// When its handshake began.
    pub(crate) began: Option<Instant>,
    /// On the engine's list of connections to poll.
    pub(crate) touched: bool,
    /// How far the engine may raise the permitted remote streams.
    pub(crate) streams_max: u32,
    /// Counted among the unvalidated handshakes.
    pub(crate) unvalidated_handshake: bool,
    /// What its windows were lowered to, and stay below.
    pub(crate) window_max: Option<u32>,
}

impl Conn {
    /// A client is not bound by the three-times limit: the server's address is its own choice.
    pub(crate) fn may_send_freely(&self, remote: SocketAddr) -> bool {
        self.validated == Some(remote) || self.quic.side() == Side::Client
    }

    /// Takes over the address that quinn sends to by now; says whether it changed.
    pub(crate) fn follow_peer(&mut self) -> bool {
        let remote = self.quic.remote_address();
        if remote == self.path.remote {
            return false;
        }
        let path = self.path_to(remote);
        self.other_path = Some(Box::new(std::mem::replace(&mut self.path, path)));
        true
    }

    /// Our address for a packet to `remote`: the one that the peer last used from there.
    pub(crate) fn path_to(&self, remote: SocketAddr) -> Path {
        match self.other_path.as_deref() {
            Some(&other) if other.remote == remote && self.path.remote != remote => other,
            _ => Path { local: self.path.local, remote },
        }
    }
}

/// What one read gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes of the stream, in order.
    Chunk(Bytes),
    /// Nothing now; `StreamReadable` will come.
    Blocked,
    /// The peer finished the stream, and all of it was read. The stream is then gone.
    Fin,
    /// The peer abandoned the stream with this code. The stream is then gone.
    Reset(VarInt),
    /// No such stream: never opened, of the wrong direction, stopped, or read to its end before.
    Gone,
}

/// What one write took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// So much was taken; the chunks were advanced.
    Written {
        /// Bytes taken.
        bytes: usize,
        /// Chunks taken whole.
        chunks: usize,
    },
    /// Nothing now (flow control or send window); `StreamWritable` will come.
    Blocked,
    /// The peer stopped the stream with this code.
    Stopped(VarInt),
    /// No such stream: never opened, of the wrong direction, finished or reset before.
    Gone,
}

/// What became of a datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatagramSend {
    /// It is queued.
    Queued,
    /// The buffer is full and older ones were to be kept; `DatagramsUnblocked` will come.
    Blocked(Bytes),
    /// It exceeds `datagram_max_bytes`.
    TooLarge,
    /// The peer takes no datagrams.
    Unsupported,
}

/// A connection, borrowed from its engine.
pub struct ConnMut<'a> {
    pub(crate) id: ConnId,
    pub(crate) conn: &'a mut Conn,
    pub(crate) now: Instant,
    pub(crate) touched: &'a mut VecDeque<u32>,
    pub(crate) events: &'a mut VecDeque<(ConnId, Event)>,
    pub(crate) stats: &'a mut Stats,
}

impl ConnMut<'_> {
    /// This connection's id.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Which end we are.
    pub fn side(&self) -> Side {
        self.conn.quic.side()
    }

    /// Whether the end of this connection has been reported.
    pub fn is_closed(&self) -> bool {
        self.conn.phase == Phase::Closed
    }

    /// Opens a bidirectional stream; `None` when the peer permits no more (`StreamsAvailable` comes).
    pub fn open_bi(&mut self) -> Option<StreamId> {
        self.conn.quic.streams().open(Dir::Bi)
    }

    /// Opens a unidirectional stream; `None` when the peer permits no more (`StreamsAvailable` comes).
    pub fn open_uni(&mut self) -> Option<StreamId> {
        self.conn.quic.streams().open(Dir::Uni)
    }

    /// The next stream that the peer opened.
    pub fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        self.conn.quic.streams().accept(dir)
    }

    /// Reads the next chunk, of at most `max_bytes`. Bulk readers use [`read_all`](Self::read_all).
    pub fn read(&mut self, id: StreamId, max_bytes: usize) -> Read {
        let mut first = None;
        let end = self.read_with(id, max_bytes, &mut |chunk| {
            first = Some(chunk);
            false
        });
        first.map_or(end, Read::Chunk)
    }

    /// Reads up to `max_bytes` in order, appending the chunks to `out`. Returns what follows them:
    /// `Chunk` (empty) when `max_bytes` were read and there may be more.
    pub fn read_all(&mut self, id: StreamId, max_bytes: usize, out: &mut Vec<Bytes>) -> Read {
        self.read_with(id, max_bytes, &mut |chunk| {
            out.push(chunk);
            true
        })
    }

    fn read_with(&mut self, id: StreamId, max_bytes: usize, take: &mut dyn FnMut(Bytes) -> bool) -> Read {
        let more = Read::Chunk(Bytes::new());
        if !self.can_receive(id) {
            return Read::Gone;
        }
        let mut stream = self.conn.quic.recv_stream(id);
        // The engine reads ordered always, so that the only error is a closed stream.
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return Read::Gone,
        };
        let mut left = max_bytes;
        let end = loop {
            if left == 0 {
                break more;
            }
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    if !take(chunk.bytes) {
                        break more;
                    }
                }
                Ok(None) => break Read::Fin,
                Err(ReadError::Blocked) => break Read::Blocked,
                Err(ReadError::Reset(code)) => break Read::Reset(code),
            }
        };
        if chunks.finalize().should_transmit() {
            self.touch();
        }
        end
    }

    /// Whether the peer has reset a stream, told without reading what came before the reset. Once it says `true` the
    /// stream is gone for reading.
    pub fn was_reset(&mut self, id: StreamId) -> bool {
        self.can_receive(id) && matches!(self.conn.quic.recv_stream(id).received_reset(), Ok(Some(_)))
    }

    /// Writes chunks, best of 16 KB or more: quinn's send buffer is searched chunk by chunk.
    pub fn write_chunks(&mut self, id: StreamId, chunks: &mut [Bytes]) -> Write {
        if !self.can_send(id) {
            return Write::Gone;
        }
        match self.conn.quic.send_stream(id).write_chunks(chunks) {
            Ok(written) => {
                // Not when blocked: nothing new can go, and an application that tries again in each
                // round would keep the round going for ever.
                if written.bytes > 0 {
                    self.touch();
                }
                Write::Written { bytes: written.bytes, chunks: written.chunks }
            }
            Err(WriteError::Blocked) => Write::Blocked,
            Err(WriteError::Stopped(code)) => Write::Stopped(code),
            Err(WriteError::ClosedStream) => Write::Gone,
        }
    }

    /// Ends a stream after what was written. `false`: it was gone or stopped already.
    pub fn finish(&mut self, id: StreamId) -> bool {
        if !self.can_send(id) {
            return false;
        }
        self.touch();
        match self.conn.quic.send_stream(id).finish() {
            Ok(()) => true,
            Err(FinishError::Stopped(_) | FinishError::ClosedStream) => false,
        }
    }

    /// Abandons sending on a stream. `false`: it was gone already.
    pub fn reset(&mut self, id: StreamId, code: VarInt) -> bool {
        if !self.can_send(id) {
            return false;
        }
        self.touch();
        self.conn.quic.send_stream(id).reset(code).is_ok()
    }

    /// Asks the peer to stop sending on a stream, and discards what it sent. `false`: it was gone.
    pub fn stop(&mut self, id: StreamId, code: VarInt) -> bool {
        if !self.can_receive(id) {
            return false;
        }
        self.touch();
        self.conn.quic.recv_stream(id).stop(code).is_ok()
    }

    /// Streams of higher priority are sent first; 0 is the default.
    pub fn set_priority(&mut self, id: StreamId, priority: i32) -> bool {
        self.can_send(id) && self.conn.quic.send_stream(id).set_priority(priority).is_ok()
    }

    /// Queues an unreliable datagram. With `drop_oldest`, older ones make room for it.
    pub fn send_datagram(&mut self, data: Bytes, drop_oldest: bool) -> DatagramSend {
        match self.conn.quic.datagrams().send(data, drop_oldest) {
            Ok(()) => {
                self.touch();
                DatagramSend::Queued
            }
            Err(SendDatagramError::Blocked(data)) => DatagramSend::Blocked(data),
            Err(SendDatagramError::TooLarge) => DatagramSend::TooLarge,
            Err(SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => {
                DatagramSend::Unsupported
            }
        }
    }

    /// The next received datagram.
    pub fn recv_datagram(&mut self) -> Option<Bytes> {
        self.conn.quic.datagrams().recv()
    }

    /// Largest datagram that can be sent now; it changes with the path's MTU. `None`: the peer takes none.
    pub fn datagram_max_bytes(&mut self) -> Option<usize> {
        self.conn.quic.datagrams().max_size()
    }

    /// Room in the datagram send buffer, in bytes.
    pub fn datagram_space_bytes(&mut self) -> usize {
        self.conn.quic.datagrams().send_buffer_space()
    }

    /// Ends the connection. Data not yet sent is lost. `Closed` with `Local` follows, once.
    pub fn close(&mut self, code: VarInt, reason: &[u8]) {
        self.touch();
        self.conn.quic.close(self.now, code, Bytes::copy_from_slice(reason));
        report_end(self.id, self.conn, CloseReason::Local, self.events, self.stats);
    }

    /// The peer's certificates, leaf first; empty when it showed none (or before it did).
    pub fn peer_identity(&self) -> Vec<CertificateDer<'static>> {
        let identity = self.conn.quic.crypto_session().peer_identity();
        identity.and_then(|any| any.downcast().ok()).map(|certs| *certs).unwrap_or_default()
    }

    /// The application protocol that was agreed on.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.handshake_data()?.protocol
    }

    /// The server name that the client asked for (server side only).
    pub fn server_name(&self) -> Option<String> {
        self.handshake_data()?.server_name
    }

    fn handshake_data(&self) -> Option<HandshakeData> {
        let data = self.conn.quic.crypto_session().handshake_data()?;
        data.downcast().ok().map(|data| *data)
    }

    /// Whether streams may be opened and written before the handshake is done (client: a ticket that permits 0-RTT).
    pub fn has_early_data(&self) -> bool {
        self.conn.quic.has_0rtt()
    }

    /// Whether the peer accepted what was sent before the handshake was done; known once `Connected` came. If not,
    /// those streams are gone, and nobody has read them.
    pub fn early_data_accepted(&self) -> bool {
        self.conn.quic.accepted_0rtt()
    }

    /// The peer's present address.
    pub fn remote_address(&self) -> SocketAddr {
        self.conn.quic.remote_address()
    }

    /// The addresses in use.
    pub fn path(&self) -> Path {
        self.conn.path
    }

    /// Sends from another local address from now on, after the caller's socket was rebound.
    pub fn set_local_address(&mut self, local: SocketAddr) {
        self.conn.path.local = local;
        self.conn.quic.local_address_changed();
        self.touch();
    }

    /// Smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.conn.quic.rtt()
    }

    /// quinn's statistics: frames, bytes, loss, window, MTU. A copy of some 500 bytes.
    pub fn stats(&self) -> ConnectionStats {
        self.conn.quic.stats()
    }

    /// Sends a packet that elicits an ACK.
    pub fn ping(&mut self) {
        self.touch();
        self.conn.quic.ping();
    }

    /// Bytes that the peer may have outstanding; no more than [`Self::lower_windows`] has left.
    pub fn set_receive_window(&mut self, bytes: u32) {
        if self.conn.window_max.is_some_and(|max| bytes > max) {
            return;
        }
        self.touch();
        self.conn.quic.set_receive_window(bytes.into());
    }

    /// Bytes that may be written ahead of their acknowledgement.
    pub fn set_send_window(&mut self, bytes: u64) {
        self.conn.quic.set_send_window(bytes);
    }

    /// Lowers both windows for as long as the connection lives, because memory is short. False: they were lowered before.
    pub(crate) fn lower_windows(&mut self, bytes: u32) -> bool {
        if self.conn.window_max.is_some_and(|max| max <= bytes) {
            return false;
        }
        // Which gives the peer no credit, so that nothing is to be sent, and a connection at rest may rest on.
        self.conn.quic.set_receive_window(bytes.into());
        self.conn.window_max = Some(bytes);
        self.set_send_window(bytes.into());
        true
    }

    /// Lets the engine raise the permitted remote streams on demand, up to `max`. Before, it is
    /// `EngineConfig::remote_streams_max`: a stranger gets less than somebody known.
    pub fn permit_streams(&mut self, max: u32) {
        if max <= self.conn.streams_max {
            return;
        }
        self.conn.streams_max = max;
        // The peer may be at its limit already: then no further stream will raise it.
        for dir in [Dir::Bi, Dir::Uni] {
            raise_streams(self.conn, dir);
        }
        self.touch();
    }

    /// Permits at least so many remote streams now, and not only once half of fewer are open: for a peer that will need
    /// them all of a sudden.
    pub fn permit_at_once(&mut self, dir: Dir, count: u32) {
        let count = count.min(self.conn.streams_max);
        if self.conn.quic.max_concurrent_streams(dir) < count.into() {
            self.set_remote_streams(dir, count);
        }
    }

    /// Remote streams permitted at once; the engine also raises it on demand.
    pub fn set_remote_streams(&mut self, dir: Dir, count: u32) {
        self.touch();
        self.conn.quic.set_max_concurrent_streams(dir, count.into());
    }

    /// Rekeys now, for tests.
    pub fn force_key_update(&mut self) {
        self.touch();
        self.conn.quic.force_key_update();
    }

    fn touch(&mut self) {
        touch(self.id.index, self.conn, self.touched);
    }

    /// quinn panics when a stream of the wrong direction is asked for.
    fn can_receive(&self, id: StreamId) -> bool {
        id.dir() == Dir::Bi || id.initiator() != self.conn.quic.side()
    }

    fn can_send(&self, id: StreamId) -> bool {
        id.dir() == Dir::Bi || id.initiator() == self.conn.quic.side()
    }
}

/// Permits four times as many remote streams as are open once half of those permitted are. True if it did.
pub(crate) fn raise_streams(conn: &mut Conn, dir: Dir) -> bool {
    let permitted = conn.quic.max_concurrent_streams(dir);
    let open = conn.quic.streams().remote_open_streams(dir);
    let raise = open * 2 >= permitted && permitted < conn.streams_max.into();
    if raise {
        let more = (4 * open).clamp(1, conn.streams_max.into());
        conn.quic.set_max_concurrent_streams(dir, VarInt::from_u64(more).unwrap_or(VarInt::MAX));
    }
    raise
}

/// Puts a connection on the list that `transmit` polls, once.
pub(crate) fn touch(index: u32, conn: &mut Conn, touched: &mut VecDeque<u32>) {
    if !conn.touched {
        conn.touched = true;
        touched.push_back(index);
    }
}

/// Reports the end of a connection, once, and counts it.
pub(crate) fn report_end(
    id: ConnId,
    conn: &mut Conn,
    reason: CloseReason,
    events: &mut VecDeque<(ConnId, Event)>,
    stats: &mut Stats,
) {
    let event = match conn.phase {
        Phase::Closed => return,
        Phase::Handshake => {
            stats.handshakes_failed += 1;
            Event::HandshakeFailed { reason }
        }
        Phase::Established => {
            stats.connections_closed += 1;
            Event::Closed { reason }
        }
    };
    conn.phase = Phase::Closed;
    if std::mem::take(&mut conn.unvalidated_handshake) {
        stats.unvalidated_handshakes -= 1;
    }
    events.push_back((id, event));
}
