//! Floods, budgets and limits: what many strangers cost, and that honest clients still get in.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::tls::Verify;
use beam_tunnel::{CloseReason, DropReason, Event, RetryPolicy};
use common::*;
use std::time::{Duration, Instant};

/// First flights of `count` clients, each from its own address.
fn hellos(now: Instant, count: u16) -> Vec<(wire::Path, Vec<u8>)> {
    let config = quic_client_config(Verify::Insecure, None);
    let mut client = client_engine();
    for n in 0..count {
        client.connect(now, config.clone(), SERVER, client_address(n), "gateway.test").unwrap();
    }
    let flights = outbox(&mut client, now);
    assert_eq!(flights.len(), usize::from(count));
    flights.into_iter().map(|(path, bytes)| (flip(path), bytes)).collect()
}

// Goal: 8,000 forged ClientHellos engage Retry, cost bounded memory, don't keep an honest client out,
// and Retry goes off again. Method: bursts of 32, one a millisecond, nobody answers; an honest client
// connects in the middle of it, over a wire of its own.
#[test]
fn a_flood_of_8000_engages_retry_and_an_honest_client_gets_in() {
    let server = server_engine(0, &chain(0), |_| {});
    let mut pair = Pair::new(server);
    let flood = hellos(pair.now, 8_000);
    let start = pair.now;
    let mut peak_bytes = 0;
    for (n, burst) in flood.chunks(32).enumerate() {
        for (path, hello) in burst {
            pair.server.receive(pair.now, *path, None, hello);
        }
        if n == 100 {
            assert_eq!(pair.server.stats().retry_active, 1);
            connect(&mut pair.client, pair.now, client_address(9_000));
        }
        // Only what is for the honest client arrives anywhere: the rest of the sources are forged.
        let limit = pair.now + Duration::from_millis(1);
        pair.client.run(pair.now);
        for (path, bytes) in outbox(&mut pair.client, pair.now) {
            pair.server.receive(pair.now, flip(path), None, &bytes);
        }
        pair.server.run(pair.now);
        for (path, bytes) in outbox(&mut pair.server, pair.now) {
            if path.remote == client_address(9_000) {
                pair.client.receive(pair.now, flip(path), None, &bytes);
            }
        }
        peak_bytes = peak_bytes.max(pair.server.memory().total_bytes());
        pair.client_events.extend(events(&mut pair.client));
        pair.now = limit;
    }
    let stats = pair.server.stats();
    println!("peak {peak_bytes} bytes, {stats:?}");
    assert!(matches!(pair.client_events[..], [(_, Event::Connected { .. })]), "{:?}", pair.client_events);
    assert_eq!(stats.retry_engaged, 1);
    // The threshold, and nothing beyond it, was let in without a token; the honest one had a token.
    assert_eq!(stats.initials_queued, 257 + 1);
    assert_eq!(stats.retries_sent, 8_000 - 257 + 1);
    assert!(peak_bytes < 12 << 20, "{peak_bytes} bytes");

    // The flood is over: the forged handshakes time out and Retry goes off.
    while pair.now < start + Duration::from_secs(15) {
        pair.server.run(pair.now);
        outbox(&mut pair.server, pair.now);
        let next = pair.server.next_deadline().unwrap_or(start + Duration::from_secs(15));
        pair.now = next.max(pair.now + Duration::from_millis(1));
    }
    let stats = pair.server.stats();
    assert_eq!((stats.retry_active, stats.retry_disengaged), (0, 1));
    assert_eq!((stats.unvalidated_handshakes, stats.handshakes_timed_out), (0, 257));
    assert_eq!(stats.connections, 1);
}

// Goal: each loop begins as many handshakes as the budget says, and asks to be called again at once.
#[test]
fn handshakes_keep_to_their_budget() {
    let mut server = server_engine(0, &chain(0), |c| c.handshakes_per_run = 3);
    let now = Instant::now();
    for (path, hello) in hellos(now, 10) {
        server.receive(now, path, None, &hello);
    }
    for started in [3, 6, 9, 10] {
        assert_eq!(server.next_deadline(), Some(now));
        server.run(now);
        assert_eq!(server.stats().handshakes_started, started);
    }
    assert!(server.next_deadline() > Some(now));
}

