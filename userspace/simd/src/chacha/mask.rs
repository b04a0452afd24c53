//! ChaCha20 header-protection masks (RFC 9001 section 5.4.4): each lane a key and a sample, which is block counter and
//! nonce as it stands; the mask is the start of the block.

use super::{
    block,
    lanes::{LANES_MAX, Lane, Lanes},
};
use crate::{MASK_BYTES, MaskJob};

/// Computes all masks.
#[inline(always)]
pub(super) fn run<L: Lanes>(proof: L::Proof, jobs: &mut [MaskJob<'_>]) {
    for group in jobs.chunks_mut(L::COUNT) {
        masks::<L>(proof, group);
    }
}

#[inline(always)]
fn masks<L: Lanes>(proof: L::Proof, jobs: &mut [MaskJob<'_>]) {
    // Lanes that have no job repeat the first.
    let mut lanes = [lane(&jobs[0]); LANES_MAX];
    for (i, job) in jobs.iter().enumerate() {
        lanes[i] = lane(job);
    }
    let state = block::rounds(&block::mixed::<L>(proof, &lanes));
    let mut words = [[0; LANES_MAX]; 2];
    state[0].store(&mut words[0]);
    state[1].store(&mut words[1]);
    for (lane, job) in jobs.iter_mut().enumerate() {
        let start = u64::from(words[0][lane]) | u64::from(words[1][lane]) << 32;
        job.mask.copy_from_slice(&start.to_le_bytes()[..MASK_BYTES]);
    }
}

#[inline(always)]
fn lane<'a>(job: &'a MaskJob<'_>) -> Lane<'a> {
    Lane::new(job.key.secret(), &job.sample)
}
