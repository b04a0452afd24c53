//! A cipher that does nothing, to see what is left: tags are zero, headers stay plain, every packet is genuine.

use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey, Tag};
use rustls::{
    Error, SupportedCipherSuite, Tls13CipherSuite,
    crypto::{
        CipherSuiteCommon,
        cipher::{AeadKey, Iv},
    },
};

const TAG_BYTES: usize = 16;

/// `suite` with nothing for its packet protection. It lives as long as the process, as rustls wants it.
pub(super) fn without_protection(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let Some(suite) = suite.tls13() else { return suite };
    let common = &suite.common;
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: common.suite,
            hash_provider: common.hash_provider,
            confidentiality_limit: common.confidentiality_limit,
        },
        hkdf_provider: suite.hkdf_provider,
        aead_alg: suite.aead_alg,
        quic: suite.quic.map(|quic| {
            let null: &'static dyn Algorithm = Box::leak(Box::new(Null { key_bytes: quic.aead_key_len() }));
            null
        }),
    })))
}

struct Null {
    key_bytes: usize,
}

impl Algorithm for Null {
    fn packet_key(&self, _: AeadKey, _: Iv) -> Box<dyn PacketKey> {
        Box::new(Plain)
    }

    fn header_protection_key(&self, _: AeadKey) -> Box<dyn HeaderProtectionKey> {
        Box::new(Plain)
    }

    fn aead_key_len(&self) -> usize {
        self.key_bytes
    }
}

struct Plain;

impl PacketKey for Plain {
    fn encrypt_in_place(&self, _: u64, _: &[u8], _: &mut [u8]) -> Result<Tag, Error> {
        Ok(Tag::from(&[0; TAG_BYTES][..]))
    }

    fn decrypt_in_place<'a>(&self, _: u64, _: &[u8], payload: &'a mut [u8]) -> Result<&'a [u8], Error> {
        let len = payload.len().checked_sub(TAG_BYTES).ok_or(Error::DecryptError)?;
        Ok(&payload[..len])
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

impl HeaderProtectionKey for Plain {
    fn encrypt_in_place(&self, _: &[u8], _: &mut u8, _: &mut [u8]) -> Result<(), Error> {
        Ok(())
    }

    fn decrypt_in_place(&self, _: &[u8], _: &mut u8, _: &mut [u8]) -> Result<(), Error> {
        Ok(())
    }

    fn sample_len(&self) -> usize {
        TAG_BYTES
    }
}
