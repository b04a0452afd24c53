//! `connection_handshake`: full, resumed, and with a request in 0-RTT; both ends together, and the gateway's part alone.
//!
//! One pass is one connection, from the client's first datagram until both ends have it and nothing is on its way any more:
//! tickets and acknowledgements are in it. It is closed and forgotten outside of the measurement.

use super::{Done, Meter, Op};
use crate::{Chain, chain};
use bytes::Bytes;
use masque::{RequestHead, encode_request};
use quinn_proto::ClientConfig;
use rustls::RootCertStore;
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tunnel::resume::{Ticket, Vault};
use tunnel::tls::{self, ClientAuth, Verify};
use tunnel::transport::{self, TransportOptions};
use tunnel::{ConnId, Dir, EcnCodepoint, Engine, EngineConfig, Event, Read, Secrets, WorkerId, Write};
use wire::Path;

const SERVER_NAME: &str = "gateway.test";
/// Tickets that a gateway keeps.
const TICKETS_MAX: usize = 1024;
const ROUNDS_MAX: usize = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Full,
    Resumed,
    ZeroRtt,
}

pub(super) fn ops() -> Vec<Op> {
    let hows = [("full", How::Full), ("resumed", How::Resumed), ("0rtt", How::ZeroRtt)];
    hows.into_iter().flat_map(|(name, how)| [op(name, how, true), op(name, how, false)]).collect()
}

fn op(name: &str, how: How, both: bool) -> Op {
    let done = Done { units: 1, bytes: 0 };
    let side = if both { "both_ends" } else { "gateway" };
    let op = Op::new(format!("connection_handshake/{name}/{side}"), "handshake", done, move |_| {
        let mut rig = Rig::new(how);
        move |meter: &mut dyn Meter| {
            let mut meters = Meters { meter, both };
            rig.connection(how, &mut meters);
            done
        }
    });
    if both { op.uncounted() } else { op }
}

/// Whose work is measured: the gateway's always.
struct Meters<'a> {
    meter: &'a mut dyn Meter,
    both: bool,
}

impl Meters<'_> {
    fn gateway(&mut self, work: &mut dyn FnMut()) {
        self.meter.measure(work);
    }

    fn client(&mut self, work: &mut dyn FnMut()) {
        if self.both { self.meter.measure(work) } else { work() }
    }
}

/// A client's tickets, in its memory.
#[derive(Debug, Default)]
struct Drawer(Mutex<Vec<Ticket>>);

impl Vault for Drawer {
    fn take(&self) -> Option<Ticket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, ticket: Ticket) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two come with each connection, and one is used.
        tickets.truncate(1);
        tickets.push(ticket);
    }
}

/// The gateway's tickets, and how many came back.
#[derive(Debug)]
struct Counted {
    store: Arc<ServerSessionMemoryCache>,
    taken: AtomicU64,
}

impl StoresServerSessions for Counted {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.store.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.store.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.store.take(key)?;
        self.taken.fetch_add(1, Relaxed);
        Some(value)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// Datagrams on their way, in memory that is kept.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    datagrams: Vec<(Path, Option<EcnCodepoint>, Range<usize>)>,
}

impl Wire {
    fn fill(&mut self, now: Instant, from: &mut Engine) {
        from.run(now);
        let Self { bytes, datagrams } = self;
        while !from.transmit(now, 64, &mut |path, ecn, sent, segment| {
            let back = Path { local: path.remote, remote: path.local };
            for datagram in sent.chunks(segment.unwrap_or(sent.len())) {
                let start = bytes.len();
                bytes.extend_from_slice(datagram);
                datagrams.push((back, ecn, start..bytes.len()));
            }
            true
        }) {}
    }

    fn empty(&mut self, now: Instant, to: &mut Engine) {
        for (path, ecn, range) in self.datagrams.drain(..) {
            to.receive(now, path, ecn, &self.bytes[range]);
        }
        self.bytes.clear();
        to.run(now);
    }

    fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }
}

/// What an end has seen of a connection.
#[derive(Default)]
struct Seen {
    id: Option<ConnId>,
    connected: bool,
    /// The request, and whether it came before the handshake was done.
    asked: Option<bool>,
}

struct Rig {
    now: Instant,
    client: Engine,
    gateway: Engine,
    config: ClientConfig,
    tickets: Arc<Counted>,
    /// Connections so far: each comes from an address of its own.
    number: u32,
    request: Bytes,
    up: Wire,
    down: Wire,
}

impl Rig {
    fn new(how: How) -> Self {
        let (chain, secrets) = (chain(), Secrets::random());
        let tickets =
            Arc::new(Counted { store: ServerSessionMemoryCache::new(TICKETS_MAX), taken: AtomicU64::new(0) });
        let tls =
            tls::server_tls(chain.0.clone(), chain.1.clone_key(), ClientAuth::None).expect("chain and key");
        let tls = tls::with_tickets(tls, tickets.clone(), how == How::ZeroRtt);
        let quic = tls::quic_server(tls).expect("AES-128-GCM");
        let server = transport::server_config(quic, Arc::new(TransportOptions::gateway().build()), &secrets);
        let engine = |secrets, server| Engine::new(EngineConfig::new(WorkerId(0), secrets, server));
        let mut rig = Self {
            now: Instant::now(),
            client: engine(Secrets::random(), None),
            gateway: engine(secrets, Some(Arc::new(server))),
            config: client_config(&chain, how),
            tickets,
            number: 0,
            request: encode_request(&RequestHead::connect("origin.test:443", &[])),
            up: Wire::default(),
            down: Wire::default(),
        };
        // The first connection has no ticket, but brings some.
        if how != How::Full {
            rig.connection(How::Full, &mut Meters { meter: &mut Unmeasured, both: false });
        }
        rig
    }

