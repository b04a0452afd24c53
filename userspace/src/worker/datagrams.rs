//! HTTP datagrams (RFC 9297) in a worker: from a connection's QUIC DATAGRAM frames to the request streams they are for.
//!
//! ```text
//!  QUIC DATAGRAM ─► quarter stream id ─┬─► flow (UDP) or session (IP)
//!                                      ├─► early: its request isn't read yet
//!                                      └─► nobody's: counted, dropped
//! ```

mod queue;
mod stream;

pub(super) use stream::{DatagramStream, Framing, Next};

use super::{
    core::Core,
    ip::Tools,
    session::{Session, Slot, close},
};
use bytes::Bytes;
use std::collections::VecDeque;
use tunnel::{ConnId, ConnMut, Dir, Side, StreamId};

/// Datagrams of one connection that wait for their request.
const EARLY_COUNT_MAX: usize = 64;
/// Their bytes: a first flight of each of several flows.
const EARLY_BYTES_MAX: usize = 64 * 1024;
/// How far ahead of the requests seen a datagram's stream may lie: more than a client may have open.
const AHEAD_MAX: u64 = 4096;

/// HTTP datagrams that went nowhere, by reason; and what else there is to count of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drops {
    /// For a stream that carries none, that is over, or that nobody opened.
    pub(super) unknown_flow: u64,
    /// Came before its request, and younger ones needed the room; or the request never opened a flow.
    pub(super) early: u64,
    /// QUIC's receive buffer was full: more came in one turn than it holds.
    pub(super) receive_full: u64,
    /// Of a context that its stream doesn't know.
    pub(super) unknown_context: u64,
    /// A capsule of a type that its stream doesn't know.
    pub(super) unknown_capsule: u64,
    /// A DATAGRAM capsule longer than any datagram; of UDP in context 0 it ends its flow.
    pub(super) oversize_capsule: u64,
    /// The oldest of a full queue towards the peer.
    pub(super) queue_full: u64,
    /// Longer than a QUIC DATAGRAM frame by the time that it could have been sent.
    pub(super) too_large: u64,
    /// No drop: too long for a QUIC DATAGRAM frame, and so sent as a capsule.
    pub(super) sent_as_capsule: u64,
}

