//! The library alone, without privileges: against the table, and against a slow oracle that shares no code with it.

use super::frames::{Case, OUR_MAC, PREFIXES, table};
use crate::craft::{Random, mutate::mutate, seed};
use std::net::IpAddr;
use steer::{
    lan::{Counter, TUNNEL, Verdict, verdict},
    maps::PrefixKey,
};

/// As a trie would: the value of the longest prefix that covers the key.
pub(super) fn lookup(key: &PrefixKey) -> Option<u32> {
    let prefixes = PREFIXES.map(|(address, length, value)| {
        (PrefixKey::of_prefix(address.parse::<IpAddr>().unwrap(), length), value)
    });
    let covers = |prefix: &PrefixKey| {
        (0..prefix.bits as usize)
            .all(|bit| (prefix.data[bit / 8] ^ key.data[bit / 8]) & (0x80 >> (bit % 8)) == 0)
    };
    let covering = prefixes.into_iter().filter(|(prefix, _)| covers(prefix));
    covering.max_by_key(|(prefix, _)| prefix.bits).map(|(_, value)| value)
}

pub(super) fn judge(frame: &[u8]) -> Verdict {
    verdict(frame, |mac| *mac == OUR_MAC, lookup)
}

/// What a router does with a frame, from the RFCs, with the standard library's own addresses.
fn oracle(frame: &[u8]) -> Verdict {
    let kernel = Verdict::Kernel;
    let mut at = 12;
    let field =
        |at: usize| frame.get(at..at + 2).map(|bytes| usize::from(bytes[0]) << 8 | usize::from(bytes[1]));
    let mut ethertype = match field(at) {
        Some(ethertype) => ethertype,
        None => return kernel(Counter::PassShort),
    };
    let mut tag_count = 0;
    while matches!(ethertype, 0x8100 | 0x88a8) {
        if tag_count == 2 {
            return kernel(Counter::PassVlanDepth);
        }
        (tag_count, at) = (tag_count + 1, at + 4);
        match field(at) {
            Some(next) => ethertype = next,
            None => return kernel(Counter::PassShort),
        }
    }
    let ip = at + 2;
    let packet = &frame[ip..];
    let (destination, header, total): (IpAddr, usize, usize) = match ethertype {
        0x0800 => {
            if packet.len() < 20 {
                return kernel(Counter::PassShort);
            }
            if packet[0] >> 4 != 4 || packet[0] & 15 < 5 {
                return kernel(Counter::PassIpHeader);
            }
            let destination: [u8; 4] = packet[16..20].try_into().unwrap();
            (destination.into(), usize::from(packet[0] & 15) * 4, field(ip + 2).unwrap())
        }
        0x86dd => {
            if packet.len() < 6 {
                return kernel(Counter::PassShort);
            }
            if packet[0] >> 4 != 6 {
                return kernel(Counter::PassIpHeader);
            }
            if packet.len() < 40 {
                return kernel(Counter::PassShort);
            }
            let destination: [u8; 16] = packet[24..40].try_into().unwrap();
            (destination.into(), 40, 40 + field(ip + 4).unwrap())
        }
        _ => return kernel(Counter::PassNotIp),
    };
    if frame[..6] != OUR_MAC {
        return kernel(Counter::PassOtherMac);
    }
    let stays = match destination {
        IpAddr::V4(v4) => {
            v4.is_multicast() || v4.is_loopback() || v4.is_link_local() || matches!(v4.octets()[0], 0 | 240..)
        }
        IpAddr::V6(v6) => {
            v6.is_multicast()
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some()
        }
    };
    if stays {
        return kernel(Counter::PassScope);
    }
    match lookup(&PrefixKey::of_prefix(destination, 128)) {
        None => kernel(Counter::PassNotTunnel),
        Some(TUNNEL) if total > packet.len() => Verdict::Malformed(Counter::DropIpLong),
        Some(TUNNEL) if total < header => Verdict::Malformed(Counter::DropIpShort),
        Some(TUNNEL) => Verdict::Tunnel,
        Some(_) => kernel(Counter::PassKernel),
    }
}

/// The start of a mutation, any crafted frame: most are the tunnel's.
pub(super) fn mutated(cases: &[Case], random: &mut Random) -> Vec<u8> {
    let mut frame = random.pick(cases).frame.clone();
    mutate(&mut frame, random);
    // Half of the damaged MAC addresses are mended, for little else is met behind them.
    if random.below(2) == 0
        && let Some(mac) = frame.get_mut(..6)
    {
        mac.copy_from_slice(&OUR_MAC);
    }
    frame
}

#[test]
fn every_crafted_frame_gets_its_verdict() {
    let cases = table();
    for case in &cases {
        assert_eq!(judge(&case.frame), case.expected, "{}: {:02x?}", case.name, case.frame);
        assert_eq!(oracle(&case.frame), case.expected, "the oracle, {}: {:02x?}", case.name, case.frame);
    }
    // Each reason is met, or the table has a hole. Tunnel and NoSocket are the program's to tell apart.
    for counter in Counter::ALL {
        let met = cases.iter().any(|case| match case.expected {
            Verdict::Tunnel => matches!(counter, Counter::Tunnel | Counter::NoSocket),
            Verdict::Kernel(reason) | Verdict::Malformed(reason) => reason == *counter,
        });
        assert!(met, "no case for {}", counter.name());
    }
}

/// A million damaged frames, and the oracle says the same of each.
#[test]
fn the_oracle_agrees_on_damaged_frames() {
    let (cases, mut random) = (table(), Random(seed()));
    let mut met = [0u64; 3];
    for round in 0..1_000_000 {
        let frame = mutated(&cases, &mut random);
        let (judged, expected) = (judge(&frame), oracle(&frame));
        assert_eq!(judged, expected, "round {round}: {frame:02x?}");
        met[match judged {
            Verdict::Tunnel => 0,
            Verdict::Kernel(_) => 1,
            Verdict::Malformed(_) => 2,
        }] += 1;
    }
    println!("{} tunnel, {} kernel, {} malformed", met[0], met[1], met[2]);
    assert!(met.iter().all(|&count| count > 10_000), "the mutations reach too little: {met:?}");
}

#[test]
fn prefixes_are_cut_to_their_length() {
    let key = |text: &str, length| PrefixKey::of_prefix(text.parse::<IpAddr>().unwrap(), length);
    assert_eq!(key("198.18.3.255", 22), key("198.18.0.0", 22));
    assert_eq!(key("198.18.3.255", 22).bits, 8 + 96 + 22);
    assert_ne!(key("198.18.3.255", 22), key("198.18.4.0", 22));
    assert_eq!(key("198.18.0.1", 200), key("198.18.0.1", 32), "a length that is too long");
    assert_eq!(key("2001:db8::ffff", 64), key("2001:db8::", 64));
    assert_eq!((key("::", 0).bits, key("0.0.0.0", 0).bits), (8, 8 + 96));
    assert_ne!(key("::", 0).data, key("0.0.0.0", 0).data);
    assert_ne!(key("::ffff:198.18.0.1", 128).data, key("198.18.0.1", 32).data);
}

#[test]
fn counters_have_distinct_names_in_index_order() {
    for (index, counter) in Counter::ALL.iter().enumerate() {
        assert_eq!(counter.index() as usize, index);
        assert_eq!(Counter::NAMES[index], counter.name());
        let tunnel_s = steer::Counter::NAMES.iter().chain(Counter::NAMES);
        assert_eq!(tunnel_s.filter(|name| **name == counter.name()).count(), 1);
    }
    assert_eq!(Counter::COUNT as usize, Counter::NAMES.len());
}
