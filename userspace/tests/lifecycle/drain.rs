//! SIGTERM: running flows finish, new ones are refused, a second one stops at once; the gateway's and the client's.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use rustix::process::Signal;

use crate::pair::{FORWARD_PORT, LIMIT, Place, SOCKS_PORT, number, until};
use crate::rig::{self, EchoServer, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, pattern};
use crate::{NATIVE_CLIENT, NATIVE_GATEWAY, dial, echo_some, local, small_socket_buffers};

/// Asks a SOCKS5 server for `to`; the reply code of RFC 1928 section 6.
fn socks(stream: &mut TcpStream, to: SocketAddr) -> u8 {
    let SocketAddr::V4(to) = to else { panic!("an IPv4 address is enough here") };
    let [high, low] = to.port().to_be_bytes();
    stream.write_all(&[5, 1, 0]).expect("greet");
    let mut method = [0; 2];
    stream.read_exact(&mut method).expect("hear the method");
    assert_eq!(method, [5, 0]);
    let request = [&[5, 1, 0, 1][..], &to.ip().octets(), &[high, low]].concat();
    stream.write_all(&request).expect("request");
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).expect("hear the reply");
    reply[1]
}

/// Three flows when SIGTERM comes. One talks both ways. One is downloading, stalled by its slow reader. One is over for
/// the gateway: all of its bytes are acknowledged, and wait in the client for a reader that is slow, too.
#[test]
fn sigterm_drains_running_flows_and_refuses_new_ones() {
    if !rig::root_or_skip("sigterm_drains_running_flows_and_refuses_new_ones") {
        return;
    }
    // The client grants 8 MiB to each stream: more than the second body, less than the first.
    const STALLED_BYTES: u64 = 12 << 20;
    const ARRIVED_BYTES: u64 = 7 << 20;
    let place = Place::new();
    small_socket_buffers(&place, Ns::Client);
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let more = [&NATIVE_GATEWAY[..], &["--drain-timeout", "10m"]].concat();
    let mut gateway = place.gateway(GATEWAY_V4, &more);
    let client = place.client(GATEWAY_V4, &http.address().to_string(), &NATIVE_CLIENT);

    let mut talking = dial(&place, local(SOCKS_PORT));
    assert_eq!(socks(&mut talking, echo.address()), 0);
    let mut at = 0;
    echo_some(&mut talking, &mut at, 100_000);
    let stalled = request(&place, STALLED_BYTES);
    let arrived = request(&place, ARRIVED_BYTES);
    let stands_still = |status: &serde_json::Value| {
        let rates = &status["rates"];
        status["flows"] == 2 && rates["tx_packets_per_s"] == 0 && rates["rx_packets_per_s"] == 0
    };
    until("one flow is over for the gateway, two stand still", || gateway.status(), stands_still);
    assert_eq!(number(&client.status(), "flows"), 3);

    gateway.process.signal(Signal::TERM);
    let said = gateway.process.wait_for_line("draining: ", LIMIT);
    assert!(said.contains("2 flow(s) may finish within 600 s"), "{said}");
    client.process.wait_for_line("the gateway is draining", LIMIT);
    let status = gateway.status();
    assert_eq!((&status["draining"], &status["ready"]), (&true.into(), &false.into()), "{status:#}");

    let mut late = dial(&place, local(SOCKS_PORT));
    assert_ne!(socks(&mut late, echo.address()), 0, "a new flow is refused");
    let said = client.process.wait_for_line("refused 198.19.0.2", LIMIT);
    assert!(said.contains("503") && said.contains("draining"), "{said}");
    // A forward has only a reset to tell it, which may come before connect(2) has returned.
    let late = place.rig.within(Ns::Client, || TcpStream::connect_timeout(&local(FORWARD_PORT), LIMIT));
    let heard = late.and_then(|mut stream| stream.read(&mut [0; 1]));
    assert_eq!(heard.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    assert_eq!(number(&gateway.status()["counters"], "refused_draining"), 2);

    echo_some(&mut talking, &mut at, 100_000);
    hear_body(stalled, STALLED_BYTES);
    echo_some(&mut talking, &mut at, 100_000);
    talking.shutdown(Shutdown::Write).unwrap();
    assert_eq!(talking.read(&mut [0; 1]).unwrap(), 0, "and the talking flow ends in order");

    assert_eq!(gateway.process.wait(LIMIT).code(), Some(0));
    gateway.process.wait_for_line("0 flow(s) cut off", LIMIT);
    assert!(!place.rig.has_xdp(Ns::Gateway, "g0"), "an orderly end detaches");
    assert!(!gateway.control.exists(), "and removes the control socket");

    // The tunnel is gone, and what it had brought is not.
    client.process.wait_for_line("tunnel to 198.18.0.1 ended", LIMIT);
    hear_body(arrived, ARRIVED_BYTES);
    until("the client's flows are over", || client.status(), |status| status["flows"] == 0);
    let counters = client.status()["counters"].clone();
    assert_eq!((number(&counters, "flows_finished"), counters.get("flows_reset_by_stream")), (3, None));
}

/// Asks for a body through `-L`, and says no more.
fn request(place: &Place, body_bytes: u64) -> TcpStream {
    let mut stream = dial(place, local(FORWARD_PORT));
    write!(stream, "GET /{body_bytes} HTTP/1.1\r\n\r\n").expect("write a request");
    stream.shutdown(Shutdown::Write).expect("half-close");
    stream
}

fn hear_body(mut stream: TcpStream, body_bytes: u64) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the flow ends in order");
    let body = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!((all.len() - body) as u64, body_bytes);
    assert!(all[body..].iter().zip(0..).all(|(&byte, i)| byte == pattern(i)), "the body's bytes");
}

