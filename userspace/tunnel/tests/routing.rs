//! Whose a datagram is, and that nothing which isn't a live connection's draws a byte.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::{DropReason, Engine, Event, Owner, VarInt, WorkerId};
use common::*;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use std::time::{Duration, Instant};

fn from(n: u16) -> wire::Path {
    wire::Path { local: SERVER, remote: client_address(n) }
}

/// One 1-RTT datagram of an established client, and the pair.
fn short_header_datagram(worker: u8) -> (Pair, Vec<u8>) {
    let mut pair = Pair::new(server_engine(worker, &chain(0), |_| {}));
    let (client, _) = pair.established();
    pair.client.connection(client).unwrap().ping();
    let out = outbox(&mut pair.client, pair.now);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].1[0] & 0x80, 0);
    (pair, out[0].1.clone())
}

fn draws_nothing(engine: &mut Engine, now: Instant, path: wire::Path, datagram: &[u8]) {
    engine.receive(now, path, None, datagram);
    engine.run(now);
    assert_eq!(outbox(engine, now), [], "{:02x?}", &datagram[..datagram.len().min(24)]);
}

// RFC 9000 21.11: an endpoint that shares its static key must not be an oracle for resets of live
// connections. Method: a live CID of worker 3, given to worker 5 which shares every secret.
#[test]
fn a_live_cid_of_another_worker_draws_no_reset() {
    let (mut pair, datagram) = short_header_datagram(3);
    let mut other = server_engine(5, &chain(0), |_| {});
    assert_eq!(other.owner_of(&datagram), Owner::Worker(WorkerId(3)));
    assert_eq!(pair.server.owner_of(&datagram), Owner::Here);
    assert_eq!(other.stats().handovers, 1);
    for n in 0..100 {
        draws_nothing(&mut other, pair.now + Duration::from_secs(n), from(0), &datagram);
    }
    assert_eq!(other.stats().dropped(DropReason::OtherWorker), 100);
}

// RFC 9000 10.3: a reset for a connection whose state is lost, smaller than what it answers, at most
// one in 20 ms; and the client believes it.
#[test]
fn a_dead_cid_of_ours_draws_a_small_reset() {
    let (mut pair, datagram) = short_header_datagram(3);
    // The worker restarts: same secrets, no connections.
    pair.server = server_engine(3, &chain(0), |_| {});
    pair.server.receive(pair.now, from(0), None, &datagram);
    pair.server.receive(pair.now, from(0), None, &datagram);
    pair.server.run(pair.now);
    let out = outbox(&mut pair.server, pair.now);
    assert_eq!(out.len(), 1);
    assert!(out[0].1.len() < datagram.len());
    let stats = pair.server.stats();
    assert_eq!((stats.stateless_resets_sent, stats.dropped(DropReason::ResetSuppressed)), (1, 1));
    let reset = &out[0].1;
    assert_eq!(pair.client.owner_of(reset), Owner::Here, "the client must look for its reset tokens");
    pair.client.receive(pair.now, flip(from(0)), None, reset);
    pair.client.run(pair.now);
    let told = events(&mut pair.client);
    assert!(matches!(told[..], [(_, Event::Closed { reason: beam_tunnel::CloseReason::Reset })]), "{told:?}");
}

