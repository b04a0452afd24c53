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

use super::{Drops, queue::Queue};
use crate::worker::{
    arena::Arena,
    flow::{Broken, Payload, Reader},
};
use bytes::Bytes;
use masque::{
    Capsule, CapsuleCounts, CapsuleLimits, CapsuleSet, Capsules, Code, Scope, datagram_capsule_frame,
    datagram_prefix,
};
use tunnel::{ConnMut, DatagramSend, Read, StreamId, Write};

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

    /// The next capsule of the stream. Unknown and oversized ones are counted, and skipped where the stream may go on.
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
}
