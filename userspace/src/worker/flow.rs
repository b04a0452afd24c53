//! One TCP flow: a local socket spliced to a QUIC stream, the same at the gateway and at the client.
//!
//! ```text
//!  QUIC stream ─► Reader (DATA frames) ─► to_socket ─► writev ─► socket
//!  QUIC stream ◄─ DATA header + payload, one chunk ◄─ to_stream ◄─ read ◄─ socket
//! ```
//! Backpressure: the stream is read only while the socket takes bytes, so that QUIC flow control closes towards the
//! peer; the socket is read only while the stream takes bytes, so that TCP's window closes. Between the two wait at
//! most [`TO_SOCKET_BYTES_MAX`] and one chunk of [`READ_BYTES_MAX`].

use super::arena::Arena;
use bytes::Bytes;
use masque::{Code, Item, Message, MessageError, RequestReader, ResponseReader, Scope};
use socket2::Socket;
use std::{
    collections::VecDeque,
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
};
use tunnel::{ConnMut, Read as StreamRead, StreamId, VarInt, Write as StreamWrite};

/// Bytes of a stream waiting for the socket.
const TO_SOCKET_BYTES_MAX: usize = 128 * 1024;
/// Chunks handed to one `writev`.
const IOV_MAX: usize = 64;
/// Payload read from the socket at once: the send buffer likes chunks of 16 KiB or more.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Chunks up to this that wait for the socket are copied: each would hold a whole receive slab of 64 KiB.
const COPY_BYTES_MAX: usize = 1024;
/// Bytes moved in each direction before other flows get their turn.
pub(super) const QUOTA_BYTES: usize = 512 * 1024;

/// What a pump has left to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Waits for an event.
    Waiting,
    /// A quota is used up: pump again.
    More { to_socket: bool, to_stream: bool },
    /// Both directions are finished.
    Done,
    /// The flow ended early.
    Broken(Broken),
}

/// Why a flow ended early, and so what the other side is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The socket failed: the stream is reset with H3_CONNECT_ERROR (RFC 9114 section 4.4).
    Socket(io::ErrorKind),
    /// The peer reset the stream or stopped reading: the socket is reset.
    Stream,
    /// The same of a stream of datagrams, with the peer's code.
    Reset(VarInt),
    /// The peer sent what HTTP/3 doesn't allow on this stream: reset with this code.
    Protocol { code: Code, connection: bool },
}

/// The receive side of a stream behind its header section: a gateway reads a request, a client a response.
pub(super) enum Reader {
    Request(RequestReader),
    Response(ResponseReader),
}

/// What a tunnel's stream holds; anything but DATA breaks HTTP/3 there.
pub(super) enum Payload {
    Data(bytes::Bytes),
    End,
    Other,
}

impl Payload {
    fn of<M: Message>(item: Item<M>) -> Self {
        match item {
            Item::Data(data) => Self::Data(data),
            Item::End => Self::End,
            Item::Headers(_) | Item::Trailers(_) => Self::Other,
        }
    }
}

impl Reader {
    pub(super) fn next(&mut self) -> Result<Option<Payload>, MessageError> {
        Ok(match self {
            Self::Request(reader) => reader.next()?.map(Payload::of),
            Self::Response(reader) => reader.next()?.map(Payload::of),
        })
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        match self {
            Self::Request(reader) => reader.push(chunk),
            Self::Response(reader) => reader.push(chunk),
        }
    }

    pub(super) fn finish(&mut self) {
        match self {
            Self::Request(reader) => reader.finish(),
            Self::Response(reader) => reader.finish(),
        }
    }
}

/// Bytes that one pump may move. A rate may leave nothing of one of them; then that side isn't read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    pub(super) to_socket_bytes: usize,
    pub(super) to_stream_bytes: usize,
}

/// A spliced socket and stream. Created once the CONNECT was answered with 2xx.
pub(super) struct Splice {
    stream: StreamId,
    reader: Reader,
    to_socket: VecDeque<Bytes>,
    to_socket_bytes: usize,
    to_stream: Option<Bytes>,
    stream_ended: bool,
    socket_shut: bool,
    socket_ended: bool,
    stream_finished: bool,
    /// The peer's QUIC has all that we sent. Until then the flow runs: an end of the connection would lose the rest.
    stream_acked: bool,
    /// Payload bytes from the stream to the socket.
    pub(super) bytes_to_socket: u64,
    /// Payload bytes from the socket to the stream.
    pub(super) bytes_to_stream: u64,
}

/// Readiness of a socket under edge-triggered epoll.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readiness {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// No edge will come after this one: read until the end shows.
    pub(super) hangup: bool,
    /// The socket holds an error, most likely a reset.
    pub(super) failed: bool,
}

