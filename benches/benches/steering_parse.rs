//! The XDP program's verdict about frames of each kind, on the host. See `beam_benches::ops` (`ops/steering.rs`).

mod support;

fn main() {
    support::run("steering_parse");
}
