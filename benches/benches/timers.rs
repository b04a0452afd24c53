//! The timer wheel. See `beam_benches::ops` (`ops/timers.rs`).

mod support;

fn main() {
    support::run("timers");
}
