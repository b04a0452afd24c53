//! Packet protection: ring, aws-lc-rs (with the feature `aws-lc`) and each level of ours, a benchmark
//! `aead/<cipher>/<op>/<size>/<keys>/<impl>` each; the time is that of 32 packets. `scripts/bench aead` measures the
//! same faster, interleaved and in cycles.

use beam_benches::{
    aead::{Case, PACKETS, Way},
    clock::Rate,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

fn aead(c: &mut Criterion) {
    let rate = Rate::measured();
    let mut group = c.benchmark_group("aead");
    group
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .sample_size(10);
    for case in Case::all() {
        group.throughput(Throughput::Elements(PACKETS as u64));
        for way in Way::available() {
            group.bench_function(format!("{case}/{}", way.name()), |b| {
                case.with_pass(way, &mut |pass| {
                    b.iter_custom(|passes| rate.duration((0..passes).map(|_| pass()).sum::<u64>() as f64));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, aead);
criterion_main!(benches);
