//! What a key becomes when a batch first needs it: round keys, powers of H.

use super::{
    aesni::{AesNi, from_number, number},
    ghash::{multiply, times_x},
    lanes::Lanes,
};
use crate::Cipher;
use std::arch::x86_64::*;
use zeroize::Zeroize;

/// Round keys of AES-256, the most there are, and one that fills the line up: padding would be copied with the struct,
/// and never wiped.
const ROUND_KEYS_MAX: usize = 16;
/// Blocks of payload that are hashed before a sum is reduced.
pub(super) const GROUP_BLOCKS: usize = 32;
/// Blocks of a header that are hashed in one sum with the first group.
pub(super) const HEADER_BLOCKS: usize = 3;
/// Powers of H: for a header, a group, and the block of the lengths.
pub(super) const POWERS: usize = HEADER_BLOCKS + GROUP_BLOCKS + 1;
/// Zeros behind the powers, so that a vector can begin at any power.
const PADDING: usize = 4;

/// The round keys of either AES.
#[repr(C, align(64))]
pub(super) struct RoundKeys([u128; ROUND_KEYS_MAX]);

/// H to the 36th, 35th, .. first, each times x, then zeros.
#[repr(C, align(64))]
pub(super) struct Powers([u128; POWERS + PADDING]);

/// What a packet key becomes when a batch first needs it.
#[repr(C)]
pub(crate) struct PacketState {
    keys: RoundKeys,
    powers: Powers,
    /// The two halves of each power xored, in the low half.
    halves: Powers,
}

/// What a header-protection key becomes when a batch first needs it.
pub(crate) struct HeaderState {
    keys: RoundKeys,
}

impl RoundKeys {
    fn new(cipher: Cipher, key: &[u8]) -> Self {
        assert!(has_aesni(), "only a level with AES instructions asks for this");
        // SAFETY: the CPU has what the functions need, as was just asked.
        Self(unsafe { expand(cipher, key) })
    }

    #[inline(always)]
    pub(super) fn block(&self, round: usize) -> __m128i {
        from_number(self.0[round])
    }

    #[inline(always)]
    pub(super) fn blocks(&self, first: usize, end: usize) -> &[u128] {
        &self.0[first..end]
    }
}

impl PacketState {
    /// # Panics
    /// If the CPU has no AES instructions: without, there is no level that asks.
    pub(crate) fn new(cipher: Cipher, key: &[u8]) -> Self {
        let keys = RoundKeys::new(cipher, key);
        let mut state =
            Self { keys, powers: Powers([0; POWERS + PADDING]), halves: Powers([0; POWERS + PADDING]) };
        // SAFETY: the CPU has what the function needs, or `RoundKeys::new` would have panicked.
        unsafe { raise(cipher, &mut state) };
        state
    }

    #[inline(always)]
    pub(super) fn keys(&self) -> &RoundKeys {
        &self.keys
    }

    /// The powers and their halves, both followed by zeros.
    #[inline(always)]
    pub(super) fn powers(&self) -> (&[u128; POWERS + PADDING], &[u128; POWERS + PADDING]) {
        (&self.powers.0, &self.halves.0)
    }
}

impl HeaderState {
    /// # Panics
    /// If the CPU has no AES instructions: without, there is no level that asks.
    pub(crate) fn new(cipher: Cipher, key: &[u8]) -> Self {
        Self { keys: RoundKeys::new(cipher, key) }
    }

    #[inline(always)]
    pub(super) fn keys(&self) -> &RoundKeys {
        &self.keys
    }
}

impl Drop for RoundKeys {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Drop for Powers {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn has_aesni() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("aes") && has!("pclmulqdq") && has!("ssse3") && has!("sse4.1")
}

/// Rounds of AES after the first key.
pub(super) const fn rounds(cipher: Cipher) -> usize {
    match cipher {
        Cipher::Aes256Gcm => 14,
        Cipher::Aes128Gcm | Cipher::ChaCha20Poly1305 => 10,
    }
}

#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
fn raise(cipher: Cipher, state: &mut PacketState) {
    let isa = AesNi::token();
    let mut block = state.keys.block(0);
    for round in 1..rounds(cipher) {
        block = isa.aes(block, state.keys.block(round));
    }
    let hash_key = isa.swap_bytes(isa.aes_last(block, state.keys.block(rounds(cipher))));
    let first = from_number(times_x(number(hash_key)));
    let mut power = first;
    for at in (0..POWERS).rev() {
        state.powers.0[at] = number(power);
        state.halves.0[at] = number(isa.xor(power, isa.swap_halves(power))) & u128::from(u64::MAX);
        power = multiply(isa, power, first);
    }
}

/// FIPS 197 section 5.2.
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
fn expand(cipher: Cipher, key: &[u8]) -> [u128; ROUND_KEYS_MAX] {
    let isa = AesNi::token();
    let mut keys = [0; ROUND_KEYS_MAX];
    let mut a = isa.load(key);
    keys[0] = number(a);
    // `$low` says which word of the assistant's answer is wanted: 0xff the rotated one, 0xaa the plain one.
    macro_rules! next {
        ($before:ident from $last:expr, $rcon:literal, $low:literal, $at:expr) => {
            let word = _mm_shuffle_epi32::<$low>(_mm_aeskeygenassist_si128::<$rcon>($last));
            $before = _mm_xor_si128($before, _mm_slli_si128::<4>($before));
            $before = _mm_xor_si128($before, _mm_slli_si128::<8>($before));
            $before = _mm_xor_si128($before, word);
            keys[$at] = number($before);
        };
    }
    if cipher == Cipher::Aes128Gcm {
        next!(a from a, 0x01, 0xff, 1);
        next!(a from a, 0x02, 0xff, 2);
        next!(a from a, 0x04, 0xff, 3);
        next!(a from a, 0x08, 0xff, 4);
        next!(a from a, 0x10, 0xff, 5);
        next!(a from a, 0x20, 0xff, 6);
        next!(a from a, 0x40, 0xff, 7);
        next!(a from a, 0x80, 0xff, 8);
        next!(a from a, 0x1b, 0xff, 9);
        next!(a from a, 0x36, 0xff, 10);
        return keys;
    }
    let mut b = isa.load(&key[16..]);
    keys[1] = number(b);
    next!(a from b, 0x01, 0xff, 2);
    next!(b from a, 0x00, 0xaa, 3);
    next!(a from b, 0x02, 0xff, 4);
    next!(b from a, 0x00, 0xaa, 5);
    next!(a from b, 0x04, 0xff, 6);
    next!(b from a, 0x00, 0xaa, 7);
    next!(a from b, 0x08, 0xff, 8);
    next!(b from a, 0x00, 0xaa, 9);
    next!(a from b, 0x10, 0xff, 10);
    next!(b from a, 0x00, 0xaa, 11);
    next!(a from b, 0x20, 0xff, 12);
    next!(b from a, 0x00, 0xaa, 13);
    next!(a from b, 0x40, 0xff, 14);
    keys
}
