//! Frames that no beam sends: malformed ones, fragments, foreign ones; each is counted under the name that it must have.

use crate::{
    Verdict,
    bench::Bench,
    craft, packet,
    pair::{TUNNEL_PORT, number, until},
    rig::{CLIENT_V4, GATEWAY_V4, Ns, must, output},
};
use serde_json::Value;
use std::{collections::BTreeMap, ffi::CStr, io::Write as _, net::UdpSocket};
use steer::{Counter, Verdict as Steering};

/// The shortest frame on a wire, without its checksum: a NIC pads what is shorter, which makes another frame of it.
const FRAME_BYTES_MIN: usize = 60;
/// The longest that a link with MTU 1500 takes.
const FRAME_BYTES_MAX: usize = 1514;
/// One byte away from the table's listeners lie 198.19.0.1 and 2001:db8:1::1, which the rig's gateway has too.
const OTHERS_OF_OURS: [&str; 2] = ["address byte 1 differs", "address byte 5 differs"];
/// Frames sent in one go: few enough for any ring.
const VOLLEY_COUNT: usize = 128;
/// Counters that the namespaces' own chatter (neighbour discovery, multicast reports) raises too.
const CHATTER: [Counter; 4] =
    [Counter::PassNotIp, Counter::PassNotUdp, Counter::PassIpv6Extension, Counter::PassOtherTarget];

// The crafted table of the steering program's own tests, sent by one NIC and judged behind the other.
pub(crate) fn crafted(bench: &mut Bench) -> Verdict {
    // The table's second listener.
    bench.in_gateway("ip", &["address", "add", "2001:db8::1/64", "dev", "g0", "nodad"]);
    // A NIC that filters VLANs would keep frames of unknown ones to itself.
    bench.in_gateway("ip", &["link", "set", "g0", "promisc", "on"]);
    // One that takes tags off the frames would make others of them.
    let strips = bench.try_in(Ns::Gateway, "ethtool", &["-K", "g0", "rx-vlan-offload", "off"]);
    bench.fact("rx_vlan_offload_off", strips.map_or_else(|why| why, |_| "set".into()));
    bench.wait_for_link(Ns::Gateway);
    let gateway = bench.place.gateway_on(":443".into(), &bench.mode.flags("g0"));
    bench.assert_mode(bench.mode, Ns::Gateway, &gateway);
    let mac = bench.in_gateway("cat", &["/sys/class/net/g0/address"]);
    let mac: Vec<u8> = mac.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
    let mut frames: Vec<(Counter, Vec<u8>)> = Vec::new();
    let fits = |case: &craft::Case| (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&case.frame.len());
    let is_another_of_ours = |case: &craft::Case| OTHERS_OF_OURS.iter().any(|name| case.name.ends_with(name));
    for case in craft::table().into_iter().filter(|case| fits(case) && !is_another_of_ours(case)) {
        let counter = match case.expected {
            Steering::Ours => Counter::Redirected,
            Steering::NotOurs(counter) | Steering::Malformed(counter) => counter,
        };
        let mut frame = case.frame;
        frame[..6].copy_from_slice(&mac);
        frames.push((counter, frame));
    }
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    frames.iter().for_each(|(counter, _)| *expected.entry(counter.name()).or_default() += 1);
    let injector = Injector::enter(bench);
    let mut socket = bench.place.rig.within(Ns::Client, || packet::socket(injector.interface()));
    let before = steering(&gateway.status());
    let mut sent = 0;
    for volley in frames.chunks(VOLLEY_COUNT) {
        for (_, frame) in volley {
            socket.write_all(frame).expect("send a frame");
        }
        sent += volley.len() as u64;
        // Until all are judged, or no more are: what a NIC keeps to itself shows below, by its name.
        let mut judged = [u64::MAX, 0];
        while judged[1] < sent && judged[0] != judged[1] {
            judged = [judged[1], total(&gateway.status()) - before.values().sum::<u64>()];
        }
    }
    let after = crate::pair::settled(&gateway);
    let counted = steering(&after);
    for counter in Counter::ALL {
        let name = counter.name();
        let now = counted.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0);
        let wanted = expected.get(name).copied().unwrap_or(0);
        if CHATTER.contains(counter) {
            assert!(now >= wanted, "{name}: {now}, {wanted} were sent: {counted:?}");
        } else {
            assert_eq!(now, wanted, "{name}: counted {counted:?}, sent {expected:?}; {}", nic_says(bench));
        }
    }
    bench.fact("frames", frames.len());
    bench.assert_conserved(&[&gateway]);
    Ok(())
}

