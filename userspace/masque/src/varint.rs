//! QUIC variable-length integers (RFC 9000 section 16), written in the shortest form.

use bytes::BufMut;

/// The largest value, 2^62 - 1.
pub const VARINT_MAX: u64 = (1 << 62) - 1;
/// The longest form, in bytes.
pub const VARINT_BYTES_MAX: usize = 8;

/// How many bytes the shortest form of `value` takes. Values above [`VARINT_MAX`] count as that maximum.
#[must_use]
pub const fn size_bytes(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends the shortest form of `value`; a value above [`VARINT_MAX`] is written as that maximum.
pub fn write(out: &mut impl BufMut, value: u64) {
    let value = value.min(VARINT_MAX);
    match size_bytes(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(value as u16 | 0x4000),
        4 => out.put_u32(value as u32 | 0x8000_0000),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

/// Reads one integer from the front: its value and how many bytes it took. `None` while bytes are missing.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let size_bytes = 1usize << (first >> 6);
    let rest = bytes.get(1..size_bytes)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte));
    Some((value, size_bytes))
}

/// An integer that may be cut anywhere by the chunks that it arrives in. Holds at most 8 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Partial {
    bytes: [u8; VARINT_BYTES_MAX],
    len: u8,
}

impl Partial {
    /// Takes one byte; the value once it is whole, after which the object is empty again.
    pub fn push(&mut self, byte: u8) -> Option<u64> {
        // `len` is below 8 here: with 8 bytes held `read` would have succeeded and emptied it.
        self.bytes[usize::from(self.len) % VARINT_BYTES_MAX] = byte;
        self.len += 1;
        let (value, _) = read(&self.bytes[..usize::from(self.len)])?;
        self.len = 0;
        Some(value)
    }

    /// Bytes held of an integer that is not whole yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        usize::from(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 9000 appendix A.1: the sample encodings, one of them not in its shortest form.
    #[test]
    fn rfc9000_appendix_a_samples() {
        let samples: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in samples {
            assert_eq!(read(bytes), Some((value, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), None);
            }
        }
    }

    /// RFC 9000 section 16, table 4: the ranges of 1, 2, 4 and 8 bytes, at both ends.
    #[test]
    fn the_shortest_form_changes_where_rfc9000_says() {
        for (value, size) in [
            (0, 1),
            (63, 1),
            (64, 2),
            (16_383, 2),
            (16_384, 4),
            (1_073_741_823, 4),
            (1_073_741_824, 8),
            (VARINT_MAX, 8),
        ] {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!((out.len(), size_bytes(value), read(&out)), (size, size, Some((value, size))));
        }
    }

    #[test]
    fn above_the_maximum_is_written_as_the_maximum() {
        let mut out = Vec::new();
        write(&mut out, u64::MAX);
        assert_eq!(read(&out), Some((VARINT_MAX, 8)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_in_the_shortest_form(raw in any::<u64>(), shift in 0u32..64) {
            let value = (raw >> shift).min(VARINT_MAX);
            let mut out = Vec::new();
            write(&mut out, value);
            prop_assert_eq!(out.len(), size_bytes(value));
            prop_assert_eq!(read(&out), Some((value, out.len())));
            let mut partial = Partial::default();
            for (at, &byte) in out.iter().enumerate() {
                prop_assert_eq!(partial.held_bytes(), at);
                let whole = partial.push(byte);
                prop_assert_eq!(whole, (at + 1 == out.len()).then_some(value));
            }
        }
    }
}
