//! Goal: inner packets go from a LAN into the tunnel and back whole, proved and counted, and the kernel sees none of them;
//! everything else on the LAN is the kernel's.
//! Method: the peer's namespace is a LAN host whose kernel routes the tunnel's prefixes to us. A packet socket there sends
//! crafted frames, ordinary sockets send what kernels leave unfinished, and receive what the port sends.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/rig/packet.rs"]
mod packet;
mod rig;

use beam_xsk::{LanInterface, LanPort, Mode, open_lan};
use bytes::Bytes;
use ip::{InnerPort, InnerSink, Vnet, checksum, icmp::Trouble};
use port::Drop as Reason;
use rig::{OURS, PEER, Rig, Side, ip as address, wait_for};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    fs::File,
    io::Write,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Instant,
};
use wire::{checksum as sums, datagram::Vlan};

/// Hosts behind the tunnel, and the prefixes that they are in.
const FAR: [&str; 2] = ["198.19.0.5", "2001:db8:19::5"];
const PREFIXES: [(&str, u8); 2] = [("198.19.0.0", 16), ("2001:db8:19::", 48)];

/// Everything that came, and room for so many.
struct Sink {
    got: Vec<(Vnet, Vec<u8>)>,
    room: usize,
}

impl InnerSink for Sink {
    fn wants_more(&mut self) -> bool {
        self.got.len() < self.room
    }

    fn packet(&mut self, vnet: Vnet, packet: &[u8]) {
        self.got.push((vnet, packet.to_vec()));
    }
}

struct World {
    lan: LanInterface,
    port: LanPort,
    raw: File,
    rig: Rig,
}

impl World {
    fn new(mode: Mode) -> Self {
        let rig = Rig::new(1);
        rig.peer(&format!("ip route add {}/{} via {}", PREFIXES[0].0, PREFIXES[0].1, OURS[0]));
        rig.peer(&format!("ip -6 route add {}/{} via {}", PREFIXES[1].0, PREFIXES[1].1, OURS[1]));
        let config = beam_xsk::Config { mode, ..rig::config() };
        let (lan, mut ports) = rig.inside(Side::Ours, || open_lan(&config)).unwrap_or_else(|e| panic!("{e}"));
        lan.set_prefixes(&PREFIXES.map(|(prefix, length)| (address(prefix), length))).unwrap();
        let raw = rig.inside(Side::Peer, || packet::socket(c"p0"));
        Self { lan, port: ports.pop().unwrap(), raw, rig }
    }

