//! Goal: the port follows the kernel: neighbours, routes, addresses and links that change are obeyed at once, and
//! nothing stays attached when the interface, the ports or the whole process go. Method: `ip` changes one thing in the
//! test's own namespace, then what the port does is watched.
#![allow(clippy::unwrap_used, reason = "tests")]

mod rig;

use beam_xsk::{Interface, LinkState, XskPort};
use port::{Path, Port, Sent};
use rig::{OURS, PEER, PORT, Rig, Side};
use std::{
    net::{SocketAddr, UdpSocket},
    process::{Command, Stdio},
    sync::{Arc, mpsc::channel},
    thread,
    time::Duration,
};

fn path(remote: &str) -> Path {
    let remote: SocketAddr = remote.parse().unwrap();
    Path { local: SocketAddr::new(rig::ip(OURS[usize::from(remote.is_ipv6())]), PORT), remote }
}

fn sends(port: &mut XskPort, path: &Path) -> bool {
    let sent = port.send(path, None, b"anyone there?", None);
    rig::flush(port);
    sent == Sent::Queued
}

fn hears(peer: &UdpSocket) -> bool {
    peer.recv(&mut [0; 64]).is_ok()
}

#[test]
fn a_neighbour_that_moves_is_followed() {
    if !rig::root_or_skip("a_neighbour_that_moves_is_followed") {
        return;
    }
    let rig = Rig::new(1);
    let (_interface, mut ports) = rig.open(&rig::config());
    let port = &mut ports[0];
    rig.learn_neighbours(port);
    for address in PEER {
        let peer = rig.socket(Side::Peer, &SocketAddr::new(rig::ip(address), 0).to_string());
        peer.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let path = path(&peer.local_addr().unwrap().to_string());
        assert!(sends(port, &path) && hears(&peer));

        // The peer's NIC is replaced: frames to the old MAC are not for it any more.
        rig.peer("ip link set p0 address 02:00:00:00:00:99");
        assert!(sends(port, &path) && !hears(&peer));
        rig.ours(&format!("ip neigh replace {address} lladdr 02:00:00:00:00:99 dev x0"));
        rig::wait_for("the new MAC address", || sends(port, &path) && hears(&peer));

        // Forgotten by the kernel: left to the kernel.
        rig.ours(&format!("ip neigh del {address} dev x0"));
        rig::wait_for("the neighbour to go", || !sends(port, &path));
        rig.peer(&format!("ip link set p0 address {}", rig::PEER_MAC));
    }
    rig::assert_conserved(port);
}

/// XSK traffic doesn't refresh neighbours; the mirror tells the kernel of those in use.
#[test]
fn a_used_neighbour_is_kept_alive() {
    if !rig::root_or_skip("a_used_neighbour_is_kept_alive") {
        return;
    }
    let rig = Rig::new(1);
    rig.ours("sysctl -q -w net.ipv4.neigh.x0.delay_first_probe_time=1");
    let (_interface, mut ports) = rig.open(&rig::config());
    let port = &mut ports[0];
    rig.learn_neighbours(port);
    let state = || rig.ours(&format!("ip neigh show {} dev x0", PEER[0]));
    rig.ours(&format!("ip neigh change {} dev x0 nud stale", PEER[0]));
    // By now the mirror may have told the kernel already, but the confirmation takes a second.
    assert!(!state().contains("REACHABLE"), "{}", state());
    let path = path(&format!("{}:9", PEER[0]));
    rig::wait_for("REACHABLE", || sends(port, &path) && state().contains("REACHABLE"));
}

#[test]
fn routes_and_rules_are_followed() {
    if !rig::root_or_skip("routes_and_rules_are_followed") {
        return;
    }
    let rig = Rig::new(1);
    let (interface, mut ports) = rig.open(&rig::config());
    let port = &mut ports[0];
    rig.learn_neighbours(port);
    for (far, to, via) in
        [("203.0.113.7:9", "203.0.113.0/24", PEER[0]), ("[2001:db8:7::7]:9", "2001:db8:7::/48", PEER[1])]
    {
        let far = path(far);
        assert!(!sends(port, &far));
        rig.ours(&format!("ip route add {to} via {via}"));
        rig::wait_for("the route", || sends(port, &far));
        rig.ours(&format!("ip route del {to} via {via}"));
        rig::wait_for("the route to go", || !sends(port, &far));
    }
    assert_eq!(interface.unmirrored(), None);
    let near = path(&format!("{}:9", PEER[0]));
    assert!(sends(port, &near));
    rig.ours("ip rule add from 198.18.0.1 table 100");
    rig::wait_for("the rule", || interface.unmirrored().is_some() && !sends(port, &near));
    rig.ours("ip rule del from 198.18.0.1 table 100");
    rig::wait_for("the rule to go", || interface.unmirrored().is_none() && sends(port, &near));
}

