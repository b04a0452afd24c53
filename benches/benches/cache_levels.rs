//! Hits and misses of each level of the cache. See `beam_benches::ops` (`ops/caches.rs`).

mod support;

fn main() {
    support::run("cache_levels");
}
