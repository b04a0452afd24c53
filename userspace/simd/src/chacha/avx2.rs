//! Eight lanes of 32 bits: AVX2.

use super::lanes::{BLOCK_BYTES, FROM_LANE, LANES_MAX, Lane, Lanes, ROW_BYTES};
use std::arch::{asm, x86_64::*};

/// Eight lanes.
#[derive(Clone, Copy)]
pub(super) struct Eight(__m256i);

/// That the CPU has AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    #[target_feature(enable = "avx2")]
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl Lanes for Eight {
    const COUNT: usize = 8;
    type Proof = Avx2;

    #[inline(always)]
    fn splat(_: Avx2, word: u32) -> Self {
        // SAFETY: the proof says that the CPU has AVX2.
        Self(unsafe { _mm256_set1_epi32(word.cast_signed()) })
    }

    #[inline(always)]
    fn splat_from(proof: Avx2, lane: usize, word: u32) -> Self {
        assert!(lane < Self::COUNT, "no such lane");
        let Some(mask) = FROM_LANE[LANES_MAX - lane..].first_chunk::<8>() else {
            unreachable!("two vectors long")
        };
        // SAFETY: the proof says that the CPU has AVX2.
        Self(unsafe { and(mask, Self::splat(proof, word).0) })
    }

    #[inline(always)]
    fn index(_: Avx2) -> Self {
        // SAFETY: the proof says that the CPU has AVX2.
        Self(unsafe { _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7) })
    }

    #[inline(always)]
    fn from_lanes(_: Avx2, lanes: &[Lane<'_>; LANES_MAX]) -> [[Self; 4]; 3] {
        // SAFETY: the proof says that the CPU has AVX2.
        unsafe { from_lanes(lanes) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX2.
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX2.
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    #[inline(always)]
    fn rotate_16(self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX2.
        Self(unsafe { rotate_16(self.0) })
    }

    #[inline(always)]
    fn rotate_12(self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX2.
        Self(unsafe { rotate::<12, 20>(self.0) })
    }

    #[inline(always)]
    fn rotate_8(self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX2.
        Self(unsafe { rotate_8(self.0) })
    }

    #[inline(always)]
    fn rotate_7(self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX2.
        Self(unsafe { rotate::<7, 25>(self.0) })
    }

    #[inline(always)]
    fn store(self, words: &mut [u32]) {
        let Some(words) = words.first_chunk_mut::<8>() else { unreachable!("room for eight words") };
        // SAFETY: a vector exists, so the CPU has AVX2; 32 bytes may be written.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), self.0) };
    }

    #[inline(always)]
    fn store_blocks(state: &[Self; 16], blocks: &mut [[u8; BLOCK_BYTES]]) {
        let Some(blocks) = blocks.first_chunk_mut::<8>() else { unreachable!("room for eight blocks") };
        // SAFETY: a vector exists, so the CPU has AVX2.
        unsafe { store_blocks(state, blocks) };
    }
}

/// How bytes move, in both 128-bit halves.
#[repr(align(32))]
struct Shuffle([[u8; 16]; 2]);

static ROTATE_16: Shuffle = Shuffle([[2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13]; 2]);
static ROTATE_8: Shuffle = Shuffle([[3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14]; 2]);

/// Rotates by whole bytes: one shuffle instead of two shifts and an or.
///
/// By its name, because LLVM merges shuffles that it can see across the exclusive or between them, which makes four of
/// two and a ChaCha20 block a tenth slower. From memory, because no register is free.
macro_rules! shuffle {
    ($words:expr, $shuffle:ident) => {{
        let mut words: __m256i = $words;
        if cfg!(miri) {
            // SAFETY: 32 bytes may be read.
            words = _mm256_shuffle_epi8(words, unsafe { _mm256_load_si256($shuffle.0.as_ptr().cast()) });
        } else {
            // SAFETY: AVX2 is enabled; the operand lies in an aligned static of 32 bytes.
            unsafe {
                asm!(
                    "vpshufb {0}, {0}, [rip + {1}]",
                    inlateout(ymm_reg) words,
                    sym $shuffle,
                    options(pure, readonly, nostack, preserves_flags)
                );
            }
        }
        words
    }};
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate_16(words: __m256i) -> __m256i {
    shuffle!(words, ROTATE_16)
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate_8(words: __m256i) -> __m256i {
    shuffle!(words, ROTATE_8)
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const LEFT: i32, const RIGHT: i32>(words: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi32::<LEFT>(words), _mm256_srli_epi32::<RIGHT>(words))
}

/// Lanes i and 4 + i meet in one register, then each 128-bit half is transposed by itself: lane order comes for free.
#[inline]
#[target_feature(enable = "avx2")]
fn from_lanes(lanes: &[Lane<'_>; LANES_MAX]) -> [[Eight; 4]; 3] {
    let mut pairs = [[_mm256_setzero_si256(); 4]; 3];
    for i in 0..4 {
        let (a, b) = (lanes[i].rows(), lanes[4 + i].rows());
        for row in 0..3 {
            pairs[row][i] = _mm256_set_m128i(load(b[row]), load(a[row]));
        }
    }
    [wrap(transpose_4(pairs[0])), wrap(transpose_4(pairs[1])), wrap(transpose_4(pairs[2]))]
}

#[inline(always)]
fn wrap([a, b, c, d]: [__m256i; 4]) -> [Eight; 4] {
    [Eight(a), Eight(b), Eight(c), Eight(d)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn and(mask: &[u32; 8], words: __m256i) -> __m256i {
    // SAFETY: 8 words may be read.
    let mask = unsafe { _mm256_loadu_si256(mask.as_ptr().cast()) };
    _mm256_and_si256(mask, words)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(row: &[u8; ROW_BYTES]) -> __m128i {
    // SAFETY: sixteen bytes may be read.
    unsafe { _mm_loadu_si128(row.as_ptr().cast()) }
}

/// The 4 x 4 transposition of words, in each 128-bit half.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_4([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab_low, cd_low),
        _mm256_unpackhi_epi64(ab_low, cd_low),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_blocks(state: &[Eight; 16], blocks: &mut [[u8; BLOCK_BYTES]; 8]) {
    let words = |i: usize| [state[i].0, state[i + 1].0, state[i + 2].0, state[i + 3].0];
    for half in 0..2 {
        let low = transpose_4(words(8 * half));
        let high = transpose_4(words(8 * half + 4));
        for i in 0..4 {
            store(&mut blocks[i], half, _mm256_permute2x128_si256::<0x20>(low[i], high[i]));
            store(&mut blocks[4 + i], half, _mm256_permute2x128_si256::<0x31>(low[i], high[i]));
        }
    }
}

/// Writes the first or the second half of a block.
#[inline]
#[target_feature(enable = "avx2")]
fn store(block: &mut [u8; BLOCK_BYTES], half: usize, bytes: __m256i) {
    let room = &mut block.as_chunks_mut::<32>().0[half];
    // SAFETY: 32 bytes may be written.
    unsafe { _mm256_storeu_si256(room.as_mut_ptr().cast(), bytes) };
}
