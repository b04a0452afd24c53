//! Goal: no key, and nothing that was expanded from one, stays behind in memory that was given back. Method: an
//! allocator that looks through every block before it is freed, for the key, the AES round keys and the powers of H in
//! every form that a kernel may hold them in. The same search over the blocks still alive, just before, has to find
//! them: otherwise the search itself would be blind. Stacks and registers are out of its sight.
#![expect(unsafe_code, reason = "an allocator")]

use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use beam_simd::{
    Cipher, HeaderKey, Level, MaskJob, OpenJob, PacketKey, SealJob, TAG_BYTES, mask_batch, open_batch,
    seal_batch,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    array, slice,
    sync::Mutex,
};

/// Powers of H to look for: twice what the widest loop keeps.
const POWER_COUNT: usize = 64;
/// Bytes that make a match; half a block, for kernels may store the halves apart.
const WINDOW_BYTES: usize = 8;
const BLOCK_COUNT_MAX: usize = 4096;

/// What a match is a piece of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Key,
    RoundKey,
    Power,
}

/// How often each piece was seen: keys, round keys, powers.
type Sightings = [usize; 3];

struct Watch {
    /// What to look for, in order. Fixed room, because an allocator can't allocate.
    patterns: [(u64, Piece); 2048],
    pattern_count: usize,
    /// Blocks allocated since the watch began, as address and length.
    alive: [(usize, usize); BLOCK_COUNT_MAX],
    alive_count: usize,
    freed: Sightings,
}

static WATCH: Mutex<Watch> = Mutex::new(Watch {
    patterns: [(0, Piece::Key); 2048],
    pattern_count: 0,
    alive: [(0, 0); BLOCK_COUNT_MAX],
    alive_count: 0,
    freed: [0; 3],
});

impl Watch {
    /// Takes sorted patterns, by reference: to sort or to drop them here would come back to the allocator.
    fn begin(&mut self, patterns: &[(u64, Piece)]) {
        self.patterns[..patterns.len()].copy_from_slice(patterns);
        (self.pattern_count, self.alive_count, self.freed) = (patterns.len(), 0, [0; 3]);
    }

    fn look(&self, block: &[u8]) -> Sightings {
        let mut seen = [0; 3];
        let patterns = &self.patterns[..self.pattern_count];
        for window in block.array_windows::<WINDOW_BYTES>() {
            let window = u64::from_le_bytes(*window);
            if let Ok(at) = patterns.binary_search_by_key(&window, |(window, _)| *window) {
                seen[patterns[at].1 as usize] += 1;
            }
        }
        seen
    }

    fn allocated(&mut self, address: usize, len: usize) {
        if self.pattern_count > 0 {
            // A panic here would allocate; a full table shows as a blind search instead.
            if let Some(place) = self.alive.get_mut(self.alive_count) {
                *place = (address, len);
                self.alive_count += 1;
            }
        }
    }

    /// `block` is about to be freed.
    fn freed(&mut self, block: &[u8]) {
        let address = block.as_ptr().addr();
        let Some(at) = self.alive[..self.alive_count].iter().position(|alive| alive.0 == address) else {
            return;
        };
        self.alive_count -= 1;
        self.alive.swap(at, self.alive_count);
        let seen = self.look(block);
        self.freed = array::from_fn(|piece| self.freed[piece] + seen[piece]);
    }

    fn look_at_the_living(&self) -> Sightings {
        let mut sum = [0; 3];
        for &(address, len) in &self.alive[..self.alive_count] {
            // SAFETY: the block is alive, as `freed` would have taken it out; only this thread owns watched blocks.
            let block = unsafe { slice::from_raw_parts(address as *const u8, len) };
            let seen = self.look(block);
            sum = array::from_fn(|piece| sum[piece] + seen[piece]);
        }
        sum
    }
}

struct Searching;

#[global_allocator]
static ALLOCATOR: Searching = Searching;

