//! The batch: ChaCha20 in the vector unit and, in the same loop, Poly1305 in the integer unit.
//!
//! ```text
//!   packets    0      1        2
//!   blocks   k 1 2  k 1 2 3  k 1 2 ..      k = block 0, the one-time key of Poly1305
//!            └────step 0────┘└────step 1..
//!   step n:  ten double rounds over all lanes  ∥  granules of ciphertext that the steps before n made
//! ```
//!
//! A lane is any block of any packet with any key, so none is wasted where a packet ends. Headers, odd ends and tags
//! are done beside the steps, where the packets' chains overlap by themselves.

use super::{
    block::{self, DOUBLE_ROUNDS, KEY_BYTES, Keystream, State},
    job::Job,
    lanes::{BLOCK_BYTES, LANES_MAX, Lanes, ROW_BYTES},
    plan::{Cursor, GROUP_MAX, POLYS, Run, SLOTS_MAX, Slot, Streams},
    poly::{GRANULE_BYTES, Poly},
};
use crate::PacketKey;
use zeroize::Zeroize;

/// What a group of packets needs beside the stack of a step. Wiped at the end.
struct Scratch {
    keystream: Keystream,
    polys: [Poly; POLYS],
}

/// Seals or opens all jobs.
#[inline(always)]
pub(super) fn run<L: Lanes, J: Job>(proof: L::Proof, jobs: &mut [J]) {
    let mut scratch =
        Scratch { keystream: Keystream([[0; BLOCK_BYTES]; LANES_MAX]), polys: [Poly::default(); POLYS] };
    for group in jobs.chunks_mut(GROUP_MAX) {
        work::<L, J>(proof, group, &mut scratch);
    }
    scratch.keystream.0.zeroize();
    scratch.polys.zeroize();
}

#[inline(always)]
fn work<L: Lanes, J: Job>(proof: L::Proof, jobs: &mut [J], scratch: &mut Scratch) {
    let mut cursor = Cursor::default();
    let mut streams = Streams::new();
    let width = L::COUNT / 4;
    while !cursor.is_at_end(jobs) {
        let done = cursor;
        let mut runs = [Run::default(); LANES_MAX];
        let count = cursor.deal(jobs, L::COUNT, &mut runs);
        let runs = &runs[..count];
        let first = states::<L, J>(proof, jobs, runs);
        let slots = streams.fill(jobs, done, width);
        let last = match slots.busy {
            true => rounds_and_granules(proof, &first, &slots.slots, &mut scratch.polys),
            false => rounds(proof, &first),
        };
        L::store_blocks(&last, &mut scratch.keystream.0);
        for run in runs {
            apply(&mut jobs[run.job], run, scratch);
        }
    }
    loop {
        let slots = streams.fill(jobs, cursor, width);
        if !slots.busy {
            break;
        }
        for slot in &slots.slots[..DOUBLE_ROUNDS * width] {
            feed(slot, &mut scratch.polys);
        }
    }
    for (job, poly) in jobs.iter_mut().zip(&mut scratch.polys) {
        poly.padded(job.ciphertext().as_chunks::<GRANULE_BYTES>().1);
        job.finish(poly.finish(job.header().len(), job.text_bytes()));
    }
}

/// The first states of the lanes. Lanes without a run repeat another's, and nobody looks at them.
#[inline(always)]
fn states<L: Lanes, J: Job>(proof: L::Proof, jobs: &[J], runs: &[Run]) -> State<L> {
    let job = &jobs[runs[0].job];
    if let [run] = runs {
        return block::uniform(proof, key(job.key()), &last_row(job, run.block));
    }
    let mut keys = [key(job.key()); LANES_MAX];
    let mut rows = [[0; ROW_BYTES]; LANES_MAX];
    for run in runs {
        let job = &jobs[run.job];
        let key = key(job.key());
        let row = u128::from_le_bytes(last_row(job, run.block));
        for lane in 0..run.lanes {
            keys[run.lane + lane] = key;
            // The counter is the lowest word and doesn't overflow: a packet is no 256 GiB long.
            rows[run.lane + lane] = (row + lane as u128).to_le_bytes();
        }
    }
    block::mixed(proof, &keys, &rows)
}

