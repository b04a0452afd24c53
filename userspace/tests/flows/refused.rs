//! Flows that come to nothing, and what their users hear.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use crate::pair::Place;
use crate::rig::{self, EchoServer, Ns, ORIGIN_V4};
use crate::script::{assert_flow_counters, reply};
use crate::tools::{Tunnel, origin_listener, random_bytes, read_all, read_some, seed, socks_request};

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
