//! Goal: a tunnel's inner packets go straight from and to a LAN, by AF_XDP, at one end or at both; the kernel there sees none
//! of them, and keeps all else on that interface.
//! Method: real namespaces with ping and iperf3 as users; the LAN hosts' kernels check every checksum, and leave their own
//! to be completed; counts at both daemons and in the kernels of their hosts.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;
#[path = "../tools/mod.rs"]
mod tools;

mod routes;
mod world;

use pair::{LIMIT, Place, number, path, until, workers};
use rig::{
    EchoServer, GATEWAY_INNER_V4, GATEWAY_INNER_V6, GATEWAY_V4, Ns, ORIGIN_V4, ORIGIN_V6, authority,
    root_or_skip,
};
use routes::{nobody_on_the_lan_is_behind_the_tunnel, the_gateway_routes, what_cant_be_addressed_is_said};
use serde_json::Value;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};
use tools::{counter, dropped};
use world::{Host, LENT, SITE, World, dropped_like, interface, nothing_is_lost, traffic};

#[test]
fn a_gateway_s_lan_serves_a_client_with_a_tun_device() {
    if !root_or_skip("a_gateway_s_lan_serves_a_client_with_a_tun_device") {
        return;
    }
    let world = World::new();
    let gateway = world.gateway();
    let _client = world.client(&["--xdp", "native", "-i", "c0", "--umem", "8", "--tun", "beam0"]);
    traffic(&world, Host::Client, LENT);
    nothing_is_lost(&world, Host::Gateway, &gateway, "g1");

    // What has business with the gateway's host itself: ssh, for one.
    let (v4, v6) = (GATEWAY_INNER_V4.to_string(), GATEWAY_INNER_V6.to_string());
    world.the_host_is_still_there(Host::Origin, [&v4, &v6]);
    let echo = EchoServer::start(&world.place.rig, Ns::Gateway, GATEWAY_INNER_V4, 0);
    let mut stream = world.place.rig.within(Ns::Origin, || TcpStream::connect(echo.address()).unwrap());
    stream.write_all(b"to the host").unwrap();
    let mut bytes = [0; 11];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"to the host");
    let steering = interface(&gateway.status(), "g1")["steering"].clone();
    for name in ["lan_pass_not_ip", "lan_pass_not_tunnel", "lan_pass_other_mac"] {
        assert!(number(&steering, name) > 0, "{name}: {steering:#}");
    }

    nobody_on_the_lan_is_behind_the_tunnel(&world, &gateway);
    what_cant_be_addressed_is_said(&world, &gateway);
    the_gateway_routes(&world, &gateway);
}

// Site to site: no kernel socket at either end but those that reserve the ports, and no TUN device.
#[test]
fn two_sites_are_joined_without_the_kernel() {
    if !root_or_skip("two_sites_are_joined_without_the_kernel") {
        return;
    }
    let world = World::new();
    let gateway = world.gateway();
    let announce = ["--announce", "198.19.1.0/24", "--announce", "2001:db8:3::/64"];
    let native = ["--xdp", "native", "-i", "c0", "--umem", "8", "--lan", "c1"];
    let mut client = world.client(&[&native[..], &announce].concat());
    traffic(&world, Host::Site, SITE);
    nothing_is_lost(&world, Host::Gateway, &gateway, "g1");
    nothing_is_lost(&world, Host::Client, &client, "c1");
    world.the_host_is_still_there(Host::Site, ["198.19.1.1", "2001:db8:3::1"]);
    // Each end takes a hop off.
    let said = world.ping(Host::Site, &["-c", "1", "-t", "1", &ORIGIN_V4.to_string()]);
    assert!(said.contains(&format!("From {} icmp_seq=1 Time to live exceeded", LENT[0])), "{said}");

    // The client's end is gone, and with it its network: the gateway's LAN leaves its packets to the kernel.
    assert_eq!(client.process.terminate(LIMIT).code(), Some(0));
    let passed = || {
        world.ping(Host::Origin, &["-c", "1", "-W", "1", SITE[0]]);
        interface(&gateway.status(), "g1")["steering"]["lan_pass_not_tunnel"].as_u64().unwrap_or(0)
    };
    until("the other site's prefix is not steered any more", passed, |&passed| passed > 0);
}