    /// Waits for packets.
    fn receive_some(&mut self) -> Vec<(Vnet, Vec<u8>)> {
        let mut sink = Sink { got: Vec::new(), room: 1 };
        let began = Instant::now();
        loop {
            self.port.receive(Instant::now(), &mut sink).unwrap();
            if !sink.got.is_empty() {
                return sink.got;
            }
            assert!(began.elapsed() < rig::PATIENCE, "no packet");
            let mut fds = [PollFd::from_borrowed_fd(self.port.poll_fds()[0], PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
        }
    }

    fn receive_one(&mut self) -> (Vnet, Vec<u8>) {
        let mut got = self.receive_some();
        assert_eq!(got.len(), 1);
        got.remove(0)
    }

    /// Sends a frame, then a good one that shows that the first has been dealt with; what came of the first.
    fn put(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let marker = udp(PEER[0], FAR[0], b"marker");
        self.raw.write_all(frame).unwrap();
        self.raw.write_all(&ethernet(&marker, &[])).unwrap();
        let mut got = Vec::new();
        while got.last() != Some(&marker) {
            let at_least_one = self.receive_some();
            got.extend(at_least_one.into_iter().map(|(_, packet)| packet));
        }
        got.pop();
        got
    }

    fn dropped(&mut self, frame: &[u8], reason: Reason) {
        let before = *self.port.port_counters();
        assert_eq!(self.put(frame), Vec::<Vec<u8>>::new());
        let after = *self.port.port_counters();
        assert_eq!(after.drops.get(reason), before.drops.get(reason) + 1, "{reason:?}");
        assert_eq!(after.drops.rx_total(), before.drops.rx_total() + 1);
    }

    fn steering(&self, name: &str) -> u64 {
        self.lan.steering_counters().into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    /// Flushes until nothing is left to do.
    fn flush(&mut self) {
        wait_for("the port to have nothing left to do", || {
            self.port.flush(Instant::now()).unwrap();
            self.port.next_deadline().is_none()
        });
    }

    fn refused(&mut self) -> Vec<Trouble> {
        std::iter::from_fn(|| self.port.next_refused()).map(|(_, trouble)| trouble).collect()
    }

    /// Every frame is accounted for, and every packet.
    fn assert_conserved(&mut self) {
        let census = self.port.census();
        assert!(census.holds() && census.out == 0, "{census:?}");
        let counters = self.port.port_counters();
        assert_eq!(counters.rx_datagrams, counters.rx_delivered + counters.drops.rx_total(), "{counters:?}");
    }
}

/// A UDP packet, from port 1000 to port 2000, as the RFCs have it.
fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (SocketAddr::new(address(from), 1000), SocketAddr::new(address(to), 2000));
    let length = (8 + payload.len()) as u16;
    let mut datagram =
        [from.port().to_be_bytes(), to.port().to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
    datagram.extend_from_slice(payload);
    let sum = sums::udp(&from, &to, &datagram).unwrap();
    datagram[6..8].copy_from_slice(&sum);
    let mut packet = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = (20 + length).to_be_bytes();
            let mut header = [0x45, 0, total[0], total[1], 0, 7, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let sum = sums::ipv4_header(&header);
            header[10..12].copy_from_slice(&sum);
            header.to_vec()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = length.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, length[0], length[1], 17, 64];
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        _ => panic!("two families"),
    };
    packet.extend(datagram);
    packet
}

/// A frame from the LAN host to us.
fn ethernet(packet: &[u8], tags: &[Vlan]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend(tag.tpid.to_be_bytes());
        frame.extend(tag.tci.to_be_bytes());
    }
    frame.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
    frame.extend(packet);
    frame
}

fn skip(test: &str) -> bool {
    !rig::root_or_skip(test)
}

#[test]
fn packets_enter_the_tunnel_whole() {
    if skip("packets_enter_the_tunnel_whole") {
        return;
    }
    let mut world = World::new(Mode::Native);
    let (customer, service) = (Vlan { tpid: 0x8100, tci: 100 }, Vlan { tpid: 0x88a8, tci: 7 });
    for (from, to) in PEER.into_iter().zip(FAR) {
        let packet = udp(from, to, b"an inner packet");
        for tags in [&[][..], &[customer], &[service, customer]] {
            assert_eq!(world.put(&ethernet(&packet, tags)).concat(), packet);
        }
        let mut padded = ethernet(&packet, &[]);
        padded.resize(padded.len() + 9, 0xee);
        assert_eq!(world.put(&padded), [packet], "Ethernet padding is no packet");
    }
    // Options and fragments are forwarded as they are.
    let mut options = udp(PEER[0], FAR[0], b"router alert");
    options.splice(20..20, [148, 4, 0, 0]);
    options[0] = 0x46;
    options[3] += 4;
    options[10..12].fill(0);
    let sum = wire::checksum::Sum::of(&options[..24]).checksum();
    options[10..12].copy_from_slice(&sum);
    assert_eq!(world.put(&ethernet(&options, &[])), [options]);
    let mut later = udp(PEER[0], FAR[0], b"a later fragment");
    later[6..8].copy_from_slice(&[0x20, 0x09]);
    later[10..12].fill(0);
    let sum = sums::ipv4_header(later.first_chunk().unwrap());
    later[10..12].copy_from_slice(&sum);
    assert_eq!(world.put(&ethernet(&later, &[])), [later]);

    let count = world.port.port_counters().rx_delivered;
    assert_eq!((world.steering("lan_tunnel"), world.steering("lan_tunnel_no_socket")), (count, 0));
    world.assert_conserved();
}

#[test]
fn damage_on_the_lan_is_counted_under_one_name() {
    if skip("damage_on_the_lan_is_counted_under_one_name") {
        return;
    }
    let mut world = World::new(Mode::Native);
    let mut header = udp(PEER[0], FAR[0], b"IP checksum");
    header[10] ^= 1;
    world.dropped(&ethernet(&header, &[]), Reason::RxChecksum);
    world.dropped(&ethernet(&udp("127.0.0.1", FAR[0], b"martian"), &[]), Reason::RxMartian);
    world.dropped(&ethernet(&udp("::1", FAR[1], b"martian"), &[]), Reason::RxMartian);
    // An extension header that leads out of the packet.
    let mut extension = udp(PEER[1], FAR[1], b"cut off");
    (extension[6], extension[41]) = (0, 255);
    world.dropped(&ethernet(&extension, &[]), Reason::RxMalformed);
    // These XDP drops itself.
    let before = world.port.port_counters().rx_datagrams;
    let mut long = udp(PEER[0], FAR[0], b"IP length");
    long[2] = 5;
    assert!(world.put(&ethernet(&long, &[])).is_empty());
    let mut short = udp(PEER[0], FAR[0], b"IP length");
    short[2..4].copy_from_slice(&[0, 19]);
    assert!(world.put(&ethernet(&short, &[])).is_empty());
    assert_eq!((world.steering("lan_drop_ip_long"), world.steering("lan_drop_ip_short")), (1, 1));
    assert_eq!(world.port.port_counters().rx_datagrams, before + 2, "only the markers");
    world.assert_conserved();
}

/// Deterministic noise in every header byte: no panic, no frame lost, every packet counted.
#[test]
fn noise_on_the_lan_is_survived() {
    if skip("noise_on_the_lan_is_survived") {
        return;
    }
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x1a_u64);
    println!("SEED={seed}");
    let mut world = World::new(Mode::Native);
    for index in 0..5_000 {
        let noise = rig::datagram(seed, index);
        let family = index % 2;
        let mut frame = ethernet(&udp(PEER[family], FAR[family], &noise[..noise.len().min(64)]), &[]);
        // Behind the MAC addresses, so that it is to us.
        let byte = 12 + noise.last().map_or(0, |&b| usize::from(b)) % (frame.len() - 12).min(62);
        frame[byte] ^= noise[0] | 1;
        world.raw.write_all(&frame).unwrap();
        if index % 32 == 31 {
            world.put(&frame);
        }
    }
    world.assert_conserved();
    let verdicts: u64 = world.lan.steering_counters().iter().map(|&(_, n)| n).sum();
    assert!(verdicts >= 5_000);
}

