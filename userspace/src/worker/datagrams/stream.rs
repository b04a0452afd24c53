//! The datagram side of a request stream: what CONNECT-UDP flows and CONNECT-IP sessions send and receive through.
//!
//! ```text
//!  QUIC DATAGRAM ─► datagrams::receive ─────────────────────────────► the owner
//!  stream ─► Reader (DATA frames) ─► Capsules ─► DatagramStream::next ─► the owner
//!
//!  the owner ─► send ─┬─► QUIC DATAGRAM ◄─ waiting (QUIC's buffer is full)
//!                     └─► DATAGRAM capsule on the stream ◄─ on_stream (its window is full)
//! ```
//! Nothing here waits for a slow peer: both queues are bounded, and the oldest datagram makes room for the youngest.

use super::Drops;
use crate::worker::{
    arena::Arena,
    flow::{Broken, Payload, Reader},
};
use bytes::Bytes;
use masque::{
    Capsule, CapsuleCounts, CapsuleLimits, CapsuleSet, Capsules, Code, Scope, datagram_capsule_frame,
    datagram_prefix,
};
use std::collections::VecDeque;
use tunnel::{ConnMut, DatagramSend, Read, StreamId, Write};

/// Datagrams that wait in one queue.
const QUEUE_COUNT_MAX: usize = 256;
/// Their bytes: four of the longest.
const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Capsules that are no datagrams and wait for the stream: a peer that reads none of them is not worth more memory.
const CONTROL_COUNT_MAX: usize = 64;
/// Bytes read from the stream at once.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How datagrams are put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Framing {
    /// QUIC DATAGRAM frames; capsules for what is too long for one.
    Frames,
    /// DATAGRAM capsules on the stream.
    Capsules,
}

/// What [`DatagramStream::next`] found.
#[derive(Debug)]
pub(in crate::worker) enum Next {
    Capsule(Capsule),
    /// Nothing more now.
    Blocked,
    /// The peer has finished the stream, and all of it was read.
    End,
}

/// See the module.
pub(in crate::worker) struct DatagramStream {
    stream: StreamId,
    reader: Reader,
    capsules: Capsules,
    /// As far as they are in [`Drops`] already.
    counted: CapsuleCounts,
    framing: Framing,
    /// The peer's framing decides ours; what it has used so far.
    mirrors: bool,
    heard: Option<Framing>,
    ended: bool,
    waiting: Queue,
    on_stream: Queue,
}

impl DatagramStream {
    /// For a gateway: it answers in the framing that the client uses, and begins with `framing`. `answer` is the
    /// response's header section.
    pub(in crate::worker) fn accepted(
        stream: StreamId,
        reader: Reader,
        set: CapsuleSet,
        framing: Framing,
        answer: Bytes,
    ) -> Self {
        let mut this = Self::new(stream, reader, set, framing, true);
        this.on_stream.push_control(answer);
        this
    }

    /// For a client, once the gateway has answered 2xx.
    pub(in crate::worker) fn opened(
        stream: StreamId,
        reader: Reader,
        set: CapsuleSet,
        framing: Framing,
    ) -> Self {
        Self::new(stream, reader, set, framing, false)
    }

    fn new(stream: StreamId, reader: Reader, set: CapsuleSet, framing: Framing, mirrors: bool) -> Self {
        Self {
            stream,
            reader,
            capsules: Capsules::new(set, CapsuleLimits::default()),
            counted: CapsuleCounts::default(),
            framing,
            mirrors,
            heard: None,
            ended: false,
            waiting: Queue::default(),
            on_stream: Queue::default(),
        }
    }

    /// A QUIC DATAGRAM frame has come for this stream.
    pub(in crate::worker) fn heard_frame(&mut self) {
        if self.mirrors && self.heard != Some(Framing::Frames) {
            (self.heard, self.framing) = (Some(Framing::Frames), Framing::Frames);
        }
    }

    /// A client that sends capsules before anything else may not listen for frames: libcurl does not. One that has sent
    /// frames takes both, and sends a capsule where a datagram is too long.
    fn heard_capsule(&mut self) {
        if self.mirrors && self.heard.is_none() {
            (self.heard, self.framing) = (Some(Framing::Capsules), Framing::Capsules);
        }
    }

    /// The next capsule of the stream. Unknown and oversized ones are skipped and counted.
    pub(in crate::worker) fn next(
        &mut self,
        quic: &mut ConnMut<'_>,
        arena: &mut Arena,
        drops: &mut Drops,
    ) -> Result<Next, Broken> {
        let next = self.step(quic, arena);
        let counts = self.capsules.counts();
        drops.unknown_capsule += counts.unknown - self.counted.unknown;
        drops.oversize_capsule += counts.oversize_datagrams - self.counted.oversize_datagrams;
        self.counted = counts;
        if matches!(next, Ok(Next::Capsule(Capsule::Datagram(_)))) {
            self.heard_capsule();
        }
        next
    }

