//! Goal: a tunnel's inner packets go straight from and to a LAN, by AF_XDP, at one end or at both; the kernel there sees none
//! of them, and keeps all else on that interface.
//! Method: real namespaces with ping and iperf3 as users; the LAN hosts' kernels check every checksum, and leave their own
//! to be completed; counts at both daemons and in the kernels of their hosts.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use pair::{LIMIT, Place, number, path, until, words, workers};
use rig::{
    Beam, EchoServer, GATEWAY_INNER_V4, GATEWAY_INNER_V6, GATEWAY_V4, Ns, ORIGIN_V4, ORIGIN_V6, Proc,
    authority, must, output, root_or_skip,
};
use serde_json::Value;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
};
use tools::{counter, dropped};

const GATEWAY: &[&str] = &[
    "--xdp",
    "native",
    "-i",
    "g0",
    "--umem",
    "8",
    "--lan",
    "g1",
    "--ip-pool",
    "198.18.64.0/24",
    "--ip-pool",
    "2001:db8:64::/64",
    "--ip-route",
    "198.19.0.0/24",
    "--ip-route",
    "2001:db8:2::/64",
];
/// What the LAN hosts behind the gateway have to know: the pool, and the other site.
const FAR: [(&str, &str); 4] = [
    ("198.18.64.0/24", "198.19.0.1"),
    ("198.19.1.0/24", "198.19.0.1"),
    ("2001:db8:64::/64", "2001:db8:2::1"),
    ("2001:db8:3::/64", "2001:db8:2::1"),
];
/// The first that the pool lends.
const LENT: [&str; 2] = ["198.18.64.2", "2001:db8:64::2"];
const SITE: [&str; 2] = ["198.19.1.2", "2001:db8:3::2"];

