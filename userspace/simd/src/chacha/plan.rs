//! Which blocks of which packets the lanes of a step make. Decided by lengths alone.

use super::{
    job::Job,
    lanes::{BLOCK_BYTES, LANES_MAX},
};

/// Consecutive blocks of one packet in consecutive lanes.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    pub(super) job: usize,
    /// The first lane's block counter. Block 0 is the one-time key, 1 the first of the keystream.
    pub(super) block: usize,
    pub(super) lane: usize,
    pub(super) lanes: usize,
}

/// The next block to make. What lies before it is done: so far the ciphertext is there, and a packet whose block 0 is
/// done has its authenticator.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    job: usize,
    block: usize,
}

impl Cursor {
    /// Whether all is made.
    #[inline(always)]
    pub(super) fn is_at_end<J>(self, jobs: &[J]) -> bool {
        self.job == jobs.len()
    }

    /// Deals the next blocks to `lanes` lanes, and counts the runs.
    #[inline(always)]
    pub(super) fn deal<J: Job>(&mut self, jobs: &[J], lanes: usize, runs: &mut [Run; LANES_MAX]) -> usize {
        let (mut count, mut lane) = (0, 0);
        while lane < lanes && self.job < jobs.len() {
            let blocks = 1 + jobs[self.job].text_bytes().div_ceil(BLOCK_BYTES);
            let taken = (blocks - self.block).min(lanes - lane);
            runs[count] = Run { job: self.job, block: self.block, lane, lanes: taken };
            count += 1;
            lane += taken;
            self.block += taken;
            if self.block == blocks {
                *self = Self { job: self.job + 1, block: 0 };
            }
        }
        count
    }

    /// Bytes of a job's ciphertext that are there, and whether more will come. `None`: not even an authenticator.
    #[inline(always)]
    pub(super) fn there<J: Job>(self, jobs: &[J], job: usize) -> Option<(usize, bool)> {
        if job < self.job {
            return Some((jobs[job].text_bytes(), false));
        }
        match job == self.job && self.block > 0 {
            true => Some((BLOCK_BYTES * (self.block - 1), true)),
            false => None,
        }
    }
}
