//! QUIC towards the gateway without `beam connect`: first flights of real handshakes, and a client whose every datagram
//! and timeout are the test's own.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tunnel::{ConnId, Engine, EngineConfig, Event, Read, Secrets, StreamId, WorkerId, Write, tls, transport};
use wire::Path;

use crate::pair::LIMIT;

/// A client configuration that trusts any certificate; made once, it serves any number of handshakes.
pub(crate) fn config(idle_timeout: Duration) -> quinn_proto::ClientConfig {
    let tls = tls::client_tls(tls::Verify::Insecure, None).unwrap();
    let mut options = transport::TransportOptions::client();
    options.idle_timeout = idle_timeout;
    options.keep_alive = None;
    transport::client_config(tls::quic_client(tls).unwrap(), Arc::new(options.build()))
}

fn engine() -> Engine {
    Engine::new(EngineConfig::new(WorkerId(0), Secrets::random(), None))
}

/// The datagrams with which a fresh client of `gateway` begins.
pub(crate) fn first_flight(config: &quinn_proto::ClientConfig, gateway: SocketAddr) -> Vec<Vec<u8>> {
    let mut engine = engine();
    let now = Instant::now();
    let local = SocketAddr::from(([198, 18, 0, 2], 1));
    engine.connect(now, config.clone(), gateway, local, "gateway.beam.example").unwrap();
    engine.run(now);
    let mut flight = Vec::new();
    engine.transmit(now, 16, &mut |_, _, bytes, segment| {
        flight.extend(bytes.chunks(segment.unwrap_or(bytes.len())).map(<[u8]>::to_vec));
        true
    });
    assert!(!flight.is_empty() && flight.iter().all(|datagram| datagram.len() >= 1200));
    flight
}

/// One connection over one socket, driven by whoever calls [`QuicClient::until`].
pub(crate) struct QuicClient {
    engine: Engine,
    socket: UdpSocket,
    path: Path,
    pub(crate) conn: ConnId,
}

impl QuicClient {
    /// Begins a handshake; `socket` is bound to the address that the gateway will see.
    pub(crate) fn connect(socket: UdpSocket, gateway: SocketAddr, config: quinn_proto::ClientConfig) -> Self {
        let mut engine = engine();
        let path = Path { local: socket.local_addr().unwrap(), remote: gateway };
        let now = Instant::now();
        let conn = engine.connect(now, config, gateway, path.local, "gateway.beam.example").unwrap();
        Self { engine, socket, path, conn }
    }

