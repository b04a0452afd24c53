//! The kernel's own drop count of a socket: what arrived while its buffer was full.
//!
//! Read from `/proc/thread-self/net/udp{,6}` (the network namespace of the thread that opens it), found by the socket's
//! inode. SO_MEMINFO would be one call, but no crate wraps it and this runs at housekeeping only. The table stays open: who
//! reads it later may have no right to open files.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek},
    os::fd::AsFd,
};

/// Sockets looked at before giving up; a host with more has other worries than this counter.
const SOCKETS_MAX: usize = 1 << 20;

/// The kernel's table of UDP sockets, and which row is ours.
#[derive(Debug)]
pub(crate) struct Table {
    file: File,
    inode: u64,
}

impl Table {
    /// In the network namespace that the socket is in.
    pub(crate) fn open(socket: impl AsFd, is_v6: bool) -> io::Result<Self> {
        let inode = rustix::fs::fstat(socket)?.st_ino;
        let name = if is_v6 { "/proc/thread-self/net/udp6" } else { "/proc/thread-self/net/udp" };
        Ok(Self { file: File::open(name)?, inode })
    }

    pub(crate) fn drops(&self) -> io::Result<u64> {
        (&self.file).rewind()?;
        for line in BufReader::new(&self.file).lines().skip(1).take(SOCKETS_MAX) {
            if let Some(drops) = drops_if(&line?, self.inode) {
                return Ok(drops);
            }
        }
        let why = format!("socket inode {} is not in the table of UDP sockets", self.inode);
        Err(io::Error::new(io::ErrorKind::NotFound, why))
    }
}

/// The last column, `drops`, when the tenth, `inode`, is the one wanted.
fn drops_if(line: &str, inode: u64) -> Option<u64> {
    let mut columns = line.split_ascii_whitespace();
    (columns.nth(9)?.parse::<u64>().ok()? == inode).then(|| columns.next_back()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = " 1146: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 20341 2 ffff8881 17";

    #[test]
    fn the_line_of_the_inode_gives_its_drops() {
        assert_eq!(drops_if(LINE, 20341), Some(17));
        assert_eq!(drops_if(LINE, 20342), None);
        assert_eq!(drops_if("", 20341), None);
        assert_eq!(drops_if("1: a b", 1), None);
    }
}
