//! The batch: ChaCha20 in the vector unit and, in the same loop, Poly1305 in the integer unit.
//!
//! ```text
//!   packets    0      1        2
//!   blocks   k 1 2  k 1 2 3  k 1 2 ..      k = block 0, the one-time key of Poly1305
//!            └────step 0────┘└────step 1..
//!   step n:  ten double rounds over all lanes  ∥  pieces of ciphertext that the steps before n made
//! ```
//!
//! A lane is any block of any packet with any key, so none is wasted where a packet ends. Headers, odd ends and tags
//! are done beside the steps, where the packets' chains overlap by themselves.
//!
//! Keystream, one-time keys and nonces lie in a [`Scratch`], which is wiped after each group. What the compiler spills to
//! the stack is out of reach.

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
const GROUP_MAX: usize = 63;
/// The authenticator that takes what nobody needs.
pub(super) const NOBODY: usize = GROUP_MAX;
/// Authenticators, a power of two so that an index can be masked.
pub(super) const POLYS: usize = GROUP_MAX + 1;

/// What a group of packets needs beside the stack of a step. Kept from batch to batch, as making it anew would cost a
/// small batch a tenth; secrets are wiped after each.
pub(super) struct Scratch {
    keystream: Keystream,
    polys: Polys,
    /// The last rows of the packets' states: counter 0 and the nonce.
    rows: [[u8; ROW_BYTES]; GROUP_MAX],
}

impl Scratch {
    pub(super) const fn new() -> Self {
        Self {
            keystream: Keystream([[0; BLOCK_BYTES]; LANES_MAX]),
            polys: [const { Poly::new() }; POLYS],
            rows: [[0; ROW_BYTES]; GROUP_MAX],
        }
    }
}

/// Seals or opens all jobs; `WIDTH` is an eighth of the lanes.
#[inline(always)]
pub(super) fn run<L: Lanes, J: Job, const WIDTH: usize>(
    proof: L::Proof,
    jobs: &mut [J],
    scratch: &mut Scratch,
) {
    const { assert!(8 * WIDTH == L::COUNT) };
    // Groups of one size: a packet alone at the end would have all lanes' time for itself.
    let groups = jobs.len().div_ceil(GROUP_MAX).max(1);
    for group in jobs.chunks_mut(jobs.len().div_ceil(groups).max(1)) {
        work::<L, J, WIDTH>(proof, group, scratch);
        scratch.keystream.wipe();
        for poly in &mut scratch.polys[..group.len()] {
            poly.zeroize();
        }
        // The scratch outlives the batch, so that these stores can't be dropped.
        scratch.rows[..group.len()].fill([0; ROW_BYTES]);
    }
}

#[inline(always)]
fn work<L: Lanes, J: Job, const WIDTH: usize>(proof: L::Proof, jobs: &mut [J], scratch: &mut Scratch) {
    for (job, row) in jobs.iter().zip(&mut scratch.rows) {
        row[4..].copy_from_slice(&job.key().nonce(job.packet_number()));
    }
    let mut cursor = Cursor::default();
    let mut streams = Streams::<WIDTH>::new();
    while !cursor.is_at_end(jobs) {
        let mut feeds = streams.start(jobs, cursor, &scratch.polys);
        let mut runs = [Run::default(); LANES_MAX];
        let count = cursor.deal(jobs, L::COUNT, &mut runs);
        let runs = &runs[..count];
        let first = states::<L, J>(proof, jobs, &scratch.rows, runs);
        let last = rounds(&first, &mut feeds);
        streams = feeds.end();
        L::store_blocks(&last, &mut scratch.keystream.0);
        for run in runs {
            apply(&mut jobs[run.job], run, scratch);
        }
    }
    streams.finish(jobs, cursor, &scratch.polys);
    for (job, poly) in jobs.iter_mut().zip(&scratch.polys) {
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
fn rounds<L: Lanes, J: Job, const WIDTH: usize>(
    first: &State<L>,
    feeds: &mut Feeds<'_, J, WIDTH>,
) -> State<L> {
    let mut state = *first;
    for _ in 0..DOUBLE_ROUNDS {
        block::columns(&mut state);
        feeds.doubles();
        block::diagonals(&mut state);
        feeds.singles();
    }
    block::add_all(&mut state, first);
    state
}

/// Takes a run's keystream: block 0 is the key of the authenticator, the others meet the text.
#[inline(always)]
fn apply<J: Job>(job: &mut J, run: &Run, scratch: &Scratch) {
    let mut blocks = &scratch.keystream.0[run.lane..run.lane + run.lanes];
    let mut block = run.block;
    if block == 0 {
        let Some(one_time_key) = blocks[0].first_chunk() else {
            unreachable!("a block is longer than a key")
        };
        let poly = &scratch.polys[run.job % POLYS];
        poly.start(one_time_key);
        poly.padded(job.header(), 0);
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