    /// Runs the connection until `done` returns something; panics after [`LIMIT`].
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Self, Option<&Event>) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            let now = Instant::now();
            self.engine.run(now);
            while let Some((_, event)) = self.engine.poll_event() {
                if let Some(found) = done(self, Some(&event)) {
                    self.send();
                    return found;
                }
            }
            if let Some(found) = done(self, None) {
                self.send();
                return found;
            }
            self.send();
            self.receive(deadline);
        }
        panic!("{what}: not within {LIMIT:?}");
    }

    fn send(&mut self) {
        let socket = &self.socket;
        while !self.engine.transmit(Instant::now(), 64, &mut |path, _, bytes, segment| {
            for datagram in bytes.chunks(segment.unwrap_or(bytes.len())) {
                socket.send_to(datagram, path.remote).unwrap();
            }
            true
        }) {}
    }

    /// Sleeps until a datagram comes or a timer is due.
    fn receive(&mut self, deadline: Instant) {
        let due = self.engine.next_deadline().unwrap_or(deadline).min(deadline);
        let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_micros(100));
        self.socket.set_read_timeout(Some(wait)).unwrap();
        let mut buffer = [0; 2048];
        match self.socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let path = Path { remote: from, ..self.path };
                self.engine.receive(Instant::now(), path, None, &buffer[..length]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// The handshake, and the stream that HTTP/3 begins with.
    pub(crate) fn established(&mut self) {
        self.until("the handshake", |_, event| match event {
            Some(Event::Connected { .. }) => Some(()),
            Some(Event::HandshakeFailed { reason } | Event::Closed { reason }) => panic!("{reason}"),
            _ => None,
        });
        self.begin();
    }

    /// The stream that HTTP/3 begins with.
    pub(crate) fn begin(&mut self) {
        let h3 = masque::Connection::client(masque::Config::default());
        let stream = self.engine.connection(self.conn).unwrap().open_uni().unwrap();
        self.write(stream, &mut h3.opening());
    }

    /// CONNECT to `authority` with a bearer token; returns once the gateway has answered 200.
    pub(crate) fn open_flow(&mut self, authority: &str, token: &str) -> StreamId {
        let bearer = format!("Bearer {token}");
        let (stream, status) =
            self.ask(&masque::RequestHead::connect(authority, &[("authorization", bearer.as_str())]));
        assert_eq!(status, 200, "the answer to CONNECT {authority}");
        stream
    }

    /// Sends a request; returns its stream and the answer's status.
    pub(crate) fn ask(&mut self, head: &masque::RequestHead<'_>) -> (StreamId, u16) {
        let mut request = masque::encode_request(head);
        let stream = self.engine.connection(self.conn).unwrap().open_bi().unwrap();
        self.write(stream, &mut request);
        let mut reader =
            masque::MessageReader::response(masque::Limits::default(), masque::ResponseTo::Connect);
        let status = self.until("the answer to CONNECT", |client, _| {
            let mut quic = client.engine.connection(client.conn)?;
            if let Read::Chunk(bytes) = quic.read(stream, usize::MAX) {
                reader.push(bytes);
            }
            match reader.next().unwrap()? {
                masque::Item::Headers(response) => Some(response.status),
                _ => panic!("the answer begins with its header section"),
            }
        });
        (stream, status)
    }

    /// Takes in what comes until something does for this stream.
    pub(crate) fn read(&mut self, stream: StreamId) -> Read {
        self.until("something to read", |client, _| {
            let read = client.engine.connection(client.conn)?.read(stream, usize::MAX);
            (read != Read::Blocked).then_some(read)
        })
    }

    /// Sends DATA on a flow.
    pub(crate) fn say(&mut self, stream: StreamId, words: &str) {
        let mut bytes = vec![0, words.len() as u8];
        assert!(words.len() < 64, "the length of a DATA frame is one byte here");
        bytes.extend(words.as_bytes());
        self.write(stream, &mut bytes.into());
    }

    /// Returns once this has come on a flow, in DATA frames, and nothing else.
    pub(crate) fn hear(&mut self, stream: StreamId, wanted: &[u8]) {
        let mut heard: Vec<u8> = Vec::new();
        while heard.len() < wanted.len() {
            let Read::Chunk(mut bytes) = self.read(stream) else { panic!("the flow has ended") };
            while !bytes.is_empty() {
                assert!(bytes.len() >= 2 && bytes[0] == 0 && bytes[1] < 64, "a short DATA frame: {bytes:?}");
                let frame = bytes.split_to(2 + usize::from(bytes[1]));
                heard.extend(&frame[2..]);
            }
        }
        assert_eq!(heard, wanted);
    }

    /// Answers whatever comes, for so long.
    pub(crate) fn answer_for(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.engine.run(Instant::now());
            while self.engine.poll_event().is_some() {}
            self.send();
            self.receive(deadline);
        }
    }

    /// Closes the connection, and says so.
    pub(crate) fn close(&mut self) {
        let now = Instant::now();
        self.engine.close_all(now, 0x100_u32.into(), b"");
        self.engine.run(now);
        self.send();
    }

    fn write(&mut self, stream: StreamId, bytes: &mut Bytes) {
        let mut quic = self.engine.connection(self.conn).unwrap();
        while !bytes.is_empty() {
            let written = quic.write_chunks(stream, std::slice::from_mut(bytes));
            assert!(matches!(written, Write::Written { .. }), "{written:?}");
        }
    }
}
