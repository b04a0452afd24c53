//! Goal: whatever the level, the bytes are ring's. Method: batches over every length, alignment, header length, batch
//! size and mix of keys, sealed and opened, compared byte for byte; masks likewise. Seeds are fixed and printed.

use crate::oracle::{Key, Mask, bytes};
use crate::packet::{Align, Packet, equal_ring};
use crate::{is_short, levels};
use beam_simd::{Cipher, MaskJob, SAMPLE_BYTES, TAG_BYTES, mask_batch, seal_batch};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes of the longest packet of a jumbo frame.
const LENGTH_MAX: usize = 9100;
const BATCH_LEN_MAX: usize = 64;
/// Around the borders of a block, a Poly1305 pair, and of 4, 8, 16 and 32 blocks in a vector loop.
const EDGES: [usize; 22] =
    [0, 1, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1025, 1200];
const HEADER_LENGTHS_LONG: [usize; 12] = [65, 79, 96, 100, 127, 128, 129, 255, 256, 257, 1000, 1500];
const PACKET_NUMBERS: [u64; 8] = [0, 1, 0xff, 0x100, 0xffff_ffff, 0x1_0000_0000, (1 << 62) - 1, u64::MAX];

fn seeded(seed: u64) -> StdRng {
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

fn random_align(rng: &mut StdRng) -> Align {
    let [header, source, destination] = std::array::from_fn(|_| rng.random_range(0..64));
    Align { header, source, destination }
}

/// Every length, or for an emulated CPU every tail of every vector loop and then every 61st length.
fn lengths() -> Vec<usize> {
    let is_wanted =
        |length: &usize| !is_short() || *length <= 1100 || length % 61 == 3 || *length == LENGTH_MAX;
    (0..=LENGTH_MAX).filter(is_wanted).collect()
}

/// Cuts `lengths` into batches of 1 to 64 and compares them all.
fn check_lengths(rng: &mut StdRng, cipher: Cipher, mut lengths: &[usize]) {
    let key = Key::random(cipher, rng);
    let pool = bytes(rng, 2 * LENGTH_MAX);
    while !lengths.is_empty() {
        let (batch, rest) = lengths.split_at(rng.random_range(1..=BATCH_LEN_MAX).min(lengths.len()));
        lengths = rest;
        let packets: Vec<Packet<'_>> = batch
            .iter()
            .map(|&length| {
                let start = rng.random_range(0..LENGTH_MAX);
                let header = rng.random_range(0..=40);
                Packet::new(&key, rng.next_u64(), &pool[..header], &pool[start..start + length])
                    .at(random_align(rng))
            })
            .collect();
        levels().into_iter().for_each(|level| equal_ring(level, &packets));
    }
}

#[test]
fn every_length_in_order() {
    let mut rng = seeded(1);
    for cipher in Cipher::ALL {
        check_lengths(&mut rng, cipher, &lengths());
    }
}

/// A batch of very unequal lanes: the short ones run out while the long ones go on.
#[test]
fn every_length_shuffled() {
    let mut rng = seeded(2);
    for cipher in Cipher::ALL {
        let mut lengths = lengths();
        lengths.shuffle(&mut rng);
        check_lengths(&mut rng, cipher, &lengths);
    }
}

/// Counters carry into their second and third byte, which no frame's length reaches.
#[test]
fn lengths_beyond_a_frame() {
    let mut rng = seeded(3);
    let lengths: &[usize] =
        if is_short() { &[65_535, 66_000] } else { &[16_384, 65_535, 65_536, 66_000, (1 << 20) + 77] };
    for cipher in Cipher::ALL {
        let key = Key::random(cipher, &mut rng);
        for &length in lengths {
            let plaintext = bytes(&mut rng, length);
            let packets =
                [Packet::new(&key, 7, b"header", &plaintext), Packet::new(&key, 8, b"", &plaintext[1..])];
            levels().into_iter().for_each(|level| equal_ring(level, &packets));
        }
    }
}

/// One slice walks through all 64 addresses while the other two stay; each in its own lane of one batch.
#[test]
fn every_alignment() {
    let mut rng = seeded(4);
    for cipher in Cipher::ALL {
        let key = Key::random(cipher, &mut rng);
        for length in EDGES {
            let plaintext = bytes(&mut rng, length);
            let header = bytes(&mut rng, 25);
            for axis in 0..3 {
                let still = random_align(&mut rng);
                let packets: Vec<Packet<'_>> = (0..64)
                    .map(|address| {
                        let align = match axis {
                            0 => Align { header: address, ..still },
                            1 => Align { source: address, ..still },
                            _ => Align { destination: address, ..still },
                        };
                        Packet::new(&key, address as u64, &header, &plaintext).at(align)
                    })
                    .collect();
                levels().into_iter().for_each(|level| equal_ring(level, &packets));
            }
        }
    }
}

#[test]
fn every_header_length() {
    let mut rng = seeded(5);
    let lengths: Vec<usize> = (0..=64).chain(HEADER_LENGTHS_LONG).collect();
    for cipher in Cipher::ALL {
        let key = Key::random(cipher, &mut rng);
        for payload in [0, 1, 16, 100, 1200] {
            let plaintext = bytes(&mut rng, payload);
            for batch in lengths.chunks(7) {
                let packets: Vec<Packet<'_>> = batch
                    .iter()
                    .map(|&length| {
                        let header = bytes(&mut rng, length);
                        Packet::new(&key, rng.next_u64(), &header, &plaintext).at(random_align(&mut rng))
                    })
                    .collect();
                levels().into_iter().for_each(|level| equal_ring(level, &packets));
            }
        }
    }
}

/// Every batch size, also the empty one; the numbers are those at which a nonce carries or is all ones.
#[test]
fn every_batch_size_and_extreme_packet_numbers() {
    let mut rng = seeded(6);
    for cipher in Cipher::ALL {
        let key_bytes = bytes(&mut rng, cipher.key_bytes());
        let keys = [[0; 12], [0xff; 12]].map(|iv| Key::new(cipher, &key_bytes, iv));
        for size in 0..=BATCH_LEN_MAX + 1 {
            let packets: Vec<Packet<'_>> = (0..size)
                .map(|lane| {
                    let plaintext = bytes(&mut rng, 20 + lane % 50);
                    Packet::new(&keys[lane % 2], PACKET_NUMBERS[(lane + size) % 8], &[0x40; 21], &plaintext)
                })
                .collect();
            levels().into_iter().for_each(|level| equal_ring(level, &packets));
        }
    }
}

/// 32 connections of each cipher, in any order, in one batch. The batch is compared a second time, when every key has
/// been expanded already.
#[test]
fn mixed_keys_ciphers_and_lengths() {
    let mut rng = seeded(7);
    let rounds = if is_short() { 25 } else { 250 };
    let keys: Vec<Key> = (0..96).map(|index| Key::random(Cipher::ALL[index % 3], &mut rng)).collect();
    let pool = bytes(&mut rng, 4096);
    for _ in 0..rounds {
        let packets: Vec<Packet<'_>> = (0..rng.random_range(1..=BATCH_LEN_MAX))
            .map(|_| {
                let key = &keys[rng.random_range(0..keys.len())];
                let (header, length) = (rng.random_range(0..=64), rng.random_range(0..=1500));
                let start = rng.random_range(0..2048);
                Packet::new(key, rng.next_u64(), &pool[start..start + header], &pool[start..start + length])
                    .at(random_align(&mut rng))
            })
            .collect();
        for level in levels() {
            equal_ring(level, &packets);
            equal_ring(level, &packets);
        }
    }
}

/// Carries: ciphertext of all ones, all zeros and single bits drives Poly1305's limbs to their borders. The plaintext
/// is chosen for the ciphertext, through the key stream that sealing zeros shows.
#[test]
fn chosen_ciphertexts() {
    let mut rng = seeded(8);
    for cipher in Cipher::ALL {
        let keys: Vec<Key> = (0..4).map(|_| Key::random(cipher, &mut rng)).collect();
        for length in EDGES {
            let patterns: [&dyn Fn(usize) -> u8; 5] = [
                &|_| 0xff,
                &|_| 0,
                &|at| u8::from(at % 16 == 15),
                &|at| 0xff * u8::from(at % 16 != 0),
                &|_| 0xfb,
            ];
            let packets: Vec<Packet<'_>> = patterns
                .iter()
                .cycle()
                .take(4 * patterns.len())
                .enumerate()
                .map(|(lane, pattern)| {
                    let key = &keys[lane % 4];
                    let stream = key.seal(lane as u64, &[], &vec![0; length]);
                    let plaintext: Vec<u8> = (0..length).map(|at| stream[at] ^ pattern(at)).collect();
                    Packet::new(key, lane as u64, &[0xff; 32][..lane], &plaintext)
                })
                .collect();
            assert!(
                packets[0].sealed[..length].iter().all(|byte| *byte == 0xff),
                "the ciphertext was chosen"
            );
            levels().into_iter().for_each(|level| equal_ring(level, &packets));
        }
    }
}

#[test]
fn masks_in_every_batch_size() {
    let mut rng = seeded(9);
    let keys: Vec<Mask> = (0..96).map(|index| Mask::random(Cipher::ALL[index / 32], &mut rng)).collect();
    for size in 0..=2 * BATCH_LEN_MAX {
        // Alternately one key, one cipher, and anything.
        let (first, count) = [(size % 96, 1), (32 * (size % 3), 32), (0, 96)][size / 3 % 3];
        let chosen: Vec<&Mask> = (0..size).map(|_| &keys[first + rng.random_range(0..count)]).collect();
        let samples: Vec<[u8; SAMPLE_BYTES]> = chosen
            .iter()
            .map(|_| {
                let mut sample = [0; SAMPLE_BYTES];
                rng.fill_bytes(&mut sample);
                // ChaCha20 takes its block counter from the first four bytes (RFC 9001 section 5.4.4).
                if rng.random_range(0..8) == 0 {
                    sample[..4].fill(0xff);
                }
                sample
            })
            .collect();
        for level in levels() {
            let jobs = chosen.iter().zip(&samples);
            let mut jobs: Vec<MaskJob<'_>> =
                jobs.map(|(key, &sample)| MaskJob { key: &key.header, sample, mask: [0xa5; 5] }).collect();
            mask_batch(level, &mut jobs);
            for (lane, (job, key)) in jobs.iter().zip(&chosen).enumerate() {
                let cipher = job.key.cipher().name();
                assert_eq!(job.mask, key.mask(&job.sample), "{cipher} at {level}, lane {lane} of {size}");
            }
        }
    }
}

/// A destination of the wrong length, in any lane, stops the batch before it has written a byte.
#[test]
fn a_wrong_room_panics_before_anything_is_written() {
    let mut rng = seeded(10);
    for (cipher, level) in
        Cipher::ALL.into_iter().flat_map(|cipher| levels().into_iter().map(move |l| (cipher, l)))
    {
        let key = Key::random(cipher, &mut rng);
        for wrong in [99 + TAG_BYTES, 101 + TAG_BYTES, 0] {
            for lane in 0..5 {
                let mut rooms = vec![vec![0xa5; 100 + TAG_BYTES]; 5];
                rooms[lane] = vec![0xa5; wrong];
                let mut jobs: Vec<_> = rooms
                    .iter_mut()
                    .map(|dst| beam_simd::SealJob {
                        key: &key.packet,
                        packet_number: 0,
                        header: &[],
                        plaintext: &[0; 100],
                        dst,
                    })
                    .collect();
                assert!(catch_unwind(AssertUnwindSafe(|| seal_batch(level, &mut jobs))).is_err());
                assert!(
                    rooms.concat().iter().all(|byte| *byte == 0xa5),
                    "{cipher:?} at {level}, lane {lane}"
                );
            }
        }
    }
}
