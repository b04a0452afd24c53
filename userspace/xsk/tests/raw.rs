//! Goal: frames that no kernel would send are judged rightly: damaged checksums, lengths that lie, padding, VLAN tags,
//! martians. Method: a packet socket in the peer's namespace sends hand-made frames; each is counted under one name.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/rig/packet.rs"]
mod packet;
mod rig;

use port::{Counters, Drop as Reason, Port, Received};
use rig::{Rig, Side};
use std::{fs::File, io::Write};
use wire::{
    Path,
    datagram::{Vlan, Vlans},
    encap::{Link, Template},
};

/// A frame from the peer to us.
fn frame(from: &str, payload: &[u8], tags: &[Vlan]) -> Vec<u8> {
    let remote: std::net::SocketAddr = from.parse().unwrap();
    let local = rig::ours()[usize::from(remote.is_ipv6())];
    // The template's `local` is the sender, which here is the peer.
    let path = Path { local: remote, remote: local };
    let link =
        Link { src_mac: [2, 0, 0, 0, 0, 2], dst_mac: [2, 0, 0, 0, 0, 1], vlans: Vlans::new(tags).unwrap() };
    let template = Template::new(&link, &path, 64).unwrap();
    let mut frame = vec![0; template.header_len()];
    frame.extend_from_slice(payload);
    assert_eq!(template.write(&mut frame, payload.len(), 0), Some(template.header_len() + payload.len()));
    frame
}

struct World {
    _interface: beam_xsk::Interface,
    port: beam_xsk::XskPort,
    raw: File,
    _rig: Rig,
}

impl World {
    fn new(verify_checksums: bool) -> Self {
        let rig = Rig::new(1);
        let (interface, mut ports) = rig.open(&beam_xsk::Config { verify_checksums, ..rig::config() });
        Self {
            _interface: interface,
            port: ports.pop().unwrap(),
            raw: rig.inside(Side::Peer, || packet::socket(c"p0")),
            _rig: rig,
        }
    }

    /// Sends one frame, then a good one that shows that the first has been dealt with.
    fn put(&mut self, frame_under_test: &[u8]) -> (Vec<Received>, Counters) {
        self.raw.write_all(frame_under_test).unwrap();
        self.raw.write_all(&frame("198.18.0.2:9999", b"marker", &[])).unwrap();
        let mut got: Vec<Received> = Vec::new();
        while got.last().is_none_or(|received| *received.frame != *b"marker") {
            got.extend(rig::receive(&mut self.port, 1));
        }
        let marker = got.pop().unwrap();
        self.port.recycle(marker.frame);
        (got, *self.port.counters())
    }

    fn delivered(&mut self, frame: &[u8]) -> Vec<u8> {
        let (got, _) = self.put(frame);
        assert_eq!(got.len(), 1);
        got.into_iter()
            .map(|received| {
                let bytes = received.frame.to_vec();
                self.port.recycle(received.frame);
                bytes
            })
            .next()
            .unwrap()
    }

    fn dropped(&mut self, frame: &[u8], reason: Reason) {
        let before = self.port.counters().drops;
        let (got, counters) = self.put(frame);
        assert_eq!(got.len(), 0);
        assert_eq!(counters.drops.get(reason), before.get(reason) + 1);
        assert_eq!(counters.drops.rx_total(), before.rx_total() + 1);
    }

    fn steering(&self, name: &str) -> u64 {
        rig::steering(&self._interface, name)
    }
}

const V4: &str = "198.18.0.2:5000";
const V6: &str = "[2001:db8::2]:5000";

#[test]
fn tags_and_padding_are_looked_through() {
    if !rig::root_or_skip("tags_and_padding_are_looked_through") {
        return;
    }
    let mut world = World::new(true);
    let customer = Vlan { tpid: 0x8100, tci: 100 };
    let service = Vlan { tpid: 0x88a8, tci: 7 };
    for from in [V4, V6] {
        assert_eq!(world.delivered(&frame(from, b"untagged", &[])), b"untagged");
        assert_eq!(world.delivered(&frame(from, b"tagged", &[customer])), b"tagged");
        assert_eq!(world.delivered(&frame(from, b"twice", &[service, customer])), b"twice");
        let mut padded = frame(from, b"x", &[]);
        padded.resize(padded.len().max(60) + 4, 0xee);
        assert_eq!(world.delivered(&padded), b"x", "Ethernet padding is no payload");
    }
    rig::assert_conserved(&mut world.port);
}

