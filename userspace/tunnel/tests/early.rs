//! Early data between two engines: a client that was written down and read back, its first flight again and again, and
//! tickets that are damaged.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::resume::{Ticket, Vault};
use beam_tunnel::tls::{ClientAuth, Verify, client_tls, resuming_client, server_tls, with_tickets};
use beam_tunnel::transport::{TransportOptions, client_config};
use beam_tunnel::{ConnId, Dir, Engine, Event, Read};
use bytes::Bytes;
use common::*;
use rustls::RootCertStore;
use rustls::server::ServerSessionMemoryCache;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::Path;

/// Tickets as bytes, as a disk would have them.
#[derive(Debug, Default)]
struct Drawer(Mutex<Vec<Vec<u8>>>);

impl Drawer {
    fn with(tickets: Vec<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(tickets)))
    }

    fn all(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Vault for Drawer {
    fn take(&self) -> Option<Ticket> {
        Ticket::from_bytes(&self.0.lock().unwrap().pop()?)
    }

    fn put(&self, ticket: Ticket) {
        self.0.lock().unwrap().push(ticket.to_bytes().to_vec());
    }
}

/// A gateway whose tickets permit early data.
fn gateway(chain: &Chain) -> Engine {
    let tls = server_tls(chain.0.clone(), chain.1.clone_key(), ClientAuth::None).unwrap();
    server_engine_with(0, with_tickets(tls, ServerSessionMemoryCache::new(1000), true), |_| {})
}

fn roots(chain: &Chain) -> Verify {
    let mut roots = RootCertStore::empty();
    roots.add(chain.0[0].clone()).unwrap();
    Verify::Roots(roots)
}

/// A client of its own process: nothing is shared with an earlier one but the drawer's bytes.
fn connect_from(pair: &mut Pair, verify: Verify, drawer: &Arc<Drawer>) -> ConnId {
    let tls = resuming_client(client_tls(verify, None).unwrap(), drawer.clone()).unwrap();
    let config = client_config(tls, Arc::new(TransportOptions::client().build()));
    pair.client.connect(pair.now, config, SERVER, client_address(0), "gateway.test").unwrap()
}

/// Tickets of a first connection, as bytes.
fn tickets(pair: &mut Pair, verify: Verify) -> Vec<Vec<u8>> {
    let drawer = Arc::<Drawer>::default();
    let id = connect_from(pair, verify, &drawer);
    assert!(!pair.client.connection(id).unwrap().has_early_data());
    pair.run(Duration::from_millis(200));
    let tickets = drawer.all();
    assert_eq!(tickets.len(), 2, "two came, and both were understood");
    pair.client.connection(id).unwrap().close(0u32.into(), b"");
    pair.run(Duration::from_secs(2));
    pair.client_events.clear();
    pair.server_events.clear();
    tickets
}

/// Asks in early data.
fn ask(pair: &mut Pair, id: ConnId, words: &'static [u8]) {
    let mut conn = pair.client.connection(id).unwrap();
    let stream = conn.open_bi().expect("early data may open streams");
    conn.write_chunks(stream, &mut [Bytes::from_static(words)]);
    assert!(conn.finish(stream));
}

fn place(events: &[(ConnId, Event)], wanted: fn(&Event) -> bool) -> Option<usize> {
    events.iter().position(|(_, event)| wanted(event))
}

fn is_connected(event: &Event) -> bool {
    matches!(event, Event::Connected { .. })
}

fn is_opened(event: &Event) -> bool {
    matches!(event, Event::StreamOpened { dir: Dir::Bi })
}

// Goal: a client that kept nothing but bytes asks in its first flight, and the gateway has the question, the whole of
// it, before the handshake is done; its answer leaves before that, too.
#[test]
fn a_restarted_client_asks_in_early_data() {
    let chain = chain(1);
    let mut pair = Pair::new(gateway(&chain));
    let mut kept = tickets(&mut pair, roots(&chain));
    let mut kept_count = kept.len();
    for _ in 0..5 {
        pair.client = client_engine();
        let drawer = Drawer::with(kept);
        let id = connect_from(&mut pair, roots(&chain), &drawer);
        assert!(pair.client.connection(id).unwrap().has_early_data());
        ask(&mut pair, id, b"early question");
        // One way, and a little: the server has the first flight, the client nothing yet.
        pair.run(Duration::from_millis(6));
        assert!(place(&pair.server_events, is_connected).is_none());
        let at = place(&pair.server_events, is_opened).expect("the stream is there before the handshake");
        let server = pair.server_events[at].0;
        let mut conn = pair.server.connection(server).unwrap();
        let stream = conn.accept(Dir::Bi).unwrap();
        assert_eq!(conn.read(stream, 100), Read::Chunk(Bytes::from_static(b"early question")));
        assert_eq!(conn.read(stream, 100), Read::Fin);
        conn.write_chunks(stream, &mut [Bytes::from_static(b"early answer")]);
        conn.finish(stream);
        pair.run(Duration::from_millis(6));
        assert!(place(&pair.client_events, is_connected).is_some(), "one round trip");
        assert!(pair.client.connection(id).unwrap().early_data_accepted());
        let readable = |event: &Event| matches!(event, Event::StreamReadable { .. });
        assert!(
            place(&pair.client_events, readable).is_some(),
            "the answer came with the gateway's first flight"
        );
        pair.run(Duration::from_millis(200));
        assert_eq!(pair.client.connection(id).unwrap().peer_identity(), chain.0);
        let before = kept_count;
        kept = drawer.all();
        kept_count = kept.len();
        assert_eq!(kept_count, before + 1, "one was used, and two came");
        pair.client.connection(id).unwrap().close(0u32.into(), b"");
        pair.run(Duration::from_secs(2));
        pair.client_events.clear();
        pair.server_events.clear();
    }
}

// RFC 8446 section 8.1, single-use tickets. Goal: of ten copies of a first flight, from ten addresses, none but the first
// has its stream opened. Method: the client's datagrams, recorded and delivered again.
#[test]
fn a_replayed_flight_opens_nothing() {
    let chain = chain(0);
    let mut pair = Pair::new(gateway(&chain));
    let kept = tickets(&mut pair, roots(&chain));
    let id = connect_from(&mut pair, roots(&chain), &Drawer::with(kept));
    ask(&mut pair, id, b"once");
    let mut flight = Vec::new();
    let mut recording = true;
    pair.run_with(Duration::from_secs(1), &mut |to_server, bytes| {
        recording &= to_server;
        if recording {
            flight.push(bytes.to_vec());
        }
        true
    });
    assert!(flight.len() < 5, "{} datagrams before the first answer", flight.len());
    let opened = |pair: &Pair| pair.server_events.iter().filter(|(_, event)| is_opened(event)).count();
    assert_eq!(opened(&pair), 1);
    pair.client.connection(id).unwrap().close(0u32.into(), b"");
    pair.run(Duration::from_secs(5));
    let before = pair.server.stats().handshakes_started;
    for n in 1..=10 {
        for bytes in &flight {
            let path = Path { local: SERVER, remote: client_address(n) };
            pair.server.receive(pair.now, path, None, bytes);
        }
        // Longer than a handshake may take: else the next copy is for the same connection, by its CID.
        pair.run(Duration::from_secs(15));
    }
    assert_eq!(pair.server.stats().handshakes_started - before, 10, "each began a handshake of its own");
    assert_eq!(opened(&pair), 1, "and none of them opened a stream");
}

// Goal: whatever is in a ticket's bytes, nothing panics; and where early data is offered with it, the client is told of
// its end as of any other.
#[test]
fn a_damaged_ticket_breaks_nothing() {
    let chain = chain(0);
    let mut pair = Pair::new(gateway(&chain));
    let length = tickets(&mut pair, roots(&chain))[0].len();
    let (mut full, mut early, mut refused, mut unread) = (0, 0, 0, 0);
    for at in (0..length).step_by(5) {
        // Each time a fresh one: a ticket that was taken is no ticket.
        let mut bad = tickets(&mut pair, roots(&chain)).remove(0);
        // Their lengths differ by a byte or two, with the random parameters in them.
        let Some(byte) = bad.get_mut(at) else { break };
        *byte ^= 0x55;
        if Ticket::from_bytes(&bad).is_none() {
            unread += 1;
            continue;
        }
        let id = connect_from(&mut pair, roots(&chain), &Drawer::with(vec![bad]));
        let offered = pair.client.connection(id).unwrap().has_early_data();
        pair.run(Duration::from_millis(100));
        match place(&pair.client_events, is_connected) {
            Some(_) if offered => early += 1,
            Some(_) => full += 1,
            None => {
                assert!(offered, "byte {at}: without early data there is a full handshake");
                refused += 1;
            }
        }
        if let Some(mut conn) = pair.client.connection(id) {
            conn.close(0u32.into(), b"");
        }
        pair.run(Duration::from_secs(1));
        pair.client_events.clear();
        pair.server_events.clear();
    }
    println!(
        "{unread} unread, {full} full handshakes, {early} offered early data, {refused} refused by the gateway"
    );
    assert!(unread + full > 0 && early + refused > 0);
}

// Goal: a ticket is no way around the trust of today. Method: the stored chain is judged by roots that don't know it, by
// another pin, under another name.
#[test]
fn stored_certificates_are_judged_anew() {
    let (ours, theirs) = (chain(0), chain(0));
    let mut pair = Pair::new(gateway(&ours));
    for verify in [roots(&theirs), Verify::Pin(beam_tunnel::tls::Fingerprint([7; 32]))] {
        let kept = tickets(&mut pair, roots(&ours));
        let id = connect_from(&mut pair, verify, &Drawer::with(kept));
        assert!(!pair.client.connection(id).unwrap().has_early_data());
        pair.run(Duration::from_secs(1));
        assert!(place(&pair.client_events, is_connected).is_none(), "nor is its certificate taken live");
        pair.client_events.clear();
        pair.server_events.clear();
    }
    let kept = tickets(&mut pair, Verify::Insecure);
    let id = connect_from(&mut pair, Verify::Insecure, &Drawer::with(kept));
    assert!(pair.client.connection(id).unwrap().has_early_data(), "who trusts anybody trusts a stored one");
}

// Goal: without early data at the gateway (`off`), a ticket still resumes, and what the client sent early is told lost.
#[test]
fn a_gateway_that_refuses_early_data_resumes() {
    let chain = chain(0);
    let store = ServerSessionMemoryCache::new(1000);
    let engine = |early| {
        let tls = server_tls(chain.0.clone(), chain.1.clone_key(), ClientAuth::None).unwrap();
        server_engine_with(0, with_tickets(tls, store.clone(), early), |_| {})
    };
    let mut pair = Pair::new(engine(true));
    let kept = tickets(&mut pair, roots(&chain));
    pair.server = engine(false);
    let id = connect_from(&mut pair, roots(&chain), &Drawer::with(kept));
    assert!(pair.client.connection(id).unwrap().has_early_data());
    ask(&mut pair, id, b"lost");
    pair.run(Duration::from_secs(1));
    assert!(place(&pair.client_events, is_connected).is_some());
    assert!(!pair.client.connection(id).unwrap().early_data_accepted());
    assert!(place(&pair.server_events, is_opened).is_none());
}
