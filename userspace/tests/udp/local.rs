//! `-L .../udp`.

use std::net::{Ipv4Addr, SocketAddr};

use crate::echo::{UdpEcho, exchange, local_client, payload};
use crate::pair::{Place, words};
use crate::rig::{Beam, GATEWAY_V4, Ns, ORIGIN_V4, ORIGIN_V6, root_or_skip};
use crate::tools::{counter, dropped_in_all};

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
