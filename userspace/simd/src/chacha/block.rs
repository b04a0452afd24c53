//! The ChaCha20 block function (RFC 8439 section 2.3) over a vector of lanes.

use super::lanes::{BLOCK_BYTES, LANES_MAX, Lanes, ROW_BYTES};

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// Twenty rounds, two at a time.
pub(super) const DOUBLE_ROUNDS: usize = 10;
/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

/// Sixteen vectors: word i of each lane's state.
pub(super) type State<L> = [L; 16];

/// States of unrelated lanes: each has a key of its own, and a row of its block counter and nonce.
#[inline(always)]
pub(super) fn mixed<L: Lanes>(
    proof: L::Proof,
    keys: &[&[u8; KEY_BYTES]; LANES_MAX],
    last_rows: &[[u8; ROW_BYTES]; LANES_MAX],
) -> State<L> {
    let mut rows = [[&last_rows[0]; LANES_MAX]; 3];
    for lane in 0..L::COUNT {
        let ([low, high], []) = keys[lane].as_chunks::<ROW_BYTES>() else { unreachable!("two rows") };
        rows[0][lane] = low;
        rows[1][lane] = high;
        rows[2][lane] = &last_rows[lane];
    }
    let mut state = [L::splat(proof, 0); 16];
    for (word, constant) in CONSTANTS.into_iter().enumerate() {
        state[word] = L::splat(proof, constant);
    }
    for (row, pieces) in rows.iter().enumerate() {
        let words = L::from_rows(proof, pieces);
        state[4 * row + 4] = words[0];
        state[4 * row + 5] = words[1];
        state[4 * row + 6] = words[2];
        state[4 * row + 7] = words[3];
    }
    state
}

/// States of consecutive blocks of one key and nonce; the row's counter is the first lane's.
#[inline(always)]
pub(super) fn uniform<L: Lanes>(
    proof: L::Proof,
    key: &[u8; KEY_BYTES],
    last_row: &[u8; ROW_BYTES],
) -> State<L> {
    let mut state = [L::index(proof); 16];
    for word in 0..4 {
        state[word] = L::splat(proof, CONSTANTS[word]);
        state[4 + word] = L::splat(proof, word_of(key, word));
        state[8 + word] = L::splat(proof, word_of(key, 4 + word));
        if word > 0 {
            state[12 + word] = L::splat(proof, word_of(last_row, word));
        }
    }
    state[12] = state[12].add(L::splat(proof, word_of(last_row, 0)));
    state
}

#[inline(always)]
fn word_of(bytes: &[u8], word: usize) -> u32 {
    u32::from_le_bytes(bytes.as_chunks::<4>().0[word])
}

/// One column round.
#[inline(always)]
pub(super) fn columns<L: Lanes>(proof: L::Proof, state: &mut State<L>) {
    quarters(proof, state, [0, 4, 8, 12], [1, 5, 9, 13]);
    quarters(proof, state, [2, 6, 10, 14], [3, 7, 11, 15]);
}

/// One diagonal round.
#[inline(always)]
pub(super) fn diagonals<L: Lanes>(proof: L::Proof, state: &mut State<L>) {
    quarters(proof, state, [0, 5, 10, 15], [1, 6, 11, 12]);
    quarters(proof, state, [2, 7, 8, 13], [3, 4, 9, 14]);
}

/// Two quarter rounds (RFC 8439 section 2.1) side by side, to hide the latency of each.
#[inline(always)]
fn quarters<L: Lanes>(proof: L::Proof, v: &mut State<L>, [a, b, c, d]: [usize; 4], [e, f, g, h]: [usize; 4]) {
    v[a] = v[a].add(v[b]);
    v[e] = v[e].add(v[f]);
    v[d] = v[d].xor(v[a]).rotate_16(proof);
    v[h] = v[h].xor(v[e]).rotate_16(proof);
    v[c] = v[c].add(v[d]);
    v[g] = v[g].add(v[h]);
    v[b] = v[b].xor(v[c]).rotate_12();
    v[f] = v[f].xor(v[g]).rotate_12();
    v[a] = v[a].add(v[b]);
    v[e] = v[e].add(v[f]);
    v[d] = v[d].xor(v[a]).rotate_8(proof);
    v[h] = v[h].xor(v[e]).rotate_8(proof);
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
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct Keystream(pub(super) [[u8; BLOCK_BYTES]; LANES_MAX]);
