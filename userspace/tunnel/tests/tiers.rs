//! Goal: a crowd of connections spreads over several endpoints of quinn's, each datagram finds its own, and endpoints that
//! are empty go. Method: 1,000 real handshakes between two engines in memory, one more tier than the first at both ends;
//! exact counts of what arrives, of handshakes, of endpoints.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::{CloseReason, ConnId, Dir, Event, Read};
use bytes::Bytes;
use common::*;
use std::collections::HashSet;
use std::time::Duration;
use wire::Path;

const CROWD: usize = 1000;
/// The first tier leaves an eighth of its 1,024 places free.
const FIRST: usize = 896;

struct Crowd {
    pair: Pair,
    at_client: Vec<ConnId>,
    at_server: Vec<ConnId>,
    /// The first datagrams to the server, as it got them.
    first: Vec<(Path, Vec<u8>)>,
}

/// All are connected, each of them after the one before.
fn crowd() -> Crowd {
    let mut pair = Pair::new(server_engine(0, &chain(0), |_| {}));
    let (mut at_client, mut at_server, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..CROWD {
        let address = client_address(n as u16);
        at_client.push(connect(&mut pair.client, pair.now, address));
        let path = Path { local: SERVER, remote: address };
        let mut is_first = true;
        pair.run_with(Duration::from_millis(30), &mut |to_server, bytes| {
            if to_server && std::mem::take(&mut is_first) {
                first.push((path, bytes.to_vec()));
            }
            true
        });
        let connected =
            pair.server_events.drain(..).find(|(_, event)| matches!(event, Event::Connected { .. }));
        at_server.push(connected.expect("connected").0);
    }
    Crowd { pair, at_client, at_server, first }
}

/// A stream of each of these connections brings its number; what has arrived.
fn heard(crowd: &mut Crowd, numbers: std::ops::Range<usize>) -> HashSet<usize> {
    for n in numbers {
        let mut conn = crowd.pair.client.connection(crowd.at_client[n]).unwrap();
        let stream = conn.open_bi().unwrap();
        conn.write_chunks(stream, &mut [Bytes::from(n.to_string())]);
        conn.finish(stream);
    }
    crowd.pair.server_events.clear();
    crowd.pair.run(Duration::from_millis(500));
    let mut heard = HashSet::new();
    for (id, event) in std::mem::take(&mut crowd.pair.server_events) {
        if !matches!(event, Event::StreamOpened { dir: Dir::Bi }) {
            continue;
        }
        let mut conn = crowd.pair.server.connection(id).unwrap();
        while let Some(stream) = conn.accept(Dir::Bi) {
            let mut chunks = Vec::new();
            assert_eq!(conn.read_all(stream, usize::MAX, &mut chunks), Read::Fin);
            let number = String::from_utf8(chunks.concat()).unwrap().parse().unwrap();
            assert_eq!(crowd.at_server[number], id, "it came to its own connection");
            heard.insert(number);
        }
    }
    heard
}

#[test]
fn a_crowd_spreads_over_endpoints_and_leaves_one() {
    let mut crowd = crowd();
    assert_eq!((crowd.pair.server.connections(), crowd.pair.client.connections()), (CROWD, CROWD));
    assert_eq!((crowd.pair.server.endpoints(), crowd.pair.client.endpoints()), (2, 2));
    assert_eq!(heard(&mut crowd, 0..CROWD).len(), CROWD);

    // First Initials that come once more, late, of the last ones in either tier: they begin nothing.
    let started = crowd.pair.server.stats().handshakes_started;
    for n in [FIRST - 1, CROWD - 1] {
        let (path, bytes) = crowd.first[n].clone();
        crowd.pair.server.receive(crowd.pair.now, path, None, &bytes);
    }
    crowd.pair.run(Duration::from_millis(100));
    let stats = crowd.pair.server.stats();
    assert_eq!((started, stats.handshakes_started), (CROWD as u64, CROWD as u64));
    assert_eq!(stats.initials_queued, CROWD as u64);

    // The server forgets all that are in the second tier, and gives it back; the others don't notice.
    for &id in &crowd.at_server[FIRST..] {
        crowd.pair.server.forget(id);
    }
    crowd.pair.run(Duration::from_secs(11));
    crowd.pair.run(Duration::ZERO);
    assert_eq!((crowd.pair.server.connections(), crowd.pair.server.endpoints()), (FIRST, 1));
    assert_eq!(heard(&mut crowd, 0..FIRST).len(), FIRST);

    // One of the forgotten speaks: what is left of its server answers by a stateless reset, which the client finds in its
    // own second tier.
    crowd.pair.client_events.clear();
    assert_eq!(heard(&mut crowd, CROWD - 1..CROWD).len(), 0);
    let ended = crowd.pair.client_events.iter().find_map(|(id, event)| match event {
        Event::Closed { reason } => Some((*id, reason.clone())),
        _ => None,
    });
    assert_eq!(ended, Some((crowd.at_client[CROWD - 1], CloseReason::Reset)));

    // Whoever comes next begins in the first tier again, where places are free.
    for &id in &crowd.at_server[..10] {
        crowd.pair.server.forget(id);
    }
    let before = crowd.pair.server.stats().handshakes_completed;
    for (count, endpoints) in [(10, 1), (30, 2)] {
        for n in 0..count {
            connect(&mut crowd.pair.client, crowd.pair.now, client_address((CROWD + count + n) as u16));
        }
        crowd.pair.run(Duration::from_millis(200));
        assert_eq!(crowd.pair.server.endpoints(), endpoints);
    }
    assert_eq!(crowd.pair.server.stats().handshakes_completed, before + 40);
    assert_eq!(crowd.pair.server.connections(), FIRST + 30);
    // They have the places of those that went, and not their names.
    for &id in &crowd.at_server[FIRST..] {
        assert!(crowd.pair.server.connection(id).is_none(), "{id:?} is over");
    }
}
