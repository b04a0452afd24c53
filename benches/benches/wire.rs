//! What the layers around QUIC cost for each packet: header parse, checksum, encapsulation, and the judgement of a burst.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use simd::{
    Level,
    validate::{self, Verdict},
};
use std::{hint::black_box, net::SocketAddr};
use wire::{
    Path,
    checksum::{Checksum, Sum},
    datagram,
    encap::{HEADER_BYTES_MAX, Link, Template},
};

fn path() -> Path {
    Path {
        local: SocketAddr::from(([198, 18, 0, 1], 443)),
        remote: SocketAddr::from(([198, 18, 0, 2], 50_000)),
    }
}

fn template() -> Template {
    let link = Link { src_mac: [2, 0, 0, 0, 0, 1], dst_mac: [2, 0, 0, 0, 0, 2], vlans: Default::default() };
    Template::new(&link, &path(), 64).expect("one family")
}

fn packets(c: &mut Criterion) {
    let template = template();
    for payload_bytes in [64, 1200, 1452] {
        let mut frame = vec![7; HEADER_BYTES_MAX + payload_bytes];
        let frame_bytes = template.write(&mut frame, payload_bytes, 0).expect("room");
        let frame = &mut frame[..frame_bytes];

        let mut group = c.benchmark_group("wire");
        group.throughput(Throughput::Bytes(payload_bytes as u64));
        group.bench_function(BenchmarkId::new("parse", payload_bytes), |b| {
            b.iter(|| datagram::parse(black_box(frame)).expect("valid"));
        });
        let parsed = datagram::parse(frame).expect("valid");
        group.bench_function(BenchmarkId::new("verify_checksum", payload_bytes), |b| {
            b.iter(|| parsed.checksum(black_box(frame)));
        });
        group.bench_function(BenchmarkId::new("sum", payload_bytes), |b| {
            b.iter(|| Sum::of(black_box(&frame[frame_bytes - payload_bytes..])).folded());
        });
        group.bench_function(BenchmarkId::new("encapsulate", payload_bytes), |b| {
            b.iter(|| template.write(black_box(&mut *frame), payload_bytes, 0));
        });
        group.finish();
    }
}

/// Frames of one burst, as `xsk` asks for.
const BURST_COUNT: usize = 64;

/// What the receive path did for each frame before there was a burst: parse, martian test, checksum.
fn judge_alone(frame: &[u8]) -> Option<(Path, u8, core::ops::Range<usize>, Checksum)> {
    let found = datagram::parse(frame).ok()?;
    if datagram::is_martian(&found.path.remote) || found.payload.is_empty() {
        return None;
    }
    let checksum = found.checksum(frame);
    Some((found.path, found.ecn_bits, found.payload, checksum))
}

/// The same by burst, with all that the receive path reads of a verdict.
fn judge_burst(level: Level, frames: &[&[u8]], verdicts: &mut Vec<Verdict>) -> usize {
    validate::classify_burst(level, frames, true, verdicts);
    let mut good = 0;
    for (frame, verdict) in frames.iter().zip(verdicts.iter()) {
        if let Verdict::Datagram(found) = verdict
            && !found.is_martian
            && let Some(path) = found.path(frame)
        {
            black_box((path, found.ecn_bits, found.payload()));
            good += usize::from(found.checksum == Some(Checksum::Good));
        }
    }
    good
}

/// 64 frames 2 KiB apart, as in a UMEM: `hot` in the caches, `cold` new to them every time, as from a NIC.
fn validate_burst(c: &mut Criterion) {
    const CHUNK_BYTES: usize = 2048;
    let template = template();
    for (state, chunk_count) in [("hot", BURST_COUNT), ("cold", 65_536)] {
        for payload_bytes in [64, 1452] {
            let mut memory = vec![7; CHUNK_BYTES * chunk_count];
            let mut frame_bytes = 0;
            for chunk in memory.chunks_exact_mut(CHUNK_BYTES) {
                frame_bytes = template.write(chunk, payload_bytes, 0).expect("room");
            }
            let bursts: Vec<Vec<&[u8]>> = memory
                .chunks_exact(CHUNK_BYTES * BURST_COUNT)
                .map(|burst| burst.chunks_exact(CHUNK_BYTES).map(|chunk| &chunk[..frame_bytes]).collect())
                .collect();
            let mut group = c.benchmark_group(format!("validate_burst/{state}"));
            group.throughput(Throughput::Elements(BURST_COUNT as u64));
            let mut turn = 0..;
            let mut next = || &bursts[turn.next().expect("endless") % bursts.len()];
            group.bench_function(BenchmarkId::new("alone", payload_bytes), |b| {
                b.iter(|| {
                    let good = |&frame: &&[u8]| {
                        black_box(judge_alone(black_box(frame))).is_some_and(|it| it.3 == Checksum::Good)
                    };
                    assert_eq!(next().iter().copied().filter(|frame| good(frame)).count(), BURST_COUNT);
                });
            });
            let mut verdicts = Vec::with_capacity(BURST_COUNT);
            for &level in Level::available() {
                group.bench_function(BenchmarkId::new(level.name(), payload_bytes), |b| {
                    b.iter(|| assert_eq!(judge_burst(level, black_box(next()), &mut verdicts), BURST_COUNT));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, packets, validate_burst);
criterion_main!(benches);