impl Splice {
    /// `first` goes out before what the socket has to say: the response's header section, or bytes that a client sent
    /// early; it may be empty.
    pub(super) fn new(stream: StreamId, reader: Reader, first: Bytes) -> Self {
        Self {
            stream,
            reader,
            to_socket: VecDeque::new(),
            to_socket_bytes: 0,
            to_stream: (!first.is_empty()).then_some(first),
            stream_ended: false,
            socket_shut: false,
            socket_ended: false,
            stream_finished: false,
            stream_acked: false,
            bytes_to_socket: 0,
            bytes_to_stream: 0,
        }
    }

    /// Moves bytes both ways until nothing moves or the quota is used up.
    pub(super) fn pump(
        &mut self,
        conn: &mut ConnMut<'_>,
        socket: &Socket,
        ready: &mut Readiness,
        arena: &mut Arena,
        quota: Quota,
    ) -> Progress {
        let to_socket = match self.pump_to_socket(conn, socket, ready, arena, quota.to_socket_bytes) {
            Ok(more) => more,
            Err(broken) => return Progress::Broken(broken),
        };
        let to_stream = match self.pump_to_stream(conn, socket, ready, arena, quota.to_stream_bytes) {
            Ok(more) => more,
            Err(broken) => return Progress::Broken(broken),
        };
        if self.socket_shut && self.stream_acked {
            Progress::Done
        } else if to_socket || to_stream {
            Progress::More { to_socket, to_stream }
        } else {
            Progress::Waiting
        }
    }

    /// QUIC says that the peer has acknowledged the whole stream.
    pub(super) fn acknowledged(&mut self) {
        self.stream_acked = true;
    }

    /// The peer reads no more of our stream, which the caller has reset: what the socket says from now on goes nowhere.
    pub(super) fn stopped(&mut self) {
        self.to_stream = None;
        self.socket_ended = true;
        self.stream_finished = true;
        self.stream_acked = true;
    }

    /// The connection has ended. What its peer had acknowledged is ours to deliver: takes the rest of the stream over,
    /// a receive window at most. False if the flow can't do without the connection: either direction is incomplete.
    pub(super) fn outlive(&mut self, conn: &mut ConnMut<'_>, arena: &mut Arena) -> bool {
        self.stream_finished && self.fill_from_stream(conn, arena, usize::MAX).is_ok() && self.stream_ended
    }

    /// Writes what [`Self::outlive`] took over.
    pub(super) fn write_rest(&mut self, socket: &Socket, ready: &mut Readiness) -> Progress {
        while !self.to_socket.is_empty() && ready.writable {
            if let Err(broken) = self.write_socket(socket, ready, usize::MAX) {
                return Progress::Broken(broken);
            }
        }
        if self.to_socket.is_empty() { Progress::Done } else { Progress::Waiting }
    }

    /// True if the quota ended it.
    fn pump_to_socket(
        &mut self,
        conn: &mut ConnMut<'_>,
        socket: &Socket,
        ready: &mut Readiness,
        arena: &mut Arena,
        mut quota_bytes: usize,
    ) -> Result<bool, Broken> {
        while quota_bytes > 0 {
            self.fill_from_stream(conn, arena, TO_SOCKET_BYTES_MAX)?;
            if self.to_socket.is_empty() || !ready.writable {
                break;
            }
            quota_bytes -= self.write_socket(socket, ready, quota_bytes)?;
        }
        let stopped = quota_bytes == 0;
        // A reset overtakes what is not moved on; else the flow would live as long as its reader sleeps, or until its
        // client's rate permits.
        if (stopped || self.to_socket_bytes >= TO_SOCKET_BYTES_MAX) && conn.was_reset(self.stream) {
            return Err(Broken::Stream);
        }
        if self.stream_ended && self.to_socket.is_empty() && !self.socket_shut {
            self.socket_shut = true;
            // The peer may have closed altogether meanwhile; then the reading side says so.
            let _ = socket.shutdown(Shutdown::Write);
        }
        Ok(stopped && !self.socket_shut)
    }

