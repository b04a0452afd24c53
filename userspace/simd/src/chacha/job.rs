//! What sealing and opening have in common: all but where the authenticated bytes lie and what becomes of the tag.

use crate::{OpenJob, PacketKey, SealJob, TAG_BYTES};

/// A packet to encrypt or to decrypt.
pub(super) trait Job {
    fn key(&self) -> &PacketKey;
    fn packet_number(&self) -> u64;
    fn header(&self) -> &[u8];
    /// Bytes of the payload.
    fn text_bytes(&self) -> usize;
    /// The ciphertext without its tag. When sealing, it is there as far as the keystream has come.
    fn ciphertext(&self) -> &[u8];
    /// What the keystream is xored with, and what takes the result.
    fn source_and_target(&mut self) -> (&[u8], &mut [u8]);
    /// Leaves the tag, or compares it.
    fn finish(&mut self, tag: [u8; TAG_BYTES]);
}

impl Job for SealJob<'_> {
    #[inline(always)]
    fn key(&self) -> &PacketKey {
        self.key
    }

    #[inline(always)]
    fn packet_number(&self) -> u64 {
        self.packet_number
    }

    #[inline(always)]
    fn header(&self) -> &[u8] {
        self.header
    }

    #[inline(always)]
    fn text_bytes(&self) -> usize {
        self.plaintext.len()
    }

    #[inline(always)]
    fn ciphertext(&self) -> &[u8] {
        &self.dst[..self.plaintext.len()]
    }

    #[inline(always)]
    fn source_and_target(&mut self) -> (&[u8], &mut [u8]) {
        (self.plaintext, &mut self.dst[..self.plaintext.len()])
    }

    #[inline(always)]
    fn finish(&mut self, tag: [u8; TAG_BYTES]) {
        self.dst[self.plaintext.len()..].copy_from_slice(&tag);
    }
}

impl Job for OpenJob<'_> {
    #[inline(always)]
    fn key(&self) -> &PacketKey {
        self.key
    }

    #[inline(always)]
    fn packet_number(&self) -> u64 {
        self.packet_number
    }

    #[inline(always)]
    fn header(&self) -> &[u8] {
        self.header
    }

    #[inline(always)]
    fn text_bytes(&self) -> usize {
        self.dst.len()
    }

    #[inline(always)]
    fn ciphertext(&self) -> &[u8] {
        &self.ciphertext[..self.dst.len()]
    }

    #[inline(always)]
    fn source_and_target(&mut self) -> (&[u8], &mut [u8]) {
        (&self.ciphertext[..self.dst.len()], self.dst)
    }

    #[inline(always)]
    fn finish(&mut self, tag: [u8; TAG_BYTES]) {
        let Some(seen) = self.ciphertext.last_chunk::<TAG_BYTES>() else {
            unreachable!("checked by the batch")
        };
        // All bits of the difference at once; only the verdict, which is public, is branched on.
        self.authentic = u128::from_ne_bytes(*seen) ^ u128::from_ne_bytes(tag) == 0;
    }
}
