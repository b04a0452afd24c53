//! The program that the kernel runs, held against the library: actions, counters, the longest prefix, the MAC address.
//! Needs root; see `kernel`.

use super::{
    frames::{OUR_MAC, PREFIXES, table, to},
    host::{judge, mutated},
};
use crate::{
    craft::{Random, seed},
    kernel::{
        FRAME_BYTES_MIN, Loaded, XDP_DROP, XDP_PASS, XDP_REDIRECT, load_without_perfmon, shape, skipped,
    },
};
use aya::maps::{
    Array, MapData,
    lpm_trie::{Key, LpmTrie},
};
use std::net::IpAddr;
use steer::{
    lan::{Counter, PROGRAM, TUNNEL, Verdict},
    maps::{self, PREFIX_DATA_BYTES, PrefixKey},
};

struct Rig(Loaded);

fn load() -> Loaded {
    Loaded::new(PROGRAM, maps::LAN_COUNTERS, Counter::COUNT)
}

impl Rig {
    fn new(with_socket: bool) -> Self {
        let mut rig = Self(load());
        if with_socket {
            rig.0.put_socket();
        }
        rig.set_mac(OUR_MAC);
        for (address, length, value) in PREFIXES {
            rig.set_prefix(address, length, Some(value));
        }
        rig
    }

    fn set_mac(&mut self, [a, b, c, d, e, f]: [u8; 6]) {
        let mut map: Array<&mut MapData, [u8; 8]> =
            Array::try_from(self.0.ebpf.map_mut(maps::LAN_MAC).unwrap()).unwrap();
        map.set(0, [a, b, c, d, e, f, 0, 0], 0).unwrap();
    }

    fn set_prefix(&mut self, address: &str, length: u8, value: Option<u32>) {
        let mut map: LpmTrie<&mut MapData, [u8; PREFIX_DATA_BYTES], u32> =
            LpmTrie::try_from(self.0.ebpf.map_mut(maps::PREFIXES).unwrap()).unwrap();
        let PrefixKey { bits, data } = PrefixKey::of_prefix(address.parse::<IpAddr>().unwrap(), length);
        match value {
            Some(value) => map.insert(&Key::new(bits, data), value, 0).unwrap(),
            None => map.remove(&Key::new(bits, data)).unwrap(),
        }
    }

    fn answer(&self, verdict: Verdict) -> (u32, Counter) {
        match verdict {
            Verdict::Tunnel if self.0.has_socket() => (XDP_REDIRECT, Counter::Tunnel),
            Verdict::Tunnel => (XDP_PASS, Counter::NoSocket),
            Verdict::Kernel(counter) => (XDP_PASS, counter),
            Verdict::Malformed(counter) => (XDP_DROP, counter),
        }
    }

    /// The action, and plus one at exactly the right counter.
    fn expect(&self, frame: &[u8], verdict: Verdict, name: &str) {
        let (action, counter) = self.answer(verdict);
        let mut expected = self.0.counts();
        expected[counter.index() as usize] += 1;
        assert_eq!(self.0.run(frame), action, "{name}: {frame:02x?}");
        assert_eq!(self.0.counts(), expected, "{name}: {frame:02x?}");
    }
}

#[test]
fn crafted_frames_of_a_lan() {
    if skipped("crafted_frames_of_a_lan") {
        return;
    }
    for with_socket in [false, true] {
        let rig = Rig::new(with_socket);
        for case in table().iter().filter(|case| case.frame.len() >= FRAME_BYTES_MIN) {
            rig.expect(&case.frame, case.expected, &case.name);
        }
        let never = if with_socket { Counter::NoSocket } else { Counter::Tunnel };
        assert_eq!(rig.0.count(never.index()), 0);
    }
}

#[test]
fn damaged_frames_of_a_lan_get_the_library_s_verdict() {
    if skipped("damaged_frames_of_a_lan_get_the_library_s_verdict") {
        return;
    }
    let (rig, cases, mut random) = (Rig::new(true), table(), Random(seed()));
    let mut expected = rig.0.counts();
    let mut run_count = 0;
    while run_count < 200_000 {
        let frame = mutated(&cases, &mut random);
        if frame.len() < FRAME_BYTES_MIN {
            continue;
        }
        let (action, counter) = rig.answer(judge(&frame));
        expected[counter.index() as usize] += 1;
        assert_eq!(rig.0.run(&frame), action, "run {run_count}: {counter:?}: {frame:02x?}");
        run_count += 1;
    }
    assert_eq!(rig.0.counts(), expected);
    assert_eq!(expected.iter().sum::<u64>(), run_count, "every frame is counted once");
}

/// Routes come and go while the program runs, and so may the interface's MAC address.
#[test]
fn prefixes_and_the_mac_address_can_change_at_run_time() {
    if skipped("prefixes_and_the_mac_address_can_change_at_run_time") {
        return;
    }
    let mut rig = Rig::new(true);
    for (address, prefix, length) in [("198.18.0.1", "198.18.0.0", 24), ("2001:db8::1", "2001:db8::", 64)] {
        let frame = to(&[], address.parse().unwrap(), 8);
        rig.expect(&frame, Verdict::Tunnel, address);
        rig.set_prefix(prefix, length, None);
        rig.expect(&frame, Verdict::Kernel(Counter::PassNotTunnel), address);
        rig.set_prefix(prefix, length, Some(TUNNEL));
        rig.expect(&frame, Verdict::Tunnel, address);
        rig.set_mac([2, 0, 0, 0, 0, 7]);
        rig.expect(&frame, Verdict::Kernel(Counter::PassOtherMac), address);
        rig.set_mac(OUR_MAC);
    }
    // The default routes.
    rig.set_prefix("0.0.0.0", 0, Some(TUNNEL));
    rig.set_prefix("::", 0, Some(TUNNEL));
    for address in ["203.0.113.7", "2001:db8:ffff::1"] {
        rig.expect(&to(&[], address.parse().unwrap(), 8), Verdict::Tunnel, address);
    }
}

#[test]
fn the_verifier_accepts_the_lan_s_program_without_cap_perfmon() {
    if skipped("the_verifier_accepts_the_lan_s_program_without_cap_perfmon") {
        return;
    }
    load_without_perfmon(load);
}

#[test]
fn the_lan_s_maps_are_laid_out_as_the_library_says() {
    if skipped("the_lan_s_maps_are_laid_out_as_the_library_says") {
        return;
    }
    let ebpf = load().ebpf;
    let key_bytes = 4 + PREFIX_DATA_BYTES as u32;
    assert_eq!(shape(&ebpf, maps::PREFIXES), (key_bytes, 4, maps::PREFIX_COUNT_MAX));
    assert_eq!(shape(&ebpf, maps::LAN_MAC), (4, 8, 1));
    assert_eq!(shape(&ebpf, maps::LAN_COUNTERS), (4, 8, Counter::COUNT));
}

/// Not a check: the time of a verdict, printed for whoever changes the program.
#[test]
fn a_verdict_about_the_lan_takes_this_long() {
    if skipped("a_verdict_about_the_lan_takes_this_long") {
        return;
    }
    let rig = Rig::new(true);
    for (name, address) in [("IPv4", "198.18.0.1"), ("IPv6", "2001:db8::1"), ("not ours", "203.0.113.7")] {
        println!("{:?} {name}", rig.0.time(&to(&[], address.parse().unwrap(), 1200)));
    }
}
