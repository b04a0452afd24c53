//! `beam bench serve`: answers what clients ask. It is open: whoever reaches it may have it send and receive as fast as
//! congestion control lets them.
//!
//! # What a stranger can cost
//! - Memory: payloads are cut from one static block, and what comes is read at once and forgotten, so that windows hold
//!   nothing but what is out of order (8 MiB a connection at most, `transport::TransportOptions::gateway`). A stream is some
//!   400 bytes, of which a connection has as many as the engine permits (4096 each way); connections are bounded, too.
//! - Sending: answers keep to flow control, to congestion control, and before the address is proved to three times of what
//!   came; a count of 2^62 bytes is only a number that falls. Streams have their turns one after the other.

use super::{NO_ERROR, REFUSED, STEP_BYTES, STEPS_MAX, UNLIMITED, payload};
use crate::worker::core::Core;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use tunnel::{ConnId, ConnMut, DatagramSend, Dir, Event, Read, StreamId, Write};

/// What is done with datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DatagramsAre {
    /// Each is sent back
    Echo,
    /// They are counted
    Sink,
}

/// What a server has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    streams: u64,
    bytes_received: u64,
    bytes_sent: u64,
    early_connections: u64,
    datagrams_received: u64,
    datagrams_echoed: u64,
    streams_cut: u64,
    streams_headless: u64,
    streams_refused: u64,
    datagrams_not_echoed: u64,
}

impl Totals {
    pub(super) fn counters(&self) -> [(&'static str, u64); 10] {
        [
            ("perf_streams", self.streams),
            ("perf_bytes_received", self.bytes_received),
            ("perf_bytes_sent", self.bytes_sent),
            ("perf_early_connections", self.early_connections),
            ("perf_datagrams_received", self.datagrams_received),
            ("perf_datagrams_echoed", self.datagrams_echoed),
            ("perf_streams_cut", self.streams_cut),
            ("perf_streams_headless", self.streams_headless),
            ("perf_streams_refused", self.streams_refused),
            ("perf_datagrams_not_echoed", self.datagrams_not_echoed),
        ]
    }
}

/// See the module.
pub(crate) struct Server {
    datagrams: DatagramsAre,
    conns: HashMap<ConnId, HashMap<StreamId, Served>>,
    /// Streams with something to do, each once.
    ready: VecDeque<(ConnId, StreamId)>,
    /// Chunks just read; empty between steps.
    chunks: Vec<Bytes>,
    draining: bool,
    pub(super) totals: Totals,
}

/// A stream that is read, or answered on.
#[derive(Default)]
struct Served {
    head: Head,
    /// What is still to be sent, once the client has finished.
    answer: Option<u64>,
    queued: bool,
}

/// The first eight bytes, as they come.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: [u8; 8],
    length: usize,
}

impl Head {
    /// Takes what it lacks; how many bytes of `chunk` are behind it.
    fn push(&mut self, chunk: &[u8]) -> usize {
        let taken = chunk.len().min(self.bytes.len() - self.length);
        self.bytes[self.length..self.length + taken].copy_from_slice(&chunk[..taken]);
        self.length += taken;
        chunk.len() - taken
    }

    fn asked(&self) -> Option<u64> {
        (self.length == self.bytes.len()).then(|| u64::from_be_bytes(self.bytes))
    }
}

/// What became of a stream in a step.
enum Step {
    /// It waits for its peer.
    Waits,
    /// It has more to move.
    More,
    Over,
    Cut,
    Headless,
    /// The answer to a unidirectional stream, which the client gives no stream for.
    Refused,
    /// The answer goes on another stream.
    Moves(StreamId, u64),
}

impl Server {
    pub(crate) fn new(datagrams: DatagramsAre) -> Self {
        Self {
            datagrams,
            conns: HashMap::new(),
            ready: VecDeque::new(),
            chunks: Vec::new(),
            draining: false,
            totals: Totals::default(),
        }
    }

    pub(super) fn on_event(&mut self, core: &mut Core, conn: ConnId, event: &Event) {
        match *event {
            Event::Connected { .. } => {
                self.conns.entry(conn).or_default();
            }
            Event::HandshakeFailed { .. } | Event::Closed { .. } => {
                if let Some(streams) = self.conns.remove(&conn) {
                    self.totals.streams_cut += streams.len() as u64;
                }
            }
            Event::StreamOpened { dir } => {
                // Early data comes before the handshake is done.
                self.totals.early_connections += u64::from(!self.conns.contains_key(&conn));
                self.accept(core, conn, dir);
            }
            Event::StreamReadable { id } | Event::StreamWritable { id } | Event::StreamStopped { id, .. } => {
                self.queue(conn, id);
            }
            Event::DatagramReadable => self.datagrams(core, conn),
            _ => {}
        }
    }

    fn accept(&mut self, core: &mut Core, conn: ConnId, dir: Dir) {
        let Some(mut quic) = core.engine.connection(conn).filter(|quic| !quic.is_closed()) else { return };
        let streams = self.conns.entry(conn).or_default();
        while let Some(id) = quic.accept(dir) {
            if self.draining {
                quic.stop(id, REFUSED);
                quic.reset(id, REFUSED);
                self.totals.streams_refused += 1;
                continue;
            }
            streams.insert(id, Served { queued: true, ..Served::default() });
            self.ready.push_back((conn, id));
        }
    }

