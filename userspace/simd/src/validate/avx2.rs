//! 256-bit vectors: one row, or eight words, each.

use super::{
    Verdict, headers,
    lanes::{FIRST_BE16, IN_ORDER, LAST_BE16, Lanes, SWAPPED},
    total,
};
use crate::{Level, level::Kind};
use std::{arch::x86_64::*, ops::Deref};
use wire::checksum::Sum;

/// Proof that this CPU has AVX2: only a [`Level`] that has it makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// 32 zeros and 32 ones: from `n` on it keeps the last `n` bytes of a vector.
static KEEP: [u8; 64] = {
    let mut mask = [0; 64];
    let mut index = 32;
    while index < 64 {
        mask[index] = 0xff;
        index += 1;
    }
    mask
};

impl Avx2 {
    #[inline]
    pub(super) fn new(level: Level) -> Option<Self> {
        (level.kind() == Kind::Avx2).then_some(Self(()))
    }

    #[inline]
    pub(super) fn sum(self, bytes: &[u8]) -> Sum {
        // SAFETY: the token is the proof of AVX2.
        unsafe { sum(self, bytes) }
    }

    pub(super) fn classify<F>(self, frames: &[F], verify: bool, verdicts: &mut Vec<Verdict>)
    where
        F: Deref<Target = [u8]>,
    {
        // SAFETY: the token is the proof of AVX2.
        unsafe { classify(self, frames, verify, verdicts) }
    }

    /// The bytes of each half in the order that is given.
    #[inline(always)]
    fn shuffle(self, a: __m256i, order: [u8; 16]) -> __m256i {
        // SAFETY: an array of 16 bytes is as good as a vector of them.
        let order = unsafe { std::mem::transmute::<[u8; 16], __m128i>(order) };
        // SAFETY: the token is the proof of AVX2.
        let order = unsafe { _mm256_broadcastsi128_si256(order) };
        // SAFETY: as above.
        unsafe { _mm256_shuffle_epi8(a, order) }
    }
}

#[target_feature(enable = "avx2")]
fn sum(lanes: Avx2, bytes: &[u8]) -> Sum {
    total::sum(lanes, bytes)
}

#[target_feature(enable = "avx2")]
fn classify<F>(lanes: Avx2, frames: &[F], verify: bool, verdicts: &mut Vec<Verdict>)
where
    F: Deref<Target = [u8]>,
{
    headers::classify(lanes, frames, verify, verdicts);
}

/// Methods that are one instruction on registers.
macro_rules! instructions {
    ($($name:ident($($argument:ident),+) = $intrinsic:ident $(::<$immediate:literal>)?;)+) => {
        $(#[inline(always)]
        fn $name(self, $($argument: __m256i),+) -> __m256i {
            // SAFETY: the token is the proof of AVX2, and no memory is touched.
            unsafe { $intrinsic $(::<$immediate>)? ($($argument),+) }
        })+
    };
}

impl Lanes for Avx2 {
    type Vector = __m256i;
    const LANES: usize = 8;

    instructions! {
        and(a, b) = _mm256_and_si256;
        or(a, b) = _mm256_or_si256;
        xor(a, b) = _mm256_xor_si256;
        add(a, b) = _mm256_add_epi32;
        sub(a, b) = _mm256_sub_epi32;
        unpack_low32(a, b) = _mm256_unpacklo_epi32;
        unpack_high32(a, b) = _mm256_unpackhi_epi32;
        unpack_low64(a, b) = _mm256_unpacklo_epi64;
        unpack_high64(a, b) = _mm256_unpackhi_epi64;
        unpack_low128(a, b) = _mm256_permute2x128_si256::<0x20>;
        unpack_high128(a, b) = _mm256_permute2x128_si256::<0x31>;
        wide_add(a, b) = _mm256_add_epi64;
        wide_sub(a, b) = _mm256_sub_epi64;
        wide_high(a) = _mm256_srli_epi64::<32>;
        wide_raise(a) = _mm256_slli_epi64::<32>;
    }

    #[inline(always)]
    fn splat(self, word: u32) -> __m256i {
        // SAFETY: the token is the proof of AVX2.
        unsafe { _mm256_set1_epi32(word.cast_signed()) }
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m256i {
        let first = &bytes[..32];
        // SAFETY: the slice has 32 bytes, and the load asks for no alignment.
        unsafe { _mm256_loadu_si256(first.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_words(self, words: &[u32]) -> __m256i {
        let first = &words[..8];
        // SAFETY: the slice has 32 bytes, and the load asks for no alignment.
        unsafe { _mm256_loadu_si256(first.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_row(self, rows: &[&[u8; 32]], index: usize) -> __m256i {
        self.load(rows[index])
    }

    #[inline(always)]
    fn tail(self, bytes: &[u8]) -> __m256i {
        let last = self.load(&bytes[bytes.len() - 32..]);
        let kept = self.and(last, self.load(&KEEP[bytes.len() % 32..]));
        // The vector ends where `bytes` does, so of an odd number of bytes it begins in the middle of a word.
        let order = if bytes.len().is_multiple_of(2) { IN_ORDER } else { SWAPPED };
        self.shuffle(kept, order)
    }

    #[inline(always)]
    fn store(self, vector: __m256i, words: &mut [u32]) {
        let first = &mut words[..8];
        // SAFETY: the slice has 32 bytes, and the store asks for no alignment.
        unsafe { _mm256_storeu_si256(first.as_mut_ptr().cast(), vector) }
    }

    #[inline(always)]
    fn shift_right<const BITS: u32>(self, a: __m256i) -> __m256i {
        // SAFETY: the token is the proof of AVX2; a shift by a vector is what takes a generic constant.
        unsafe { _mm256_srlv_epi32(a, self.splat(BITS)) }
    }

    #[inline(always)]
    fn shift_left<const BITS: u32>(self, a: __m256i) -> __m256i {
        // SAFETY: as in `shift_right`.
        unsafe { _mm256_sllv_epi32(a, self.splat(BITS)) }
    }

    #[inline(always)]
    fn first_be16(self, a: __m256i) -> __m256i {
        self.shuffle(a, FIRST_BE16)
    }

    #[inline(always)]
    fn last_be16(self, a: __m256i) -> __m256i {
        self.shuffle(a, LAST_BE16)
    }

    #[inline(always)]
    fn zero_lanes(self, a: __m256i) -> u64 {
        // SAFETY: the token is the proof of AVX2.
        let equal = unsafe { _mm256_cmpeq_epi32(a, self.splat(0)) };
        // SAFETY: as above.
        let equal = unsafe { _mm256_castsi256_ps(equal) };
        // SAFETY: as above.
        let bits = unsafe { _mm256_movemask_ps(equal) };
        u64::from(bits.cast_unsigned())
    }

    #[inline(always)]
    fn wide_total(self, a: __m256i) -> u64 {
        // SAFETY: the token is the proof of AVX2.
        let high = unsafe { _mm256_extracti128_si256::<1>(a) };
        // SAFETY: as above.
        let low = unsafe { _mm256_castsi256_si128(a) };
        // SAFETY: as above.
        let pair = unsafe { _mm_add_epi64(low, high) };
        // SAFETY: as above.
        let second = unsafe { _mm_unpackhi_epi64(pair, pair) };
        // SAFETY: as above.
        let total = unsafe { _mm_add_epi64(pair, second) };
        // SAFETY: as above.
        unsafe { _mm_cvtsi128_si64(total) }.cast_unsigned()
    }
}
