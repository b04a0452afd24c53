//! 512-bit vectors: two rows, or sixteen words, each.

use super::{
    Verdict, headers,
    lanes::{FIRST_BE16, LAST_BE16, Lanes},
    total,
};
use crate::{Level, level::Kind};
use std::{arch::x86_64::*, ops::Deref};
use wire::checksum::Sum;

/// Proof that this CPU has AVX-512 F and BW: only a [`Level`] that has them makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    #[inline]
    pub(super) fn new(level: Level) -> Option<Self> {
        (level.kind() == Kind::Avx512).then_some(Self(()))
    }

    #[inline]
    pub(super) fn sum(self, bytes: &[u8]) -> Sum {
        // SAFETY: the token is the proof of AVX-512.
        unsafe { sum(self, bytes) }
    }

    pub(super) fn classify<F>(self, frames: &[F], verify: bool, verdicts: &mut Vec<Verdict>)
    where
        F: Deref<Target = [u8]>,
    {
        // SAFETY: the token is the proof of AVX-512.
        unsafe { classify(self, frames, verify, verdicts) }
    }

    /// The bytes of each 128 bits in the order that is given.
    #[inline(always)]
    fn shuffle(self, a: __m512i, order: [u8; 16]) -> __m512i {
        // SAFETY: an array of 16 bytes is as good as a vector of them.
        let order = unsafe { std::mem::transmute::<[u8; 16], __m128i>(order) };
        // SAFETY: the token is the proof of AVX-512.
        let order = unsafe { _mm512_broadcast_i32x4(order) };
        // SAFETY: as above.
        unsafe { _mm512_shuffle_epi8(a, order) }
    }

    /// Picks 64-bit lanes: 0 to 7 of `a`, 8 to 15 of `b`.
    #[inline(always)]
    fn pick(self, a: __m512i, picks: [u64; 8], b: __m512i) -> __m512i {
        // SAFETY: an array of 64 bytes is as good as a vector of them.
        let picks = unsafe { std::mem::transmute::<[u64; 8], __m512i>(picks) };
        // SAFETY: the token is the proof of AVX-512.
        unsafe { _mm512_permutex2var_epi64(a, picks, b) }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn sum(lanes: Avx512, bytes: &[u8]) -> Sum {
    total::sum(lanes, bytes)
}

#[target_feature(enable = "avx512f,avx512bw")]
fn classify<F>(lanes: Avx512, frames: &[F], verify: bool, verdicts: &mut Vec<Verdict>)
where
    F: Deref<Target = [u8]>,
{
    headers::classify(lanes, frames, verify, verdicts);
}

/// Methods that are one instruction on registers.
macro_rules! instructions {
    ($($name:ident($($argument:ident),+) = $intrinsic:ident $(::<$immediate:literal>)?;)+) => {
        $(#[inline(always)]
        fn $name(self, $($argument: __m512i),+) -> __m512i {
            // SAFETY: the token is the proof of AVX-512, and no memory is touched.
            unsafe { $intrinsic $(::<$immediate>)? ($($argument),+) }
        })+
    };
}

impl Lanes for Avx512 {
    type Vector = __m512i;
    const LANES: usize = 16;

    instructions! {
        and(a, b) = _mm512_and_si512;
        or(a, b) = _mm512_or_si512;
        xor(a, b) = _mm512_xor_si512;
        add(a, b) = _mm512_add_epi32;
        sub(a, b) = _mm512_sub_epi32;
        unpack_low32(a, b) = _mm512_unpacklo_epi32;
        unpack_high32(a, b) = _mm512_unpackhi_epi32;
        unpack_low64(a, b) = _mm512_unpacklo_epi64;
        unpack_high64(a, b) = _mm512_unpackhi_epi64;
        wide_add(a, b) = _mm512_add_epi64;
        wide_sub(a, b) = _mm512_sub_epi64;
        wide_high(a) = _mm512_srli_epi64::<32>;
        wide_raise(a) = _mm512_slli_epi64::<32>;
    }

    #[inline(always)]
    fn splat(self, word: u32) -> __m512i {
        // SAFETY: the token is the proof of AVX-512.
        unsafe { _mm512_set1_epi32(word.cast_signed()) }
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m512i {
        let first = &bytes[..64];
        // SAFETY: the slice has 64 bytes, and the load asks for no alignment.
        unsafe { _mm512_loadu_si512(first.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_words(self, words: &[u32]) -> __m512i {
        let first = &words[..16];
        // SAFETY: the slice has 64 bytes, and the load asks for no alignment.
        unsafe { _mm512_loadu_si512(first.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_row(self, rows: &[&[u8; 32]], index: usize) -> __m512i {
        // SAFETY: the array has 32 bytes, and the load asks for no alignment.
        let low = unsafe { _mm256_loadu_si256(rows[index].as_ptr().cast()) };
        // SAFETY: as above.
        let high = unsafe { _mm256_loadu_si256(rows[index + 8].as_ptr().cast()) };
        // SAFETY: the token is the proof of AVX-512.
        let low = unsafe { _mm512_castsi256_si512(low) };
        // SAFETY: as above.
        unsafe { _mm512_inserti64x4::<1>(low, high) }
    }

    #[inline(always)]
    fn tail(self, bytes: &[u8]) -> __m512i {
        let rest = &bytes[bytes.len() - bytes.len() % 64..];
        let mask = (1u64 << rest.len()) - 1;
        // SAFETY: only bytes under the mask are read, and those are the slice's.
        unsafe { _mm512_maskz_loadu_epi8(mask, rest.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, vector: __m512i, words: &mut [u32]) {
        let first = &mut words[..16];
        // SAFETY: the slice has 64 bytes, and the store asks for no alignment.
        unsafe { _mm512_storeu_si512(first.as_mut_ptr().cast(), vector) }
    }

    #[inline(always)]
    fn shift_right<const BITS: u32>(self, a: __m512i) -> __m512i {
        // SAFETY: the token is the proof of AVX-512.
        unsafe { _mm512_srli_epi32::<BITS>(a) }
    }

    #[inline(always)]
    fn shift_left<const BITS: u32>(self, a: __m512i) -> __m512i {
        // SAFETY: the token is the proof of AVX-512.
        unsafe { _mm512_slli_epi32::<BITS>(a) }
    }

    #[inline(always)]
    fn first_be16(self, a: __m512i) -> __m512i {
        self.shuffle(a, FIRST_BE16)
    }

    #[inline(always)]
    fn last_be16(self, a: __m512i) -> __m512i {
        self.shuffle(a, LAST_BE16)
    }

    #[inline(always)]
    fn zero_lanes(self, a: __m512i) -> u64 {
        // SAFETY: the token is the proof of AVX-512.
        u64::from(unsafe { _mm512_testn_epi32_mask(a, a) })
    }

    #[inline(always)]
    fn unpack_low128(self, a: __m512i, b: __m512i) -> __m512i {
        self.pick(a, [0, 1, 8, 9, 4, 5, 12, 13], b)
    }

    #[inline(always)]
    fn unpack_high128(self, a: __m512i, b: __m512i) -> __m512i {
        self.pick(a, [2, 3, 10, 11, 6, 7, 14, 15], b)
    }

    #[inline(always)]
    fn wide_total(self, a: __m512i) -> u64 {
        // SAFETY: the token is the proof of AVX-512.
        unsafe { _mm512_reduce_add_epi64(a) }.cast_unsigned()
    }
}
