//! Goal: datagrams cross AF_XDP byte-exact and none is lost, in both copy modes, over IPv4 and IPv6, and every frame
//! is accounted for afterwards. Method: a kernel UDP socket in another namespace is the peer; it sends no more at a
//! time than the rings hold, so that counts are exact.
#![allow(clippy::unwrap_used, reason = "tests")]

mod rig;

use beam_xsk::{Config, Mode, QueueMode, XskPort};
use port::{Ecn, Path, Port, Sent};
use rig::{OURS, PEER, PORT, Rig, Side};
use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

const DATAGRAM_COUNT: usize = 10_000;
/// Less than a quarter of the smallest ring of these tests.
const WINDOW: usize = 100;

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(now.as_nanos() as u64);
    println!("SEED={seed}");
    seed
}

/// Whether a datagram whose checksum field holds only the pseudo-header's sum looks right as it stands. One in 65,536
/// does.
fn is_right_by_chance(path: &Path, payload: &[u8]) -> bool {
    use wire::checksum::{Checksum, Sum, verify_udp};
    let length = payload.len() as u16 + 8;
    let sum = Sum::pseudo_header(&path.remote, &path.local, length).folded();
    let ports = [path.remote.port().to_be_bytes(), path.local.port().to_be_bytes()];
    let udp = [ports.concat().as_slice(), &length.to_be_bytes(), &sum, payload].concat();
    verify_udp(&path.remote, &path.local, &udp) == Checksum::Good
}

