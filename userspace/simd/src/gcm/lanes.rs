//! What the algorithm asks of a vector: some 128-bit lanes, each an AES block or an element of GHASH's field.
//!
//! The methods hang on a token of no size. Whoever holds one has been through a function compiled for the token's
//! instructions, so the methods are safe; they are all inlined into that function, which is what makes them single
//! instructions.

use std::arch::x86_64::__m128i;

/// Most lanes that a vector has, and the packets whose fixed work is done together.
pub(super) const QUAD: usize = 4;

pub(super) trait Lanes: Copy {
    /// The vector.
    type V: Copy;
    /// Its 128-bit lanes: 1, 2 or 4.
    const LANES: usize;
    /// Its bytes.
    const WIDTH: usize = 16 * Self::LANES;
    /// Whether a product of lanes is better made of three carry-less multiplications than of four.
    const KARATSUBA: bool;

    fn zero(self) -> Self::V;
    /// The same block in every lane.
    fn splat(self, block: __m128i) -> Self::V;
    /// The first `LANES` of these.
    fn lanes(self, blocks: [__m128i; QUAD]) -> Self::V;
    /// The reverse of [`Self::lanes`]; what isn't there is zero.
    fn blocks(self, vector: Self::V) -> [__m128i; QUAD];

    /// The first `WIDTH` bytes.
    fn load(self, bytes: &[u8]) -> Self::V;
    /// The first `LANES` blocks.
    fn load_blocks(self, blocks: &[u128]) -> Self::V;
    /// To the first `WIDTH` bytes.
    fn store(self, bytes: &mut [u8], vector: Self::V);
    /// The bytes `at..end`, zeros behind them; `end` is less than or equal to `at + WIDTH`.
    fn load_part(self, bytes: &[u8], at: usize, end: usize) -> Self::V;
    /// To the bytes `at..end`. It may write more, but only inside of `bytes`.
    fn store_part(self, bytes: &mut [u8], at: usize, end: usize, vector: Self::V);
    /// The first bytes, zeros instead of those behind.
    fn keep(self, vector: Self::V, bytes: usize) -> Self::V;

    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    fn aes(self, state: Self::V, key: Self::V) -> Self::V;
    fn aes_last(self, state: Self::V, key: Self::V) -> Self::V;
    /// Carry-less products lane by lane: bit 0 of `HALVES` takes the high half of `a`, bit 4 that of `b`.
    fn clmul<const HALVES: i32>(self, a: Self::V, b: Self::V) -> Self::V;
    /// Every lane's bytes reversed.
    fn swap_bytes(self, vector: Self::V) -> Self::V;
    /// Every lane's 64-bit halves exchanged.
    fn swap_halves(self, vector: Self::V) -> Self::V;
    /// The sum of all lanes in the first lane, zeros in the others.
    fn fold(self, vector: Self::V) -> Self::V;
    /// The sums of the lanes of four vectors, `LANES` of them in a vector.
    fn fold_quad(self, vectors: [Self::V; QUAD]) -> [Self::V; QUAD];
}
