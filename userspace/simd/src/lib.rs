//! QUIC packet protection (RFC 9001 section 5) in batches, across connections, out of place.
//!
//! ```text
//!   SealJob{key, pn, header, plaintext, dst}  ─┐                        ┌─► gcm     AES-128-GCM, AES-256-GCM
//!   OpenJob{key, pn, header, ciphertext, dst} ─┼─► seal/open/mask_batch ┼─► chacha  ChaCha20-Poly1305
//!   MaskJob{key, sample, mask}                ─┘     by Level           └─► ring    one by one
//! ```
//!
//! [`Guard`] is what tunnels use: the batches under a canary, and [`Guard::protect`], which makes [`Sealed`] buffers, the
//! only thing that ports send.
//!
//! A [`Level`] says which implementation runs; it can only name what this CPU has. Every level gives the same bytes,
//! and ring's are the reference. Nothing here branches or indexes on secrets; keys are zeroized when dropped.
#![expect(unsafe_code, reason = "vector loads and stores, each inside a slice that was measured before")]

mod batch;
mod chacha;
mod expanded;
mod gcm;
mod guard;
mod job;
mod key;
mod level;
mod protect;
mod selftest;
pub mod validate;
mod wiped;

pub use batch::{mask_batch, open_batch, seal_batch};
pub use expanded::{expanded_keys, release_idle_keys};
pub use guard::{CANARY_INTERVAL_PACKETS, Guard, GuardStats};
pub use job::{MaskJob, OpenJob, SealJob};
pub use key::{Cipher, HeaderKey, PacketKey};
pub use level::{Level, LevelError};
pub use protect::{NotTiled, Packet, Sealed, protected_bits};
pub use selftest::ciphers_that_differ_from_ring;

/// Bytes of an authentication tag: the same for all three ciphers (RFC 5116 section 5, RFC 8439 section 2.8).
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce (RFC 9001 section 5.3).
pub const NONCE_BYTES: usize = 12;
/// Bytes of a header-protection sample (RFC 9001 section 5.4.2).
pub const SAMPLE_BYTES: usize = 16;
/// Bytes of a header-protection mask (RFC 9001 section 5.4.1).
pub const MASK_BYTES: usize = 5;
