//! A daemon that stops, is killed or falls silent cuts its flows off; it never ends them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::mpsc;
use std::time::Duration;

use crate::pair::{LIMIT, Place, TUNNEL_PORT, until};
use crate::rig::{self, CLIENT_V4, GATEWAY_V4, Ns};
use crate::script::{assert_flow_counters, scripted};
use crate::tools::{self, Tunnel, accept, counter, origin_listener, patient, read_some};

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
