//! Keys: short. What ring and the batches need of them is made when they are used, and kept for a bounded number of
//! them: see [`crate::expanded`].

use crate::{
    MASK_BYTES, NONCE_BYTES, SAMPLE_BYTES, TAG_BYTES,
    expanded::{self, Place},
    gcm,
    wiped::Wiped,
};
use ring::aead::{self, quic};
use std::{fmt, rc::Rc};
use zeroize::Zeroize;

/// Bytes of the longest key.
const KEY_BYTES_MAX: usize = 32;

/// The AEADs of QUIC version 1 that TLS 1.3 negotiates (RFC 9001 section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cipher {
    /// AEAD_AES_128_GCM, AES-128 header protection.
    Aes128Gcm,
    /// AEAD_AES_256_GCM, AES-256 header protection.
    Aes256Gcm,
    /// AEAD_CHACHA20_POLY1305, ChaCha20 header protection.
    ChaCha20Poly1305,
}

impl Cipher {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// Bytes of a packet key, and of a header-protection key.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// The name, as benches and `status` print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "aes128gcm",
            Self::Aes256Gcm => "aes256gcm",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
        }
    }

    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    fn header(self) -> &'static quic::Algorithm {
        match self {
            Self::Aes128Gcm => &quic::AES_128,
            Self::Aes256Gcm => &quic::AES_256,
            Self::ChaCha20Poly1305 => &quic::CHACHA20,
        }
    }
}

/// Key bytes as they came, wiped when dropped.
struct Secret([u8; KEY_BYTES_MAX]);

impl Secret {
    fn new(cipher: Cipher, key: &[u8]) -> Self {
        let len = cipher.key_bytes();
        assert_eq!(key.len(), len, "a key of {} has {len} bytes", cipher.name());
        let mut bytes = [0; KEY_BYTES_MAX];
        bytes[..len].copy_from_slice(key);
        Self(bytes)
    }

    fn as_slice(&self, cipher: Cipher) -> &[u8] {
        &self.0[..cipher.key_bytes()]
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

// Four of them, two of each, are what a connection keeps for its present keys.
const _: () = assert!(size_of::<PacketKey>() == 64 && size_of::<HeaderKey>() == 56);

/// Seals or opens the packets of one key phase in one direction.
///
/// What ring and the batches need is derived from the short key when it is used, so that an idle key costs little.
pub struct PacketKey {
    place: Place,
    key: Secret,
    iv: [u8; NONCE_BYTES],
    cipher: Cipher,
}

impl PacketKey {
    /// A key from the bytes that TLS derived (RFC 9001 section 5.1).
    ///
    /// # Panics
    /// If `key` isn't [`Cipher::key_bytes`] long.
    #[must_use]
    pub fn new(cipher: Cipher, key: &[u8], iv: [u8; NONCE_BYTES]) -> Self {
        Self { place: Place::new(), key: Secret::new(cipher, key), iv, cipher }
    }

    /// Which AEAD.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    pub(crate) fn secret(&self) -> &[u8] {
        self.key.as_slice(self.cipher)
    }

    /// The nonce of a packet: the IV with the packet number xored into its end (RFC 9001 section 5.3).
    #[inline]
    #[must_use]
    pub(crate) fn nonce(&self, packet_number: u64) -> [u8; NONCE_BYTES] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(packet_number.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// Its expansion, which lives as long as it is held. The batches ask it for [`Self::gcm`].
    #[inline]
    pub(crate) fn expanded(&self) -> Rc<expanded::Packet> {
        self.place.packet()
    }

    /// The state of the AES-GCM batches; for AES-GCM keys only.
    #[inline]
    pub(crate) fn gcm<'a>(&self, expanded: &'a expanded::Packet) -> &'a gcm::PacketState {
        expanded.gcm.get_or_init(|| Wiped::new(gcm::PacketState::new(self.cipher, self.secret())))
    }

