//! One unidirectional stream of the peer.

use crate::{control::ControlReader, peer_qpack::DecoderStream, varint};

pub(crate) const CONTROL: u64 = 0x00;
pub(crate) const PUSH: u64 = 0x01;
pub(crate) const QPACK_ENCODER: u64 = 0x02;
pub(crate) const QPACK_DECODER: u64 = 0x03;

/// What is known about a stream so far.
#[derive(Debug)]
pub(crate) enum Reader {
    /// Its type has not arrived, or not all of it.
    Untyped(varint::Partial),
    /// Boxed: two other streams have nothing as large.
    Control(Box<ControlReader>),
    QpackEncoder,
    QpackDecoder(DecoderStream),
}

impl Reader {
    /// True for a stream that "MUST NOT be closed".
    pub(crate) fn is_critical(&self) -> bool {
        !matches!(self, Self::Untyped(_))
    }
}
