//! AES-128-GCM and AES-256-GCM (NIST SP 800-38D) in batches, and AES header-protection masks.
//!
//! ```text
//!   entry   seal, open, mask of a level: compiled for its instructions
//!   quad    what every packet costs: E_K(J0), the last reduction, the tag; four packets at once, one a lane
//!   bulk    what every byte costs: counter mode and GHASH over one packet
//!   ghash   sums of products, reduction                 state   round keys, powers of H
//!   lanes   what a vector can do: aesni 1 lane, avx2 2 lanes, avx512 4 lanes; pair makes two of one, for tests
//! ```
//!
//! The algorithm is written once, over [`lanes::Lanes`]. Lengths, and whether neighbouring jobs share a key, are all
//! that it branches on.

#[cfg(target_arch = "x86_64")]
mod aesni;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod bulk;
#[cfg(target_arch = "x86_64")]
mod entry;
#[cfg(target_arch = "x86_64")]
mod ghash;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(all(test, target_arch = "x86_64"))]
mod pair;
#[cfg(not(target_arch = "x86_64"))]
mod portable;
#[cfg(target_arch = "x86_64")]
mod quad;
#[cfg(target_arch = "x86_64")]
mod state;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(crate) use entry::{mask, open, seal};
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use portable::{HeaderState, PacketState, mask, open, seal};
#[cfg(target_arch = "x86_64")]
pub(crate) use state::{HeaderState, PacketState};
