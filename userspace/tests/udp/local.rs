//! `-L .../udp`.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::echo::{UdpEcho, exchange, local_client, payload};
use crate::pair::{Place, until, words};
use crate::rig::{Beam, GATEWAY_V4, Ns, ORIGIN_V4, ORIGIN_V6, root_or_skip};
use crate::tools::{counter, dropped, dropped_in_all, until_counter};
use rustix::process::Signal;

const PORTS: [u16; 2] = [5_301, 5_302];

/// A client with one `-L .../udp` for each echo server.
fn client(place: &Place, echoes: &[&UdpEcho], more: &[&str]) -> Beam {
    let mut args = place.connect_args(GATEWAY_V4, &["--xdp", "native", "-i", "c0"]);
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    for (echo, port) in echoes.iter().zip(PORTS) {
        args.extend(["-L".into(), format!("{port}:{}/udp", echo.address())]);
    }
    Beam::start(&place.rig, Ns::Client, "client", &words(&args))
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

// RFC 9298 section 5: each HTTP datagram of context 0 is one UDP payload, of any length that there is.
#[test]
fn datagrams_of_all_sizes_travel_both_ways_in_both_families() {
    if !root_or_skip("datagrams_of_all_sizes_travel_both_ways_in_both_families") {
        return;
    }
    let place = Place::new();
    let echoes = [
        UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V4),
        UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V6),
    ];
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let client = client(&place, &[&echoes[0], &echoes[1]], &[]);
    let payloads: Vec<Vec<u8>> = (0..=1400).map(|n| payload(n, n as usize)).collect();
    let count = payloads.len() as u64;
    let bytes: usize = payloads.iter().map(Vec::len).sum();
    for (echo, port) in echoes.iter().zip(PORTS) {
        let local = local_client(&place.rig, at(port));
        exchange(&local, &payloads, 64);
        assert_eq!(echo.counts(), (count, bytes as u64));
    }
    for beam in [&gateway, &client] {
        let status = beam.status();
        for (name, want) in [
            ("udp_flows_opened", 2),
            ("udp_datagrams_to_sockets", 2 * count),
            ("udp_datagrams_from_sockets", 2 * count),
            ("udp_bytes_to_sockets", 2 * bytes as u64),
            ("udp_bytes_from_sockets", 2 * bytes as u64),
        ] {
            assert_eq!(counter(&status, name), want, "{name} of {status:#}");
        }
        assert_eq!((dropped_in_all(&status), &status["flows"]), (0, &2.into()), "{status:#}");
        assert_eq!(status["conservation"]["holds"], true, "{status:#}");
    }
}

// RFC 9298 section 3.1: "port unreachable" closes the request stream; the local sender hears what a kernel would say.
// A flow beside it runs on, and after a rest the same sender may try again.
#[test]
fn a_closed_port_at_the_far_end_is_refused_at_the_near_one() {
    if !root_or_skip("a_closed_port_at_the_far_end_is_refused_at_the_near_one") {
        return;
    }
    let place = Place::new();
    let echo = UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V4);
    let gone = UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V6);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let client = client(&place, &[&echo, &gone], &[]);
    let address = gone.address();
    drop(gone);
    let works = local_client(&place.rig, at(PORTS[0]));
    exchange(&works, &[payload(1, 100)], 1);
    let refused = local_client(&place.rig, at(PORTS[1]));
    refused.send(b"anybody there?").unwrap();
    assert_eq!(refused.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    exchange(&works, &[payload(2, 100)], 1);
    for (beam, icmp) in [(&gateway, 0), (&client, 1)] {
        let status = beam.status();
        let counts =
            ["udp_flows_opened", "udp_flows_unreachable", "udp_icmp_sent"].map(|name| counter(&status, name));
        assert_eq!((counts, dropped_in_all(&status)), ([2, 1, icmp], 0), "{status:#}");
    }
    let back = place.rig.within(Ns::Origin, || UdpSocket::bind(address)).unwrap();
    until(
        "the sender gets through",
        || {
            refused.send(b"again").unwrap();
            back.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            back.recv(&mut [0; 8]).ok()
        },
        |got| *got == Some(5),
    );
}

