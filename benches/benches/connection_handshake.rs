//! Full, resumed and 0-RTT handshakes: both ends, and the gateway alone. See `beam_benches::ops` (`ops/handshake.rs`).

mod support;

fn main() {
    support::run("connection_handshake");
}