#[test]
fn damage_is_counted_under_one_name() {
    if !rig::root_or_skip("damage_is_counted_under_one_name") {
        return;
    }
    let mut world = World::new(true);
    for from in [V4, V6] {
        let mut damaged = frame(from, b"one bit flips", &[]);
        *damaged.last_mut().unwrap() ^= 1;
        world.dropped(&damaged, Reason::RxChecksum);
    }
    // RFC 8200 section 8.1: IPv6 without a UDP checksum is dropped; over IPv4 zero means none (RFC 768).
    let mut none = frame(V6, b"no checksum", &[]);
    none[14 + 40 + 6..][..2].fill(0);
    world.dropped(&none, Reason::RxChecksum);
    let mut none = frame(V4, b"no checksum", &[]);
    none[14 + 20 + 6..][..2].fill(0);
    assert_eq!(world.delivered(&none), b"no checksum");

    world.dropped(&frame("127.0.0.1:5000", b"martian", &[]), Reason::RxMalformed);
    world.dropped(&frame("198.18.0.2:0", b"unanswerable", &[]), Reason::RxMalformed);
    world.dropped(&frame(V4, b"", &[]), Reason::RxMalformed);

    // These XDP drops itself.
    let before = world.port.counters().rx_datagrams;
    let mut short = frame(V4, b"UDP length 7", &[]);
    short[14 + 20 + 4..][..2].copy_from_slice(&7u16.to_be_bytes());
    world.put(&short);
    let mut long = frame(V4, b"UDP length 999", &[]);
    long[14 + 20 + 4..][..2].copy_from_slice(&999u16.to_be_bytes());
    world.put(&long);
    let mut header = frame(V4, b"IP checksum", &[]);
    header[14 + 10] ^= 0xff;
    world.put(&header);
    for name in ["drop_udp_short", "drop_udp_long", "drop_ip_checksum"] {
        assert_eq!(world.steering(name), 1, "{name}");
    }
    assert_eq!(world.port.counters().rx_datagrams, before + 3, "only the markers");
    rig::assert_conserved(&mut world.port);
}

#[test]
fn checksums_are_verified_only_if_wanted() {
    if !rig::root_or_skip("checksums_are_verified_only_if_wanted") {
        return;
    }
    let mut world = World::new(false);
    let mut damaged = frame(V4, b"one bit flipS", &[]);
    *damaged.last_mut().unwrap() ^= 0x20;
    assert_eq!(world.delivered(&damaged), b"one bit flips");
}

/// Deterministic noise in every header byte: no panic, no frame lost, every frame counted.
#[test]
fn noise_is_survived() {
    if !rig::root_or_skip("noise_is_survived") {
        return;
    }
    const FRAMES: usize = 5_000;
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed_u64);
    println!("SEED={seed}");
    let mut world = World::new(true);
    for index in 0..FRAMES {
        let noise = rig::datagram(seed, index);
        let mut noisy = frame([V4, V6][index % 2], &noise[..noise.len().min(64)], &[]);
        let byte = noise.last().map_or(0, |&b| usize::from(b)) % noisy.len().min(62);
        noisy[byte] ^= noise[0] | 1;
        // Frames that the kernel would have to answer are not the subject.
        self_addressed(&mut noisy);
        world.raw.write_all(&noisy).unwrap();
        if index % 32 == 31 {
            let (got, _) = world.put(&frame(V4, b"checkpoint", &[]));
            got.into_iter().for_each(|received| world.port.recycle(received.frame));
        }
    }
    rig::assert_conserved(&mut world.port);
}

/// Keeps the frame's MAC addresses.
fn self_addressed(frame: &mut [u8]) {
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
}
