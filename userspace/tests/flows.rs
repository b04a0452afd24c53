//! Goal: a flow through the tunnel is a TCP connection to whoever holds its ends: half-close, reset, refusal, order,
//! every byte, and backpressure mean at one end what happened at the other.
//! Method: scripted origins and local clients on the two sides of a tunnel over AF_XDP; after each script the gateway's
//! and the client's counters say exactly what happened, no more and no less.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use pair::{LIMIT, Place, TUNNEL_PORT, settled, until};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rig::{Beam, CLIENT_V4, EchoServer, GATEWAY_V4, Ns, ORIGIN_V4};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use tools::{
    Progress, Tunnel, accept, counter, memory_kib, origin_listener, patient, random_bytes, read_all,
    read_some, reset, seed, socks_request,
};

/// The origin runs a script on the first connection that it accepts; the test runs the local end.
fn scripted<T: Send + 'static>(
    test: &str,
    origin: impl FnOnce(TcpStream) -> T + Send + 'static,
    local: impl FnOnce(&Tunnel) -> T,
) -> Option<(T, T, Tunnel)> {
    if !rig::root_or_skip(test) {
        return None;
    }
    let place = Place::new();
    let listener = origin_listener(&place);
    let tunnel = Tunnel::native(place, listener.local_addr().unwrap());
    let origin = std::thread::spawn(move || origin(accept(&listener)));
    let local = local(&tunnel);
    Some((origin.join().unwrap(), local, tunnel))
}

/// Exactly these counters of flows are above zero, at a daemon that has fallen silent.
fn assert_flow_counters(beam: &Beam, expected: &[(&str, u64)]) -> Value {
    const OF_FLOWS: [&str; 15] = [
        "flows_finished",
        "flows_reset_by_stream",
        "flows_reset_by_socket",
        "flows_protocol_error",
        "bytes_to_sockets",
        "bytes_from_sockets",
        "requests",
        "refused_unauthenticated",
        "refused_denied",
        "refused_bad_request",
        "refused_not_found",
        "refused_upstream",
        "refused_draining",
        "refused_limit",
        "socks_refused",
    ];
    let status = settled(beam);
    for name in OF_FLOWS {
        let want = expected.iter().find(|(of, _)| *of == name).map_or(0, |&(_, n)| n);
        assert_eq!(counter(&status, name), want, "{name}; expected are {expected:?} of {status:#}");
    }
    assert_eq!(status["conservation"]["holds"], true, "{status:#}");
    status
}

// RFC 9114 4.4: "when the client ... has no more data ... FIN bit"; a TCP half-close is the end of a stream and no more.
#[test]
fn half_close_from_the_client_leaves_the_answer_flowing() {
    const TEST: &str = "half_close_from_the_client_leaves_the_answer_flowing";
    let seed = seed(TEST);
    let (request, response) = (random_bytes(seed, 1 << 20), random_bytes(seed + 1, 3 << 20));
    let (sent, answer) = (request.clone(), response.clone());
    let ends = scripted(
        TEST,
        move |mut stream| {
            let request = read_all(&mut stream);
            stream.write_all(&answer).unwrap();
            request
        },
        |tunnel| {
            let mut stream = tunnel.dial();
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(&mut stream)
        },
    );
    let Some((at_origin, at_client, tunnel)) = ends else { return };
    assert!(at_origin == request, "the origin got {} bytes of {}", at_origin.len(), request.len());
    assert!(at_client == response, "the client got {} bytes of {}", at_client.len(), response.len());
    assert_flow_counters(
        &tunnel.gateway,
        &[
            ("requests", 1),
            ("flows_finished", 1),
            ("bytes_to_sockets", 1 << 20),
            ("bytes_from_sockets", 3 << 20),
        ],
    );
    assert_flow_counters(
        &tunnel.client,
        &[
            ("requests", 1),
            ("flows_finished", 1),
            ("bytes_to_sockets", 3 << 20),
            ("bytes_from_sockets", 1 << 20),
        ],
    );
}