/// The rig with a site behind the client:
/// `s0 198.19.1.2 ── c1 198.19.1.1 · c0 ── g0 · g1 198.19.0.1 ── o0 198.19.0.2`, and IPv6 alike.
struct World {
    place: Place,
    site: String,
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        let text = fs::read_to_string(&place.users).unwrap();
        let routes = "routes=198.19.1.0/24 routes=2001:db8:3::/64";
        fs::write(&place.users, format!("{} {routes}\n", text.trim_end())).unwrap();
        let world = Self { site: format!("{}-site", place.rig.netns(Ns::Client)), place };
        for (far, via) in FAR {
            world.place.rig.ip(Ns::Origin, &["route", "add", far, "via", via]);
        }
        let client = world.place.rig.netns(Ns::Client);
        must("ip", &["netns", "add", &world.site]);
        let queues = ["numrxqueues", "2", "numtxqueues", "2"];
        let ends =
            [&["link", "add", "c1", "netns", &client], &queues[..], &["type", "veth", "peer", "name", "s0"]];
        must("ip", &[&ends.concat()[..], &["netns", &world.site], &queues].concat());
        for (netns, link, addresses) in [
            (&client, "c1", ["198.19.1.1/24", "2001:db8:3::1/64"]),
            (&world.site, "s0", ["198.19.1.2/24", "2001:db8:3::2/64"]),
        ] {
            for offload in ["gso", "gro", "tso"] {
                must("ip", &["netns", "exec", netns, "ethtool", "-K", link, offload, "off"]);
            }
            must("ip", &["-n", netns, "address", "add", addresses[0], "dev", link]);
            must("ip", &["-n", netns, "address", "add", addresses[1], "dev", link, "nodad"]);
            must("ip", &["-n", netns, "link", "set", link, "up"]);
        }
        must("ip", &["-n", &world.site, "route", "add", "default", "via", "198.19.1.1"]);
        must("ip", &["-n", &world.site, "-6", "route", "add", "default", "via", "2001:db8:3::1"]);
        // The LAN hosts' kernels leave checksums to hardware that is none.
        for (netns, link) in [(world.site.clone(), "s0"), (world.place.rig.netns(Ns::Origin), "o0")] {
            must("ip", &["netns", "exec", &netns, "ethtool", "-K", link, "tx", "on"]);
        }
        world
    }

    fn gateway(&self) -> Beam {
        self.place.gateway(GATEWAY_V4, GATEWAY)
    }

    fn client(&self, more: &[&str]) -> Beam {
        let args = self.place.connect_args(GATEWAY_V4, more);
        let client = Beam::start(&self.place.rig, Ns::Client, "client", &words(&args));
        client.process.wait_for_line(" to 198.19.0.0/24, 2001:db8:2::/64", LIMIT);
        client
    }

    fn netns(&self, place: Host) -> String {
        match place {
            Host::Site => self.site.clone(),
            Host::Client => self.place.rig.netns(Ns::Client),
            Host::Gateway => self.place.rig.netns(Ns::Gateway),
            Host::Origin => self.place.rig.netns(Ns::Origin),
        }
    }

    /// What a program said, on either stream.
    fn run(&self, on: Host, program: &str, args: &[&str]) -> String {
        let netns = self.netns(on);
        let out = output("ip", &[&["netns", "exec", &netns, program], args].concat()).unwrap();
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    }

    fn ping(&self, from: Host, args: &[&str]) -> String {
        self.run(from, "ping", &[&["-n", "-i", "0.1", "-W", "5"], args].concat())
    }

    /// Three of three.
    fn must_ping(&self, from: Host, args: &[&str]) {
        let said = self.ping(from, &[&["-c", "3"], args].concat());
        assert!(said.contains("3 received, 0% packet loss"), "ping {args:?}: {said}");
    }

    fn iperf3_server(&self) -> Proc {
        let mut command = self.place.rig.command(Ns::Origin, "iperf3");
        let server = Proc::spawn("iperf3", command.args(["-s", "--forceflush"]).stdout(Stdio::piped()));
        let listening = |said: &String| said.contains(":5201 ");
        until("iperf3 listens", || self.run(Host::Origin, "ss", &["-ltn"]), listening);
        server
    }

    /// A second of iperf3 to the origin; its result.
    fn iperf3(&self, from: Host, args: &[&str]) -> Value {
        let said = self.run(from, "iperf3", &[&["-J", "-t", "1", "-c"], args].concat());
        let result: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{args:?}: {e}: {said}"));
        assert_eq!(result.get("error"), None, "iperf3 {args:?}: {result:#}");
        result["end"].clone()
    }

    /// One of the kernel's counters in a namespace.
    fn kernel(&self, on: Host, name: &str) -> u64 {
        let said = self.run(on, "nstat", &["-asz", name]);
        let line =
            said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {said}"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// ARP, neighbour discovery and whoever has business with the host itself: the kernel's, with XDP on the interface.
    fn the_host_is_still_there(&self, from: Host, hosts: [&str; 2]) {
        self.run(from, "ip", &["neigh", "flush", "all"]);
        hosts.iter().for_each(|host| self.must_ping(from, &[host]));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = output("ip", &["netns", "del", &self.site]);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Site,
    Client,
    Gateway,
    Origin,
}

/// Packets in both families and directions, TCP and UDP, from `from` to the origin and, where it has an address, back.
fn traffic(world: &World, from: Host, back: [&str; 2]) {
    for to in [ORIGIN_V4.to_string(), ORIGIN_V6.to_string()] {
        world.must_ping(from, &[&to]);
    }
    back.iter().for_each(|to| world.must_ping(Host::Origin, &[to]));
    let _server = world.iperf3_server();
    for to in [ORIGIN_V4.to_string(), ORIGIN_V6.to_string()] {
        for direction in [&[][..], &["-R"]] {
            let end = world.iperf3(from, &[&[to.as_str()], direction].concat());
            let bits_per_s = end["sum_received"]["bits_per_second"].as_f64().unwrap();
            println!("{from:?}, {to} {direction:?}: {:.2} Gbit/s", bits_per_s / 1e9);
            assert!(
                end["sum_received"]["bytes"].as_u64().unwrap() > 5_000_000,
                "{to} {direction:?}: {end:#}"
            );
        }
    }
    // Slow enough that nothing has to be dropped: 100 datagrams of 1,250 bytes in each direction, each arrives.
    for direction in [&[][..], &["-R"]] {
        let slow = ["-u", "-b", "1M", "-l", "1250"];
        let end = world.iperf3(from, &[&[ORIGIN_V4.to_string().as_str()], &slow[..], direction].concat());
        assert_eq!(end["sum"]["lost_packets"], 0, "{direction:?}: {end:#}");
        assert!(end["sum"]["packets"].as_u64().unwrap() >= 95, "{direction:?}: {end:#}");
    }
    for host in [Host::Site, Host::Origin, Host::Client] {
        for name in ["TcpInCsumErrors", "UdpInCsumErrors", "IcmpInCsumErrors", "Icmp6InCsumErrors"] {
            assert_eq!(world.kernel(host, name), 0, "{name} at {host:?}");
        }
    }
}

/// What holds after any traffic: frames add up, packets are accounted for, and the kernel had no part in it.
fn nothing_is_lost(world: &World, on: Host, beam: &Beam, lan: &str) {
    let status = beam.status();
    assert_eq!(status["conservation"]["holds"], true, "{status:#}");
    let censuses: Vec<&Value> = workers(&status)
        .flat_map(|worker| worker["frames"].as_array().unwrap())
        .filter(|census| census["interface"] == lan)
        .collect();
    assert_eq!(censuses.len(), 2, "a socket a queue: {status:#}");
    assert!(censuses.iter().all(|census| census["holds"] == true && census["out"] == 0), "{status:#}");

    let in_drops: u64 = dropped_like(&status, "lan_rx_");
    assert_eq!(
        counter(&status, "lan_rx_packets"),
        counter(&status, "lan_rx_delivered") + in_drops,
        "{status:#}"
    );
    let steering = &interface(&status, lan)["steering"];
    let lost = dropped(&status, "lan_xsk_rx_ring_full") + dropped(&status, "lan_xsk_rx_dropped");
    assert_eq!(number(steering, "lan_tunnel"), counter(&status, "lan_rx_packets") + lost, "{status:#}");
    assert_eq!(steering.get("lan_tunnel_no_socket"), None, "{status:#}");
    assert!(counter(&status, "lan_rx_checksum_partial") > 1000, "{status:#}");
    assert!(counter(&status, "lan_tx_packets") > 1000, "{status:#}");
    assert_eq!(status["counters"].get("tun_reads"), None, "no TUN: {status:#}");
    assert_eq!(world.run(on, "ip", &["-br", "link", "show", "type", "tun"]), "", "no TUN");
    // The kernel forwards nothing, and would not: forwarding is off.
    let forwarded = ["IpForwDatagrams", "Ip6OutForwDatagrams"].map(|name| world.kernel(on, name));
    assert_eq!(forwarded, [0, 0]);
    assert_eq!(number(&status, "kernel_udp_packets"), 0, "{status:#}");
}

fn interface<'a>(status: &'a Value, name: &str) -> &'a Value {
    let interfaces = status["interfaces"].as_array().unwrap();
    interfaces.iter().find(|interface| interface["name"] == name).unwrap_or_else(|| panic!("{status:#}"))
}

