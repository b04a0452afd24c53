//! Goal: what an engine measures is what a virtual clock makes of it. Method: two engines 5 ms apart; handshakes take one
//! round trip, round trips are told once for each connection that was heard of, batches hold what was sent.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::{Engine, Event};
use bytes::Bytes;
use common::*;
use std::time::Duration;

const ROUND_TRIP: Duration = Duration::from_millis(10);

fn round_trips(engine: &mut Engine, most: usize) -> Vec<Duration> {
    let mut told = Vec::new();
    engine.sample_round_trips(most, &mut |rtt| told.push(rtt));
    told
}

#[test]
fn handshakes_and_round_trips_take_as_long_as_the_wire() {
    const CONNECTIONS: u16 = 5;
    let mut pair = Pair::new(server_engine(0, &chain(0), |_| {}));
    assert!(round_trips(&mut pair.client, 256).is_empty(), "an empty table");
    for n in 0..CONNECTIONS {
        connect(&mut pair.client, pair.now, client_address(n));
    }
    pair.run(Duration::from_secs(1));
    for events in [&pair.client_events, &pair.server_events] {
        let took = |event: &Event| if let Event::Connected { took, .. } = event { Some(*took) } else { None };
        let all: Vec<_> = events.iter().filter_map(|(_, event)| took(event)).collect();
        // A server begins four handshakes in one run.
        assert_eq!(all, [ROUND_TRIP; CONNECTIONS as usize]);
    }
    for engine in [&mut pair.client, &mut pair.server] {
        let told: Vec<_> = (0..3).map(|_| round_trips(engine, 2)).collect();
        assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1], "two places a call, in turn");
        let near = |rtt: &Duration| rtt.abs_diff(ROUND_TRIP) <= ROUND_TRIP / 2;
        assert!(told.iter().flatten().all(near), "{told:?}");
        assert!(round_trips(engine, 256).is_empty(), "nothing was heard since");
    }
}

#[test]
fn batches_hold_what_was_sent_together() {
    let mut pair = Pair::new(server_engine(0, &chain(0), |_| {}));
    let (client, _) = pair.established();
    let before = pair.client.batches().unwrap().sealed.clone();
    let (sent, opened) = (pair.client.stats().datagrams_out, pair.server.stats().packets_opened_in_batches);
    let mut conn = pair.client.connection(client).unwrap();
    let stream = conn.open_uni().unwrap();
    conn.write_chunks(stream, &mut [Bytes::from(vec![7; 8000])]);
    pair.run(Duration::from_secs(1));
    let sealed = pair.client.batches().unwrap().sealed.since(&before);
    assert_eq!(sealed.sum(), pair.client.stats().datagrams_out - sent);
    assert!(sealed.max() >= Some(5), "8000 bytes make some datagrams, and they leave together");
    let batches = pair.server.batches().unwrap();
    assert!(pair.server.stats().packets_opened_in_batches > opened);
    assert_eq!(batches.opened.sum(), pair.server.stats().packets_opened_in_batches);
    assert_eq!(round_trips(&mut pair.server, 1).len(), 1);

    let quiet = server_engine(0, &chain(0), |config| config.count_batches = false);
    assert!(quiet.batches().is_none());
}
