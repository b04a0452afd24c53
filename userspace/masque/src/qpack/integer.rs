//! Prefixed integers (RFC 7541 section 5.1) and string literals (RFC 9204 section 4.1.2).

use super::{decode::DecodeError, huffman};
use bytes::{BufMut, BytesMut};

/// Bytes after the prefix that a 62-bit integer can need: 9 times 7 bits. Longer forms are padding and are refused.
pub(crate) const CONTINUATION_BYTES_MAX: usize = 9;
const VALUE_MAX: u64 = (1 << 62) - 1;

/// What is left of an encoded field section.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) =
            self.rest.split_first().ok_or(DecodeError::Invalid("a field section ends early"))?;
        self.rest = rest;
        Ok(byte)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(DecodeError::Invalid("a string literal ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// An integer whose first byte has `prefix_bits` bits of it; the others are the caller's and were peeked at.
    pub(super) fn integer(&mut self, prefix_bits: u32) -> Result<u64, DecodeError> {
        let mask = (1u64 << prefix_bits) - 1;
        let prefix = u64::from(self.byte()?) & mask;
        if prefix < mask {
            return Ok(prefix);
        }
        let mut value = 0u64;
        for continuation in 0..CONTINUATION_BYTES_MAX {
            let byte = self.byte()?;
            // 9 * 7 = 63 bits: no overflow.
            value |= u64::from(byte & 0x7f) << (7 * continuation);
            if byte & 0x80 == 0 {
                let value = value + mask;
                return if value <= VALUE_MAX {
                    Ok(value)
                } else {
                    Err(DecodeError::Invalid("integer above 62 bits"))
                };
            }
        }
        Err(DecodeError::Invalid("integer with a needlessly long form"))
    }

    /// A string literal whose first byte has `length_bits` bits of its length, below the Huffman flag. Appends the plain
    /// string, at most `plain_bytes_max` bytes of it, to `out`.
    pub(super) fn string(
        &mut self,
        length_bits: u32,
        plain_bytes_max: usize,
        out: &mut BytesMut,
    ) -> Result<(), DecodeError> {
        let is_huffman = self.peek().is_some_and(|first| first >> length_bits & 1 == 1);
        let length = self.integer(length_bits)?;
        let literal = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        if is_huffman {
            return huffman::decode(literal, plain_bytes_max, out).map_err(|error| match error {
                huffman::Error::Invalid => DecodeError::Invalid("a string literal is not valid Huffman code"),
                huffman::Error::TooLong => DecodeError::TooLarge,
            });
        }
        if literal.len() > plain_bytes_max {
            return Err(DecodeError::TooLarge);
        }
        out.put_slice(literal);
        Ok(())
    }
}

/// Writes an integer with a prefix of `prefix_bits` under the `flags` of its first byte.
pub(super) fn write_integer(out: &mut BytesMut, flags: u8, prefix_bits: u32, value: u64) {
    let mask = (1u64 << prefix_bits) - 1;
    if value < mask {
        out.put_u8(flags | value as u8);
        return;
    }
    out.put_u8(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// Writes a string literal in the shorter of its two forms. `flags` is what stands above the Huffman flag.
pub(super) fn write_string(out: &mut BytesMut, flags: u8, length_bits: u32, plain: &[u8]) {
    let coded_bytes = huffman::encoded_bytes(plain);
    if coded_bytes < plain.len() {
        write_integer(out, flags | 1 << length_bits, length_bits, coded_bytes as u64);
        huffman::encode(plain, out);
    } else {
        write_integer(out, flags, length_bits, plain.len() as u64);
        out.put_slice(plain);
    }
}
