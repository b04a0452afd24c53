//! Two engines joined by a perfect wire, with every byte in the test's hands.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test helper: clippy only knows test functions")]

use beam_tunnel::tls::{ClientAuth, Verify, client_tls, quic_client, quic_server, server_tls};
use beam_tunnel::transport::{TransportOptions, client_config, server_config};
use beam_tunnel::{CidKey, ConnId, Engine, EngineConfig, Event, Secrets, WorkerId};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::Path;

pub(crate) const SERVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1)), 443);

pub(crate) fn client_address(n: u16) -> SocketAddr {
    SocketAddr::from(([198, 18, 1, (n >> 8) as u8], 1024 + (n & 0xff)))
}

pub(crate) fn secrets() -> Secrets {
    Secrets { cid_key: CidKey([1; 16]), reset_key: [2; 64], token_key: [3; 64] }
}

pub(crate) type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A self-signed leaf, followed by `extra` more certificates of about 400 bytes each.
pub(crate) fn chain(extra: usize) -> Chain {
    let made = rcgen::generate_simple_self_signed(["gateway.test".into()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut certs = vec![made.cert.der().clone()];
    for n in 0..extra {
        let more = rcgen::generate_simple_self_signed([format!("intermediate-{n}.test")]).unwrap();
        certs.push(more.cert.der().clone());
    }
    (certs, key)
}

pub(crate) fn server_engine(worker: u8, chain: &Chain, tune: impl FnOnce(&mut EngineConfig)) -> Engine {
    let tls = server_tls(chain.0.clone(), chain.1.clone_key(), ClientAuth::None).unwrap();
    server_engine_with(worker, tls, tune)
}

pub(crate) fn server_engine_with(
    worker: u8,
    tls: rustls::ServerConfig,
    tune: impl FnOnce(&mut EngineConfig),
) -> Engine {
    let transport = Arc::new(TransportOptions::gateway().build());
    let server = server_config(quic_server(tls).unwrap(), transport, &secrets());
    let mut config = EngineConfig::new(WorkerId(worker), secrets(), Some(Arc::new(server)));
    tune(&mut config);
    Engine::new(config)
}

pub(crate) fn client_engine() -> Engine {
    client_engine_with(|_| {})
}

pub(crate) fn client_engine_with(tune: impl FnOnce(&mut EngineConfig)) -> Engine {
    let secrets = Secrets { cid_key: CidKey([9; 16]), reset_key: [8; 64], token_key: [7; 64] };
    let mut config = EngineConfig::new(WorkerId(0), secrets, None);
    tune(&mut config);
    Engine::new(config)
}

pub(crate) fn quic_client_config(verify: Verify, identity: Option<Chain>) -> quinn_proto::ClientConfig {
    let tls = client_tls(verify, identity).unwrap();
    client_config(quic_client(tls).unwrap(), Arc::new(TransportOptions::client().build()))
}

pub(crate) fn connect(engine: &mut Engine, now: Instant, address: SocketAddr) -> ConnId {
    let config = quic_client_config(Verify::Insecure, None);
    engine.connect(now, config, SERVER, address, "gateway.test").unwrap()
}

/// Everything that an engine wants to send now, one datagram each.
pub(crate) fn outbox(engine: &mut Engine, now: Instant) -> Vec<(Path, Vec<u8>)> {
    let mut out = Vec::new();
    while !engine.transmit(now, 64, &mut |path, _, bytes, segment| {
        let datagrams = bytes.chunks(segment.unwrap_or(bytes.len()));
        out.extend(datagrams.map(|datagram| (*path, datagram.to_vec())));
        true
    }) {}
    out
}

/// The way back.
pub(crate) fn flip(path: Path) -> Path {
    Path { local: path.remote, remote: path.local }
}

pub(crate) fn events(engine: &mut Engine) -> Vec<(ConnId, Event)> {
    std::iter::from_fn(|| engine.poll_event()).collect()
}

/// One client engine and one server engine, 5 ms apart, under a virtual clock.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) client: Engine,
    pub(crate) server: Engine,
    /// To deliver: when, to the server?, path as the receiver sees it, bytes.
    pub(crate) wire: VecDeque<(Instant, bool, Path, Vec<u8>)>,
    pub(crate) client_sent_bytes: usize,
    pub(crate) server_sent_bytes: usize,
    pub(crate) client_events: Vec<(ConnId, Event)>,
    pub(crate) server_events: Vec<(ConnId, Event)>,
}

impl Pair {
    pub(crate) fn new(server: Engine) -> Self {
        Self {
            now: Instant::now(),
            client: client_engine(),
            server,
            wire: VecDeque::new(),
            client_sent_bytes: 0,
            server_sent_bytes: 0,
            client_events: Vec::new(),
            server_events: Vec::new(),
        }
    }

    /// Moves the clock to the next thing that happens, within `limit`, and lets it happen.
    /// `keep` says which datagrams arrive (to the server?, bytes).
    pub(crate) fn step(&mut self, limit: Instant, keep: &mut dyn FnMut(bool, &[u8]) -> bool) -> bool {
        for (to_server, engine) in [(true, &mut self.client), (false, &mut self.server)] {
            engine.run(self.now);
            for (path, bytes) in outbox(engine, self.now) {
                match to_server {
                    true => self.client_sent_bytes += bytes.len(),
                    false => self.server_sent_bytes += bytes.len(),
                }
                if keep(to_server, &bytes) {
                    self.wire.push_back((self.now + Duration::from_millis(5), to_server, flip(path), bytes));
                }
            }
        }
        self.client_events.extend(events(&mut self.client));
        self.server_events.extend(events(&mut self.server));
        let arrival = self.wire.front().map(|(at, ..)| *at);
        let deadlines = [arrival, self.client.next_deadline(), self.server.next_deadline()];
        let Some(next) = deadlines.into_iter().flatten().min().filter(|&next| next <= limit) else {
            return false;
        };
        self.now = self.now.max(next);
        while self.wire.front().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, to_server, path, bytes) = self.wire.pop_front().unwrap();
            let engine = if to_server { &mut self.server } else { &mut self.client };
            engine.receive(self.now, path, None, &bytes);
        }
        true
    }

    /// Runs for `span` of virtual time over a perfect wire.
    pub(crate) fn run(&mut self, span: Duration) {
        self.run_with(span, &mut |_, _| true);
    }

    pub(crate) fn run_with(&mut self, span: Duration, keep: &mut dyn FnMut(bool, &[u8]) -> bool) {
        let limit = self.now + span;
        for _ in 0..100_000 {
            if !self.step(limit, keep) {
                self.now = limit;
                return;
            }
        }
        panic!("the engines never rest");
    }

    /// Opens a connection and runs until both ends have it. Returns the ids of both ends.
    pub(crate) fn established(&mut self) -> (ConnId, ConnId) {
        let id = connect(&mut self.client, self.now, client_address(0));
        self.run(Duration::from_secs(1));
        let connected = |events: &mut Vec<(ConnId, Event)>| {
            let at = events.iter().position(|(_, event)| matches!(event, Event::Connected { .. }));
            events.swap_remove(at.expect("connected")).0
        };
        assert_eq!(connected(&mut self.client_events), id);
        (id, connected(&mut self.server_events))
    }
}
