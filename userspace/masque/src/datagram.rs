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

#[cfg(test)]
mod tests {
    use super::*;

    /// "Receipt of a QUIC DATAGRAM frame whose payload is too short to allow parsing the Quarter Stream ID field MUST be
    /// treated as an HTTP/3 connection error of type H3_DATAGRAM_ERROR (0x33)" (RFC 9297 section 2.1).
    #[test]
    fn a_datagram_without_a_whole_quarter_stream_id_closes_the_connection() {
        for bytes in [&b""[..], &[0x40], &[0x80, 0, 0], &[0xc0, 0, 0, 0, 0, 0, 0]] {
            let error = read_datagram(Bytes::copy_from_slice(bytes)).unwrap_err();
            assert_eq!((error.code.0, error.seen), (0x33, bytes.len() as u64));
        }
    }

    /// "The largest legal value of the Quarter Stream ID field is 2^60-1. Receipt of an HTTP/3 Datagram that includes a
    /// larger value MUST be treated as an HTTP/3 connection error of type H3_DATAGRAM_ERROR" (RFC 9297 section 2.1).
    #[test]
    fn a_quarter_stream_id_above_the_largest_closes_the_connection() {
        for (quarter, is_legal) in
            [(0, true), (1, true), ((1 << 60) - 1, true), (1 << 60, false), (varint::VARINT_MAX, false)]
        {
            let mut bytes = Vec::new();
            varint::write(&mut bytes, quarter);
            bytes.push(0);
            match read_datagram(bytes.into()) {
                Ok((stream_id, rest)) => {
                    assert_eq!((stream_id, &rest[..], is_legal), (quarter * 4, &[0][..], true));
                }
                Err(error) => assert_eq!((error.code, is_legal), (Code::H3_DATAGRAM_ERROR, false)),
            }
        }
    }

    /// Streams and contexts of every length: what is put in front comes off again, the payload is not copied, and the
    /// overhead is what was said.
    #[test]
    fn what_is_put_in_front_comes_off() {
        for stream_id in [0, 4, 252, 256, 65_532, 65_536, 1 << 40, (1 << 62) - 4] {
            for context in [0, 63, 64, 1 << 30, varint::VARINT_MAX] {
                let prefix = datagram_prefix(stream_id, context);
                assert_eq!(prefix.len(), datagram_overhead_bytes(stream_id, context));
                assert!(prefix.len() <= if context == 0 { 9 } else { DATAGRAM_PREFIX_BYTES_MAX });
                let mut buffer = vec![7; DATAGRAM_PREFIX_BYTES_MAX + 1200];
                let start = prefix.write_before(&mut buffer, DATAGRAM_PREFIX_BYTES_MAX);
                let datagram = Bytes::from(buffer).slice(start..);
                let (seen, rest) = read_datagram(datagram.clone()).unwrap();
                let (seen_context, payload) = context_id(rest).unwrap();
                assert_eq!((seen, seen_context, &payload[..]), (stream_id, context, &[7; 1200][..]));
                assert_eq!(payload.as_ptr(), datagram[prefix.len()..].as_ptr());
            }
        }
    }

    /// RFC 9298 section 5: an endpoint that receives context 0 with a UDP payload of more than 65527 bytes "MUST abort
    /// the corresponding stream". Empty payloads are UDP's own. Unknown contexts are dropped "silently" (section 4).
    #[test]
    fn udp_payloads_and_their_limit() {
        let datagram = |context: u8, payload_bytes: usize| {
            udp_payload(Bytes::from([vec![context], vec![0; payload_bytes]].concat()))
        };
        assert_eq!(datagram(0, 0), Ok(Some(Bytes::new())));
        assert_eq!(datagram(0, 65_527).unwrap().unwrap().len(), 65_527);
        assert!(matches!(datagram(0, 65_528), Err(CapsuleError::Malformed(_))));
        assert_eq!(datagram(2, 65_528), Ok(None));
        assert!(matches!(udp_payload(Bytes::new()), Err(CapsuleError::Malformed(_))));
        assert!(matches!(udp_payload(Bytes::from_static(&[0x40])), Err(CapsuleError::Malformed(_))));
        // A context id of 0 in a longer form is 0 (RFC 9000 section 16 does not ask for the shortest).
        assert_eq!(udp_payload(Bytes::from_static(&[0x40, 0, 1])), Ok(Some(Bytes::from_static(&[1]))));
    }
}
