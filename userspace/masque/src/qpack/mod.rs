//! QPACK (RFC 9204) with the static table alone.
//!
//! `decode` turns an encoded field section into [`RawSection`], `Encoder` does the reverse. Both directions announce a
//! dynamic table of 0 bytes, so a reference to one is always QPACK_DECOMPRESSION_FAILED and nothing is kept between
//! sections.

mod decode;
mod encode;
pub(crate) mod huffman;
mod integer;
mod table;

pub(crate) use decode::{DecodeError, Line, RawSection, decode};
pub(crate) use encode::Encoder;
pub(crate) use integer::CONTINUATION_BYTES_MAX;

/// "An overhead of 32 bytes for each field" (RFC 9114 section 4.2.2).
pub(crate) const LINE_OVERHEAD_BYTES: usize = 32;

#[cfg(test)]
mod tests;
