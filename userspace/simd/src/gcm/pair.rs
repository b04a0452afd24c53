//! Two vectors as one of twice the lanes: the algorithm of the wide levels on a CPU that is narrow. For tests only.

use super::lanes::{Lanes, QUAD};
use std::arch::x86_64::__m128i;

#[derive(Clone, Copy)]
pub(super) struct Pair<I>(pub(super) I);

impl<I: Lanes> Pair<I> {
    #[inline(always)]
    fn map(self, [a, b]: [I::V; 2], f: impl Fn(I::V) -> I::V) -> [I::V; 2] {
        [f(a), f(b)]
    }

    #[inline(always)]
    fn zip(self, [a, b]: [I::V; 2], [c, d]: [I::V; 2], f: impl Fn(I::V, I::V) -> I::V) -> [I::V; 2] {
        [f(a, c), f(b, d)]
    }
}

impl<I: Lanes> Lanes for Pair<I> {
    type V = [I::V; 2];
    const LANES: usize = 2 * I::LANES;
    const KARATSUBA: bool = I::LANES == 1;

    #[inline(always)]
    fn zero(self) -> Self::V {
        [self.0.zero(); 2]
    }

    #[inline(always)]
    fn splat(self, block: __m128i) -> Self::V {
        [self.0.splat(block); 2]
    }

    #[inline(always)]
    fn lanes(self, blocks: [__m128i; QUAD]) -> Self::V {
        let mut high = blocks;
        high.rotate_left(I::LANES);
        [self.0.lanes(blocks), self.0.lanes(high)]
    }

    #[inline(always)]
    fn blocks(self, [a, b]: Self::V) -> [__m128i; QUAD] {
        let mut blocks = self.0.blocks(a);
        blocks[I::LANES..Self::LANES].copy_from_slice(&self.0.blocks(b)[..I::LANES]);
        blocks
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> Self::V {
        [self.0.load(bytes), self.0.load(&bytes[I::WIDTH..])]
    }

    #[inline(always)]
    fn load_blocks(self, blocks: &[u128]) -> Self::V {
        [self.0.load_blocks(blocks), self.0.load_blocks(&blocks[I::LANES..])]
    }

    #[inline(always)]
    fn store(self, bytes: &mut [u8], [a, b]: Self::V) {
        self.0.store(bytes, a);
        self.0.store(&mut bytes[I::WIDTH..], b);
    }

    #[inline(always)]
    fn load_part(self, bytes: &[u8], at: usize, end: usize) -> Self::V {
        let half = at + I::WIDTH;
        match end > half {
            true => [self.0.load(&bytes[at..]), self.0.load_part(bytes, half, end)],
            false => [self.0.load_part(bytes, at, end), self.0.zero()],
        }
    }

    #[inline(always)]
    fn store_part(self, bytes: &mut [u8], at: usize, end: usize, [a, b]: Self::V) {
        let half = at + I::WIDTH;
        if end <= half {
            return self.0.store_part(bytes, at, end, a);
        }
        self.0.store(&mut bytes[at..], a);
        self.0.store_part(bytes, half, end, b);
    }

    #[inline(always)]
    fn keep(self, [a, b]: Self::V, bytes: usize) -> Self::V {
        match bytes > I::WIDTH {
            true => [a, self.0.keep(b, bytes - I::WIDTH)],
            false => [self.0.keep(a, bytes), self.0.zero()],
        }
    }

    #[inline(always)]
    fn xor(self, a: Self::V, b: Self::V) -> Self::V {
        self.zip(a, b, |a, b| self.0.xor(a, b))
    }

    #[inline(always)]
    fn aes(self, state: Self::V, key: Self::V) -> Self::V {
        self.zip(state, key, |a, b| self.0.aes(a, b))
    }

    #[inline(always)]
    fn aes_last(self, state: Self::V, key: Self::V) -> Self::V {
        self.zip(state, key, |a, b| self.0.aes_last(a, b))
    }

    #[inline(always)]
    fn clmul<const HALVES: i32>(self, a: Self::V, b: Self::V) -> Self::V {
        self.zip(a, b, |a, b| self.0.clmul::<HALVES>(a, b))
    }

    #[inline(always)]
    fn swap_bytes(self, vector: Self::V) -> Self::V {
        self.map(vector, |a| self.0.swap_bytes(a))
    }

    #[inline(always)]
    fn swap_halves(self, vector: Self::V) -> Self::V {
        self.map(vector, |a| self.0.swap_halves(a))
    }

    #[inline(always)]
    fn fold(self, [a, b]: Self::V) -> Self::V {
        [self.0.fold(self.0.xor(a, b)), self.0.zero()]
    }

    #[inline(always)]
    fn fold_quad(self, vectors: [Self::V; QUAD]) -> [Self::V; QUAD] {
        let sums = self.0.fold_quad(vectors.map(|[a, b]| self.0.xor(a, b)));
        let zero = self.0.zero();
        match I::LANES {
            1 => [[sums[0], sums[1]], [sums[2], sums[3]], [zero; 2], [zero; 2]],
            _ => [[sums[0], sums[1]], [zero; 2], [zero; 2], [zero; 2]],
        }
    }
}
