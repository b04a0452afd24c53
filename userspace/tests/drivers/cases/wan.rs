//! The wide area in one room: netem between the ends, and WireGuard as the comparator for what an IP tunnel does.

use crate::{
    Verdict,
    bench::{Bench, FILE_BYTES, Mode, Origin, needs},
    rig::{GATEWAY_V4, Ns, must, output},
    tools::counter,
};
use serde_json::{Value, json};
use std::process::Output;

/// What the path does, each way: 40 ms of round trip, with jitter enough to reorder, and a bottleneck of 50 Mbit/s.
const NETEM: &[&str] = &[
    "netem",
    "delay",
    "20ms",
    "2ms",
    "25%",
    "reorder",
    "5%",
    "loss",
    "0.3%",
    "duplicate",
    "0.5%",
    "rate",
    "50mbit",
    "limit",
    "1000",
];

/// A namespace between client and gateway. It takes over the client's NIC, so that netem's qdiscs see every packet: what
/// an AF_XDP socket sends bypasses those of its own interface. The client gets a veth instead.
///
/// ```text
///   client ns                 router ns                        gateway ns
///   c0 198.18.64.2  ──veth──  r0 198.18.64.1 · w0 198.18.0.2  ──NICs──  g0 198.18.0.1
/// ```
struct Router<'a> {
    bench: &'a Bench,
    name: String,
}

