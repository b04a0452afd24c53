//! The proof of packet protection: every level that this CPU has, against ring, which the tests call directly.
//!
//! ```text
//!   equality    same bytes at every length, alignment, header, batch size and mix of keys
//!   fenced      nothing is read or written outside the slices
//!   forgery     one flipped bit in one lane: that lane is refused, and no other
//!   wycheproof  the known answers and known attacks of Project Wycheproof, in every lane
//!   rfc9001     the packets of RFC 9001 appendix A, header protection included
//!   fuzz        batches made of arbitrary bytes (input)
//! ```
//!
//! BEAM_SIMD=avx512 proves that level alone, and fails where it isn't to be had. BEAM_PROOF=short thins out lengths
//! and forgeries for an emulated CPU (scripts/avx512); tails, lanes and ciphers stay complete.
#![expect(unsafe_code, reason = "fenced memory is mapped by hand")]

mod equality;
mod fenced;
mod forgery;
mod fuzz;
mod input;
mod oracle;
mod packet;
mod rfc9001;
mod wycheproof;

use beam_simd::Level;
use std::env;

/// The levels to prove.
fn levels() -> Vec<Level> {
    match env::var("BEAM_SIMD") {
        Ok(name) => vec![name.parse().expect("BEAM_SIMD")],
        Err(_) => Level::available().to_vec(),
    }
}

/// Whether an emulated CPU runs this.
fn is_short() -> bool {
    match env::var("BEAM_PROOF").as_deref() {
        Ok("short") => true,
        Ok(other) => panic!("BEAM_PROOF is `{other}`: `short`, or unset"),
        Err(_) => false,
    }
}

/// A number from the environment.
fn from_environment(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}
