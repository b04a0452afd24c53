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
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::{Level, MaskJob, OpenJob, SealJob};

/// Seals jobs that are all ChaCha20-Poly1305. `false`: nothing was done, the level has no implementation.
pub(crate) fn seal(level: Level, jobs: &mut [SealJob<'_>]) -> bool {
    entry::seal_or_open(level, jobs)
}

/// Opens jobs that are all ChaCha20-Poly1305. `false`: nothing was done, the level has no implementation.
pub(crate) fn open(level: Level, jobs: &mut [OpenJob<'_>]) -> bool {
    entry::seal_or_open(level, jobs)
}

/// Masks for keys that are all ChaCha20. `false`: nothing was done, the level has no implementation.
pub(crate) fn mask(level: Level, jobs: &mut [MaskJob<'_>]) -> bool {
    entry::masks(level, jobs)
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
