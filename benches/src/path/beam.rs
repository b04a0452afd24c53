//! Beam's own path, as its workers drive it: an HTTP/3 CONNECT whose DATA frames carry 64 KB each, the engine, and
//! Ethernet frames with headers and checksums that the receiver parses and verifies.

use super::crypto::{SERVER_NAME, Tls, transport};
use super::{AHEAD_BYTES, BLOCK_BYTES, BURST, Extras, Flow, meters::Meters};
use bytes::{Bytes, BytesMut};
use masque::{
    DATA_HEADER_BYTES_MAX, Item, Limits, MessageReader, RequestHead, RequestReader, ResponseReader,
    ResponseTo, encode_request, encode_response, write_data_header_before,
};
use port::{Frame, Region};
use simd::{
    Cipher, Level,
    validate::{self, Verdict},
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tunnel::transport::{self, TransportOptions};
use tunnel::{
    ConnId, Dir, Engine, EngineConfig, Event, Inbound, Outlet, Read, Reserved, Sealed, Secrets, StreamId,
    Transmit, WorkerId, Write,
};
use wire::{
    Path,
    checksum::Checksum,
    encap::{HEADER_BYTES_MAX, Link, Template},
};

/// Frames of each end: more than one burst and its answers.
const FRAMES: usize = 4 * BURST;
/// What a worker reads from one stream at once.
const READ_BYTES: usize = 128 << 10;

/// How both ends work.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// How packets are sealed and opened.
    pub(super) protection: tunnel::Protection,
    /// How received frames are judged, and sent ones summed.
    pub(super) validation: Level,
    /// What workers do beside.
    pub(super) extras: Extras,
}

/// One end: an engine behind a port whose ring is a `Vec`.
struct End {
    engine: Engine,
    template: Template,
    /// How frames are judged and summed.
    validation: Level,
    verdicts: Vec<Verdict>,
    idle: Vec<Frame>,
    conn: Option<ConnId>,
    meters: Option<Meters>,
}

impl End {
    fn new(engine: Engine, how: How, path: Path, mtu: u16, now: Instant) -> Self {
        let link =
            Link { src_mac: [2, 0, 0, 0, 0, 1], dst_mac: [2, 0, 0, 0, 0, 2], vlans: Default::default() };
        let chunk_bytes = (usize::from(mtu) + HEADER_BYTES_MAX).next_power_of_two();
        Self {
            engine,
            template: Template::new(&link, &path, 64).expect("one family"),
            validation: how.validation,
            verdicts: Vec::new(),
            idle: Region::anonymous(chunk_bytes, FRAMES).expect("address space"),
            conn: None,
            meters: how.extras.metrics.then(|| Meters::new(now)),
        }
    }

    /// Up to [`BURST`] datagrams into frames on `wire`. Returns how many.
    fn transmit(&mut self, now: Instant, wire: &mut Vec<Frame>) -> usize {
        let mut outlet =
            Ring { validation: self.validation, template: &self.template, idle: &mut self.idle, wire };
        self.engine.transmit_into(now, BURST, &mut outlet);
        outlet.wire.len()
    }

    /// Takes the frames on `wire`, and gives them back to where they came from.
    fn receive(&mut self, now: Instant, wire: &mut Vec<Frame>, idle: &mut Vec<Frame>) {
        if let Some(meters) = &mut self.meters {
            meters.turn(now, wire.len(), &mut self.engine);
        }
        validate::classify_burst(self.validation, wire, true, &mut self.verdicts);
        let judged = wire.iter().zip(&self.verdicts).map(|(frame, verdict)| match verdict {
            Verdict::Datagram(found) if found.checksum == Some(Checksum::Good) && !found.is_martian => {
                let ecn = tunnel::EcnCodepoint::from_bits(found.ecn_bits);
                Inbound { path: found.path(frame).expect("judged"), ecn, bytes: &frame[found.payload()] }
            }
            other => panic!("a frame that we made is {other:?}"),
        });
        let burst: Vec<_> = judged.collect();
        self.engine.receive_burst(now, &burst);
        drop(burst);
        idle.append(wire);
        self.engine.run(now);
    }

