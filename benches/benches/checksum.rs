//! The Internet checksum, by each way that beam has. See `beam_benches::ops` (`ops/checksum.rs`).

mod support;

fn main() {
    support::run("checksum");
}