/// The sum of the drops whose names begin so.
fn dropped_like(status: &Value, prefix: &str) -> u64 {
    let drops = status["drops"].as_object().unwrap().iter();
    drops.filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count.as_u64().unwrap()).sum()
}

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

/// A LAN host that sends from an address of the pool, be it lent or not, or the gateway's own (RFC 2827).
fn nobody_on_the_lan_is_behind_the_tunnel(world: &World, gateway: &Beam) {
    let spoofed = || dropped(&gateway.status(), "ip_spoofed_source");
    assert_eq!(spoofed(), 0);
    for (source, to) in [("198.18.64.1", LENT[0]), ("198.18.64.9", LENT[0]), ("2001:db8:64::9", LENT[1])] {
        let length = if source.contains(':') { 128 } else { 32 };
        let address = format!("{source}/{length}");
        world.place.rig.ip(Ns::Origin, &["address", "add", &address, "dev", "lo"]);
        let before = spoofed();
        let said = world.ping(Host::Origin, &["-c", "2", "-W", "1", "-I", source, to]);
        assert!(said.contains("2 packets transmitted, 0 received"), "{said}");
        assert_eq!(spoofed() - before, 2, "{source}");
        world.place.rig.ip(Ns::Origin, &["address", "del", &address, "dev", "lo"]);
    }
}