#[test]
fn wildcards_follow_the_hosts_addresses() {
    if !rig::root_or_skip("wildcards_follow_the_hosts_addresses") {
        return;
    }
    let rig = Rig::new(1);
    let (interface, mut ports) = rig.open(&rig::config());
    let port = &mut ports[0];
    interface.set_targets(&["0.0.0.0:4433".parse().unwrap(), "[::]:4433".parse().unwrap()]).unwrap();
    let peers = [rig.socket(Side::Peer, "198.18.0.2:0"), rig.socket(Side::Peer, "[2001:db8::2]:0")];
    let mut reaches = |family: usize, to: &str| {
        let to = SocketAddr::new(rig::ip(to), PORT);
        peers[family].send_to(b"hello", to).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let mut burst = Vec::new();
        port.receive(&mut burst, 64).unwrap();
        let reached = burst.iter().any(|received| received.path.local == to);
        burst.into_iter().for_each(|received| port.recycle(received.frame));
        reached
    };
    for (family, first, second, width) in [(0, OURS[0], "198.18.0.77", 24), (1, OURS[1], "2001:db8::77", 64)]
    {
        assert!(reaches(family, first));
        assert!(!reaches(family, second));
        let nodad = if family == 1 { "nodad" } else { "" };
        rig.ours(&format!("ip addr add {second}/{width} dev x0 {nodad}"));
        rig::wait_for("the new address", || reaches(family, second));
        rig.ours(&format!("ip addr del {second}/{width} dev x0"));
        rig::wait_for("the address to go", || !reaches(family, second));
        assert!(reaches(family, first));
    }
}

#[test]
fn links_that_go_down_or_away_are_noticed() {
    if !rig::root_or_skip("links_that_go_down_or_away_are_noticed") {
        return;
    }
    let rig = Rig::new(1);
    let (interface, mut ports) = rig.open(&rig::config());
    let port = &mut ports[0];
    rig.learn_neighbours(port);
    let near = path(&format!("{}:9", PEER[0]));
    assert_eq!((interface.link_state(), interface.mtu()), (LinkState::Up, Some(1500)));
    rig.peer("ip link set p0 down");
    rig::wait_for("the carrier to go", || interface.link_state() == LinkState::NoCarrier);
    assert_eq!(port.send(&near, None, b"x", None), Sent::NoRoute);
    rig.peer("ip link set p0 up");
    rig::wait_for("the carrier", || interface.link_state() == LinkState::Up);
    rig.ours("ip link set x0 down");
    rig::wait_for("the link to go down", || interface.link_state() == LinkState::Down);
    assert!(port.receive(&mut Vec::new(), 64).is_ok(), "it may come up again");
    rig.ours("ip link set x0 up");
    rig::wait_for("the link", || interface.link_state() == LinkState::Up);
    // IPv6 addresses went when the links were set down.
    rig.ours(&format!("ip addr add {}/64 dev x0 nodad", OURS[1]));
    rig.peer(&format!("ip addr add {}/64 dev p0 nodad", PEER[1]));
    rig.learn_neighbours(port);
    let peer = rig.socket(Side::Peer, "198.18.0.2:0");
    peer.send_to(b"back again", SocketAddr::new(rig::ip(OURS[0]), PORT)).unwrap();
    rig::receive(port, 1).into_iter().for_each(|received| port.recycle(received.frame));

    rig.ours("ip link del x0");
    rig::wait_for("the removal", || interface.link_state() == LinkState::Removed);
    assert!(port.receive(&mut Vec::new(), 64).is_err());
    assert!(port.flush().is_err());
    assert_eq!(port.send(&near, None, b"x", None), Sent::NoRoute);
    assert_eq!(interface.mtu(), None);
    rig::assert_conserved(port);
}

