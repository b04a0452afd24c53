//! Rings that carry frames, packets and records between threads, and those of a port. See `beam_benches::ops` (`ops/rings.rs`).

mod support;

fn main() {
    support::run("rings");
}
