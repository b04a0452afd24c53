//! Poly1305 (RFC 8439 section 2.5) in the integer unit.
//!
//! The accumulator is two 64-bit limbs and a small third. It has no use for the vector unit, and that is its point: the
//! vector unit is full of ChaCha20, and a multiplier with its carries that runs beside it costs next to nothing. Nor
//! does it need powers of r, so a key costs nothing before its first block.

use super::engine::POLYS;
use std::cell::Cell;
use zeroize::Zeroize;

/// Bytes of a block.
pub(super) const POLY_BLOCK_BYTES: usize = 16;

/// One message's authenticator. A cache line. Its fields are cells because those who feed it hold a reference to it all
/// along: an index would be looked up for each piece.
///
/// Invariant: the accumulator is below 2^130 + 2^64, its third limb at most 4; r is clamped.
#[repr(align(64))]
pub(super) struct Poly {
    accumulator: Cell<[u64; 3]>,
    r: Cell<[u64; 2]>,
    /// 5/4 of r's upper limb, exact because clamping leaves it divisible by four: the upper limb's share of a product
    /// that wraps around 2^130 - 5.
    r1_wrapped: Cell<u64>,
    s: Cell<[u64; 2]>,
}

/// One for each packet of a group, and for nobody.
pub(super) type Polys = [Poly; POLYS];

impl Zeroize for Poly {
    fn zeroize(&mut self) {
        self.accumulator.get_mut().zeroize();
        self.r.get_mut().zeroize();
        self.r1_wrapped.get_mut().zeroize();
        self.s.get_mut().zeroize();
    }
}

impl Poly {
    pub(super) const fn new() -> Self {
        Self {
            accumulator: Cell::new([0; 3]),
            r: Cell::new([0; 2]),
            r1_wrapped: Cell::new(0),
            s: Cell::new([0; 2]),
        }
    }

    /// Starts with a one-time key: r, then s (RFC 8439 section 2.5).
    #[inline(always)]
    pub(super) fn start(&self, key: &[u8; 32]) {
        let ([r, s], []) = key.as_chunks::<POLY_BLOCK_BYTES>() else { unreachable!("two halves") };
        let r = u128::from_le_bytes(*r) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        let [r0, r1] = limbs(r);
        self.accumulator.set([0; 3]);
        self.r.set([r0, r1]);
        self.r1_wrapped.set(r1 + (r1 >> 2));
        self.s.set(limbs(u128::from_le_bytes(*s)));
    }

    /// One whole block.
    #[inline(always)]
    pub(super) fn single(&self, block: &[u8; POLY_BLOCK_BYTES]) {
        self.accumulator.set(self.step(self.accumulator.get(), u128::from_le_bytes(*block)));
    }

    /// Two whole blocks.
    #[inline(always)]
    pub(super) fn double(&self, blocks: &[u8; 2 * POLY_BLOCK_BYTES]) {
        let ([first, second], []) = blocks.as_chunks::<POLY_BLOCK_BYTES>() else {
            unreachable!("two blocks")
        };
        let accumulator = self.step(self.accumulator.get(), u128::from_le_bytes(*first));
        self.accumulator.set(self.step(accumulator, u128::from_le_bytes(*second)));
    }

    /// A piece of the AEAD's message (RFC 8439 section 2.8) from `start` on, a multiple of the block: its last block is
    /// padded with zeros.
    #[inline(always)]
    pub(super) fn padded(&self, bytes: &[u8], start: usize) {
        let (blocks, rest) = bytes[start..].as_chunks::<POLY_BLOCK_BYTES>();
        for block in blocks {
            self.single(block);
        }
        if !rest.is_empty() {
            self.accumulator.set(self.step(self.accumulator.get(), pad(bytes, rest.len())));
        }
    }

    /// The block of the two lengths in bytes, then the tag (RFC 8439 section 2.8).
    #[inline(always)]
    pub(super) fn finish(&self, header_bytes: usize, text_bytes: usize) -> [u8; POLY_BLOCK_BYTES] {
        let lengths = header_bytes as u128 | (text_bytes as u128) << 64;
        self.tag(self.step(self.accumulator.get(), lengths))
    }

    /// What the AEAD never needs, for the vectors of Poly1305 alone.
    #[cfg(test)]
    pub(super) fn tag_without_lengths(&self) -> [u8; POLY_BLOCK_BYTES] {
        self.tag(self.accumulator.get())
    }

    /// Adds a block with its bit 128 set and multiplies by r, modulo 2^130 - 5 (partially reduced).
    #[inline(always)]
    fn step(&self, [h0, h1, h2]: [u64; 3], block: u128) -> [u64; 3] {
        let [m0, m1] = limbs(block);
        let (h0, carry) = h0.overflowing_add(m0);
        let (h1, carry) = h1.carrying_add(m1, carry);
        let h2 = h2 + 1 + u64::from(carry);

        let ([r0, r1], r1_wrapped) = (self.r.get(), self.r1_wrapped.get());
        // No sum overflows: r's limbs are below 2^60, the third limb at most 6.
        let d0 = product(h0, r0) + product(h1, r1_wrapped);
        let d1 = product(h0, r1) + product(h1, r0) + u128::from(h2 * r1_wrapped) + (d0 >> 64);
        let d2 = h2 * r0 + (d1 >> 64) as u64;

        // What is above 2^130 comes back times five.
        let low = u128::from(d0 as u64) | d1 << 64;
        let (low, carry) = low.overflowing_add(u128::from(5 * (d2 >> 2)));
        let [h0, h1] = limbs(low);
        [h0, h1, (d2 & 3) + u64::from(carry)]
    }

    /// Reduces fully and adds s.
    #[inline(always)]
    fn tag(&self, [h0, h1, h2]: [u64; 3]) -> [u8; POLY_BLOCK_BYTES] {
        // h + 5 reaches 2^130 exactly if h isn't below 2^130 - 5, and then h + 5 - 2^130 is the remainder.
        let (g0, carry) = h0.overflowing_add(5);
        let (g1, carry) = h1.overflowing_add(u64::from(carry));
        let g2 = h2 + u64::from(carry);
        let reduced = (g2 >> 2 != 0) as u64;
        let keep = std::hint::black_box(reduced).wrapping_sub(1);
        let low = u128::from((h0 & keep) | (g0 & !keep));
        let high = u128::from((h1 & keep) | (g1 & !keep));
        let [s0, s1] = self.s.get().map(u128::from);
        (low | high << 64).wrapping_add(s0 | s1 << 64).to_le_bytes()
    }
}

#[inline(always)]
fn limbs(block: u128) -> [u64; 2] {
    [block as u64, (block >> 64) as u64]
}

#[inline(always)]
fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

/// The last `rest` bytes, fewer than a block, and zeros.
#[inline(always)]
fn pad(bytes: &[u8], rest: usize) -> u128 {
    match bytes.last_chunk::<POLY_BLOCK_BYTES>() {
        Some(last) => u128::from_le_bytes(*last) >> (8 * (POLY_BLOCK_BYTES - rest)),
        None => bytes.iter().rev().fold(0, |block, byte| block << 8 | u128::from(*byte)),
    }
}
