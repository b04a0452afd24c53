//! Goal: `-R` publishes services of the client's side on the gateway, TCP and UDP, for those who may, and for nobody else;
//! a listener follows its client from connection to connection at once, and what can't be served is a clear error.
//! Method: services in the client's namespace, visitors in the gateway's and the origin's; every byte compared, every
//! connection and datagram counted at both ends. Connections that die in silence are those of a QUIC client of the
//! test's own, which it stops driving.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use pair::{LIMIT, Place, number, settled, until, words};
use rig::{Beam, EchoServer, GATEWAY_INNER_V4, GATEWAY_V4, Ns, authority, patiently};
use serde_json::Value;
use tools::quic::QuicClient;
use tools::{counter, dropped, patient, random_bytes, read_all, seed, until_counter};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
const NATIVE_GATEWAY: &[&str] = &["--xdp", "native", "-i", "g0", "--umem", "16"];
const NATIVE_CLIENT: &[&str] = &["--xdp", "native", "-i", "c0", "--umem", "16"];
const KERNEL: &[&str] = &["--xdp", "off"];

/// A client with nothing but these `-R`, ready.
fn client(place: &Place, more: &[&str], publications: &[String]) -> Beam {
    let mut args = place.connect_args(GATEWAY_V4, more);
    args.extend(publications.iter().flat_map(|publication| ["-R".to_owned(), publication.clone()]));
    Beam::start(&place.rig, Ns::Client, "client", &words(&args))
}

fn published(client: &Beam, count: u64) -> Value {
    until_counter(client, "listens_opened", count)
}

/// A connection of somebody in `ns`.
fn visit(place: &Place, ns: Ns, to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = place.rig.within(ns, || TcpStream::connect(to))?;
    patient(&stream);
    Ok(stream)
}

/// Sends everything, ends, and gets the same back, and the end.
fn echo(mut stream: TcpStream, payload: &[u8]) {
    let mut sending = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            sending.write_all(payload).unwrap();
            sending.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(&mut stream) == payload, "other bytes came back");
    });
}

fn assert_counters(beam: &Beam, wanted: &[(&str, u64)]) {
    let status = settled(beam);
    for &(name, count) in wanted {
        assert_eq!(counter(&status, name), count, "{name}: {status:#}");
    }
}

