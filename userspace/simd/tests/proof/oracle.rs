//! The reference: ring called directly, with a nonce of our own making, so that it shares nothing with `beam_simd`.

use beam_simd::{Cipher, HeaderKey, MASK_BYTES, NONCE_BYTES, PacketKey, SAMPLE_BYTES};
use rand::{Rng, rngs::StdRng};
use ring::aead::{self, quic};

/// A packet key on both sides of the comparison.
pub(crate) struct Key {
    /// The side under test.
    pub(crate) packet: PacketKey,
    iv: [u8; NONCE_BYTES],
    ring: aead::LessSafeKey,
}

impl Key {
    pub(crate) fn new(cipher: Cipher, key: &[u8], iv: [u8; NONCE_BYTES]) -> Self {
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &aead::AES_128_GCM,
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let ring =
            aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).expect("a key of its length"));
        Self { packet: PacketKey::new(cipher, key, iv), iv, ring }
    }

    pub(crate) fn random(cipher: Cipher, rng: &mut StdRng) -> Self {
        let mut iv = [0; NONCE_BYTES];
        rng.fill_bytes(&mut iv);
        Self::new(cipher, &bytes(rng, cipher.key_bytes()), iv)
    }

    /// "The 62 bits of the reconstructed QUIC packet number in network byte order are left-padded with zeros to the
    /// size of the IV. The exclusive OR of the padded packet number and the IV forms the AEAD nonce." (RFC 9001 5.3)
    fn nonce(&self, packet_number: u64) -> aead::Nonce {
        let mut padded = [0; NONCE_BYTES];
        padded[NONCE_BYTES - 8..].copy_from_slice(&packet_number.to_be_bytes());
        aead::Nonce::assume_unique_for_key(std::array::from_fn(|at| padded[at] ^ self.iv[at]))
    }

    /// Ciphertext and tag.
    pub(crate) fn seal(&self, packet_number: u64, header: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = plaintext.to_vec();
        let nonce = self.nonce(packet_number);
        self.ring
            .seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut sealed)
            .expect("short enough");
        sealed
    }

    /// The payload, unless the packet is a forgery.
    pub(crate) fn open(&self, packet_number: u64, header: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut opened = sealed.to_vec();
        let nonce = self.nonce(packet_number);
        let len = self.ring.open_in_place(nonce, aead::Aad::from(header), &mut opened).ok()?.len();
        opened.truncate(len);
        Some(opened)
    }
}

/// A header-protection key on both sides.
pub(crate) struct Mask {
    /// The side under test.
    pub(crate) header: HeaderKey,
    ring: quic::HeaderProtectionKey,
}

impl Mask {
    pub(crate) fn new(cipher: Cipher, key: &[u8]) -> Self {
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &quic::AES_128,
            Cipher::Aes256Gcm => &quic::AES_256,
            Cipher::ChaCha20Poly1305 => &quic::CHACHA20,
        };
        let ring = quic::HeaderProtectionKey::new(algorithm, key).expect("a key of its length");
        Self { header: HeaderKey::new(cipher, key), ring }
    }

    pub(crate) fn random(cipher: Cipher, rng: &mut StdRng) -> Self {
        Self::new(cipher, &bytes(rng, cipher.key_bytes()))
    }

    pub(crate) fn mask(&self, sample: &[u8; SAMPLE_BYTES]) -> [u8; MASK_BYTES] {
        self.ring.new_mask(sample).expect("a sample of its length")
    }
}

/// `len` random bytes.
pub(crate) fn bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}