// Goal: garbage draws nothing and each piece is counted once. Method: 20,000 seeded datagrams: random
// bytes, random with a long header, real packets cut or with one bit flipped in the CID.
#[test]
fn garbage_draws_nothing() {
    let (mut pair, real) = short_header_datagram(0);
    let mut rng = StdRng::seed_from_u64(1);
    let mut server = server_engine(0, &chain(0), |_| {});
    for n in 0..20_000u64 {
        let now = pair.now + Duration::from_millis(30 * n);
        let mut datagram = vec![0; rng.random_range(0..1500)];
        rng.fill_bytes(&mut datagram);
        match n % 4 {
            0 => {}
            // A long header of version 1, any type but Initial of full size.
            1 if datagram.len() > 10 => {
                let kind = rng.random_range(0..4u8);
                datagram[..5].copy_from_slice(&[0xc0 | kind << 4, 0, 0, 0, 1]);
                datagram[5] = rng.random_range(0..21);
                if kind == 0 {
                    datagram.truncate(1199);
                }
            }
            2 => {
                datagram = real.clone();
                let bit = rng.random_range(8..18 * 8);
                datagram[bit / 8] ^= 1 << (bit % 8);
            }
            _ => {
                datagram = real[..rng.random_range(0..18)].to_vec();
            }
        }
        let in_before = server.stats().datagrams_in;
        // Random bytes of full size can say "unknown version", which is answered by design.
        if datagram.len() >= 1200 && datagram[0] & 0x80 != 0 && datagram[1..5] != [0, 0, 0, 1] {
            datagram.truncate(1199);
        }
        match server.owner_of(&datagram) {
            Owner::Here => draws_nothing(&mut server, now, from(n as u16), &datagram),
            Owner::Drop(_) => {}
            Owner::Worker(worker) => panic!("garbage names {worker:?}"),
        }
        assert_eq!(server.stats().datagrams_in, in_before + 1);
        assert_eq!(server.stats().drops.iter().sum::<u64>(), n + 1);
    }
    assert_eq!((server.stats().datagrams_out, server.memory().budget_bytes), (0, 0));
    // A client-only engine is as silent, to Initials of full size too: quinn's own endpoint answers.
    let mut hello = vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0];
    hello.resize(1200, 0x11);
    draws_nothing(&mut pair.client, pair.now, flip(from(0)), &hello);
    hello[4] = 7;
    draws_nothing(&mut pair.client, pair.now, flip(from(0)), &hello);
    let stats = pair.client.stats();
    assert_eq!(stats.dropped(DropReason::NoServer) + stats.dropped(DropReason::VersionNoServer), 2);
}

// Goal: a stale id finds nothing, and never the connection that took its place.
#[test]
fn stale_ids_never_alias() {
    let mut pair = Pair::new(server_engine(0, &chain(0), |_| {}));
    let (first, _) = pair.established();
    pair.client.connection(first).unwrap().close(VarInt::from_u32(1), b"done");
    pair.run(Duration::from_secs(5));
    assert!(pair.client.connection(first).is_none());
    assert_eq!((pair.client.connections(), pair.server.connections()), (0, 0));
    let closes = pair.client_events.iter().filter(|(_, e)| matches!(e, Event::Closed { .. })).count();
    assert_eq!(closes, 1);
    pair.client_events.clear();
    pair.server_events.clear();
    let (second, _) = pair.established();
    assert_eq!(second.index, first.index);
    assert_ne!(second, first);
    assert!(pair.client.connection(first).is_none());
    assert!(pair.client.connection(second).is_some());
}

// Goal: nothing is lost between a sink without room and quinn. Method: a download through a sink that
// takes random amounts and refuses at random; no packet may be lost, so none is retransmitted.
#[test]
fn a_refusing_sink_loses_nothing() {
    let seed = 4;
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut pair = Pair::new(server_engine(0, &chain(0), |_| {}));
    let (client, server) = pair.established();
    let mut conn = pair.server.connection(server).unwrap();
    let stream = conn.open_uni().unwrap();
    conn.write_chunks(stream, &mut [bytes::Bytes::from(vec![7; 2 << 20])]);
    conn.finish(stream);
    let mut read = 0;
    for _ in 0..20_000 {
        pair.now += Duration::from_micros(200);
        pair.server.run(pair.now);
        let room = rng.random_range(1..8);
        let mut left = room;
        let mut refuse = rng.random_ratio(1, 5);
        let mut taken = Vec::new();
        pair.server.transmit(pair.now, room, &mut |path, _, bytes, segment| {
            if std::mem::take(&mut refuse) {
                return false;
            }
            for datagram in bytes.chunks(segment.unwrap_or(bytes.len())) {
                left = left.checked_sub(1).expect("more than there was room for");
                taken.push((*path, datagram.to_vec()));
            }
            true
        });
        for (path, bytes) in taken {
            pair.client.receive(pair.now, flip(path), None, &bytes);
        }
        pair.client.run(pair.now);
        for (path, bytes) in outbox(&mut pair.client, pair.now) {
            pair.server.receive(pair.now, flip(path), None, &bytes);
        }
        let mut chunks = Vec::new();
        pair.client.connection(client).unwrap().read_all(stream, usize::MAX, &mut chunks);
        read += chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    }
    assert_eq!(read, 2 << 20);
    let stats = pair.server.connection(server).unwrap().stats();
    assert_eq!(stats.path.lost_packets, 0);
    let parked = pair.server.stats().transmits_parked;
    assert!(parked > 20, "{parked}");
}
