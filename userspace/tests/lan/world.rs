//! Two LANs, a tunnel between them, and what holds of any traffic.

use crate::pair::{LIMIT, Place, number, words, workers};
use crate::rig::{Beam, CLIENT_V4, GATEWAY_V4, Ns, ORIGIN_V4, ORIGIN_V6, must, output};
use crate::tools::{counter, dropped, network};
use serde_json::Value;
use std::fs;

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
pub(crate) const LENT: [&str; 2] = ["198.18.64.2", "2001:db8:64::2"];
pub(crate) const SITE: [&str; 2] = ["198.19.1.2", "2001:db8:3::2"];

/// The rig with a site behind the client:
/// `s0 198.19.1.2 ── c1 198.19.1.1 · c0 ── g0 · g1 198.19.0.1 ── o0 198.19.0.2`, and IPv6 alike.
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) site: String,
}

impl World {
    pub(crate) fn new() -> Self {
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

    /// It knows its neighbour from the start, as the client does then: a first packet that is faster than the kernel's news
    /// of a new neighbour takes the kernel's path, and these tests count none there.
    pub(crate) fn gateway(&self) -> Beam {
        self.must_ping(Host::Gateway, &[&CLIENT_V4.to_string()]);
        self.place.gateway(GATEWAY_V4, GATEWAY)
    }

    pub(crate) fn client(&self, more: &[&str]) -> Beam {
        let args = self.place.connect_args(GATEWAY_V4, more);
        let client = Beam::start(&self.place.rig, Ns::Client, "client", &words(&args));
        client.process.wait_for_line(" to 198.19.0.0/24, 2001:db8:2::/64", LIMIT);
        client
    }

    pub(crate) fn netns(&self, place: Host) -> String {
        match place {
            Host::Site => self.site.clone(),
            Host::Client => self.place.rig.netns(Ns::Client),
            Host::Gateway => self.place.rig.netns(Ns::Gateway),
            Host::Origin => self.place.rig.netns(Ns::Origin),
        }
    }

    /// What a program said, on either stream.
    pub(crate) fn run(&self, on: Host, program: &str, args: &[&str]) -> String {
        network::run(&self.netns(on), program, args).1
    }

    pub(crate) fn ping(&self, from: Host, args: &[&str]) -> String {
        network::ping(&self.netns(from), args)
    }

    pub(crate) fn must_ping(&self, from: Host, args: &[&str]) {
        network::must_ping(&self.netns(from), args);
    }

    /// To the origin.
    pub(crate) fn iperf3(&self, from: Host, to: &str, args: &[&str]) -> Value {
        network::iperf3(&self.netns(from), &self.netns(Host::Origin), to, args)
    }

    /// One of the kernel's counters in a namespace.
    pub(crate) fn kernel(&self, on: Host, name: &str) -> u64 {
        let said = self.run(on, "nstat", &["-asz", name]);
        let line =
            said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {said}"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// ARP, neighbour discovery and whoever has business with the host itself: the kernel's, with XDP on the interface.
    pub(crate) fn the_host_is_still_there(&self, from: Host, hosts: [&str; 2]) {
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
pub(crate) enum Host {
    Site,
    Client,
    Gateway,
    Origin,
}

/// Packets in both families and directions, TCP and UDP, from `from` to the origin and, where it has an address, back.
pub(crate) fn traffic(world: &World, from: Host, back: [&str; 2]) {
    for to in [ORIGIN_V4.to_string(), ORIGIN_V6.to_string()] {
        world.must_ping(from, &[&to]);
    }
    back.iter().for_each(|to| world.must_ping(Host::Origin, &[to]));
    for to in [ORIGIN_V4.to_string(), ORIGIN_V6.to_string()] {
        for direction in [&[][..], &["-R"]] {
            let end = world.iperf3(from, &to, direction);
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
        let end = world.iperf3(from, &ORIGIN_V4.to_string(), &[&slow[..], direction].concat());
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
pub(crate) fn nothing_is_lost(world: &World, on: Host, beam: &Beam, lan: &str) {
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

pub(crate) fn interface<'a>(status: &'a Value, name: &str) -> &'a Value {
    let interfaces = status["interfaces"].as_array().unwrap();
    interfaces.iter().find(|interface| interface["name"] == name).unwrap_or_else(|| panic!("{status:#}"))
}

/// The sum of the drops whose names begin so.
pub(crate) fn dropped_like(status: &Value, prefix: &str) -> u64 {
    let drops = status["drops"].as_object().unwrap().iter();
    drops.filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count.as_u64().unwrap()).sum()
}
