//! Names and values to an encoded field section.

use super::{
    integer::{write_integer, write_string},
    table::{Found, find},
};
use bytes::{BufMut, BytesMut};

/// Appends the lines of one section, each in its shortest static or literal form.
pub(crate) struct Encoder<'a> {
    out: &'a mut BytesMut,
}

impl<'a> Encoder<'a> {
    /// Begins a section: Required Insert Count 0, Base 0.
    pub(crate) fn new(out: &'a mut BytesMut) -> Self {
        out.put_slice(&[0, 0]);
        Self { out }
    }

    /// Adds a line. A `sensitive` one is marked never to be indexed by anyone on the way (RFC 9204 section 7.1.3).
    pub(crate) fn line(&mut self, name: &str, value: &[u8], sensitive: bool) {
        match find(name, value) {
            // Nothing in the static table is a secret.
            Found::Line(index) => write_integer(self.out, 0xc0, 6, index as u64),
            Found::Name(index) => {
                write_integer(self.out, 0x50 | u8::from(sensitive) << 5, 4, index as u64);
                write_string(self.out, 0, 7, value);
            }
            Found::Nothing => {
                write_string(self.out, 0x20 | u8::from(sensitive) << 4, 3, name.as_bytes());
                write_string(self.out, 0, 7, value);
            }
        }
    }
}