/// What the receiving NIC counted above zero.
fn nic_says(bench: &Bench) -> String {
    let all = bench.try_in(Ns::Gateway, "ethtool", &["-S", "g0"]).unwrap_or_default();
    all.lines().map(str::trim).filter(|line| !line.ends_with(": 0")).collect::<Vec<_>>().join(", ")
}

/// The NIC that sends. QEMU's models of physical NICs won't send any frame: they parse what they send, keep what they can't
/// parse to themselves and mend the length of an IPv6 packet that has none (`net_tx_pkt_parse` and
/// `net_tx_pkt_fix_ip6_payload_len` in its hw/net). So a guest with such NICs has a virtio one on the same hub, which
/// sends everything.
struct Injector {
    /// Its name outside of the client's namespace.
    outside: Option<String>,
    netns: String,
}

impl Injector {
    fn enter(bench: &Bench) -> Self {
        let netns = bench.place.rig.netns(Ns::Client);
        let outside = std::env::var("BEAM_RIG_INJECTOR").ok();
        if let Some(name) = &outside {
            must("ip", &["link", "set", name, "netns", &netns, "name", "x0"]);
            bench.must_in(Ns::Client, "ip", &["link", "set", "x0", "up"]);
        }
        Self { outside, netns }
    }

    fn interface(&self) -> &'static CStr {
        if self.outside.is_some() { c"x0" } else { c"c0" }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        if let Some(name) = &self.outside {
            let _ =
                output("ip", &["-n", &self.netns, "link", "set", "x0", "down", "netns", "1", "name", name]);
        }
    }
}

fn steering(status: &Value) -> BTreeMap<String, u64> {
    let verdicts = status["interfaces"][0]["steering"].as_object().expect("steering counters");
    verdicts.iter().map(|(name, n)| (name.clone(), n.as_u64().expect("a count"))).collect()
}

fn total(status: &Value) -> u64 {
    steering(status).values().sum()
}

// A datagram longer than the link takes travels as fragments, which steering leaves to the kernel; the gateway's kernel
// socket gets the whole of it, and answers nothing.
pub(crate) fn fragments(bench: &mut Bench) -> Verdict {
    const COUNT: u64 = 20;
    let gateway = bench.gateway(GATEWAY_V4);
    let socket = bench.place.rig.within(Ns::Client, || UdpSocket::bind((CLIENT_V4, 0)).expect("bind"));
    let before = gateway.status();
    for _ in 0..COUNT {
        socket.send_to(&[0; 4000], (GATEWAY_V4, TUNNEL_PORT)).expect("send fragments");
    }
    let kernel_packets = |status: &Value| number(status, "kernel_udp_packets");
    let after = until(
        "the reassembled datagrams arrive",
        || gateway.status(),
        |status| kernel_packets(status) >= kernel_packets(&before) + COUNT,
    );
    assert_eq!(kernel_packets(&after), kernel_packets(&before) + COUNT, "{after:#}");
    assert_eq!(crate::tools::dropped(&after, "drop_cid_unknown"), COUNT, "each under its name: {after:#}");
    if bench.mode.hook().is_some() {
        // 4,008 bytes of IP payload at 1,480 a fragment.
        assert_eq!(steering(&after)["pass_fragment"], 3 * COUNT, "{after:#}");
        assert_eq!(number(&after, "xsk_rx_frames"), 0, "{after:#}");
    }
    bench.assert_conserved(&[&gateway]);
    Ok(())
}
