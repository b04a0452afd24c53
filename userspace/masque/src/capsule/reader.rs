//! One tunnel's receive side, from the payload of its DATA frames to capsules.

use super::{Capsule, CapsuleCounts, CapsuleError, CapsuleLimits, CapsuleSet, DATAGRAM};
use crate::{CONTEXT_PAYLOAD, frame, varint};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// Reserved at once for a payload that comes in pieces. More is reserved only as it arrives, since a peer may announce
/// 64 KiB and send one byte.
const RESERVED_BYTES_MAX: usize = 2048;

/// Where in a capsule the stream is, and how much of the payload is missing.
#[derive(Clone, Copy, Debug)]
enum Position {
    Header,
    Payload {
        kind: u64,
        missing: usize,
    },
    /// An oversize datagram whose context id, which decides about the stream, hasn't come whole.
    Context {
        missing: u64,
    },
    Skip {
        missing: u64,
    },
}

/// Reads capsules. Invariant: after `next` said `None`, it holds less than one payload within [`CapsuleLimits`], and
/// the start of a capsule header.
#[derive(Debug)]
pub struct Capsules {
    set: CapsuleSet,
    limits: CapsuleLimits,
    chunks: VecDeque<Bytes>,
    is_finished: bool,
    position: Position,
    header: frame::HeaderReader,
    /// The part of a payload that came in earlier chunks.
    payload: BytesMut,
    counts: CapsuleCounts,
    failure: Option<CapsuleError>,
}

impl Capsules {
    /// For a tunnel of one `:protocol`.
    #[must_use]
    pub fn new(set: CapsuleSet, limits: CapsuleLimits) -> Self {
        Self {
            set,
            limits,
            chunks: VecDeque::new(),
            is_finished: false,
            position: Position::Header,
            header: frame::HeaderReader::default(),
            payload: BytesMut::new(),
            counts: CapsuleCounts::default(),
            failure: None,
        }
    }

