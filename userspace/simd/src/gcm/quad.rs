//! The fixed work of four packets at a time, one packet a lane: E_K(J0), the last product and reduction, the tags; and
//! the masks.
//!
//! The bulk of a packet isn't mixed with another's: out-of-order execution overlaps them by itself.

use super::{
    aesni::{AesNi, block, from_number, number},
    bulk::{bulk, counter},
    ghash::Sum,
    lanes::{Lanes, QUAD},
    state::{POWERS, PacketState, RoundKeys},
};
use crate::{MASK_BYTES, MaskJob, NONCE_BYTES, OpenJob, PacketKey, SealJob, TAG_BYTES, expanded};
use std::{arch::x86_64::__m128i, array, rc::Rc};

/// A part of four lanes as a vector. Not a function of a closure: one that isn't inlined would lack the instructions.
macro_rules! lanes {
    ($isa:ident, $lanes:ident, $part:ident, |$lane:ident| $block:expr) => {{
        let first = $part * $lanes::LANES;
        let blocks = [
            {
                let $lane = first;
                $block
            },
            {
                let $lane = first + 1 % $lanes::LANES;
                $block
            },
            {
                let $lane = first + 2 % $lanes::LANES;
                $block
            },
            {
                let $lane = first + 3 % $lanes::LANES;
                $block
            },
        ];
        $isa.lanes(blocks)
    }};
}

/// The expanded keys of up to four packets, held while they are worked with; the rest repeat the first.
type Held = [Rc<expanded::Packet>; QUAD];

#[inline(always)]
fn hold<'a>(first: &'a PacketKey, key: impl Fn(usize) -> Option<&'a PacketKey>) -> Held {
    let expanded = first.expanded();
    array::from_fn(|lane| match key(lane) {
        Some(key) if !std::ptr::eq(key, first) => key.expanded(),
        _ => expanded.clone(),
    })
}

/// Four packets, of which the last may be dummies: they repeat the first one's key, and nobody looks at them.
struct Quad<'a> {
    keys: [&'a PacketState; QUAD],
    /// Whether all four keys are one.
    same: bool,
    nonces: [__m128i; QUAD],
    /// The blocks of the lengths, bytes reversed (NIST SP 800-38D section 7.1, step 5).
    lengths: [__m128i; QUAD],
}

impl<'a> Quad<'a> {
    /// From keys, packet numbers, and the lengths of header and payload.
    #[inline(always)]
    fn new<'k>(
        held: &'a Held,
        first: &'k PacketKey,
        jobs: impl Iterator<Item = (&'k PacketKey, u64, usize, usize)>,
    ) -> Self {
        let mut quad = Self {
            keys: [first.gcm(&held[0]); QUAD],
            same: true,
            nonces: [block(0, 0); QUAD],
            lengths: [block(0, 0); QUAD],
        };
        for (lane, (key, packet_number, header, payload)) in jobs.take(QUAD).enumerate() {
            quad.same &= std::ptr::eq(key, first);
            quad.keys[lane] = key.gcm(&held[lane]);
            quad.nonces[lane] = nonce(key.nonce(packet_number));
            quad.lengths[lane] = block(8 * header as u64, 8 * payload as u64);
        }
        quad
    }

    /// E_K(J0), which blinds the tags.
    #[inline(always)]
    fn blinds<I: Lanes, const ROUNDS: usize>(&self, isa: I) -> [I::V; QUAD] {
        let one = isa.splat(counter(1));
        let mut blinds = [isa.zero(); QUAD];
        for (part, blind) in blinds[..QUAD / I::LANES].iter_mut().enumerate() {
            let mut state = isa.xor(lanes!(isa, I, part, |lane| self.nonces[lane]), one);
            if self.same {
                let keys = self.keys[0].keys();
                state = isa.xor(state, isa.splat(keys.block(0)));
                for round in 1..ROUNDS {
                    state = isa.aes(state, isa.splat(keys.block(round)));
                }
                *blind = isa.aes_last(state, isa.splat(keys.block(ROUNDS)));
            } else {
                state = isa.xor(state, lanes!(isa, I, part, |lane| self.keys[lane].keys().block(0)));
                for round in 1..ROUNDS {
                    state = isa.aes(state, lanes!(isa, I, part, |lane| self.keys[lane].keys().block(round)));
                }
                *blind =
                    isa.aes_last(state, lanes!(isa, I, part, |lane| self.keys[lane].keys().block(ROUNDS)));
            }
        }
        blinds
    }