    fn queue(&mut self, conn: ConnId, id: StreamId) {
        let Some(served) = self.conns.get_mut(&conn).and_then(|streams| streams.get_mut(&id)) else { return };
        if !std::mem::replace(&mut served.queued, true) {
            self.ready.push_back((conn, id));
        }
    }

    /// Gives each ready stream a step. True if some have more to do.
    pub(super) fn turn(&mut self, core: &mut Core) -> bool {
        for _ in 0..self.ready.len().min(STEPS_MAX) {
            let Some((conn, id)) = self.ready.pop_front() else { break };
            let Some(streams) = self.conns.get_mut(&conn) else { continue };
            let Some(served) = streams.get_mut(&id) else { continue };
            served.queued = false;
            let step = match core.engine.connection(conn) {
                Some(mut quic) => advance(&mut quic, id, served, &mut self.chunks, &mut self.totals),
                None => Step::Cut,
            };
            match step {
                Step::Waits => continue,
                Step::More => {
                    self.queue(conn, id);
                    continue;
                }
                Step::Over => self.totals.streams += 1,
                Step::Cut => self.totals.streams_cut += 1,
                Step::Headless => self.totals.streams_headless += 1,
                Step::Refused => self.totals.streams_refused += 1,
                Step::Moves(to, left) => {
                    let served = Served { answer: Some(left), queued: true, ..Served::default() };
                    streams.insert(to, served);
                    self.ready.push_back((conn, to));
                }
            }
            if let Some(streams) = self.conns.get_mut(&conn) {
                streams.remove(&id);
            }
        }
        !self.ready.is_empty()
    }

    fn datagrams(&mut self, core: &mut Core, conn: ConnId) {
        let Some(mut quic) = core.engine.connection(conn).filter(|quic| !quic.is_closed()) else { return };
        while let Some(datagram) = quic.recv_datagram() {
            self.totals.datagrams_received += 1;
            if self.datagrams == DatagramsAre::Sink {
                continue;
            }
            match quic.send_datagram(datagram, false) {
                DatagramSend::Queued => self.totals.datagrams_echoed += 1,
                DatagramSend::Blocked(_) | DatagramSend::TooLarge | DatagramSend::Unsupported => {
                    self.totals.datagrams_not_echoed += 1;
                }
            }
        }
    }

    /// What runs goes on; nothing new begins.
    pub(super) fn drain(&mut self, core: &mut Core) {
        self.draining = true;
        core.engine.drain();
    }

    pub(super) fn streams(&self) -> u64 {
        self.conns.values().map(|streams| streams.len() as u64).sum()
    }
}

/// One step of a stream.
fn advance(
    quic: &mut ConnMut<'_>,
    id: StreamId,
    served: &mut Served,
    chunks: &mut Vec<Bytes>,
    totals: &mut Totals,
) -> Step {
    if served.answer.is_none() {
        let end = quic.read_all(id, STEP_BYTES, chunks);
        for chunk in chunks.drain(..) {
            totals.bytes_received += served.head.push(&chunk) as u64;
        }
        match end {
            Read::Chunk(_) => return Step::More,
            Read::Blocked => return Step::Waits,
            Read::Reset(_) | Read::Gone => {
                quic.reset(id, NO_ERROR);
                return Step::Cut;
            }
            Read::Fin => {}
        }
        match (served.head.asked(), id.dir()) {
            (None, _) => {
                quic.finish(id);
                return Step::Headless;
            }
            (Some(0), Dir::Uni) => return Step::Over,
            (Some(asked), Dir::Uni) => {
                return quic.open_uni().map_or(Step::Refused, |to| Step::Moves(to, asked));
            }
            (Some(asked), Dir::Bi) => served.answer = Some(asked),
        }
    }
    let Some(left) = &mut served.answer else { return Step::Waits };
    let (mut next, count) = payload(*left);
    match quic.write_chunks(id, &mut next[..count]) {
        Write::Written { bytes, .. } => {
            totals.bytes_sent += bytes as u64;
            if *left != UNLIMITED {
                *left -= bytes as u64;
            }
            // Blocked is known only by trying again.
            if *left > 0 {
                return Step::More;
            }
            quic.finish(id);
            Step::Over
        }
        Write::Blocked => Step::Waits,
        Write::Stopped(_) | Write::Gone => {
            quic.reset(id, NO_ERROR);
            Step::Cut
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the count is read however the bytes are cut, and what follows it is upload.
    use super::*;

    #[test]
    fn a_head_is_whole_however_it_is_cut() {
        let bytes = [&(1_u64 << 62).to_be_bytes()[..], b"upload"].concat();
        for cut in 0..=bytes.len() {
            let mut head = Head::default();
            let behind = head.push(&bytes[..cut]) + head.push(&bytes[cut..]);
            assert_eq!((head.asked(), behind), (Some(1 << 62), 6), "cut at {cut}");
        }
        let mut short = Head::default();
        assert_eq!((short.push(&bytes[..7]), short.asked()), (0, None));
    }

    #[test]
    fn a_payload_is_as_long_as_asked_and_no_longer_than_a_step() {
        for left in [0, 1, 65_536, 65_537, 262_143, 262_144, 1 << 62, UNLIMITED] {
            let (chunks, count) = payload(left);
            let bytes: usize = chunks[..count].iter().map(Bytes::len).sum();
            assert_eq!(bytes as u64, left.min(STEP_BYTES as u64), "{left}");
            assert!(chunks[..count].iter().all(|chunk| !chunk.is_empty()));
        }
    }
}