    fn ring<'a>(&self, expanded: &'a expanded::Packet) -> &'a aead::LessSafeKey {
        expanded.ring.get_or_init(|| {
            // The length was checked when the key was made, and it is ring's only complaint.
            let Ok(key) = aead::UnboundKey::new(self.cipher.aead(), self.secret()) else {
                unreachable!("a key of the right length")
            };
            Wiped::new(aead::LessSafeKey::new(key))
        })
    }

    /// The eager path: seals one packet in place with ring. `None` if it is longer than the AEAD allows.
    #[must_use]
    pub fn seal_in_place(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        let nonce = aead::Nonce::assume_unique_for_key(self.nonce(packet_number));
        let expanded = self.expanded();
        let ring = self.ring(&expanded);
        let tag = ring.seal_in_place_separate_tag(nonce, aead::Aad::from(header), payload).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// The eager path: opens one packet in place with ring. The payload's length, or `None` for a forgery.
    #[must_use]
    pub fn open_in_place(&self, packet_number: u64, header: &[u8], payload: &mut [u8]) -> Option<usize> {
        let nonce = aead::Nonce::assume_unique_for_key(self.nonce(packet_number));
        let expanded = self.expanded();
        let opened = self.ring(&expanded).open_in_place(nonce, aead::Aad::from(header), payload).ok()?;
        Some(opened.len())
    }

    /// As [`Self::open_in_place`], with the tag apart.
    pub(crate) fn open_separate_tag(
        &self,
        packet_number: u64,
        header: &[u8],
        ciphertext: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> bool {
        let nonce = aead::Nonce::assume_unique_for_key(self.nonce(packet_number));
        let expanded = self.expanded();
        let opened = self.ring(&expanded).open_in_place_separate_tag(
            nonce,
            aead::Aad::from(header),
            tag.into(),
            ciphertext,
            0..,
        );
        opened.is_ok()
    }
}

impl Drop for PacketKey {
    fn drop(&mut self) {
        self.place.forget_packet();
        self.iv.zeroize();
    }
}

impl fmt::Debug for PacketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketKey({}, ..)", self.cipher.name())
    }
}

/// Masks the headers of one direction of a connection; it outlives key updates (RFC 9001 section 5.4).
pub struct HeaderKey {
    place: Place,
    key: Secret,
    cipher: Cipher,
}

impl HeaderKey {
    /// A key from the bytes that TLS derived.
    ///
    /// # Panics
    /// If `key` isn't [`Cipher::key_bytes`] long.
    #[must_use]
    pub fn new(cipher: Cipher, key: &[u8]) -> Self {
        Self { place: Place::new(), key: Secret::new(cipher, key), cipher }
    }

    /// Which AEAD it belongs to.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    pub(crate) fn secret(&self) -> &[u8] {
        self.key.as_slice(self.cipher)
    }

    /// Its expansion, which lives as long as it is held. The batches ask it for [`Self::gcm`].
    #[inline]
    pub(crate) fn expanded(&self) -> Rc<expanded::Header> {
        self.place.header()
    }

    /// The state of the AES mask batches; for AES keys only.
    #[inline]
    pub(crate) fn gcm<'a>(&self, expanded: &'a expanded::Header) -> &'a gcm::HeaderState {
        expanded.gcm.get_or_init(|| Wiped::new(gcm::HeaderState::new(self.cipher, self.secret())))
    }

    /// The eager path: one mask by ring.
    #[must_use]
    pub fn mask(&self, sample: &[u8; SAMPLE_BYTES]) -> [u8; MASK_BYTES] {
        let expanded = self.expanded();
        let ring = expanded.ring.get_or_init(|| {
            let Ok(key) = quic::HeaderProtectionKey::new(self.cipher.header(), self.secret()) else {
                unreachable!("a key of the right length")
            };
            Wiped::new(key)
        });
        match ring.new_mask(sample) {
            Ok(mask) => mask,
            Err(ring::error::Unspecified) => unreachable!("a sample of the right length"),
        }
    }
}

impl Drop for HeaderKey {
    fn drop(&mut self) {
        self.place.forget_header();
    }
}

impl fmt::Debug for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeaderKey({}, ..)", self.cipher.name())
    }
}
