//! Two engines joined by memory, for benches of what QUIC costs without a kernel.

pub mod aead;
pub mod allocations;
pub mod baseline;
pub mod callgrind;
pub mod clock;
pub mod host;
pub mod ops;
pub mod output;
pub mod overhead;
pub mod path;
pub mod peer;
pub mod scale;

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use simd::Level;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::{
    ConnId, Engine, EngineConfig, Event, Read, Secrets, StreamId, WorkerId, Write,
    tls::{self, ClientAuth, Verify},
    transport::{self, TransportOptions},
};
use wire::Path;

/// The vector level of batches: that of `BEAM_SIMD`, or the best that this CPU has.
///
/// # Errors
/// If the variable names none.
pub fn level() -> anyhow::Result<Level> {
    match std::env::var("BEAM_SIMD") {
        Ok(name) => Ok(name.parse()?),
        Err(_) => Ok(Level::best()),
    }
}

/// A certificate chain and its key.
pub type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A self-signed P-256 leaf.
///
/// # Panics
/// If no key can be made.
#[must_use]
pub fn chain() -> Chain {
    let made = rcgen::generate_simple_self_signed(["gateway.test".into()]).expect("a P-256 key");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("PKCS#8");
    (vec![made.cert.der().clone()], key)
}

/// A client engine and a server engine under a virtual clock that each step moves on by 50 us.
pub struct Pair {
    now: Instant,
    client: Engine,
    server: Engine,
}

impl Pair {
    /// Engines as beam runs them, not yet connected.
    ///
    /// # Panics
    /// If the chain can't be used.
    #[must_use]
    pub fn new(chain: &Chain) -> Self {
        let secrets = Secrets::random();
        let tls =
            tls::server_tls(chain.0.clone(), chain.1.clone_key(), ClientAuth::None).expect("chain and key");
        let quic = tls::quic_server(tls).expect("AES-128-GCM");
        let server = transport::server_config(quic, Arc::new(TransportOptions::gateway().build()), &secrets);
        Self {
            now: Instant::now(),
            client: Engine::new(EngineConfig::new(WorkerId(0), Secrets::random(), None)),
            server: Engine::new(EngineConfig::new(WorkerId(0), secrets, Some(Arc::new(server)))),
        }
    }

    /// One full handshake; the connection's names at client and server.
    ///
    /// # Panics
    /// If it does not complete.
    pub fn handshake(&mut self) -> (ConnId, ConnId) {
        let tls = tls::client_tls(Verify::Insecure, None).expect("client TLS");
        let quic = tls::quic_client(tls).expect("AES-128-GCM");
        let config = transport::client_config(quic, Arc::new(TransportOptions::client().build()));
        let server = SocketAddr::from(([198, 18, 0, 1], 443));
        let local = SocketAddr::from(([198, 18, 0, 2], 50_000));
        let client = self.client.connect(self.now, config, server, local, "gateway.test").expect("connect");
        for _ in 0..1000 {
            self.step();
            let connected = |engine: &mut Engine| {
                std::iter::from_fn(|| engine.poll_event()).find_map(|(id, event)| match event {
                    Event::Connected { .. } => Some(id),
                    _ => None,
                })
            };
            if let Some(server) = connected(&mut self.server) {
                self.step();
                return (client, server);
            }
        }
        panic!("no handshake in 1000 steps");
    }

    /// Exchanges what both ends have to send.
    pub fn step(&mut self) {
        self.now += Duration::from_micros(50);
        carry(self.now, &mut self.client, &mut self.server);
        carry(self.now, &mut self.server, &mut self.client);
    }

    /// A stream from the server to the client.
    ///
    /// # Panics
    /// If the client permits none.
    pub fn open(&mut self, server: ConnId) -> StreamId {
        self.server.connection(server).and_then(|mut conn| conn.open_uni()).expect("a stream")
    }

    /// Sends `total` bytes over `stream` and reads them at the other end.
    ///
    /// # Panics
    /// If the connection ends.
    pub fn transfer(
        &mut self,
        (client, server): (ConnId, ConnId),
        stream: StreamId,
        block: &Bytes,
        total: usize,
    ) {
        let (mut written, mut read) = (0, 0);
        let mut chunks = Vec::new();
        while read < total {
            while written < total {
                let mut piece = [block.slice(..block.len().min(total - written))];
                match self.server.connection(server).expect("alive").write_chunks(stream, &mut piece) {
                    Write::Written { bytes, .. } => written += bytes,
                    _ => break,
                }
            }
            self.step();
            let mut conn = self.client.connection(client).expect("alive");
            while let Read::Chunk(_) = conn.read_all(stream, 1 << 20, &mut chunks) {}
            read += chunks.drain(..).map(|chunk| chunk.len()).sum::<usize>();
            while self.client.poll_event().is_some() || self.server.poll_event().is_some() {}
        }
    }
}

/// Up to 64 datagrams from one engine to the other, as one burst of a ring.
fn carry(now: Instant, from: &mut Engine, to: &mut Engine) {
    from.run(now);
    from.transmit(now, 64, &mut |path, ecn, bytes, segment| {
        let back = Path { local: path.remote, remote: path.local };
        for datagram in bytes.chunks(segment.unwrap_or(bytes.len())) {
            to.receive(now, back, ecn, datagram);
        }
        true
    });
    to.run(now);
}