// The LAN has one queue, the gateway two workers, and the client's tunnel is the second's. Until a second queue comes.
#[test]
fn a_worker_without_a_queue_of_the_lan_hands_its_packets_over() {
    if !root_or_skip("a_worker_without_a_queue_of_the_lan_hands_its_packets_over") {
        return;
    }
    let world = World::new();
    // A veth with XDP wants no fewer receive queues than the other end has to send.
    world.run(Host::Origin, "ethtool", &["-L", "o0", "tx", "1"]);
    world.run(Host::Gateway, "ethtool", &["-L", "g1", "rx", "1", "tx", "1"]);
    let gateway = world.gateway();
    let flags = ["--xdp", "native", "-i", "c0", "--queues", "1", "--umem", "8", "--tun", "beam0"];
    let _client = world.client(&flags);
    for to in [ORIGIN_V4.to_string(), ORIGIN_V6.to_string()] {
        world.must_ping(Host::Client, &[&to]);
    }
    LENT.iter().for_each(|to| world.must_ping(Host::Origin, &[to]));
    for direction in [&[][..], &["-R"]] {
        let end = world.iperf3(Host::Client, &ORIGIN_V4.to_string(), direction);
        assert!(end["sum_received"]["bytes"].as_u64().unwrap() > 5_000_000, "{direction:?}: {end:#}");
    }
    let status = gateway.status();
    let by_worker: Vec<u64> = workers(&status).map(|worker| number(worker, "connections")).collect();
    assert_eq!(by_worker, [0, 1], "{status:#}");
    let (inward, outward) = (counter(&status, "ip_handed_over"), counter(&status, "lan_handed_over"));
    assert!(inward > 1000 && outward > 1000, "{status:#}");
    let (full, sent) = (dropped(&status, "lan_hand_over_full"), counter(&status, "lan_tx_packets"));
    assert_eq!(counter(&status, "ip_packets_from_tunnel"), outward + full, "{status:#}");
    let refused = dropped_like(&status, "lan_tx_");
    // Errors that the gateway sent to the LAN aside, of which there is no cause.
    assert_eq!(outward, sent + refused, "{status:#}");

    // The LAN gets a second queue: it is the second worker's, and nothing is handed over any more.
    world.run(Host::Gateway, "ethtool", &["-L", "g1", "rx", "2", "tx", "2"]);
    world.run(Host::Origin, "ethtool", &["-L", "o0", "tx", "2"]);
    let served = |status: &Value| number(interface(status, "g1"), "queues_served") == 2;
    let before = until("the new queue is served", || gateway.status(), served);
    assert_eq!(interface(&before, "g1")["alert"], Value::Null);
    gateway.process.wait_for_line("g1 queue 1: AF_XDP native-copy", LIMIT);
    for to in [ORIGIN_V4.to_string(), ORIGIN_V6.to_string()] {
        world.must_ping(Host::Client, &[&to]);
    }
    LENT.iter().for_each(|to| world.must_ping(Host::Origin, &[to]));
    world.iperf3(Host::Client, &ORIGIN_V4.to_string(), &["-P", "4", "-R"]);
    let after = gateway.status();
    assert_eq!(counter(&after, "lan_handed_over"), counter(&before, "lan_handed_over"), "{after:#}");
    let second = workers(&after).nth(1).unwrap()["frames"].as_array().unwrap();
    let queue = second.iter().find(|census| census["interface"] == "g1");
    assert!(queue.is_some_and(|census| census["holds"] == true && census["out"] == 0), "{after:#}");
    assert_eq!(interface(&after, "g1")["steering"].get("lan_tunnel_no_socket"), None, "{after:#}");
}

#[test]
fn what_can_t_be_a_lan_is_refused() {
    if !root_or_skip("what_can_t_be_a_lan_is_refused") {
        return;
    }
    let place = Place::new();
    let pool = ["--ip-pool", "198.18.64.0/24"];
    let refused = |more: &[&str], code: i32, says: &str| {
        let mut args = place.certified_args(authority(GATEWAY_V4, 4433), &[&pool[..], more].concat());
        args.extend(["--control".into(), path(&place.rig.directory().join("refused.sock"))]);
        let out = place.rig.command(Ns::Gateway, rig::binary()).args(&args).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(code) && said.contains(says), "{more:?}: {}: {said}", out.status);
    };
    refused(&["--xdp", "off", "--lan", "g1"], 3, "--lan works by AF_XDP only");
    refused(&["-i", "g0", "--lan", "g0"], 3, "is the tunnel's own --interface");
    refused(&["--lan", "g7"], 4, "--lan: no interface g7; there are: lo, g0, g1. Choose");
    refused(&["--lan", "lo"], 4, "or use --tun, and let the kernel route");
    refused(&["--lan", "g1", "--tun", "beam0"], 2, "cannot be used with");
    place.rig.ip(Ns::Gateway, &["rule", "add", "from", "198.18.9.9", "table", "7", "pref", "77"]);
    refused(
        &["--lan", "g1"],
        4,
        "policy rule 77 (see: ip rule). If nothing needs the rule: ip rule del pref 77.",
    );
}
