//! From the tunnel to the LAN.

use crate::{
    packet,
    rig::{OURS, PEER, Side, ip as address, wait_for},
    world::{FAR, Sink, World, ethernet, skip, udp},
};
use beam_xsk::Mode;
use bytes::Bytes;
use ip::{InnerPort, icmp::Trouble};
use std::{
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

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

/// Sends to a host until the port has heard of a way there; it arrives.
fn arrives(world: &mut World, from: &str, to: &str, host: &UdpSocket) {
    wait_for("a way there", || {
        world.port.send(Bytes::from(udp(from, to, b"on its way")));
        world.refused().is_empty()
    });
    world.flush();
    assert_eq!(world.refused(), []);
    assert_eq!(host.recv(&mut [0; 64]).unwrap(), 10);
}

/// A route by a gateway on the LAN: the packets go to the gateway's MAC address, and those from behind it are taken.
#[test]
fn hosts_behind_a_router_of_the_lan_are_reached() {
    if skip("hosts_behind_a_router_of_the_lan_are_reached") {
        return;
    }
    let mut world = World::new(Mode::Native);
    let behind = [("203.0.113.0/24", "203.0.113.9/32"), ("2001:db8:113::/48", "2001:db8:113::9/128")];
    for (family, (network, host)) in behind.into_iter().enumerate() {
        world.rig.peer(&format!("ip addr add {host} dev lo"));
        world.rig.ours(&format!("ip route add {network} via {}", PEER[family]));
        let (host, _) = host.split_once('/').unwrap();
        let socket = world.rig.socket(Side::Peer, &SocketAddr::new(address(host), 2000).to_string());
        arrives(&mut world, FAR[family], host, &socket);
        let back = udp(host, FAR[family], b"and back");
        assert_eq!(world.put(&ethernet(&back, &[])), [back]);
    }
    world.assert_conserved();
}

/// While the link is down senders are told that there is no way; once it is up, packets travel again in both directions.
#[test]
fn a_link_that_was_down_carries_packets_again() {
    if skip("a_link_that_was_down_carries_packets_again") {
        return;
    }
    let mut world = World::new(Mode::Native);
    let socket = world.rig.socket(Side::Peer, "198.18.0.2:2000");
    arrives(&mut world, FAR[0], PEER[0], &socket);
    for (side, link) in [(Side::Peer, "p0"), (Side::Ours, "x0")] {
        world.rig.run(side, &format!("ip link set {link} down"));
        wait_for("the port to hear that the link is down", || {
            world.port.send(Bytes::from(udp(FAR[0], PEER[0], b"nowhere")));
            world.port.flush(Instant::now()).unwrap();
            world.refused() == [Trouble::NoRoute]
        });
        // What was sent before the port had heard of it, the kernel or the driver has dropped.
        let mut sink = Sink { got: Vec::new(), room: 1 };
        assert!(!world.port.receive(Instant::now(), &mut sink).unwrap() && sink.got.is_empty());
        world.rig.run(side, &format!("ip link set {link} up"));
        wait_for("a packet to arrive again", || {
            world.port.send(Bytes::from(udp(FAR[0], PEER[0], b"back again")));
            world.port.flush(Instant::now()).unwrap();
            world.refused();
            socket.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
            socket.recv(&mut [0; 64]).is_ok()
        });
        // The old socket's next call would say that its device was down.
        world.raw = world.rig.inside(Side::Peer, || packet::socket(c"p0"));
        let inward = udp(PEER[0], FAR[0], b"inward");
        assert_eq!(world.put(&ethernet(&inward, &[])), [inward]);
    }
    world.flush();
    world.assert_conserved();
}
