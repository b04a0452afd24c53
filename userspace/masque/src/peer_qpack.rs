//! The peer's QPACK streams (RFC 9204 sections 4.3 and 4.4), of which a dynamic table of 0 bytes leaves little.

use crate::{Code, ConnectionError, qpack::CONTINUATION_BYTES_MAX};

/// The only instruction that the peer's encoder may send: Set Dynamic Table Capacity, to 0, which has this one form.
const SET_CAPACITY_0: u8 = 0x20;

/// Checks bytes of the peer's encoder stream. No state: every permitted instruction is one byte.
pub(crate) fn check_encoder_stream(bytes: &[u8]) -> Result<(), ConnectionError> {
    match bytes.iter().find(|&&byte| byte != SET_CAPACITY_0) {
        None => Ok(()),
        Some(&byte) => {
            let what = match byte {
                0x20..0x40 => "a dynamic table capacity above the 0 that we allow",
                _ => "an insertion into a dynamic table of capacity 0",
            };
            Err(ConnectionError::new(Code::QPACK_ENCODER_STREAM_ERROR, what, byte.into()))
        }
    }
}

/// Checks the peer's decoder stream: Stream Cancellations are skipped, nothing else makes sense. Holds a count.
#[derive(Debug, Default)]
pub(crate) struct DecoderStream {
    /// Continuation bytes that the instruction under way may still have; 0 between instructions.
    continuation_left: usize,
}

impl DecoderStream {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        bytes.iter().try_for_each(|&byte| self.byte(byte))
    }

    fn byte(&mut self, byte: u8) -> Result<(), ConnectionError> {
        let error = |what| Err(ConnectionError::new(Code::QPACK_DECODER_STREAM_ERROR, what, byte.into()));
        if self.continuation_left > 0 {
            self.continuation_left -= 1;
            let is_last = byte & 0x80 == 0;
            if is_last {
                self.continuation_left = 0;
            } else if self.continuation_left == 0 {
                return error("an integer above 62 bits");
            }
            return Ok(());
        }
        match byte {
            0x80.. => error("a Section Acknowledgment, though no section needed one"),
            0x40..0x80 => {
                self.continuation_left = if byte & 0x3f == 0x3f { CONTINUATION_BYTES_MAX } else { 0 };
                Ok(())
            }
            0x00 => error("an Insert Count Increment of 0"),
            0x01..0x40 => error("an Insert Count Increment beyond what was inserted, which is nothing"),
        }
    }
}
