//! QUIC without a kernel: both ends on one thread, ring's packet protection. Bulk figures are for sender and receiver
//! together; a worker does one of the two.

use beam_benches::{Pair, chain};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

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

fn connection_handshake(c: &mut Criterion) {
    let chain = chain();
    c.bench_function("connection_handshake_both_ends", |b| {
        b.iter_batched_ref(|| Pair::new(&chain), Pair::handshake, BatchSize::SmallInput);
    });
}

criterion_group!(benches, bulk, connection_handshake);
criterion_main!(benches);
