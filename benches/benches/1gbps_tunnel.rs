//! A tunnel's whole way in memory, in Gbit/s; each line says whether that is above 1 Gbit/s. See `beam_benches::ops` (`ops/tunnels.rs`).

mod support;

fn main() {
    support::run("1gbps_tunnel");
}
