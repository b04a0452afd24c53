//! Goal: Poly1305 is right where limbs carry and where the last reduction must, or must not, subtract.
//!
//! Method: the RFC's edge cases, and an oracle that computes the definition byte by byte on keys and blocks chosen from
//! extremes.

use super::super::poly::Poly;
use super::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// RFC 8439 appendix A.3, vectors 5 to 11: r and s, blocks, tag.
const EDGES: [(&str, &str, &str); 7] = [
    (
        "02000000000000000000000000000000 00000000000000000000000000000000",
        "ffffffffffffffffffffffffffffffff",
        "03000000000000000000000000000000",
    ),
    (
        "02000000000000000000000000000000 ffffffffffffffffffffffffffffffff",
        "02000000000000000000000000000000",
        "03000000000000000000000000000000",
    ),
    (
        "01000000000000000000000000000000 00000000000000000000000000000000",
        "ffffffffffffffffffffffffffffffff f0ffffffffffffffffffffffffffffff 11000000000000000000000000000000",
        "05000000000000000000000000000000",
    ),
    (
        "01000000000000000000000000000000 00000000000000000000000000000000",
        "ffffffffffffffffffffffffffffffff fbfefefefefefefefefefefefefefefe 01010101010101010101010101010101",
        "00000000000000000000000000000000",
    ),
    (
        "02000000000000000000000000000000 00000000000000000000000000000000",
        "fdffffffffffffffffffffffffffffff",
        "faffffffffffffffffffffffffffffff",
    ),
    (
        "01000000000000000400000000000000 00000000000000000000000000000000",
        "e33594d7505e43b90000000000000000 3394d7505e4379cd0100000000000000
         00000000000000000000000000000000 01000000000000000000000000000000",
        "14000000000000005500000000000000",
    ),
    (
        "01000000000000000400000000000000 00000000000000000000000000000000",
        "e33594d7505e43b90000000000000000 3394d7505e4379cd0100000000000000 00000000000000000000000000000000",
        "13000000000000000000000000000000",
    ),
];

/// Whole blocks, then a last one that is `padded` as RFC 8439 section 2.5 has it outside the AEAD.
fn tag(key: &[u8; 32], message: &[u8], in_granules: bool) -> [u8; 16] {
    let poly = Poly::new();
    poly.start(key);
    let (granules, rest) = message.as_chunks::<32>();
    if in_granules {
        granules.iter().for_each(|granule| poly.double(granule));
        poly.padded(rest, 0);
    } else {
        poly.padded(message, 0);
    }
    poly.tag_without_lengths()
}

/// The definition, modulo 2^130 - 5 in bytes: whole blocks only.
fn oracle(key: &[u8; 32], message: &[u8]) -> [u8; 16] {
    let mut r: [u32; 17] = std::array::from_fn(|i| if i < 16 { u32::from(key[i]) } else { 0 });
    [3, 7, 11, 15].iter().for_each(|&i| r[i] &= 15);
    [4, 8, 12].iter().for_each(|&i| r[i] &= 252);
    let mut h = [0; 17];
    for block in message.as_chunks::<16>().0 {
        let block: [u32; 17] = std::array::from_fn(|i| if i < 16 { u32::from(block[i]) } else { 1 });
        let sum = add(&h, &block);
        // 2^136 is 2^6 * 5 modulo 2^130 - 5.
        h = std::array::from_fn(|i| {
            (0..17).map(|j| sum[j] * if j <= i { r[i - j] } else { 320 * r[i + 17 - j] }).sum()
        });
        h = carry(h);
    }
    let minus_p: [u32; 17] =
        std::array::from_fn(|i| [5, 0][usize::from(i > 0)] + [0, 252][usize::from(i == 16)]);
    let reduced = add(&h, &minus_p);
    let h = if reduced[16] & 128 == 0 { reduced } else { h };
    let s: [u32; 17] = std::array::from_fn(|i| if i < 16 { u32::from(key[16 + i]) } else { 0 });
    let sum = add(&h, &s);
    std::array::from_fn(|i| sum[i] as u8)
}

fn add(a: &[u32; 17], b: &[u32; 17]) -> [u32; 17] {
    let mut carry = 0;
    std::array::from_fn(|i| {
        carry += a[i] + b[i];
        let byte = carry & 255;
        carry >>= 8;
        byte
    })
}

/// Carries twice: what is above 2^130 comes back times five.
fn carry(mut h: [u32; 17]) -> [u32; 17] {
    for _ in 0..2 {
        let mut carry = 0;
        for limb in &mut h[..16] {
            carry += *limb;
            *limb = carry & 255;
            carry >>= 8;
        }
        carry += h[16];
        h[16] = carry & 3;
        h[0] += 5 * (carry >> 2);
    }
    add(&h, &[0; 17])
}

#[test]
fn edges_of_rfc_8439() {
    for (key, message, want) in EDGES {
        let (key, message) = (bytes(key), hex(message));
        assert_eq!(oracle(&key, &message), bytes(want), "the oracle itself");
        for in_granules in [false, true] {
            assert_eq!(tag(&key, &message, in_granules), bytes(want));
        }
    }
}

/// r and s of all ones (clamping leaves r's limbs as large as they get), blocks of all ones and all zeros and what lies
/// beside 2^130 - 5, in every order that a seeded choice gives.
#[test]
fn extremes_equal_the_definition() {
    let seed = 0x9015_1305;
    println!("seed {seed:#x}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut near = [0xff; 16];
    near[0] = 0xfb;
    let mut one = [0; 16];
    one[0] = 1;
    let extremes: [[u8; 16]; 6] = [[0xff; 16], [0; 16], near, [0xfc; 16], one, [0x80; 16]];
    for case in 0..4000 {
        let mut pick = || match rng.random_range(0..8) {
            choice @ 0..6 => extremes[choice],
            _ => rng.random(),
        };
        let mut key = [0; 32];
        key[..16].copy_from_slice(&pick());
        key[16..].copy_from_slice(&pick());
        let message: Vec<u8> = (0..case % 12).flat_map(|_| pick()).collect();
        for in_granules in [false, true] {
            assert_eq!(tag(&key, &message, in_granules), oracle(&key, &message), "{key:x?} {message:x?}");
        }
    }
}
