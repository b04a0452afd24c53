//! A vector of ChaCha20 lanes: what the block function needs of one, whatever its width.

/// Lanes of the widest vector; arrays that hold something for every lane have this length.
pub(super) const LANES_MAX: usize = 16;
/// Bytes of a ChaCha20 block (RFC 8439 section 2.3).
pub(super) const BLOCK_BYTES: usize = 64;
/// Bytes of a quarter of a ChaCha20 state, a row of four words.
pub(super) const ROW_BYTES: usize = 16;

/// One `u32` of [`Lanes::COUNT`] ChaCha20 states.
///
/// Invariant: a vector can only come out of a [`Lanes::Proof`] that the CPU has the instructions, or out of another
/// vector. So the operations on vectors are safe.
///
/// Every method is inlined into an entry point that enables the instructions; elsewhere it would be slow, not wrong.
pub(super) trait Lanes: Copy {
    /// States side by side.
    const COUNT: usize;
    /// That the CPU has the instructions.
    type Proof: Copy;

    /// The same word in every lane.
    fn splat(proof: Self::Proof, word: u32) -> Self;
    /// Lane i holds i.
    fn index(proof: Self::Proof) -> Self;
    /// A row of four words from each lane, transposed: the result's vector i holds the lanes' little-endian words i.
    /// Rows from `COUNT` on are ignored.
    fn from_rows(proof: Self::Proof, rows: &[&[u8; ROW_BYTES]; LANES_MAX]) -> [Self; 4];
    /// Adds modulo 2^32.
    fn add(self, other: Self) -> Self;
    /// Exclusive or.
    fn xor(self, other: Self) -> Self;
    /// Rotates left by 16 bits.
    fn rotate_16(self, proof: Self::Proof) -> Self;
    /// Rotates left by 12 bits.
    fn rotate_12(self) -> Self;
    /// Rotates left by 8 bits.
    fn rotate_8(self, proof: Self::Proof) -> Self;
    /// Rotates left by 7 bits.
    fn rotate_7(self) -> Self;
    /// The lanes' words, in order.
    fn store(self, words: &mut [u32]);
    /// The serialized blocks, lane after lane: the transposition of sixteen vectors.
    fn store_blocks(state: &[Self; 16], blocks: &mut [[u8; BLOCK_BYTES]]);
}

/// Two vectors as one. The tests run the 16-lane algorithm over two 8-lane halves, on CPUs that have no AVX-512.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(super) struct Twice<L>(L, L);

#[cfg(test)]
impl<L: Lanes> Lanes for Twice<L> {
    const COUNT: usize = 2 * L::COUNT;
    type Proof = L::Proof;

    #[inline(always)]
    fn splat(proof: L::Proof, word: u32) -> Self {
        Self(L::splat(proof, word), L::splat(proof, word))
    }

    #[inline(always)]
    fn index(proof: L::Proof) -> Self {
        let low = L::index(proof);
        Self(low, low.add(L::splat(proof, L::COUNT as u32)))
    }

    #[inline(always)]
    fn from_rows(proof: L::Proof, rows: &[&[u8; ROW_BYTES]; LANES_MAX]) -> [Self; 4] {
        let mut upper = *rows;
        upper.rotate_left(L::COUNT);
        let (low, high) = (L::from_rows(proof, rows), L::from_rows(proof, &upper));
        [Self(low[0], high[0]), Self(low[1], high[1]), Self(low[2], high[2]), Self(low[3], high[3])]
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0.add(other.0), self.1.add(other.1))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(self.0.xor(other.0), self.1.xor(other.1))
    }

    #[inline(always)]
    fn rotate_16(self, proof: L::Proof) -> Self {
        Self(self.0.rotate_16(proof), self.1.rotate_16(proof))
    }

    #[inline(always)]
    fn rotate_12(self) -> Self {
        Self(self.0.rotate_12(), self.1.rotate_12())
    }

    #[inline(always)]
    fn rotate_8(self, proof: L::Proof) -> Self {
        Self(self.0.rotate_8(proof), self.1.rotate_8(proof))
    }

    #[inline(always)]
    fn rotate_7(self) -> Self {
        Self(self.0.rotate_7(), self.1.rotate_7())
    }

    #[inline(always)]
    fn store(self, words: &mut [u32]) {
        let (low, high) = words.split_at_mut(L::COUNT);
        self.0.store(low);
        self.1.store(high);
    }

    #[inline(always)]
    fn store_blocks(state: &[Self; 16], blocks: &mut [[u8; BLOCK_BYTES]]) {
        let (low, high) = blocks.split_at_mut(L::COUNT);
        L::store_blocks(&state.map(|both| both.0), low);
        L::store_blocks(&state.map(|both| both.1), high);
    }
}
