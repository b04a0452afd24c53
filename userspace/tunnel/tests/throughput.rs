//! What the engine costs, in memory, on one thread that runs both ends. Figures, not a check:
//! `cargo test --release -p beam-tunnel --test throughput -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::Read;
use bytes::Bytes;
use common::*;
use std::time::{Duration, Instant};

#[test]
#[ignore = "a measurement: run it in release mode, alone"]
fn bulk_in_memory() {
    for burst in [8, 32, 64] {
        let mut pair = Pair::new(server_engine(0, &chain(0), |_| {}));
        let (client, server) = pair.established();
        let stream = pair.server.connection(server).unwrap().open_uni().unwrap();
        let block = Bytes::from(vec![7; 64 << 10]);
        let total = 4u64 << 30;
        let (mut written, mut read, mut client_time, mut server_time) =
            (0, 0, Duration::ZERO, Duration::ZERO);
        let mut chunks = Vec::new();
        while read < total {
            pair.now += Duration::from_micros(50);
            let begin = Instant::now();
            let mut to_client = Vec::new();
            while written < total {
                match pair.server.connection(server).unwrap().write_chunks(stream, &mut [block.clone()]) {
                    beam_tunnel::Write::Written { bytes, .. } => written += bytes as u64,
                    _ => break,
                }
            }
            pair.server.run(pair.now);
            pair.server.transmit(pair.now, burst, &mut |path, _, bytes, segment| {
                to_client.push((flip(*path), bytes.to_vec(), segment));
                true
            });
            let middle = Instant::now();
            for (path, bytes, segment) in to_client {
                for datagram in bytes.chunks(segment.unwrap_or(bytes.len())) {
                    pair.client.receive(pair.now, path, None, datagram);
                }
            }
            pair.client.run(pair.now);
            let mut conn = pair.client.connection(client).unwrap();
            while let Read::Chunk(_) = conn.read_all(stream, 1 << 20, &mut chunks) {}
            read += chunks.drain(..).map(|chunk| chunk.len() as u64).sum::<u64>();
            let mut to_server = Vec::new();
            pair.client.transmit(pair.now, burst, &mut |path, _, bytes, _| {
                to_server.push((flip(*path), bytes.to_vec()));
                true
            });
            let end = Instant::now();
            for (path, bytes) in to_server {
                pair.server.receive(pair.now, path, None, &bytes);
            }
            events(&mut pair.server);
            events(&mut pair.client);
            server_time += middle - begin;
            client_time += end - middle;
        }
        let packets = pair.client.stats().datagrams_in as f64;
        let acks = pair.client.stats().datagrams_out;
        println!(
            "burst {burst}: sender {:.0} ns a packet, {:.1} Gbit/s; receiver {:.0} ns, {:.1} Gbit/s; {packets} packets, {acks} back",
            server_time.as_nanos() as f64 / packets,
            total as f64 * 8.0 / server_time.as_nanos() as f64,
            client_time.as_nanos() as f64 / packets,
            total as f64 * 8.0 / client_time.as_nanos() as f64,
        );
    }
}
