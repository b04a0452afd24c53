//! What is the kernel's, and what changes while we run.

use crate::{
    rig::{OURS, PEER, Side, ip as address, wait_for},
    world::{FAR, Sink, World, ethernet, skip, udp},
};
use beam_xsk::Mode;
use ip::InnerPort;
use std::{io::Write, time::Instant};

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
