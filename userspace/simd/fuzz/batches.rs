//! libFuzzer's way into `tests/proof/input.rs`: bytes become a batch, ring is the reference, a panic is the finding.
#![no_main]

#[path = "../tests/proof/input.rs"]
mod input;
#[path = "../tests/proof/oracle.rs"]
mod oracle;
#[path = "../tests/proof/packet.rs"]
mod packet;

use beam_simd::Level;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| input::one_input(Level::available(), bytes));
