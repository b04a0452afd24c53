//! Goal: what the loopback interface cannot show: a socket buffer that fills up, an MTU of 1500, a device without
//! checksum offload.
//! Method: a veth pair in a network namespace of the test thread's own (it goes when the thread does), one end in it,
//! the other silent or echoing. A destination whose neighbour does not answer keeps packets charged to the socket, so
//! that sends meet EAGAIN; a neighbour entry lets them go.

#![allow(clippy::unwrap_used, reason = "tests, also in their helpers")]

mod common;

use std::{net::SocketAddr, process::Command, thread};

use beam_udp::{Options, UdpPort};
use common::*;
use nix::sched::{CloneFlags, unshare};
use port::{Drop, Ecn, Flushed, Port, Sent};
use rustix::event::PollFlags;
use wire::Path;

/// Runs `test` on a thread in a fresh network namespace with `a0` (198.18.77.1/24, 2001:db8:77::1/64) facing `a1`.
fn on_a_link(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root (a network namespace)");
        return;
    }
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        ip("link add a0 type veth peer name a1");
        ip("address add 198.18.77.1/24 dev a0");
        ip("address add 2001:db8:77::1/64 dev a0 nodad");
        ip("link set a0 up");
        ip("link set a1 up");
        test();
    };
    thread::spawn(run).join().unwrap();
}

/// `ip(8)`, in the namespace of this thread.
fn ip(arguments: &str) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn to(port: &UdpPort, remote: &str) -> Path {
    Path {
        local: SocketAddr::new("198.18.77.1".parse().unwrap(), port.local_addr().port()),
        remote: remote.parse().unwrap(),
    }
}

#[test]
fn a_full_socket_loses_nothing_that_room_was_promised_for() {
    on_a_link(|| {
        let options = Options { send_buffer_bytes: 4096, tx_queue_datagrams: 50, ..Options::default() };
        let mut port = UdpPort::bind("198.18.77.1:0".parse().unwrap(), options).unwrap();
        let silent = to(&port, "198.18.77.2:4433");
        let mut given = 0u64;
        assert_eq!(port.send_room(), 50);
        // Fill the socket's buffer, one datagram a time, until the port has to queue.
        while port.tx_queued() == 0 {
            assert!(given < 50, "the socket never filled up");
            assert_eq!(port.send(&silent, None, &[given as u8; 1000], None), Sent::Queued);
            given += 1;
        }
        assert!(port.wants_writable() && port.send_room() == 0);
        assert_eq!((port.stats().tx_would_block, port.tx_queued()), (1, 1));
        // The rest of the promise still stands: batches and singles, behind what waits and without asking the kernel.
        let syscalls = port.counters().syscalls;
        while given + 7 <= 50 {
            assert_eq!(port.send(&silent, Some(Ecn::Ect0), &[given as u8; 6500], Some(1000)), Sent::Queued);
            given += 7;
        }
        while given < 50 {
            assert_eq!(port.send(&silent, None, &[], None), Sent::Queued);
            given += 1;
        }
        assert_eq!(port.counters().syscalls, syscalls);
        check_tx(&port, given);
        let stuck = port.tx_queued();
        assert!(!wait(&port, PollFlags::OUT, std::time::Duration::ZERO), "a full socket is not writable");
        assert!(matches!(port.flush().unwrap(), Flushed::Again(_)));
        assert_eq!(port.tx_queued(), stuck);
        // Beyond the promise: as much as fits in the queue, then counted.
        while port.tx_queued() < 50 {
            assert_eq!(port.send(&silent, None, &[2; 10], None), Sent::Queued);
            given += 1;
        }
        assert_eq!(port.send(&silent, None, &[2; 10], Some(3)), Sent::Dropped);
        given += 4;
        assert_eq!(port.counters().drops.get(Drop::TxNoRoom), 4);
        // The neighbour appears: what the kernel held leaves, the socket turns writable, and the queue follows.
        ip("neigh replace 198.18.77.2 lladdr 02:00:00:00:00:02 nud permanent dev a0");
        while port.wants_writable() {
            assert!(wait(&port, PollFlags::OUT, PATIENCE), "{} still queued", port.tx_queued());
            port.flush().unwrap();
            check_tx(&port, given);
        }
        assert_eq!(port.flush().unwrap(), Flushed::Idle);
        assert_eq!((port.tx_queued(), port.send_room()), (0, 50));
        assert_eq!(port.counters().tx_datagrams, given - 4);
        assert!(port.stats().tx_queued >= 50);
    });
}

