//! GHASH (NIST SP 800-38D section 6.4): products that are summed up first and reduced later.
//!
//! Blocks are taken with their bytes reversed, and the powers of H are kept multiplied by x: then a carry-less product
//! of two is the field's product, bits reflected as GCM has them, without a shift.

use super::{aesni, lanes::Lanes};

/// The field's polynomial without its outer terms, reflected: x^63 + x^62 + x^57.
const POLYNOMIAL: u64 = 0xc200_0000_0000_0000;

/// A sum of products that aren't reduced: 256 bits a lane, in three overlapping parts.
#[derive(Clone, Copy)]
pub(super) struct Sum<V> {
    pub(super) low: V,
    pub(super) middle: V,
    pub(super) high: V,
}

impl<V: Copy> Sum<V> {
    #[inline(always)]
    pub(super) fn new<I: Lanes<V = V>>(isa: I) -> Self {
        Self { low: isa.zero(), middle: isa.zero(), high: isa.zero() }
    }

    /// Adds a product, lane by lane. `halves` is the power's two halves xored, in its low half.
    #[inline(always)]
    pub(super) fn add<I: Lanes<V = V>>(&mut self, isa: I, element: V, power: V, halves: V) {
        self.low = isa.xor(self.low, isa.clmul::<0x00>(element, power));
        self.high = isa.xor(self.high, isa.clmul::<0x11>(element, power));
        if I::KARATSUBA {
            let element = isa.xor(element, isa.swap_halves(element));
            self.middle = isa.xor(self.middle, isa.clmul::<0x00>(element, halves));
        } else {
            let cross = isa.xor(isa.clmul::<0x01>(element, power), isa.clmul::<0x10>(element, power));
            self.middle = isa.xor(self.middle, cross);
        }
    }

    /// The sum modulo the field's polynomial.
    #[inline(always)]
    pub(super) fn reduce<I: Lanes<V = V>>(self, isa: I) -> V {
        let Self { low, mut middle, high } = self;
        if I::KARATSUBA {
            middle = isa.xor(middle, isa.xor(low, high));
        }
        let polynomial = isa.splat(aesni::block(POLYNOMIAL, POLYNOMIAL));
        // Twice: the lowest 64 bits times the polynomial are as good, 64 bits higher.
        let fold = isa.clmul::<0x00>(low, polynomial);
        let middle = isa.xor(middle, isa.xor(isa.swap_halves(low), fold));
        let fold = isa.clmul::<0x00>(middle, polynomial);
        isa.xor(high, isa.xor(isa.swap_halves(middle), fold))
    }
}

/// The product of an element and a power that is multiplied by x.
#[inline(always)]
pub(super) fn multiply<I: Lanes>(isa: I, element: I::V, power: I::V) -> I::V {
    let mut sum = Sum::new(isa);
    sum.add(isa, element, power, isa.xor(power, isa.swap_halves(power)));
    sum.reduce(isa)
}

/// H, bytes reversed, times x.
pub(super) fn times_x(h: u128) -> u128 {
    let carry = (h >> 127).wrapping_neg();
    (h << 1) ^ (carry & ((u128::from(POLYNOMIAL) << 64) | 1))
}