// SAFETY: memory comes from the system's allocator, whose contract is passed on as it is. Blocks are zeroed when
// allocated, so that reading them whole before they are freed is reading initialised memory.
unsafe impl GlobalAlloc for Searching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null()
            && let Ok(mut watch) = WATCH.lock()
        {
            watch.allocated(block.addr(), layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Ok(mut watch) = WATCH.lock() {
            // SAFETY: a live block of this allocator, initialised since it was allocated, the caller's alone.
            watch.freed(unsafe { slice::from_raw_parts(block, layout.size()) });
        }
        // SAFETY: the caller's block and layout.
        unsafe { System.dealloc(block, layout) };
    }
    // The default `realloc` allocates, copies and frees by the two above, so that moved memory is searched too.
}

/// Multiplication by x in the field of GHASH, bit-reversed as in SP 800-38D: x is the bit after the most significant.
fn times_x(element: u128) -> u128 {
    (element >> 1) ^ if element & 1 == 1 { 0xe1 << 120 } else { 0 }
}

fn product(a: u128, b: u128) -> u128 {
    let mut term = b;
    let mut sum = 0;
    for bit in (0..128).rev() {
        sum ^= if a >> bit & 1 == 1 { term } else { 0 };
        term = times_x(term);
    }
    sum
}

/// POLYVAL's multiplication by x, which makes of H the factor that PCLMULQDQ wants (RFC 8452 appendix A).
fn times_x_reversed(element: u128) -> u128 {
    (element << 1) ^ if element >> 127 == 1 { 0xc2 << 120 | 1 } else { 0 }
}

/// E_K of a block, by a third implementation.
fn encrypt(key: &[u8], block: [u8; 16]) -> [u8; 16] {
    let mut block = Block::<aes::Aes128>::from(block);
    match key.len() {
        16 => aes::Aes128::new_from_slice(key).expect("16 bytes").encrypt_block(&mut block),
        _ => aes::Aes256::new_from_slice(key).expect("32 bytes").encrypt_block(&mut block),
    }
    block.into()
}

/// S-box of AES (FIPS 197 section 5.1.1): the inverse in GF(2^8), then the affine map.
fn sub(byte: u8) -> u8 {
    let times = |mut a: u8, mut b: u8| {
        let mut sum = 0;
        while b > 0 {
            sum ^= if b & 1 == 1 { a } else { 0 };
            a = (a << 1) ^ if a & 0x80 > 0 { 0x1b } else { 0 };
            b >>= 1;
        }
        sum
    };
    let inverse = (0..254).fold(1, |power, _| times(power, byte));
    (1..5).fold(inverse ^ 0x63, |sum, turn| sum ^ inverse.rotate_left(turn))
}

/// The key expansion of FIPS 197 section 5.2, as bytes.
fn round_keys(key: &[u8]) -> Vec<u8> {
    let key_words = key.len() / 4;
    let mut words: Vec<[u8; 4]> = key.as_chunks().0.to_vec();
    let mut constant = 1_u8;
    for at in key_words..4 * (key_words + 7) {
        let mut word = words[at - 1];
        if at % key_words == 0 {
            word.rotate_left(1);
            word = word.map(sub);
            word[0] ^= constant;
            constant = (constant << 1) ^ if constant & 0x80 > 0 { 0x1b } else { 0 };
        } else if key_words > 6 && at % key_words == 4 {
            word = word.map(sub);
        }
        words.push(array::from_fn(|byte| word[byte] ^ words[at - key_words][byte]));
    }
    words.concat()
}

fn windows(bytes: &[u8], piece: Piece) -> impl Iterator<Item = (u64, Piece)> {
    bytes.as_chunks().0.iter().map(move |window| (u64::from_le_bytes(*window), piece))
}

/// All that could give a key away.
fn patterns(cipher: Cipher, key: &[u8]) -> Vec<(u64, Piece)> {
    let mut patterns: Vec<_> = windows(key, Piece::Key).collect();
    if cipher != Cipher::ChaCha20Poly1305 {
        patterns.extend(aes_patterns(key));
    }
    patterns.sort_by_key(|(window, _)| *window);
    patterns
}