/// Ordinary sockets of the LAN host: its kernel leaves the checksums to us when it may, and not otherwise.
#[test]
fn checksums_that_the_kernel_left_undone_are_completed() {
    if skip("checksums_that_the_kernel_left_undone_are_completed") {
        return;
    }
    let mut world = World::new(Mode::Native);
    for offload in ["on", "off"] {
        world.rig.peer(&format!("ethtool -K p0 tx {offload}"));
        for family in 0..2 {
            let sender = world.rig.socket(Side::Peer, &SocketAddr::new(address(PEER[family]), 0).to_string());
            for size in [1, 32, 1400] {
                sender.send_to(&vec![7; size], SocketAddr::new(address(FAR[family]), 9)).unwrap();
                let (vnet, mut packet) = world.receive_one();
                assert_eq!(vnet.needs_checksum, offload == "on", "{offload} {family} {size}");
                let view = ip::View::read(&packet).unwrap();
                assert_eq!(view.destination, address(FAR[family]));
                if vnet.needs_checksum {
                    assert_eq!(checksum::judge(&packet, &view), checksum::Transport::Partial);
                    let (start, offset) = (vnet.checksum_start.into(), vnet.checksum_offset.into());
                    assert!(checksum::complete_at(&mut packet, start, offset));
                }
                assert_eq!(checksum::judge(&packet, &view), checksum::Transport::Good);
                assert_eq!(&packet[view.transport_offset + 8..], vec![7; size]);
            }
        }
    }
    world.assert_conserved();
}

