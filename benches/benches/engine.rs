//! QUIC without a kernel: both ends on one thread. `engine/...` is for both ends together; a worker does one of the two. `path/<cipher>/<mtu>/<mode>/<side>` is one side's time for a datagram, frames and MASQUE
//! included, beside bare quinn-proto; `scripts/bench engine` measures the same interleaved.

use beam_benches::{
    Pair, chain,
    clock::Rate,
    path::{Bench, MTUS, Mode, Setup},
};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use simd::{Cipher, Level};
use std::time::Duration;

fn bulk(c: &mut Criterion) {
    const TOTAL_BYTES: usize = 4 << 20;
    let mut pair = Pair::new(&chain());
    let ends = pair.handshake();
    let stream = pair.open(ends.1);
    let block = Bytes::from(vec![7; 64 << 10]);
    // Past slow start and path MTU discovery.
    pair.transfer(ends, stream, &block, 64 << 20);

    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Bytes(TOTAL_BYTES as u64));
    group.bench_function("bulk_4MiB_both_ends", |b| {
        b.iter(|| pair.transfer(ends, stream, &block, TOTAL_BYTES))
    });
    group.finish();
}

fn path(c: &mut Criterion) {
    const WARM_PACKETS: u64 = 5_000;
    let rate = Rate::measured();
    let mut group = c.benchmark_group("path");
    group
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20);
    group.throughput(Throughput::Elements(1));
    for cipher in Cipher::ALL {
        for mtu in MTUS {
            for mode in Mode::ALL {
                let setup = Setup { mode, cipher: Some(cipher), mtu, level: Level::best() };
                // Made when the first of its two benchmarks is picked by the filter.
                let mut bench = None;
                for side in ["out", "in"] {
                    let name = format!("{}/{mtu}/{}/{side}", cipher.name(), mode.name());
                    group.bench_function(name, |b| {
                        let bench = bench.get_or_insert_with(|| Bench::new(setup, WARM_PACKETS));
                        b.iter_custom(|packets| {
                            let cost = bench.run(packets);
                            let ticks = if side == "out" { cost.ticks_out } else { cost.ticks_in };
                            // A whole burst is sent, however few packets are asked for.
                            rate.duration(ticks as f64 * packets as f64 / cost.packets as f64)
                        });
                    });
                }
            }
        }
    }
    group.finish();
}

criterion_group!(benches, bulk, path);
criterion_main!(benches);
