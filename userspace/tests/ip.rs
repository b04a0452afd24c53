//! Goal: IP packets travel through the tunnel as through a router: ping, TCP, UDP, path MTU discovery, hop limits; every
//! client has its own addresses and keeps them; what breaks the rules is refused, counted, and told.
//! Method: real namespaces with ping and iperf3 as the users; a CONNECT-IP client of aioquic as the one that cheats; exact
//! counts at both daemons.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use pair::{LIMIT, Place, TUNNEL_PORT, path, until, words};
use rig::{Beam, GATEWAY_V4, Ns, ORIGIN_V4, ORIGIN_V6, Rig, authority, python, root_or_skip};
use serde_json::Value;
use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
};
use tools::network::{iperf3, must_ping, ping, run};
use tools::{counter, dropped, until_counter};

const POOL: &[&str] = &["--ip-pool", "198.18.64.0/24", "--ip-pool", "2001:db8:64::/64"];
const ROUTES: &[&str] = &["--ip-route", "198.19.0.0/24", "--ip-route", "2001:db8:2::/64"];
const TUN: &[&str] =
    &["--xdp", "off", "--tun", "beam0", "--route", "198.19.0.0/24", "--route", "2001:db8:2::/64"];
/// The first that the pool lends.
const LENT_V4: &str = "198.18.64.2";
const LENT_V6: &str = "2001:db8:64::2";
const INNER_GATEWAY: &str = "198.18.64.1";

/// A place whose gateway forwards, and whose origin knows the way back. Several users: alice and bob, and site, who may
/// bring a network.
fn place() -> Place {
    let rig = Rig::new();
    let mut place = Place::on(rig);
    place.users = rig::write_users(
        place.rig.directory(),
        &[("alice", "a"), ("bob", "b"), ("site", "s"), ("late", "l")],
    );
    let text = fs::read_to_string(&place.users).unwrap();
    let lines = text.lines().map(|line| match line.starts_with("site") {
        true => format!("{line} routes=10.7.0.0/16\n"),
        false => format!("{line}\n"),
    });
    fs::write(&place.users, lines.collect::<String>()).unwrap();
    let script = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    assert!(place.rig.command(Ns::Gateway, "sh").args(["-c", script]).status().unwrap().success());
    place.rig.ip(Ns::Origin, &["route", "add", "198.18.64.0/24", "via", "198.19.0.1"]);
    place.rig.ip(Ns::Origin, &["route", "add", "10.7.0.0/16", "via", "198.19.0.1"]);
    place.rig.ip(Ns::Origin, &["-6", "route", "add", "2001:db8:64::/64", "via", "2001:db8:2::1"]);
    place
}

fn gateway(place: &Place, pool: &[&str]) -> Beam {
    place.gateway(GATEWAY_V4, &[&["--xdp", "off"], pool, ROUTES].concat())
}

