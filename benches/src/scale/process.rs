//! What /proc tells of a process: memory and CPU time.

use anyhow::{Context, Result};
use std::{fs, time::Duration};

/// The kernel reports times in hundredths of a second to user space on every architecture that beam runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(pub(super) u32);

/// Bytes in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// VmRSS.
    pub(super) resident_bytes: u64,
    /// RssFile: pages of the program and of libraries, most of which the kernel maps beside one that was touched.
    pub(super) file_bytes: u64,
    /// Private pages that were written: what the process alone costs.
    pub(super) private_dirty_bytes: u64,
    /// Huge pages, which are not in VmRSS.
    pub(super) hugetlb_bytes: u64,
}

impl Process {
    /// This one.
    pub(super) fn own() -> Self {
        Self(std::process::id())
    }

    pub(super) fn memory(self) -> Result<Memory> {
        let status = self.read("status")?;
        let rollup = self.read("smaps_rollup")?;
        Ok(Memory {
            resident_bytes: kilobytes(&status, "VmRSS:").context("no VmRSS in /proc/PID/status")?,
            file_bytes: kilobytes(&status, "RssFile:").unwrap_or(0),
            private_dirty_bytes: kilobytes(&rollup, "Private_Dirty:").unwrap_or(0),
            hugetlb_bytes: kilobytes(&status, "HugetlbPages:").unwrap_or(0),
        })
    }

    /// CPU time of all its threads.
    pub(super) fn cpu(self) -> Result<Duration> {
        let stat = self.read("stat")?;
        // The name may hold blanks and parentheses; user and system time are the 12th and 13th word behind it.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<f64>().ok());
        let spent = ticks(11).zip(ticks(12)).context("no times in /proc/PID/stat")?;
        Ok(Duration::from_secs_f64((spent.0 + spent.1) / TICKS_PER_SECOND))
    }

    fn read(self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.0);
        fs::read_to_string(&path).with_context(|| format!("{path} can't be read: has the process ended?"))
    }
}

/// Bytes of a line such as `VmRSS:     1234 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    //! Goal: the numbers are of the process meant. Method: memory that this one touches, time that it spends.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn memory_and_time_of_this_process() {
        let own = Process::own();
        let before = own.memory().unwrap();
        let memory = vec![1_u8; 64 << 20];
        let after = own.memory().unwrap();
        assert!(memory.iter().all(|&byte| byte == 1));
        assert!(after.resident_bytes - before.resident_bytes > 60 << 20);
        assert!(after.private_dirty_bytes - before.private_dirty_bytes > 60 << 20);
        assert!(own.cpu().unwrap() > Duration::ZERO);
        assert!(Process(u32::MAX).memory().is_err());
    }
}
