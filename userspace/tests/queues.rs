//! Goal: a gateway follows its NIC: queues that come while it runs get a socket, on a worker that is there, and serve
//! tunnels from the first packet on; what can't be served is said aloud, and what the link does too.
//! Method: `ethtool -L` and `ip link` on the rig's veth under a running gateway, a transfer over a client whose packets
//! fall on the new queues, and the gateway's status and log.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use pair::{FORWARD_PORT, LIMIT, Place, number, settled, until, workers};
use rig::{Beam, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4};
use serde_json::{Value, json};

const QUEUES: usize = 2;

fn channels(place: &Place, ns: Ns, arguments: &[&str]) {
    let interface = ns.interface();
    let status = place.rig.command(ns, "ethtool").args(["-L", interface]).args(arguments).status().unwrap();
    assert!(status.success(), "ethtool -L {interface} {arguments:?}");
}

fn interface(status: &Value) -> &Value {
    &status["interfaces"][0]
}

/// The gateway has one receive queue, the client sends on one.
fn one_queue() -> Place {
    let place = Place::new();
    channels(&place, Ns::Client, &["tx", "1"]);
    channels(&place, Ns::Gateway, &["rx", "1"]);
    place
}

fn grow(place: &Place) {
    channels(place, Ns::Gateway, &["rx", "2"]);
    channels(place, Ns::Client, &["tx", "2"]);
}

fn log(beam: &Beam) -> String {
    beam.process.stderr()
}

#[test]
fn queues_that_come_get_a_socket() {
    if !rig::root_or_skip("queues_that_come_get_a_socket") {
        return;
    }
    let place = one_queue();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0", "--umem", "16"]);
    let before = gateway.status();
    let device = interface(&before);
    assert_eq!(
        (&device["link"], &device["mtu"], &device["driver"]),
        (&json!("up"), &json!(1500), &json!("veth"))
    );
    assert_eq!((number(device, "queues_now"), number(device, "queues_served")), (1, 1), "{before:#}");

    grow(&place);
    let served = |status: &Value| number(interface(status), "queues_served") == QUEUES as u64;
    let status = until("the new queue is served", || gateway.status(), served);
    assert_eq!((number(interface(&status), "queues_now"), &interface(&status)["alert"]), (2, &Value::Null));
    assert_eq!(workers(&status).count(), 1, "the worker that was there serves it: {status:#}");

    // Several clients, so that both queues are met.
    for _ in 0..8 {
        let mut client = place.client(GATEWAY_V4, &http.address().to_string(), &["--xdp", "off"]);
        place.curl(&[&format!("http://127.0.0.1:{FORWARD_PORT}/300000")]);
        // Stopped, not killed: of a killed one the gateway holds the flow until the idle timeout, if its last words are lost.
        assert_eq!(client.process.terminate(LIMIT).code(), Some(0));
    }
    let status = settled(&gateway);
    let worker = workers(&status).next().unwrap();
    assert_eq!(worker["queues"], json!([0, 1]));
    let sockets = worker["frames"].as_array().unwrap();
    assert_eq!(sockets.len(), QUEUES, "{worker:#}");
    for frames in sockets {
        assert_eq!((&frames["holds"], number(frames, "out")), (&Value::Bool(true), 0), "{worker:#}");
    }
    assert_eq!(status["conservation"]["holds"], true, "{status:#}");
    assert_eq!(interface(&status)["steering"].get("ours_no_socket"), None, "{status:#}");
    assert!(log(&gateway).contains("g0 queue 1: AF_XDP native-copy"), "{}", log(&gateway));
}

// There is no memory for the new socket's frames: its packets take the slow path, and an operator is told what to do.
// Method: RLIMIT_AS, by less than the UMEM above what the gateway has mapped.
#[test]
fn queues_that_cannot_be_served_raise_an_alert() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    const ROOM_BYTES: u64 = 8 << 20;
    if !rig::root_or_skip("queues_that_cannot_be_served_raise_an_alert") {
        return;
    }
    let place = one_queue();
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0", "--umem", "16"]);
    let limit = |current| {
        let pid = Pid::from_raw(gateway.process.pid() as i32);
        prlimit(pid, Resource::As, Rlimit { current, maximum: None }).unwrap();
    };
    limit(Some((tools::memory_kib(&gateway, "VmSize") << 10) + ROOM_BYTES));
    grow(&place);
    until("the log tells", || log(&gateway), |log| log.contains("g0: the new queues can't be served: "));
    limit(None);
    let status = gateway.status();
    let device = interface(&status);
    assert_eq!((number(device, "queues_now"), number(device, "queues_served")), (2, 1), "{status:#}");
    let alert = device["alert"].as_str().unwrap();
    assert!(alert.starts_with("g0 has 2 queues, 1 have a socket"), "{alert}");
    assert!(alert.ends_with("Restart beam to serve them, or: ethtool -L g0 rx 1"), "{alert}");
    assert_eq!(log(&gateway).matches("can't be served").count(), 1, "said once: {}", log(&gateway));

    // The advice works, and so does changing one's mind.
    channels(&place, Ns::Client, &["tx", "1"]);
    channels(&place, Ns::Gateway, &["rx", "1"]);
    let device = interface(&gateway.status()).clone();
    assert_eq!((number(&device, "queues_now"), &device["alert"]), (1, &Value::Null));
    grow(&place);
    let served = |status: &Value| number(interface(status), "queues_served") == QUEUES as u64;
    until("the queue is served at the second try", || gateway.status(), served);
}

#[test]
fn the_link_is_followed() {
    if !rig::root_or_skip("the_link_is_followed") {
        return;
    }
    let place = Place::new();
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0", "--umem", "16"]);
    let link_is = |link: &str| {
        until("the link's state", || gateway.status(), |status| interface(status)["link"] == link);
    };
    link_is("up");
    place.rig.ip(Ns::Client, &["link", "set", "c0", "down"]);
    link_is("no-carrier");
    place.rig.ip(Ns::Client, &["link", "set", "c0", "up"]);
    link_is("up");
    let log = log(&gateway);
    let (lost, back) = (log.find("g0: the link has no carrier"), log.find("g0: the link is up"));
    assert!(lost.is_some() && lost < back, "{log}");
}

#[test]
fn an_interface_that_is_removed_ends_the_gateway_by_name() {
    if !rig::root_or_skip("an_interface_that_is_removed_ends_the_gateway_by_name") {
        return;
    }
    let rows: [(&[&str], &str, &str); 3] = [
        (&["-i", "g0", "--umem", "16"], "g0", "the AF_XDP socket on g0 is gone for good"),
        (
            &["--xdp", "off", "--ip-pool", "198.18.64.0/24", "--ip-route", "198.19.0.0/24", "--tun", "beamg"],
            "beamg",
            "the TUN device beamg is gone",
        ),
        (
            &["-i", "g0", "--ip-pool", "198.18.64.0/24", "--ip-route", "198.19.0.0/24", "--lan", "g1"],
            "g1",
            "the AF_XDP socket on g1 is gone for good",
        ),
    ];
    for (flags, interface, says) in rows {
        let place = Place::new();
        let mut gateway = place.gateway(GATEWAY_V4, flags);
        place.rig.ip(Ns::Gateway, &["link", "del", interface]);
        assert_eq!(gateway.process.wait(LIMIT).code(), Some(1), "{interface}");
        let text = log(&gateway);
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("beam: ") && last.contains(says), "{interface}: {text}");
        assert!(
            last.contains("start beam again") || last.contains("Start beam again"),
            "{interface}: {last}"
        );
    }
}
