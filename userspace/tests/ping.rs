//! `beam ping` through real tunnels: what became of early data, answers, loss and path MTU are told as they are.
//!
//! Method: gateways on loopback, no privilege needed; a middlebox that loses so many datagrams, or leads the second
//! connection to a gateway that doesn't know the ticket. For the path MTU, the rig of namespaces.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use pair::{LIMIT, path};
use rig::{GATEWAY_V4, Ns, Proc, binary};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use tools::loopback::Place;
use tools::middle::{Fate, Middle};

/// `beam ping` of a gateway with the identity of the place's user.
fn ping(place: &Place, gateway: SocketAddr, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["ping", &format!("https://{gateway}"), "--xdp", "off", "--ca", &path(&place.pki.ca)]);
    if !more.contains(&"--token-file") {
        command.args(["--token-file", &path(&place.file("alice.token"))]);
    }
    command.args(more);
    command
}

/// The object of `-j`; panics unless it ends well.
fn measured(place: &Place, gateway: SocketAddr, more: &[&str]) -> Value {
    let out = ping(place, gateway, &[more, &["-j"]].concat()).output().unwrap();
    assert!(out.status.success(), "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    let object: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(object["schema"], "beam.ping.v1");
    object
}

#[test]
fn answers_and_accepted_early_data_are_counted_at_both_ends() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    let seen = measured(&place, place.address, &["-c", "5", "--interval", "20ms"]);
    assert_eq!((&seen["asked"], &seen["answered"]), (&5.into(), &5.into()), "{seen:#}");
    assert_eq!(seen["zero_rtt"], "accepted");
    assert_eq!((&seen["full"]["status"], &seen["resumed"]["status"]), (&204.into(), &204.into()));
    let rtt = |name: &str| seen["rtt_ms"][name].as_f64().unwrap();
    assert!(rtt("min") > 0.0 && rtt("min") <= rtt("p50") && rtt("p50") <= rtt("p95"), "{seen:#}");
    assert!(rtt("p95") <= rtt("max") && rtt("min") <= rtt("avg") && rtt("avg") <= rtt("max"), "{seen:#}");
    // Two greetings, one of them in early data, and five probes; none of them is a mishap.
    assert_eq!((gateway.count("requests"), gateway.count("early_connections")), (7, 1));
    assert_eq!((gateway.count("refused_not_found"), gateway.count("refused_unauthenticated")), (0, 0));
    gateway.stop();
}

// The second connection meets a gateway that has never seen the ticket; what it was asked in early data is asked again.
#[test]
fn refused_early_data_is_said() {
    let (place, other) = (Place::new(), Place::new());
    let gateway = place.gateway(&[]);
    // It is the same to whoever asks: its certificate, and its users.
    for (from, to) in [
        (&place.pki.server_cert, &other.pki.server_cert),
        (&place.pki.server_key, &other.pki.server_key),
        (&place.users, &other.users),
    ] {
        std::fs::copy(from, to).unwrap();
    }
    let stranger = other.gateway(&[]);
    let mut seen = HashSet::new();
    let judge = move |datagram: &[u8]| {
        if let Some(scid) = initial_scid(datagram) {
            seen.insert(scid.to_vec());
        }
        Fate::To(seen.len().saturating_sub(1).min(1))
    };
    let _middle = Middle::start(place.relay, &[place.address, other.address], judge);
    let seen = measured(&place, place.relay, &["-c", "2", "--interval", "20ms"]);
    assert_eq!((&seen["zero_rtt"], &seen["answered"]), (&"refused".into(), &2.into()), "{seen:#}");
    assert_eq!((stranger.count("requests"), stranger.count("early_connections")), (3, 0));
    gateway.stop();
    stranger.stop();
}

/// The source CID of a client's Initial packet (RFC 9000 section 17.2.2), which names the connection.
fn initial_scid(datagram: &[u8]) -> Option<&[u8]> {
    // Without a look at the fixed bit, which a client that has a token may clear (RFC 9287 section 3.1).
    let is_initial = datagram.first()? & 0xb0 == 0x80;
    let dcid_length = usize::from(*datagram.get(5)?);
    let scid_length = usize::from(*datagram.get(6 + dcid_length)?);
    let scid = datagram.get(7 + dcid_length..)?.get(..scid_length)?;
    is_initial.then_some(scid)
}