#[test]
fn a_second_sigterm_stops_at_once() {
    if !rig::root_or_skip("a_second_sigterm_stops_at_once") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0", "--drain-timeout", "10m"]);
    let client = place.client(GATEWAY_V4, &echo.address().to_string(), &["--xdp", "off"]);
    let mut flow = dial(&place, local(FORWARD_PORT));
    echo_some(&mut flow, &mut 0, 1000);
    gateway.process.signal(Signal::TERM);
    gateway.process.wait_for_line("draining: 1 flow(s)", LIMIT);
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.wait(LIMIT).code(), Some(0));
    gateway.process.wait_for_line("second signal", LIMIT);
    assert!(!place.rig.has_xdp(Ns::Gateway, "g0"));
    // The client is told, and tells the flow: a reset, not an end that would look like success.
    client.process.wait_for_line("tunnel to 198.18.0.1 ended: closed by the peer", LIMIT);
    let error = flow.read(&mut [0; 1]).expect_err("a cut flow is reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A drain that takes too long is cut off after `--drain-timeout`, and says what it cut.
#[test]
fn the_drain_timeout_is_kept() {
    if !rig::root_or_skip("the_drain_timeout_is_kept") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "off", "--drain-timeout", "100ms"]);
    let _client = place.client(GATEWAY_V4, &echo.address().to_string(), &["--xdp", "off"]);
    let mut flow = dial(&place, local(FORWARD_PORT));
    echo_some(&mut flow, &mut 0, 1000);
    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
    gateway.process.wait_for_line("1 flow(s) cut off", LIMIT);
}

#[test]
fn a_client_drains_too() {
    if !rig::root_or_skip("a_client_drains_too") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "off"]);
    let mut client = place.client(GATEWAY_V4, &echo.address().to_string(), &NATIVE_CLIENT);
    let mut flow = dial(&place, local(FORWARD_PORT));
    let mut at = 0;
    echo_some(&mut flow, &mut at, 1000);
    client.process.signal(Signal::TERM);
    client.process.wait_for_line("draining: 1 flow(s)", LIMIT);
    let late = place.rig.within(Ns::Client, || TcpStream::connect_timeout(&local(FORWARD_PORT), LIMIT));
    let refused = late.map_err(|error| error.kind()).map(drop);
    assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused), "a draining client no longer listens");
    echo_some(&mut flow, &mut at, 1000);
    flow.shutdown(Shutdown::Write).unwrap();
    assert_eq!(flow.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(client.process.wait(LIMIT).code(), Some(0));
    client.process.wait_for_line("0 flow(s) cut off", LIMIT);
    assert!(!place.rig.has_xdp(Ns::Client, "c0"));
    assert!(!client.control.exists());
    // The gateway was told, and does not wait for an idle timer.
    until("the connection is gone", || gateway.status(), |status| status["connections"] == 0);
}
