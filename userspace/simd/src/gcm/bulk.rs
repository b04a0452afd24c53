//! One packet's bulk: counter mode over its payload, and GHASH over header and ciphertext up to an unreduced sum.
//!
//! ```text
//!   payload   | step | step | step | .. | tail: 1 to 4 vectors |     a step is 4 vectors
//!   seal        AES s, GHASH s-1 between the rounds                  the ciphertext of s isn't there yet
//!   open        AES s, GHASH s   between the rounds
//!   sums      | header + 32 blocks | 32 blocks | .. | what is left + lengths |
//! ```
//!
//! Every sum but the last is reduced and goes into the first block of the next; the last one, and the product of the
//! lengths, are the caller's, for four packets at once.

use super::{
    aesni::block,
    ghash::{Sum, multiply},
    lanes::Lanes,
    state::{GROUP_BLOCKS, HEADER_BLOCKS, POWERS, PacketState},
};
use std::arch::x86_64::__m128i;

/// Vectors of a step.
const STEP: usize = 4;
/// Bytes of a block.
const BLOCK: usize = 16;

/// The counters of a group's blocks, less the group's own multiple of 32. The payload's first counter is 2.
#[repr(C, align(64))]
struct Counters([u128; GROUP_BLOCKS]);

static COUNTERS: Counters = {
    let mut counters = [0; GROUP_BLOCKS];
    let mut i = 0;
    while i < GROUP_BLOCKS {
        let counter = ((i + 2) % GROUP_BLOCKS) as u32;
        counters[i] = (counter.swap_bytes() as u128) << 96;
        i += 1;
    }
    Counters(counters)
};

/// A 32-bit counter in its place in a block.
#[inline(always)]
pub(super) fn counter(number: u32) -> __m128i {
    block(u64::from(number.swap_bytes()) << 32, 0)
}

/// What a group's counters are xored with: nonce, first round key, and the multiple of 32.
#[derive(Clone, Copy)]
struct Base<V> {
    /// The nonce and the first round key.
    nonce: V,
    now: V,
    /// The same for a step's last vector: a group's last two counters belong to the next multiple of 32.
    end: V,
}

impl<V: Copy> Base<V> {
    #[inline(always)]
    fn new<I: Lanes<V = V>>(isa: I, key: &PacketState, nonce: __m128i) -> Self {
        let nonce = isa.xor(isa.splat(nonce), isa.splat(key.keys().block(0)));
        Self { nonce, now: nonce, end: nonce }
    }

    /// For the step that begins with this block of the payload.
    #[inline(always)]
    fn step<I: Lanes<V = V>>(&mut self, isa: I, first_block: usize) {
        // A payload has fewer than 2^32 blocks: `quad` sends longer ones elsewhere.
        let group = (first_block / GROUP_BLOCKS * GROUP_BLOCKS) as u32;
        self.now = isa.xor(self.nonce, isa.splat(counter(group)));
        let next = (first_block + STEP * I::LANES) / GROUP_BLOCKS * GROUP_BLOCKS;
        let (old, new) = (counter(group), counter(next as u32));
        let end = if I::LANES > 2 { [old, old, new, new] } else { [new; 4] };
        self.end = isa.xor(self.nonce, isa.lanes(end));
    }

    /// The step's vector `i`, the first round key already added.
    #[inline(always)]
    fn block<I: Lanes<V = V>>(&self, isa: I, first_block: usize, i: usize) -> V {
        let counters = isa.load_blocks(&COUNTERS.0[first_block % GROUP_BLOCKS + i * I::LANES..]);
        // The vector holds one of the last two blocks of the step.
        match (i + 1) * I::LANES > STEP * I::LANES - 2 {
            true => isa.xor(self.end, counters),
            false => isa.xor(self.now, counters),
        }
    }
}

/// GHASH in its course.
struct Hash<'a, V> {
    key: &'a PacketState,
    sum: Sum<V>,
    /// The sum of the groups before, for the next block; else zero.
    before: V,
    /// Where the next block's power is.
    power: usize,
    /// Blocks of payload that are hashed.
    done: usize,
    /// Blocks of payload.
    blocks: usize,
}

impl<'a, V: Copy> Hash<'a, V> {
    #[inline(always)]
    fn new<I: Lanes<V = V>>(isa: I, key: &'a PacketState, blocks: usize) -> Self {
        let (sum, before) = (Sum::new(isa), isa.zero());
        let mut hash = Self { key, sum, before, power: 0, done: 0, blocks };
        hash.power = hash.group_power();
        hash
    }

    /// Where the powers of the group that begins here start: its last block, or the lengths, take the first power.
    #[inline(always)]
    fn group_power(&self) -> usize {
        let left = self.blocks - self.done;
        if left > GROUP_BLOCKS { POWERS - GROUP_BLOCKS } else { POWERS - 1 - left }
    }

