//! A vector of ChaCha20 lanes: what the block function needs of one, whatever its width.

/// Lanes of the widest vector; arrays that hold something for every lane have this length.
pub(super) const LANES_MAX: usize = 16;
/// Bytes of a ChaCha20 block (RFC 8439 section 2.3).
pub(super) const BLOCK_BYTES: usize = 64;
/// Bytes of a quarter of a ChaCha20 state, a row of four words.
pub(super) const ROW_BYTES: usize = 16;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

/// What makes a ChaCha20 state: the key, and the last row, block counter and nonce.
#[derive(Clone, Copy)]
pub(super) struct Lane<'a> {
    pub(super) key: &'a [u8; KEY_BYTES],
    pub(super) row: &'a [u8; ROW_BYTES],
}

impl<'a> Lane<'a> {
    /// # Panics
    /// If the key isn't [`KEY_BYTES`] long.
    #[inline(always)]
    pub(super) fn new(key: &'a [u8], row: &'a [u8; ROW_BYTES]) -> Self {
        let Ok(key) = key.try_into() else { unreachable!("the length was checked when the key was made") };
        Self { key, row }
    }

    /// The lower three rows of the state.
    #[inline(always)]
    pub(super) fn rows(&self) -> [&[u8; ROW_BYTES]; 3] {
        let ([low, high], []) = self.key.as_chunks::<ROW_BYTES>() else { unreachable!("two rows") };
        [low, high, self.row]
    }
}

/// Where a vector is loaded `LANES_MAX - lane` words from the start, the lanes from `lane` on are all ones.
pub(super) static FROM_LANE: [u32; 2 * LANES_MAX] = {
    let mut words = [0; 2 * LANES_MAX];
    let mut lane = LANES_MAX;
    while lane < words.len() {
        words[lane] = !0;
        lane += 1;
    }
    words
};

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
    /// The same word in the lanes from `lane` on, zero before.
    ///
    /// # Panics
    /// If there is no such lane.
    fn splat_from(proof: Self::Proof, lane: usize, word: u32) -> Self;
    /// Lane i holds i.
    fn index(proof: Self::Proof) -> Self;
    /// The lower three rows of the lanes' states, transposed: in row i, vector j holds the lanes' little-endian words.
    /// Lanes from `COUNT` on are ignored.
    fn from_lanes(proof: Self::Proof, lanes: &[Lane<'_>; LANES_MAX]) -> [[Self; 4]; 3];
    /// Adds modulo 2^32.
    fn add(self, other: Self) -> Self;
    /// Exclusive or.
    fn xor(self, other: Self) -> Self;
    /// Rotates left by 16 bits.
    fn rotate_16(self) -> Self;
    /// Rotates left by 12 bits.
    fn rotate_12(self) -> Self;
    /// Rotates left by 8 bits.
    fn rotate_8(self) -> Self;
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
    fn splat_from(proof: L::Proof, lane: usize, word: u32) -> Self {
        match lane.checked_sub(L::COUNT) {
            Some(lane) => Self(L::splat(proof, 0), L::splat_from(proof, lane, word)),
            None => Self(L::splat_from(proof, lane, word), L::splat(proof, word)),
        }
    }

    #[inline(always)]
    fn index(proof: L::Proof) -> Self {
        let low = L::index(proof);
        Self(low, low.add(L::splat(proof, L::COUNT as u32)))
    }

    #[inline(always)]
    fn from_lanes(proof: L::Proof, lanes: &[Lane<'_>; LANES_MAX]) -> [[Self; 4]; 3] {
        let mut upper = *lanes;
        upper.rotate_left(L::COUNT);
        let (low, high) = (L::from_lanes(proof, lanes), L::from_lanes(proof, &upper));
        std::array::from_fn(|row| std::array::from_fn(|word| Self(low[row][word], high[row][word])))
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
    fn rotate_16(self) -> Self {
        Self(self.0.rotate_16(), self.1.rotate_16())
    }

    #[inline(always)]
    fn rotate_12(self) -> Self {
        Self(self.0.rotate_12(), self.1.rotate_12())
    }

    #[inline(always)]
    fn rotate_8(self) -> Self {
        Self(self.0.rotate_8(), self.1.rotate_8())
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
