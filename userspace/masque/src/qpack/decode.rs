//! Encoded field section (RFC 9204 section 4.5) to names and values.

use super::{LINE_OVERHEAD_BYTES, integer::Cursor, table};
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Where a line's name and value lie in [`RawSection::text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// The lines of a section in order, nothing checked but the encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawSection {
    pub(crate) text: Bytes,
    pub(crate) lines: Vec<Line>,
}

/// Why a section does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// QPACK_DECOMPRESSION_FAILED.
    Invalid(&'static str),
    /// Names, values and 32 bytes a line come to more than the limit.
    TooLarge,
}

const DYNAMIC: DecodeError = DecodeError::Invalid("a reference to the dynamic table, whose capacity is 0");

/// Decodes a whole section. What it returns, counted as RFC 9114 section 4.2.2 counts, is at most `bytes_max`.
pub(crate) fn decode(encoded: &[u8], bytes_max: usize) -> Result<RawSection, DecodeError> {
    let mut cursor = Cursor::new(encoded);
    prefix(&mut cursor)?;
    let mut builder = Builder { text: BytesMut::new(), lines: Vec::new(), bytes_max };
    while let Some(first) = cursor.peek() {
        line(&mut cursor, first, &mut builder)?;
    }
    Ok(RawSection { text: builder.text.freeze(), lines: builder.lines })
}

/// Required Insert Count and Base (section 4.5.1). Without a dynamic table the first is 0; the second may be anything
/// that is not negative.
fn prefix(cursor: &mut Cursor<'_>) -> Result<(), DecodeError> {
    if cursor.integer(8)? != 0 {
        return Err(DecodeError::Invalid("Required Insert Count above 0 with a dynamic table of capacity 0"));
    }
    let is_negative = cursor.peek().is_some_and(|first| first & 0x80 != 0);
    cursor.integer(7)?;
    if is_negative {
        return Err(DecodeError::Invalid("a negative Base"));
    }
    Ok(())
}

fn line(cursor: &mut Cursor<'_>, first: u8, builder: &mut Builder) -> Result<(), DecodeError> {
    match first {
        // 1T: indexed field line.
        0x80.. => {
            let (name, value) = static_entry(cursor, first & 0x40 != 0, 6)?;
            let name = builder.append(name.as_bytes())?;
            let value = builder.append(value.as_bytes())?;
            builder.lines.push(Line { name, value });
        }
        // 01NT: literal field line with name reference.
        0x40..0x80 => {
            let (name, _) = static_entry(cursor, first & 0x10 != 0, 4)?;
            let name = builder.append(name.as_bytes())?;
            let value = builder.string(cursor, 7)?;
            builder.lines.push(Line { name, value });
        }
        // 001NH: literal field line with literal name.
        0x20..0x40 => {
            let name = builder.string(cursor, 3)?;
            let value = builder.string(cursor, 7)?;
            builder.lines.push(Line { name, value });
        }
        // 0001 and 0000: both post-base forms.
        0x00..0x20 => return Err(DYNAMIC),
    }
    Ok(())
}

fn static_entry(
    cursor: &mut Cursor<'_>,
    is_static: bool,
    prefix_bits: u32,
) -> Result<(&'static str, &'static str), DecodeError> {
    let index = cursor.integer(prefix_bits)?;
    if !is_static {
        return Err(DYNAMIC);
    }
    table::entry(index).ok_or(DecodeError::Invalid("an index beyond the static table"))
}

/// Collects the lines. Invariant: `text` and 32 bytes for each finished line never exceed `bytes_max`.
struct Builder {
    text: BytesMut,
    lines: Vec<Line>,
    bytes_max: usize,
}

impl Builder {
    /// What the line under way may still take, its own overhead set aside.
    fn room(&self) -> Result<usize, DecodeError> {
        let used = self.text.len() + (self.lines.len() + 1) * LINE_OVERHEAD_BYTES;
        self.bytes_max.checked_sub(used).ok_or(DecodeError::TooLarge)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<Range<usize>, DecodeError> {
        if bytes.len() > self.room()? {
            return Err(DecodeError::TooLarge);
        }
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        Ok(start..self.text.len())
    }

    fn string(&mut self, cursor: &mut Cursor<'_>, length_bits: u32) -> Result<Range<usize>, DecodeError> {
        let room = self.room()?;
        let start = self.text.len();
        cursor.string(length_bits, room, &mut self.text)?;
        Ok(start..self.text.len())
    }
}