#[inline(always)]
fn key(key: &PacketKey) -> &[u8; KEY_BYTES] {
    let Some(key) = key.secret().first_chunk() else {
        unreachable!("the length was checked when the key was made")
    };
    key
}

/// The last row of a state: block counter and nonce.
#[inline(always)]
fn last_row<J: Job>(job: &J, block: usize) -> [u8; ROW_BYTES] {
    let mut row = [0; ROW_BYTES];
    row[..4].copy_from_slice(&(block as u32).to_le_bytes());
    row[4..].copy_from_slice(&job.key().nonce(job.packet_number()));
    row
}

#[inline(always)]
fn rounds<L: Lanes>(proof: L::Proof, first: &State<L>) -> State<L> {
    let mut state = *first;
    for _ in 0..DOUBLE_ROUNDS {
        block::columns(proof, &mut state);
        block::diagonals(proof, &mut state);
    }
    block::add_all(&mut state, first);
    state
}

/// The block function with a granule of each stream in every double round.
#[inline(always)]
fn rounds_and_granules<L: Lanes>(
    proof: L::Proof,
    first: &State<L>,
    slots: &[Slot<'_>; SLOTS_MAX],
    polys: &mut [Poly; POLYS],
) -> State<L> {
    let mut state = *first;
    let half = L::COUNT / 8;
    for round in 0..DOUBLE_ROUNDS {
        block::columns(proof, &mut state);
        for slot in 0..half {
            feed(&slots[2 * half * round + slot], polys);
        }
        block::diagonals(proof, &mut state);
        for slot in half..2 * half {
            feed(&slots[2 * half * round + slot], polys);
        }
    }
    block::add_all(&mut state, first);
    state
}

#[inline(always)]
fn feed(slot: &Slot<'_>, polys: &mut [Poly; POLYS]) {
    polys[slot.poly % POLYS].granule(slot.granule);
}

/// Takes a run's keystream: block 0 is the key of the authenticator, the others meet the text.
#[inline(always)]
fn apply<J: Job>(job: &mut J, run: &Run, scratch: &mut Scratch) {
    let mut blocks = &scratch.keystream.0[run.lane..run.lane + run.lanes];
    let mut block = run.block;
    if block == 0 {
        let Some(one_time_key) = blocks[0].first_chunk() else {
            unreachable!("a block is longer than a key")
        };
        let mut poly = Poly::new(one_time_key);
        poly.padded(job.header());
        scratch.polys[run.job % POLYS] = poly;
        blocks = &blocks[1..];
        block = 1;
    }
    let (source, target) = job.source_and_target();
    let start = BLOCK_BYTES * (block - 1);
    let bytes = blocks.as_flattened();
    let end = target.len().min(start + bytes.len());
    xor(&mut target[start..end], &source[start..end], bytes);
}

/// `target = source ^ keystream`, as far as the target goes.
///
/// Target and source are different memory, so that an odd end may be done by a piece that overlaps the one before.
#[inline(always)]
fn xor(target: &mut [u8], source: &[u8], keystream: &[u8]) {
    let bytes = target.len();
    let mut at = 0;
    while at + 32 <= bytes {
        piece::<32>(target, source, keystream, at);
        at += 32;
    }
    match bytes - at {
        0 => {}
        16.. => {
            piece::<16>(target, source, keystream, at);
            piece::<16>(target, source, keystream, bytes - 16);
        }
        8.. => {
            piece::<8>(target, source, keystream, at);
            piece::<8>(target, source, keystream, bytes - 8);
        }
        4.. => {
            piece::<4>(target, source, keystream, at);
            piece::<4>(target, source, keystream, bytes - 4);
        }
        _ => (at..bytes).for_each(|at| target[at] = source[at] ^ keystream[at]),
    }
}

#[inline(always)]
fn piece<const N: usize>(target: &mut [u8], source: &[u8], keystream: &[u8], at: usize) {
    let target = &mut target[at..at + N];
    let (source, keystream) = (&source[at..at + N], &keystream[at..at + N]);
    for i in 0..N {
        target[i] = source[i] ^ keystream[i];
    }
}
