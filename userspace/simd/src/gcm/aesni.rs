//! One lane: AES-NI, PCLMULQDQ, SSSE3, SSE4.1.

use super::lanes::{Lanes, QUAD};
use std::arch::x86_64::*;

/// Proof of AES-NI, PCLMULQDQ, SSSE3 and SSE4.1.
#[derive(Clone, Copy)]
pub(super) struct AesNi(());

impl AesNi {
    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    pub(super) fn token() -> Self {
        Self(())
    }
}

/// Loaded at 16 - n: a mask of n bytes.
static KEEP: [u8; 32] = {
    let mut keep = [0; 32];
    let mut i = 0;
    while i < 16 {
        keep[i] = 0xff;
        i += 1;
    }
    keep
};

/// Loaded at n: a shuffle that moves everything n bytes down and zeros in behind.
static DOWN: [u8; 32] = {
    let mut down = [0x80; 32];
    let mut i = 0;
    while i < 16 {
        down[i] = i as u8;
        i += 1;
    }
    down
};

#[inline(always)]
fn load(bytes: &[u8], at: usize) -> __m128i {
    assert!(bytes.len() >= 16 && at <= bytes.len() - 16);
    // SAFETY: sixteen bytes from `at` are inside of the slice; the instruction is in every x86-64.
    unsafe { _mm_loadu_si128(bytes.as_ptr().wrapping_add(at).cast()) }
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut word = [0; N];
    word.copy_from_slice(&bytes[at..at + N]);
    word
}

/// Up to 15 bytes as a number, by loads that overlap: a copy to the stack would make the vector's load wait.
#[inline(always)]
fn short(bytes: &[u8]) -> u128 {
    let n = bytes.len();
    match n {
        8.. => {
            let high = u64::from_le_bytes(word(bytes, n - 8));
            u128::from(u64::from_le_bytes(word(bytes, 0))) | u128::from(high) << (8 * (n - 8))
        }
        4.. => {
            let high = u64::from(u32::from_le_bytes(word(bytes, n - 4)));
            u128::from(u64::from(u32::from_le_bytes(word(bytes, 0))) | high << (8 * (n - 4)))
        }
        1.. => {
            let middle = u32::from(bytes[n / 2]) << (8 * (n / 2));
            u128::from(u32::from(bytes[0]) | middle | u32::from(bytes[n - 1]) << (8 * (n - 1)))
        }
        0 => 0,
    }
}

/// The reverse of [`short`].
#[inline(always)]
fn store_short(bytes: &mut [u8], block: u128) {
    let n = bytes.len();
    match n {
        8.. => {
            bytes[..8].copy_from_slice(&(block as u64).to_le_bytes());
            bytes[n - 8..].copy_from_slice(&((block >> (8 * (n - 8))) as u64).to_le_bytes());
        }
        4.. => {
            let block = block as u64;
            bytes[..4].copy_from_slice(&(block as u32).to_le_bytes());
            bytes[n - 4..].copy_from_slice(&((block >> (8 * (n - 4))) as u32).to_le_bytes());
        }
        1.. => {
            bytes[n / 2] = (block >> (8 * (n / 2))) as u8;
            bytes[0] = block as u8;
            bytes[n - 1] = (block >> (8 * (n - 1))) as u8;
        }
        0 => {}
    }
}

/// A block as two 64-bit numbers.
#[inline(always)]
pub(super) fn block(high: u64, low: u64) -> __m128i {
    // SAFETY: the instruction is in every x86-64.
    unsafe { _mm_set_epi64x(high.cast_signed(), low.cast_signed()) }
}

/// A block as a number.
#[inline(always)]
pub(super) fn number(block: __m128i) -> u128 {
    // SAFETY: both are sixteen bytes in which every pattern is a value.
    unsafe { std::mem::transmute(block) }
}

/// A number as a block.
#[inline(always)]
pub(super) fn from_number(number: u128) -> __m128i {
    // SAFETY: both are sixteen bytes in which every pattern is a value.
    unsafe { std::mem::transmute(number) }
}

/// One instruction that the token vouches for.
macro_rules! vouched {
    ($instruction:expr) => {{
        // SAFETY: the token that the method hangs on exists only where the CPU has the instruction.
        unsafe { $instruction }
    }};
}
pub(super) use vouched;

impl Lanes for AesNi {
    type V = __m128i;
    const LANES: usize = 1;
    const KARATSUBA: bool = true;

    #[inline(always)]
    fn zero(self) -> __m128i {
        vouched!(_mm_setzero_si128())
    }

    #[inline(always)]
    fn splat(self, block: __m128i) -> __m128i {
        block
    }

    #[inline(always)]
    fn lanes(self, blocks: [__m128i; QUAD]) -> __m128i {
        blocks[0]
    }

    #[inline(always)]
    fn blocks(self, vector: __m128i) -> [__m128i; QUAD] {
        [vector, self.zero(), self.zero(), self.zero()]
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m128i {
        load(bytes, 0)
    }

    #[inline(always)]
    fn load_blocks(self, blocks: &[u128]) -> __m128i {
        from_number(blocks[0])
    }

    #[inline(always)]
    fn store(self, bytes: &mut [u8], vector: __m128i) {
        assert!(bytes.len() >= 16);
        // SAFETY: sixteen bytes are inside of the slice; the instruction is in every x86-64.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), vector) }
    }

    #[inline(always)]
    fn load_part(self, bytes: &[u8], at: usize, end: usize) -> __m128i {
        if bytes.len() - at >= 16 {
            return self.keep(load(bytes, at), end - at);
        }
        if end >= 16 {
            return vouched!(_mm_shuffle_epi8(load(bytes, end - 16), load(&DOWN, 16 - (end - at))));
        }
        from_number(short(&bytes[at..end]))
    }

    #[inline(always)]
    fn store_part(self, bytes: &mut [u8], at: usize, end: usize, vector: __m128i) {
        match bytes.len() - at >= 16 {
            true => self.store(&mut bytes[at..], vector),
            false => store_short(&mut bytes[at..end], number(vector)),
        }
    }

    #[inline(always)]
    fn keep(self, vector: __m128i, bytes: usize) -> __m128i {
        vouched!(_mm_and_si128(vector, load(&KEEP, 16 - bytes)))
    }

    #[inline(always)]
    fn xor(self, a: __m128i, b: __m128i) -> __m128i {
        vouched!(_mm_xor_si128(a, b))
    }

    #[inline(always)]
    fn aes(self, state: __m128i, key: __m128i) -> __m128i {
        vouched!(_mm_aesenc_si128(state, key))
    }

    #[inline(always)]
    fn aes_last(self, state: __m128i, key: __m128i) -> __m128i {
        vouched!(_mm_aesenclast_si128(state, key))
    }

    #[inline(always)]
    fn clmul<const HALVES: i32>(self, a: __m128i, b: __m128i) -> __m128i {
        vouched!(_mm_clmulepi64_si128::<HALVES>(a, b))
    }

    #[inline(always)]
    fn swap_bytes(self, vector: __m128i) -> __m128i {
        vouched!(_mm_shuffle_epi8(vector, block(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f)))
    }

    #[inline(always)]
    fn swap_halves(self, vector: __m128i) -> __m128i {
        vouched!(_mm_shuffle_epi32::<0x4e>(vector))
    }

    #[inline(always)]
    fn fold(self, vector: __m128i) -> __m128i {
        vector
    }

    #[inline(always)]
    fn fold_quad(self, vectors: [__m128i; QUAD]) -> [__m128i; QUAD] {
        vectors
    }
}
