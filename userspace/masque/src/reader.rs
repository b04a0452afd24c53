//! One request stream, from the bytes of its receive side to a message.
//!
//! ```text
//!   push(chunk) ─► chunks ─► frame header ─┬─ HEADERS ─► section (bounded) ─► QPACK ─► Headers / Trailers
//!                                          ├─ DATA ────► Data: slices of the chunk
//!                                          └─ unknown ─► skipped as it arrives
//! ```
//!
//! [`MessageReader::next`] works on what was pushed and says `None` when it needs more; then no chunk is held any more,
//! only the start of a frame that is not whole. A driver that is under back-pressure just does not call it.

use crate::{
    Code, ConnectionError, FieldSection, MessageError, Request, Response, ResponseTo, frame,
    message::{Body, Message, sealed},
    qpack::{self, DecodeError, RawSection},
};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// A server may prepare the client with 1xx responses, but not for ever.
const INTERIM_COUNT_MAX: u32 = 16;

/// Bounds of a reader; see [`crate::Connection::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest field section, encoded as well as decoded (with 32 bytes a line, as RFC 9114 section 4.2.2 counts).
    /// No sane encoder makes a section longer than its decoded count.
    pub field_section_bytes_max: usize,
    /// `:protocol` is allowed: ENABLE_CONNECT_PROTOCOL was announced.
    pub extended_connect: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let config = crate::Config::default();
        Self {
            field_section_bytes_max: config.max_field_section_bytes,
            extended_connect: config.extended_connect,
        }
    }
}

/// A part of a message.
#[derive(Clone, Debug)]
pub enum Item<M> {
    /// The header section. For responses, several may come: all but the last are 1xx.
    Headers(M),
    /// Part of the content or of the tunnel; never empty, not copied.
    Data(Bytes),
    /// The trailer section.
    Trailers(FieldSection),
    /// The peer finished sending, cleanly. Nothing comes after it.
    End,
}

/// Where in the message the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    BeforeHeaders,
    /// What is left of the announced length, if one was announced.
    Content {
        left: Option<u64>,
    },
    Tunnel,
    AfterTrailers,
    Ended,
}

/// Where in a frame the stream is, and how much of the payload is missing.
#[derive(Debug)]
enum Position {
    Header,
    Section { missing: usize },
    Data { missing: u64 },
    Skip { missing: u64 },
}

/// Reads requests, on a server.
pub type RequestReader = MessageReader<Request>;
/// Reads responses, on a client.
pub type ResponseReader = MessageReader<Response>;

/// The receive side of one request stream. Invariant: after `next` said `None`, it holds at most
/// [`Limits::field_section_bytes_max`] and a frame header.
#[derive(Debug)]
pub struct MessageReader<M: Message> {
    limits: Limits,
    context: <M as sealed::Sealed>::Context,
    chunks: VecDeque<Bytes>,
    is_finished: bool,
    stage: Stage,
    position: Position,
    header: frame::HeaderReader,
    /// The part of a section that came in earlier chunks.
    section: BytesMut,
    interim_count: u32,
    failure: Option<MessageError>,
}

impl MessageReader<Request> {
    /// For a stream on which a request is expected.
    #[must_use]
    pub fn request(limits: Limits) -> Self {
        Self::new(limits, ())
    }
}

impl MessageReader<Response> {
    /// For the stream on which a request was sent.
    #[must_use]
    pub fn response(limits: Limits, to: ResponseTo) -> Self {
        Self::new(limits, to)
    }
}

impl<M: Message> MessageReader<M> {
    fn new(limits: Limits, context: M::Context) -> Self {
        Self {
            limits,
            context,
            chunks: VecDeque::new(),
            is_finished: false,
            stage: Stage::BeforeHeaders,
            position: Position::Header,
            header: frame::HeaderReader::default(),
            section: BytesMut::new(),
            interim_count: 0,
            failure: None,
        }
    }