    fn step(&mut self, quic: &mut ConnMut<'_>, arena: &mut Arena) -> Result<Next, Broken> {
        loop {
            match self.capsules.next() {
                Ok(Some(capsule)) => return Ok(Next::Capsule(capsule)),
                Ok(None) if self.ended => return Ok(Next::End),
                Ok(None) => {}
                Err(error) => return Err(Broken::Protocol { code: error.code(), connection: false }),
            }
            match self.reader.next() {
                Ok(Some(Payload::Data(data))) => self.capsules.push(data),
                Ok(Some(Payload::End)) => {
                    self.ended = true;
                    self.capsules.finish();
                }
                Ok(Some(Payload::Other)) => {
                    return Err(Broken::Protocol { code: Code::H3_FRAME_UNEXPECTED, connection: true });
                }
                Ok(None) => {
                    if !self.read_stream(quic, arena)? {
                        return Ok(Next::Blocked);
                    }
                }
                Err(error) => {
                    let connection = error.scope() == Scope::Connection;
                    return Err(Broken::Protocol { code: error.code(), connection });
                }
            }
        }
    }

    /// Takes what QUIC has in order. False if that was nothing.
    fn read_stream(&mut self, quic: &mut ConnMut<'_>, arena: &mut Arena) -> Result<bool, Broken> {
        let chunks = arena.chunks();
        let end = quic.read_all(self.stream, READ_BYTES_MAX, chunks);
        let any = !chunks.is_empty();
        chunks.drain(..).for_each(|chunk| self.reader.push(chunk));
        match end {
            Read::Chunk(_) => Ok(true),
            Read::Fin => {
                self.reader.finish();
                Ok(true)
            }
            Read::Blocked => Ok(any),
            Read::Reset(code) => Err(Broken::Reset(code)),
            Read::Gone => Err(Broken::Stream),
        }
    }

    /// Sends one payload in the framing of this stream; a copy of it goes behind its prefix into the arena.
    pub(in crate::worker) fn send(
        &mut self,
        quic: &mut ConnMut<'_>,
        arena: &mut Arena,
        context: u64,
        payload: &[u8],
        drops: &mut Drops,
    ) {
        arena.datagram_space(payload.len()).copy_from_slice(payload);
        self.send_filled(quic, arena, context, payload.len(), drops);
    }

    /// Sends the payload that the caller has put into [`Arena::datagram_space`].
    pub(in crate::worker) fn send_filled(
        &mut self,
        quic: &mut ConnMut<'_>,
        arena: &mut Arena,
        context: u64,
        payload_bytes: usize,
        drops: &mut Drops,
    ) {
        if self.framing == Framing::Frames {
            let prefix = datagram_prefix(self.stream.into(), context);
            let fits = quic.datagram_max_bytes().is_some_and(|max| prefix.len() + payload_bytes <= max);
            if fits {
                let datagram = arena.take_datagram(&prefix, payload_bytes);
                return self.send_frame(quic, datagram, drops);
            }
            drops.sent_as_capsule += 1;
        }
        let prefix = datagram_capsule_frame(context, payload_bytes);
        let capsule = arena.take_datagram(&prefix, payload_bytes);
        drops.queue_full += self.on_stream.push(capsule);
        self.flush_stream(quic);
    }

    fn send_frame(&mut self, quic: &mut ConnMut<'_>, datagram: Bytes, drops: &mut Drops) {
        if !self.waiting.is_empty() {
            drops.queue_full += self.waiting.push(datagram);
            return;
        }
        match quic.send_datagram(datagram, false) {
            DatagramSend::Queued => {}
            DatagramSend::Blocked(datagram) => drops.queue_full += self.waiting.push(datagram),
            DatagramSend::TooLarge | DatagramSend::Unsupported => drops.too_large += 1,
        }
    }

    /// Puts a capsule that is no datagram on the stream, in order. False if too many wait already.
    pub(in crate::worker) fn send_control(&mut self, quic: &mut ConnMut<'_>, capsule: &Capsule) -> bool {
        if self.on_stream.control_count >= CONTROL_COUNT_MAX {
            return false;
        }
        self.on_stream.push_control(capsule.data_frame());
        self.flush_stream(quic);
        true
    }

    /// Sends what waits, as far as QUIC takes it.
    pub(in crate::worker) fn flush(&mut self, quic: &mut ConnMut<'_>, drops: &mut Drops) {
        while let Some(datagram) = self.waiting.pop() {
            match quic.send_datagram(datagram, false) {
                DatagramSend::Queued => {}
                DatagramSend::Blocked(datagram) => {
                    self.waiting.put_back(datagram);
                    break;
                }
                // The path's MTU has shrunk meanwhile.
                DatagramSend::TooLarge | DatagramSend::Unsupported => drops.too_large += 1,
            }
        }
        self.flush_stream(quic);
    }

