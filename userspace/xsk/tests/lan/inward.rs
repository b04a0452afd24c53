//! From the LAN into the tunnel.

use crate::{
    rig::{self, PEER, Side, ip as address, wait_for},
    world::{FAR, Sink, World, ethernet, skip, udp},
};
use beam_xsk::Mode;
use ip::{InnerPort, checksum};
use port::Drop as Reason;
use std::{io::Write, net::SocketAddr, time::Instant};
use wire::{checksum as sums, datagram::Vlan};

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
