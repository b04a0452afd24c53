//! Two lanes: AVX2, VAES, VPCLMULQDQ.

use super::{
    aesni::{AesNi, vouched},
    lanes::{Lanes, QUAD},
};
use std::arch::x86_64::*;

/// Proof of AVX2, VAES and VPCLMULQDQ, and of what [`AesNi`] proves.
#[derive(Clone, Copy)]
pub(super) struct Avx2(AesNi);

impl Avx2 {
    #[inline]
    #[target_feature(enable = "avx2,vaes,vpclmulqdq,aes,pclmulqdq")]
    pub(super) fn token() -> Self {
        Self(AesNi::token())
    }

    #[inline(always)]
    fn join(self, low: __m128i, high: __m128i) -> __m256i {
        vouched!(_mm256_set_m128i(high, low))
    }

    #[inline(always)]
    fn low(self, vector: __m256i) -> __m128i {
        vouched!(_mm256_castsi256_si128(vector))
    }

    #[inline(always)]
    fn high(self, vector: __m256i) -> __m128i {
        vouched!(_mm256_extracti128_si256::<1>(vector))
    }

    /// The sum of the lanes of `a`, the sum of the lanes of `b`.
    #[inline(always)]
    fn fold_pair(self, a: __m256i, b: __m256i) -> __m256i {
        let low = vouched!(_mm256_permute2x128_si256::<0x20>(a, b));
        let high = vouched!(_mm256_permute2x128_si256::<0x31>(a, b));
        self.xor(low, high)
    }
}

/// Loaded at 32 - n: a mask of n bytes.
static KEEP: [u8; 64] = {
    let mut keep = [0; 64];
    let mut i = 0;
    while i < 32 {
        keep[i] = 0xff;
        i += 1;
    }
    keep
};

impl Lanes for Avx2 {
    type V = __m256i;
    const LANES: usize = 2;
    const KARATSUBA: bool = true;

    #[inline(always)]
    fn zero(self) -> __m256i {
        vouched!(_mm256_setzero_si256())
    }

    #[inline(always)]
    fn splat(self, block: __m128i) -> __m256i {
        vouched!(_mm256_broadcastsi128_si256(block))
    }

    #[inline(always)]
    fn lanes(self, blocks: [__m128i; QUAD]) -> __m256i {
        self.join(blocks[0], blocks[1])
    }

    #[inline(always)]
    fn blocks(self, vector: __m256i) -> [__m128i; QUAD] {
        [self.low(vector), self.high(vector), self.0.zero(), self.0.zero()]
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m256i {
        assert!(bytes.len() >= 32);
        vouched!(_mm256_loadu_si256(bytes.as_ptr().cast()))
    }

    #[inline(always)]
    fn load_blocks(self, blocks: &[u128]) -> __m256i {
        assert!(blocks.len() >= 2);
        vouched!(_mm256_loadu_si256(blocks.as_ptr().cast()))
    }

    #[inline(always)]
    fn store(self, bytes: &mut [u8], vector: __m256i) {
        assert!(bytes.len() >= 32);
        vouched!(_mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector))
    }

    #[inline(always)]
    fn load_part(self, bytes: &[u8], at: usize, end: usize) -> __m256i {
        let half = at + 16;
        match end > half {
            true => self.join(self.0.load(&bytes[at..]), self.0.load_part(bytes, half, end)),
            false => self.join(self.0.load_part(bytes, at, end), self.0.zero()),
        }
    }

    #[inline(always)]
    fn store_part(self, bytes: &mut [u8], at: usize, end: usize, vector: __m256i) {
        let half = at + 16;
        if end <= half {
            return self.0.store_part(bytes, at, end, self.low(vector));
        }
        self.0.store(&mut bytes[at..], self.low(vector));
        self.0.store_part(bytes, half, end, self.high(vector));
    }

    #[inline(always)]
    fn keep(self, vector: __m256i, bytes: usize) -> __m256i {
        vouched!(_mm256_and_si256(vector, self.load(&KEEP[32 - bytes..])))
    }

    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        vouched!(_mm256_xor_si256(a, b))
    }

    #[inline(always)]
    fn aes(self, state: __m256i, key: __m256i) -> __m256i {
        vouched!(_mm256_aesenc_epi128(state, key))
    }

    #[inline(always)]
    fn aes_last(self, state: __m256i, key: __m256i) -> __m256i {
        vouched!(_mm256_aesenclast_epi128(state, key))
    }

    #[inline(always)]
    fn clmul<const HALVES: i32>(self, a: __m256i, b: __m256i) -> __m256i {
        vouched!(_mm256_clmulepi64_epi128::<HALVES>(a, b))
    }

    #[inline(always)]
    fn swap_bytes(self, vector: __m256i) -> __m256i {
        let order = self.splat(super::aesni::block(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f));
        vouched!(_mm256_shuffle_epi8(vector, order))
    }

    #[inline(always)]
    fn swap_halves(self, vector: __m256i) -> __m256i {
        vouched!(_mm256_shuffle_epi32::<0x4e>(vector))
    }

    #[inline(always)]
    fn fold(self, vector: __m256i) -> __m256i {
        self.join(self.0.xor(self.low(vector), self.high(vector)), self.0.zero())
    }

    #[inline(always)]
    fn fold_quad(self, [a, b, c, d]: [__m256i; QUAD]) -> [__m256i; QUAD] {
        [self.fold_pair(a, b), self.fold_pair(c, d), self.zero(), self.zero()]
    }
}
