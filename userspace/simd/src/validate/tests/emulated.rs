//! A vector unit of arrays: every instruction as the manuals' pseudo-code has it, for 8 and for 16 words.

use super::super::lanes::Lanes;
use std::array;

/// `WORDS` is 8 (as AVX2) or 16 (as AVX-512).
#[derive(Clone, Copy)]
pub(super) struct Emulated<const WORDS: usize>;

impl<const WORDS: usize> Emulated<WORDS> {
    fn each(a: [u32; WORDS], b: [u32; WORDS], operation: impl Fn(u32, u32) -> u32) -> [u32; WORDS] {
        array::from_fn(|word| operation(a[word], b[word]))
    }

    /// `operation` on 64-bit lanes, the first word the lower half.
    fn wide(a: [u32; WORDS], b: [u32; WORDS], operation: impl Fn(u64, u64) -> u64) -> [u32; WORDS] {
        let lane = |v: [u32; WORDS], word: usize| u64::from(v[word & !1]) | u64::from(v[word | 1]) << 32;
        array::from_fn(|word| (operation(lane(a, word), lane(b, word)) >> (32 * (word % 2))) as u32)
    }

    /// In each run of `run` words, word `w` is word `picks[w].1` of `a` (`false`) or `b` (`true`).
    fn pick(a: [u32; WORDS], b: [u32; WORDS], picks: &[(bool, usize)]) -> [u32; WORDS] {
        array::from_fn(|word| {
            let (from_b, index) = picks[word % picks.len()];
            let from = if from_b { b } else { a };
            from[word / picks.len() * picks.len() + index]
        })
    }
}

const A: bool = false;
const B: bool = true;

impl<const WORDS: usize> Lanes for Emulated<WORDS> {
    type Vector = [u32; WORDS];
    const LANES: usize = WORDS;

    fn splat(self, word: u32) -> Self::Vector {
        [word; WORDS]
    }

    fn load(self, bytes: &[u8]) -> Self::Vector {
        let (words, _) = bytes[..4 * WORDS].as_chunks::<4>();
        array::from_fn(|word| u32::from_le_bytes(words[word]))
    }

    fn load_words(self, words: &[u32]) -> Self::Vector {
        array::from_fn(|word| words[word])
    }

    fn load_row(self, rows: &[&[u8; 32]], index: usize) -> Self::Vector {
        assert_eq!(rows.len(), WORDS);
        array::from_fn(|word| {
            let (words, _) = rows[index + word / 8 * 8].as_chunks::<4>();
            u32::from_le_bytes(words[word % 8])
        })
    }

    fn tail(self, bytes: &[u8]) -> Self::Vector {
        let rest = bytes.chunks_exact(4 * WORDS).remainder();
        assert!(!rest.is_empty());
        let mut padded = [0; 64];
        padded[..rest.len()].copy_from_slice(rest);
        self.load(&padded)
    }

    fn store(self, vector: Self::Vector, words: &mut [u32]) {
        words[..WORDS].copy_from_slice(&vector);
    }

    fn and(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::each(a, b, |a, b| a & b)
    }

    fn or(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::each(a, b, |a, b| a | b)
    }

    fn xor(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::each(a, b, |a, b| a ^ b)
    }

    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::each(a, b, u32::wrapping_add)
    }

    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::each(a, b, u32::wrapping_sub)
    }

    fn shift_right<const BITS: u32>(self, a: Self::Vector) -> Self::Vector {
        a.map(|word| word >> BITS)
    }

    fn shift_left<const BITS: u32>(self, a: Self::Vector) -> Self::Vector {
        a.map(|word| word << BITS)
    }

    fn first_be16(self, a: Self::Vector) -> Self::Vector {
        a.map(|word| u32::from((word as u16).swap_bytes()))
    }

    fn last_be16(self, a: Self::Vector) -> Self::Vector {
        a.map(|word| u32::from(((word >> 16) as u16).swap_bytes()))
    }

    fn zero_lanes(self, a: Self::Vector) -> u64 {
        (0..WORDS).map(|word| u64::from(a[word] == 0) << word).sum()
    }

    fn unpack_low32(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::pick(a, b, &[(A, 0), (B, 0), (A, 1), (B, 1)])
    }

    fn unpack_high32(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::pick(a, b, &[(A, 2), (B, 2), (A, 3), (B, 3)])
    }

    fn unpack_low64(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::pick(a, b, &[(A, 0), (A, 1), (B, 0), (B, 1)])
    }

    fn unpack_high64(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::pick(a, b, &[(A, 2), (A, 3), (B, 2), (B, 3)])
    }

    fn unpack_low128(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::pick(a, b, &[(A, 0), (A, 1), (A, 2), (A, 3), (B, 0), (B, 1), (B, 2), (B, 3)])
    }

    fn unpack_high128(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::pick(a, b, &[(A, 4), (A, 5), (A, 6), (A, 7), (B, 4), (B, 5), (B, 6), (B, 7)])
    }

    fn wide_add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::wide(a, b, u64::wrapping_add)
    }

    fn wide_sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        Self::wide(a, b, u64::wrapping_sub)
    }

    fn wide_high(self, a: Self::Vector) -> Self::Vector {
        Self::wide(a, a, |a, _| a >> 32)
    }

    fn wide_raise(self, a: Self::Vector) -> Self::Vector {
        Self::wide(a, a, |a, _| a << 32)
    }

    fn wide_total(self, a: Self::Vector) -> u64 {
        let (lanes, _) = a.as_chunks::<2>();
        lanes
            .iter()
            .fold(0, |sum, &[low, high]| u64::wrapping_add(sum, u64::from(low) | u64::from(high) << 32))
    }
}
