//! Goal: a connection at rest is one that is alive: whatever reaches it, by the wire, by time or by the application, finds it
//! as it was; and only those rest that nothing reaches. Method: two engines 5 ms apart under a virtual clock that fold
//! connections in every `run`, so that each step of what they do begins with one that was folded; then the pace of an engine
//! by itself. The simulator does the same with half of its engines.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::{CloseReason, ConnId, DatagramSend, Dir, Engine, Event, Read};
use bytes::Bytes;
use common::*;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(1);

/// Both fold whatever nothing has reached between two runs.
fn restless() -> Pair {
    pair_with(Duration::ZERO)
}

fn pair_with(rest_after: Duration) -> Pair {
    let mut pair = Pair::new(server_engine(0, &chain(0), |config| config.rest_after = rest_after));
    pair.client = client_engine_with(|config| config.rest_after = rest_after);
    pair
}

/// Lets both engines find nothing to do, and see that they did. How many rest at each.
fn at_rest(pair: &mut Pair) -> (usize, usize) {
    for engine in [&mut pair.client, &mut pair.server] {
        (0..2).for_each(|_| engine.run(pair.now));
    }
    (pair.client.folded(), pair.server.folded())
}

fn all_of(engine: &mut Engine, id: ConnId, stream: beam_tunnel::StreamId) -> (Vec<u8>, Read) {
    let mut chunks = Vec::new();
    let end = engine.connection(id).unwrap().read_all(stream, usize::MAX, &mut chunks);
    (chunks.concat(), end)
}

#[test]
fn what_reaches_one_at_rest_finds_it_as_it_was() {
    let mut pair = restless();
    let (client, server) = pair.established();
    assert_eq!(at_rest(&mut pair), (1, 1));
    assert_eq!(pair.server.connection_ids().collect::<Vec<_>>(), [server]);

    // Streams, in many round trips; each of the server's steps begins at rest.
    let sent: Vec<u8> = (0..300_000).map(|n: u32| (n % 251) as u8).collect();
    let mut conn = pair.client.connection(client).unwrap();
    let stream = conn.open_bi().unwrap();
    conn.write_chunks(stream, &mut [Bytes::from(sent.clone())]);
    conn.finish(stream);
    pair.run(LONG);
    assert_eq!(pair.server.connection(server).unwrap().accept(Dir::Bi), Some(stream));
    assert_eq!(all_of(&mut pair.server, server, stream), (sent.clone(), Read::Fin));
    assert_eq!(at_rest(&mut pair), (1, 1));
    let mut conn = pair.server.connection(server).unwrap();
    conn.write_chunks(stream, &mut [Bytes::from(sent.clone())]);
    conn.finish(stream);
    pair.run(LONG);
    assert_eq!(all_of(&mut pair.client, client, stream), (sent, Read::Fin));

    // Datagrams, with new keys.
    assert_eq!(at_rest(&mut pair), (1, 1));
    pair.client.connection(client).unwrap().force_key_update();
    pair.run(LONG);
    for n in 0..3 {
        assert_eq!(at_rest(&mut pair), (1, 1));
        let one = Bytes::from(vec![n; 500]);
        let is_sent = pair.client.connection(client).unwrap().send_datagram(one.clone(), false);
        assert_eq!(is_sent, DatagramSend::Queued);
        pair.run(LONG);
        assert_eq!(pair.server.connection(server).unwrap().recv_datagram(), Some(one));
    }

    // A new address, proved while at rest.
    assert_eq!(at_rest(&mut pair), (1, 1));
    let moved = client_address(9);
    pair.client.connection(client).unwrap().set_local_address(moved);
    pair.client.connection(client).unwrap().ping();
    pair.run(LONG);
    assert_eq!(pair.server.connection(server).unwrap().remote_address(), moved);
    let stats = pair.server.stats();
    assert_eq!((stats.migrations, stats.paths_validated), (1, 1));

    // The end.
    assert_eq!(at_rest(&mut pair), (1, 1));
    pair.client.connection(client).unwrap().close(7_u32.into(), b"enough");
    pair.run(LONG);
    assert!(
        pair.server_events.iter().any(|(id, event)| *id == server && matches!(event, Event::Closed { .. }))
    );
    pair.run(60 * LONG);
    assert_eq!((pair.client.connections(), pair.server.connections()), (0, 0), "forgotten");
    assert_eq!(at_rest(&mut pair), (0, 0));
}