/// A client of that name, whatever becomes of it.
fn client(place: &Place, name: &str, more: &[&str]) -> Beam {
    let url = format!("https://{}", authority(GATEWAY_V4, TUNNEL_PORT));
    let token = path(&place.rig.directory().join(format!("{name}.token")));
    let mut args = vec!["connect".into(), url, "--ca".into(), path(&place.pki.ca)];
    args.extend(["--token-file".into(), token]);
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    // Each device has a daemon, and each daemon a control socket of its own.
    let device = more.iter().skip_while(|&&arg| arg != "--tun").nth(1).expect("these clients have a device");
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let control = format!("{name}-{device}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    Beam::launch(&place.rig, Ns::Client, &control, &words(&args))
}

/// A client whose device has its addresses and routes.
fn client_with_routes(place: &Place, name: &str, more: &[&str]) -> Beam {
    let client = client(place, name, more);
    client.process.wait_for_line(" to 198.19.0.0/24", LIMIT);
    client
}

/// The MTU of a client's device, by the kernel's word.
fn mtu(place: &Place, device: &str) -> usize {
    let (_, said) = run(&place.rig.netns(Ns::Client), "cat", &[&format!("/sys/class/net/{device}/mtu")]);
    said.trim().parse().unwrap_or_else(|e| panic!("{said:?}: {e}"))
}

fn tun_counters(beam: &Beam) -> (u64, u64) {
    let status = beam.status();
    (counter(&status, "tun_write_packets"), counter(&status, "tun_writes"))
}

#[test]
fn packets_travel_as_through_a_router() {
    if !root_or_skip("packets_travel_as_through_a_router") {
        return;
    }
    let place = place();
    let gateway = gateway(&place, POOL);
    let client = client_with_routes(&place, "alice", TUN);
    let (v4, v6) = (ORIGIN_V4.to_string(), ORIGIN_V6.to_string());
    must_ping(&place.rig.netns(Ns::Client), &[&v4]);
    must_ping(&place.rig.netns(Ns::Client), &[&v6]);
    must_ping(&place.rig.netns(Ns::Origin), &[LENT_V4]);
    must_ping(&place.rig.netns(Ns::Origin), &[LENT_V6]);

    // TTL 1 is enough for the gateway's own address, and not for one behind it (RFC 9484 section 7).
    let said = ping(&place.rig.netns(Ns::Client), &["-c", "1", "-t", "1", &v4]);
    assert!(said.contains(&format!("From {INNER_GATEWAY} icmp_seq=1 Time to live exceeded")), "{said}");
    let said = ping(&place.rig.netns(Ns::Client), &["-c", "1", "-t", "1", &v6]);
    assert!(said.contains("icmp_seq=1 Time exceeded: Hop limit"), "{said}");
    let said = ping(&place.rig.netns(Ns::Client), &["-c", "1", "-t", "2", &v4]);
    assert!(said.contains("1 received"), "{said}");

    path_mtu(&place, &gateway);

    for (direction, receiver) in [(&[][..], &gateway), (&["-R"][..], &client)] {
        let before = tun_counters(receiver);
        let end = iperf3(&place.rig.netns(Ns::Client), &place.rig.netns(Ns::Origin), &v4, direction);
        assert!(end["sum_received"]["bytes"].as_u64().unwrap() > 10_000_000, "{end:#}");
        let after = tun_counters(receiver);
        let (packets, writes) = (after.0 - before.0, after.1 - before.1);
        assert!(
            writes * 2 < packets,
            "{direction:?}: {packets} packets were put together to {writes} writes"
        );
    }
    // Slow enough that nothing has to be dropped: 100 datagrams of 1250 bytes, each arrives.
    let end = iperf3(
        &place.rig.netns(Ns::Client),
        &place.rig.netns(Ns::Origin),
        &v4,
        &["-u", "-b", "1M", "-l", "1250"],
    );
    assert_eq!(end["sum"]["lost_packets"], 0, "{end:#}");
    assert!(end["sum"]["packets"].as_u64().unwrap() >= 95, "{end:#}");

    let status = gateway.status();
    for name in ["ip_spoofed_source", "ip_denied_destination", "ip_malformed", "ip_no_device"] {
        assert_eq!(dropped(&status, name), 0, "{name}: {status:#}");
    }
    // A packet from another address than the tunnel's stays at home.
    place.rig.ip(Ns::Client, &["address", "add", "203.0.113.7/32", "dev", "beam0"]);
    let said = ping(&place.rig.netns(Ns::Client), &["-c", "1", "-W", "1", "-I", "203.0.113.7", &v4]);
    assert!(said.contains(" 0 received") && dropped(&client.status(), "ip_other_source") >= 1);
}

/// The largest packet that fits goes, one byte more is told: to the client's kernel by its own device, to the origin by
/// the gateway.
fn path_mtu(place: &Place, gateway: &Beam) {
    let settled = |mtu: &usize| (1400..1452).contains(mtu);
    let mtu = until("path MTU discovery ends", || mtu(place, "beam0"), settled);
    let (fits, over) = ((mtu - 28).to_string(), (mtu - 27).to_string());
    let v4 = ORIGIN_V4.to_string();
    must_ping(&place.rig.netns(Ns::Client), &["-M", "do", "-s", &fits, &v4]);
    let said = ping(&place.rig.netns(Ns::Client), &["-c", "1", "-M", "do", "-s", &over, &v4]);
    assert!(said.contains(&format!("message too long, mtu={mtu}")), "{said}");
    must_ping(&place.rig.netns(Ns::Origin), &["-M", "do", "-s", &fits, LENT_V4]);
    // The session settles on the MTU that was found: three seconds after its start.
    let too_big = |said: &String| said.contains(&format!("Frag needed and DF set (mtu = {mtu})"));
    let ask =
        || ping(&place.rig.netns(Ns::Origin), &["-c", "1", "-W", "1", "-M", "do", "-s", "1472", LENT_V4]);
    until("the gateway says that it is too big", ask, too_big);
    let over = (mtu - 47).to_string();
    let said = ping(&place.rig.netns(Ns::Origin), &["-c", "1", "-W", "1", "-M", "do", "-s", &over, LENT_V6]);
    assert!(said.contains(&format!("Packet too big: mtu={mtu}")), "{said}");
    assert!(dropped(&gateway.status(), "ip_too_big") >= 2);
    // IPv4 that may be fragmented is.
    let before = counter(&gateway.status(), "ip_fragmented");
    place.rig.ip(Ns::Origin, &["route", "flush", "cache"]);
    must_ping(&place.rig.netns(Ns::Origin), &["-M", "dont", "-s", "1472", LENT_V4]);
    assert_eq!(counter(&gateway.status(), "ip_fragmented") - before, 3);
}

#[test]
fn addresses_are_kept_and_run_out() {
    if !root_or_skip("addresses_are_kept_and_run_out") {
        return;
    }
    let place = place();
    let pool = &["--ip-pool", "198.18.64.0/29"];
    let mut first_gateway = gateway(&place, pool);
    let alice = client_with_routes(&place, "alice", &TUN[..6]);
    let bob_tun = ["--xdp", "off", "--tun", "beam1"];
    let bob = client(&place, "bob", &bob_tun);
    bob.process.wait_for_line("beam1: 198.18.64.3 to 198.19.0.0/24", LIMIT);
    let origin = ORIGIN_V4.to_string();
    must_ping(&place.rig.netns(Ns::Client), &["-I", "beam0", &origin]);

    // A new gateway knows nobody; each client asks for what it had, whoever comes first.
    first_gateway.process.signal(rustix::process::Signal::KILL);
    first_gateway.process.wait(LIMIT);
    drop(first_gateway);
    let gateway = gateway(&place, pool);
    gateway.process.wait_for_line("alice: IP session with 198.18.64.2", LIMIT * 2);
    gateway.process.wait_for_line("bob: IP session with 198.18.64.3", LIMIT * 2);
    until_counter(&alice, "ip_sessions_opened", 2);
    must_ping(&place.rig.netns(Ns::Client), &["-I", "beam0", &origin]);

    // Three more fit. Then the pool says so: by 503 to somebody new, by an end that tells why to one whose older
    // sessions might have handed theirs over.
    let on = |name: &str, device: &str| client(&place, name, &["--xdp", "off", "--tun", device]);
    let _carriers: Vec<Beam> = (2..5)
        .map(|n| {
            let device = format!("beam{n}");
            let carrier = on("site", &device);
            carrier.process.wait_for_line(&format!("{device}: 198.18.64."), LIMIT);
            carrier
        })
        .collect();
    let newcomer = on("late", "beam5");
    newcomer.process.wait_for_line("the gateway refused an IP session: 503", LIMIT);
    let one_more = on("site", "beam6");
    one_more.process.wait_for_line("it has no address left", LIMIT);
    assert!(counter(&gateway.status(), "ip_pool_exhausted") >= 2);
    // Others run on.
    must_ping(&place.rig.netns(Ns::Client), &["-I", "beam0", &origin]);
    // A route that isn't advertised, and one that would swallow the tunnel itself.
    let mut looped = client(&place, "bob", &["--xdp", "off", "--tun", "beam9", "--route", "198.18.0.0/16"]);
    assert_eq!(looped.process.wait(LIMIT).code(), Some(3));
    assert!(looped.process.stderr().contains("contains the gateway's own address 198.18.0.1"));
    let mut taken = client(&place, "bob", &["--xdp", "off", "--tun", "beam0"]);
    assert_eq!(taken.process.wait(LIMIT).code(), Some(4));
    assert!(taken.process.stderr().contains("interface beam0 exists already"), "{}", taken.process.stderr());
}

/// Writes the users file anew, with these options behind the names, and has the gateway read it.
fn reload_with(place: &Place, gateway: &Beam, options: &[(&str, &str)]) {
    let text = fs::read_to_string(&place.users).unwrap();
    let lines = text.lines().map(|line| {
        let mut words = line.split(' ');
        let (name, hash) = (words.next().unwrap(), words.next().unwrap());
        let more = options.iter().find(|(of, _)| *of == name).map_or("", |(_, more)| more);
        format!("{name} {hash} {more}\n")
    });
    let lines: String = lines.collect();
    fs::write(&place.users, lines).unwrap();
    let before = gateway.process.stderr().matches(" reloaded: ").count();
    gateway.process.signal(rustix::process::Signal::HUP);
    until("the users are read", || gateway.process.stderr().matches(" reloaded: ").count(), |n| *n > before);
}

#[test]
fn a_users_allow_narrows_his_networks() {
    if !root_or_skip("a_users_allow_narrows_his_networks") {
        return;
    }
    let place = place();
    let gateway = gateway(&place, POOL);
    let origin = ORIGIN_V4.to_string();
    let here = place.rig.netns(Ns::Client);
    // Names and ports open nothing to IP packets.
    let options = [("alice", "allow=198.19.0.0/25 allow=10.0.0.0/8"), ("bob", "allow=198.19.0.0/24:443")];
    reload_with(&place, &gateway, &options);
    let bob = client(&place, "bob", &["--xdp", "off", "--tun", "beam1"]);
    bob.process.wait_for_line("the gateway refused an IP session: 403", LIMIT);
    bob.process.wait_for_line("not allowed for this client", LIMIT);
    // What is both routed and allowed is advertised, and nothing else.
    let alice = client(&place, "alice", &["--xdp", "off", "--tun", "beam0"]);
    alice.process.wait_for_line(&format!("beam0: {LENT_V4}, {LENT_V6} to 198.19.0.0/25"), LIMIT);
    must_ping(&here, &[&origin]);
    // A client that sends elsewhere all the same hears so from the gateway.
    let elsewhere = "198.19.0.200";
    place.rig.ip(Ns::Client, &["route", "add", elsewhere, "dev", "beam0"]);
    let said = ping(&here, &["-c", "2", elsewhere]);
    assert!(said.contains("Packet filtered") && said.contains(" 0 received"), "{said}");
    assert_eq!(dropped(&gateway.status(), "ip_denied_destination"), 2);

    // Wider, in the running session; and narrower again, past the origin.
    let sessions = || counter(&gateway.status(), "ip_sessions_opened");
    let opened = sessions();
    reload_with(&place, &gateway, &[("alice", "allow=198.19.0.0/24"), options[1]]);
    alice.process.wait_for_line(&format!("beam0: {LENT_V4}, {LENT_V6} to 198.19.0.0/24"), LIMIT);
    must_ping(&here, &[&origin]);
    reload_with(&place, &gateway, &[("alice", "allow=198.19.0.128/25"), options[1]]);
    alice.process.wait_for_line(&format!("beam0: {LENT_V4}, {LENT_V6} to 198.19.0.128/25"), LIMIT);
    place.rig.ip(Ns::Client, &["route", "add", &origin, "dev", "beam0"]);
    let said = ping(&here, &["-c", "1", &origin]);
    assert!(said.contains("Packet filtered"), "{said}");
    assert_eq!(dropped(&gateway.status(), "ip_denied_destination"), 3);
    assert_eq!(sessions(), opened, "the session has lived through all of it");

    // Nothing left: it ends, and asks in vain; bob, who may now, has his networks.
    reload_with(&place, &gateway, &[("alice", "allow=198.19.0.0/24:443"), ("bob", "")]);
    alice.process.wait_for_line("the gateway refused an IP session: 403", LIMIT);
    bob.process.wait_for_line("to 198.19.0.0/24, 2001:db8:2::/64", LIMIT * 2);
}

#[test]
fn networks_behind_clients_are_permitted_and_dont_overlap() {
    if !root_or_skip("networks_behind_clients_are_permitted_and_dont_overlap") {
        return;
    }
    let place = place();
    let gateway = gateway(&place, POOL);
    let more = ["--announce", "10.7.1.0/24", "--route", "203.0.113.0/24"];
    let site = client_with_routes(&place, "site", &[TUN, &more].concat());
    site.process.wait_for_line("--route 203.0.113.0/24 is not set: the gateway carries 198.19.0.0/24", LIMIT);
    gateway.process.wait_for_line("site brings the network 10.7.1.0/24", LIMIT);
    place.rig.ip(Ns::Client, &["address", "add", "10.7.1.9/32", "dev", "lo"]);
    must_ping(&place.rig.netns(Ns::Origin), &["10.7.1.9"]);

    // Overlapping: permitted to that client, but somebody's already.
    let tun = ["--xdp", "off", "--tun", "beam1", "--announce", "10.7.0.0/16"];
    let second = client(&place, "site", &tun);
    second.process.wait_for_line("a network of --announce isn't permitted", LIMIT);
    gateway.process.wait_for_line("10.7.0.0/16 overlaps 10.7.1.0/24, which is taken", LIMIT);
    drop(second);
    let bob = client(&place, "bob", &["--xdp", "off", "--tun", "beam2", "--announce", "10.8.0.0/16"]);
    bob.process.wait_for_line("a network of --announce isn't permitted", LIMIT);
    assert!(counter(&gateway.status(), "ip_routes_refused") >= 2);
    must_ping(&place.rig.netns(Ns::Origin), &["10.7.1.9"]);
}

#[test]
fn a_stranger_that_cheats() {
    if !root_or_skip("a_stranger_that_cheats") {
        return;
    }
    let python = python().expect("scripts/venv makes a Python with aioquic");
    let place = place();
    let gateway = gateway(&place, POOL);
    let _victim = client_with_routes(&place, "alice", TUN);
    let script = rig::checkout().join("userspace/tests/python/aioquic_ip.py");
    let mut command = place.rig.command(Ns::Client, &python);
    command.arg(script).args(["--host", &GATEWAY_V4.to_string(), "--port", &TUNNEL_PORT.to_string()]);
    command.args(["--ca", &path(&place.pki.ca)]);
    command.args(["--token-file", &path(&place.rig.directory().join("bob.token"))]);
    command.args(["--target", &ORIGIN_V4.to_string(), "--victim", LENT_V4, "--denied", "198.18.0.2"]);
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let seen: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(seen["status"], 200);
    assert_eq!(seen["address"], "198.18.64.3");
    // One address of each family, for no request; both routes for all protocols (RFC 9484 sections 4.7.1, 4.7.3).
    assert_eq!(seen["assigned"], "0004c6124003200006".to_owned() + "20010db8006400000000000000000003" + "80");
    let v6 = "06".to_owned() + "20010db8000200000000000000000000" + "20010db800020000ffffffffffffffff" + "00";
    assert_eq!(seen["routes"], "04c6130000c61300ff00".to_owned() + &v6);
    assert_eq!(seen["denied"], "030d", "administratively prohibited");
    assert_eq!(seen["expired_from"], INNER_GATEWAY);
    assert_eq!(seen["sequences"], serde_json::json!([1, 7]), "{seen:#}");
    assert_eq!(seen["reset"], 0x10b, "H3_REQUEST_REJECTED");
    let status = gateway.status();
    for (name, wanted) in [
        ("ip_spoofed_source", 1),
        ("ip_malformed", 2),
        ("ip_denied_destination", 1),
        ("datagram_unknown_context", 1),
        ("capsule_unknown", 1),
    ] {
        assert_eq!(dropped(&status, name), wanted, "{name}: {status:#}");
    }
    assert_eq!(counter(&status, "ip_routes_refused"), 1);
    must_ping(&place.rig.netns(Ns::Client), &["-I", "beam0", &ORIGIN_V4.to_string()]);
}
