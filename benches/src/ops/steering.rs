//! `steering_parse`: the verdict of the XDP program about frames of each kind, by the library that the program is made of,
//! on the host. In the kernel a look-up in the map of targets comes on top; here it is a comparison.

use super::Op;
use std::hint::black_box;
use std::net::SocketAddr;
use steer::{Counter, TargetKey, Verdict, verdict};
use wire::{
    Path,
    encap::{HEADER_BYTES_MAX, Link, Template},
    headers::{ETHERNET_BYTES, VLAN_BYTES},
};

const FRAMES: u64 = 64;
const PAYLOAD_BYTES: usize = 1200;
const IP: usize = ETHERNET_BYTES;

pub(super) fn ops() -> Vec<Op> {
    kinds().into_iter().map(|(name, frame, expected)| op(name, frame, expected)).collect()
}

fn op(name: &str, frame: Vec<u8>, expected: Verdict) -> Op {
    Op::simple(format!("steering_parse/{name}"), "frame", FRAMES, move || {
        let (frame, targets) = (frame.clone(), targets());
        let judge = move |frame: &[u8]| verdict(frame, |key| targets.contains(key));
        assert_eq!(judge(&frame), expected, "{frame:02x?}");
        move || {
            for _ in 0..FRAMES {
                black_box(judge(black_box(&frame)));
            }
        }
    })
}

fn listeners() -> [SocketAddr; 2] {
    [([198, 18, 0, 1], 443).into(), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 443).into()]
}

fn targets() -> [TargetKey; 2] {
    listeners().map(|listener| TargetKey::from_socket_addr(&listener))
}

/// A datagram to the listener of this family.
fn ours(family: usize) -> Vec<u8> {
    let client: SocketAddr = match family {
        4 => ([198, 18, 0, 2], 50_000).into(),
        _ => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2], 50_000).into(),
    };
    let path = Path { local: client, remote: listeners()[usize::from(family != 4)] };
    let link = Link { src_mac: [2, 0, 0, 0, 0, 2], dst_mac: [2, 0, 0, 0, 0, 1], vlans: Default::default() };
    let template = Template::new(&link, &path, 64).expect("one family");
    let mut frame = vec![7; HEADER_BYTES_MAX + PAYLOAD_BYTES];
    let bytes = template.write(&mut frame, PAYLOAD_BYTES, 0).expect("room");
    frame.truncate(bytes);
    frame
}

fn tagged(mut frame: Vec<u8>, ethertypes: &[u16]) -> Vec<u8> {
    for ethertype in ethertypes.iter().rev() {
        let [high, low] = ethertype.to_be_bytes();
        let tag: [u8; VLAN_BYTES] = [high, low, 0, 7];
        frame.splice(12..12, tag);
    }
    frame
}

/// `frame` with other bytes from `at` on.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn kinds() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let passed = Verdict::NotOurs;
    let mut short = ours(4);
    short.truncate(IP + 10);
    vec![
        ("ours_ipv4", ours(4), Verdict::Ours),
        ("ours_ipv6", ours(6), Verdict::Ours),
        ("ours_vlan", tagged(ours(4), &[0x8100]), Verdict::Ours),
        ("ours_qinq", tagged(ours(6), &[0x88a8, 0x8100]), Verdict::Ours),
        ("other_port", with(ours(4), IP + 22, &80u16.to_be_bytes()), passed(Counter::PassOtherTarget)),
        ("tcp", with(ours(4), IP + 9, &[6]), passed(Counter::PassNotUdp)),
        ("arp", with(ours(4), 12, &[0x08, 0x06]), passed(Counter::PassNotIp)),
        ("fragment", with(ours(4), IP + 6, &[0x20, 0]), passed(Counter::PassFragment)),
        ("ipv4_options", with(ours(4), IP, &[0x46]), passed(Counter::PassIpv4Options)),
        ("ipv6_extension", with(ours(6), IP + 6, &[0]), passed(Counter::PassIpv6Extension)),
        ("short", short, passed(Counter::PassShort)),
        ("ip_too_long", with(ours(4), IP + 2, &[0xff, 0xff]), Verdict::Malformed(Counter::DropIpLong)),
    ]
}
