//! What the two algorithms ask of a vector unit.

/// A vector unit, as a token: to have one is proof that the CPU has the instructions.
///
/// A vector is `LANES` unsigned 32-bit lanes, or half as many of 64 bits, in memory order and little-endian. Each
/// operation but `tail` and `wide_total` is one instruction, so that a twin over arrays tests all that isn't the
/// instruction itself. "Block" is 256 bits: AVX-512 has two of them side by side.
///
/// Implementations are `#[inline(always)]`, and so is what is written over them: they become instructions only inside
/// a function that enables the features.
pub(super) trait Lanes: Copy {
    /// The vector.
    type Vector: Copy;
    /// 32-bit lanes in a vector: 8 or 16.
    const LANES: usize;
    /// Bytes in a vector.
    const BYTES: usize = 4 * Self::LANES;

    /// `word` in every lane.
    fn splat(self, word: u32) -> Self::Vector;
    /// The first [`Self::BYTES`] of `bytes`, which has as many.
    fn load(self, bytes: &[u8]) -> Self::Vector;
    /// The first [`Self::LANES`] of `words`, which has as many.
    fn load_words(self, words: &[u32]) -> Self::Vector;
    /// Row `index`, and behind it in AVX-512's second block row `index + 8`. `rows` has [`Self::LANES`].
    fn load_row(self, rows: &[&[u8; 32]], index: usize) -> Self::Vector;
    /// The last `bytes.len() % BYTES` bytes, which are some, of at least 32, where the 16-bit words that they belong to,
    /// counted from the start of `bytes`, come out whole; zeros elsewhere.
    fn tail(self, bytes: &[u8]) -> Self::Vector;
    /// Stores all lanes in the first [`Self::LANES`] of `words`.
    fn store(self, vector: Self::Vector, words: &mut [u32]);

    fn and(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn or(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn xor(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Wrapping, in 32-bit lanes.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Wrapping, in 32-bit lanes.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Logical, in 32-bit lanes.
    fn shift_right<const BITS: u32>(self, a: Self::Vector) -> Self::Vector;
    /// In 32-bit lanes.
    fn shift_left<const BITS: u32>(self, a: Self::Vector) -> Self::Vector;
    /// The first two bytes of each lane as a big-endian number.
    fn first_be16(self, a: Self::Vector) -> Self::Vector;
    /// The last two bytes of each lane as a big-endian number.
    fn last_be16(self, a: Self::Vector) -> Self::Vector;
    /// A bit for each lane that is zero, the first lane lowest.
    fn zero_lanes(self, a: Self::Vector) -> u64;

    /// In each 128 bits: words 0 of `a` and `b`, then words 1.
    fn unpack_low32(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// In each 128 bits: words 2 of `a` and `b`, then words 3.
    fn unpack_high32(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// In each 128 bits: the low 64 bits of `a`, then of `b`.
    fn unpack_low64(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// In each 128 bits: the high 64 bits of `a`, then of `b`.
    fn unpack_high64(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// In each block: the low 128 bits of `a`, then of `b`.
    fn unpack_low128(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// In each block: the high 128 bits of `a`, then of `b`.
    fn unpack_high128(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Wrapping, in 64-bit lanes.
    fn wide_add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Each 64-bit lane shifted right by 32 bits.
    fn wide_high(self, a: Self::Vector) -> Self::Vector;
    /// Each 64-bit lane shifted left by 32 bits.
    fn wide_raise(self, a: Self::Vector) -> Self::Vector;
    /// Wrapping, in 64-bit lanes.
    fn wide_sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// All 64-bit lanes added up, wrapping.
    fn wide_total(self, a: Self::Vector) -> u64;
}

/// For a byte shuffle of each 128 bits: bytes as they are.
pub(super) const IN_ORDER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// Bytes of each 16-bit word swapped.
pub(super) const SWAPPED: [u8; 16] = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14];
/// [`Lanes::first_be16`]; an index above 127 makes a zero.
pub(super) const FIRST_BE16: [u8; 16] = [1, 0, 255, 255, 5, 4, 255, 255, 9, 8, 255, 255, 13, 12, 255, 255];
/// [`Lanes::last_be16`].
pub(super) const LAST_BE16: [u8; 16] = [3, 2, 255, 255, 7, 6, 255, 255, 11, 10, 255, 255, 15, 14, 255, 255];
