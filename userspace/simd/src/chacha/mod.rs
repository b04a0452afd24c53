//! ChaCha20-Poly1305 (RFC 8439) in batches, and ChaCha20 header-protection masks.
#![cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "the levels above ring are x86-64's"))]

mod block;
mod engine;
mod job;
mod lanes;
mod mask;
mod plan;
mod poly;
mod stream;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use self::{job::Job, lanes::BLOCK_BYTES};
use crate::{Level, MaskJob, OpenJob, SealJob};

/// Seals jobs that are all ChaCha20-Poly1305. `false`: nothing was done, the level has no implementation or ring is
/// faster.
pub(crate) fn seal(level: Level, jobs: &mut [SealJob<'_>]) -> bool {
    is_worth_it(jobs) && entry::seal_or_open(level, jobs)
}

/// Opens jobs that are all ChaCha20-Poly1305. `false`: nothing was done, the level has no implementation or ring is
/// faster.
pub(crate) fn open(level: Level, jobs: &mut [OpenJob<'_>]) -> bool {
    is_worth_it(jobs) && entry::seal_or_open(level, jobs)
}

/// Masks for keys that are all ChaCha20. `false`: nothing was done, the level has no implementation or ring is faster.
pub(crate) fn mask(level: Level, jobs: &mut [MaskJob<'_>]) -> bool {
    jobs.len() >= MASKS_MIN && entry::masks(level, jobs)
}

/// One mask costs what a vector of them does: some 370 to 390 cycles on Zen 3, where ring's
/// costs 269.
const MASKS_MIN: usize = 2;

/// Up to so many bytes of the longest packet (any, from the last line on), this many packets of its length are enough
/// to beat ring.
///
/// Lanes without a block, and packets whose Poly1305 has nothing beside it, make small batches slow; ring is at its
/// best with long packets. ring's time as a multiple of ours on Zen 3 with AVX2, the slower one of seal and open, all
/// packets of one length, 25 B of header:
///
/// | packets | 64 B | 500 B | 1200 B | 2000 B | 4000 B | 9000 B |
/// |---|---|---|---|---|---|---|
/// | 1 | 0.56 | | 0.72 | | | |
/// | 2 | 1.00 | 0.88 | 0.88 | 0.79 | 0.78 | 0.75 |
/// | 3 | 1.33 | 1.12 | 1.02 | 0.92 | 0.93 | 0.92 |
/// | 5 | 1.40 | 1.24 | 1.07 | 1.01 | 0.97 | |
/// | 6 | 1.58 | 1.28 | 1.16 | 1.08 | 1.04 | 1.00 |
/// | 8 | 1.88 | 1.29 | 1.17 | 1.07 | 1.03 | 0.97 |
/// | 12 | | | 1.25 | 1.15 | 1.09 | 1.04 |
/// | 32 | 2.07 | | 1.27 | 1.16 | 1.11 | 1.04 |
///
/// With AVX-512 a step costs less a lane, so that these are not too few.
const PACKETS_MIN: [(usize, usize); 3] = [(1200, 3), (4000, 6), (usize::MAX, 12)];

fn is_worth_it<J: Job>(jobs: &[J]) -> bool {
    // A block more each, for the one-time key.
    let blocks = |bytes: usize| 1 + bytes.div_ceil(BLOCK_BYTES);
    let all: usize = jobs.iter().map(|job| blocks(job.text_bytes())).sum();
    let longest_bytes = jobs.iter().map(Job::text_bytes).max().unwrap_or(0);
    PACKETS_MIN
        .iter()
        .find(|&&(bytes_max, _)| longest_bytes <= bytes_max)
        .is_some_and(|&(_, packets_min)| all >= packets_min * blocks(longest_bytes))
}

#[cfg(target_arch = "x86_64")]
mod entry {
    //! The entry points that enable the instructions of a level; all that they call is inlined into them.

    use super::{
        avx2::{Avx2, Eight},
        avx512::{Avx512, Sixteen},
        engine::{self, Scratch},
        job::Job,
        mask,
    };
    use crate::{Level, MaskJob, level::Kind};
    use std::{arch::is_x86_feature_detected as has, cell::RefCell};

    thread_local! {
        static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
    }

    /// The levels don't ask for it, but no CPU that has AVX2 lacks it.
    pub(super) fn has_bmi2() -> bool {
        has!("bmi2")
    }

    pub(super) fn seal_or_open<J: Job>(level: Level, jobs: &mut [J]) -> bool {
        if !has_bmi2() || level.kind() < Kind::Avx2 {
            return false;
        }
        SCRATCH.with_borrow_mut(|scratch| match level.kind() {
            // SAFETY: the level says that the CPU has AVX-512; BMI2 was asked for.
            Kind::Avx512 => unsafe { run_avx512(jobs, scratch) },
            // SAFETY: the level says that the CPU has AVX2; BMI2 was asked for.
            _ => unsafe { run_avx2(jobs, scratch) },
        });
        true
    }

    pub(super) fn masks(level: Level, jobs: &mut [MaskJob<'_>]) -> bool {
        match level.kind() {
            // SAFETY: the level says that the CPU has AVX-512.
            Kind::Avx512 => unsafe { mask_avx512(jobs) },
            // SAFETY: the level says that the CPU has AVX2.
            Kind::Avx2 => unsafe { mask_avx2(jobs) },
            _ => return false,
        }
        true
    }

    #[target_feature(enable = "avx2,bmi2")]
    fn run_avx2<J: Job>(jobs: &mut [J], scratch: &mut Scratch) {
        engine::run::<Eight, J, 1>(Avx2::new(), jobs, scratch);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,bmi2")]
    fn run_avx512<J: Job>(jobs: &mut [J], scratch: &mut Scratch) {
        engine::run::<Sixteen, J, 2>(Avx512::new(), jobs, scratch);
    }

    #[target_feature(enable = "avx2")]
    fn mask_avx2(jobs: &mut [MaskJob<'_>]) {
        mask::run::<Eight>(Avx2::new(), jobs);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
    fn mask_avx512(jobs: &mut [MaskJob<'_>]) {
        mask::run::<Sixteen>(Avx512::new(), jobs);
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod entry {
    use super::job::Job;
    use crate::{Level, MaskJob};

    pub(super) fn seal_or_open<J: Job>(_: Level, _: &mut [J]) -> bool {
        false
    }

    pub(super) fn masks(_: Level, _: &mut [MaskJob<'_>]) -> bool {
        false
    }
}
