//! `--memory-limit`: how much memory a gateway may have resident, its UMEM apart.
//!
//! ```text
//!   once a second: resident - UMEM ─► MemoryLimit ─► each worker, at its next turn: room for so many connections more,
//!                                                    or none, and smaller windows for those that there are
//! ```
//!
//! What is measured is the process, not a sum of what parts of it believe to hold. Between two looks the workers count
//! the connections that they accept against the room that the last one found, so that a flood of handshakes doesn't
//! outrun the clock. Data of open connections may: a second's worth of it, before their windows shrink.

use crate::cli::Size;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// A connection while it shakes hands; at rest it takes less than half of that.
const NEW_CONNECTION_BYTES: u64 = 32 << 10;
/// What windows are lowered to: a tunnel still moves 100 Mbit/s at a round trip of 80 ms.
const LOWERED_WINDOW_BYTES: u32 = 1 << 20;
/// New connections are accepted again below so many hundredths of the limit.
const CALM_PERCENT: u64 = 95;

/// What the one that looks and the workers share. Each number is told anew at each look; none depends on another's order.
#[derive(Debug, Default)]
pub(crate) struct MemoryLimit {
    /// 0: none.
    limit_bytes: AtomicU64,
    used_bytes: AtomicU64,
    umem_bytes: AtomicU64,
    is_reached: AtomicBool,
    /// How often there was a look.
    looks: AtomicU32,
    windows_lowered: AtomicU64,
    workers: u32,
    frame_bytes: u64,
}

/// What a worker has to do from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Connections that it may accept until the next.
    pub(crate) room: Option<u32>,
    /// Lower the windows of all connections to this.
    pub(crate) window_bytes: Option<u32>,
}

/// For `beam status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MemoryStatus {
    pub(crate) limit_bytes: u64,
    /// Resident, without the UMEM.
    pub(crate) used_bytes: u64,
    pub(crate) umem_bytes: u64,
    /// New connections are refused.
    pub(crate) reached: bool,
    /// Connections whose windows were lowered.
    pub(crate) windows_lowered: u64,
}

impl MemoryLimit {
    pub(crate) fn new(limit: Option<Size>, workers: usize, frame_bytes: u32) -> Self {
        let made =
            Self { workers: workers.max(1) as u32, frame_bytes: frame_bytes.into(), ..Self::default() };
        made.set(limit);
        made
    }

    /// Another limit, from the next look on.
    pub(crate) fn set(&self, limit: Option<Size>) {
        self.limit_bytes.store(limit.map_or(0, |size| size.0), Relaxed);
    }

    /// Measures the process; the frames of its UMEM don't count.
    pub(crate) fn look(&self, umem_frames: u64) {
        let umem_bytes = umem_frames.saturating_mul(self.frame_bytes);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let (resident, huge) = (kilobytes(&status, "VmRSS:"), kilobytes(&status, "HugetlbPages:"));
        // Pages of 2 MiB aren't among those that are counted as resident.
        let counted = umem_bytes.saturating_sub(huge.unwrap_or(0));
        if let Some(resident) = resident {
            self.found(resident.saturating_sub(counted), umem_bytes);
        }
    }

    fn found(&self, used_bytes: u64, umem_bytes: u64) {
        self.used_bytes.store(used_bytes, Relaxed);
        self.umem_bytes.store(umem_bytes, Relaxed);
        let limit = self.limit_bytes.load(Relaxed);
        let was_reached = self.is_reached.load(Relaxed);
        // From where there is no room for one connection on each worker.
        let full = limit.saturating_sub(NEW_CONNECTION_BYTES * u64::from(self.workers));
        let is_reached = match limit {
            0 => false,
            _ if was_reached => used_bytes > limit / 100 * CALM_PERCENT,
            _ => used_bytes > full,
        };
        self.is_reached.store(is_reached, Relaxed);
        if is_reached != was_reached {
            let (used, limit) = (mebibytes(used_bytes), mebibytes(limit));
            match is_reached {
                true => tracing::warn!(
                    "memory: {used} of {limit} (--memory-limit): new connections are refused, windows lowered"
                ),
                false => tracing::info!(
                    "memory: {used} of {limit} (--memory-limit): connections are accepted again"
                ),
            }
        }
        self.looks.fetch_add(1, Relaxed);
    }