/// A policy rule that comes while the gateway runs.
fn what_cant_be_addressed_is_said(world: &World, gateway: &Beam) {
    let alert = || interface(&gateway.status(), "g1")["alert"].as_str().unwrap_or_default().to_owned();
    assert_eq!(alert(), "");
    let rule = ["from", "198.18.9.9", "table", "7", "pref", "77"];
    world.place.rig.ip(Ns::Gateway, &[&["rule", "add"], &rule[..]].concat());
    let says = "packets to the LAN g1 are dropped";
    until("the alert", alert, |alert| alert.contains(says) && alert.ends_with("ip rule del pref 77."));
    gateway.process.wait_for_line(says, LIMIT);
    let said = world.ping(Host::Client, &["-c", "1", &ORIGIN_V4.to_string()]);
    assert!(said.contains("From 198.18.64.1 icmp_seq=1 Destination Host Unreachable"), "{said}");
    world.place.rig.ip(Ns::Gateway, &[&["rule", "del"], &rule[..]].concat());
    until("the alert to go", alert, String::is_empty);
    world.must_ping(Host::Client, &[&ORIGIN_V4.to_string()]);
}

/// Hop limits run out, packets are too big, hosts aren't there: the gateway says so to whoever is concerned.
fn the_gateway_routes(world: &World, gateway: &Beam) {
    let v4 = ORIGIN_V4.to_string();
    // The gateway takes a hop off what enters the tunnel, and only then (RFC 9484 section 7).
    let said = world.ping(Host::Origin, &["-c", "1", "-t", "1", LENT[0]]);
    assert!(said.contains("From 198.18.64.1 icmp_seq=1 Time to live exceeded"), "{said}");
    let said = world.ping(Host::Origin, &["-c", "1", "-t", "2", LENT[0]]);
    assert!(said.contains("1 received"), "{said}");

    let mtu = || {
        let said = world.run(Host::Client, "cat", &["/sys/class/net/beam0/mtu"]);
        said.trim().parse::<usize>().unwrap_or_else(|e| panic!("{said:?}: {e}"))
    };
    let mtu = until("path MTU discovery ends", mtu, |mtu| (1400..1452).contains(mtu));
    let fits = (mtu - 28).to_string();
    world.must_ping(Host::Client, &["-M", "do", "-s", &fits, &v4]);
    world.must_ping(Host::Origin, &["-M", "do", "-s", &fits, LENT[0]]);
    // The session settles on the MTU that was found: three seconds after its start.
    let too_big = |said: &String| said.contains(&format!("Frag needed and DF set (mtu = {mtu})"));
    let ask = || world.ping(Host::Origin, &["-c", "1", "-W", "1", "-M", "do", "-s", "1472", LENT[0]]);
    until("the gateway says that it is too big", ask, too_big);

    // Nobody on the LAN has the address: the client hears of it.
    let said = world.ping(Host::Client, &["-c", "1", "198.19.0.77"]);
    assert!(said.contains("From 198.18.64.1 icmp_seq=1 Destination Host Unreachable"), "{said}");
    // The gateway's host itself is none of the LAN's.
    let said = world.ping(Host::Client, &["-c", "1", &GATEWAY_INNER_V4.to_string()]);
    assert!(said.contains("From 198.18.64.1 icmp_seq=1 Packet filtered"), "{said}");
    let status = gateway.status();
    assert_eq!((dropped(&status, "lan_tx_no_neighbour"), dropped(&status, "lan_tx_not_there")), (1, 1));
    // A smaller LAN: what comes from the tunnel is too big for it.
    world.place.rig.ip(Ns::Gateway, &["link", "set", "g1", "mtu", "1300"]);
    let ask = || world.ping(Host::Client, &["-c", "1", "-W", "1", "-M", "do", "-s", &fits, &v4]);
    until("the gateway says that the LAN is small", ask, |said| {
        said.contains("(mtu = 1300)") || said.contains("mtu=1300")
    });
    assert!(dropped(&gateway.status(), "lan_tx_too_big") >= 1);
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

// The LAN has one queue, the gateway two workers, and the client's tunnel is the second's.
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
    let _server = world.iperf3_server();
    for direction in [&[][..], &["-R"]] {
        let end = world.iperf3(Host::Client, &[&[ORIGIN_V4.to_string().as_str()], direction].concat());
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
    refused(&["--lan", "g7"], 4, "--lan: no interface g7");
    refused(&["--lan", "g1", "--tun", "beam0"], 2, "cannot be used with");
    place.rig.ip(Ns::Gateway, &["rule", "add", "from", "198.18.9.9", "table", "7", "pref", "77"]);
    refused(
        &["--lan", "g1"],
        4,
        "policy rule 77 (see: ip rule). If nothing needs the rule: ip rule del pref 77.",
    );
}