    /// Adds the next payload of a DATA frame. After [`Self::finish`] or a failure there is nothing to add, and it is
    /// ignored.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() && !self.is_finished && self.failure.is_none() {
            self.chunks.push_back(chunk);
        }
    }

    /// The stream ended cleanly after what was pushed: [`Self::next`] says whether that was between two capsules.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Bytes that are held: pushed but not asked for yet, and the start of a payload.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum::<usize>() + self.payload.len()
    }

    /// True when [`Self::buffered_bytes`] is not 0.
    #[must_use]
    pub fn has_buffered(&self) -> bool {
        !self.chunks.is_empty() || !self.payload.is_empty()
    }

    /// What came so far.
    #[must_use]
    pub fn counts(&self) -> CapsuleCounts {
        self.counts
    }

    /// The next capsule; `None` when more bytes are needed, and at the end. A datagram that came in one chunk is a
    /// slice of it.
    ///
    /// # Errors
    /// The stream is beyond repair; what was pushed is dropped and every later call says the same.
    #[expect(
        clippy::should_implement_trait,
        reason = "None means `not yet`, as it never does for an Iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Capsule>, CapsuleError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.advance().inspect_err(|failure| {
            self.failure = Some(*failure);
            self.chunks = VecDeque::new();
            self.payload = BytesMut::new();
        })
    }

    /// Steps until there is a capsule or nothing is left to step over. Each step takes bytes from the chunks or ends.
    fn advance(&mut self) -> Result<Option<Capsule>, CapsuleError> {
        loop {
            // A payload of no bytes is whole without any chunk.
            if let Position::Payload { kind, missing } = self.position
                && let Some(payload) = self.take_payload(kind, missing)
            {
                return Capsule::parse(kind, payload).map(Some);
            }
            let Some(chunk) = self.chunks.front_mut() else { return self.on_empty() };
            match &mut self.position {
                Position::Header => {
                    let (header, taken_bytes) = self.header.read(chunk);
                    chunk.advance(taken_bytes);
                    if let Some(header) = header {
                        self.position = self.begin(header)?;
                    }
                }
                // `take_payload` above left no chunk if it is still waiting, so this is not reached.
                Position::Payload { .. } => return Ok(None),
                Position::Context { missing } => {
                    let missing = *missing;
                    self.position = self.judge_context(missing)?;
                }
                Position::Skip { missing } => {
                    let part = (chunk.len() as u64).min(*missing);
                    *missing -= part;
                    chunk.advance(part as usize);
                    if *missing == 0 {
                        self.position = Position::Header;
                    }
                }
            }
            self.drop_empty_chunk();
        }
    }

    fn on_empty(&self) -> Result<Option<Capsule>, CapsuleError> {
        let is_between = matches!(self.position, Position::Header) && self.header.is_empty();
        if self.is_finished && !is_between { Err(CapsuleError::Truncated) } else { Ok(None) }
    }

    fn drop_empty_chunk(&mut self) {
        if self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
    }

    /// Decides by type and length whether a payload is taken. "Endpoints MUST silently drop" unknown capsules "and skip
    /// over to parse the next" (RFC 9297 section 3.2).
    fn begin(&mut self, header: frame::Header) -> Result<Position, CapsuleError> {
        let frame::Header { kind, payload_bytes } = header;
        let size = usize::try_from(payload_bytes).unwrap_or(usize::MAX);
        if kind == DATAGRAM && size <= self.limits.datagram_bytes_max {
            self.counts.datagrams += 1;
            return Ok(Position::Payload { kind, missing: size });
        }
        if self.set.has_control(kind) {
            self.counts.control += 1;
            if size > self.limits.control_bytes_max {
                let limit_bytes = self.limits.control_bytes_max as u64;
                return Err(CapsuleError::TooLarge { kind, seen_bytes: payload_bytes, limit_bytes });
            }
            return Ok(Position::Payload { kind, missing: size });
        }
        if kind == DATAGRAM {
            self.counts.oversize_datagrams += 1;
            if self.set == CapsuleSet::Udp {
                return Ok(Position::Context { missing: payload_bytes });
            }
        } else {
            self.counts.unknown += 1;
        }
        Ok(if payload_bytes == 0 { Position::Header } else { Position::Skip { missing: payload_bytes } })
    }

    /// One byte more of the context id of an oversize datagram. In context 0 it is a UDP payload of more than 65,527 bytes:
    /// "MUST abort the corresponding stream"; another context may know longer ones, and is skipped (RFC 9298 section 5).
    fn judge_context(&mut self, missing: u64) -> Result<Position, CapsuleError> {
        let Some(chunk) = self.chunks.front_mut() else { return Ok(Position::Context { missing }) };
        self.payload.extend_from_slice(&chunk.split_to(1));
        let missing = missing - 1;
        let position = match varint::read(&self.payload) {
            Some((CONTEXT_PAYLOAD, _)) => {
                return Err(CapsuleError::Malformed("a UDP payload of more than 65527 bytes"));
            }
            None if missing > 0 => return Ok(Position::Context { missing }),
            _ if missing == 0 => Position::Header,
            _ => Position::Skip { missing },
        };
        self.payload.clear();
        Ok(position)
    }

    /// Takes what the chunks have of a payload; returns it once it is whole, uncopied where it came in one chunk.
    fn take_payload(&mut self, kind: u64, mut missing: usize) -> Option<Bytes> {
        while missing > 0 {
            let Some(chunk) = self.chunks.front_mut() else { break };
            let part = chunk.split_to(missing.min(chunk.len()));
            self.drop_empty_chunk();
            if part.len() == missing && self.payload.is_empty() {
                self.position = Position::Header;
                return Some(part);
            }
            if self.payload.is_empty() {
                self.payload.reserve(missing.min(RESERVED_BYTES_MAX));
            }
            missing -= part.len();
            self.payload.extend_from_slice(&part);
        }
        if missing > 0 {
            self.position = Position::Payload { kind, missing };
            return None;
        }
        self.position = Position::Header;
        Some(std::mem::take(&mut self.payload).freeze())
    }
}
