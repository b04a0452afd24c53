//! Four lanes: AVX-512 F, BW, VL and DQ, VAES, VPCLMULQDQ.

use super::{
    aesni::vouched,
    avx2::Avx2,
    lanes::{Lanes, QUAD},
};
use std::arch::x86_64::*;

/// Proof of AVX-512 F, BW, VL and DQ, and of what [`Avx2`] proves.
#[derive(Clone, Copy)]
pub(super) struct Avx512(Avx2);

impl Avx512 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,vaes,vpclmulqdq,aes,pclmulqdq")]
    pub(super) fn token() -> Self {
        Self(Avx2::token())
    }

    #[inline(always)]
    fn join(self, low: __m256i, high: __m256i) -> __m512i {
        vouched!(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
    }

    #[inline(always)]
    fn low(self, vector: __m512i) -> __m256i {
        vouched!(_mm512_castsi512_si256(vector))
    }

    #[inline(always)]
    fn high(self, vector: __m512i) -> __m256i {
        vouched!(_mm512_extracti64x4_epi64::<1>(vector))
    }

    /// a0+a2 a1+a3 b0+b2 b1+b3.
    #[inline(always)]
    fn fold_halves(self, a: __m512i, b: __m512i) -> __m512i {
        let low = vouched!(_mm512_shuffle_i64x2::<0b01_00_01_00>(a, b));
        let high = vouched!(_mm512_shuffle_i64x2::<0b11_10_11_10>(a, b));
        self.xor(low, high)
    }
}

/// A mask of the first bytes.
#[inline(always)]
fn first(bytes: usize) -> __mmask64 {
    u64::MAX >> (64 - bytes)
}

impl Lanes for Avx512 {
    type V = __m512i;
    const LANES: usize = 4;
    const KARATSUBA: bool = false;

    #[inline(always)]
    fn zero(self) -> __m512i {
        vouched!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn splat(self, block: __m128i) -> __m512i {
        vouched!(_mm512_broadcast_i32x4(block))
    }

    #[inline(always)]
    fn lanes(self, [a, b, c, d]: [__m128i; QUAD]) -> __m512i {
        let zero = a;
        self.join(self.0.lanes([a, b, zero, zero]), self.0.lanes([c, d, zero, zero]))
    }

    #[inline(always)]
    fn blocks(self, vector: __m512i) -> [__m128i; QUAD] {
        let [a, b, ..] = self.0.blocks(self.low(vector));
        let [c, d, ..] = self.0.blocks(self.high(vector));
        [a, b, c, d]
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m512i {
        assert!(bytes.len() >= 64);
        vouched!(_mm512_loadu_si512(bytes.as_ptr().cast()))
    }

    #[inline(always)]
    fn load_blocks(self, blocks: &[u128]) -> __m512i {
        assert!(blocks.len() >= 4);
        vouched!(_mm512_loadu_si512(blocks.as_ptr().cast()))
    }

    #[inline(always)]
    fn store(self, bytes: &mut [u8], vector: __m512i) {
        assert!(bytes.len() >= 64);
        vouched!(_mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector))
    }

    #[inline(always)]
    fn load_part(self, bytes: &[u8], at: usize, end: usize) -> __m512i {
        let bytes = &bytes[at..end];
        assert!(!bytes.is_empty() && bytes.len() <= 64);
        vouched!(_mm512_maskz_loadu_epi8(first(bytes.len()), bytes.as_ptr().cast()))
    }

    #[inline(always)]
    fn store_part(self, bytes: &mut [u8], at: usize, end: usize, vector: __m512i) {
        let bytes = &mut bytes[at..end];
        assert!(!bytes.is_empty() && bytes.len() <= 64);
        vouched!(_mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), first(bytes.len()), vector))
    }

    #[inline(always)]
    fn keep(self, vector: __m512i, bytes: usize) -> __m512i {
        vouched!(_mm512_maskz_mov_epi8(first(bytes), vector))
    }

    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        vouched!(_mm512_xor_si512(a, b))
    }

    #[inline(always)]
    fn aes(self, state: __m512i, key: __m512i) -> __m512i {
        vouched!(_mm512_aesenc_epi128(state, key))
    }

    #[inline(always)]
    fn aes_last(self, state: __m512i, key: __m512i) -> __m512i {
        vouched!(_mm512_aesenclast_epi128(state, key))
    }

    #[inline(always)]
    fn clmul<const HALVES: i32>(self, a: __m512i, b: __m512i) -> __m512i {
        vouched!(_mm512_clmulepi64_epi128::<HALVES>(a, b))
    }

    #[inline(always)]
    fn swap_bytes(self, vector: __m512i) -> __m512i {
        let order = self.splat(super::aesni::block(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f));
        vouched!(_mm512_shuffle_epi8(vector, order))
    }

    #[inline(always)]
    fn swap_halves(self, vector: __m512i) -> __m512i {
        vouched!(_mm512_shuffle_epi32::<0x4e>(vector))
    }

    #[inline(always)]
    fn fold(self, vector: __m512i) -> __m512i {
        let half = self.0.xor(self.low(vector), self.high(vector));
        self.join(self.0.fold(half), self.0.zero())
    }

    #[inline(always)]
    fn fold_quad(self, [a, b, c, d]: [__m512i; QUAD]) -> [__m512i; QUAD] {
        let (ab, cd) = (self.fold_halves(a, b), self.fold_halves(c, d));
        let even = vouched!(_mm512_shuffle_i64x2::<0b10_00_10_00>(ab, cd));
        let odd = vouched!(_mm512_shuffle_i64x2::<0b11_01_11_01>(ab, cd));
        [self.xor(even, odd), self.zero(), self.zero(), self.zero()]
    }
}
