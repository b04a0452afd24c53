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
    block::{self, DOUBLE_ROUNDS, Keystream, State},
    job::Job,
    lanes::{BLOCK_BYTES, LANES_MAX, Lane, Lanes, ROW_BYTES},
    plan::{Cursor, Run},
    poly::{Poly, Polys},
    stream::{DOUBLE_BYTES, Feeds, Streams},
};
use zeroize::Zeroize;

/// Packets that are worked on together; longer batches are cut.
const GROUP_MAX: usize = 32;
/// The authenticator that takes what nobody needs.
pub(super) const NOBODY: usize = GROUP_MAX;
/// Authenticators, a power of two so that an index can be masked.
pub(super) const POLYS: usize = 2 * GROUP_MAX;

/// What a group of packets needs beside the stack of a step. Wiped at the end.
struct Scratch {
    keystream: Keystream,
    polys: Polys,
    /// The last rows of the packets' states: counter 0 and the nonce.
    rows: [[u8; ROW_BYTES]; GROUP_MAX],
}

/// Seals or opens all jobs.
#[inline(always)]
pub(super) fn run<L: Lanes, J: Job>(proof: L::Proof, jobs: &mut [J]) {
    let mut scratch = Scratch {
        keystream: Keystream([[0; BLOCK_BYTES]; LANES_MAX]),
        polys: [Poly::default(); POLYS],
        rows: [[0; ROW_BYTES]; GROUP_MAX],
    };
    for group in jobs.chunks_mut(GROUP_MAX) {
        work::<L, J>(proof, group, &mut scratch);
    }
    scratch.keystream.wipe();
    for poly in &mut scratch.polys[..jobs.len().min(GROUP_MAX)] {
        poly.zeroize();
    }
}

#[inline(always)]
fn work<L: Lanes, J: Job>(proof: L::Proof, jobs: &mut [J], scratch: &mut Scratch) {
    for (job, row) in jobs.iter().zip(&mut scratch.rows) {
        row[4..].copy_from_slice(&job.key().nonce(job.packet_number()));
    }
    let mut cursor = Cursor::default();
    let mut streams = Streams::new();
    while !cursor.is_at_end(jobs) {
        let mut feeds = streams.start(jobs, cursor);
        let mut runs = [Run::default(); LANES_MAX];
        let count = cursor.deal(jobs, L::COUNT, &mut runs);
        let runs = &runs[..count];
        let first = states::<L, J>(proof, jobs, &scratch.rows, runs);
        let last = rounds(&first, &mut feeds, &mut scratch.polys);
        streams = feeds.end();
        L::store_blocks(&last, &mut scratch.keystream.0);
        for run in runs {
            apply(&mut jobs[run.job], run, scratch);
        }
    }
    streams.finish(jobs, cursor, &mut scratch.polys);
    for (job, poly) in jobs.iter_mut().zip(&mut scratch.polys) {
        let (text, header_bytes) = (job.ciphertext(), job.header().len());
        poly.padded(text, text.len() / DOUBLE_BYTES * DOUBLE_BYTES);
        let tag = poly.finish(header_bytes, text.len());
        job.finish(tag);
    }
}

/// The first states of the lanes. Lanes without a run repeat another's, and nobody looks at them.
#[inline(always)]
fn states<L: Lanes, J: Job>(
    proof: L::Proof,
    jobs: &[J],
    rows: &[[u8; ROW_BYTES]; GROUP_MAX],
    runs: &[Run],
) -> State<L> {
    let lane = |run: &Run| Lane::new(jobs[run.job].key().secret(), &rows[run.job % GROUP_MAX]);
    let counter = |run: &Run| (run.block as u32).wrapping_sub(run.lane as u32);
    let first = lane(&runs[0]);
    let mut counters = L::index(proof).add(L::splat(proof, counter(&runs[0])));
    if runs.len() == 1 {
        return block::uniform(proof, first, counters);
    }
    let mut lanes = [first; LANES_MAX];
    for pair in runs.windows(2) {
        let [before, run] = pair else { unreachable!("windows of two") };
        lanes[run.lane..].fill(lane(run));
        counters = counters.add(L::splat_from(proof, run.lane, counter(run).wrapping_sub(counter(before))));
    }
    let mut state = block::mixed(proof, &lanes);
    state[12] = counters;
    state
}

/// The block function, with the step's feeds between its quarter rounds.
#[inline(always)]
fn rounds<L: Lanes, J: Job>(first: &State<L>, feeds: &mut Feeds<'_, J>, polys: &mut Polys) -> State<L> {
    let mut state = *first;
    let width = L::COUNT / 8;
    for _ in 0..DOUBLE_ROUNDS {
        block::columns(&mut state);
        feeds.doubles(width, polys);
        block::diagonals(&mut state);
        feeds.singles(width, polys);
    }
    block::add_all(&mut state, first);
    state
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
        poly.padded(job.header(), 0);
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