    /// For a worker, at each turn: what to do, if there was a look since the one that it has seen.
    pub(crate) fn orders(&self, seen: &mut u32) -> Option<Orders> {
        let looks = self.looks.load(Relaxed);
        if looks == std::mem::replace(seen, looks) {
            return None;
        }
        let limit = self.limit_bytes.load(Relaxed);
        if limit == 0 {
            return Some(Orders { room: None, window_bytes: None });
        }
        if self.is_reached.load(Relaxed) {
            return Some(Orders { room: Some(0), window_bytes: Some(LOWERED_WINDOW_BYTES) });
        }
        let free = limit.saturating_sub(self.used_bytes.load(Relaxed));
        let room = free / NEW_CONNECTION_BYTES / u64::from(self.workers);
        Some(Orders { room: Some(u32::try_from(room).unwrap_or(u32::MAX)), window_bytes: None })
    }

    /// A worker has lowered the windows of so many connections.
    pub(crate) fn lowered(&self, connections: usize) {
        self.windows_lowered.fetch_add(connections as u64, Relaxed);
    }

    /// `None` without a limit.
    pub(crate) fn status(&self) -> Option<MemoryStatus> {
        let limit_bytes = self.limit_bytes.load(Relaxed);
        (limit_bytes > 0).then(|| MemoryStatus {
            limit_bytes,
            used_bytes: self.used_bytes.load(Relaxed),
            umem_bytes: self.umem_bytes.load(Relaxed),
            reached: self.is_reached.load(Relaxed),
            windows_lowered: self.windows_lowered.load(Relaxed),
        })
    }
}

impl MemoryStatus {
    /// For a person. `refused` are the connections refused so far.
    pub(crate) fn line(&self, refused: u64) -> String {
        let (used, limit) = (mebibytes(self.used_bytes), mebibytes(self.limit_bytes));
        let umem = match self.umem_bytes {
            0 => String::new(),
            bytes => format!(", UMEM of {} apart", mebibytes(bytes)),
        };
        match self.reached {
            false => format!("memory limit: {used} of {limit}{umem}; {refused} connections refused so far"),
            true => format!(
                "ALERT: memory limit reached: {used} of {limit}{umem}: new connections are refused ({refused} so far), windows of {} lowered; raise --memory-limit, or add workers elsewhere",
                self.windows_lowered
            ),
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1048576.0)
}

/// Bytes of a line such as `VmRSS:     1234 kB`.
pub(crate) fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    //! Goal: workers hear of each look once, the room is shared out, and the limit has to be left by a margin.
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn room_shrinks_to_nothing_and_comes_back_below_the_margin() {
        let limit = MemoryLimit::new(Some(Size(100 * MIB)), 2, 4096);
        let mut seen = 0;
        assert_eq!(limit.orders(&mut seen), None, "nobody has looked");
        let mut ordered = |used: u64| {
            limit.found(used, 7);
            let orders = limit.orders(&mut seen).expect("a look");
            assert_eq!(limit.orders(&mut seen), None, "once");
            (orders.room, orders.window_bytes)
        };
        assert_eq!(ordered(36 * MIB), (Some(1024), None), "64 MiB, for two");
        let closed = (Some(0), Some(LOWERED_WINDOW_BYTES));
        assert_eq!(ordered(100 * MIB - 2 * NEW_CONNECTION_BYTES), (Some(1), None), "one on each worker");
        assert_eq!(ordered(100 * MIB - 2 * NEW_CONNECTION_BYTES + 1), closed);
        assert_eq!(ordered(96 * MIB), closed, "the margin");
        assert_eq!(ordered(95 * MIB), (Some(80), None));
        limit.set(None);
        assert_eq!(limit.status(), None);
        let mut seen = 0;
        limit.found(500 * MIB, 0);
        assert_eq!(limit.orders(&mut seen), Some(Orders { room: None, window_bytes: None }));
    }

    #[test]
    fn the_screen_says_what_is_used_and_what_is_refused() {
        let limit = MemoryLimit::new(Some(Size(48 * MIB)), 1, 4096);
        limit.found(40 * MIB, 24 * MIB);
        let line = limit.status().unwrap().line(0);
        assert_eq!(
            line,
            "memory limit: 40.0 MiB of 48.0 MiB, UMEM of 24.0 MiB apart; 0 connections refused so far"
        );
        limit.found(49 * MIB, 0);
        limit.lowered(3);
        let line = limit.status().unwrap().line(5);
        assert!(line.starts_with("ALERT: memory limit reached: 49.0 MiB of 48.0 MiB: new"), "{line}");
        assert!(line.contains("(5 so far), windows of 3 lowered"), "{line}");
    }

    #[test]
    fn the_process_itself_is_measured() {
        let limit = MemoryLimit::new(Some(Size(1)), 1, 4096);
        limit.look(0);
        let status = limit.status().unwrap();
        assert!(status.reached && status.used_bytes > MIB, "{status:?}");
        limit.look(u64::MAX);
        assert_eq!(limit.status().unwrap().used_bytes, 0, "all of it is UMEM");
    }
}
