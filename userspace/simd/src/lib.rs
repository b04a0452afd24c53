//! QUIC packet protection (RFC 9001 section 5) in batches, across connections, out of place.
//!
//! ```text
//!   SealJob{key, pn, header, plaintext, dst}  ─┐                        ┌─► gcm     AES-128-GCM, AES-256-GCM
//!   OpenJob{key, pn, header, ciphertext, dst} ─┼─► seal/open/mask_batch ┼─► chacha  ChaCha20-Poly1305
//!   MaskJob{key, sample, mask}                ─┘     by Level           └─► ring    one by one
//! ```
//!
//! A [`Level`] says which implementation runs; it can only name what this CPU has. Every level gives the same bytes,
//! and ring's are the reference. Nothing here branches or indexes on secrets; keys are zeroized when dropped.
#![expect(unsafe_code, reason = "vector loads and stores, each inside a slice that was measured before")]

mod batch;
mod chacha;
mod gcm;
mod job;
mod key;
mod level;
mod wiped;

pub use batch::{mask_batch, open_batch, seal_batch};
pub use job::{MaskJob, OpenJob, SealJob};
pub use key::{Cipher, HeaderKey, PacketKey};
pub use level::{Level, LevelError};

/// Bytes of an authentication tag: the same for all three ciphers (RFC 5116 section 5, RFC 8439 section 2.8).
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce (RFC 9001 section 5.3).
pub const NONCE_BYTES: usize = 12;
/// Bytes of a header-protection sample (RFC 9001 section 5.4.2).
pub const SAMPLE_BYTES: usize = 16;
/// Bytes of a header-protection mask (RFC 9001 section 5.4.1).
pub const MASK_BYTES: usize = 5;
