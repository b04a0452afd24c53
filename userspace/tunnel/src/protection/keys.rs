//! The keys that rustls hands to quinn: eager with ring, unless the thread is in one of the engine's scopes.

use super::context::{self, Opened};
use rustls::Error;
use rustls::quic::{self, Tag};
use simd::{Cipher, SAMPLE_BYTES, TAG_BYTES};
use std::sync::Arc;

const LONG_HEADER_FORM: u8 = 0x80;
const PACKET_NUMBER_LENGTH: u8 = 0x03;
pub(super) const KEY_PHASE: u8 = 0x04;

fn is_short(first: u8) -> bool {
    first & LONG_HEADER_FORM == 0
}

/// Seals or opens the packets of one level, direction and key phase.
pub(super) struct PacketKey {
    key: Arc<simd::PacketKey>,
}

impl PacketKey {
    pub(super) fn new(key: simd::PacketKey) -> Self {
        Self { key: Arc::new(key) }
    }

    fn open_eagerly<'a>(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        let length = self.key.open_in_place(packet_number, header, payload).ok_or(Error::DecryptError)?;
        if let Some(&first) = header.first().filter(|&&first| is_short(first)) {
            context::opened_eagerly(&self.key, packet_number, first & KEY_PHASE != 0);
        }
        Ok(&payload[..length])
    }
}

impl quic::PacketKey for PacketKey {
    fn encrypt_in_place(&self, packet_number: u64, header: &[u8], payload: &mut [u8]) -> Result<Tag, Error> {
        let packet_bytes = header.len() + payload.len() + TAG_BYTES;
        if header.first().is_some_and(|&first| is_short(first))
            && context::note_plain(&self.key, packet_number, header.len(), packet_bytes)
        {
            return Ok(Tag::from(&[0; TAG_BYTES][..]));
        }
        let tag = self.key.seal_in_place(packet_number, header, payload).ok_or(Error::EncryptError)?;
        context::note_protected(packet_bytes);
        Ok(Tag::from(&tag[..]))
    }

    fn decrypt_in_place<'a>(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        let Some(plain_bytes) = payload.len().checked_sub(TAG_BYTES) else { return Err(Error::DecryptError) };
        if !header.first().is_some_and(|&first| is_short(first)) {
            return self.open_eagerly(packet_number, header, payload);
        }
        match context::verdict(&self.key, packet_number) {
            Opened::Authentic => Ok(&payload[..plain_bytes]),
            Opened::Forged => Err(Error::DecryptError),
            Opened::Eagerly => self.open_eagerly(packet_number, header, payload),
            Opened::AfterRestoring(key, number) => {
                // All three ciphers xor a key stream: what has opened the packet closes it again, to the last bit. The
                // tag behind it was never touched.
                key.seal_in_place(number, header, &mut payload[..plain_bytes]).ok_or(Error::DecryptError)?;
                self.open_eagerly(packet_number, header, payload)
            }
        }
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    // Packets that one key may seal, and forgeries that it may refuse (RFC 9001 section 6.6).
    fn confidentiality_limit(&self) -> u64 {
        match self.key.cipher() {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => 1 << 23,
            // Above the number of packets that there can be.
            Cipher::ChaCha20Poly1305 => u64::MAX,
        }
    }

    fn integrity_limit(&self) -> u64 {
        match self.key.cipher() {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => 1 << 52,
            Cipher::ChaCha20Poly1305 => 1 << 36,
        }
    }
}

/// Protects the headers of one level and direction.
pub(super) struct HeaderKey {
    key: Arc<simd::HeaderKey>,
}

impl HeaderKey {
    pub(super) fn new(key: simd::HeaderKey) -> Self {
        Self { key: Arc::new(key) }
    }

    fn mask(&self, sample: &[u8], packet_number: &[u8]) -> Result<[u8; simd::MASK_BYTES], Error> {
        let Ok(sample) = <&[u8; SAMPLE_BYTES]>::try_from(sample) else {
            return Err(Error::General(format!("a sample of {} bytes, not {SAMPLE_BYTES}", sample.len())));
        };
        if packet_number.len() >= simd::MASK_BYTES {
            return Err(Error::General(format!("a packet number of {} bytes", packet_number.len())));
        }
        Ok(self.key.mask(sample))
    }
}

/// RFC 9001 section 5.4.1; `unmasked` is the first byte without protection, whichever way it goes.
fn apply(mask: &[u8], first: &mut u8, packet_number: &mut [u8], unmasked: impl Fn(u8, u8) -> u8) {
    let masked = *first ^ (mask[0] & simd::protected_bits(*first));
    let length = usize::from(unmasked(*first, masked) & PACKET_NUMBER_LENGTH) + 1;
    *first = masked;
    for (byte, mask) in packet_number.iter_mut().take(length).zip(&mask[1..]) {
        *byte ^= mask;
    }
}

impl quic::HeaderProtectionKey for HeaderKey {
    fn encrypt_in_place(&self, sample: &[u8], first: &mut u8, packet_number: &mut [u8]) -> Result<(), Error> {
        let length = usize::from(*first & PACKET_NUMBER_LENGTH) + 1;
        if is_short(*first) && context::note_header(&self.key, length) {
            return Ok(());
        }
        let mask = self.mask(sample, packet_number)?;
        apply(&mask, first, packet_number, |before, _| before);
        Ok(())
    }

    fn decrypt_in_place(&self, sample: &[u8], first: &mut u8, packet_number: &mut [u8]) -> Result<(), Error> {
        if is_short(*first) && context::header_is_plain(&self.key) {
            return Ok(());
        }
        let mask = self.mask(sample, packet_number)?;
        apply(&mask, first, packet_number, |_, after| after);
        Ok(())
    }

    fn sample_len(&self) -> usize {
        SAMPLE_BYTES
    }
}