#[test]
fn the_queue_keeps_order_addresses_and_ecn() {
    on_a_link(|| {
        // Two neighbours: one silent, which fills the socket; behind it, this host itself, which would answer at once.
        let options = Options { send_buffer_bytes: 4096, ..Options::default() };
        let mut port = UdpPort::bind("0.0.0.0:0".parse().unwrap(), options).unwrap();
        let mut here = UdpPort::bind("198.18.77.1:0".parse().unwrap(), Options::default()).unwrap();
        let silent = to(&port, "198.18.77.2:4433");
        let local = Path { remote: here.local_addr(), ..silent };
        while port.tx_queued() == 0 {
            port.send(&silent, None, &[0; 1000], None);
        }
        for i in 1..=20u8 {
            port.send(&local, i.is_multiple_of(2).then_some(Ecn::Ce), &[i; 250], Some(100));
        }
        assert!(receive_now(&mut here).is_empty(), "nothing overtakes what waits");
        ip("neigh replace 198.18.77.2 lladdr 02:00:00:00:00:02 nud permanent dev a0");
        while port.wants_writable() {
            assert!(wait(&port, PollFlags::OUT, PATIENCE));
            port.flush().unwrap();
        }
        let seen = receive(&mut here, 60);
        for (at, one) in seen.iter().enumerate() {
            let i = (at / 3 + 1) as u8;
            let wanted = vec![i; if at % 3 == 2 { 50 } else { 100 }];
            assert_eq!((&one.bytes, one.ecn), (&wanted, i.is_multiple_of(2).then_some(Ecn::Ce)));
            assert_eq!(one.path, Path { local: local.remote, remote: local.local });
        }
    });
}

#[test]
fn beyond_the_mtu_is_counted_and_the_rest_of_the_batch_goes() {
    on_a_link(|| {
        for (bound, remote, fits) in [
            ("198.18.77.1:0", "198.18.77.2:4433", 1472),
            ("[2001:db8:77::1]:0", "[2001:db8:77::2]:4433", 1452),
        ] {
            let neighbour = if bound.starts_with('[') { "2001:db8:77::2" } else { "198.18.77.2" };
            ip(&format!("neigh replace {neighbour} lladdr 02:00:00:00:00:02 nud permanent dev a0"));
            let mut port = bind(bound);
            let path = Path { local: port.local_addr(), remote: remote.parse().unwrap() };
            assert_eq!(port.send(&path, None, &vec![0; fits * 3], Some(fits)), Sent::Queued);
            assert_eq!((port.counters().tx_datagrams, port.stats().tx_gso_batches), (3, 1));
            // A probe of one datagram, then a batch whose full segments are too big and whose last one fits.
            assert_eq!(port.send(&path, None, &vec![0; fits + 1], None), Sent::Dropped);
            assert_eq!(port.counters().drops.get(Drop::TxTooBig), 1);
            assert_eq!(port.send(&path, None, &vec![0; (fits + 1) * 4 + 9], Some(fits + 1)), Sent::Queued);
            assert_eq!(port.counters().drops.get(Drop::TxTooBig), 1 + 4);
            assert_eq!(port.counters().tx_datagrams, 3 + 1);
            assert_eq!(port.send(&path, None, &vec![0; (fits + 1) * 4], Some(fits + 1)), Sent::Dropped);
            assert_eq!(port.counters().drops.get(Drop::TxTooBig), 1 + 4 + 4);
            // None of it turns GSO off.
            port.flush().unwrap();
            assert_eq!(port.send(&path, None, &vec![0; fits * 64], Some(fits)), Sent::Queued);
            assert_eq!(port.segments_max(), 64);
            check_tx(&port, 3 + 1 + 5 + 4 + 64);
        }
    });
}

#[test]
fn no_route_and_a_firewall_are_not_fatal() {
    on_a_link(|| {
        let mut port = bind("0.0.0.0:0");
        let nowhere = Path { local: port.local_addr(), remote: "203.0.113.9:443".parse().unwrap() };
        assert_eq!(port.send(&nowhere, None, &[1; 100], Some(10)), Sent::Dropped);
        assert_eq!((port.stats().tx_unreachable, port.counters().drops.get(Drop::TxError)), (10, 10));
        ip("route add prohibit 203.0.113.0/24");
        assert_eq!(port.send(&nowhere, None, &[1; 100], None), Sent::Dropped);
        assert_eq!((port.stats().tx_forbidden, port.counters().drops.get(Drop::TxError)), (1, 11));
        assert_eq!(port.flush().unwrap(), Flushed::Idle);
        check_tx(&port, 11);
    });
}

#[test]
fn a_device_without_checksum_offload_loses_nothing() {
    on_a_link(|| {
        if Command::new("ethtool").arg("--version").output().is_err() {
            eprintln!("SKIPPED: needs ethtool");
            return;
        }
        ip("neigh replace 198.18.77.2 lladdr 02:00:00:00:00:02 nud permanent dev a0");
        run("ethtool", "-K a0 tx off");
        let mut port = bind("198.18.77.1:0");
        let path = to(&port, "198.18.77.2:4433");
        assert_eq!(port.send(&path, Some(Ecn::Ect0), &[1; 10_000], Some(1000)), Sent::Queued);
        port.flush().unwrap();
        assert_eq!((port.counters().tx_datagrams, port.counters().drops), (10, Default::default()));
        // Since Linux 6.11 the kernel segments in software; before, it answers EIO and the port sends one by one.
        assert_eq!(port.stats().tx_gso_fallbacks, u64::from(port.segments_max() == 1));
        check_tx(&port, 10);
    });
}