    /// Adds a vector that lies `at` blocks on.
    #[inline(always)]
    fn add<I: Lanes<V = V>>(&mut self, isa: I, vector: V, at: usize) {
        let (powers, halves) = self.key.powers(self.power + at);
        self.sum.add(isa, isa.swap_bytes(vector), isa.load_blocks(powers), isa.load_blocks(halves));
    }

    /// As [`Self::add`], for the first vector of a step.
    #[inline(always)]
    fn add_first<I: Lanes<V = V>>(&mut self, isa: I, vector: V) {
        let vector = isa.xor(isa.swap_bytes(vector), self.before);
        let (powers, halves) = self.key.powers(self.power);
        self.sum.add(isa, vector, isa.load_blocks(powers), isa.load_blocks(halves));
    }

    #[inline(always)]
    fn add_step<I: Lanes<V = V>>(&mut self, isa: I, bytes: &[u8], i: usize) {
        let vector = isa.load(&bytes[i * I::WIDTH..]);
        if i == 0 { self.add_first(isa, vector) } else { self.add(isa, vector, i * I::LANES) }
    }

    /// After a step: goes on to the next powers, reduces if that was a group's end and not the payload's.
    #[inline(always)]
    fn stepped<I: Lanes<V = V>>(&mut self, isa: I) {
        self.power += STEP * I::LANES;
        self.done += STEP * I::LANES;
        self.before = isa.zero();
        if self.done.is_multiple_of(GROUP_BLOCKS) && self.done < self.blocks {
            self.before = isa.fold(self.sum.reduce(isa));
            self.sum = Sum::new(isa);
            self.power = self.group_power();
        }
    }

    #[inline(always)]
    fn header<I: Lanes<V = V>>(&mut self, isa: I, header: &[u8]) {
        let mut header = header;
        let mut before = isa.zero();
        // Longer than any header of QUIC: block by block.
        while header.len() > HEADER_BLOCKS * BLOCK {
            let first = isa.xor(before, isa.swap_bytes(isa.load_part(header, 0, BLOCK)));
            let power = isa.load_blocks(self.key.powers(POWERS - 1).0);
            before = multiply(isa, first, power);
            header = &header[BLOCK..];
        }
        let start = self.power - header.len().div_ceil(BLOCK);
        for at in (0..header.len()).step_by(I::WIDTH) {
            let end = header.len().min(at + I::WIDTH);
            let vector = isa.xor(isa.swap_bytes(isa.load_part(header, at, end)), before);
            let (powers, halves) = self.key.powers(start + at / BLOCK);
            self.sum.add(isa, vector, isa.load_blocks(powers), isa.load_blocks(halves));
            before = isa.zero();
        }
    }
}

/// Rounds 1 to the last but one over `$n` vectors, each followed by what is to be done between.
macro_rules! rounds {
    ($isa:ident, $keys:ident, $rounds:ident, $state:ident, |$round:ident| $between:expr) => {
        rounds!(@ $isa, $keys, $state, $round, $between, 1, 2, 3, 4, 5, 6, 7, 8, 9);
        if $rounds == 14 {
            rounds!(@ $isa, $keys, $state, $round, (), 10, 11, 12, 13);
        }
    };
    (@ $isa:ident, $keys:ident, $state:ident, $round:ident, $between:expr, $($number:literal),*) => {
        $(
            let key = $isa.splat($keys.block($number));
            for block in &mut $state {
                *block = $isa.aes(*block, key);
            }
            {
                #[allow(unused)]
                let $round: usize = $number;
                $between
            }
        )*
    };
}

/// One step of counter mode over `src`, with the step of GHASH over `hashed`, if any, between the rounds.
#[inline(always)]
fn step<I: Lanes, const ROUNDS: usize>(
    isa: I,
    base: &Base<I::V>,
    first_block: usize,
    hash: &mut Hash<'_, I::V>,
    hashed: Option<&[u8]>,
    (src, dst): (&[u8], &mut [u8]),
) {
    let keys = hash.key.keys();
    let mut state = [isa.zero(); STEP];
    for (i, block) in state.iter_mut().enumerate() {
        *block = base.block(isa, first_block, i);
    }
    rounds!(isa, keys, ROUNDS, state, |round| if round % 2 == 1
        && round / 2 < STEP
        && let Some(hashed) = hashed
    {
        hash.add_step(isa, hashed, round / 2)
    });
    let last = isa.splat(keys.block(ROUNDS));
    for (i, block) in state.into_iter().enumerate() {
        let text = isa.load(&src[i * I::WIDTH..]);
        isa.store(&mut dst[i * I::WIDTH..], isa.aes_last(block, isa.xor(text, last)));
    }
}

