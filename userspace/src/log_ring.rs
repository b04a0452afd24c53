//! The last lines of the log, kept in memory for `beam diag`: standard error may have gone to nobody.
//!
//! Bounded in lines and in bytes; an older line makes room for a newer one and is counted. Written by whatever thread
//! logs, never by the packet loop.

use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

const LINES_MAX: usize = 2_000;
const BYTES_MAX: usize = 512 << 10;
/// A line that is longer is cut.
const LINE_BYTES_MAX: usize = 4 << 10;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recent {
    /// Oldest first.
    pub(crate) lines: VecDeque<String>,
    /// Lines that were there before these and are gone.
    pub(crate) forgotten: u64,
    #[serde(skip)]
    bytes: usize,
}

impl Recent {
    const fn new() -> Self {
        Self { lines: VecDeque::new(), forgotten: 0, bytes: 0 }
    }

    fn keep(&mut self, line: &[u8]) {
        let line = uncoloured(&String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]));
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
            self.forgotten += 1;
        }
    }
}

/// The line as it reads on paper: a terminal's colours (`ESC [ ... m`) are no part of it.
fn uncoloured(line: &str) -> String {
    let mut parts = line.trim_end().split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| line + part.split_once('m').map_or("", |(_, rest)| rest))
}

static RECENT: Mutex<Recent> = Mutex::new(Recent::new());

/// The last lines.
pub(crate) fn recent() -> Recent {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Standard error, with the ring beside it: a line may be lost there and is still kept here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StderrAndRing;

impl Write for StderrAndRing {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line).map(|()| line.len())
    }

    /// The formatter writes each event in one call.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        RECENT.lock().unwrap_or_else(PoisonError::into_inner).keep(line);
        io::stderr().write_all(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the newest lines stay, within both limits, and the others are counted.
    use super::*;

    #[test]
    fn the_newest_lines_stay() {
        let mut recent = Recent::new();
        for number in 0..LINES_MAX + 10 {
            recent.keep(format!("line {number}\n").as_bytes());
        }
        assert_eq!((recent.lines.len(), recent.forgotten), (LINES_MAX, 10));
        assert_eq!(recent.lines.front().unwrap(), "line 10");
        let long = vec![b'x'; 2 * LINE_BYTES_MAX];
        for _ in 0..LINES_MAX {
            recent.keep(&long);
        }
        assert_eq!(recent.lines.len(), BYTES_MAX / LINE_BYTES_MAX);
        assert_eq!(recent.bytes, recent.lines.iter().map(String::len).sum::<usize>());
        recent.keep(b"\x1b[2mat\x1b[0m \x1b[32mINFO\x1b[0m ready\n");
        assert_eq!(recent.lines.back().unwrap(), "at INFO ready");
        recent.keep(b"\xff\n");
        assert_eq!(recent.lines.back().unwrap(), "\u{fffd}");
    }
}
