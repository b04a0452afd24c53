//! The batches as a tunnel uses them: under a canary that stops the vector path when it and ring disagree.
//!
//! One packet in [`CANARY_INTERVAL_PACKETS`] is opened again by ring: what was sealed, before it is sent, and what was
//! opened, before anyone looks. A difference would mean a miscompiled or miscounting vector unit, and a peer that can't
//! read us, or worse. So the whole batch is done again by ring, and from then on everything is, in every worker of the
//! process, until it is restarted.

use crate::{Level, MaskJob, OpenJob, SealJob, TAG_BYTES, batch, protect::Scratch};
use std::sync::atomic::{AtomicBool, Ordering};

/// How many packets go by between two that the canary looks at: at ring's speed, a thousandth of the cipher's work.
pub const CANARY_INTERVAL_PACKETS: u32 = 1024;

/// Set by the first canary of the process that finds a difference, and never cleared.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// The operations that a guard watches; tests put faulty ones here.
#[derive(Clone, Copy, Debug)]
struct Operations {
    seal: fn(Level, &mut [SealJob<'_>]),
    open: fn(Level, &mut [OpenJob<'_>]),
    mask: fn(Level, &mut [MaskJob<'_>]),
}

const REAL: Operations =
    Operations { seal: batch::seal_batch, open: batch::open_batch, mask: batch::mask_batch };

/// What one guard has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardStats {
    /// Packets sealed in batches.
    pub sealed: u64,
    /// Packets opened in batches, forgeries included.
    pub opened: u64,
    /// Batches of either kind.
    pub batches: u64,
    /// Packets that the canary did again with ring.
    pub canary_checked: u64,
    /// Packets where ring and the vector path differed.
    pub canary_failed: u64,
}

/// Packets until the canary's next look, by operation: they take turns, so that one in common would look at the same
/// operation again and again.
#[derive(Debug)]
struct Countdowns {
    seal: u32,
    open: u32,
    mask: u32,
}

impl Default for Countdowns {
    fn default() -> Self {
        Self { seal: CANARY_INTERVAL_PACKETS, open: CANARY_INTERVAL_PACKETS, mask: CANARY_INTERVAL_PACKETS }
    }
}

/// Runs batches at a level, and watches them. One for each worker.
#[derive(Debug)]
pub struct Guard {
    level: Level,
    operations: Operations,
    stopped: &'static AtomicBool,
    countdowns: Countdowns,
    stats: GuardStats,
    pub(crate) scratch: Scratch,
}

impl Guard {
    /// A guard over this level.
    #[must_use]
    pub fn new(level: Level) -> Self {
        Self {
            level,
            operations: REAL,
            stopped: &STOPPED,
            countdowns: Countdowns::default(),
            stats: GuardStats::default(),
            scratch: Scratch::default(),
        }
    }

    /// The level that runs: the one asked for, or ring once a canary has found a difference.
    #[must_use]
    pub fn level(&self) -> Level {
        if self.stopped.load(Ordering::Relaxed) { Level::RING } else { self.level }
    }

    /// Whether a canary of this process has stopped the vector path.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// What it has seen.
    #[must_use]
    pub fn stats(&self) -> GuardStats {
        self.stats
    }

    /// As [`crate::seal_batch`].
    pub(crate) fn seal(&mut self, jobs: &mut [SealJob<'_>]) {
        if jobs.is_empty() {
            return;
        }
        self.stats.batches += 1;
        self.stats.sealed += jobs.len() as u64;
        let level = self.level();
        (self.operations.seal)(level, jobs);
        if let Some(at) = due(&mut self.countdowns.seal, level, jobs.len())
            && !self.agrees(sealed_as_ring_does(&jobs[at]))
        {
            batch::seal_batch(Level::RING, jobs);
        }
    }

    /// As [`crate::open_batch`].
    pub fn open(&mut self, jobs: &mut [OpenJob<'_>]) {
        if jobs.is_empty() {
            return;
        }
        self.stats.batches += 1;
        self.stats.opened += jobs.len() as u64;
        let level = self.level();
        (self.operations.open)(level, jobs);
        if let Some(at) = due(&mut self.countdowns.open, level, jobs.len())
            && !self.agrees(opened_as_ring_does(&jobs[at]))
        {
            batch::open_batch(Level::RING, jobs);
        }
    }

    /// As [`crate::mask_batch`].
    pub fn mask(&mut self, jobs: &mut [MaskJob<'_>]) {
        let level = self.level();
        (self.operations.mask)(level, jobs);
        if let Some(at) = due(&mut self.countdowns.mask, level, jobs.len())
            && !self.agrees(jobs[at].mask == jobs[at].key.mask(&jobs[at].sample))
        {
            batch::mask_batch(Level::RING, jobs);
        }
    }

    /// Counts one look of the canary, and stops the vector path unless it `agrees`.
    fn agrees(&mut self, agrees: bool) -> bool {
        self.stats.canary_checked += 1;
        if !agrees {
            self.stats.canary_failed += 1;
            self.stopped.store(true, Ordering::Relaxed);
        }
        agrees
    }
}

/// Which of so many jobs the canary looks at, if any. ring needs no canary.
fn due(countdown: &mut u32, level: Level, job_count: usize) -> Option<usize> {
    if level == Level::RING {
        return None;
    }
    let job_count = job_count as u32;
    if *countdown > job_count {
        *countdown -= job_count;
        return None;
    }
    let at = countdown.saturating_sub(1).min(job_count.checked_sub(1)?) as usize;
    *countdown = CANARY_INTERVAL_PACKETS;
    Some(at)
}

fn sealed_as_ring_does(job: &SealJob<'_>) -> bool {
    let mut opened = job.dst.to_vec();
    job.key.open_in_place(job.packet_number, job.header, &mut opened) == Some(job.plaintext.len())
        && &opened[..job.plaintext.len()] == job.plaintext
}

fn opened_as_ring_does(job: &OpenJob<'_>) -> bool {
    let mut opened = job.ciphertext.to_vec();
    match job.key.open_in_place(job.packet_number, job.header, &mut opened) {
        Some(length) => job.authentic && length + TAG_BYTES == opened.len() && opened[..length] == *job.dst,
        None => !job.authentic,
    }
}

#[cfg(test)]
mod tests;
