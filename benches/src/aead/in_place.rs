//! ring and aws-lc-rs, in place, packet by packet, as rustls and quinn call them.

use super::{Case, HEADER_BYTES, Op, PACKETS, apply_mask, number, timed};
use simd::{Cipher, MASK_BYTES, NONCE_BYTES, SAMPLE_BYTES, TAG_BYTES};

/// One library's keys of one connection.
pub(super) trait InPlace {
    fn new(cipher: Cipher, key: &[u8], header_key: &[u8]) -> Self;
    fn seal(&self, nonce: [u8; NONCE_BYTES], header: &[u8], payload: &mut [u8]) -> [u8; TAG_BYTES];
    fn open(&self, nonce: [u8; NONCE_BYTES], header: &[u8], payload: &mut [u8]) -> bool;
    fn mask(&self, sample: &[u8]) -> [u8; MASK_BYTES];
}

/// The two libraries have the same interface by design, and different types.
macro_rules! in_place {
    ($name:ident, $library:ident) => {
        pub(super) struct $name {
            packet: $library::aead::LessSafeKey,
            header: $library::aead::quic::HeaderProtectionKey,
        }

        impl InPlace for $name {
            fn new(cipher: Cipher, key: &[u8], header_key: &[u8]) -> Self {
                use $library::aead::{self, quic};
                let (packet, header) = match cipher {
                    Cipher::Aes128Gcm => (&aead::AES_128_GCM, &quic::AES_128),
                    Cipher::Aes256Gcm => (&aead::AES_256_GCM, &quic::AES_256),
                    Cipher::ChaCha20Poly1305 => (&aead::CHACHA20_POLY1305, &quic::CHACHA20),
                };
                let packet = aead::UnboundKey::new(packet, key).expect("a key of the right length");
                let header = quic::HeaderProtectionKey::new(header, header_key).expect("as well");
                Self { packet: aead::LessSafeKey::new(packet), header }
            }

            #[inline]
            fn seal(&self, nonce: [u8; NONCE_BYTES], header: &[u8], payload: &mut [u8]) -> [u8; TAG_BYTES] {
                use $library::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = self.packet.seal_in_place_separate_tag(nonce, Aad::from(header), payload);
                tag.expect("short").as_ref().try_into().expect("16 bytes")
            }

            #[inline]
            fn open(&self, nonce: [u8; NONCE_BYTES], header: &[u8], payload: &mut [u8]) -> bool {
                use $library::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                self.packet.open_in_place(nonce, Aad::from(header), payload).is_ok()
            }

            #[inline]
            fn mask(&self, sample: &[u8]) -> [u8; MASK_BYTES] {
                self.header.new_mask(sample).expect("a sample of 16 bytes")
            }
        }
    };
}

in_place!(Ring, ring);
#[cfg(feature = "aws-lc")]
in_place!(AwsLc, aws_lc_rs);

/// What ring makes of every packet of `case`: the reference for all.
pub(super) fn reference(case: &Case) -> Vec<Vec<u8>> {
    let (keys, ivs) = keys::<Ring>(case);
    (0..PACKETS)
        .map(|packet| {
            let mut bytes = case.plain(packet);
            let key = case.key_of(packet);
            protect(&keys[key], &ivs[key], packet, &mut bytes, case.op == Op::Protect);
            bytes
        })
        .collect()
}

pub(super) fn with_pass<K: InPlace>(case: &Case, measure: &mut dyn FnMut(&mut dyn FnMut() -> u64)) {
    let (keys, ivs) = keys::<K>(case);
    let sealed = reference(case);
    let plain: Vec<_> = (0..PACKETS).map(|packet| case.plain(packet)).collect();
    let (fresh, expected) = if case.op == Op::Open { (&sealed, &plain) } else { (&plain, &sealed) };
    let mut packets = fresh.clone();

    let mut pass = || {
        for (packet, fresh) in packets.iter_mut().zip(fresh) {
            packet.copy_from_slice(fresh);
        }
        let mut authentic = true;
        let ticks = timed(|| {
            for (index, bytes) in packets.iter_mut().enumerate() {
                let (key, iv) = (&keys[case.key_of(index)], &ivs[case.key_of(index)]);
                match case.op {
                    Op::Open => authentic &= open(key, iv, index, bytes),
                    op => protect(key, iv, index, bytes, op == Op::Protect),
                }
            }
        });
        assert!(authentic, "{case}: a genuine packet was refused");
        ticks
    };
    pass();
    measure(&mut pass);
    for (packet, expected) in packets.iter().zip(expected) {
        let len = packet.len() - if case.op == Op::Open { TAG_BYTES } else { 0 };
        assert_eq!(packet[..len], expected[..len], "{case}: not what ring makes");
    }
}

fn keys<K: InPlace>(case: &Case) -> (Vec<K>, Vec<[u8; NONCE_BYTES]>) {
    case.materials()
        .map(|material| (K::new(case.cipher, &material.key, &material.header_key), material.iv))
        .unzip()
}

fn protect<K: InPlace>(key: &K, iv: &[u8; NONCE_BYTES], packet: usize, bytes: &mut [u8], header_too: bool) {
    let (header, rest) = bytes.split_at_mut(HEADER_BYTES);
    let (payload, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
    tag.copy_from_slice(&key.seal(nonce(iv, packet), header, payload));
    if header_too {
        apply_mask(header, key.mask(&rest[..SAMPLE_BYTES]));
    }
}

fn open<K: InPlace>(key: &K, iv: &[u8; NONCE_BYTES], packet: usize, bytes: &mut [u8]) -> bool {
    let (header, payload) = bytes.split_at_mut(HEADER_BYTES);
    key.open(nonce(iv, packet), header, payload)
}

fn nonce(iv: &[u8; NONCE_BYTES], packet: usize) -> [u8; NONCE_BYTES] {
    let mut nonce = *iv;
    for (byte, number) in nonce[4..].iter_mut().zip(number(packet).to_be_bytes()) {
        *byte ^= number;
    }
    nonce
}
