//! ring's TLS 1.3 suites with our packet protection in the place of its QUIC half, and a window in their HKDF through
//! which [`crate::resume`] sees the secrets of tickets.
//!
//! It is the only place where QUIC's key bytes can be had: rustls' secrets are opaque, and it offers no extraction for
//! QUIC. It calls `packet_key` and `header_protection_key` for every level and every key update.

use super::keys::{HeaderKey, PacketKey};
use crate::resume::hkdf::Windowed;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::crypto::ring::cipher_suite;
use rustls::{SupportedCipherSuite, Tls13CipherSuite, quic};
use simd::Cipher;
use std::sync::OnceLock;

/// Makes the keys of one suite.
struct Algorithm(Cipher);

static AES_128: Algorithm = Algorithm(Cipher::Aes128Gcm);
static AES_256: Algorithm = Algorithm(Cipher::Aes256Gcm);
static CHACHA20: Algorithm = Algorithm(Cipher::ChaCha20Poly1305);

impl quic::Algorithm for Algorithm {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn quic::PacketKey> {
        let mut nonce = [0; simd::NONCE_BYTES];
        nonce.copy_from_slice(iv.as_ref());
        Box::new(PacketKey::new(simd::PacketKey::new(self.0, key.as_ref(), nonce)))
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn quic::HeaderProtectionKey> {
        Box::new(HeaderKey::new(simd::HeaderKey::new(self.0, key.as_ref())))
    }

    fn aead_key_len(&self) -> usize {
        self.0.key_bytes()
    }
}

/// AES-128-GCM, AES-256-GCM and ChaCha20-Poly1305, in this order.
pub(crate) fn suites() -> &'static [SupportedCipherSuite; 3] {
    static SUITES: OnceLock<[SupportedCipherSuite; 3]> = OnceLock::new();
    SUITES.get_or_init(|| {
        [
            ours(cipher_suite::TLS13_AES_128_GCM_SHA256, &AES_128),
            ours(cipher_suite::TLS13_AES_256_GCM_SHA384, &AES_256),
            ours(cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, &CHACHA20),
        ]
    })
}

/// ring's suite with another QUIC half. Made once a process and suite, so leaking it costs nothing.
fn ours(suite: SupportedCipherSuite, quic: &'static Algorithm) -> SupportedCipherSuite {
    let Some(ring) = suite.tls13() else { unreachable!("a TLS 1.3 suite") };
    let common = rustls::crypto::CipherSuiteCommon { ..ring.common };
    let hkdf_provider = Box::leak(Box::new(Windowed(ring.hkdf_provider)));
    let ours = Tls13CipherSuite { common, hkdf_provider, quic: Some(quic), ..*ring };
    SupportedCipherSuite::Tls13(Box::leak(Box::new(ours)))
}
