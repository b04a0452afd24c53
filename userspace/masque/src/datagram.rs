//! HTTP datagrams (RFC 9297 section 2) in QUIC DATAGRAM frames, and the context id that starts each of them.
//!
//! ```text
//!  QUIC DATAGRAM:     quarter stream id │ context id │ payload      read_datagram, context_id · datagram_prefix
//!  DATAGRAM capsule:  type 0 │ length   │ context id │ payload      Capsules, context_id · datagram_capsule_frame
//! ```
//!
//! `connect-udp` and `connect-ip` know context 0 alone; on a `beam-listen` stream for UDP the context id is the
//! association (see [`crate::listen`]).

use crate::{CapsuleError, Code, ConnectionError, capsule::CAPSULE_PREFIX_BYTES_MAX, varint};
use bytes::{Buf, Bytes};
use std::ops::Deref;

/// Room to leave in front of a payload for stream and context in their longest forms. Less than
/// [`CAPSULE_PREFIX_BYTES_MAX`], which therefore does for both framings.
pub const DATAGRAM_PREFIX_BYTES_MAX: usize = 2 * varint::VARINT_BYTES_MAX;
/// The longest UDP payload: 65,535 less the UDP header (RFC 9298 section 5).
pub const UDP_PAYLOAD_BYTES_MAX: usize = 65_527;
/// The context of plain UDP payloads (RFC 9298 section 4) and IP packets (RFC 9484 section 5).
pub const CONTEXT_PAYLOAD: u64 = 0;

const QUARTER_STREAM_ID_MAX: u64 = (1 << 60) - 1;

/// The bytes that go right in front of a payload. Invariant: `len` is at most [`CAPSULE_PREFIX_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    bytes: [u8; CAPSULE_PREFIX_BYTES_MAX],
    len: usize,
}

impl Prefix {
    pub(crate) fn of(write: impl FnOnce(&mut &mut [u8])) -> Self {
        let mut bytes = [0; CAPSULE_PREFIX_BYTES_MAX];
        let mut rest = &mut bytes[..];
        write(&mut rest);
        let len = CAPSULE_PREFIX_BYTES_MAX - rest.len();
        Self { bytes, len }
    }

    /// Writes the bytes right in front of `payload_start` and returns where they start.
    ///
    /// # Panics
    /// When there is no room for them: leave [`CAPSULE_PREFIX_BYTES_MAX`].
    #[must_use]
    pub fn write_before(&self, buffer: &mut [u8], payload_start: usize) -> usize {
        assert!(
            payload_start >= self.len && payload_start <= buffer.len(),
            "a prefix of {} bytes needs that room before the payload at {payload_start}; leave CAPSULE_PREFIX_BYTES_MAX",
            self.len
        );
        let start = payload_start - self.len;
        buffer[start..payload_start].copy_from_slice(self);
        start
    }
}

impl Deref for Prefix {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Prefix {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Takes the stream that a QUIC DATAGRAM belongs to off its front: the id of the request stream, and the HTTP datagram,
/// not copied. Whether there is such a stream is for the caller to see: "the receiver SHALL either drop that datagram
/// silently or buffer it temporarily".
///
/// # Errors
/// H3_DATAGRAM_ERROR for the connection: no whole quarter stream id, or one above 2^60 - 1.
pub fn read_datagram(mut datagram: Bytes) -> Result<(u64, Bytes), ConnectionError> {
    let Some((quarter, size_bytes)) = varint::read(&datagram) else {
        let what = "a QUIC DATAGRAM too short for a quarter stream id";
        return Err(ConnectionError::new(Code::H3_DATAGRAM_ERROR, what, datagram.len() as u64));
    };
    if quarter > QUARTER_STREAM_ID_MAX {
        let what = "a quarter stream id above 2^60 - 1";
        return Err(ConnectionError::new(Code::H3_DATAGRAM_ERROR, what, quarter));
    }
    datagram.advance(size_bytes);
    Ok((quarter * 4, datagram))
}

/// Takes the context id off the front of an HTTP datagram; the payload is not copied and may be empty. Unknown contexts
/// are dropped by the caller, silently.
///
/// # Errors
/// [`CapsuleError::Malformed`], when the datagram ends before its context id does.
pub fn context_id(mut datagram: Bytes) -> Result<(u64, Bytes), CapsuleError> {
    let (context_id, size_bytes) = varint::read(&datagram)
        .ok_or(CapsuleError::Malformed("an HTTP datagram that ends before its context id does"))?;
    datagram.advance(size_bytes);
    Ok((context_id, datagram))
}

/// The UDP payload of a `connect-udp` datagram; `None` for an unknown context, to be dropped and counted.
///
/// # Errors
/// [`CapsuleError::Malformed`]: no context id, or more than [`UDP_PAYLOAD_BYTES_MAX`] in context 0: "MUST abort the
/// corresponding stream" (RFC 9298 section 5).
pub fn udp_payload(datagram: Bytes) -> Result<Option<Bytes>, CapsuleError> {
    match context_id(datagram)? {
        (CONTEXT_PAYLOAD, payload) if payload.len() > UDP_PAYLOAD_BYTES_MAX => {
            Err(CapsuleError::Malformed("a UDP payload of more than 65527 bytes"))
        }
        (CONTEXT_PAYLOAD, payload) => Ok(Some(payload)),
        _ => Ok(None),
    }
}

/// What goes in front of a payload in a QUIC DATAGRAM of the request stream `stream_id`: at most 9 bytes in context 0.
#[must_use]
pub fn datagram_prefix(stream_id: u64, context_id: u64) -> Prefix {
    Prefix::of(|out| {
        varint::write(out, stream_id / 4);
        varint::write(out, context_id);
    })
}

/// How many bytes [`datagram_prefix`] takes: what QUIC's datagram limit has to be lowered by to get the largest payload.
#[must_use]
pub fn datagram_overhead_bytes(stream_id: u64, context_id: u64) -> usize {
    varint::size_bytes(stream_id / 4) + varint::size_bytes(context_id)
}