    fn conn(&mut self) -> tunnel::ConnMut<'_> {
        let conn = self.conn.expect("connected");
        self.engine.connection(conn).expect("alive")
    }

    /// Drops what the engine has to tell, but for that a connection is there.
    fn events(&mut self) {
        while let Some((id, event)) = self.engine.poll_event() {
            match event {
                Event::Connected { .. } => self.conn = Some(id),
                Event::Closed { reason } => panic!("the connection is lost: {reason:?}"),
                Event::HandshakeFailed { reason } => panic!("no connection: {reason:?}"),
                _ => {}
            }
        }
    }
}

/// A transmit ring: takes sealed datagrams in frames that it gave, and writes the headers in front of them.
struct Ring<'a> {
    validation: Level,
    template: &'a Template,
    idle: &'a mut Vec<Frame>,
    wire: &'a mut Vec<Frame>,
}

impl Outlet for Ring<'_> {
    type Slot = Frame;

    fn reserve(&mut self, transmit: &Transmit, slots: &mut Vec<Frame>) -> Reserved {
        let header_bytes = self.template.header_len();
        for payload_bytes in transmit.datagrams() {
            let Some(mut frame) = self.idle.pop() else { unreachable!("more frames than a burst has") };
            frame.set_window(header_bytes..header_bytes + payload_bytes);
            slots.push(frame);
        }
        Reserved::Slots
    }

    fn submit(&mut self, transmit: &Transmit, sealed: &mut Vec<Sealed<Frame>>) -> bool {
        let ecn_bits = transmit.ecn.map_or(0, |ecn| ecn as u8);
        for slot in sealed.drain(..) {
            let mut frame = slot.into_inner();
            let payload_bytes = frame.len();
            let sum = validate::sum(self.validation, &frame);
            frame.set_window(0..self.template.header_len() + payload_bytes);
            let written = self.template.write_summed(&mut frame, payload_bytes, ecn_bits, sum);
            assert!(written.is_some(), "the window holds the headers and the datagram");
            self.wire.push(frame);
        }
        true
    }

    fn release(&mut self, _: Vec<Frame>) {
        unreachable!("quinn-proto calls the keys as it should");
    }
}

/// A client and a server.
pub(super) struct Beam {
    client: End,
    server: End,
    stream: StreamId,
    to_client: Vec<Frame>,
    to_server: Vec<Frame>,
    /// The client's side of the tunnel.
    response: ResponseReader,
    chunks: Vec<Bytes>,
    /// What the origin has sent: room for a DATA header, then the payload.
    blocks: VecDeque<BytesMut>,
    /// The block that is being written.
    writing: Bytes,
    /// Payload bytes handed over and not yet received.
    ahead_bytes: u64,
}

impl Beam {
    pub(super) fn connected(now: Instant, how: How, cipher: Option<Cipher>, mtu: u16) -> Self {
        let tls = Tls::new(&tunnel::tls::provider(), cipher);
        let (local, remote) =
            (SocketAddr::from(([198, 18, 0, 2], 50_000)), SocketAddr::from(([198, 18, 0, 1], 443)));
        let secrets = Secrets::random();
        let options = Arc::new(transport(&TransportOptions::gateway(), mtu));
        let server = Arc::new(transport::server_config(tls.server, options, &secrets));
        let engine = |secrets, server| {
            let mut config = EngineConfig::new(WorkerId(0), secrets, server);
            config.udp_payload_max_bytes = mtu.max(config.udp_payload_max_bytes);
            config.protection = how.protection;
            config.count_batches = how.extras.metrics;
            config.extra_copy = !how.extras.fused_copy;
            Engine::new(config)
        };
        let mut client = End::new(engine(Secrets::random(), None), how, Path { local, remote }, mtu, now);
        let server =
            End::new(engine(secrets, Some(server)), how, Path { local: remote, remote: local }, mtu, now);
        let options = Arc::new(transport(&TransportOptions::client(), mtu));
        let config = transport::client_config(tls.client, options);
        client
            .engine
            .connect(now, config, remote, local, SERVER_NAME)
            .expect("a configuration that connects");
        let mut flow = Self {
            client,
            server,
            // Replaced as soon as there is one.
            stream: StreamId::new(tunnel::Side::Client, Dir::Bi, 0),
            to_client: Vec::new(),
            to_server: Vec::new(),
            response: MessageReader::response(Limits::default(), ResponseTo::Connect),
            chunks: Vec::new(),
            blocks: VecDeque::new(),
            writing: Bytes::new(),
            ahead_bytes: 0,
        };
        flow.establish(now);
        flow
    }

