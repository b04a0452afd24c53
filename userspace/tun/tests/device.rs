//! Goal: a device is made with its queues, gets addresses, MTU and routes, refuses a taken name by saying so, carries
//! packets both ways, super-packets too, and is gone with its descriptors. Method: a network namespace of this process's
//! own (a thread that unshares it); kernel sockets as the peers.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

use bytes::Bytes;
use ip::{InnerPort, InnerSink, Split, View, Vnet, vnet::Gso};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};
use tun::{Device, TunError};

/// Runs on a thread in a fresh network namespace; says aloud if there can't be one.
fn in_namespace(test: &str, work: impl FnOnce() + Send + 'static) {
    let can = std::thread::spawn(move || {
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for the same reasons, which don't hold: one thread"
        )]
        let unshared = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET);
        if unshared.is_err() {
            return false;
        }
        work();
        true
    });
    match can.join() {
        Ok(true) => {}
        Ok(false) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED: needs root: {test}");
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[derive(Default)]
struct Taken(Vec<(Vnet, Vec<u8>)>);

impl InnerSink for Taken {
    fn wants_more(&mut self) -> bool {
        true
    }

    fn packet(&mut self, vnet: Vnet, packet: &[u8]) {
        self.0.push((vnet, packet.to_vec()));
    }
}

fn up(name: &str, queues: usize) -> Device {
    let mut device = Device::create(name, queues).unwrap();
    device.network.bring_up(1400, 500).unwrap();
    device.network.add_address("198.18.64.1".parse().unwrap(), 24).unwrap();
    device.network.add_address("2001:db8:64::1".parse().unwrap(), 64).unwrap();
    device
}

fn exists(name: &str) -> bool {
    tun::Network::of(name).is_ok()
}

#[test]
fn life_of_a_device() {
    in_namespace("life_of_a_device", || {
        let mut device = up("beamt0", 3);
        assert_eq!(device.queues.len(), 3);
        let taken = Device::create("beamt0", 1).unwrap_err();
        assert!(matches!(taken, TunError::NameTaken { .. }), "{taken}");
        assert!(matches!(Device::create("lo", 1).unwrap_err(), TunError::NameTaken { .. }));

        let network = &mut device.network;
        let prefix = "10.1.0.0/16".parse().unwrap();
        network.add_route(prefix, Some("198.18.64.1".parse().unwrap())).unwrap();
        let twice = network.add_route(prefix, None).unwrap_err();
        assert!(twice.to_string().contains("ip route add 10.1.0.0/16 dev beamt0"), "{twice}");
        network.add_route("2001:db8:77::/48".parse().unwrap(), None).unwrap();
        network.set_mtu(1380).unwrap();
        network.remove_route(prefix).unwrap();
        network.remove_route(prefix).unwrap();
        network.remove_address("198.18.64.1".parse().unwrap(), 24).unwrap();
        network.remove_address("198.18.64.1".parse().unwrap(), 24).unwrap();
        drop(device);
        assert!(!exists("beamt0"), "the device is gone with its last descriptor");
    });
}

/// UDP out of the kernel with a checksum that is completed here, and the answer into it.
#[test]
fn packets_both_ways() {
    in_namespace("packets_both_ways", || {
        for (local, peer) in [("198.18.64.1", "198.18.64.9"), ("2001:db8:64::1", "2001:db8:64::9")] {
            let mut device = up("beamt1", 1);
            let local: std::net::IpAddr = local.parse().unwrap();
            let socket = UdpSocket::bind((local, 7000)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            socket.send_to(b"out", (peer.parse::<std::net::IpAddr>().unwrap(), 7001)).unwrap();
            let queue = &mut device.queues[0];
            let mut taken = Taken::default();
            queue.receive(Instant::now(), &mut taken).unwrap();
            let packets: Vec<_> =
                taken.0.into_iter().filter(|(_, packet)| packet.ends_with(b"out")).collect();
            let [(vnet, packet)] = &packets[..] else { panic!("{packets:?}") };
            assert!(vnet.needs_checksum, "the kernel leaves it to us");
            let split = Split::new(*vnet, packet).unwrap();
            let mut out = vec![0; split.segment_bytes_max()];
            split.write(0, &mut out).unwrap();
            let view = View::read(&out).unwrap();
            assert_eq!(ip::checksum::judge(&out, &view), ip::checksum::Transport::Good);

            // Back: ends and ports swapped, which leaves every checksum as it is.
            let (at, length) = if local.is_ipv4() { (12, 4) } else { (8, 16) };
            let (ends, ports) = (at..at + length, view.transport_offset..view.transport_offset + 2);
            swap(&mut out, ends, length);
            swap(&mut out, ports, 2);
            // The kernel brings in the route to a new IPv6 address of its own from a work queue, a little after the address
            // may be bound, and drops what comes earlier: so it is sent until it has arrived.
            let packet = Bytes::from(out);
            let limit = Instant::now() + Duration::from_secs(10);
            let mut buffer = [0; 16];
            let length = loop {
                queue.send(packet.clone());
                queue.flush(Instant::now()).unwrap();
                match socket.recv(&mut buffer) {
                    Ok(length) => break length,
                    Err(error) => assert!(Instant::now() < limit, "{local}: {error}"),
                }
            };
            assert_eq!(&buffer[..length], b"out");
        }
    });
}

/// What the kernel has no room for is told by one queue of the device, and by one only.
#[test]
fn a_full_queue_is_counted() {
    const SENT: u64 = 700;
    in_namespace("a_full_queue_is_counted", || {
        // IPv4 alone: nothing else is sent than what the test sends.
        let mut device = Device::create("beamt4", 1).unwrap();
        device.network.bring_up(1400, 500).unwrap();
        device.network.add_address("198.18.64.1".parse().unwrap(), 24).unwrap();
        let dropped = |queue: &tun::Queue, wanted: &str| {
            let mut found = 0;
            queue.drops(&mut |name, count| found += if name == wanted { count } else { 0 });
            found
        };
        let queue = &mut device.queues[0];
        let before = dropped(queue, "tun_queue_full");
        queue.receive(Instant::now(), &mut Taken::default()).unwrap();
        let socket = UdpSocket::bind("198.18.64.1:7000").unwrap();
        let refused =
            (0..SENT).filter(|_| socket.send_to(b"out", "198.18.64.9:7001").is_err()).count() as u64;
        let mut taken = Taken::default();
        while queue.receive(Instant::now(), &mut taken).unwrap() {}
        let arrived = taken.0.iter().filter(|(_, packet)| packet.ends_with(b"out")).count() as u64;
        assert!(arrived < SENT, "the queue holds 500");
        // The sender may have been told, too; the kernel counts those all the same.
        println!("{SENT} sent, {arrived} arrived, {refused} refused");
        assert_eq!(dropped(queue, "tun_queue_full") - before, SENT - arrived);
    });
}

fn swap(bytes: &mut [u8], first: std::ops::Range<usize>, length: usize) {
    for at in first {
        bytes.swap(at, at + length);
    }
}

/// Two devices, in one namespace each, joined by this test as a tunnel would: every super-packet is split, every packet
/// handed over alone, and put together again. One TCP transfer arrives whole, and both sides had super-packets.
#[test]
fn a_transfer_through_two_devices() {
    const BYTES: usize = 20_000_000;
    in_namespace("a_transfer_through_two_devices", || {
        let mut near = Device::create("beamt2", 1).unwrap();
        near.network.bring_up(1400, 500).unwrap();
        near.network.add_address("198.18.64.2".parse().unwrap(), 24).unwrap();
        let (give, take) = std::sync::mpsc::channel();
        let far = std::thread::spawn(move || {
            #[expect(deprecated, reason = "as above")]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            let mut far = Device::create("beamt3", 1).unwrap();
            far.network.bring_up(1400, 500).unwrap();
            far.network.add_address("198.18.64.1".parse().unwrap(), 24).unwrap();
            let listener = TcpListener::bind("198.18.64.1:5201").unwrap();
            give.send(far.queues.remove(0)).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            drop(far);
            received
        });
        let mut queues = [near.queues.remove(0), take.recv().unwrap()];
        let sender = std::thread::spawn(|| {
            // The namespace is that of the thread that spawned this one.
            let mut stream = TcpStream::connect("198.18.64.1:5201").unwrap();
            stream.write_all(&pattern(BYTES)).unwrap();
        });
        let mut supers = [0_usize; 2];
        let limit = Instant::now() + Duration::from_secs(60);
        while !far.is_finished() {
            assert!(Instant::now() < limit, "the transfer took too long");
            let mut idle = true;
            for from in 0..2 {
                let mut taken = Taken::default();
                queues[from].receive(Instant::now(), &mut taken).unwrap();
                idle &= taken.0.is_empty();
                for (vnet, packet) in taken.0 {
                    supers[from] += usize::from(vnet.gso != Gso::None);
                    let split = Split::new(vnet, &packet).unwrap();
                    for index in 0..split.count() {
                        let mut out = vec![0; split.segment_bytes(index)];
                        split.write(index, &mut out).unwrap();
                        assert!(out.len() <= 1400);
                        queues[1 - from].send(Bytes::from(out));
                    }
                }
                queues[1 - from].flush(Instant::now()).unwrap();
            }
            if idle {
                std::thread::yield_now();
            }
        }
        sender.join().unwrap();
        assert!(far.join().unwrap() == pattern(BYTES), "the bytes arrived as they were sent");
        assert!(supers[0] > 0, "the kernel gave super-packets");
        let counter = |name: &str| {
            let mut found = 0;
            queues[1].counters(&mut |of, value| found += if of == name { value } else { 0 });
            found
        };
        let (writes, packets) = (counter("tun_writes"), counter("tun_write_packets"));
        println!("{packets} packets in {writes} writes; {} super-packets read", supers[0]);
        queues[1].drops(&mut |name, count| assert_eq!((name, count), (name, 0)));
        assert!(writes * 4 < packets, "{packets} packets took {writes} writes");
    });
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}
