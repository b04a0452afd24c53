//! Bare quinn-proto, in a loop that does what a good driver does: transmits of ten segments, bursts of 32, one slab for
//! what is received, blocks of 64 KB written.

use super::crypto::{SERVER_NAME, Tls, transport};
use super::{AHEAD_BYTES, BLOCK_BYTES, BURST, Flow};
use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    Incoming, ServerConfig, StreamId,
};
use rustls::crypto::ring::default_provider;
use simd::Cipher;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tunnel::transport::TransportOptions;

/// Datagrams of one transmit: what a kernel with segmentation offload takes well.
const SEGMENTS_MAX: usize = 10;
const SLAB_BYTES: usize = 64 << 10;

/// One transmit on its way.
struct Sent {
    bytes: Vec<u8>,
    segment: usize,
}

struct End {
    address: SocketAddr,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    connected: bool,
    slab: BytesMut,
    answer: Vec<u8>,
    /// Emptied buffers.
    spare: Vec<Vec<u8>>,
}

impl End {
    fn new(address: SocketAddr, server: Option<ServerConfig>, mtu: u16) -> Self {
        let mut config = EndpointConfig::default();
        config.max_udp_payload_size(mtu).expect("1200 or more");
        Self {
            address,
            endpoint: Endpoint::new(Arc::new(config), server.map(Arc::new), true, None),
            connection: None,
            connected: false,
            slab: BytesMut::new(),
            answer: Vec::new(),
            spare: Vec::new(),
        }
    }

    fn connection(&mut self) -> &mut Connection {
        &mut self.connection.as_mut().expect("connected").1
    }

    /// Up to [`BURST`] datagrams onto `wire`. Returns how many.
    fn transmit(&mut self, now: Instant, wire: &mut Vec<Sent>) -> usize {
        let Some((_, connection)) = &mut self.connection else { return 0 };
        let mut count = 0;
        while count < BURST {
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.clear();
            let Some(transmit) = connection.poll_transmit(now, SEGMENTS_MAX.min(BURST - count), &mut bytes)
            else {
                self.spare.push(bytes);
                break;
            };
            bytes.truncate(transmit.size);
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            count += transmit.size.div_ceil(segment);
            wire.push(Sent { bytes, segment });
        }
        count
    }

    /// Takes what lies on `wire`, and gives the buffers back to where they came from.
    fn receive(&mut self, now: Instant, from: SocketAddr, wire: &mut Vec<Sent>, spare: &mut Vec<Vec<u8>>) {
        for sent in wire.drain(..) {
            for datagram in sent.bytes.chunks(sent.segment) {
                self.take(now, from, datagram);
            }
            spare.push(sent.bytes);
        }
        self.settle(now);
    }

    fn take(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self.slab.capacity() < datagram.len() {
            self.slab = BytesMut::with_capacity(SLAB_BYTES);
        }
        self.slab.extend_from_slice(datagram);
        let data = self.slab.split();
        self.answer.clear();
        let local = Some(self.address.ip());
        match self.endpoint.handle(now, from, local, None, data, &mut self.answer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some((own, connection)) = &mut self.connection
                    && *own == handle
                {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(now, incoming),
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    fn accept(&mut self, now: Instant, incoming: Incoming) {
        let accepted = self.endpoint.accept(incoming, now, &mut self.answer, None);
        self.connection = Some(accepted.expect("one client, which is as it should be"));
    }

    /// Timers, and what endpoint and connection have to tell each other.
    fn settle(&mut self, now: Instant) {
        let Some((handle, connection)) = &mut self.connection else { return };
        if connection.poll_timeout().is_some_and(|timeout| timeout <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::ConnectionLost { reason } => panic!("the connection is lost: {reason}"),
                _ => {}
            }
        }
    }
}

/// A client and a server.
pub(super) struct Bare {
    client: End,
    server: End,
    stream: StreamId,
    to_client: Vec<Sent>,
    to_server: Vec<Sent>,
    /// What the application has to send, each block in memory of its own.
    blocks: VecDeque<Bytes>,
    /// Bytes written and not yet received.
    ahead_bytes: u64,
}

impl Bare {
    pub(super) fn connected(now: Instant, cipher: Option<Cipher>, mtu: u16) -> Self {
        let tls = Tls::new(&default_provider(), cipher);
        let mut server = ServerConfig::with_crypto(Arc::new(tls.server));
        server.transport_config(Arc::new(transport(&TransportOptions::gateway(), mtu)));
        let mut client = ClientConfig::new(Arc::new(tls.client));
        client.transport_config(Arc::new(transport(&TransportOptions::client(), mtu)));

        let mut flow = Self {
            client: End::new(SocketAddr::from(([198, 18, 0, 2], 50_000)), None, mtu),
            server: End::new(SocketAddr::from(([198, 18, 0, 1], 443)), Some(server), mtu),
            // Replaced as soon as there is one.
            stream: StreamId::new(quinn_proto::Side::Server, Dir::Uni, 0),
            to_client: Vec::new(),
            to_server: Vec::new(),
            blocks: VecDeque::new(),
            ahead_bytes: 0,
        };
        let connection = flow.client.endpoint.connect(now, client, flow.server.address, SERVER_NAME);
        flow.client.connection = Some(connection.expect("a configuration that connects"));
        for step in 0..1000 {
            flow.exchange(now + Duration::from_micros(50 * step));
            if flow.client.connected && flow.server.connected {
                let stream = flow.server.connection().streams().open(Dir::Uni);
                flow.stream = stream.expect("the client permits some");
                return flow;
            }
        }
        panic!("no handshake in 1000 steps");
    }

    fn exchange(&mut self, now: Instant) {
        self.client.transmit(now, &mut self.to_server);
        self.server.receive(now, self.client.address, &mut self.to_server, &mut self.client.spare);
        self.server.transmit(now, &mut self.to_client);
        self.client.receive(now, self.server.address, &mut self.to_client, &mut self.server.spare);
    }
}

impl Flow for Bare {
    fn prepare(&mut self) {
        let missing = AHEAD_BYTES.saturating_sub(self.ahead_bytes).div_ceil(BLOCK_BYTES as u64) as usize;
        self.blocks.resize_with(missing, || vec![7; BLOCK_BYTES].into());
    }

    fn send(&mut self, now: Instant) -> usize {
        while let Some(block) = self.blocks.front_mut() {
            let mut stream = self.server.connection.as_mut().expect("connected").1.send_stream(self.stream);
            let Ok(written) = stream.write_chunks(std::slice::from_mut(block)) else { break };
            self.ahead_bytes += written.bytes as u64;
            if written.chunks == 1 {
                self.blocks.pop_front();
            }
        }
        self.server.settle(now);
        self.server.transmit(now, &mut self.to_client)
    }

    fn receive(&mut self, now: Instant) -> u64 {
        self.client.receive(now, self.server.address, &mut self.to_client, &mut self.server.spare);
        let mut stream = self.client.connection.as_mut().expect("connected").1.recv_stream(self.stream);
        let mut bytes = 0;
        if let Ok(mut chunks) = stream.read(true) {
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                bytes += chunk.bytes.len() as u64;
            }
            let _ = chunks.finalize();
        }
        self.client.transmit(now, &mut self.to_server);
        self.ahead_bytes -= bytes;
        bytes
    }

    fn acknowledge(&mut self, now: Instant) {
        self.server.receive(now, self.client.address, &mut self.to_server, &mut self.client.spare);
    }

    fn mtu(&mut self) -> u16 {
        self.server.connection().stats().path.current_mtu
    }
}
