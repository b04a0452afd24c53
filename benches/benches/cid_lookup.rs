//! From a datagram to its worker and its keys. See `beam_benches::ops` (`ops/cid.rs`).

mod support;

fn main() {
    support::run("cid_lookup");
}
