//! Packets protected in batches are the packets that quinn alone would have made, and carry the same bytes.
//!
//! Method: two engines and a wire that swaps, loses, repeats and forges datagrams and gives them over in bursts, in
//! every combination of eager and batched ends, at every level of this CPU, for each cipher; key updates at both ends, a
//! NAT rebind, a stateless reset and 0-RTT on the way. The simulator (`beam-sim`) does the same at random, by the
//! thousand; here each thing is known to have happened.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::tls::{ALPN_H3, ClientAuth, provider, quic_client, quic_server, server_tls};
use beam_tunnel::transport::{TransportOptions, client_config, server_config};
use beam_tunnel::{
    CidKey, CloseReason, ConnId, DropReason, Engine, EngineConfig, Event, Inbound, Level, Protection, Read,
    Secrets, StreamId, WorkerId,
};
use bytes::Bytes;
use common::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustls::CipherSuite;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::Path;

const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

fn modes() -> Vec<Protection> {
    let batched = Level::available().iter().map(|&level| Protection::Batched(level));
    std::iter::once(Protection::Eager).chain(batched).collect()
}

/// Two engines, a client and a server, and the wire between them.
struct Ends {
    now: Instant,
    rng: StdRng,
    client: Engine,
    server: Engine,
    config: quinn_proto::ClientConfig,
    /// What the server sees as the client's address.
    client_address: SocketAddr,
    /// Whether the wire is hostile.
    hostile: bool,
    forged: u64,
    events: [Vec<(ConnId, Event)>; 2],
}

impl Ends {
    fn new(client: Protection, server: Protection, suite: CipherSuite, seed: u64) -> Self {
        let chain = chain(0);
        let mut tls = server_tls(chain.0.clone(), chain.1.clone_key(), ClientAuth::None).unwrap();
        tls.max_early_data_size = u32::MAX;
        let transport = Arc::new(TransportOptions::gateway().build());
        let accept = Arc::new(server_config(quic_server(tls).unwrap(), transport, &secrets()));
        let mut provider = (*provider()).clone();
        provider.cipher_suites.sort_by_key(|candidate| candidate.suite() != suite);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(chain.0[0].clone()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN_H3.to_vec()];
        tls.enable_early_data = true;
        let config = client_config(quic_client(tls).unwrap(), Arc::new(TransportOptions::client().build()));
        let client_secrets = Secrets { cid_key: CidKey([9; 16]), reset_key: [8; 64], token_key: [7; 64] };
        Self {
            now: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            client: Engine::new(EngineConfig {
                protection: client,
                // Of some pairs, one end copies as `scripts/bench ablation` has it do: nothing may come of that.
                extra_copy: client == server,
                ..EngineConfig::new(WorkerId(0), client_secrets, None)
            }),
            server: server_engine_of(server, accept),
            config,
            client_address: client_address(1),
            hostile: false,
            forged: 0,
            events: [Vec::new(), Vec::new()],
        }
    }

    fn connect(&mut self) -> ConnId {
        let config = self.config.clone();
        self.client.connect(self.now, config, SERVER, client_address(0), "gateway.test").unwrap()
    }

    /// One round trip of 2 ms: each end's datagrams reach the other as bursts.
    fn round(&mut self) {
        for to_server in [true, false] {
            self.now += Duration::from_millis(1);
            let (from, to) = match to_server {
                true => (&mut self.client, &mut self.server),
                false => (&mut self.server, &mut self.client),
            };
            from.run(self.now);
            let mut sent: Vec<Vec<u8>> = outbox(from, self.now).into_iter().map(|(_, bytes)| bytes).collect();
            if self.hostile {
                self.forged += mistreat(&mut self.rng, &mut sent);
            }
            let path = match to_server {
                true => Path { local: SERVER, remote: self.client_address },
                false => Path { local: client_address(0), remote: SERVER },
            };
            for burst in sent.chunks(32) {
                let burst: Vec<Inbound<'_>> =
                    burst.iter().map(|bytes| Inbound { path, ecn: None, bytes }).collect();
                to.receive_burst(self.now, &burst);
                to.run(self.now);
            }
        }
        self.events[0].extend(events(&mut self.client));
        self.events[1].extend(events(&mut self.server));
    }

