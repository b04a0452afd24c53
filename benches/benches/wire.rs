//! What the layers around QUIC cost for each packet: header parse, checksums, encapsulation, MASQUE framing.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::{hint::black_box, net::SocketAddr};
use wire::{
    Path,
    checksum::Sum,
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

fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("masque");
    group.bench_function("encode_connect", |b| {
        let fields = [("proxy-authorization", "Bearer beam_0123456789012345678901234567890123456789012")];
        b.iter(|| {
            masque::encode_request(&masque::RequestHead::connect(black_box("www.example.com:443"), &fields))
        });
    });
    group.bench_function("data_header", |b| b.iter(|| masque::data_header(black_box(16_384))));
    group.finish();
}

criterion_group!(benches, packets, framing);
criterion_main!(benches);
