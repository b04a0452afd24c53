//! The ChaCha20 block function (RFC 8439 section 2.3) over a vector of lanes.

use super::lanes::{BLOCK_BYTES, LANES_MAX, Lane, Lanes};
use zeroize::Zeroize;

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// Twenty rounds, two at a time.
pub(super) const DOUBLE_ROUNDS: usize = 10;

/// Sixteen vectors: word i of each lane's state.
pub(super) type State<L> = [L; 16];

/// States of unrelated lanes.
#[inline(always)]
pub(super) fn mixed<L: Lanes>(proof: L::Proof, lanes: &[Lane<'_>; LANES_MAX]) -> State<L> {
    let mut state = [L::splat(proof, 0); 16];
    let rows = L::from_lanes(proof, lanes);
    for word in 0..4 {
        state[word] = L::splat(proof, CONSTANTS[word]);
        state[4 + word] = rows[0][word];
        state[8 + word] = rows[1][word];
        state[12 + word] = rows[2][word];
    }
    state
}

/// States of consecutive blocks of one key and nonce; the row's counter is ignored.
#[inline(always)]
pub(super) fn uniform<L: Lanes>(proof: L::Proof, lane: Lane<'_>, counters: L) -> State<L> {
    let mut state = [counters; 16];
    for word in 0..4 {
        state[word] = L::splat(proof, CONSTANTS[word]);
        state[4 + word] = L::splat(proof, word_of(lane.key, word));
        state[8 + word] = L::splat(proof, word_of(lane.key, 4 + word));
        if word > 0 {
            state[12 + word] = L::splat(proof, word_of(lane.row, word));
        }
    }
    state
}

#[inline(always)]
fn word_of(bytes: &[u8], word: usize) -> u32 {
    u32::from_le_bytes(bytes.as_chunks::<4>().0[word])
}

/// One column round.
#[inline(always)]
pub(super) fn columns<L: Lanes>(state: &mut State<L>) {
    quarters(state, [0, 4, 8, 12], [1, 5, 9, 13]);
    quarters(state, [2, 6, 10, 14], [3, 7, 11, 15]);
}

/// One diagonal round. Its first pair takes the words 10 and 11 that the column round's second pair had.
#[inline(always)]
pub(super) fn diagonals<L: Lanes>(state: &mut State<L>) {
    quarters(state, [0, 5, 10, 15], [1, 6, 11, 12]);
    quarters(state, [2, 7, 8, 13], [3, 4, 9, 14]);
}

/// Twenty rounds and the last addition, with nothing beside them.
#[inline(always)]
pub(super) fn rounds<L: Lanes>(first: &State<L>) -> State<L> {
    let mut state = *first;
    for _ in 0..DOUBLE_ROUNDS {
        columns(&mut state);
        diagonals(&mut state);
    }
    add_all(&mut state, first);
    state
}

/// Two quarter rounds (RFC 8439 section 2.1) side by side, to hide the latency of each.
#[inline(always)]
fn quarters<L: Lanes>(v: &mut State<L>, [a, b, c, d]: [usize; 4], [e, f, g, h]: [usize; 4]) {
    v[a] = v[a].add(v[b]);
    v[e] = v[e].add(v[f]);
    v[d] = v[d].xor(v[a]).rotate_16();
    v[h] = v[h].xor(v[e]).rotate_16();
    v[c] = v[c].add(v[d]);
    v[g] = v[g].add(v[h]);
    v[b] = v[b].xor(v[c]).rotate_12();
    v[f] = v[f].xor(v[g]).rotate_12();
    v[a] = v[a].add(v[b]);
    v[e] = v[e].add(v[f]);
    v[d] = v[d].xor(v[a]).rotate_8();
    v[h] = v[h].xor(v[e]).rotate_8();
    v[c] = v[c].add(v[d]);
    v[g] = v[g].add(v[h]);
    v[b] = v[b].xor(v[c]).rotate_7();
    v[f] = v[f].xor(v[g]).rotate_7();
}

/// The last step of the block function: adds the first state.
#[inline(always)]
pub(super) fn add_all<L: Lanes>(state: &mut State<L>, first: &State<L>) {
    for word in 0..16 {
        state[word] = state[word].add(first[word]);
    }
}

/// Keystream, wiped by whoever made it.
#[repr(align(64))]
pub(super) struct Keystream(pub(super) [[u8; BLOCK_BYTES]; LANES_MAX]);

impl Keystream {
    /// Eight times as fast as wiping bytes.
    #[inline(always)]
    pub(super) fn wipe(&mut self) {
        // SAFETY: the size is a multiple of that of a u64, the alignment is greater, and any bits are fine.
        let words: &mut [u64; LANES_MAX * BLOCK_BYTES / 8] = unsafe { &mut *(&raw mut self.0).cast() };
        words.zeroize();
    }
}
