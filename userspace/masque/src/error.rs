//! What can be wrong with the peer's bytes, and how far the damage goes.

use crate::{Code, status};

/// The connection cannot go on: close it with `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {what} (seen {seen:#x}); the connection is closed")]
pub struct ConnectionError {
    /// Goes into CONNECTION_CLOSE.
    pub code: Code,
    /// The rule that the peer broke.
    pub what: &'static str,
    /// The frame type, setting, identifier or length that broke it.
    pub seen: u64,
}

impl ConnectionError {
    /// A violation that the driver found, such as a critical stream that can't be opened.
    #[must_use]
    pub const fn new(code: Code, what: &'static str, seen: u64) -> Self {
        Self { code, what, seen }
    }
}

/// How much has to be torn down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This stream alone; a server may answer with [`MessageError::status`] first.
    Stream,
    /// The whole connection.
    Connection,
}

/// Why [`crate::MessageReader::next`] gave up on a stream. It gives the same answer ever after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The field section is larger than we said we would take (RFC 9114 section 4.2.2).
    #[error(
        "the field section takes {seen_bytes} bytes or more, the limit is {limit_bytes}; send fewer or shorter fields"
    )]
    HeadersTooLarge {
        /// What was declared or reached.
        seen_bytes: u64,
        /// [`crate::Limits::field_section_bytes_max`].
        limit_bytes: u64,
    },
    /// A sequence of frames that is fine, carrying a message that is not (RFC 9114 section 4.1.2).
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// The stream ended before the header section was there.
    #[error("the stream ended before a whole message had arrived")]
    Incomplete,
    /// Worse than one stream.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl MessageError {
    /// Whether the stream or the connection has to go.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::Connection(_) => Scope::Connection,
            _ => Scope::Stream,
        }
    }

    /// The code to close or reset with.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::HeadersTooLarge { .. } => Code::H3_EXCESSIVE_LOAD,
            Self::Malformed(_) => Code::H3_MESSAGE_ERROR,
            Self::Incomplete => Code::H3_REQUEST_INCOMPLETE,
            Self::Connection(error) => error.code,
        }
    }

    /// The status with which a server may answer before it stops the stream (RFC 9114 sections 4.1.2 and 4.2.2).
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::HeadersTooLarge { .. } => Some(status::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::Malformed(_) => Some(status::BAD_REQUEST),
            Self::Incomplete | Self::Connection(_) => None,
        }
    }
}