/// The interface is still the kernel's for all that isn't the tunnel's.
#[test]
fn the_kernel_keeps_what_is_not_the_tunnel_s() {
    if skip("the_kernel_keeps_what_is_not_the_tunnel_s") {
        return;
    }
    let world = World::new(Mode::Native);
    // ARP, neighbour discovery and echo are the kernel's to answer.
    for ours in OURS {
        world.rig.peer(&format!("ping -c 2 -i 0.01 -W 5 {ours}"));
    }
    let ours = world.rig.socket(Side::Ours, "198.18.0.1:7000");
    let peer = world.rig.socket(Side::Peer, "198.18.0.2:7000");
    peer.send_to(b"to the host", ours.local_addr().unwrap()).unwrap();
    let mut bytes = [0; 64];
    assert_eq!(ours.recv(&mut bytes).unwrap(), 11);

    // An address of the host within the tunnel's prefix is the host's, from the moment that it has it.
    world.rig.ours("ip addr add 198.19.0.1/32 dev x0");
    let own = world.rig.socket(Side::Ours, "198.19.0.1:7000");
    wait_for("the kernel to get its new address's packets", || {
        peer.send_to(b"to the new address", own.local_addr().unwrap()).unwrap();
        own.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
        own.recv(&mut bytes).is_ok()
    });
    assert!(world.steering("lan_pass_kernel") > 0);
    assert_eq!(world.steering("lan_tunnel_no_socket"), 0);
}

/// Interfaces get other MAC addresses, routes other prefixes: from then on those count.
#[test]
fn the_mac_address_and_the_prefixes_are_followed() {
    if skip("the_mac_address_and_the_prefixes_are_followed") {
        return;
    }
    let mut world = World::new(Mode::Native);
    let packet = udp(PEER[0], FAR[0], b"who is it for");
    let mut to_other = ethernet(&packet, &[]);
    to_other[5] = 9;
    assert!(world.put(&to_other).is_empty(), "another host's frame");
    assert!(world.steering("lan_pass_other_mac") > 0);
    world.rig.ours("ip link set x0 address 02:00:00:00:00:09");
    wait_for("the new MAC address to count", || {
        world.raw.write_all(&to_other).unwrap();
        let mut sink = Sink { got: Vec::new(), room: 1 };
        world.port.receive(Instant::now(), &mut sink).unwrap();
        !sink.got.is_empty()
    });
    world.lan.set_prefixes(&[(address("203.0.113.0"), 24)]).unwrap();
    let passed = world.steering("lan_pass_not_tunnel");
    world.raw.write_all(&to_other).unwrap();
    wait_for("the kernel to get the old prefix's packet", || world.steering("lan_pass_not_tunnel") > passed);
}

fn receive_numbered(socket: &UdpSocket, count: u32) {
    let mut bytes = [0; 2048];
    for n in 0..count {
        let length = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("packet {n} of {count}: {error}"));
        assert_eq!(bytes[..length.min(4)], n.to_be_bytes(), "in order, none lost");
    }
}

/// The first packets to a host wait until the kernel has found it, and then all arrive in their order.
#[test]
fn packets_reach_lan_hosts_and_wait_for_their_addresses() {
    if skip("packets_reach_lan_hosts_and_wait_for_their_addresses") {
        return;
    }
    for mode in [Mode::Native, Mode::Skb] {
        let mut world = World::new(mode);
        for (to, from) in PEER.into_iter().zip(FAR) {
            let host = world.rig.socket(Side::Peer, &SocketAddr::new(address(to), 2000).to_string());
            for n in 0..40_u32 {
                // Short ones, that need padding, and long ones.
                let payload = [&n.to_be_bytes()[..], &vec![1; if n % 2 == 0 { 0 } else { 1400 }]].concat();
                world.port.send(Bytes::from(udp(from, to, &payload)));
            }
            world.flush();
            receive_numbered(&host, 40);
            let before = world.port.port_counters().tx_datagrams;
            for hundred in 0..10 {
                for n in 0..100_u32 {
                    world.port.send(Bytes::from(udp(from, to, &n.to_be_bytes())));
                }
                let sent = world.port.port_counters().tx_datagrams;
                assert_eq!(sent, before + 100 * (hundred + 1), "at once");
                world.flush();
                receive_numbered(&host, 100);
            }
        }
        let counters = *world.port.port_counters();
        assert_eq!((counters.tx_datagrams, counters.drops), (2_080, port::Drops::default()));
        wait_for("completions", || {
            world.port.flush(Instant::now()).unwrap();
            world.port.port_counters().tx_completed == 2_080
        });
        world.assert_conserved();
    }
}