    /// Reads the stream until `enough_bytes` wait for the socket.
    fn fill_from_stream(
        &mut self,
        conn: &mut ConnMut<'_>,
        arena: &mut Arena,
        enough_bytes: usize,
    ) -> Result<(), Broken> {
        while self.to_socket_bytes < enough_bytes && !self.stream_ended {
            match self.reader.next() {
                Ok(Some(Payload::Data(data))) => {
                    self.to_socket_bytes += data.len();
                    let small = data.len() <= COPY_BYTES_MAX && !self.to_socket.is_empty();
                    self.to_socket.push_back(if small { Bytes::copy_from_slice(&data) } else { data });
                    continue;
                }
                Ok(Some(Payload::End)) => {
                    self.stream_ended = true;
                    continue;
                }
                Ok(Some(Payload::Other)) => {
                    return Err(Broken::Protocol { code: Code::H3_FRAME_UNEXPECTED, connection: true });
                }
                Ok(None) => {}
                Err(error) => {
                    let connection = error.scope() == Scope::Connection;
                    return Err(Broken::Protocol { code: error.code(), connection });
                }
            }
            if !self.read_stream(conn, arena)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes what QUIC has in order. False if that was nothing.
    fn read_stream(&mut self, conn: &mut ConnMut<'_>, arena: &mut Arena) -> Result<bool, Broken> {
        let chunks = arena.chunks();
        let end = conn.read_all(self.stream, TO_SOCKET_BYTES_MAX, chunks);
        let any = !chunks.is_empty();
        chunks.drain(..).for_each(|chunk| self.reader.push(chunk));
        match end {
            StreamRead::Chunk(_) => Ok(true),
            StreamRead::Fin => {
                self.reader.finish();
                Ok(true)
            }
            StreamRead::Blocked => Ok(any),
            StreamRead::Reset(_) | StreamRead::Gone => Err(Broken::Stream),
        }
    }

    /// Writes at most `max_bytes`.
    fn write_socket(
        &mut self,
        mut socket: &Socket,
        ready: &mut Readiness,
        max_bytes: usize,
    ) -> Result<usize, Broken> {
        let mut vector = [IoSlice::new(&[]); IOV_MAX];
        let (mut slices, mut left_bytes) = (0, max_bytes);
        for (slot, bytes) in vector.iter_mut().zip(&self.to_socket) {
            let length = bytes.len().min(left_bytes);
            if length == 0 {
                break;
            }
            *slot = IoSlice::new(&bytes[..length]);
            left_bytes -= length;
            slices += 1;
        }
        match socket.write_vectored(&vector[..slices]) {
            Ok(written) => {
                self.drop_written(written);
                Ok(written)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                ready.writable = false;
                Ok(0)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(e) => Err(Broken::Socket(e.kind())),
        }
    }

    fn drop_written(&mut self, mut written: usize) {
        self.to_socket_bytes -= written;
        self.bytes_to_socket += written as u64;
        while let Some(front) = self.to_socket.front_mut() {
            if front.len() > written {
                bytes::Buf::advance(front, written);
                return;
            }
            written -= front.len();
            self.to_socket.pop_front();
        }
    }

    /// True if the quota ended it.
    fn pump_to_stream(
        &mut self,
        conn: &mut ConnMut<'_>,
        socket: &Socket,
        ready: &mut Readiness,
        arena: &mut Arena,
        mut quota_bytes: usize,
    ) -> Result<bool, Broken> {
        loop {
            if !self.write_stream(conn)? {
                Self::check_failure(socket, ready)?;
                return Ok(false);
            }
            if self.socket_ended || !ready.readable {
                break;
            }
            if quota_bytes == 0 {
                Self::check_failure(socket, ready)?;
                return Ok(true);
            }
            quota_bytes -= self.read_socket(socket, ready, arena, quota_bytes)?;
        }
        if self.socket_ended && !self.stream_finished {
            self.stream_finished = true;
            // A stream that can't be finished is one that nobody reads: there is nothing to wait for.
            self.stream_acked = !conn.finish(self.stream);
        }
        Ok(false)
    }

    /// Finds out about a reset while the stream, or the client's rate, keeps us from reading the socket. What the socket still holds is lost
    /// then, as it is to a plain TCP connection whose reader stands still.
    fn check_failure(socket: &Socket, ready: &mut Readiness) -> Result<(), Broken> {
        if !std::mem::take(&mut ready.failed) {
            return Ok(());
        }
        match socket.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(e)) | Err(e) => Err(Broken::Socket(e.kind())),
        }
    }

    /// True if nothing waits for the stream any more.
    fn write_stream(&mut self, conn: &mut ConnMut<'_>) -> Result<bool, Broken> {
        while let Some(chunk) = &mut self.to_stream {
            match conn.write_chunks(self.stream, std::slice::from_mut(chunk)) {
                StreamWrite::Written { .. } if chunk.is_empty() => self.to_stream = None,
                StreamWrite::Written { .. } => {}
                StreamWrite::Blocked => return Ok(false),
                StreamWrite::Stopped(_) | StreamWrite::Gone => return Err(Broken::Stream),
            }
        }
        Ok(true)
    }

    fn read_socket(
        &mut self,
        mut socket: &Socket,
        ready: &mut Readiness,
        arena: &mut Arena,
        max_bytes: usize,
    ) -> Result<usize, Broken> {
        let buffer = arena.payload_space(READ_BYTES_MAX.min(max_bytes));
        let room = buffer.len();
        match socket.read(buffer) {
            Ok(0) => {
                self.socket_ended = true;
                Ok(0)
            }
            Ok(length) => {
                // A short read has emptied the socket, and the next bytes raise an edge; but the end may already have
                // had its edge.
                ready.readable = length == room || ready.hangup;
                self.bytes_to_stream += length as u64;
                self.to_stream = Some(arena.take_data_frame(length));
                Ok(length)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                ready.readable = false;
                Ok(0)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(e) => Err(Broken::Socket(e.kind())),
        }
    }
}