    /// One connection, and its end.
    fn connection(&mut self, how: How, meters: &mut Meters<'_>) {
        let taken = self.tickets.taken.load(Relaxed);
        let (mut client, mut gateway) = (Seen::default(), Seen::default());
        meters.client(&mut || self.connect(how, &mut client));
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "no connection in {round} rounds");
            self.now += Duration::from_micros(50);
            meters.gateway(&mut || {
                self.up.empty(self.now, &mut self.gateway);
                self.gateway_events(&mut gateway);
                self.down.fill(self.now, &mut self.gateway);
            });
            meters.client(&mut || {
                self.down.empty(self.now, &mut self.client);
                events(&mut self.client, &mut client);
                self.up.fill(self.now, &mut self.client);
            });
            if client.connected && gateway.connected && self.up.is_empty() && self.down.is_empty() {
                break;
            }
        }
        let resumed = self.tickets.taken.load(Relaxed) - taken;
        assert_eq!(resumed, u64::from(how != How::Full), "tickets that the gateway took");
        let early =
            self.client.connection(client.id.expect("connected")).expect("alive").early_data_accepted();
        assert_eq!(early, how == How::ZeroRtt, "early data");
        assert_eq!(
            gateway.asked,
            (how == How::ZeroRtt).then_some(true),
            "the request came in the first flight"
        );
        self.close(client.id.expect("connected"));
    }

    fn connect(&mut self, how: How, seen: &mut Seen) {
        self.number += 1;
        let [_, _, third, fourth] = self.number.to_be_bytes();
        let local = SocketAddr::from(([198, 19, third, fourth], 50_000));
        let server = SocketAddr::from(([198, 18, 0, 1], 443));
        let config = self.config.clone();
        let id = self.client.connect(self.now, config, server, local, SERVER_NAME).expect("a configuration");
        seen.id = Some(id);
        let mut conn = self.client.connection(id).expect("new");
        if how == How::ZeroRtt {
            assert!(conn.has_early_data(), "there is a ticket");
            let stream = conn.open_bi().expect("early data may open streams");
            let expected = Write::Written { bytes: self.request.len(), chunks: 1 };
            assert_eq!(conn.write_chunks(stream, &mut [self.request.clone()]), expected);
            assert!(conn.finish(stream));
        }
        self.up.fill(self.now, &mut self.client);
    }

    /// As [`events`], and reads a request.
    fn gateway_events(&mut self, seen: &mut Seen) {
        let opened = events(&mut self.gateway, seen);
        let Some(mut conn) = seen.id.filter(|_| opened).and_then(|id| self.gateway.connection(id)) else {
            return;
        };
        let stream = conn.accept(Dir::Bi).expect("it was opened");
        assert_eq!(conn.read(stream, 1 << 16), Read::Chunk(self.request.clone()));
        assert_eq!(conn.read(stream, 1 << 16), Read::Fin);
        // Without an answer: a flow that is refused ends so, too.
        conn.finish(stream);
        seen.asked = Some(!seen.connected);
    }

    /// Both ends forget it.
    fn close(&mut self, id: ConnId) {
        self.client.connection(id).expect("alive").close(0u32.into(), b"");
        for _ in 0..ROUNDS_MAX {
            self.up.fill(self.now, &mut self.client);
            self.up.empty(self.now, &mut self.gateway);
            self.down.fill(self.now, &mut self.gateway);
            self.down.empty(self.now, &mut self.client);
            events(&mut self.client, &mut Seen::default());
            events(&mut self.gateway, &mut Seen::default());
            // Not before it has said so: on a wire this short it forgets the connection within milliseconds.
            self.now += Duration::from_millis(20);
            if self.client.connections() + self.gateway.connections() == 0 {
                return;
            }
        }
        panic!(
            "a connection that was closed is still there: {} at the client, {} at the gateway",
            self.client.connections(),
            self.gateway.connections()
        );
    }
}

struct Unmeasured;

impl Meter for Unmeasured {
    fn measure(&mut self, part: &mut dyn FnMut()) {
        part();
    }
}

fn client_config(chain: &Chain, how: How) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(chain.0[0].clone()).expect("a certificate that we made");
    let tls = tls::client_tls(Verify::Roots(roots), None).expect("client TLS");
    let options = Arc::new(TransportOptions::client().build());
    match how {
        How::Full => transport::client_config(tls::quic_client(tls).expect("AES-128-GCM"), options),
        How::Resumed | How::ZeroRtt => {
            let drawer = Arc::<Drawer>::default();
            transport::client_config(tls::resuming_client(tls, drawer).expect("AES-128-GCM"), options)
        }
    }
}

/// Takes an engine's events. Returns whether a stream was opened.
fn events(engine: &mut Engine, seen: &mut Seen) -> bool {
    let mut opened = false;
    while let Some((id, event)) = engine.poll_event() {
        match event {
            Event::Connected { .. } => seen.connected = true,
            Event::StreamOpened { .. } => opened = true,
            Event::HandshakeFailed { reason } => panic!("no connection: {reason:?}"),
            _ => {}
        }
        seen.id = Some(id);
    }
    opened
}