#[test]
fn what_is_not_for_the_lan_is_refused_by_name() {
    if skip("what_is_not_for_the_lan_is_refused_by_name") {
        return;
    }
    let mut world = World::new(Mode::Native);
    let prohibited = [Trouble::Prohibited];
    for to in [OURS[0], "255.255.255.255", "224.0.0.5", "0.0.0.0"] {
        world.port.send(Bytes::from(udp(FAR[0], to, b"not there")));
        assert_eq!(world.refused(), prohibited, "{to}");
    }
    for to in [OURS[1], "ff02::1", "::"] {
        world.port.send(Bytes::from(udp(FAR[1], to, b"not there")));
        assert_eq!(world.refused(), prohibited, "{to}");
    }
    world.port.send(Bytes::from(udp(FAR[0], "203.0.113.1", b"no route")));
    assert_eq!(world.refused(), [Trouble::NoRoute]);

    // A subnet's broadcast address, and a host that isn't there: nobody answers for them.
    world.port.send(Bytes::from(udp(FAR[0], "198.18.0.255", b"to all")));
    world.port.send(Bytes::from(udp(FAR[0], "198.18.0.77", b"to nobody")));
    world.flush();
    assert_eq!(world.refused(), [Trouble::NoRoute, Trouble::NoRoute]);

    let host = world.rig.socket(Side::Peer, "198.18.0.2:2000");
    world.port.send(Bytes::from(udp(FAR[0], PEER[0], &[1; 1500 - 28])));
    world.flush();
    world.port.send(Bytes::from(udp(FAR[0], PEER[0], &[2; 1501 - 28])));
    assert_eq!(world.refused(), [Trouble::TooBig { mtu_bytes: 1500 }]);
    assert_eq!(host.recv(&mut [0; 2048]).unwrap(), 1500 - 28);

    for garbage in [&[][..], &[0x45], &[0x60; 39], &[0; 64]] {
        world.port.send(Bytes::copy_from_slice(garbage));
    }
    let counters = *world.port.port_counters();
    let drops: Vec<(&str, u64)> = counters.drops.iter().filter(|&(_, n)| n > 0).collect();
    let expected = [
        ("tx_too_big", 1),
        ("tx_error", 4),
        ("tx_not_there", 7),
        ("tx_unroutable", 1),
        ("tx_no_neighbour", 2),
    ];
    assert_eq!(drops, expected);
    assert_eq!(counters.tx_datagrams, 1);
    world.assert_conserved();
}

/// A sink that is full stops the port; the packets wait on the ring.
#[test]
fn a_full_sink_leaves_packets_on_the_ring() {
    if skip("a_full_sink_leaves_packets_on_the_ring") {
        return;
    }
    let mut world = World::new(Mode::Native);
    for n in 0..100_u8 {
        world.raw.write_all(&ethernet(&udp(PEER[0], FAR[0], &[n]), &[])).unwrap();
    }
    wait_for("all packets on the ring", || world.port.census().rx == 100);
    let mut sink = Sink { got: Vec::new(), room: 0 };
    assert!(!world.port.receive(Instant::now(), &mut sink).unwrap());
    assert_eq!((sink.got.len(), world.port.census().rx), (0, 100));
    // One batch is what a sink that wants more has to take.
    sink.room = 1;
    assert!(!world.port.receive(Instant::now(), &mut sink).unwrap());
    assert_eq!((sink.got.len(), world.port.census().rx), (16, 84));
    sink.room = usize::MAX;
    assert!(!world.port.receive(Instant::now(), &mut sink).unwrap());
    let numbers: Vec<u8> = sink.got.iter().map(|(_, packet)| packet[28]).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<u8>>(), "in order");
    world.assert_conserved();
}
