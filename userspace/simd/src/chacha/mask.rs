//! ChaCha20 header-protection masks (RFC 9001 section 5.4.4): each lane a key and a sample, which is block counter and
//! nonce as it stands; the mask is the start of the block.

use super::{
    block::{self, DOUBLE_ROUNDS, KEY_BYTES},
    lanes::{LANES_MAX, Lanes, ROW_BYTES},
};
use crate::{HeaderKey, MASK_BYTES, MaskJob};

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
    let mut keys = [key(jobs[0].key); LANES_MAX];
    let mut rows: [[u8; ROW_BYTES]; LANES_MAX] = [jobs[0].sample; LANES_MAX];
    for (lane, job) in jobs.iter().enumerate() {
        keys[lane] = key(job.key);
        rows[lane] = job.sample;
    }
    let first = block::mixed::<L>(proof, &keys, &rows);
    let mut state = first;
    for _ in 0..DOUBLE_ROUNDS {
        block::columns(proof, &mut state);
        block::diagonals(proof, &mut state);
    }
    let mut words = [[0; LANES_MAX]; 2];
    state[0].add(first[0]).store(&mut words[0]);
    state[1].add(first[1]).store(&mut words[1]);
    for (lane, job) in jobs.iter_mut().enumerate() {
        let start = u64::from(words[0][lane]) | u64::from(words[1][lane]) << 32;
        job.mask.copy_from_slice(&start.to_le_bytes()[..MASK_BYTES]);
    }
}

#[inline(always)]
fn key(key: &HeaderKey) -> &[u8; KEY_BYTES] {
    let Some(key) = key.secret().first_chunk() else {
        unreachable!("the length was checked when the key was made")
    };
    key
}
