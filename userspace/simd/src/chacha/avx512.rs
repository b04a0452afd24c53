//! Sixteen lanes of 32 bits: AVX-512F.

use super::lanes::{BLOCK_BYTES, FROM_LANE, LANES_MAX, Lane, Lanes, ROW_BYTES};
use std::arch::x86_64::*;

/// Sixteen lanes.
#[derive(Clone, Copy)]
pub(super) struct Sixteen(__m512i);

/// That the CPU has AVX-512F.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    #[target_feature(enable = "avx512f")]
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl Lanes for Sixteen {
    const COUNT: usize = 16;
    type Proof = Avx512;

    #[inline(always)]
    fn splat(_: Avx512, word: u32) -> Self {
        // SAFETY: the proof says that the CPU has AVX-512F.
        Self(unsafe { _mm512_set1_epi32(word.cast_signed()) })
    }

    #[inline(always)]
    fn splat_from(proof: Avx512, lane: usize, word: u32) -> Self {
        assert!(lane < Self::COUNT, "no such lane");
        let Some(mask) = FROM_LANE[LANES_MAX - lane..].first_chunk::<16>() else {
            unreachable!("two vectors long")
        };
        // SAFETY: the proof says that the CPU has AVX-512F.
        Self(unsafe { and(mask, Self::splat(proof, word).0) })
    }

    #[inline(always)]
    fn index(_: Avx512) -> Self {
        // SAFETY: the proof says that the CPU has AVX-512F.
        Self(unsafe { _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) })
    }

    #[inline(always)]
    fn from_lanes(_: Avx512, lanes: &[Lane<'_>; LANES_MAX]) -> [[Self; 4]; 3] {
        // SAFETY: the proof says that the CPU has AVX-512F.
        unsafe { from_lanes(lanes) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX-512F.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX-512F.
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn rotate_16(self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX-512F.
        Self(unsafe { _mm512_rol_epi32::<16>(self.0) })
    }

    #[inline(always)]
    fn rotate_12(self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX-512F.
        Self(unsafe { _mm512_rol_epi32::<12>(self.0) })
    }

    #[inline(always)]
    fn rotate_8(self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX-512F.
        Self(unsafe { _mm512_rol_epi32::<8>(self.0) })
    }

    #[inline(always)]
    fn rotate_7(self) -> Self {
        // SAFETY: a vector exists, so the CPU has AVX-512F.
        Self(unsafe { _mm512_rol_epi32::<7>(self.0) })
    }

    #[inline(always)]
    fn store(self, words: &mut [u32]) {
        let Some(words) = words.first_chunk_mut::<16>() else { unreachable!("room for sixteen words") };
        // SAFETY: a vector exists, so the CPU has AVX-512F; 64 bytes may be written.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), self.0) };
    }

    #[inline(always)]
    fn store_blocks(state: &[Self; 16], blocks: &mut [[u8; BLOCK_BYTES]]) {
        let Some(blocks) = blocks.first_chunk_mut::<16>() else { unreachable!("room for sixteen blocks") };
        // SAFETY: a vector exists, so the CPU has AVX-512F.
        unsafe { store_blocks(state, blocks) };
    }
}

/// Lanes i, 4 + i, 8 + i and 12 + i meet in one register, then each 128-bit quarter is transposed by itself: lane
/// order comes for free.
#[inline]
#[target_feature(enable = "avx512f")]
fn from_lanes(lanes: &[Lane<'_>; LANES_MAX]) -> [[Sixteen; 4]; 3] {
    let mut quads = [[_mm512_setzero_si512(); 4]; 3];
    for i in 0..4 {
        let [a, b, c, d] = [lanes[i].rows(), lanes[4 + i].rows(), lanes[8 + i].rows(), lanes[12 + i].rows()];
        for row in 0..3 {
            let mut quad = _mm512_castsi128_si512(load(a[row]));
            quad = _mm512_inserti32x4::<1>(quad, load(b[row]));
            quad = _mm512_inserti32x4::<2>(quad, load(c[row]));
            quads[row][i] = _mm512_inserti32x4::<3>(quad, load(d[row]));
        }
    }
    [wrap(transpose_4(quads[0])), wrap(transpose_4(quads[1])), wrap(transpose_4(quads[2]))]
}

#[inline(always)]
fn wrap([a, b, c, d]: [__m512i; 4]) -> [Sixteen; 4] {
    [Sixteen(a), Sixteen(b), Sixteen(c), Sixteen(d)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn and(mask: &[u32; 16], words: __m512i) -> __m512i {
    // SAFETY: 16 words may be read.
    let mask = unsafe { _mm512_loadu_si512(mask.as_ptr().cast()) };
    _mm512_and_si512(mask, words)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(row: &[u8; ROW_BYTES]) -> __m128i {
    // SAFETY: sixteen bytes may be read.
    unsafe { _mm_loadu_si128(row.as_ptr().cast()) }
}

/// The 4 x 4 transposition of words, in each 128-bit quarter.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_4([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The 4 x 4 transposition of 128-bit quarters. The immediates pick, two quarters from each operand: 0x44 the lower
/// two of both, 0xee the upper two, 0x88 the even ones, 0xdd the odd ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
    let (cd_low, cd_high) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
    [
        _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0xdd>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_blocks(state: &[Sixteen; 16], blocks: &mut [[u8; BLOCK_BYTES]; 16]) {
    let words = |i: usize| [state[i].0, state[i + 1].0, state[i + 2].0, state[i + 3].0];
    let rows = [transpose_4(words(0)), transpose_4(words(4)), transpose_4(words(8)), transpose_4(words(12))];
    for i in 0..4 {
        let lanes = transpose_quarters([rows[0][i], rows[1][i], rows[2][i], rows[3][i]]);
        for (quarter, lane) in lanes.into_iter().enumerate() {
            store(&mut blocks[4 * quarter + i], lane);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(block: &mut [u8; BLOCK_BYTES], bytes: __m512i) {
    // SAFETY: 64 bytes may be written.
    unsafe { _mm512_storeu_si512(block.as_mut_ptr().cast(), bytes) };
}