    /// Adds the next bytes of the stream. After [`Self::finish`] or a failure there is nothing to add, and they are
    /// ignored.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() && !self.is_finished && self.failure.is_none() {
            self.chunks.push_back(chunk);
        }
    }

    /// The stream ended cleanly (FIN) after what was pushed. A reset is not reported here: drop the reader.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    /// True once DATA is a tunnel's: after the header section of a CONNECT, or of its 2xx.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.stage == Stage::Tunnel
    }

    /// Bytes that are held: pushed but not asked for yet, and the start of a section.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum::<usize>() + self.section.len()
    }

    /// True when [`Self::buffered_bytes`] is not 0.
    #[must_use]
    pub fn has_buffered(&self) -> bool {
        !self.chunks.is_empty() || !self.section.is_empty()
    }

    /// The next part of the message; `None` when more bytes are needed, and after [`Item::End`].
    ///
    /// # Errors
    /// The stream or the connection is beyond repair; what was pushed is dropped and every later call says the same.
    #[expect(
        clippy::should_implement_trait,
        reason = "None means `not yet`, as it never does for an Iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Item<M>>, MessageError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.advance().inspect_err(|failure| {
            self.failure = Some(*failure);
            self.chunks = VecDeque::new();
            self.section = BytesMut::new();
        })
    }

    /// Steps until there is an item or nothing is left to step over. Each step takes bytes from the chunks or ends.
    fn advance(&mut self) -> Result<Option<Item<M>>, MessageError> {
        loop {
            // A section of no bytes is whole without any chunk.
            if let Position::Section { missing } = self.position
                && let Some(raw) = self.take_section(missing)?
            {
                return self.on_section(raw).map(Some);
            }
            let Some(chunk) = self.chunks.front_mut() else {
                return if self.is_finished { self.on_end() } else { Ok(None) };
            };
            let available = chunk.len() as u64;
            match &mut self.position {
                Position::Header => {
                    let (header, taken_bytes) = self.header.read(chunk);
                    chunk.advance(taken_bytes);
                    self.drop_empty_chunk();
                    if let Some(header) = header {
                        self.position = self.begin(header)?;
                    }
                }
                // `take_section` above left no chunk if it is still waiting, so this is not reached.
                Position::Section { .. } => return Ok(None),
                Position::Data { missing } => {
                    let part = available.min(*missing);
                    *missing -= part;
                    let data = chunk.split_to(part as usize);
                    self.end_frame_if_whole();
                    return Ok(Some(Item::Data(data)));
                }
                Position::Skip { missing } => {
                    let part = available.min(*missing);
                    *missing -= part;
                    chunk.advance(part as usize);
                    self.end_frame_if_whole();
                }
            }
        }
    }

    fn drop_empty_chunk(&mut self) {
        if self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
    }

    fn end_frame_if_whole(&mut self) {
        if matches!(self.position, Position::Data { missing: 0 } | Position::Skip { missing: 0 }) {
            self.position = Position::Header;
        }
        self.drop_empty_chunk();
    }

    /// Decides by its type whether a frame may come here, and how its payload is read.
    fn begin(&mut self, header: frame::Header) -> Result<Position, MessageError> {
        let frame::Header { kind, payload_bytes } = header;
        let unexpected =
            |what| Err(MessageError::Connection(ConnectionError::new(Code::H3_FRAME_UNEXPECTED, what, kind)));
        match (kind, self.stage) {
            (frame::DATA, Stage::Content { .. } | Stage::Tunnel) => self.begin_data(payload_bytes),
            (frame::DATA, Stage::BeforeHeaders) => unexpected("DATA before HEADERS"),
            (frame::DATA, _) => unexpected("DATA after the trailers"),
            (frame::HEADERS, Stage::BeforeHeaders | Stage::Content { .. }) => {
                self.begin_section(payload_bytes)
            }
            (frame::HEADERS, Stage::Tunnel) => unexpected("HEADERS in a tunnel"),
            (frame::HEADERS, _) => unexpected("HEADERS after the trailers"),
            (frame::PUSH_PROMISE, stage) if stage != Stage::Tunnel => Err(M::PUSH_PROMISE.into()),
            _ if frame::is_known(kind) => unexpected("a frame that a request stream does not carry"),
            (_, _) if payload_bytes == 0 => Ok(Position::Header),
            (_, _) => Ok(Position::Skip { missing: payload_bytes }),
        }
    }

    fn begin_data(&mut self, payload_bytes: u64) -> Result<Position, MessageError> {
        if let Stage::Content { left: Some(left) } = &mut self.stage {
            *left = left
                .checked_sub(payload_bytes)
                .ok_or(MessageError::Malformed("more DATA than content-length says, or than there can be"))?;
        }
        Ok(if payload_bytes == 0 { Position::Header } else { Position::Data { missing: payload_bytes } })
    }

    fn begin_section(&mut self, payload_bytes: u64) -> Result<Position, MessageError> {
        match usize::try_from(payload_bytes) {
            Ok(missing) if missing <= self.limits.field_section_bytes_max => {
                Ok(Position::Section { missing })
            }
            _ => Err(self.too_large(payload_bytes)),
        }
    }

    fn too_large(&self, seen_bytes: u64) -> MessageError {
        MessageError::HeadersTooLarge { seen_bytes, limit_bytes: self.limits.field_section_bytes_max as u64 }
    }

    /// Takes what the chunks have of a section; decodes it once it is whole, in place where it came in one chunk.
    fn take_section(&mut self, mut missing: usize) -> Result<Option<RawSection>, MessageError> {
        while missing > 0 {
            let Some(chunk) = self.chunks.front_mut() else { break };
            let part = chunk.split_to(missing.min(chunk.len()));
            self.drop_empty_chunk();
            missing -= part.len();
            if missing == 0 && self.section.is_empty() {
                self.position = Position::Header;
                return self.decode(&part).map(Some);
            }
            self.section.extend_from_slice(&part);
        }
        if missing > 0 {
            self.position = Position::Section { missing };
            return Ok(None);
        }
        self.position = Position::Header;
        let section = std::mem::take(&mut self.section);
        self.decode(&section).map(Some)
    }

    fn decode(&self, encoded: &[u8]) -> Result<RawSection, MessageError> {
        let limit = self.limits.field_section_bytes_max;
        qpack::decode(encoded, limit).map_err(|error| match error {
            DecodeError::TooLarge => self.too_large(limit as u64 + 1),
            DecodeError::Invalid(what) => {
                ConnectionError::new(Code::QPACK_DECOMPRESSION_FAILED, what, encoded.len() as u64).into()
            }
        })
    }

    fn on_section(&mut self, raw: RawSection) -> Result<Item<M>, MessageError> {
        if let Stage::Content { .. } = self.stage {
            self.stage = self.check_length(Stage::AfterTrailers)?;
            return FieldSection::from_raw(raw).map(Item::Trailers);
        }
        let message = M::parse(raw, &self.limits, self.context)?;
        self.stage = match message.body(self.context) {
            Body::Interim => {
                self.count_interim()?;
                Stage::BeforeHeaders
            }
            Body::Content(left) => Stage::Content { left },
            Body::Tunnel => Stage::Tunnel,
        };
        Ok(Item::Headers(message))
    }

    fn count_interim(&mut self) -> Result<(), MessageError> {
        self.interim_count += 1;
        if self.interim_count > INTERIM_COUNT_MAX {
            let what = "more than 16 interim responses";
            return Err(ConnectionError::new(Code::H3_EXCESSIVE_LOAD, what, self.interim_count.into()).into());
        }
        Ok(())
    }

    /// The stage that follows the content, if that is as long as it was said to be.
    fn check_length(&self, next: Stage) -> Result<Stage, MessageError> {
        match self.stage {
            Stage::Content { left: Some(left) } if left > 0 => {
                Err(MessageError::Malformed("less DATA than content-length says"))
            }
            _ => Ok(next),
        }
    }

    fn on_end(&mut self) -> Result<Option<Item<M>>, MessageError> {
        let is_between_frames = matches!(self.position, Position::Header) && self.header.is_empty();
        match self.stage {
            Stage::Ended => Ok(None),
            _ if !is_between_frames => {
                let what = "the stream ended in the middle of a frame";
                Err(ConnectionError::new(Code::H3_FRAME_ERROR, what, self.section.len() as u64).into())
            }
            Stage::BeforeHeaders => Err(M::INCOMPLETE),
            Stage::Content { .. } | Stage::Tunnel | Stage::AfterTrailers => {
                self.stage = self.check_length(Stage::Ended)?;
                Ok(Some(Item::End))
            }
        }
    }
}