// Without a datagram for the idle timeout a flow ends at both ends, in order; the next datagram opens another one.
#[test]
fn a_silent_flow_ends_and_the_next_datagram_opens_another() {
    if !root_or_skip("a_silent_flow_ends_and_the_next_datagram_opens_another") {
        return;
    }
    let place = Place::new();
    let echo = UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V4);
    for (at_gateway, at_client) in [("500ms", "1h"), ("1h", "500ms")] {
        let flags = ["--xdp", "native", "-i", "g0", "--udp-idle-timeout", at_gateway];
        let gateway = place.gateway(GATEWAY_V4, &flags);
        let client = client(&place, &[&echo], &["--udp-idle-timeout", at_client]);
        let local = local_client(&place.rig, at(PORTS[0]));
        for flow in 1..=2 {
            exchange(&local, &[payload(flow, 100)], 1);
            for beam in [&gateway, &client] {
                let status = until("the flow is over", || beam.status(), |status| status["flows"] == 0);
                let ended = counter(&status, "udp_flows_idle") + counter(&status, "udp_flows_finished");
                assert_eq!((counter(&status, "udp_flows_opened"), ended), (flow, flow), "{status:#}");
            }
        }
        let (idle, finished) = if at_gateway == "500ms" { (&gateway, &client) } else { (&client, &gateway) };
        assert_eq!(counter(&idle.status(), "udp_flows_idle"), 2);
        assert_eq!(counter(&finished.status(), "udp_flows_finished"), 2);
    }
}

// The tunnel stands still, and a sender goes on: what waits is bounded, the oldest make room, and each that did is counted.
#[test]
fn a_full_queue_drops_its_oldest() {
    const SENT: u64 = 2_000;
    /// So few that no socket's buffer overflows: what is counted is beam's queue.
    const BATCH: usize = 60;
    const BYTES: usize = 1_200;
    /// A queue holds 256 datagrams, and no more than 256 KiB.
    const WAITING: usize = 256 * 1024 / (BYTES + 8);
    if !root_or_skip("a_full_queue_drops_its_oldest") {
        return;
    }
    let place = Place::new();
    let echo = UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V4);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let client = client(&place, &[&echo], &[]);
    let local = local_client(&place.rig, at(PORTS[0]));
    exchange(&local, &[payload(0, BYTES)], 1);

    gateway.process.signal(Signal::STOP);
    let payloads: Vec<Vec<u8>> = (1..=SENT).map(|n| payload(n, BYTES)).collect();
    let mut taken = 1;
    for batch in payloads.chunks(BATCH) {
        batch.iter().for_each(|payload| assert_eq!(local.send(payload).unwrap(), BYTES));
        taken += batch.len() as u64;
        until_counter(&client, "udp_datagrams_from_sockets", taken);
    }
    let status = client.status();
    let overflowed = dropped(&status, "datagram_queue_full");
    assert_eq!(dropped_in_all(&status), overflowed, "{status:#}");
    // All but those that wait, the megabyte in front of them, and what a window without an answer lets out.
    assert!((SENT / 4..SENT - WAITING as u64).contains(&overflowed), "{overflowed} of {SENT}");

    gateway.process.signal(Signal::CONT);
    let survivors = SENT - overflowed;
    until_counter(&gateway, "udp_datagrams_to_sockets", 1 + survivors);
    assert_eq!(echo.counts().0, 1 + survivors);
    // The way back may be the narrower one; the same holds there.
    let status = until_counter(&gateway, "udp_datagrams_from_sockets", 1 + survivors);
    let overflowed_back = dropped(&status, "datagram_queue_full");
    assert_eq!(dropped_in_all(&status), overflowed_back, "{status:#}");
    let mut buffer = [0; 2 * BYTES];
    let echoes: Vec<usize> = (0..survivors - overflowed_back)
        .map(|_| {
            let length = local.recv(&mut buffer).unwrap();
            payloads.iter().position(|payload| payload[..] == buffer[..length]).unwrap()
        })
        .collect();
    // First some of what had left before; then the newest, none missing, in order.
    let newest: Vec<usize> = (SENT as usize - WAITING..SENT as usize).collect();
    assert_eq!(echoes[echoes.len() - WAITING..], newest, "{echoes:?}");
    assert_eq!(dropped_in_all(&client.status()), overflowed);
}