#[test]
fn a_gateway_that_permits_no_early_data_is_no_refusal() {
    let place = Place::new();
    let gateway = place.gateway(&["--0rtt", "off"]);
    let out = ping(&place, place.address, &["-c", "1"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("0-RTT: not offered by the gateway's ticket\n"), "{text}");
    assert_eq!(gateway.count("early_connections"), 0);
    gateway.stop();
}

#[test]
fn lost_packets_are_counted_exactly() {
    const LOST: u64 = 6;
    let place = Place::new();
    let gateway = place.gateway(&[]);
    let (mut short, mut lost) = (0_u64, 0);
    let judge = move |datagram: &[u8]| {
        // Packets of a connection that is up, no MTU probes among them, one in four: the last ones all arrive.
        let counts = datagram.first().is_some_and(|first| first & 0x80 == 0) && datagram.len() < 300;
        short += u64::from(counts);
        if counts && short >= 20 && short.is_multiple_of(4) && lost < LOST {
            lost += 1;
            return Fate::Lost;
        }
        Fate::To(0)
    };
    let middle = Middle::start(place.relay, &[place.address], judge);
    let seen = measured(&place, place.relay, &["-c", "60", "--interval", "20ms"]);
    assert_eq!(middle.lost_count(), LOST);
    assert_eq!(seen["path"]["lost_packets"], LOST, "{seen:#}");
    assert_eq!(seen["answered"], 60, "QUIC sends again what was lost");
    gateway.stop();
}

#[test]
fn an_identity_that_is_refused_and_a_gateway_that_is_gone_are_exit_code_1() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    std::fs::write(place.file("bad.token"), "no-such-token\n").unwrap();
    let bad = path(&place.file("bad.token"));
    let out = ping(&place, place.address, &["-c", "1", "--token-file", &bad]).output().unwrap();
    let complaint = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(complaint.contains("401") && complaint.contains("--token-file"), "{complaint}");
    // A gateway that goes while it is asked: what isn't answered is said, and the end is one.
    let mut running =
        Proc::spawn("ping", ping(&place, place.address, &["--interval", "50ms"]).stdout(Stdio::piped()));
    let mut lines = BufReader::new(running.stdout()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("answer 2: ")));
    gateway.stop();
    assert!(lines.any(|line| line.starts_with("no answer to ")));
    running.signal(Signal::INT);
    assert!(lines.any(|line| line.starts_with("rtt min/avg/p50/p95/max/mdev = ")));
    assert!(running.wait(LIMIT).success(), "some were answered");
    let mut nobody = Proc::spawn("ping", ping(&place, place.address, &[]).stdout(Stdio::piped()));
    nobody.signal(Signal::INT);
    assert!(!nobody.wait(LIMIT).success());
}

// Goal: the path MTU is that of the path: exact where the path carries all that we try, else within the step of QUIC's
// search (20 bytes) below it, and never above.
#[test]
fn the_path_mtu_is_that_of_the_path() {
    if !rig::root_or_skip("the_path_mtu_is_that_of_the_path") {
        return;
    }
    let place = pair::Place::new();
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "off"]);
    let measure = |way: &[&str]| {
        let mut args =
            place.connect_args(GATEWAY_V4, &[way, &["-c", "12", "--interval", "20ms", "-j"]].concat());
        args[0] = "ping".to_owned();
        let out = place.rig.command(Ns::Client, binary()).args(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let object: Value = serde_json::from_slice(&out.stdout).unwrap();
        object["path"]["mtu_bytes"].as_u64().unwrap()
    };
    assert_eq!(measure(&["--xdp", "off"]), 1452);
    // By AF_XDP it is the same, and nothing stays on the interface.
    assert_eq!(measure(&["--xdp", "native", "-i", "c0"]), 1452);
    assert!(!place.rig.has_xdp(Ns::Client, "c0"));
    for (ns, interface) in [(Ns::Client, "c0"), (Ns::Gateway, "g0")] {
        place.rig.ip(ns, &["link", "set", interface, "mtu", "1300"]);
    }
    // Without the headers of IPv4 and UDP.
    let fits = 1300 - 28;
    let found = measure(&["--xdp", "off"]);
    assert!((fits - 20..=fits).contains(&found), "{found} of {fits}");
    drop(gateway);
}