    /// Adds the lengths, reduces, blinds.
    #[inline(always)]
    fn tags<I: Lanes>(&self, isa: I, sums: &[Sum<I::V>; QUAD], blinds: &[I::V; QUAD]) -> [__m128i; QUAD] {
        let low = isa.fold_quad(sums.map(|sum| sum.low));
        let middle = isa.fold_quad(sums.map(|sum| sum.middle));
        let high = isa.fold_quad(sums.map(|sum| sum.high));
        let mut tags = [block(0, 0); QUAD];
        for part in 0..QUAD / I::LANES {
            let mut sum = Sum { low: low[part], middle: middle[part], high: high[part] };
            let power = lanes!(isa, I, part, |lane| from_number(self.keys[lane].powers().0[POWERS - 1]));
            let halves = lanes!(isa, I, part, |lane| from_number(self.keys[lane].powers().1[POWERS - 1]));
            sum.add(isa, lanes!(isa, I, part, |lane| self.lengths[lane]), power, halves);
            let hash = isa.swap_bytes(sum.reduce(isa));
            let tag = isa.blocks(isa.xor(hash, blinds[part]));
            tags[part * I::LANES..][..I::LANES].copy_from_slice(&tag[..I::LANES]);
        }
        tags
    }
}

/// A nonce as a block whose counter is zero.
#[inline(always)]
fn nonce(nonce: [u8; NONCE_BYTES]) -> __m128i {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = nonce;
    block(u64::from(u32::from_le_bytes([i, j, k, l])), u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

/// Seals jobs whose cipher has so many rounds.
#[inline(always)]
pub(super) fn seal<I: Lanes, const ROUNDS: usize>(isa: I, jobs: &mut [SealJob<'_>]) {
    for jobs in jobs.chunks_mut(QUAD) {
        let mut sums = [Sum::new(isa); QUAD];
        let fixed =
            jobs.iter().map(|job| (job.key, job.packet_number, job.header.len(), job.plaintext.len()));
        let held = hold(jobs[0].key, |lane| jobs.get(lane).map(|job| job.key));
        let quad = Quad::new(&held, jobs[0].key, fixed);
        let blinds = quad.blinds::<I, ROUNDS>(isa);
        for (lane, job) in jobs.iter_mut().enumerate() {
            let texts = (job.plaintext, &mut *job.dst);
            let (key, nonce) = (quad.keys[lane], quad.nonces[lane]);
            sums[lane] = bulk::<I, ROUNDS, true>(isa, key, nonce, job.header, texts, job.plaintext.len());
        }
        let tags = quad.tags(isa, &sums, &blinds);
        for (tag, job) in tags.into_iter().zip(jobs) {
            job.dst[job.plaintext.len()..].copy_from_slice(&number(tag).to_le_bytes());
        }
    }
}

/// Opens jobs whose cipher has so many rounds.
#[inline(always)]
pub(super) fn open<I: Lanes, const ROUNDS: usize>(isa: I, jobs: &mut [OpenJob<'_>]) {
    for jobs in jobs.chunks_mut(QUAD) {
        let mut sums = [Sum::new(isa); QUAD];
        let fixed = jobs.iter().map(|job| (job.key, job.packet_number, job.header.len(), job.dst.len()));
        let held = hold(jobs[0].key, |lane| jobs.get(lane).map(|job| job.key));
        let quad = Quad::new(&held, jobs[0].key, fixed);
        let blinds = quad.blinds::<I, ROUNDS>(isa);
        for (lane, job) in jobs.iter_mut().enumerate() {
            let len = job.dst.len();
            let texts = (job.ciphertext, &mut *job.dst);
            let (key, nonce) = (quad.keys[lane], quad.nonces[lane]);
            sums[lane] = bulk::<I, ROUNDS, false>(isa, key, nonce, job.header, texts, len);
        }
        let tags = quad.tags(isa, &sums, &blinds);
        for (tag, job) in tags.into_iter().zip(jobs) {
            let mut seen = [0; TAG_BYTES];
            seen.copy_from_slice(&job.ciphertext[job.dst.len()..]);
            // All 128 bits at once: the time tells nothing but the verdict.
            job.authentic = number(tag) ^ u128::from_le_bytes(seen) == 0;
        }
    }
}

/// Masks that are made at once.
const MASKS: usize = 8;

/// Masks for keys whose cipher has so many rounds.
#[inline(always)]
pub(super) fn mask<I: Lanes, const ROUNDS: usize>(isa: I, narrow: AesNi, jobs: &mut [MaskJob<'_>]) {
    for jobs in jobs.chunks_mut(MASKS) {
        let first = jobs[0].key;
        let expanded = first.expanded();
        let mut samples = [block(0, 0); MASKS];
        let mut same = true;
        for (job, sample) in jobs.iter().zip(&mut samples) {
            same &= std::ptr::eq(job.key, first);
            *sample = from_number(u128::from_le_bytes(job.sample));
        }
        if same {
            encrypt_same::<I, ROUNDS>(isa, first.gcm(&expanded).keys(), &mut samples);
        } else {
            let held: [Rc<expanded::Header>; MASKS] =
                array::from_fn(|i| jobs.get(i).map_or_else(|| expanded.clone(), |job| job.key.expanded()));
            let keys = array::from_fn(|i| jobs.get(i).map_or(first, |job| job.key).gcm(&held[i]).keys());
            encrypt_each::<ROUNDS>(narrow, keys, &mut samples);
        }
        for (job, made) in jobs.iter_mut().zip(samples) {
            job.mask.copy_from_slice(&number(made).to_le_bytes()[..MASK_BYTES]);
        }
    }
}

#[inline(always)]
fn encrypt_same<I: Lanes, const ROUNDS: usize>(isa: I, keys: &RoundKeys, blocks: &mut [__m128i; MASKS]) {
    let first = isa.splat(keys.block(0));
    let mut state = [first; MASKS];
    let state = &mut state[..MASKS / I::LANES];
    for (vector, blocks) in state.iter_mut().zip(blocks.chunks_exact(I::LANES)) {
        let mut wide = [blocks[0]; QUAD];
        wide[..I::LANES].copy_from_slice(blocks);
        *vector = isa.xor(*vector, isa.lanes(wide));
    }
    for round in 1..ROUNDS {
        let key = isa.splat(keys.block(round));
        for vector in &mut *state {
            *vector = isa.aes(*vector, key);
        }
    }
    let last = isa.splat(keys.block(ROUNDS));
    for (vector, blocks) in state.iter().zip(blocks.chunks_exact_mut(I::LANES)) {
        blocks.copy_from_slice(&isa.blocks(isa.aes_last(*vector, last))[..I::LANES]);
    }
}

/// Block by block: the keys differ, and to gather round keys into one vector takes as many loads as it saves rounds.
#[inline(always)]
fn encrypt_each<const ROUNDS: usize>(isa: AesNi, keys: [&RoundKeys; MASKS], blocks: &mut [__m128i; MASKS]) {
    for (block, keys) in blocks.iter_mut().zip(keys) {
        *block = isa.xor(*block, keys.block(0));
    }
    for round in 1..ROUNDS {
        for (block, keys) in blocks.iter_mut().zip(keys) {
            *block = isa.aes(*block, keys.block(round));
        }
    }
    for (block, keys) in blocks.iter_mut().zip(keys) {
        *block = isa.aes_last(*block, keys.block(ROUNDS));
    }
}
