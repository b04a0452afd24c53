//! What a batch is made of. Sources and destinations are different memory by type, so a batch never works in place.

use crate::{HeaderKey, MASK_BYTES, PacketKey, SAMPLE_BYTES, TAG_BYTES};

/// One packet to seal.
///
/// Invariant, checked by the batch: `dst` is exactly [`TAG_BYTES`] longer than `plaintext`.
#[derive(Debug)]
pub struct SealJob<'a> {
    /// The connection's sending key.
    pub key: &'a PacketKey,
    /// The full packet number, which makes the nonce.
    pub packet_number: u64,
    /// The header, unprotected: the additional authenticated data.
    pub header: &'a [u8],
    /// The payload.
    pub plaintext: &'a [u8],
    /// Takes the ciphertext and, behind it, the tag.
    pub dst: &'a mut [u8],
}

/// One packet to open.
///
/// Invariant, checked by the batch: `dst` is exactly [`TAG_BYTES`] shorter than `ciphertext`.
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// The connection's receiving key.
    pub key: &'a PacketKey,
    /// The full packet number, which makes the nonce.
    pub packet_number: u64,
    /// The header, unprotected: the additional authenticated data.
    pub header: &'a [u8],
    /// The ciphertext and, behind it, the tag.
    pub ciphertext: &'a [u8],
    /// Takes the payload. When `authentic` comes back false it holds what the cipher made of a forgery, which
    /// nobody may look at.
    pub dst: &'a mut [u8],
    /// The batch's verdict: whether the tag was right.
    pub authentic: bool,
}

/// One header-protection mask to compute.
#[derive(Debug)]
pub struct MaskJob<'a> {
    /// The connection's header-protection key.
    pub key: &'a HeaderKey,
    /// Sixteen bytes of ciphertext (RFC 9001 section 5.4.2).
    pub sample: [u8; SAMPLE_BYTES],
    /// The batch's answer.
    pub mask: [u8; MASK_BYTES],
}

impl SealJob<'_> {
    pub(crate) fn check(&self) {
        assert_eq!(self.dst.len(), self.plaintext.len() + TAG_BYTES, "seal: room for ciphertext and tag");
    }
}

impl OpenJob<'_> {
    pub(crate) fn check(&self) {
        assert_eq!(self.dst.len() + TAG_BYTES, self.ciphertext.len(), "open: room for the payload");
    }
}
