//! RFC 9000 8.1: bytes sent to an unvalidated address are at most three times those received from
//! it. The bytes are summed exactly, on the wire.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::tls::Verify;
use beam_tunnel::{DropReason, Event, VarInt};
use common::*;
use std::time::{Duration, Instant};

/// One first flight of a client.
fn client_hello(now: Instant, n: u16) -> (wire::Path, Vec<u8>) {
    let mut client = client_engine();
    connect(&mut client, now, client_address(n));
    let mut flight = outbox(&mut client, now);
    assert_eq!(flight.len(), 1);
    let (path, bytes) = flight.remove(0);
    assert!(bytes.len() >= 1200);
    (flip(path), bytes)
}

// Goal: a client that goes silent after its first datagram gets at most three times its bytes, for a
// short and a long certificate chain, whatever quinn wants to retransmit in two minutes.
#[test]
fn a_silent_client_gets_three_times_its_bytes_at_most() {
    let mut held = 0;
    for extra in [0, 1, 2, 3, 4, 5, 6, 12, 40] {
        let mut server = server_engine(0, &chain(extra), |_| {});
        let mut now = Instant::now();
        let start = now;
        let (path, hello) = client_hello(now, 1);
        server.receive(now, path, None, &hello);
        let mut sent = 0;
        while now < start + Duration::from_secs(120) {
            server.run(now);
            sent += outbox(&mut server, now).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            assert!(sent <= 3 * hello.len(), "{extra} certificates: {sent} of {}", 3 * hello.len());
            now = server.next_deadline().unwrap_or(now + Duration::from_secs(200)).max(now);
        }
        server.run(now);
        let stats = server.stats();
        println!("{extra} certificates: sent {sent} for {}, held {}", hello.len(), stats.amplification_held);
        assert_eq!(sent as u64, stats.bytes_out);
        held += stats.amplification_held;
        // Nothing more was heard, so nothing that was held can have been released.
        assert_eq!(stats.amplification_released, 0);
        assert_eq!(stats.amplification_held, stats.dropped(DropReason::AmplificationExpired));
        assert_eq!((stats.connections, stats.handshakes_timed_out), (0, 1));
        assert!(matches!(events(&mut server)[..], [(_, Event::HandshakeFailed { .. })]));
    }
    // quinn-proto alone would have sent these: it lets the last datagram overshoot.
    assert!(held >= 1);
}

