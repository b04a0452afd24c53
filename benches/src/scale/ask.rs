//! One request on its stream: what is asked for, and what has come of it.

use bytes::Bytes;
use masque::{Item, Limits, MessageReader, RequestHead, ResponseReader, ResponseTo, encode_request, status};
use std::{net::SocketAddr, time::Instant};
use tunnel::{ConnMut, Read, StreamId, Write};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `OPTIONS *`: an answer of the gateway, as `beam ping` asks for (RFC 9110 section 9.3.7).
    Answer,
    /// CONNECT: the first byte of what listens there.
    FirstByte(SocketAddr),
}

/// A request under way. Boxed by its tunnel: there are few at a time.
pub(super) struct Ask {
    pub(super) stream: StreamId,
    /// When it was due.
    pub(super) due: Instant,
    /// When it was handed to QUIC.
    pub(super) sent: Instant,
    unsent: Bytes,
    reader: ResponseReader,
    wants_byte: bool,
    /// What was asked for has come; the end of the stream hasn't.
    is_answered: bool,
}

/// What a look at the stream told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing new.
    Nothing,
    /// What was asked for is there. The stream may go on.
    Answered,
    /// The stream is over, after its answer.
    Over,
    /// It came to nothing, and the stream is over.
    Failed(String),
}

impl Wanted {
    /// The HEADERS frame.
    pub(super) fn encode(self, authority: &str, token: &str) -> Bytes {
        let bearer = format!("Bearer {token}");
        let fields = [("authorization", bearer.as_str())];
        match self {
            Self::Answer => encode_request(&RequestHead::other("OPTIONS", authority, "*", &fields)),
            Self::FirstByte(origin) => encode_request(&RequestHead::connect(&origin.to_string(), &fields)),
        }
    }
}

impl Ask {
    pub(super) fn new(wanted: Wanted, stream: StreamId, request: Bytes, due: Instant, now: Instant) -> Self {
        let to = match wanted {
            Wanted::Answer => ResponseTo::Other,
            Wanted::FirstByte(_) => ResponseTo::Connect,
        };
        Self {
            stream,
            due,
            sent: now,
            unsent: request,
            reader: MessageReader::response(Limits::default(), to),
            wants_byte: wanted != Wanted::Answer,
            is_answered: false,
        }
    }

    /// Writes what is left of the request, and reads what has come.
    pub(super) fn advance(&mut self, conn: &mut ConnMut<'_>) -> Told {
        if let Some(failure) = self.write(conn) {
            return Told::Failed(failure);
        }
        let before = self.is_answered;
        match self.read(conn) {
            Ok(true) => match self.is_answered {
                true if before => Told::Over,
                // Both at once: the caller asks again, and hears of the end.
                true => Told::Answered,
                false => Told::Failed("the stream ended without what was asked for".into()),
            },
            Ok(false) if self.is_answered && !before => Told::Answered,
            Ok(false) => Told::Nothing,
            Err(failure) => Told::Failed(failure),
        }
    }

    /// Says what is wrong, if something is.
    fn write(&mut self, conn: &mut ConnMut<'_>) -> Option<String> {
        while !self.unsent.is_empty() {
            match conn.write_chunks(self.stream, std::slice::from_mut(&mut self.unsent)) {
                Write::Written { .. } if self.unsent.is_empty() => {
                    // A flow ends when its other end does; a request ends here.
                    if !self.wants_byte {
                        conn.finish(self.stream);
                    }
                }
                Write::Written { .. } => {}
                Write::Blocked => break,
                Write::Stopped(code) => return Some(format!("the request's stream was stopped ({code})")),
                Write::Gone => return Some("the request's stream is gone".into()),
            }
        }
        None
    }

    /// True at the stream's end.
    fn read(&mut self, conn: &mut ConnMut<'_>) -> Result<bool, String> {
        loop {
            match self.reader.next().map_err(|error| error.to_string())? {
                Some(Item::Headers(response)) if status::is_interim(response.status) => {}
                Some(Item::Headers(response)) if !status::is_success(response.status) => {
                    return Err(format!("status {}", response.status));
                }
                Some(Item::Headers(_)) => self.is_answered |= !self.wants_byte,
                Some(Item::Data(_)) => self.is_answered = true,
                Some(Item::Trailers(_)) => {}
                Some(Item::End) => {
                    if self.wants_byte {
                        conn.finish(self.stream);
                    }
                    return Ok(true);
                }
                None => match conn.read(self.stream, usize::MAX) {
                    Read::Chunk(bytes) => self.reader.push(bytes),
                    Read::Fin => self.reader.finish(),
                    Read::Blocked => return Ok(false),
                    Read::Reset(code) => return Err(format!("the stream was reset ({code})")),
                    Read::Gone if self.is_answered => return Ok(true),
                    Read::Gone => return Err("the stream is gone".into()),
                },
            }
        }
    }
}