#[test]
fn half_close_from_the_origin_leaves_the_request_flowing() {
    const TEST: &str = "half_close_from_the_origin_leaves_the_request_flowing";
    let seed = seed(TEST);
    let (banner, upload) = (random_bytes(seed, 1 << 20), random_bytes(seed + 1, 3 << 20));
    let (said, sent) = (banner.clone(), upload.clone());
    let ends = scripted(
        TEST,
        move |mut stream| {
            stream.write_all(&said).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(&mut stream)
        },
        |tunnel| {
            let mut stream = tunnel.dial();
            let banner = read_all(&mut stream);
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            banner
        },
    );
    let Some((at_origin, at_client, tunnel)) = ends else { return };
    assert!(at_client == banner, "the client got {} bytes of {}", at_client.len(), banner.len());
    assert!(at_origin == upload, "the origin got {} bytes of {}", at_origin.len(), upload.len());
    assert_flow_counters(
        &tunnel.gateway,
        &[
            ("requests", 1),
            ("flows_finished", 1),
            ("bytes_to_sockets", 3 << 20),
            ("bytes_from_sockets", 1 << 20),
        ],
    );
}

// RFC 9114 4.4: "a proxy treats any error in the TCP connection, which includes receiving a TCP segment with the RST bit
// set, as a stream error of type H3_CONNECT_ERROR". At the local client that is ECONNRESET and never a clean end.
#[test]
fn a_reset_from_the_origin_is_an_error_at_the_client() {
    let (heard_tx, heard_rx) = mpsc::channel();
    let ends = scripted(
        "a_reset_from_the_origin_is_an_error_at_the_client",
        move |mut stream| {
            stream.write_all(b"half an ans").unwrap();
            heard_rx.recv_timeout(LIMIT).unwrap();
            reset(stream);
            ErrorKind::Other
        },
        |tunnel| {
            let mut stream = tunnel.dial();
            assert_eq!(&read_some::<11>(&mut stream), b"half an ans");
            heard_tx.send(()).unwrap();
            stream.read(&mut [0; 16]).expect_err("a reset is no end of stream").kind()
        },
    );
    let Some((_, at_client, tunnel)) = ends else { return };
    assert_eq!(at_client, ErrorKind::ConnectionReset);
    let flow = [("requests", 1), ("flows_reset_by_socket", 1), ("bytes_from_sockets", 11)];
    assert_flow_counters(&tunnel.gateway, &flow);
    let flow = [("requests", 1), ("flows_reset_by_stream", 1), ("bytes_to_sockets", 11)];
    assert_flow_counters(&tunnel.client, &flow);
}

#[test]
fn a_reset_from_the_client_is_a_reset_at_the_origin() {
    let (heard_tx, heard_rx) = mpsc::channel();
    let ends = scripted(
        "a_reset_from_the_client_is_a_reset_at_the_origin",
        move |mut stream| {
            assert_eq!(&read_some::<9>(&mut stream), b"half a re");
            heard_tx.send(()).unwrap();
            stream.read(&mut [0; 16]).expect_err("a reset is no end of stream").kind()
        },
        |tunnel| {
            let mut stream = tunnel.dial();
            stream.write_all(b"half a re").unwrap();
            heard_rx.recv_timeout(LIMIT).unwrap();
            reset(stream);
            ErrorKind::Other
        },
    );
    let Some((at_origin, _, tunnel)) = ends else { return };
    assert_eq!(at_origin, ErrorKind::ConnectionReset);
    let flow = [("requests", 1), ("flows_reset_by_stream", 1), ("bytes_to_sockets", 9)];
    assert_flow_counters(&tunnel.gateway, &flow);
    let flow = [("requests", 1), ("flows_reset_by_socket", 1), ("bytes_from_sockets", 9)];
    assert_flow_counters(&tunnel.client, &flow);
}