// Goal: as above, while the server closes the connection: closes count too.
#[test]
fn closes_count_too() {
    let mut server = server_engine(0, &chain(40), |_| {});
    let now = Instant::now();
    let (path, hello) = client_hello(now, 1);
    server.receive(now, path, None, &hello);
    server.run(now);
    let mut sent: usize = outbox(&mut server, now).iter().map(|(_, bytes)| bytes.len()).sum();
    server.close_all(now, VarInt::from_u32(7), b"draining");
    for ms in 0..5_000 {
        let now = now + Duration::from_millis(ms);
        server.run(now);
        sent += outbox(&mut server, now).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    println!("{sent} of {}", 3 * hello.len());
    assert!(sent <= 3 * hello.len());
}

// Goal: the limit holds at every instant of an honest handshake with a chain of 10 KB, and what was
// held is released in order, so that the handshake completes without retransmissions.
#[test]
fn an_honest_client_with_a_long_chain_gets_through() {
    // More than 16 KB would overflow what a client buffers of the handshake.
    let mut pair = Pair::new(server_engine(0, &chain(24), |_| {}));
    let id = connect(&mut pair.client, pair.now, client_address(0));
    let start = pair.now;
    let mut connected = false;
    while !connected {
        assert!(
            pair.step(start + Duration::from_secs(5), &mut |_, _| true),
            "stalled: {:?}",
            pair.client_events
        );
        connected = pair.server_events.iter().any(|(_, event)| matches!(event, Event::Connected { .. }));
        // The first authentic Handshake packet of the client ends it, before the handshake is done.
        if pair.server.stats().unvalidated_handshakes > 0 {
            assert!(pair.server_sent_bytes <= 3 * pair.client_sent_bytes);
        }
    }
    let stats = pair.server.stats();
    println!("{:?}, held {}", pair.now - start, stats.amplification_held);
    assert!(stats.amplification_held > 0);
    assert_eq!(stats.amplification_held, stats.amplification_released);
    assert!(pair.now - start < Duration::from_millis(1500), "took {:?}", pair.now - start);
    let lost = pair.client.connection(id).unwrap().stats().path.lost_packets;
    assert_eq!(lost, 0);
}

// Goal: stateless answers obey the limit on their own: version negotiation, Retry, refusal, and the
// close for a forged token; a stateless reset is smaller than what it answers.
#[test]
fn stateless_answers_are_small() {
    let now = Instant::now();
    let (path, hello) = client_hello(now, 1);
    let mut unknown_version = hello.clone();
    unknown_version[1..5].copy_from_slice(&0x1234_5678u32.to_be_bytes());
    let cases: [(&str, beam_tunnel::Engine, &[u8]); 3] = [
        ("version negotiation", server_engine(0, &chain(0), |_| {}), &unknown_version),
        ("retry", server_engine(0, &chain(0), |c| c.retry = beam_tunnel::RetryPolicy::Always), &hello),
        ("refusal", server_engine(0, &chain(0), |c| c.connections_max = 0), &hello),
    ];
    for (name, mut server, datagram) in cases {
        for _ in 0..10 {
            server.receive(now, path, None, datagram);
            server.run(now);
            let out = outbox(&mut server, now);
            assert_eq!(out.len(), 1, "{name}");
            assert!(out[0].1.len() <= 3 * datagram.len(), "{name}");
        }
        let stats = server.stats();
        assert_eq!(stats.version_negotiations_sent + stats.retries_sent + stats.refused, 10, "{name}");
        assert_eq!((server.connections(), server.memory().budget_bytes), (0, 0), "{name}: no state");
        // RFC 9000 5.2.2 and 14.1: nothing at all for a datagram below 1200 bytes.
        server.receive(now, path, None, &datagram[..1199]);
        server.run(now);
        assert_eq!(outbox(&mut server, now), [], "{name}");
    }
}

// Goal: a peer whose address changes gets three times its bytes at the new address, until the path
// is validated; then all. Method: in mid-download the client's NAT rebinds, and of what the client
// sends from the new address only one more small datagram arrives each 100 ms. quinn pads its path
// challenge to 1200 bytes whatever the limit says, so the first 400 bytes must come from the peer.
#[test]
fn a_migrated_peer_is_limited_until_its_path_is_validated() {
    let mut pair = Pair::new(server_engine(0, &chain(0), |_| {}));
    let (client, server) = pair.established();
    let stream = pair.client.connection(client).unwrap().open_bi().unwrap();
    pair.client.connection(client).unwrap().write_chunks(stream, &mut [bytes::Bytes::from_static(b"x")]);
    pair.run(Duration::from_millis(50));
    let mut conn = pair.server.connection(server).unwrap();
    assert_eq!(conn.accept(quinn_proto::Dir::Bi), Some(stream));
    conn.write_chunks(stream, &mut [bytes::Bytes::from(vec![7; 4 << 20])]);

    // By hand from here: the client's datagrams come from another address; the old one is dead.
    let from_new = wire::Path { local: SERVER, remote: client_address(77) };
    let to_client = wire::Path { local: client_address(0), remote: SERVER };
    let (mut sent, mut received, mut challenged_after) = (0, 0, None);
    for ms in 0..6_000 {
        pair.now += Duration::from_millis(1);
        if ms % 100 == 0 {
            pair.client.connection(client).unwrap().ping();
        }
        pair.client.run(pair.now);
        for (_, bytes) in outbox(&mut pair.client, pair.now) {
            // Until the path is validated the network loses all but one datagram in 100 ms.
            if ms % 100 == 0 || challenged_after.is_some() {
                received += bytes.len();
                pair.server.receive(pair.now, from_new, None, &bytes);
            }
        }
        pair.server.run(pair.now);
        for (path, bytes) in outbox(&mut pair.server, pair.now) {
            if path.remote == from_new.remote {
                sent += bytes.len();
                challenged_after.get_or_insert(received);
                pair.client.receive(pair.now, to_client, None, &bytes);
            }
        }
        pair.client.run(pair.now);
        pair.client.connection(client).unwrap().read_all(stream, usize::MAX, &mut Vec::new());
        if pair.server.stats().paths_validated == 0 {
            assert!(sent <= 3 * received, "at {ms} ms: {sent} for {received}");
        }
    }
    let stats = pair.server.stats();
    println!("challenged after {challenged_after:?} bytes; {stats:?}");
    assert!((400..600).contains(&challenged_after.unwrap()));
    assert!(stats.migrations >= 1 && stats.paths_validated == 1);
    let arrived = pair.client.connection(client).unwrap().stats().udp_rx.bytes;
    assert!(arrived > 4 << 20, "{arrived}");
}

// Goal: a validated token lifts the limit at once: after Retry the whole long flight goes out.
#[test]
fn a_retry_token_lifts_the_limit() {
    let server = server_engine(0, &chain(24), |c| c.retry = beam_tunnel::RetryPolicy::Always);
    let mut pair = Pair::new(server);
    let config = quic_client_config(Verify::Insecure, None);
    pair.client.connect(pair.now, config, SERVER, client_address(0), "gateway.test").unwrap();
    pair.run(Duration::from_secs(2));
    let stats = pair.server.stats();
    assert_eq!((stats.retries_sent, stats.handshakes_completed, stats.amplification_held), (1, 1, 0));
}