/// The last `N` vectors, of which the last may be partial. `src` may reach beyond `end`, and so may `dst`.
#[inline(always)]
fn tail<I: Lanes, const ROUNDS: usize, const SEAL: bool, const N: usize>(
    isa: I,
    base: &Base<I::V>,
    hash: &mut Hash<'_, I::V>,
    (src, dst): (&[u8], &mut [u8]),
    (at, end): (usize, usize),
) {
    let keys = hash.key.keys();
    let first_block = at / BLOCK;
    let last_at = at + (N - 1) * I::WIDTH;
    let mut texts = [isa.zero(); N];
    for (i, text) in texts.iter_mut().enumerate() {
        *text = match i == N - 1 {
            true => isa.load_part(src, last_at, end),
            false => isa.load(&src[at + i * I::WIDTH..]),
        };
    }
    let mut state = [isa.zero(); N];
    for (i, block) in state.iter_mut().enumerate() {
        *block = base.block(isa, first_block, i);
    }
    rounds!(isa, keys, ROUNDS, state, |round| ());
    let last = isa.splat(keys.block(ROUNDS));
    for (i, block) in state.into_iter().enumerate() {
        let mut made = isa.aes_last(block, isa.xor(texts[i], last));
        match i == N - 1 {
            true => isa.store_part(dst, last_at, end, made),
            false => isa.store(&mut dst[at + i * I::WIDTH..], made),
        }
        if SEAL && i == N - 1 {
            made = isa.keep(made, end - last_at);
        }
        let ciphertext = if SEAL { made } else { texts[i] };
        match i == 0 {
            true => hash.add_first(isa, ciphertext),
            false => hash.add(isa, ciphertext, i * I::LANES),
        }
    }
}

/// Encrypts or decrypts the first `len` bytes of `src` into `dst`. The sum lacks the product of the lengths and H.
///
/// `src` may be longer, which makes its end cheaper to load; so may `dst`, and then some of what lies behind is
/// overwritten.
#[inline(always)]
pub(super) fn bulk<I: Lanes, const ROUNDS: usize, const SEAL: bool>(
    isa: I,
    key: &PacketState,
    nonce: __m128i,
    header: &[u8],
    (src, dst): (&[u8], &mut [u8]),
    len: usize,
) -> Sum<I::V> {
    let mut base = Base::new(isa, key, nonce);
    let mut hash = Hash::new(isa, key, len.div_ceil(BLOCK));
    hash.header(isa, header);
    let step_bytes = STEP * I::WIDTH;
    let mut at = 0;
    while len - at >= step_bytes {
        base.step(isa, at / BLOCK);
        let (before, rest) = dst.split_at_mut(at);
        let text = &src[at..at + step_bytes];
        let made = &mut rest[..step_bytes];
        if !SEAL {
            step::<I, ROUNDS>(isa, &base, at / BLOCK, &mut hash, Some(text), (text, made));
            hash.stepped(isa);
        } else if at == 0 {
            step::<I, ROUNDS>(isa, &base, at / BLOCK, &mut hash, None, (text, made));
        } else {
            let hashed = &before[at - step_bytes..];
            step::<I, ROUNDS>(isa, &base, at / BLOCK, &mut hash, Some(hashed), (text, made));
            hash.stepped(isa);
        }
        at += step_bytes;
    }
    if SEAL && at > 0 {
        for i in 0..STEP {
            hash.add_step(isa, &dst[at - step_bytes..at], i);
        }
        hash.stepped(isa);
    }
    if at < len {
        base.step(isa, at / BLOCK);
        let (texts, range) = ((src, dst), (at, len));
        match (len - at).div_ceil(I::WIDTH) {
            1 => tail::<I, ROUNDS, SEAL, 1>(isa, &base, &mut hash, texts, range),
            2 => tail::<I, ROUNDS, SEAL, 2>(isa, &base, &mut hash, texts, range),
            3 => tail::<I, ROUNDS, SEAL, 3>(isa, &base, &mut hash, texts, range),
            _ => tail::<I, ROUNDS, SEAL, 4>(isa, &base, &mut hash, texts, range),
        }
    }
    hash.sum
}

/// E_K of a vector of blocks, each lane under the round keys that `key` gives it.
#[inline(always)]
pub(super) fn encrypt<I: Lanes, const ROUNDS: usize>(
    isa: I,
    blocks: I::V,
    key: impl Fn(usize) -> I::V,
) -> I::V {
    let mut state = isa.xor(blocks, key(0));
    for round in 1..ROUNDS {
        state = isa.aes(state, key(round));
    }
    isa.aes_last(state, key(ROUNDS))
}