    fn flush_stream(&mut self, quic: &mut ConnMut<'_>) {
        while let Some(item) = self.on_stream.items.front_mut() {
            let before = item.bytes.len();
            match quic.write_chunks(self.stream, std::slice::from_mut(&mut item.bytes)) {
                Write::Written { .. } if item.bytes.is_empty() => self.on_stream.front_done(before),
                Write::Written { .. } => self.on_stream.front_cut(before),
                Write::Blocked => return,
                // The reading side tells the owner that the stream is over.
                Write::Stopped(_) | Write::Gone => return self.on_stream.clear(),
            }
        }
    }

    /// Whether datagrams leave in QUIC DATAGRAM frames where they fit.
    pub(in crate::worker) fn uses_frames(&self) -> bool {
        self.framing == Framing::Frames
    }

    /// Something waits until QUIC's datagram buffer has room: `DatagramsUnblocked` tells.
    pub(in crate::worker) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What the stream still has to take.
    pub(in crate::worker) fn has_unwritten(&self) -> bool {
        !self.on_stream.is_empty()
    }
}

/// Bytes on their way out, oldest first.
#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    control_count: usize,
    /// The first has been written in part, and so has to go on.
    front_begun: bool,
}

#[derive(Debug)]
struct Item {
    bytes: Bytes,
    /// Never dropped.
    is_control: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a datagram. Says how many older ones had to go.
    fn push(&mut self, bytes: Bytes) -> u64 {
        let mut dropped = 0;
        while (self.items.len() >= QUEUE_COUNT_MAX || self.bytes + bytes.len() > QUEUE_BYTES_MAX)
            && self.drop_oldest()
        {
            dropped += 1;
        }
        self.bytes += bytes.len();
        self.items.push_back(Item { bytes, is_control: false });
        dropped
    }

    fn push_control(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.control_count += 1;
        self.items.push_back(Item { bytes, is_control: true });
    }

    fn drop_oldest(&mut self) -> bool {
        let from = usize::from(self.front_begun);
        let Some(at) = self.items.iter().skip(from).position(|item| !item.is_control) else { return false };
        if let Some(item) = self.items.remove(from + at) {
            self.bytes -= item.bytes.len();
        }
        true
    }

    fn pop(&mut self) -> Option<Bytes> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes.len();
        Some(item.bytes)
    }

    fn put_back(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.items.push_front(Item { bytes, is_control: false });
    }

    fn front_done(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.front_begun = false;
        if let Some(item) = self.items.pop_front() {
            self.control_count -= usize::from(item.is_control);
        }
    }

    fn front_cut(&mut self, before: usize) {
        let left = self.items.front().map_or(0, |item| item.bytes.len());
        self.bytes -= before - left;
        self.front_begun = true;
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a full queue drops the oldest datagram and nothing else: no control capsule, none that is half written.
    use super::*;

    fn bytes(n: usize) -> Bytes {
        Bytes::from(n.to_be_bytes().to_vec())
    }

    #[test]
    fn the_oldest_datagrams_make_room_and_control_stays() {
        let mut queue = Queue::default();
        queue.push_control(Bytes::from_static(b"200"));
        let dropped: u64 = (0..QUEUE_COUNT_MAX + 9).map(|n| queue.push(bytes(n))).sum();
        assert_eq!(dropped, 10, "the control item takes a place, too");
        assert_eq!(queue.pop().as_deref(), Some(&b"200"[..]));
        assert_eq!(queue.pop(), Some(bytes(10)));
        assert_eq!(queue.bytes, (QUEUE_COUNT_MAX - 2) * 8);
    }

    #[test]
    fn what_is_half_written_goes_on() {
        let mut queue = Queue::default();
        queue.push(bytes(0));
        queue.items[0].bytes = queue.items[0].bytes.slice(5..);
        queue.front_cut(8);
        let dropped: u64 = (1..=QUEUE_COUNT_MAX).map(|n| queue.push(bytes(n))).sum();
        assert_eq!(dropped, 1);
        assert_eq!(queue.pop().map(|rest| rest.len()), Some(3));
        assert_eq!(queue.pop(), Some(bytes(2)));
    }

    #[test]
    fn the_bytes_are_bounded() {
        let mut queue = Queue::default();
        let large = Bytes::from(vec![0; 65_000]);
        let dropped: u64 = (0..10).map(|_| queue.push(large.clone())).sum();
        assert_eq!((dropped, queue.items.len(), queue.bytes), (6, 4, 4 * 65_000));
    }
}