// TCP: visitors on both loopback addresses of the gateway, and from outside where the client has asked for that.
#[test]
fn services_are_published_and_every_byte_arrives() {
    const TEST: &str = "services_are_published_and_every_byte_arrives";
    const VISITS: u64 = 24;
    const BYTES: usize = 1 << 20;
    if !rig::root_or_skip(TEST) {
        return;
    }
    let payload = random_bytes(seed(TEST), BYTES);
    let place = Place::new();
    let service = EchoServer::start(&place.rig, Ns::Client, LOOPBACK, 0);
    let port = service.address().port();
    let allowed = ["--allow-listen", "8000-8010", "--allow-listen", "*:8020"];
    let gateway = place.gateway(GATEWAY_V4, &[NATIVE_GATEWAY, &allowed].concat());
    let publications = [
        format!("8000:127.0.0.1:{port}"),
        // A name, whose first address may refuse.
        format!("localhost:8001:localhost:{port}"),
        format!("*:8020:127.0.0.1:{port}"),
    ];
    let client = client(&place, &[NATIVE_CLIENT, &["--pool", "2"]].concat(), &publications);
    published(&client, 3);
    let to: [(Ns, SocketAddr); 4] = [
        (Ns::Gateway, (LOOPBACK, 8000).into()),
        (Ns::Gateway, (Ipv6Addr::LOCALHOST, 8000).into()),
        (Ns::Gateway, (LOOPBACK, 8001).into()),
        (Ns::Origin, (GATEWAY_INNER_V4, 8020).into()),
    ];
    std::thread::scope(|scope| {
        for n in 0..VISITS as usize {
            let (ns, address) = to[n % to.len()];
            let stream = visit(&place, ns, address).unwrap();
            let payload = &payload;
            scope.spawn(move || echo(stream, &payload[n * 1000..]));
        }
    });
    let moved = (0..VISITS).map(|n| BYTES as u64 - 1000 * n).sum::<u64>();
    assert_eq!((service.connection_count(), service.echoed_bytes()), (VISITS, moved));
    let both = [
        ("reverse_arrived", VISITS),
        ("reverse_opened", VISITS),
        ("flows_finished", VISITS),
        ("bytes_to_sockets", moved),
        ("bytes_from_sockets", moved),
        ("listens_opened", 3),
        ("reverse_declined", 0),
    ];
    assert_counters(&gateway, &both);
    assert_counters(&client, &both);
    // Loopback means loopback.
    let refused = visit(&place, Ns::Origin, (GATEWAY_INNER_V4, 8000).into()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // One that was killed leaves its connections behind; the next run has its ports as soon as that is found out.
    let mut killed = client;
    killed.process.kill();
    let mut client = self::client(&place, NATIVE_CLIENT, &publications);
    published(&client, 3);
    echo(visit(&place, Ns::Gateway, (LOOPBACK, 8000).into()).unwrap(), &payload);
    // The ports go with the client.
    assert_eq!(client.process.terminate(LIMIT).code(), Some(0));
    let knock = || visit(&place, Ns::Gateway, (LOOPBACK, 8000).into()).err().map(|error| error.kind());
    until("the port is closed", knock, |kind| *kind == Some(ErrorKind::ConnectionRefused));
}

// Each peer of the gateway's port is a peer of the service's, too; datagrams of any size go there and back.
#[test]
fn udp_services_are_published() {
    const TEST: &str = "udp_services_are_published";
    const PEERS: usize = 5;
    const ROUNDS: usize = 40;
    if !rig::root_or_skip(TEST) {
        return;
    }
    let payload = random_bytes(seed(TEST), 16 << 10);
    let place = Place::new();
    let service = place.rig.within(Ns::Client, || UdpSocket::bind((LOOPBACK, 0))).unwrap();
    service.set_read_timeout(Some(patiently(LIMIT))).unwrap();
    let port = service.local_addr().unwrap().port();
    let flags = ["--allow-listen", "8053", "--udp-idle-timeout", "2s"];
    let gateway = place.gateway(GATEWAY_V4, &[NATIVE_GATEWAY, &flags].concat());
    let publication = format!("8053:localhost:{port}/udp");
    let client = client(&place, NATIVE_CLIENT, &[publication]);
    published(&client, 1);
    let total = PEERS * ROUNDS;
    let serving = std::thread::spawn(move || {
        let mut sources = HashSet::new();
        let mut buffer = vec![0; 1 << 16];
        for _ in 0..total {
            let (length, from) = service.recv_from(&mut buffer).unwrap();
            sources.insert(from);
            service.send_to(&buffer[..length], from).unwrap();
        }
        sources.len()
    });
    let peers: Vec<UdpSocket> = (0..PEERS)
        .map(|_| {
            let peer = place.rig.within(Ns::Gateway, || UdpSocket::bind((LOOPBACK, 0))).unwrap();
            peer.connect((LOOPBACK, 8053)).unwrap();
            peer.set_read_timeout(Some(patiently(LIMIT))).unwrap();
            peer
        })
        .collect();
    let mut buffer = vec![0; 1 << 16];
    for round in 0..ROUNDS {
        for (n, peer) in peers.iter().enumerate() {
            // From nothing at all to more than a packet holds.
            let length = round * 100 * usize::from(round % 4 != 0) + n * usize::from(round > 0);
            let sent = &payload[n * 1000..n * 1000 + length];
            peer.send(sent).unwrap();
            let back = peer.recv(&mut buffer).unwrap();
            assert!(buffer[..back] == *sent, "round {round}, peer {n}");
        }
    }
    assert_eq!(serving.join().unwrap(), PEERS, "the service can tell the peers apart");
    let (opened, moved) = (PEERS as u64, total as u64);
    let both = [
        ("reverse_peers_opened", opened),
        ("reverse_datagrams_to_sockets", moved),
        ("reverse_datagrams_from_sockets", moved),
    ];
    assert_counters(&gateway, &both);
    assert_counters(&client, &both);
    // Silent peers are forgotten at both ends; one that speaks again is a new one.
    until_counter(&gateway, "reverse_peers_idle", opened);
    until_counter(&client, "reverse_peers_closed", opened);
    assert_eq!(dropped(&gateway.status(), "reverse_unknown_peer"), 0);
}

// Nobody listens unless somebody has permitted it: the users file one client, --allow-listen all. A reload takes it back.
#[test]
fn only_those_who_may_listen_do() {
    if !rig::root_or_skip("only_those_who_may_listen_do") {
        return;
    }
    let place = Place::new();
    let service = EchoServer::start(&place.rig, Ns::Client, LOOPBACK, 0);
    let to = service.address();
    let users = std::fs::read_to_string(&place.users).unwrap();
    let permit = |option: &str| {
        std::fs::write(&place.users, format!("{} {option}\n", users.trim_end())).unwrap();
        std::fs::set_permissions(&place.users, std::fs::Permissions::from_mode(0o640)).unwrap();
    };
    permit("listen=8500");
    let gateway = place.gateway(GATEWAY_V4, KERNEL);
    let publications = [format!("8500:{to}"), format!("8501:{to}"), format!("*:8500:{to}")];
    let client = client(&place, KERNEL, &publications);
    let status = until(
        "the answers are there",
        || client.status(),
        |status| counter(status, "listens_opened") == 1 && counter(status, "listens_denied") >= 2,
    );
    assert_eq!(status["ready"], true, "the tunnel is as good as any: {status:#}");
    let said = client.process.wait_for_line("-R tcp localhost:8501: the gateway refused: 403", LIMIT);
    assert!(said.contains("listen=PORTS") && said.contains("tcp localhost:8501 is not permitted"), "{said}");
    client.process.wait_for_line("-R tcp *:8500: the gateway refused: 403", LIMIT);
    assert!(counter(&gateway.status(), "listens_denied") >= 2);
    echo(visit(&place, Ns::Gateway, (LOOPBACK, 8500).into()).unwrap(), b"permitted");
    let refused = visit(&place, Ns::Gateway, (LOOPBACK, 8501).into()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    // The other port instead: the one listener goes, the other comes.
    permit("listen=8501");
    gateway.process.signal(rustix::process::Signal::HUP);
    let knock = |port| visit(&place, Ns::Gateway, (LOOPBACK, port).into()).map_err(|error| error.kind());
    let gone =
        |answer: &Result<TcpStream, ErrorKind>| answer.as_ref().err() == Some(&ErrorKind::ConnectionRefused);
    drop(until("the revoked port is closed", || knock(8500), gone));
    published(&client, 2);
    echo(knock(8501).unwrap(), b"permitted now");
}

// A port that somebody has is an error that says so; the client gets it once it is free.
#[test]
fn a_port_that_is_taken_is_published_later() {
    if !rig::root_or_skip("a_port_that_is_taken_is_published_later") {
        return;
    }
    let place = Place::new();
    let service = EchoServer::start(&place.rig, Ns::Client, LOOPBACK, 0);
    let squatter = place.rig.within(Ns::Gateway, || TcpListener::bind((LOOPBACK, 8085))).unwrap();
    let gateway = place.gateway(GATEWAY_V4, &[KERNEL, &["--allow-listen", "1-65535"]].concat());
    let publications = [format!("8085:{}", service.address()), format!("0:{}", service.address())];
    let client = client(&place, KERNEL, &publications);
    let said = client.process.wait_for_line("the gateway refused: 409", LIMIT);
    assert!(said.contains("-R tcp localhost:8085") && said.contains("is taken"), "{said}");
    // The gateway's choice of a port is said.
    let said = client.process.wait_for_line("is published", LIMIT);
    let port: u16 =
        said.split("localhost:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    echo(visit(&place, Ns::Gateway, (LOOPBACK, port).into()).unwrap(), b"any port");
    assert!(counter(&gateway.status(), "listens_port_taken") >= 1);
    drop(squatter);
    published(&client, 2);
    echo(visit(&place, Ns::Gateway, (LOOPBACK, 8085).into()).unwrap(), b"free at last");

    // With --once there is no later.
    let mut args = place.connect_args(GATEWAY_V4, KERNEL);
    args.extend(["--once".into(), "-R".into(), format!("8085:{}", service.address())]);
    let mut once = Beam::launch(&place.rig, Ns::Client, "once", &words(&args));
    assert_eq!(once.process.wait(LIMIT).code(), Some(1));
    assert!(once.process.stderr().contains("the gateway refused: 409"), "{}", once.process.stderr());
}

// Nobody at home: the visitor's connection is reset, not left to hang, and the listener stays.
#[test]
fn a_service_that_is_down_declines() {
    if !rig::root_or_skip("a_service_that_is_down_declines") {
        return;
    }
    let place = Place::new();
    let probe = place.rig.within(Ns::Client, || TcpListener::bind((LOOPBACK, 0))).unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let gateway = place.gateway(GATEWAY_V4, &[KERNEL, &["--allow-listen", "8085"]].concat());
    let client = client(&place, KERNEL, &[format!("8085:{address}")]);
    published(&client, 1);
    for _ in 0..3 {
        // On a busy machine the reset is there before connect() has returned, and is its error then.
        let visitor = visit(&place, Ns::Gateway, (LOOPBACK, 8085).into());
        let error = visitor.and_then(|mut stream| stream.read(&mut [0])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let wanted =
        [("reverse_arrived", 3), ("reverse_declined", 3), ("reverse_opened", 0), ("listens_opened", 1)];
    assert_counters(&gateway, &wanted);
    assert_counters(&client, &wanted);
    let service = EchoServer::start(&place.rig, Ns::Client, LOOPBACK, address.port());
    echo(visit(&place, Ns::Gateway, (LOOPBACK, 8085).into()).unwrap(), b"at home");
    assert_eq!(service.connection_count(), 1);
}

/// A connection to the gateway that goes on only while the test drives it, and the status of a `beam-listen` on it.
fn listening(place: &Place, instance: &str) -> (QuicClient, tunnel::StreamId, u16) {
    let socket = place.rig.within(Ns::Client, || UdpSocket::bind((rig::CLIENT_V4, 0))).unwrap();
    let gateway = authority(GATEWAY_V4, pair::TUNNEL_PORT).parse().unwrap();
    let mut quic = QuicClient::connect(socket, gateway, tools::quic::config(Duration::from_secs(60)));
    quic.established();
    let (stream, status) = ask_to_listen(&mut quic, instance);
    (quic, stream, status)
}

fn ask_to_listen(quic: &mut QuicClient, instance: &str) -> (tunnel::StreamId, u16) {
    let fields = [("authorization", "Bearer a-token-of-this-test"), ("beam-instance", instance)];
    let path = "/.well-known/beam/listen/tcp/localhost/8085/";
    quic.ask(&masque::RequestHead::extended_connect("beam-listen", "gateway.beam.example", path, &fields))
}

// The old connection of a client lives until its idle timeout, a minute; its listener does not. Method: connections that
// are not driven any more, and so say nothing: neither an ACK nor a close.
#[test]
fn a_listener_follows_its_client_at_once() {
    if !rig::root_or_skip("a_listener_follows_its_client_at_once") {
        return;
    }
    let place = Place::new();
    let flags = [KERNEL, &["--cpus", "0-1", "--allow-listen", "8085"]].concat();
    let gateway = place.gateway(GATEWAY_V4, &flags);
    // One run of a client takes over again and again, on whichever worker its next connection is.
    let mut dead = Vec::new();
    for round in 0..6 {
        let (quic, stream, status) = listening(&place, "abc");
        assert_eq!(status, 200, "round {round}");
        dead.push((quic, stream));
    }
    let status = gateway.status();
    assert_eq!(
        (counter(&status, "listens_taken_over"), counter(&status, "listens_opened")),
        (5, 6),
        "{status:#}"
    );
    // The last one hears of visitors.
    let (mut quic, stream) = dead.pop().unwrap();
    let visitor = visit(&place, Ns::Gateway, (LOOPBACK, 8085).into()).unwrap();
    let tunnel::Read::Chunk(announced) = quic.read(stream) else { panic!("the stream has ended") };
    let peer = visitor.local_addr().unwrap().to_string();
    assert!(announced.windows(peer.len()).any(|window| window == peer.as_bytes()), "{announced:?}");
    // The first, if it were driven again, would hear that its listener is gone.
    let (mut first, stream) = dead.remove(0);
    assert_eq!(first.read(stream), tunnel::Read::Fin);

    // Another run of the same client: refused, for the last one is alive ...
    let (mut other, _, status) = listening(&place, "def");
    assert_eq!(status, 409);
    // Longer than the gateway's doubt lasts: it has asked, and was answered.
    quic.answer_for(Duration::from_secs(4));
    assert_eq!(ask_to_listen(&mut other, "def").1, 409);
    // ... and let in once that one is silent.
    let ask_again = || {
        other.answer_for(Duration::from_millis(200));
        ask_to_listen(&mut other, "def").1
    };
    until("the dead one is found out", ask_again, |status| *status == 200);
    assert!(gateway.process.stderr().contains("makes room for another one of its client"));
    drop(visitor);
}

// Somebody who announces what there is not, or takes what is not theirs, gets an answer and nothing else.
#[test]
fn strange_requests_are_refused() {
    if !rig::root_or_skip("strange_requests_are_refused") {
        return;
    }
    let place = Place::new();
    let gateway = place.gateway(GATEWAY_V4, &[KERNEL, &["--allow-listen", "8085"]].concat());
    let (mut quic, stream, status) = listening(&place, "abc");
    assert_eq!(status, 200);
    let fields = [("authorization", "Bearer a-token-of-this-test")];
    for (protocol, path, wanted) in [
        ("beam-accept", "/.well-known/beam/accept/1/", 404),
        ("beam-accept", "/.well-known/beam/accept/0/", 400),
        ("beam-accept", "/elsewhere", 404),
        ("beam-listen", "/.well-known/beam/listen/sctp/*/8085/", 404),
        ("beam-listen", "/.well-known/beam/listen/tcp/gw.example/8085/", 400),
        ("beam-listen", "/.well-known/beam/listen/tcp/localhost/65536/", 400),
        ("beam-listen", "/.well-known/beam/listen/tcp/localhost/0/", 403),
        ("beam-listen", "/.well-known/beam/listen/udp/*/8085/", 403),
        ("beam-listen", "/.well-known/beam/listen/tcp/localhost/8085/", 409),
    ] {
        let head = masque::RequestHead::extended_connect(protocol, "gateway.beam.example", path, &fields);
        assert_eq!(quic.ask(&head).1, wanted, "{protocol} {path}");
    }
    let unknown = masque::RequestHead::extended_connect(
        "beam-listen",
        "gateway.beam.example",
        "/.well-known/beam/listen/tcp/localhost/8085/",
        &[("authorization", "Bearer nobody")],
    );
    assert_eq!(quic.ask(&unknown).1, 401);
    // An id serves once.
    let mut visitor = visit(&place, Ns::Gateway, (LOOPBACK, 8085).into()).unwrap();
    quic.read(stream);
    let path = "/.well-known/beam/accept/1/";
    let accept = masque::RequestHead::extended_connect("beam-accept", "gateway.beam.example", path, &fields);
    assert_eq!(quic.ask(&accept).1, 200);
    assert_eq!(quic.ask(&accept).1, 404);
    // Visitors that nobody takes wait for a while; more than may are reset, and the others are when their client goes.
    // A reset that comes before connect() has returned is its error: a visitor that was turned away, too.
    let crowd: Vec<std::io::Result<TcpStream>> =
        (0..300).map(|_| visit(&place, Ns::Gateway, (LOOPBACK, 8085).into())).collect();
    let status = until_counter(&gateway, "reverse_arrived", 301);
    let overflowed = counter(&status, "reverse_overflowed");
    assert!(overflowed >= 44, "256 may wait: {status:#}");
    quic.close();
    let status = until("the listener goes", || gateway.status(), |status| number(status, "connections") == 0);
    assert_eq!(counter(&status, "reverse_abandoned"), 300 - overflowed, "{status:#}");
    let at_once = crowd.iter().filter(|arrived| arrived.is_err()).count() as u64;
    assert!(at_once <= overflowed, "{at_once} of {overflowed} turned away");
    for arrived in crowd {
        let error = arrived.and_then(|mut stream| stream.read(&mut [0])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(visitor.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}