// Goal: the queue of waiting handshakes is bounded, and each Initial beyond is counted. A repeated
// Initial of one that waits is kept for it and takes no second place.
#[test]
fn the_queue_of_waiting_handshakes_is_bounded() {
    let mut server = server_engine(0, &chain(0), |c| {
        c.incoming_queue_max = 5;
        c.retry = RetryPolicy::Off;
    });
    let now = Instant::now();
    let flood = hellos(now, 20);
    for (path, hello) in &flood {
        server.receive(now, *path, None, hello);
    }
    server.receive(now, flood[0].0, None, &flood[0].1);
    let stats = server.stats();
    assert_eq!(stats.initials_queued, 5);
    assert_eq!(stats.dropped(DropReason::InitialQueueFull), 15);
    assert_eq!(stats.initials_buffered, 1);
    assert_eq!(stats.datagrams_in, 21);
}

// Goal: beyond the limit on connections a client is told so at once (CONNECTION_REFUSED); so it is
// by a draining server.
#[test]
fn too_many_connections_are_refused() {
    for draining in [false, true] {
        let mut server = server_engine(0, &chain(0), |c| c.connections_max = usize::from(draining));
        if draining {
            server.drain();
        }
        let mut pair = Pair::new(server);
        connect(&mut pair.client, pair.now, client_address(0));
        pair.run(Duration::from_secs(1));
        let [(_, Event::HandshakeFailed { reason: CloseReason::Refused })] = pair.client_events[..] else {
            panic!("{:?}", pair.client_events);
        };
        assert_eq!((pair.server.stats().refused, pair.server.connections()), (1, 0));
    }
}

// Goal: everything received is accounted for. Method: the flood again, then check the sum that the
// head of stats.rs states.
#[test]
fn received_datagrams_are_conserved() {
    let mut server = server_engine(0, &chain(0), |c| {
        c.incoming_queue_max = 50;
        c.retry = RetryPolicy::Auto { on_above: 100, off_below: 10 };
    });
    let now = Instant::now();
    for (n, (path, mut hello)) in hellos(now, 600).into_iter().enumerate() {
        match n % 6 {
            1 => hello.truncate(1000),
            2 => hello[4] = 9,
            3 => hello[600] ^= 1,
            4 => hello[0] = 0x40,
            _ => {}
        }
        server.receive(now, path, None, &hello);
        if n % 20 == 0 {
            server.run(now);
            outbox(&mut server, now);
        }
    }
    for _ in 0..100 {
        server.run(now);
        outbox(&mut server, now);
    }
    let stats = server.stats();
    let dropped: u64 = stats.drops.iter().sum();
    // What was queued and then failed to authenticate is counted as queued and as dropped.
    let unauthenticated = stats.dropped(DropReason::InitialUnauthenticated);
    let answered = stats.retries_sent
        + stats.refused
        + stats.version_negotiations_sent
        + stats.stateless_resets_sent
        + stats.stateless_closes_sent;
    let to_send = stats.dropped(DropReason::AmplificationLimit);
    println!("{stats:?}");
    assert_eq!(
        stats.datagrams_in,
        stats.datagrams_routed + stats.initials_queued + stats.initials_buffered + answered + dropped
            - unauthenticated
            - to_send
    );
    assert_eq!(stats.dropped(DropReason::InitialTooShort), 100);
    assert_eq!(stats.version_negotiations_sent, 100);
    assert_eq!(stats.dropped(DropReason::CidUnknown), 100);
    assert!(unauthenticated > 0);
    assert!(server.memory().total_bytes() > 0);
}

// Goal: strangers who have filled their places keep no client out whose address is proved. Method: a flood fills the queue;
// four clients prove themselves by Retry, and all come in.
#[test]
fn proven_addresses_have_places_of_their_own() {
    let mut server = server_engine(0, &chain(0), |c| {
        c.incoming_queue_max = 5;
        c.incoming_proven_max = 3;
        c.retry = RetryPolicy::Off;
    });
    let now = Instant::now();
    for (path, hello) in hellos(now, 20) {
        server.receive(now, path, None, &hello);
    }
    assert_eq!(
        (server.stats().initials_queued, server.stats().dropped(DropReason::InitialQueueFull)),
        (5, 15)
    );
    // The places of strangers are taken: with Retry, they are asked to prove themselves instead.
    server.set_limits(1_000, RetryPolicy::Always);
    let mut pair = Pair::new(server);
    for n in 100..104 {
        connect(&mut pair.client, pair.now, client_address(n));
    }
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.server.stats().retries_sent, 4);
    assert_eq!(pair.server.stats().handshakes_completed, 4, "{:?}", pair.server.stats());
}