impl Drops {
    pub(super) fn drops(&self) -> [(&'static str, u64); 8] {
        [
            ("datagram_unknown_flow", self.unknown_flow),
            ("datagram_early", self.early),
            ("datagram_receive_full", self.receive_full),
            ("datagram_unknown_context", self.unknown_context),
            ("capsule_unknown", self.unknown_capsule),
            ("capsule_oversize", self.oversize_capsule),
            ("datagram_queue_full", self.queue_full),
            ("datagram_too_large", self.too_large),
        ]
    }

    pub(super) fn counters(&self) -> [(&'static str, u64); 1] {
        [("datagrams_sent_as_capsules", self.sent_as_capsule)]
    }
}

/// Datagrams that came before their request was read. Bounded in count and bytes; the oldest make room.
#[derive(Debug, Default)]
pub(super) struct Demux {
    early: VecDeque<(StreamId, Bytes)>,
    early_bytes: usize,
    /// Frames taken from QUIC.
    taken: u64,
    /// Index of the first request stream that the peer hasn't opened.
    first_unopened: u64,
}

impl Demux {
    /// Gateway: the client has opened this request stream.
    pub(super) fn request_opened(&mut self, stream: StreamId) {
        self.first_unopened = self.first_unopened.max(stream.index() + 1);
    }

    /// Keeps a datagram until its request is read. Says how many others had to go for it.
    fn keep(&mut self, stream: StreamId, payload: Bytes) -> u64 {
        if payload.len() > EARLY_BYTES_MAX {
            return 1;
        }
        let mut dropped = 0;
        while self.early.len() >= EARLY_COUNT_MAX || self.early_bytes + payload.len() > EARLY_BYTES_MAX {
            let Some((_, oldest)) = self.early.pop_front() else { break };
            self.early_bytes -= oldest.len();
            dropped += 1;
        }
        self.early_bytes += payload.len();
        // A copy: as it is it would hold a receive slab of 64 KiB.
        self.early.push_back((stream, Bytes::copy_from_slice(&payload)));
        dropped
    }

    /// Takes out what came early for a stream, in order: its flow is open now, or refused.
    pub(super) fn take_early(&mut self, stream: StreamId) -> Vec<Bytes> {
        if self.early.is_empty() {
            return Vec::new();
        }
        let (of_it, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.early).into_iter().partition(|(of, _)| *of == stream);
        self.early = others;
        self.early_bytes -= of_it.iter().map(|(_, payload)| payload.len()).sum::<usize>();
        of_it.into_iter().map(|(_, payload)| payload).collect()
    }

    fn may_come(&self, stream: StreamId) -> bool {
        (self.first_unopened..self.first_unopened + AHEAD_MAX).contains(&stream.index())
    }
}

/// Takes all QUIC DATAGRAM frames of a connection, and hands each to the flow that it is for.
pub(super) fn receive(core: &mut Core, session: &mut Session, conn: ConnId) {
    let Some(mut quic) = core.engine.connection(conn) else { return };
    while let Some(datagram) = quic.recv_datagram() {
        session.datagrams.taken += 1;
        let (id, payload) = match masque::read_datagram(datagram) {
            Ok(parts) => parts,
            Err(error) => return close(&mut quic, &error),
        };
        let stream = StreamId::new(Side::Client, Dir::Bi, id / 4);
        match session.slots.get(&stream) {
            Some(&Slot::Ip(key)) => {
                let mut tools = Tools {
                    quic: &mut quic,
                    arena: &mut core.arena,
                    drops: &mut core.datagrams,
                    ledger: &mut core.ledger,
                    captures: &mut core.captures,
                    now: core.now,
                };
                core.ip.receive_frame(key, payload, &mut tools);
            }
            Some(&Slot::Udp(key)) => {
                let (now, drops, ledger) = (core.now, &mut core.datagrams, &mut core.ledger);
                core.udp.receive_frame(key, payload, now, drops, ledger);
            }
            Some(Slot::Listen | Slot::Reverse(_)) => core.reverse.frames.push((conn, stream, payload)),
            Some(Slot::Head(_) | Slot::Resolving(_)) => {
                core.datagrams.early += session.datagrams.keep(stream, payload);
            }
            None if quic.side() == Side::Server && session.datagrams.may_come(stream) => {
                core.datagrams.early += session.datagrams.keep(stream, payload);
            }
            _ => core.datagrams.unknown_flow += 1,
        }
    }
}

/// A connection has ended: counts what QUIC has dropped of its frames for want of room, which it tells nobody.
pub(super) fn count_lost(core: &mut Core, session: &Session, conn: ConnId) {
    let Some(quic) = core.engine.connection(conn) else { return };
    core.datagrams.receive_full += quic.stats().frame_rx.datagram.saturating_sub(session.datagrams.taken);
}

/// Longest payload of context 0 that one QUIC DATAGRAM frame carries now, for any of the first streams of a connection:
/// their ids take two bytes at most. It changes with the path's MTU. `None`: the peer takes no such frames.
pub(super) fn payload_max_bytes(quic: &mut ConnMut<'_>) -> Option<usize> {
    const PREFIX_BYTES: usize = 3;
    quic.datagram_max_bytes().map(|max| max.saturating_sub(PREFIX_BYTES))
}

#[cfg(test)]
mod tests {
    //! Goal: what comes early is kept in order within its bounds.
    use super::*;

    fn request(index: u64) -> StreamId {
        StreamId::new(Side::Client, Dir::Bi, index)
    }

    #[test]
    fn early_datagrams_wait_in_order_and_the_oldest_make_room() {
        let mut demux = Demux::default();
        let mut dropped = 0;
        for n in 0..100_u8 {
            dropped += demux.keep(request(u64::from(n % 2)), Bytes::copy_from_slice(&[n]));
        }
        assert_eq!(dropped, 100 - EARLY_COUNT_MAX as u64);
        let odd: Vec<u8> = demux.take_early(request(1)).iter().map(|payload| payload[0]).collect();
        assert_eq!(odd, (36..100).filter(|n| n % 2 == 1).collect::<Vec<u8>>());
        assert!(demux.take_early(request(1)).is_empty());
        // 32 of one byte are left; two of 30 KiB fit beside them, a third pushes out those and the first.
        let large = Bytes::from(vec![0; 30 * 1024]);
        assert_eq!(demux.keep(request(5), large.clone()), 0);
        assert_eq!(demux.keep(request(5), large.clone()), 0);
        assert_eq!(demux.keep(request(5), large), 33);
        assert_eq!(demux.keep(request(5), Bytes::from(vec![0; EARLY_BYTES_MAX + 1])), 1);
        assert_eq!((demux.take_early(request(5)).len(), demux.early_bytes), (2, 0));
    }

    #[test]
    fn only_streams_that_may_still_come_are_waited_for() {
        let mut demux = Demux::default();
        assert!(demux.may_come(request(0)) && !demux.may_come(request(AHEAD_MAX)));
        demux.request_opened(request(7));
        demux.request_opened(request(3));
        assert!(!demux.may_come(request(7)) && demux.may_come(request(8)));
    }
}