impl<'a> Router<'a> {
    fn build(bench: &'a Bench) -> Self {
        let client = bench.place.rig.netns(Ns::Client);
        let router = Self { bench, name: format!("{client}-router") };
        let name = router.name.as_str();
        must("ip", &["netns", "add", name]);
        must("ip", &["-n", &client, "link", "set", "c0", "down"]);
        must("ip", &["-n", &client, "link", "set", "c0", "netns", name, "name", "w0"]);
        let queues = ["numrxqueues", "2", "numtxqueues", "2"];
        let ends = ["link", "add", "c0", "netns", &client];
        let peer = ["type", "veth", "peer", "name", "r0", "netns", name];
        must("ip", &[&ends[..], &queues, &peer, &queues].concat());
        for (ns, device) in [(client.as_str(), "c0"), (name, "r0")] {
            let off = ["-K", device, "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
            let args = [&["netns", "exec", ns, "ethtool"][..], &off].concat();
            must("ip", &args);
        }
        for (ns, address, device) in [
            (client.as_str(), "198.18.64.2/24", "c0"),
            (name, "198.18.64.1/24", "r0"),
            (name, "198.18.0.2/24", "w0"),
        ] {
            must("ip", &["-n", ns, "address", "add", address, "dev", device]);
            must("ip", &["-n", ns, "link", "set", device, "up"]);
        }
        must("ip", &["-n", &client, "route", "add", "default", "via", "198.18.64.1"]);
        must("ip", &["netns", "exec", name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        bench.in_gateway("ip", &["route", "add", "198.18.64.0/24", "via", "198.18.0.2"]);
        let link = || text(&ip(&["-n", name, "-br", "link", "show", "dev", "w0"]));
        crate::pair::until("the link comes up", link, |link| link.contains("LOWER_UP"));
        router
    }

    fn tc(&self, args: &[&str]) -> Result<String, String> {
        let out = ip(&[&["netns", "exec", &self.name, "tc"][..], args].concat());
        if out.status.success() {
            Ok(text(&out))
        } else {
            Err(String::from_utf8_lossy(&out.stderr).trim().into())
        }
    }

    /// What netem counted on a device.
    fn statistics(&self, device: &str) -> Value {
        let all = self.tc(&["-s", "-j", "qdisc", "show", "dev", device]).expect("tc shows its qdiscs");
        let all: Value = serde_json::from_str(&all).expect("tc -j prints JSON");
        all[0].clone()
    }
}

impl Drop for Router<'_> {
    fn drop(&mut self) {
        let client = self.bench.place.rig.netns(Ns::Client);
        ip(&["-n", &client, "link", "del", "c0"]);
        ip(&["-n", &self.name, "link", "set", "w0", "down"]);
        ip(&["-n", &self.name, "link", "set", "w0", "netns", &client, "name", "c0"]);
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Output {
    output("ip", args).expect("run ip")
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

// The file over a path that delays, reorders, loses, duplicates and limits, both ways; AF_XDP on both ends.
pub(crate) fn wide_area(bench: &mut Bench) -> Verdict {
    let origin = Origin::start(bench, FILE_BYTES);
    let mut facts = Vec::new();
    {
        let router = Router::build(bench);
        for device in ["r0", "w0"] {
            let add = [&["qdisc", "add", "dev", device, "root"][..], NETEM].concat();
            needs(router.tc(&add), "netem")?;
        }
        let gateway = bench.gateway(GATEWAY_V4);
        // A veth has no zero-copy.
        let mode = if bench.mode == Mode::ZeroCopy { Mode::Copy } else { bench.mode };
        let client = bench.client_in(mode, GATEWAY_V4, &origin);
        bench.fetch(&origin);
        let statuses = bench.assert_conserved(&[&gateway, &client]);
        assert_eq!(
            (counter(&statuses[0], "connections_closed"), counter(&statuses[1], "reconnects")),
            (0, 0),
            "one connection, from the first byte to the last"
        );
        for device in ["r0", "w0"] {
            let netem = router.statistics(device);
            assert!(netem["packets"].as_u64() > Some(100), "{device} was passed by: {netem:#}");
            facts.push((
                format!("netem_{device}"),
                json!({ "packets": netem["packets"], "drops": netem["drops"] }),
            ));
        }
        let downward = router.statistics("r0");
        assert!(downward["drops"].as_u64() > Some(0), "no packet was lost on its way down: {downward:#}");
    }
    facts.push(("netem".into(), NETEM[1..].join(" ").into()));
    facts.into_iter().for_each(|(name, value)| bench.fact(&name, value));
    Ok(())
}

// What the kernel's WireGuard does between the same NICs: the yardstick for an IP tunnel of beam's.
pub(crate) fn wireguard(bench: &mut Bench) -> Verdict {
    let origin = Origin::start(bench, FILE_BYTES);
    let ends = [(Ns::Gateway, "198.18.100.1"), (Ns::Client, "198.18.100.2")];
    let mut keys = Vec::new();
    for (ns, _) in ends {
        needs(bench.try_in(ns, "ip", &["link", "add", "wg0", "type", "wireguard"]), "WireGuard")?;
        let private = needs(bench.try_in(ns, "wg", &["genkey"]), "wg")?.trim().to_owned();
        let file = bench.place.rig.directory().join(format!("wg-{}", ns.interface()));
        std::fs::write(&file, &private).expect("write a key");
        let file = crate::pair::path(&file);
        bench.must_in(ns, "wg", &["set", "wg0", "listen-port", "51820", "private-key", &file]);
        keys.push(bench.must_in(ns, "wg", &["show", "wg0", "public-key"]).trim().to_owned());
    }
    let peers = [
        (Ns::Gateway, &keys[1], "198.18.100.2/32", None),
        (Ns::Client, &keys[0], "198.18.100.1/32,198.19.0.0/24", Some("198.18.0.1:51820")),
    ];
    for ((ns, key, allowed, endpoint), (_, address)) in peers.into_iter().zip(ends) {
        let mut set = vec!["set", "wg0", "peer", key, "allowed-ips", allowed];
        set.extend(endpoint.iter().flat_map(|to| ["endpoint", *to]));
        bench.must_in(ns, "wg", &set);
        bench.must_in(ns, "ip", &["address", "add", &format!("{address}/24"), "dev", "wg0"]);
        bench.must_in(ns, "ip", &["link", "set", "wg0", "up"]);
    }
    bench.must_in(Ns::Client, "ip", &["route", "add", "198.19.0.0/24", "dev", "wg0"]);
    bench.in_gateway("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    bench.must_in(Ns::Origin, "ip", &["route", "add", "198.18.100.0/24", "via", "198.19.0.1"]);

    let fetched = bench.place.curl(&[&format!("http://{}/file", origin.address)]);
    assert_eq!(fetched, (origin.size_bytes, origin.sha256.clone()), "through WireGuard");
    bench.fact("mtu", bench.must_in(Ns::Client, "cat", &["/sys/class/net/wg0/mtu"]).trim().to_owned());
    let ping = |more: &[&str], to: &str| {
        let args = [&["-n", "-c", "1", "-W", "10"][..], more, &[to]].concat();
        let out = bench.place.rig.command(Ns::Client, "ping").args(args).output().expect("run ping");
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    const ORIGIN: &str = "198.19.0.2";
    // 1420 bytes less an IPv4 header and an ICMP header.
    let (fits, said) = ping(&["-M", "do", "-s", "1392"], ORIGIN);
    assert!(fits, "the largest unfragmented packet: {said}");
    let (fits, said) = ping(&["-M", "do", "-s", "1393"], ORIGIN);
    assert!(!fits && said.contains("too long"), "one byte more, don't fragment: {said}");
    let (answered, said) = ping(&["-M", "dont", "-s", "3000"], ORIGIN);
    assert!(answered, "inner fragments: {said}");
    let (answered, said) = ping(&["-t", "1"], ORIGIN);
    assert!(!answered && said.contains("198.18.100.1") && said.contains("exceeded"), "TTL 1: {said}");
    bench.must_in(Ns::Client, "ip", &["address", "add", "198.18.200.9/32", "dev", "wg0"]);
    let (answered, said) = ping(&["-I", "198.18.200.9"], ORIGIN);
    assert!(!answered, "a source that the peer was not given: {said}");
    bench.fact(
        "l3",
        json!({ "unfragmented_max": 1420, "inner_fragments": "carried", "ttl": "decremented, ICMP from the inner address",
                "foreign_source": "dropped" }),
    );
    Ok(())
}