    /// Runs rounds until `done` says so.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.round();
        }
        panic!("{what}: never");
    }

    /// Waits for the server's end of the newest connection.
    fn accepted(&mut self) -> ConnId {
        let connected =
            |(id, event): &(ConnId, Event)| matches!(event, Event::Connected { .. }).then_some(*id);
        self.until("a connection", |ends| ends.events[1].iter().any(|event| connected(event).is_some()));
        let id = self.events[1].iter().rev().find_map(connected).unwrap();
        self.events[1].clear();
        id
    }
}

fn server_engine_of(protection: Protection, accept: Arc<quinn_proto::ServerConfig>) -> Engine {
    Engine::new(EngineConfig { protection, ..EngineConfig::new(WorkerId(0), secrets(), Some(accept)) })
}

/// Loses, repeats, swaps and forges datagrams. Returns how many were forged.
fn mistreat(rng: &mut StdRng, sent: &mut Vec<Vec<u8>>) -> u64 {
    let mut forged = 0;
    let mut arrived = Vec::new();
    for datagram in sent.drain(..) {
        let dice = rng.random_range(0..100);
        if dice < 2 {
            continue;
        }
        if dice < 8 {
            let mut copy = datagram.clone();
            let at = rng.random_range(0..copy.len());
            copy[at] ^= 1 << rng.random_range(0..8);
            arrived.push(copy);
            forged += 1;
        }
        if dice > 95 {
            arrived.push(datagram.clone());
        }
        arrived.push(datagram);
    }
    for at in 1..arrived.len() {
        if rng.random_ratio(1, 10) {
            arrived.swap(at - 1, at);
        }
    }
    *sent = arrived;
    forged
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn read_to_end(engine: &mut Engine, id: ConnId, stream: StreamId, read: &mut Vec<u8>) -> bool {
    let Some(mut conn) = engine.connection(id) else { return false };
    let mut chunks = Vec::new();
    let end = conn.read_all(stream, usize::MAX, &mut chunks);
    chunks.iter().for_each(|chunk| read.extend_from_slice(chunk));
    end == Read::Fin
}

/// Both ends send `len` bytes and read the other's. Returns how often one of them rekeyed on the way: four times at most.
fn exchange(ends: &mut Ends, client: ConnId, server: ConnId, len: usize) -> usize {
    let bytes = pattern(len);
    let mut up = ends.client.connection(client).unwrap();
    let to_server = up.open_uni().unwrap();
    let mut down = ends.server.connection(server).unwrap();
    let to_client = down.open_uni().unwrap();
    let (mut left_up, mut left_down) = ([bytes.clone()], [bytes.clone()]);
    let (mut read_up, mut read_down) = (Vec::new(), Vec::new());
    let (mut done_up, mut done_down, mut updates) = (false, false, 0);
    ends.until("the exchange", |ends| {
        let mut up = ends.client.connection(client).unwrap();
        if up.write_chunks(to_server, &mut left_up) != beam_tunnel::Write::Gone && left_up[0].is_empty() {
            up.finish(to_server);
        }
        let mut down = ends.server.connection(server).unwrap();
        if down.write_chunks(to_client, &mut left_down) != beam_tunnel::Write::Gone && left_down[0].is_empty()
        {
            down.finish(to_client);
        }
        if updates < 4 && read_up.len() + read_down.len() > (updates + 1) * len / 3 {
            match updates % 2 {
                0 => ends.client.connection(client).unwrap().force_key_update(),
                _ => ends.server.connection(server).unwrap().force_key_update(),
            }
            updates += 1;
        }
        done_up = done_up || read_to_end(&mut ends.server, server, to_server, &mut read_up);
        done_down = done_down || read_to_end(&mut ends.client, client, to_client, &mut read_down);
        done_up && done_down
    });
    assert!(read_up == bytes && read_down == bytes, "every byte, once and in order");
    updates
}

fn assert_sound(engine: &Engine, protection: Protection, packets_min: u64) {
    let stats = engine.stats();
    for reason in [DropReason::NotSealed, DropReason::Misdirected] {
        assert_eq!(stats.dropped(reason), 0, "{protection:?} {}", reason.name());
    }
    assert_eq!(stats.canary_failed, 0);
    let batched = (stats.packets_sealed_in_batches, stats.packets_opened_in_batches);
    match protection {
        Protection::Eager => assert_eq!(batched, (0, 0)),
        Protection::Batched(_) => {
            assert!(batched.0.min(batched.1) > packets_min, "{protection:?} {batched:?}")
        }
    }
}

#[test]
fn every_combination_of_ends_carries_the_same_bytes_over_a_hostile_wire() {
    for suite in SUITES {
        for client in modes() {
            for server in modes() {
                let seed = 7;
                println!("{suite:?}, client {client:?}, server {server:?}, seed {seed}");
                let mut ends = Ends::new(client, server, suite, seed);
                let id = ends.connect();
                let accepted = ends.accepted();
                ends.hostile = true;
                assert_eq!(exchange(&mut ends, id, accepted, 600_000), 4, "both ends rekeyed twice");
                // The same from another address: a NAT rebind under way.
                ends.client_address = client_address(2);
                exchange(&mut ends, id, accepted, 200_000);
                assert!(ends.forged > 50, "{} forgeries", ends.forged);
                assert!(ends.server.stats().migrations >= 1);
                assert_sound(&ends.client, client, 400);
                assert_sound(&ends.server, server, 400);
            }
        }
    }
}

// RFC 9000 section 10.3: a stateless reset is told by its last 16 bytes, which must not be touched although the batch
// has tried to open the datagram. Method: the token of a real reset behind a header that bears the client's own CID, so
// that its keys are known and tried.
#[test]
fn a_stateless_reset_is_seen_behind_an_opened_packet() {
    for client in modes() {
        for suite in SUITES {
            let mut ends = Ends::new(client, Protection::default(), suite, 1);
            let id = ends.connect();
            let accepted = ends.accepted();
            exchange(&mut ends, id, accepted, 100_000);
            ends.server.connection(accepted).unwrap().ping();
            let to_client = outbox(&mut ends.server, ends.now).remove(0).1;
            // The server has lost its state and kept its secrets.
            let mut amnesiac = server_engine(0, &chain(0), |_| {});
            ends.client.connection(id).unwrap().ping();
            for (path, bytes) in outbox(&mut ends.client, ends.now) {
                amnesiac.receive(ends.now, flip(path), None, &bytes);
            }
            let reset = outbox(&mut amnesiac, ends.now).remove(0).1;
            assert_eq!(amnesiac.stats().stateless_resets_sent, 1);
            let mut datagram = to_client[..18].to_vec();
            datagram.extend([0x5a; 30]);
            datagram.extend(&reset[reset.len() - 16..]);
            ends.events[0].clear();
            let tried_before = ends.client.stats().packets_opened_in_batches;
            let path = Path { local: client_address(0), remote: SERVER };
            // The key phase is guessed right or wrong by chance: of eight forms, some match.
            let forms: Vec<Vec<u8>> = (0..8).map(|n| [&[0x40 | n], &datagram[1..]].concat()).collect();
            let burst: Vec<Inbound<'_>> =
                forms.iter().map(|bytes| Inbound { path, ecn: None, bytes }).collect();
            ends.client.receive_burst(ends.now, &burst);
            ends.client.run(ends.now);
            let tried = ends.client.stats().packets_opened_in_batches - tried_before;
            assert_eq!(tried > 0, client != Protection::Eager, "{client:?}: {tried} opened ahead");
            ends.events[0].extend(events(&mut ends.client));
            assert!(
                ends.events[0]
                    .iter()
                    .any(|(_, event)| matches!(event, Event::Closed { reason: CloseReason::Reset })),
                "{client:?} {suite:?}: {:?}",
                ends.events[0]
            );
        }
    }
}

// RFC 9001 section 4.6: early data, coalesced with the Initial, and the switch to 1-RTT keys in the middle of a stream.
#[test]
fn early_data_arrives_in_every_combination() {
    for suite in SUITES {
        for client in modes() {
            for server in modes() {
                let mut ends = Ends::new(client, server, suite, 3);
                let first = ends.connect();
                let accepted = ends.accepted();
                exchange(&mut ends, first, accepted, 50_000);
                let second = ends.connect();
                let mut conn = ends.client.connection(second).unwrap();
                assert!(conn.has_early_data(), "a ticket that permits it");
                let stream = conn.open_uni().unwrap();
                let bytes = pattern(40_000);
                assert_eq!(
                    conn.write_chunks(stream, &mut [bytes.clone()]),
                    beam_tunnel::Write::Written { bytes: bytes.len(), chunks: 1 }
                );
                conn.finish(stream);
                let accepted = ends.accepted();
                assert!(ends.client.connection(second).unwrap().early_data_accepted());
                let mut read = Vec::new();
                ends.until("the early data", |ends| {
                    read_to_end(&mut ends.server, accepted, stream, &mut read)
                });
                assert!(read == bytes, "{suite:?} {client:?} {server:?}");
            }
        }
    }
}