fn aes_patterns(key: &[u8]) -> Vec<(u64, Piece)> {
    let mut patterns = Vec::new();
    patterns.extend(windows(&round_keys(key)[key.len()..], Piece::RoundKey));
    let h = u128::from_be_bytes(encrypt(key, [0; 16]));
    let mut power = h;
    for _ in 0..POWER_COUNT {
        for form in [power, power.swap_bytes(), power.reverse_bits(), times_x_reversed(power)] {
            let (low, high) = (form as u64, (form >> 64) as u64);
            // The sum of the halves is Karatsuba's.
            patterns.extend([low, high, low ^ high].map(|window| (window, Piece::Power)));
        }
        power = product(power, h);
    }
    patterns
}

/// Uses a key in every way there is.
fn use_keys(level: Level, packet: &PacketKey, header: &HeaderKey) {
    let mut sealed = [0; 700 + TAG_BYTES];
    let mut opened = [0; 700];
    for _ in 0..2 {
        seal_batch(
            level,
            &mut [SealJob {
                key: packet,
                packet_number: 1,
                header: &[7; 20],
                plaintext: &[1; 700],
                dst: &mut sealed,
            }],
        );
        let mut open = [OpenJob {
            key: packet,
            packet_number: 1,
            header: &[7; 20],
            ciphertext: &sealed,
            dst: &mut opened,
            authentic: false,
        }];
        open_batch(level, &mut open);
        assert!(open[0].authentic);
        mask_batch(level, &mut [MaskJob { key: header, sample: [3; 16], mask: [0; 5] }]);
    }
    // The eager path, by ring.
    packet.seal_in_place(2, &[], &mut opened).expect("short enough");
    let _mask = header.mask(&[4; 16]);
}

fn watch<T>(look: impl FnOnce(&mut Watch) -> T) -> T {
    look(&mut WATCH.lock().expect("no panic under the lock"))
}

/// One test, because the watch is one.
#[test]
fn nothing_of_a_key_is_left_in_freed_memory() {
    // The search itself, against known answers: FIPS 197 appendix A.1, and a planted block.
    let example = 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes();
    assert_eq!(round_keys(&example)[160..], 0xd014_f9a8_c9ee_2589_e13f_0cc8_b663_0ca6_u128.to_be_bytes());
    assert_eq!(round_keys(&[0; 32]).len(), 240);
    let key: [u8; 32] = array::from_fn(|at| (at * 29 + 3) as u8);
    let found = patterns(Cipher::Aes128Gcm, &key[..16]);
    watch(|watch| watch.begin(&found));
    drop(key.to_vec());
    assert_eq!(watch(|watch| watch.freed), [2, 0, 0], "a key in a freed block is seen");

    for cipher in Cipher::ALL {
        for level in Level::available() {
            let key = &key[..cipher.key_bytes()];
            let found = patterns(cipher, key);
            let packet = PacketKey::new(cipher, key, [9; 12]);
            let header = HeaderKey::new(cipher, key);
            watch(|watch| watch.begin(&found));
            // From here on the keys live in blocks that are watched, as in a connection.
            let keys = Box::new((packet, header));
            use_keys(*level, &keys.0, &keys.1);
            let alive = watch(|watch| watch.look_at_the_living());
            drop(keys);
            let freed = watch(|watch| watch.freed);
            let cipher_name = cipher.name();
            println!("{cipher_name} at {level}: alive {alive:?}, left behind {freed:?}");
            assert!(alive[0] > 0, "{cipher_name} at {level}: the search is blind to the key");
            let is_aes = cipher != Cipher::ChaCha20Poly1305;
            assert!(!is_aes || alive[1] > 0, "{cipher_name} at {level}: the search is blind to round keys");
            assert!(!is_aes || alive[2] > 0, "{cipher_name} at {level}: the search is blind to powers of H");
            assert_eq!(freed, [0; 3], "{cipher_name} at {level}: keys, round keys, powers of H left behind");
        }
    }
}
