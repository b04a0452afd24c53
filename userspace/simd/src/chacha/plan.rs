//! Who does what in a step: which blocks of which packets the lanes make, and which packets' bytes are authenticated
//! meanwhile. Decided by lengths alone.

use super::{
    block::DOUBLE_ROUNDS,
    job::Job,
    lanes::{BLOCK_BYTES, LANES_MAX},
    poly::GRANULE_BYTES,
};

/// Packets that are worked on together; longer batches are cut.
pub(super) const GROUP_MAX: usize = 32;
/// The authenticator that takes the granules nobody needs.
pub(super) const NOBODY: usize = GROUP_MAX;
/// Authenticators, a power of two so that an index can be masked.
pub(super) const POLYS: usize = 2 * GROUP_MAX;
/// Packets that are authenticated side by side beside the widest vector.
const STREAMS_MAX: usize = LANES_MAX / 4;
/// Slots of a step.
pub(super) const SLOTS_MAX: usize = STREAMS_MAX * DOUBLE_ROUNDS;

const GRANULES_PER_BLOCK: usize = BLOCK_BYTES / GRANULE_BYTES;

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

    /// Granules of a job's ciphertext that are there, and whether more will come. `None`: not even a key.
    #[inline(always)]
    fn granules<J: Job>(self, jobs: &[J], job: usize) -> Option<(usize, bool)> {
        if job < self.job {
            return Some((jobs[job].text_bytes() / GRANULE_BYTES, false));
        }
        match job == self.job && self.block > 0 {
            true => Some((GRANULES_PER_BLOCK * (self.block - 1), true)),
            false => None,
        }
    }
}

/// Two blocks for an authenticator.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) poly: usize,
    pub(super) granule: &'a [u8; GRANULE_BYTES],
}

const IDLE: Slot<'static> = Slot { poly: NOBODY, granule: &[0; GRANULE_BYTES] };

/// The slots of a step: for each double round, one of each stream.
pub(super) struct Slots<'a> {
    pub(super) slots: [Slot<'a>; SLOTS_MAX],
    /// Whether there is anything to do.
    pub(super) busy: bool,
}

/// A packet being authenticated.
#[derive(Clone, Copy)]
struct Stream {
    job: usize,
    granule: usize,
}

/// The packets being authenticated side by side: each is a chain of dependent multiplications, several keep the
/// multiplier busy.
pub(super) struct Streams {
    streams: [Stream; STREAMS_MAX],
    next_job: usize,
}

impl Streams {
    pub(super) fn new() -> Self {
        // The one that has no job yet is behind the last.
        Self { streams: [Stream { job: usize::MAX, granule: 0 }; STREAMS_MAX], next_job: 0 }
    }

    /// Fills the slots of `width` streams with what is there.
    #[inline(always)]
    pub(super) fn fill<'a, J: Job>(&mut self, jobs: &'a [J], done: Cursor, width: usize) -> Slots<'a> {
        let mut slots = Slots { slots: [IDLE; SLOTS_MAX], busy: false };
        for stream in 0..width {
            let mut round = 0;
            while round < DOUBLE_ROUNDS {
                let Stream { job, granule } = self.streams[stream];
                let (there, more) = done.granules(jobs, job).unwrap_or((0, false));
                if granule < there {
                    let taken = (there - granule).min(DOUBLE_ROUNDS - round);
                    let granules = jobs[job].ciphertext().as_chunks::<GRANULE_BYTES>().0;
                    for granule in &granules[granule..granule + taken] {
                        slots.slots[round * width + stream] = Slot { poly: job, granule };
                        round += 1;
                    }
                    self.streams[stream].granule += taken;
                    slots.busy = true;
                } else if more || done.granules(jobs, self.next_job).is_none() {
                    break;
                } else {
                    self.streams[stream] = Stream { job: self.next_job, granule: 0 };
                    self.next_job += 1;
                }
            }
        }
        slots
    }
}
