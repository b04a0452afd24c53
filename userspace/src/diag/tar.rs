//! Plain tar, as POSIX.1-1988 has it (ustar): small regular files with short names, which any tar reads.

use std::io::{self, Write};

const BLOCK_BYTES: usize = 512;
/// Of a header's `name`.
const NAME_BYTES_MAX: usize = 100;
/// Where each field of a header is.
const MODE: usize = 100;
const UID: usize = 108;
const GID: usize = 116;
const SIZE: usize = 124;
const MTIME: usize = 136;
const CHECKSUM: usize = 148;
const TYPE: usize = 156;
const MAGIC: usize = 257;

/// Writes one file.
pub(super) fn append(out: &mut impl Write, name: &str, bytes: &[u8], unix_s: u64) -> io::Result<()> {
    if name.len() >= NAME_BYTES_MAX {
        return Err(io::Error::other(format!("{name} is too long a name for a tar file")));
    }
    out.write_all(&header(name, bytes.len() as u64, unix_s))?;
    out.write_all(bytes)?;
    let padding = bytes.len().next_multiple_of(BLOCK_BYTES) - bytes.len();
    out.write_all(&[0; BLOCK_BYTES][..padding])
}

/// Two empty blocks end the archive.
pub(super) fn finish(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK_BYTES])?;
    out.flush()
}

fn header(name: &str, size_bytes: u64, unix_s: u64) -> [u8; BLOCK_BYTES] {
    let mut header = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(MODE, "0000600");
    put(UID, "0000000");
    put(GID, "0000000");
    put(SIZE, &format!("{size_bytes:011o}"));
    put(MTIME, &format!("{unix_s:011o}"));
    // The sum counts its own field as spaces.
    put(CHECKSUM, "        ");
    put(TYPE, "0");
    put(MAGIC, "ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[CHECKSUM..CHECKSUM + 8].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    //! Goal: blocks are whole and the header's sum is right. That tar(1) reads it is shown by tests/diag.rs.
    use super::*;

    #[test]
    fn files_are_padded_to_blocks() {
        for size in [0, 1, 511, 512, 513] {
            let mut out = Vec::new();
            append(&mut out, "beam-diag/x.txt", &vec![b'x'; size], 1_795_000_000).unwrap();
            assert_eq!(out.len(), BLOCK_BYTES + size.next_multiple_of(BLOCK_BYTES));
            finish(&mut out).unwrap();
            assert_eq!(out.len() % BLOCK_BYTES, 0);
        }
        assert!(append(&mut Vec::new(), &"x".repeat(NAME_BYTES_MAX), b"", 0).is_err());
    }

    #[test]
    fn the_sum_counts_its_own_field_as_spaces() {
        let header = header("a", 3, 0);
        let told = std::str::from_utf8(&header[CHECKSUM..CHECKSUM + 6]).unwrap();
        let mut blank = header;
        blank[CHECKSUM..CHECKSUM + 8].fill(b' ');
        let sum: u32 = blank.iter().map(|&byte| u32::from(byte)).sum();
        assert_eq!(u32::from_str_radix(told, 8), Ok(sum));
        assert_eq!(&header[SIZE..SIZE + 11], b"00000000003");
    }
}
