//! Goal: the known answers and known attacks of Project Wycheproof hold in every lane. Method: each AES-GCM vector of a
//! 96-bit nonce and a 128-bit tag, and each ChaCha20-Poly1305 vector, takes each place in batches of 1 to 8 among
//! random other packets. Packet number 0 makes the IV the nonce. Sealing is compared with the valid vectors only.

use crate::levels;
use crate::oracle::{Key, bytes};
use crate::packet::{Packet, open, seals_like_ring};
use beam_simd::Cipher;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wycheproof::{TestResult, aead::*};

const SEED: u64 = 0x5779_6368;
const BATCH_LEN_MAX: usize = 8;

fn cipher_of(name: TestName, group: &TestGroup) -> Option<Cipher> {
    if (group.nonce_size, group.tag_size) != (96, 128) {
        return None;
    }
    match (name, group.key_size) {
        (TestName::AesGcm, 128) => Some(Cipher::Aes128Gcm),
        (TestName::AesGcm, 256) => Some(Cipher::Aes256Gcm),
        (TestName::ChaCha20Poly1305, 256) => Some(Cipher::ChaCha20Poly1305),
        _ => None,
    }
}

fn check(rng: &mut StdRng, others: &[Key], cipher: Cipher, vector: &Test) {
    let iv = vector.nonce[..].try_into().expect("a nonce of 96 bits");
    let key = Key::new(cipher, &vector.key, iv);
    let is_valid = match vector.result {
        TestResult::Valid => true,
        TestResult::Invalid => false,
        TestResult::Acceptable => panic!("vector {}: no AEAD vector is a matter of taste", vector.tc_id),
    };
    for size in 1..=BATCH_LEN_MAX {
        for lane in 0..size {
            let mut packets: Vec<Packet<'_>> = (0..size)
                .map(|_| {
                    let other = &others[rng.random_range(0..others.len())];
                    let (header, plaintext) = (bytes(rng, size), bytes(rng, size * 11));
                    Packet::new(other, lane as u64, &header, &plaintext)
                })
                .collect();
            packets[lane] = Packet::new(&key, 0, &vector.aad, &vector.pt);
            let sealed = [&vector.ct[..], &vector.tag].concat();
            for level in levels() {
                if is_valid {
                    assert_eq!(packets[lane].sealed, sealed, "vector {}: ring itself", vector.tc_id);
                    seals_like_ring(level, &packets);
                }
            }
            packets[lane].sealed.clone_from(&sealed);
            for level in levels() {
                let opened = open(level, &packets);
                for (at, (packet, opened)) in packets.iter().zip(opened).enumerate() {
                    let expected = (at != lane || is_valid).then(|| packet.plaintext.clone());
                    let id = vector.tc_id;
                    assert!(
                        opened == expected,
                        "vector {id} at {level}, lane {at}, placed in {lane} of {size}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_vector_in_every_lane() {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut counts = [[0_usize; 2]; 3];
    for name in [TestName::AesGcm, TestName::ChaCha20Poly1305] {
        let set = TestSet::load(name).expect("the crate's own vectors");
        for group in &set.test_groups {
            let Some(cipher) = cipher_of(name, group) else { continue };
            let others: Vec<Key> = (0..4).map(|_| Key::random(cipher, &mut rng)).collect();
            for vector in &group.tests {
                check(&mut rng, &others, cipher, vector);
                counts[cipher as usize][usize::from(vector.result.must_fail())] += 1;
            }
        }
    }
    println!("seed {SEED}, [valid, invalid] vectors of each cipher: {counts:?}");
    assert!(counts.iter().flatten().all(|count| *count >= 20), "vectors are missing: {counts:?}");
}