/// The peer's kernel socket sends, the port receives, sends the same back, the peer compares. Returns how many
/// datagrams a sender's partial checksum would have fitted by chance.
fn round_trips(rig: &Rig, port: &mut XskPort, family: usize, count: usize) -> u64 {
    let seed = seed();
    let peer = rig.socket(Side::Peer, &SocketAddr::new(rig::ip(PEER[family]), 0).to_string());
    let to = SocketAddr::new(rig::ip(OURS[family]), PORT);
    let path = Path { local: to, remote: peer.local_addr().unwrap() };
    let mut buffer = vec![0; 2048];
    let before = *port.counters();
    let mut by_chance = 0;
    for window in (0..count).step_by(WINDOW) {
        let indices = window..(window + WINDOW).min(count);
        for index in indices.clone() {
            peer.send_to(&rig::datagram(seed, index), to).unwrap();
        }
        let burst = rig::receive(port, indices.len());
        for (received, index) in burst.into_iter().zip(indices.clone()) {
            let sent = rig::datagram(seed, index);
            assert_eq!((received.path, received.ecn), (path, None));
            assert_eq!(received.datagrams().collect::<Vec<_>>(), [&sent[..]], "datagram {index}");
            assert_eq!(port.send(&path, None, &received.frame, None), Sent::Queued);
            by_chance += u64::from(is_right_by_chance(&path, &sent));
            port.recycle(received.frame);
        }
        rig::flush(port);
        for index in indices {
            let (length, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!(from, to);
            assert_eq!(buffer[..length], rig::datagram(seed, index), "datagram {index} sent back");
        }
    }
    let counters = port.counters();
    assert_eq!(counters.rx_delivered - before.rx_delivered, count as u64);
    assert_eq!(counters.tx_datagrams - before.tx_datagrams, count as u64);
    assert_eq!(counters.rx_bytes - before.rx_bytes, counters.tx_bytes - before.tx_bytes);
    assert_eq!(counters.drops, before.drops);
    by_chance
}

fn both_families(mode: Mode, expected: QueueMode, tx_checksums_offloaded: bool) {
    let rig = Rig::new(1);
    rig.peer(&format!("ethtool -K p0 tx {}", if tx_checksums_offloaded { "on" } else { "off" }));
    let (interface, mut ports) = rig.open(&Config { mode, ..rig::config() });
    assert_eq!(interface.reports().len(), 1);
    assert_eq!(interface.reports()[0].mode, expected, "{:?}", interface.reports());
    let port = &mut ports[0];
    rig.learn_neighbours(port);
    let by_chance: u64 = [0, 1].map(|family| round_trips(&rig, port, family, DATAGRAM_COUNT)).iter().sum();
    let partial = if tx_checksums_offloaded { 2 * DATAGRAM_COUNT as u64 - by_chance } else { 0 };
    assert_eq!(port.counters().rx_checksum_partial, partial);
    assert_eq!(rig::steering(&interface, "ours_redirected"), 2 * DATAGRAM_COUNT as u64);
    assert_eq!(rig::steering(&interface, "ours_no_socket"), 0);
    let statistics = port.statistics().unwrap();
    assert_eq!((statistics.rx_dropped, statistics.rx_ring_full, statistics.rx_fill_ring_empty), (0, 0, 0));
    assert_eq!(statistics.tx_invalid_descriptors, 0);
    rig::assert_conserved(port);
}

#[test]
fn native_copy() {
    if rig::root_or_skip("native_copy") {
        both_families(Mode::Native, QueueMode::NativeCopy, false);
    }
}

#[test]
fn skb_copy() {
    if rig::root_or_skip("skb_copy") {
        both_families(Mode::Skb, QueueMode::SkbCopy, false);
    }
}

/// A sender on the same host leaves the checksum to hardware that isn't there.
#[test]
fn native_copy_with_partial_checksums() {
    if rig::root_or_skip("native_copy_with_partial_checksums") {
        both_families(Mode::Auto, QueueMode::NativeCopy, true);
    }
}

/// The application's own calls drive the NIC; on veth they change nothing but must lose nothing either.
#[test]
fn busy_polling() {
    if !rig::root_or_skip("busy_polling") {
        return;
    }
    let rig = Rig::new(1);
    let (_interface, mut ports) = rig.open(&Config { busy_poll_usec: Some(20), ..rig::config() });
    rig.learn_neighbours(&mut ports[0]);
    round_trips(&rig, &mut ports[0], 0, 1000);
    rig::assert_conserved(&mut ports[0]);
}

#[test]
fn what_is_not_ours_goes_to_the_kernel() {
    if !rig::root_or_skip("what_is_not_ours_goes_to_the_kernel") {
        return;
    }
    let rig = Rig::new(1);
    let (interface, mut ports) = rig.open(&rig::config());
    let kernel = rig.socket(Side::Ours, &format!("{}:{}", OURS[0], PORT + 1));
    let peer = rig.socket(Side::Peer, "198.18.0.2:0");
    for _ in 0..100 {
        peer.send_to(b"for the kernel", kernel.local_addr().unwrap()).unwrap();
        kernel.recv_from(&mut [0; 64]).unwrap();
    }
    assert_eq!(rig::steering(&interface, "pass_other_target"), 100);
    assert_eq!(ports[0].counters().rx_datagrams, 0);

    // Targets taken away: the same packets reach the kernel's socket on the port that was ours.
    interface.set_targets(&[]).unwrap();
    let slow_path = rig.socket(Side::Ours, &format!("{}:{PORT}", OURS[0]));
    peer.send_to(b"slow path", slow_path.local_addr().unwrap()).unwrap();
    slow_path.recv_from(&mut [0; 64]).unwrap();

    // A port dropped: its queue is the kernel's again.
    interface.set_targets(&rig::ours()).unwrap();
    ports.clear();
    peer.send_to(b"no socket", slow_path.local_addr().unwrap()).unwrap();
    slow_path.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(rig::steering(&interface, "ours_no_socket"), 1);
}

#[test]
fn every_queue_has_its_port() {
    if !rig::root_or_skip("every_queue_has_its_port") {
        return;
    }
    const FLOWS: usize = 64;
    let rig = Rig::new(4);
    rig.peer("ethtool -K p0 tx off");
    let (interface, mut ports) = rig.open(&rig::config());
    assert_eq!(ports.iter().map(XskPort::queue).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let to: SocketAddr = format!("{}:{PORT}", OURS[0]).parse().unwrap();
    let peers: Vec<_> = (0..FLOWS).map(|_| rig.socket(Side::Peer, "198.18.0.2:0")).collect();
    for (flow, peer) in peers.iter().enumerate() {
        peer.send_to(&[flow as u8; 100], to).unwrap();
    }
    let received = rig::receive_any(&mut ports, FLOWS);
    assert_eq!(received.len(), FLOWS);
    let mut flows: Vec<u8> = received.iter().map(|(_, received)| received.frame[0]).collect();
    flows.sort_unstable();
    assert_eq!(flows, (0..FLOWS as u8).collect::<Vec<_>>());
    for (index, received) in received {
        assert!(ports[index].owns(&received.frame));
        assert!(!ports[(index + 1) % 4].owns(&received.frame));
        ports[index].recycle(received.frame);
    }
    for port in &mut ports {
        rig::assert_conserved(port);
    }
    let on_ports: u64 = ports.iter().map(|port| port.counters().rx_delivered).sum();
    assert_eq!(on_ports, rig::steering(&interface, "ours_redirected"));
}

/// A frame travels to another thread, as after a NAT rebind, and comes back to its own fill ring.
#[test]
fn frames_are_handed_over_and_come_home() {
    if !rig::root_or_skip("frames_are_handed_over_and_come_home") {
        return;
    }
    let rig = Rig::new(1);
    let (_interface, mut ports) = rig.open(&rig::config());
    let port = &mut ports[0];
    let peer = rig.socket(Side::Peer, "198.18.0.2:0");
    let to: SocketAddr = format!("{}:{PORT}", OURS[0]).parse().unwrap();
    let receive_frames = port.census().unwrap().total - 512;
    // More rounds than there are frames: each has to come home many times.
    for round in 0..receive_frames * 3 / WINDOW {
        for index in 0..WINDOW {
            peer.send_to(&[round as u8, index as u8], to).unwrap();
        }
        let burst = rig::receive(port, WINDOW);
        assert_eq!(port.census().unwrap().out, WINDOW);
        let frames = std::thread::spawn(move || {
            let good = |(index, frame): (usize, &port::Frame)| **frame == [round as u8, index as u8];
            let frames: Vec<_> = burst.into_iter().map(|received| received.frame).collect();
            assert!(frames.iter().enumerate().all(good));
            frames
        });
        for frame in frames.join().unwrap() {
            port.recycle(frame);
        }
    }
    rig::assert_conserved(port);
}

/// Sizes at the edge, segments, ECN both ways, and refusals that are counted.
#[test]
fn segments_sizes_and_ecn() {
    if !rig::root_or_skip("segments_sizes_and_ecn") {
        return;
    }
    let rig = Rig::new(1);
    let (_interface, mut ports) = rig.open(&rig::config());
    let port = &mut ports[0];
    rig.learn_neighbours(port);
    let before = *port.counters();
    let peer = rig.socket(Side::Peer, "198.18.0.2:0");
    let to: SocketAddr = format!("{}:{PORT}", OURS[0]).parse().unwrap();
    let path = Path { local: to, remote: peer.local_addr().unwrap() };
    let mut buffer = vec![0; 2048];

    let bytes: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
    assert!(port.send_room() >= 9);
    assert_eq!(port.send(&path, Some(Ecn::Ect0), &bytes, Some(1200)), Sent::Queued);
    rig::flush(port);
    for segment in bytes.chunks(1200) {
        let length = peer.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], segment);
    }
    assert_eq!(port.counters().tx_datagrams - before.tx_datagrams, 9);

    // MTU 1500 leaves 1472 bytes of payload over IPv4.
    assert_eq!(port.send(&path, None, &bytes[..1472], None), Sent::Queued);
    rig::flush(port);
    assert_eq!(peer.recv(&mut buffer).unwrap(), 1472);
    assert_eq!(port.send(&path, None, &bytes[..1473], None), Sent::Dropped);
    assert_eq!(port.send(&path, None, &bytes[..3000], Some(1473)), Sent::Dropped);
    assert_eq!(port.counters().drops.get(port::Drop::TxTooBig), 1 + 3);

    let nowhere = Path { remote: "203.0.113.1:9".parse().unwrap(), ..path };
    assert_eq!(port.send(&nowhere, None, &bytes[..2400], Some(1200)), Sent::NoRoute);
    assert_eq!(port.counters().tx_no_route - before.tx_no_route, 2);

    // Congestion experienced, from the peer to us: IP_TOS carries the ECN bits.
    rustix::net::sockopt::set_ip_tos(&peer, 0b11).unwrap();
    peer.send_to(b"ce", to).unwrap();
    let burst = rig::receive(port, 1);
    assert_eq!(burst[0].ecn, Some(Ecn::Ce));
    for received in burst {
        port.recycle(received.frame);
    }

    // No more room than frames, and what exceeds it is counted.
    let room = port.send_room();
    let many = vec![7; room + 1];
    assert_eq!(port.send(&path, None, &many, Some(1)), Sent::Dropped);
    assert_eq!(port.counters().drops.get(port::Drop::TxNoRoom), room as u64 + 1);
    assert_eq!(port.send(&path, None, &many[..room], Some(1)), Sent::Queued);
    assert_eq!(port.send_room(), 0);
    rig::flush(port);
    peer.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut arrived = 0;
    loop {
        match peer.recv(&mut buffer) {
            Ok(_) => arrived += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    // The peer's socket buffer may be smaller than a full ring; nothing may come twice.
    assert!(arrived > 0 && arrived <= room, "{arrived} of {room}");
    rig::wait_for("completions", || port.send_room() == room);
    assert_eq!(port.counters().tx_completed, port.counters().tx_datagrams);
    rig::assert_conserved(port);
}

/// A worker that never recycles starves only its own receiving; sending goes on, and recycling mends it.
#[test]
fn hoarded_frames_stop_receiving_only() {
    if !rig::root_or_skip("hoarded_frames_stop_receiving_only") {
        return;
    }
    let rig = Rig::new(1);
    let config = Config { ring_size: 64, umem_bytes: 128 * 4096, ..rig::config() };
    let (_interface, mut ports) = rig.open(&config);
    let port = &mut ports[0];
    rig.learn_neighbours(port);
    let peer = rig.socket(Side::Peer, "198.18.0.2:0");
    let to: SocketAddr = format!("{}:{PORT}", OURS[0]).parse().unwrap();
    let path = Path { local: to, remote: peer.local_addr().unwrap() };
    let mut hoard = Vec::new();
    for _ in 0..8 {
        for _ in 0..8 {
            peer.send_to(b"keep me", to).unwrap();
        }
        hoard.extend(rig::receive(port, 8));
    }
    assert_eq!(port.census().unwrap().out, 64);
    peer.send_to(b"no frame left", to).unwrap();
    rig::wait_for("the drop", || port.statistics().unwrap().rx_fill_ring_empty > 0);
    assert_eq!(port.receive(&mut Vec::new(), 64).unwrap(), 0);
    assert_eq!(port.send(&path, None, b"still sending", None), Sent::Queued);
    rig::flush(port);
    assert_eq!(peer.recv(&mut [0; 64]).unwrap(), 13);
    for received in hoard {
        port.recycle(received.frame);
    }
    assert_eq!(port.receive(&mut Vec::new(), 64).unwrap(), 0, "the refill happens here");
    peer.send_to(b"again", to).unwrap();
    let burst = rig::receive(port, 1);
    assert_eq!(&*burst[0].frame, b"again");
    for received in burst {
        port.recycle(received.frame);
    }
    rig::assert_conserved(port);
}