    /// The handshake, then the request and its answer.
    fn establish(&mut self, now: Instant) {
        let mut steps = (0..1000).map(|step| now + Duration::from_micros(50 * step));
        let connected = |flow: &mut Self| flow.client.conn.and(flow.server.conn).is_some();
        assert!(steps.any(|now| self.exchange(now, connected)), "no handshake in 1000 steps");

        let stream = self.client.conn().open_bi().expect("the server permits some");
        self.stream = stream;
        let head = encode_request(&RequestHead::connect("origin.test:443", &[]));
        let expected = head.len();
        assert_eq!(
            self.client.conn().write_chunks(stream, &mut [head]),
            Write::Written { bytes: expected, chunks: 1 }
        );
        let mut request = RequestReader::request(Limits::default());
        let requested = |flow: &mut Self| {
            flow.server.conn().read_all(stream, READ_BYTES, &mut flow.chunks);
            flow.chunks.drain(..).for_each(|chunk| request.push(chunk));
            matches!(request.next(), Ok(Some(Item::Headers(_))))
        };
        let mut requested = requested;
        assert!(steps.any(|now| self.exchange(now, &mut requested)), "no request in 1000 steps");

        let head = encode_response(200, &[]);
        self.server.conn().write_chunks(stream, &mut [head]);
        let answered = |flow: &mut Self| {
            flow.client.conn().read_all(stream, READ_BYTES, &mut flow.chunks);
            flow.chunks.drain(..).for_each(|chunk| flow.response.push(chunk));
            matches!(flow.response.next(), Ok(Some(Item::Headers(_))))
        };
        assert!(steps.any(|now| self.exchange(now, answered)), "no response in 1000 steps");
    }

    /// One round between both ends, then whether `done`.
    fn exchange(&mut self, now: Instant, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        self.client.transmit(now, &mut self.to_server);
        self.server.receive(now, &mut self.to_server, &mut self.client.idle);
        self.server.transmit(now, &mut self.to_client);
        self.client.receive(now, &mut self.to_client, &mut self.server.idle);
        self.client.events();
        self.server.events();
        done(self)
    }

    /// The next block as a DATA frame.
    fn next_block(&mut self) -> Option<Bytes> {
        let mut block = self.blocks.pop_front()?;
        let start = write_data_header_before(&mut block, DATA_HEADER_BYTES_MAX, BLOCK_BYTES);
        Some(block.freeze().slice(start..))
    }
}

impl Flow for Beam {
    fn prepare(&mut self) {
        while self.ahead_bytes + ((self.blocks.len() * BLOCK_BYTES) as u64) < AHEAD_BYTES {
            self.blocks.push_back(BytesMut::from(&[7; DATA_HEADER_BYTES_MAX + BLOCK_BYTES][..]));
        }
    }

    fn send(&mut self, now: Instant) -> usize {
        let stream = self.stream;
        loop {
            if self.writing.is_empty() {
                let Some(block) = self.next_block() else { break };
                self.writing = block;
                self.ahead_bytes += BLOCK_BYTES as u64;
            }
            match self.server.conn().write_chunks(stream, std::slice::from_mut(&mut self.writing)) {
                Write::Written { .. } => {}
                _ => break,
            }
        }
        self.server.transmit(now, &mut self.to_client)
    }

    fn receive(&mut self, now: Instant) -> u64 {
        self.client.receive(now, &mut self.to_client, &mut self.server.idle);
        let mut bytes = 0;
        while let Read::Chunk(_) = self.client.conn().read_all(self.stream, READ_BYTES, &mut self.chunks) {}
        for chunk in self.chunks.drain(..) {
            self.response.push(chunk);
            while let Ok(Some(Item::Data(data))) = self.response.next() {
                bytes += data.len() as u64;
            }
        }
        self.client.events();
        self.client.transmit(now, &mut self.to_server);
        self.ahead_bytes -= bytes;
        bytes
    }

    fn acknowledge(&mut self, now: Instant) {
        self.server.receive(now, &mut self.to_server, &mut self.client.idle);
        self.server.events();
    }

    fn mtu(&mut self) -> u16 {
        self.server.conn().stats().path.current_mtu
    }
}