/// A NIC that gets queues is noticed (`ethtool -L` tells the control thread by ethtool netlink), and each new queue gets
/// a socket: from then on no packet passes on to the kernel.
#[test]
fn queues_that_come_are_noticed_and_served() {
    if !rig::root_or_skip("queues_that_come_are_noticed_and_served") {
        return;
    }
    let rig = Rig::new(4);
    // The sender's end first: it must not have more queues than the receiver.
    rig.peer("ethtool -L p0 tx 2");
    rig.ours("ethtool -L x0 rx 2");
    let (interface, mut ports) = rig.open(&rig::config());
    let queues = |interface: &Interface| {
        rig.inside(Side::Ours, || {
            (interface.queue_count(), interface.served_count(), interface.unserved_queues())
        })
    };
    assert_eq!(queues(&interface), (Some(2), 2, vec![]));
    let command = rig.inside(Side::Ours, || interface.queue_command(2));
    assert_eq!(command, "ethtool -L x0 rx 2");
    let interface = Arc::new(interface);
    let (news, more_news) = channel();
    let watched = interface.clone();
    thread::spawn(move || {
        let mut seen = 0;
        while news.send(seen).is_ok() {
            seen = watched.wait_for_change(seen, None);
        }
    });
    // What the attachment made of the link is heard by then.
    while more_news.recv_timeout(Duration::from_millis(300)).is_ok() {}
    rig.ours("ethtool -L x0 rx 4");
    more_news.recv_timeout(rig::PATIENCE).expect("the control thread hears of the new queues");
    rig.peer("ethtool -L p0 tx 4");
    assert_eq!(queues(&interface), (Some(4), 2, vec![2, 3]));

    let sockets: Vec<UdpSocket> = (0..64).map(|_| rig.socket(Side::Peer, "198.18.0.2:0")).collect();
    let to = SocketAddr::new(rig::ip(OURS[0]), PORT);
    let more = rig.inside(Side::Ours, || interface.serve_new_queues()).unwrap();
    assert_eq!(more.iter().map(XskPort::queue).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((queues(&interface), interface.reports().len()), ((Some(4), 4, vec![]), 4));
    ports.extend(more);
    for socket in &sockets {
        socket.send_to(b"to some queue", to).unwrap();
    }
    let received = rig::receive_any(&mut ports, sockets.len());
    assert_eq!((received.len(), rig::steering(&interface, "ours_no_socket")), (sockets.len(), 0));
    let mut met = [false; 4];
    for (index, received) in received {
        met[index] = true;
        ports[index].recycle(received.frame);
    }
    assert_eq!(met, [true; 4], "64 ports fall on every queue");
    ports.iter_mut().for_each(rig::assert_conserved);
    drop(ports);
    assert_eq!(interface.served_count(), 0);
}

#[test]
fn queues_that_nobody_asked_for_are_left_alone() {
    if !rig::root_or_skip("queues_that_nobody_asked_for_are_left_alone") {
        return;
    }
    let rig = Rig::new(2);
    let config = beam_xsk::Config { queues: beam_xsk::Queues::List(vec![1]), ..rig::config() };
    let (interface, _ports) = rig.open(&config);
    rig.inside(Side::Ours, || {
        assert_eq!((interface.queue_count(), interface.served_count()), (Some(2), 1));
        assert_eq!(interface.unserved_queues(), []);
    });
}

#[test]
fn nothing_stays_attached_in_either_order_of_drop() {
    if !rig::root_or_skip("nothing_stays_attached_in_either_order_of_drop") {
        return;
    }
    let rig = Rig::new(2);
    for interface_first in [true, false] {
        let (interface, ports) = rig.open(&rig::config());
        assert!(rig.attached("x0"));
        if interface_first {
            drop(interface);
            assert!(!rig.attached("x0"));
            drop(ports);
        } else {
            drop(ports);
            drop(interface);
        }
        assert!(!rig.attached("x0"));
    }
}

/// What the killed process of the next test does.
#[test]
#[ignore = "run by a_killed_process_leaves_nothing"]
fn child_that_holds_the_interface() {
    let (interface, _ports) = beam_xsk::open(&rig::config()).unwrap();
    interface.set_targets(&rig::ours()).unwrap();
    println!("attached");
    std::thread::park();
}

#[test]
fn a_killed_process_leaves_nothing() {
    if !rig::root_or_skip("a_killed_process_leaves_nothing") {
        return;
    }
    let rig = Rig::new(1);
    // `ip netns exec` becomes the program that it starts, so the child's id is the program's.
    let mut child = Command::new("ip")
        .args(["netns", "exec", &rig.namespace(Side::Ours)])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_the_interface", "--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    rig::wait_for("the child", || rig.attached("x0"));
    child.kill().unwrap();
    child.wait().unwrap();
    rig::wait_for("the kernel to detach", || !rig.attached("x0"));
    // The kernel's own socket is reached, and the queue is free.
    let kernel = rig.socket(Side::Ours, &format!("{}:{PORT}", OURS[0]));
    rig.socket(Side::Peer, "198.18.0.2:0").send_to(b"slow path", kernel.local_addr().unwrap()).unwrap();
    assert!(hears(&kernel));
    rig.open(&rig::config());
}
