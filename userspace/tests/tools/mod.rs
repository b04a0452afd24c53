//! What the tests of flows, strangers and hand-over share: a tunnel with one origin behind it, sockets of the local
//! user, seeded bytes, and numbers out of a status. [`quic`] speaks QUIC to the gateway without `beam connect`;
//! [`relay`] stands between client and gateway.
#![allow(dead_code, reason = "every test binary that includes this uses another part of it")]
#![allow(clippy::unwrap_used, reason = "test helpers: clippy only knows test functions")]

pub(crate) mod loopback;
pub(crate) mod middle;
pub(crate) mod network;
pub(crate) mod quic;
pub(crate) mod relay;
pub(crate) mod steps;
pub(crate) mod stranger;
pub(crate) mod terminal;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::pair::{FORWARD_PORT, LIMIT, Place, SOCKS_PORT, path, until};
use crate::rig::{Beam, EchoServer, GATEWAY_V4, Ns, ORIGIN_V4, patiently};

/// A gateway and a client, stopped before their namespaces go.
pub(crate) struct Tunnel {
    pub(crate) client: Beam,
    pub(crate) gateway: Beam,
    pub(crate) place: Place,
}

impl Tunnel {
    /// Over AF_XDP at both ends; `-L` leads to `origin`.
    pub(crate) fn native(place: Place, origin: SocketAddr) -> Self {
        let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
        let client = place.client(GATEWAY_V4, &origin.to_string(), &["--xdp", "native", "-i", "c0"]);
        Self { client, gateway, place }
    }

    /// A local connection to the `-L` listener.
    pub(crate) fn dial(&self) -> TcpStream {
        dial(&self.place, FORWARD_PORT)
    }

    /// A connection to the `-D` listener that has said nothing yet.
    pub(crate) fn dial_socks(&self) -> TcpStream {
        dial(&self.place, SOCKS_PORT)
    }

    /// A SOCKS client's connection, with the greeting done.
    pub(crate) fn socks(&self) -> TcpStream {
        let mut stream = self.dial_socks();
        stream.write_all(&[5, 1, 0]).unwrap();
        assert_eq!(read_some::<2>(&mut stream), [5, 0], "no authentication is what the listener offers");
        stream
    }
}

pub(crate) fn dial(place: &Place, port: u16) -> TcpStream {
    let stream = place.rig.within(Ns::Client, || TcpStream::connect((Ipv4Addr::LOCALHOST, port))).unwrap();
    patient(&stream);
    stream
}

/// No call on this socket hangs a test for ever.
pub(crate) fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(patiently(LIMIT))).unwrap();
    stream.set_write_timeout(Some(patiently(LIMIT))).unwrap();
    stream.set_nodelay(true).unwrap();
}

/// A client on kernel UDP whose gateway is the relay.
pub(crate) fn relayed_client(place: &Place, relay: &relay::Relay, echo: &EchoServer) -> Beam {
    let url = format!("https://{}", relay.address());
    let (forward, socks) = (format!("{FORWARD_PORT}:{}", echo.address()), SOCKS_PORT.to_string());
    let (ca, token) = (path(&place.pki.ca), path(&place.token));
    let args =
        ["connect", &url, "--ca", &ca, "--token-file", &token, "-L", &forward, "-D", &socks, "--xdp", "off"];
    Beam::start(&place.rig, Ns::Client, "client", &args)
}

/// A listener in the origin's namespace that the test serves by itself.
pub(crate) fn origin_listener(place: &Place) -> TcpListener {
    place.rig.within(Ns::Origin, || TcpListener::bind((ORIGIN_V4, 0))).unwrap()
}

pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    patient(&stream);
    stream
}

/// A SOCKS5 CONNECT request for an address.
pub(crate) fn socks_request(to: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(to) = to else { panic!("{to} is not IPv4") };
    let mut request = vec![5, 1, 0, 1];
    request.extend(to.ip().octets());
    request.extend(to.port().to_be_bytes());
    request
}

/// Exactly `N` bytes.
pub(crate) fn read_some<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Everything until the end of the stream.
pub(crate) fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// Closes with a TCP reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The seed of this test process: `BEAM_SEED`, or a fresh one. Printed, so that a failure can be run again.
pub(crate) fn seed(test: &str) -> u64 {
    let seed =
        std::env::var("BEAM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("{test}: BEAM_SEED={seed}");
    seed
}

/// Bytes that compress to nothing and repeat nowhere, the same for the same seed.
pub(crate) fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A counter of a status; those at zero are left out there.
pub(crate) fn counter(status: &Value, name: &str) -> u64 {
    status["counters"][name].as_u64().unwrap_or(0)
}

/// A drop counter of a status; those at zero are left out there.
pub(crate) fn dropped(status: &Value, name: &str) -> u64 {
    status["drops"][name].as_u64().unwrap_or(0)
}

/// The sum of all drop counters.
pub(crate) fn dropped_in_all(status: &Value) -> u64 {
    status["drops"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
}

/// Asks a daemon until `counter` reaches `least`; more is returned for the caller to judge.
pub(crate) fn until_counter(beam: &Beam, name: &str, least: u64) -> Value {
    until(&format!("{name} reaches {least}"), || beam.status(), |status| counter(status, name) >= least)
}

/// One figure in KiB from `/proc/PID/status`.
pub(crate) fn memory_kib(beam: &Beam, figure: &str) -> u64 {
    let path = format!("/proc/{}/status", beam.process.pid());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Bytes that one side has moved so far, readable by the others.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