/// Sleeps until the connection has failed, without reading a byte from it.
fn wait_for_failure(stream: &TcpStream) -> bool {
    let limit = Timespec::try_from(LIMIT).unwrap();
    let mut watched = [PollFd::new(stream, PollFlags::empty())];
    loop {
        match poll(&mut watched, Some(&limit)) {
            Ok(_) => return watched[0].revents().contains(PollFlags::ERR),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

// A reset overtakes the data before it: it must reach an end that reads nothing, else a stalled flow whose other end is
// gone lives for ever. Method: fill the whole way until the writer is stalled, reset the writer's end, and watch the
// other without reading.
#[test]
fn a_reset_overtakes_what_a_stalled_reader_has_not_read() {
    const TEST: &str = "a_reset_overtakes_what_a_stalled_reader_has_not_read";
    if !rig::root_or_skip(TEST) {
        return;
    }
    let place = Place::new();
    let listener = origin_listener(&place);
    let tunnel = Tunnel::native(place, listener.local_addr().unwrap());
    for upload in [true, false] {
        let local = tunnel.dial();
        let origin = accept(&listener);
        let (writer, reader) = if upload { (local, origin) } else { (origin, local) };
        fill(&tunnel, writer);
        assert!(wait_for_failure(&reader), "no failure reached the reader (upload: {upload})");
    }
    let status = settled(&tunnel.gateway);
    assert_eq!(counter(&status, "flows_reset_by_stream"), 1, "{status:#}");
    assert_eq!(counter(&status, "flows_reset_by_socket"), 1, "{status:#}");
}

/// Writes until nothing is taken any more and both daemons have fallen silent; then resets.
fn fill(tunnel: &Tunnel, mut writer: TcpStream) {
    writer.set_nonblocking(true).unwrap();
    let chunk = [0x5a; 1 << 16];
    loop {
        let before = tunnel.gateway.status();
        let mut written = 0;
        loop {
            match writer.write(&chunk) {
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let after = tunnel.gateway.status();
        if written == 0 && before["conservation"]["frames_in"] == after["conservation"]["frames_in"] {
            break;
        }
    }
    reset(writer);
}

/// A port of the origin where nobody listens.
fn closed_port(place: &Place) -> SocketAddr {
    origin_listener(place).local_addr().unwrap()
}

#[test]
fn a_refusal_resets_a_forwarded_connection() {
    if !rig::root_or_skip("a_refusal_resets_a_forwarded_connection") {
        return;
    }
    let place = Place::new();
    let closed = closed_port(&place);
    let tunnel = Tunnel::native(place, closed);
    let error = tunnel.dial().read(&mut [0; 1]).expect_err("nobody listens there");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_flow_counters(&tunnel.gateway, &[("requests", 1), ("refused_upstream", 1)]);
    assert_flow_counters(&tunnel.client, &[("requests", 1)]);
}

/// RFC 1928 section 6: the whole reply with this code.
fn reply(code: u8) -> [u8; 10] {
    [5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

// RFC 1928 section 6: replies 2 (not allowed by ruleset), 4 (host unreachable), 5 (connection refused), 7 (command),
// 8 (address type). Method: one SOCKS client for each, the whole reply read to its clean end.
#[test]
fn socks_clients_are_told_what_happened() {
    if !rig::root_or_skip("socks_clients_are_told_what_happened") {
        return;
    }
    let place = Place::new();
    place.rig.set_hosts(Ns::Gateway, "127.0.0.1 localhost\n");
    let closed = closed_port(&place);
    let tunnel = Tunnel::native(place, closed);
    let named = |name: &str| {
        let mut request = vec![5, 1, 0, 3, name.len() as u8];
        request.extend(name.as_bytes());
        request.extend([0, 80]);
        request
    };
    let with_command = |command: u8, kind: u8| {
        let mut request = socks_request(closed);
        (request[1], request[3]) = (command, kind);
        request
    };
    for (what, request, code) in [
        ("nobody listens there", socks_request(closed), 5),
        ("no such name", named("nowhere.invalid"), 4),
        ("outside --allow", socks_request("198.18.0.1:80".parse().unwrap()), 2),
        ("loopback, by name", named("localhost"), 2),
        ("BIND", with_command(2, 1), 7),
        ("address type 9", with_command(1, 9), 8),
    ] {
        let mut stream = tunnel.socks();
        stream.write_all(&request).unwrap();
        assert_eq!(read_all(&mut stream), reply(code), "{what}");
    }
    assert_flow_counters(
        &tunnel.gateway,
        // The connection refused, and the name that does not resolve; the two denied.
        &[("requests", 4), ("refused_upstream", 2), ("refused_denied", 2)],
    );
    assert_flow_counters(&tunnel.client, &[("requests", 4), ("socks_refused", 6)]);
}

// What is no SOCKS5 gets no answer but a closed connection, a SOCKS client without a method that we know gets 0xff, and
// each is counted. Method: first bytes of other protocols, every kind of cut included; nothing reaches the gateway.
#[test]
fn socks_garbage_is_refused_and_counted() {
    if !rig::root_or_skip("socks_garbage_is_refused_and_counted") {
        return;
    }
    let place = Place::new();
    let closed = closed_port(&place);
    let tunnel = Tunnel::native(place, closed);
    let greeting = |rest: &[u8]| [&[5, 1, 0], rest].concat();
    let cases: [(&str, Vec<u8>, &[u8]); 8] = [
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), b""),
        ("TLS", vec![0x16, 3, 1, 0, 200], b""),
        ("SOCKS4", vec![4, 1, 0, 80, 198, 19, 0, 2, 0], b""),
        ("user and password only", vec![5, 1, 2], &[5, 0xff]),
        ("no method at all", vec![5, 0], &[5, 0xff]),
        ("version 4 after the greeting", greeting(&[4, 1, 0, 1]), &[5, 0]),
        ("an empty name", greeting(&[5, 1, 0, 3, 0, 0, 80]), &[5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0]),
        (
            "a name that is no UTF-8",
            greeting(&[5, 1, 0, 3, 1, 0xff, 0, 80]),
            &[5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0],
        ),
    ];
    for (what, bytes, answer) in &cases {
        let mut stream = tunnel.dial_socks();
        stream.write_all(bytes).unwrap();
        let mut heard = Vec::new();
        // Whether the end is clean or a reset is all the same to garbage.
        let _ = stream.read_to_end(&mut heard);
        assert_eq!(heard, *answer, "{what}");
    }
    // Said nothing whole, and left.
    let mut stream = tunnel.dial_socks();
    stream.write_all(&[5]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
    assert_flow_counters(&tunnel.client, &[("socks_refused", cases.len() as u64 + 1)]);
    assert_flow_counters(&tunnel.gateway, &[]);
}

// A SOCKS client that doesn't wait for the reply loses nothing. Method: greeting, request and payload in one write, then
// more behind it.
#[test]
fn early_data_behind_a_socks_request_arrives_first() {
    const TEST: &str = "early_data_behind_a_socks_request_arrives_first";
    if !rig::root_or_skip(TEST) {
        return;
    }
    let payload = random_bytes(seed(TEST), 100_000);
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let tunnel = Tunnel::native(place, echo.address());
    for early_bytes in [1, 700, 5000] {
        let mut stream = tunnel.dial_socks();
        let request = [&[5, 1, 0][..], &socks_request(echo.address()), &payload[..early_bytes]].concat();
        stream.write_all(&request).unwrap();
        stream.write_all(&payload[early_bytes..]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_some::<2>(&mut stream), [5, 0]);
        assert_eq!(read_some::<10>(&mut stream), reply(0));
        assert!(read_all(&mut stream) == payload, "with {early_bytes} early bytes");
    }
    let bytes = 3 * payload.len() as u64;
    let flows =
        [("requests", 3), ("flows_finished", 3), ("bytes_to_sockets", bytes), ("bytes_from_sockets", bytes)];
    assert_flow_counters(&tunnel.gateway, &flows);
    assert_flow_counters(&tunnel.client, &flows);
}

// 500 flows open at the same moment, each with bytes of its own: none is lost, none gets another's.
#[test]
fn five_hundred_flows_at_once_keep_their_bytes_apart() {
    const TEST: &str = "five_hundred_flows_at_once_keep_their_bytes_apart";
    const FLOWS: u64 = 500;
    if !rig::root_or_skip(TEST) {
        return;
    }
    let seed = seed(TEST);
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let tunnel = Tunnel::native(place, echo.address());
    let mut rng = StdRng::seed_from_u64(seed);
    let payloads: Vec<Vec<u8>> =
        (0..FLOWS).map(|n| random_bytes(seed ^ (n + 1), rng.random_range(1..=96 << 10))).collect();
    let total: u64 = payloads.iter().map(|payload| payload.len() as u64).sum();
    let all_open = Arc::new(Barrier::new(FLOWS as usize + 1));
    let flows: Vec<_> = payloads
        .into_iter()
        .map(|payload| {
            let mut stream = tunnel.dial();
            let all_open = all_open.clone();
            let run = move || {
                // One byte there and back shows that the flow is open at the gateway.
                stream.write_all(&payload[..1])?;
                let mut echoed = vec![0; payload.len()];
                stream.read_exact(&mut echoed[..1])?;
                all_open.wait();
                all_open.wait();
                stream.write_all(&payload[1..])?;
                stream.shutdown(Shutdown::Write)?;
                stream.read_exact(&mut echoed[1..])?;
                let end = stream.read(&mut [0; 1])?;
                Ok::<_, io::Error>(end == 0 && echoed == payload)
            };
            std::thread::Builder::new().stack_size(64 << 10).spawn(run).unwrap()
        })
        .collect();
    all_open.wait();
    for beam in [&tunnel.gateway, &tunnel.client] {
        assert_eq!(beam.status()["flows"], FLOWS, "all flows are open at this moment");
    }
    all_open.wait();
    for (n, flow) in flows.into_iter().enumerate() {
        assert!(flow.join().unwrap().unwrap_or_else(|e| panic!("flow {n}: {e}")), "flow {n} got other bytes");
    }
    let expected = [
        ("requests", FLOWS),
        ("flows_finished", FLOWS),
        ("bytes_to_sockets", total),
        ("bytes_from_sockets", total),
    ];
    assert_flow_counters(&tunnel.gateway, &expected);
    assert_flow_counters(&tunnel.client, &expected);
    assert_eq!((echo.connection_count(), echo.echoed_bytes()), (FLOWS, total));
}

// Small writes are not held back for company, and no wake-up is missed: each byte needs the whole way to work.
#[test]
fn single_bytes_bounce_two_thousand_times() {
    const BYTES: u64 = 2_000;
    if !rig::root_or_skip("single_bytes_bounce_two_thousand_times") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let tunnel = Tunnel::native(place, echo.address());
    let mut stream = tunnel.dial();
    for n in 0..BYTES {
        let byte = rig::pattern(n);
        stream.write_all(&[byte]).unwrap();
        assert_eq!(read_some::<1>(&mut stream), [byte], "byte {n}");
    }
    drop(stream);
    let expected =
        [("requests", 1), ("flows_finished", 1), ("bytes_to_sockets", BYTES), ("bytes_from_sockets", BYTES)];
    assert_flow_counters(&tunnel.gateway, &expected);
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What the kernel may buffer for a socket of the daemons, in each direction, once [`narrow`] has set it.
const SOCKET_BYTES_MAX: u64 = MIB;
/// What the kernel buffers for a socket of the test: twice what is asked for.
const TEST_SOCKET_BYTES: u64 = 2 * 128 * KIB;
/// `TO_SOCKET_BYTES_MAX` and `READ_BYTES_MAX` of `flow.rs`: what a splice holds of each direction. The first is passed by
/// at most one read, which is as large again.
const SPLICE_BYTES: u64 = 2 * 128 * KIB + 64 * KIB;
/// Stream windows of the worksheet in `tunnel::transport`.
const CLIENT_STREAM_WINDOW: u64 = 8 * MIB;
const GATEWAY_STREAM_WINDOW: u64 = 4 * MIB;
/// The send window bounds what is written and not acknowledged yet.
const SEND_WINDOW: u64 = 8 * MIB;

/// Bounds the kernel's buffers of both daemons' TCP sockets, so that the sums below mean something.
fn narrow(place: &Place) {
    let script = format!(
        "for f in tcp_rmem tcp_wmem; do echo 4096 131072 {SOCKET_BYTES_MAX} > /proc/sys/net/ipv4/$f; done"
    );
    for ns in [Ns::Client, Ns::Gateway] {
        assert!(place.rig.command(ns, "sh").args(["-c", &script]).status().unwrap().success());
    }
}

fn narrow_socket(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_send_buffer_size(TEST_SOCKET_BYTES as usize / 2).unwrap();
    socket.set_recv_buffer_size(TEST_SOCKET_BYTES as usize / 2).unwrap();
}

/// Everything between a writer and a reader that doesn't read, on the way through both daemons.
fn held_on_the_way(stream_window: u64) -> u64 {
    // The writer's socket; the near daemon's socket, splice; the far daemon's stream, splice, socket; the reader's.
    TEST_SOCKET_BYTES
        + SOCKET_BYTES_MAX
        + SPLICE_BYTES
        + stream_window
        + SPLICE_BYTES
        + SOCKET_BYTES_MAX
        + TEST_SOCKET_BYTES
}

/// Sends `total` bytes of the pattern from `writer` while `reader` stands still until `beside`, an echoing flow of the
/// same tunnel, has shown that the writer is stalled and that it isn't itself; then every byte is read and compared.
fn stall_and_go_on(tunnel: &Tunnel, echo: SocketAddr, writer: TcpStream, mut reader: TcpStream, window: u64) {
    let bound = held_on_the_way(window);
    let total = 64 * MIB;
    let mut beside = tunnel.socks();
    beside.write_all(&socks_request(echo)).unwrap();
    assert_eq!(read_some::<10>(&mut beside), reply(0));
    let warm_up = random_bytes(1, MIB as usize);
    for _ in 0..8 {
        bounce(&mut beside, &warm_up);
    }
    let before = [&tunnel.gateway, &tunnel.client].map(|beam| memory_kib(beam, "VmHWM"));

    let written = Arc::new(Progress::default());
    let of_writer = written.clone();
    let writing = std::thread::spawn(move || write_pattern(writer, total, &of_writer));
    // Stalled: the other flow moves a MiB there and back, several times over, and the writer not one byte.
    let mut unchanged = 0;
    let mut last = u64::MAX;
    for _ in 0..2_000 {
        bounce(&mut beside, &warm_up);
        let now = written.get();
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
        if unchanged == 8 {
            break;
        }
    }
    assert_eq!(unchanged, 8, "the writer never stalled; it has written {last} bytes");
    assert!(last < total && last <= bound, "{last} bytes are under way, {bound} can be held");
    assert!(last >= window, "the windows are used: {last} bytes of {window}");

    for offset in (0..total).step_by(64 << 10) {
        let mut chunk = vec![0; (total - offset).min(64 << 10) as usize];
        reader.read_exact(&mut chunk).unwrap();
        let expected: Vec<u8> = (offset..offset + chunk.len() as u64).map(rig::pattern).collect();
        assert!(chunk == expected, "a difference within the 64 KiB from byte {offset}");
    }
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "the end follows the last byte");
    writing.join().unwrap();

    // Memory: what the receiver's stream window lets in, which quinn may keep in buffers half again as large, or what the
    // send window lets out; and the splice. Twice that, and 4 MiB for what the allocator keeps.
    let after = [&tunnel.gateway, &tunnel.client].map(|beam| memory_kib(beam, "VmHWM"));
    let allowed = (2 * (window.max(SEND_WINDOW) + SPLICE_BYTES) + 4 * MIB) / KIB;
    for ((name, before), after) in ["gateway", "client"].into_iter().zip(before).zip(after) {
        eprintln!("{name}: VmHWM {before} KiB, then {after} KiB, {allowed} KiB allowed; {total} bytes moved");
        assert!(after <= before + allowed, "{name}: VmHWM rose from {before} to {after} KiB");
    }
}

/// There and back, compared.
fn bounce(stream: &mut TcpStream, bytes: &[u8]) {
    let mut sending = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || sending.write_all(bytes).unwrap());
        let mut echoed = vec![0; bytes.len()];
        stream.read_exact(&mut echoed).unwrap();
        assert!(echoed == bytes, "the flow beside the stalled one got other bytes");
    });
}

fn write_pattern(mut writer: TcpStream, total: u64, written: &Progress) {
    // A stalled writer waits as long as the test wants.
    writer.set_write_timeout(None).unwrap();
    let mut offset = 0;
    while offset < total {
        let chunk: Vec<u8> = (offset..total.min(offset + (64 << 10))).map(rig::pattern).collect();
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let n = writer.write(rest).unwrap();
            written.add(n);
            rest = &rest[n..];
        }
        offset += chunk.len() as u64;
    }
}

#[test]
fn a_slow_client_stalls_the_origin_and_nobody_else() {
    if !rig::root_or_skip("a_slow_client_stalls_the_origin_and_nobody_else") {
        return;
    }
    let (tunnel, listener, echo) = narrow_tunnel();
    let local = tunnel.dial();
    let origin = accept(&listener);
    narrow_socket(&local);
    narrow_socket(&origin);
    stall_and_go_on(&tunnel, echo.address(), origin, local, CLIENT_STREAM_WINDOW);
}

#[test]
fn a_slow_origin_stalls_the_client_and_nobody_else() {
    if !rig::root_or_skip("a_slow_origin_stalls_the_client_and_nobody_else") {
        return;
    }
    let (tunnel, listener, echo) = narrow_tunnel();
    let local = tunnel.dial();
    let origin = accept(&listener);
    narrow_socket(&local);
    narrow_socket(&origin);
    stall_and_go_on(&tunnel, echo.address(), local, origin, GATEWAY_STREAM_WINDOW);
}

fn narrow_tunnel() -> (Tunnel, TcpListener, EchoServer) {
    let place = Place::new();
    narrow(&place);
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let listener = origin_listener(&place);
    // Accepted sockets inherit it, and with it the window they announce.
    socket2::SockRef::from(&listener).set_recv_buffer_size(TEST_SOCKET_BYTES as usize / 2).unwrap();
    let tunnel = Tunnel::native(place, listener.local_addr().unwrap());
    (tunnel, listener, echo)
}

// Many flows whose readers stand still must not use up what all flows of the tunnel share, in either direction.
#[test]
fn ten_stalled_flows_leave_room_for_another() {
    const STALLED: usize = 10;
    if !rig::root_or_skip("ten_stalled_flows_leave_room_for_another") {
        return;
    }
    for upload in [false, true] {
        let (tunnel, listener, echo) = narrow_tunnel();
        let mut beside = tunnel.socks();
        beside.write_all(&socks_request(echo.address())).unwrap();
        assert_eq!(read_some::<10>(&mut beside), reply(0));
        let written = Arc::new(Progress::default());
        let mut stalled = Vec::new();
        for _ in 0..STALLED {
            let local = tunnel.dial();
            let origin = accept(&listener);
            let (writer, reader) = if upload { (local, origin) } else { (origin, local) };
            let of_writer = written.clone();
            // It ends with an error when the test lets go of the reader.
            std::thread::spawn(move || write_until_broken(writer, &of_writer));
            stalled.push(reader);
        }
        let megabyte = random_bytes(7, MIB as usize);
        let (mut last, mut unchanged) = (u64::MAX, 0);
        for _ in 0..2_000 {
            bounce(&mut beside, &megabyte);
            let now = written.get();
            unchanged = if now == last { unchanged + 1 } else { 0 };
            last = now;
            if unchanged == 8 {
                break;
            }
        }
        assert_eq!(
            unchanged, 8,
            "the writers never stalled (upload: {upload}); they have written {last} bytes"
        );
    }
}

fn write_until_broken(mut writer: TcpStream, written: &Progress) {
    writer.set_write_timeout(None).unwrap();
    let chunk = [0x5a; 1 << 16];
    while let Ok(n) = writer.write(&chunk) {
        written.add(n);
    }
}

// An operator stops the client: the tunnel is closed in words, and the gateway resets what it had open to the origin.
#[test]
fn a_stopped_client_takes_its_flows_with_it() {
    let (ready_tx, ready_rx) = mpsc::channel();
    let ends = scripted(
        "a_stopped_client_takes_its_flows_with_it",
        move |mut stream| {
            stream.write_all(b"x").unwrap();
            ready_tx.send(()).unwrap();
            stream.read(&mut [0; 16]).expect_err("cut off, not ended").kind()
        },
        |tunnel| {
            let mut stream = tunnel.dial();
            assert_eq!(read_some::<1>(&mut stream), *b"x");
            ready_rx.recv_timeout(LIMIT).unwrap();
            // The first asks for a drain, the second ends it.
            for _ in 0..2 {
                tunnel.client.process.signal(rustix::process::Signal::TERM);
                until(
                    "the client notes the signal",
                    || tunnel.client.process.stderr(),
                    |log| log.contains("drain"),
                );
            }
            stream.read(&mut [0; 16]).map_or_else(|e| e.kind(), |_| ErrorKind::UnexpectedEof)
        },
    );
    let Some((at_origin, at_client, mut tunnel)) = ends else { return };
    assert_eq!((at_origin, at_client), (ErrorKind::ConnectionReset, ErrorKind::ConnectionReset));
    let status = tunnel.client.process.wait(LIMIT);
    assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", tunnel.client.process.stderr());
    let status = assert_flow_counters(
        &tunnel.gateway,
        &[("requests", 1), ("flows_reset_by_stream", 1), ("bytes_from_sockets", 1)],
    );
    assert_eq!(counter(&status, "connections_closed"), 1);
}

// A killed daemon must not make half an answer look like a whole one: what it held open ends in an error, at the local
// client when `connect` is killed, at the origin when `serve` is.
#[test]
fn a_killed_daemon_cuts_its_flows_off_and_does_not_end_them() {
    if !rig::root_or_skip("a_killed_daemon_cuts_its_flows_off_and_does_not_end_them") {
        return;
    }
    for kill_gateway in [false, true] {
        let place = Place::new();
        let listener = origin_listener(&place);
        let mut tunnel = Tunnel::native(place, listener.local_addr().unwrap());
        let mut local = tunnel.dial();
        let mut origin = accept(&listener);
        origin.write_all(b"half an ans").unwrap();
        assert_eq!(&read_some::<11>(&mut local), b"half an ans");
        local.write_all(b"half a re").unwrap();
        assert_eq!(&read_some::<9>(&mut origin), b"half a re");
        let (killed, cut_off) =
            if kill_gateway { (&mut tunnel.gateway, &mut origin) } else { (&mut tunnel.client, &mut local) };
        killed.process.kill();
        let error = cut_off.read(&mut [0; 16]).expect_err("cut off, not ended");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "gateway killed: {kill_gateway}");
    }
}

// A client that is killed says nothing: the gateway finds out by the idle timeout and resets what it had open. Method: a
// client of the test's own with an idle timeout of one second (the smaller one counts, RFC 9000 10.1) stops in mid-flow.
#[test]
fn a_client_that_falls_silent_is_forgotten_with_its_flows() {
    if !rig::root_or_skip("a_client_that_falls_silent_is_forgotten_with_its_flows") {
        return;
    }
    let place = Place::new();
    let listener = origin_listener(&place);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let socket = place.rig.within(Ns::Client, || UdpSocket::bind((CLIENT_V4, 0)).unwrap());
    let address = SocketAddr::from((GATEWAY_V4, TUNNEL_PORT));
    let config = tools::quic::config(Duration::from_secs(1));
    let mut client = tools::quic::QuicClient::connect(socket, address, config);
    client.established();
    let token = std::fs::read_to_string(&place.token).unwrap();
    client.open_flow(&listener.local_addr().unwrap().to_string(), token.trim());
    let mut origin = accept(&listener);
    patient(&origin);
    // From here on nobody drives the client, and no socket of its answers.
    drop(client);
    let error = origin.read(&mut [0; 16]).expect_err("cut off, not ended");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let status = assert_flow_counters(&gateway, &[("requests", 1), ("flows_reset_by_stream", 1)]);
    assert_eq!((counter(&status, "connections_closed"), counter(&status, "connections")), (1, 0));
}
