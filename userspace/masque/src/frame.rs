//! Frame types (RFC 9114 section 7.2) and the frame header, which may be cut anywhere.

use crate::varint;

pub(crate) const DATA: u64 = 0x00;
pub(crate) const HEADERS: u64 = 0x01;
pub(crate) const CANCEL_PUSH: u64 = 0x03;
pub(crate) const SETTINGS: u64 = 0x04;
pub(crate) const PUSH_PROMISE: u64 = 0x05;
pub(crate) const GOAWAY: u64 = 0x07;
pub(crate) const MAX_PUSH_ID: u64 = 0x0d;

/// PRIORITY, PING, WINDOW_UPDATE and CONTINUATION of HTTP/2: "their receipt MUST be treated as a connection error of
/// type H3_FRAME_UNEXPECTED" (RFC 9114 section 7.2.8).
pub(crate) fn is_http2_only(kind: u64) -> bool {
    matches!(kind, 0x02 | 0x06 | 0x08 | 0x09)
}

/// True for a type that this crate has a rule for; every other type is an extension and is skipped.
pub(crate) fn is_known(kind: u64) -> bool {
    matches!(kind, DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID)
        || is_http2_only(kind)
}

/// Type and payload length of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u64,
    pub(crate) payload_bytes: u64,
}

/// Collects a frame header over any number of chunks. Holds at most 8 bytes and the type.
#[derive(Debug, Default)]
pub(crate) struct HeaderReader {
    kind: Option<u64>,
    integer: varint::Partial,
}

impl HeaderReader {
    /// Takes bytes from the front of `bytes` until a header is whole. Returns it, if it is, and how many were taken.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> (Option<Header>, usize) {
        for (at, &byte) in bytes.iter().enumerate() {
            let Some(value) = self.integer.push(byte) else { continue };
            match self.kind.take() {
                None => self.kind = Some(value),
                Some(kind) => return (Some(Header { kind, payload_bytes: value }), at + 1),
            }
        }
        (None, bytes.len())
    }

    /// True between frames.
    pub(crate) fn is_empty(&self) -> bool {
        self.kind.is_none() && self.integer.held_bytes() == 0
    }
}
