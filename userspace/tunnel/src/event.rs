//! What an engine tells the application.

use bytes::Bytes;
use quinn_proto::{ConnectionError, Dir, Side, StreamId, TransportErrorCode, VarInt};
use std::fmt;
use std::time::Duration;

/// Something that happened to one connection.
///
/// Each connection ends with exactly one `HandshakeFailed` or `Closed`. After it the connection
/// lingers a few round trips (buffered stream data may still be read), then its id goes stale.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The handshake completed. A server first hears of a connection here.
    Connected {
        /// Which end we are.
        side: Side,
        /// How long the handshake took: from the first Initial that was accepted, or sent.
        took: Duration,
    },
    /// The handshake ended without a connection.
    HandshakeFailed {
        /// Why.
        reason: CloseReason,
    },
    /// The connection ended.
    Closed {
        /// Why.
        reason: CloseReason,
    },
    /// The peer moved to another address, which has yet to be validated.
    Migrated,
    /// The peer opened streams: `accept` until it says `None`. A fresh stream may be readable at
    /// once, and there is no separate `StreamReadable` for that.
    StreamOpened {
        /// Which kind.
        dir: Dir,
    },
    /// A stream may have data, an end or a reset to read.
    StreamReadable {
        /// Which stream.
        id: StreamId,
    },
    /// A stream that was blocked may be written again.
    StreamWritable {
        /// Which stream.
        id: StreamId,
    },
    /// All of a finished stream was acknowledged.
    StreamFinished {
        /// Which stream.
        id: StreamId,
    },
    /// The peer asked us to stop sending on a stream.
    StreamStopped {
        /// Which stream.
        id: StreamId,
        /// The peer's code.
        code: VarInt,
    },
    /// Streams of this kind may be opened again.
    StreamsAvailable {
        /// Which kind.
        dir: Dir,
    },
    /// Datagrams have arrived: `recv_datagram` until it says `None`.
    DatagramReadable,
    /// The datagram send buffer has room again.
    DatagramsUnblocked,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    Local,
    /// The peer's application closed it.
    Peer {
        /// The application's code.
        code: VarInt,
        /// The application's words.
        reason: Bytes,
    },
    /// The peer refused the connection (too many, or it is draining).
    Refused,
    /// The peer's QUIC or TLS stack closed it.
    PeerTransport {
        /// The QUIC error code.
        code: u64,
        /// The peer's words.
        reason: String,
    },
    /// This side's QUIC or TLS stack closed it: a protocol violation, or the peer's certificate.
    Transport {
        /// The QUIC error code.
        code: u64,
        /// What was wrong.
        reason: String,
    },
    /// The peer lost its state and sent a stateless reset.
    Reset,
    /// Nothing was heard for the idle timeout.
    TimedOut,
    /// The handshake took longer than the limit.
    HandshakeTimedOut,
    /// No common QUIC version.
    VersionMismatch,
}

impl From<ConnectionError> for CloseReason {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::VersionMismatch => Self::VersionMismatch,
            ConnectionError::TransportError(error) => {
                Self::Transport { code: error.code.into(), reason: error.reason }
            }
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                Self::Refused
            }
            ConnectionError::ConnectionClosed(close) => Self::PeerTransport {
                code: close.error_code.into(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::ApplicationClosed(close) => {
                Self::Peer { code: close.error_code, reason: close.reason }
            }
            ConnectionError::Reset => Self::Reset,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::LocallyClosed => Self::Local,
            // Happens to CIDs of up to four bytes; ours have seventeen.
            ConnectionError::CidsExhausted => {
                Self::Transport { code: 0x1, reason: "connection IDs exhausted".into() }
            }
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("closed by this side"),
            Self::Peer { code, reason } if reason.is_empty() => write!(f, "closed by the peer (code {code})"),
            Self::Peer { code, reason } => {
                write!(f, "closed by the peer (code {code}): {}", String::from_utf8_lossy(reason))
            }
            Self::Refused => f.write_str(
                "refused by the peer: it has too many connections, too little memory, or is draining",
            ),
            Self::PeerTransport { code, reason } => {
                write!(f, "closed by the peer's QUIC stack (error {code:#x}): {reason}")
            }
            Self::Transport { code, reason } => write!(f, "QUIC error {code:#x}: {reason}"),
            Self::Reset => f.write_str("the peer lost the connection's state (stateless reset)"),
            Self::TimedOut => f.write_str("timed out: nothing was heard from the peer"),
            Self::HandshakeTimedOut => f.write_str("the handshake took too long"),
            Self::VersionMismatch => {
                f.write_str("the peer speaks no QUIC version that beam does (needs version 1)")
            }
        }
    }
}