#[test]
fn whoever_looks_wakes_nobody() {
    let mut pair = restless();
    let (_, server) = pair.established();
    assert_eq!(at_rest(&mut pair), (1, 1));
    let seen = |pair: &mut Pair| {
        pair.server.look(server, |conn| (conn.remote_address(), conn.rtt(), conn.stats().udp_rx.bytes))
    };
    let first = seen(&mut pair).unwrap();
    assert_eq!(pair.server.folded(), 1, "it rests on");
    assert_eq!(pair.server.moved_by(server).map(|(_, received)| received), Some(first.2));
    assert_eq!(pair.server.lower_windows(10_000), 1);
    assert_eq!(pair.server.lower_windows(10_000), 0, "once");
    let mut told = 0;
    pair.server.sample_round_trips(10, &mut |rtt| told += usize::from(rtt == first.1));
    assert_eq!((told, pair.server.folded()), (1, 1), "its round trip was told, and it rests on");
    let conn = pair.server.connection(server).unwrap();
    assert_eq!((conn.remote_address(), conn.rtt(), conn.stats().udp_rx.bytes), first);
    assert_eq!(pair.server.folded(), 0, "whoever may change it finds it open");
    // One that was given something to do has to be open for it.
    assert_eq!(at_rest(&mut pair), (1, 1));
    pair.server.look(server, |mut conn| conn.ping());
    assert_eq!((pair.server.folded(), pair.server.pending_transmit()), (0, true));
}

#[test]
fn what_is_forgotten_or_lost_at_rest_is_gone() {
    let ended = |events: &[(ConnId, Event)], of: ConnId| {
        let reasons = events.iter().filter(|(id, _)| *id == of).map(|(_, event)| event);
        reasons
            .filter_map(
                |event| if let Event::Closed { reason } = event { Some(reason.clone()) } else { None },
            )
            .collect::<Vec<_>>()
    };
    let mut pair = restless();
    let (client, server) = pair.established();
    assert_eq!(at_rest(&mut pair), (1, 1));
    pair.server.forget(server);
    pair.server_events.extend(events(&mut pair.server));
    assert_eq!(ended(&pair.server_events, server), [CloseReason::Local]);
    assert_eq!((pair.server.connections(), pair.server.folded()), (0, 0));
    // The other end hears nothing more, until its time is over.
    pair.run_with(600 * LONG, &mut |_, _| false);
    assert_eq!(ended(&pair.client_events, client), [CloseReason::TimedOut]);
    assert_eq!((pair.client.connections(), pair.client.folded()), (0, 0));
}

#[test]
fn a_handshake_does_not_rest() {
    let mut pair = restless();
    connect(&mut pair.client, pair.now, client_address(0));
    // The server's answers are lost: both wait for their timers, and for each other.
    pair.run_with(2 * LONG, &mut |to_server, _| to_server);
    assert_eq!((pair.client.connections(), pair.server.connections()), (1, 1));
    assert_eq!(at_rest(&mut pair), (0, 0));
    pair.run(5 * LONG);
    assert_eq!(pair.server.stats().handshakes_completed, 1);
    assert_eq!(at_rest(&mut pair), (1, 1));
}

#[test]
fn rest_begins_after_a_while_and_not_for_all_at_once() {
    const CONNECTIONS: usize = 300;
    let rest_after = Duration::from_millis(500);
    let mut pair = pair_with(rest_after);
    for n in 0..CONNECTIONS {
        connect(&mut pair.client, pair.now, client_address(n as u16));
    }
    pair.run(10 * LONG);
    let ids: Vec<_> = pair.server.connection_ids().collect();
    assert_eq!(ids.len(), CONNECTIONS);
    // From here on nothing but time reaches them, but for one that is busy.
    let busy = ids[17];
    for id in &ids {
        pair.server.connection(*id).unwrap();
    }
    let began = pair.now;
    let mut last = 0;
    while pair.now < began + 2 * rest_after + Duration::from_millis(100) {
        pair.now += Duration::from_millis(1);
        pair.server.run(pair.now);
        pair.server.connection(busy).unwrap();
        let folded = pair.server.folded();
        assert!(folded - last <= 32, "at once: {}", folded - last);
        last = folded;
    }
    assert_eq!(last, CONNECTIONS - 1, "all but the busy one");
}
