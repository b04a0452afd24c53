//! HTTP/3 and MASQUE framing. See `beam_benches::ops` (`ops/framing.rs`).

mod support;

fn main() {
    support::run("masque_framing");
}
