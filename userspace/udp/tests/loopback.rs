//! Goal: every datagram given to one port arrives at the other, whole, once, with its addresses and ECN bits.
//! Method: two real sockets on the loopback interface; every count is exact.

#![allow(clippy::unwrap_used, reason = "tests, also in their helpers")]

mod common;

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    process::Command,
};

use beam_udp::{Options, UdpPort};
use common::*;
use port::{Drop, Ecn, Flushed, Port, Sent};
use wire::Path;

fn pair(address: &str) -> (UdpPort, UdpPort) {
    (bind(address), bind(address))
}

fn path(from: &UdpPort, to: &UdpPort) -> Path {
    Path { local: from.local_addr(), remote: to.local_addr() }
}

/// `count` datagrams of `size` bytes that all differ.
fn numbered(count: usize, size: usize) -> Vec<u8> {
    (0..count).flat_map(|i| (0..size).map(move |at| (i * 31 + at) as u8)).collect()
}

#[test]
fn a_batch_arrives_as_the_same_datagrams_both_families() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (mut a, mut b) = pair(address);
        let there = path(&a, &b);
        let bytes = [numbered(63, 1200), vec![9; 300]].concat();
        assert!(a.send_room() >= 64);
        assert_eq!(a.send(&there, None, &bytes, Some(1200)), Sent::Queued);
        assert_eq!(a.flush().unwrap(), Flushed::Idle);
        let seen = receive(&mut b, 64);
        let wanted: Vec<&[u8]> = bytes.chunks(1200).collect();
        assert!(seen.iter().map(|one| one.bytes.as_slice()).eq(wanted));
        assert!(seen.iter().all(|one| one.path == Path { local: there.remote, remote: there.local }));
        // 64 x 1200 bytes are more than one message may carry: 54 and 10.
        assert_eq!((a.counters().tx_datagrams, a.counters().syscalls), (64, 2));
        assert_eq!(a.counters().tx_bytes, bytes.len() as u64);
        assert_eq!(a.stats().tx_gso_batches, 2);
        assert_eq!((b.counters().rx_delivered, b.counters().rx_bytes), (64, bytes.len() as u64));
        assert_eq!(b.stats().rx_gro_batches, 2, "what left as two batches arrived as two");
        check_tx(&a, 64);
    }
}

#[test]
fn every_count_and_size_around_the_limits_of_a_message() {
    let (mut a, mut b) = pair("127.0.0.1:0");
    let there = path(&a, &b);
    let mut given = 0;
    for (size, count, short) in [
        (1, 64, 0),
        (1, 65, 0),
        (1200, 1, 0),
        (1200, 2, 1),
        (1452, 45, 1451),
        (1452, 46, 0),
        (1024, 63, 995),
        (1024, 64, 0),
        (32_753, 2, 0),
        (32_754, 2, 0),
        (65_507, 2, 1),
    ] {
        let mut bytes = numbered(count, size);
        bytes.extend(vec![7; short]);
        let datagrams = bytes.len().div_ceil(size);
        assert_eq!(a.send(&there, None, &bytes, Some(size)), Sent::Queued);
        given += datagrams as u64;
        let seen = receive(&mut b, datagrams);
        assert!(
            seen.iter().map(|one| one.bytes.as_slice()).eq(bytes.chunks(size)),
            "{count} x {size} + {short}"
        );
    }
    assert_eq!(a.counters().tx_datagrams, given);
    assert_eq!(a.stats().tx_gso_fallbacks, 0);
    check_tx(&a, given);
}

#[test]
fn ecn_bits_travel_both_ways_in_single_datagrams_and_in_batches() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (mut a, mut b) = pair(address);
        let there = path(&a, &b);
        for ecn in [None, Some(Ecn::Ect0), Some(Ecn::Ect1), Some(Ecn::Ce)] {
            a.send(&there, ecn, &[1; 100], None);
            let seen = receive(&mut b, 1);
            assert_eq!(seen[0].ecn, ecn, "{address}");
            let back = seen[0].path;
            b.send(&back, ecn, &[2; 3000], Some(1000));
            let seen = receive(&mut a, 3);
            assert!(
                seen.iter().all(|one| one.ecn == ecn),
                "{address}: {:?} in a batch, sent {ecn:?}",
                seen[0].ecn
            );
        }
        assert!(a.stats().rx_gro_batches > 0);
    }
}

#[test]
fn a_wildcard_socket_knows_and_keeps_the_address_that_was_asked() {
    for (wildcard, asked) in [("0.0.0.0:0", "127.0.0.77"), ("[::]:0", "::1"), ("[::]:0", "127.0.0.77")] {
        let mut server = bind(wildcard);
        let asked = SocketAddr::new(asked.parse().unwrap(), server.local_addr().port());
        let client = UdpSocket::bind(if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(b"who", asked).unwrap();
        let seen = receive(&mut server, 1);
        assert_eq!(seen[0].path, Path { local: asked, remote: client.local_addr().unwrap() }, "never mapped");
        server.send(&seen[0].path, Some(Ecn::Ect0), b"me me ", Some(3));
        let mut buffer = [0; 9];
        for _ in 0..2 {
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (3, asked), "{wildcard} asked as {asked}");
        }
    }
}

#[test]
fn ecn_of_ipv4_over_a_dual_stack_socket() {
    let (mut dual, mut plain) = (bind("[::]:0"), bind("127.0.0.1:0"));
    let dual_addr = SocketAddr::new("127.0.0.1".parse().unwrap(), dual.local_addr().port());
    let there = Path { local: dual_addr, remote: plain.local_addr() };
    dual.send(&there, Some(Ecn::Ect1), &[1; 2000], Some(1000));
    assert!(
        receive(&mut plain, 2).iter().all(|one| one.ecn == Some(Ecn::Ect1) && one.path.remote == dual_addr)
    );
    let back = Path { local: there.remote, remote: there.local };
    plain.send(&back, Some(Ecn::Ce), &[1; 2000], Some(1000));
    assert!(receive(&mut dual, 2).iter().all(|one| one.ecn == Some(Ecn::Ce) && one.path == there));
}

#[test]
fn the_largest_datagrams_and_one_byte_more() {
    for (address, largest) in [("127.0.0.1:0", 65_507), ("[::1]:0", 65_527)] {
        let (mut a, mut b) = pair(address);
        let there = path(&a, &b);
        // The loopback interface has an MTU of 65,536, and these sockets do not fragment.
        let fits = if address.starts_with('[') { 65_488 } else { largest };
        assert_eq!(a.send(&there, None, &vec![5; fits], None), Sent::Queued, "{address}");
        assert_eq!(receive(&mut b, 1)[0].bytes, vec![5; fits]);
        for too_big in [largest + 1, 70_000] {
            assert_eq!(a.send(&there, None, &vec![5; too_big], None), Sent::Dropped, "{address}");
        }
        assert_eq!(a.counters().drops.get(Drop::TxTooBig), 2);
        assert_eq!(a.send(&there, None, b"fine again", None), Sent::Queued);
        receive(&mut b, 1);
        check_tx(&a, 4);
    }
}

#[test]
fn an_empty_datagram_is_sent_and_on_arrival_counted_as_malformed() {
    let (mut a, mut b) = pair("127.0.0.1:0");
    let there = path(&a, &b);
    for bytes in [&b"first"[..], b"", b"last"] {
        assert_eq!(a.send(&there, None, bytes, None), Sent::Queued);
    }
    assert_eq!(a.send(&there, None, b"", Some(1200)), Sent::Queued);
    let seen = receive(&mut b, 2);
    assert_eq!((seen[0].bytes.as_slice(), seen[1].bytes.as_slice()), (&b"first"[..], &b"last"[..]));
    assert_eq!(b.counters().drops.get(Drop::RxMalformed), 2);
    assert_eq!((b.counters().rx_datagrams, b.counters().rx_delivered), (4, 2));
    assert_eq!(b.free_frames(), Options::default().frame_count, "a discarded message costs no frame");
    check_tx(&a, 4);
}

#[test]
fn without_free_frames_datagrams_wait_in_the_socket() {
    let mut a = bind("127.0.0.1:0");
    let options = Options { frame_count: 2, ..Options::default() };
    let mut b = UdpPort::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
    let there = path(&a, &b);
    for i in 0..5u8 {
        a.send(&there, None, &[i], None);
    }
    let (mut held, mut order) = (Vec::new(), Vec::new());
    assert_eq!(b.receive(&mut held, 64).unwrap(), 2);
    assert_eq!(b.receive(&mut held, 64).unwrap(), 0);
    assert_eq!(b.stats().rx_no_frame, 2, "once in the burst that ran out, once in the next");
    while !held.is_empty() {
        order.extend(open(&mut b, std::mem::take(&mut held)).into_iter().map(|one| one.bytes[0]));
        b.receive(&mut held, 64).unwrap();
    }
    assert_eq!(order, [0, 1, 2, 3, 4]);
    assert_eq!(b.free_frames(), 2);
    check_rx(&b);
}

#[test]
fn a_burst_takes_no_more_than_asked() {
    let (mut a, mut b) = pair("127.0.0.1:0");
    let there = path(&a, &b);
    for i in 0..100u8 {
        a.send(&there, None, &[i], None);
    }
    let mut burst = Vec::new();
    let mut sizes = Vec::new();
    for max in [0, 1, 33, 64, 64] {
        sizes.push(b.receive(&mut burst, max).unwrap());
    }
    assert_eq!(sizes, [0, 1, 33, 64, 2]);
    assert!(open(&mut b, burst).iter().map(|one| one.bytes[0]).eq(0..100));
    assert_eq!(b.counters().rx_bursts, 4);
    check_rx(&b);
}

#[test]
fn a_refused_datagram_is_counted_and_spoils_nothing() {
    let (mut a, mut b) = pair("127.0.0.1:0");
    let good = path(&a, &b);
    let nowhere = |text: &str| Path { remote: text.parse().unwrap(), ..good };
    // Port 0 and another family are refused here; a source that can be nobody's by the kernel (EINVAL).
    assert_eq!(a.send(&nowhere("127.0.0.1:0"), None, &[1; 10], None), Sent::Dropped);
    assert_eq!(a.send(&nowhere("[::1]:9"), None, &[1; 10], Some(5)), Sent::Dropped);
    assert_eq!(a.counters().syscalls, 0);
    let not_ours = SocketAddr::new("224.0.0.9".parse().unwrap(), a.local_addr().port());
    let not_ours = Path { local: not_ours, ..good };
    assert_eq!(a.send(&not_ours, None, &[1; 10], Some(3)), Sent::Dropped);
    assert_eq!(a.counters().drops.get(Drop::TxError), 1 + 2 + 4);
    // A closed port answers with ICMP; an unconnected socket does not hear of it.
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(a.send(&Path { remote: closed, ..good }, None, &[1; 10], None), Sent::Queued);
    a.flush().unwrap();
    assert_eq!(a.send(&good, Some(Ecn::Ect0), &[1; 10], Some(5)), Sent::Queued);
    let seen = receive(&mut b, 2);
    assert!(seen.iter().all(|one| one.ecn == Some(Ecn::Ect0)), "ECN survives an EINVAL: {:?}", seen[0].ecn);
    assert_eq!((a.stats().tx_state_rebuilt, a.segments_max()), (1, 64));
    assert_eq!(a.stats().tx_gso_batches, 1, "and so does GSO");
    check_tx(&a, 1 + 2 + 4 + 1 + 2);
}

/// Sets SO_NO_CHECK, with which the kernel answers EINVAL to any GSO message. No crate here wraps it, so another
/// process does it to the socket that it gets as its standard input.
fn forbid_gso(port: &UdpPort) -> bool {
    let script = "import socket; socket.socket(fileno=0).setsockopt(socket.SOL_SOCKET, 11, 1)";
    let socket = port.as_fd().try_clone_to_owned().unwrap();
    match Command::new("python3").args(["-c", script]).stdin(socket).status() {
        Ok(status) => status.success(),
        Err(_) => false,
    }
}

#[test]
fn where_gso_fails_single_datagrams_go_and_gso_is_given_up() {
    let (mut a, mut b) = pair("127.0.0.1:0");
    if !forbid_gso(&a) {
        eprintln!("SKIPPED: needs python3 to set a socket option");
        return;
    }
    let there = path(&a, &b);
    let bytes = numbered(64, 1000);
    assert_eq!(a.segments_max(), 64);
    assert_eq!(a.send(&there, None, &bytes, Some(1000)), Sent::Queued);
    assert_eq!((a.segments_max(), a.stats().tx_gso_fallbacks, a.stats().tx_gso_batches), (1, 1, 0));
    assert!(receive(&mut b, 64).iter().map(|one| one.bytes.as_slice()).eq(bytes.chunks(1000)));
    assert_eq!(a.flush().unwrap(), Flushed::Idle);
    assert_eq!(a.send(&there, Some(Ecn::Ect0), &bytes, Some(1000)), Sent::Queued);
    assert!(receive(&mut b, 64).iter().all(|one| one.ecn == Some(Ecn::Ect0)), "ECN came back at the flush");
    assert_eq!((a.stats().tx_gso_fallbacks, a.stats().tx_state_rebuilt), (1, 1));
    check_tx(&a, 128);
}

#[test]
fn rebuilding_the_send_state_is_bounded() {
    let (mut a, b) = pair("127.0.0.1:0");
    let not_ours = SocketAddr::new("224.0.0.9".parse().unwrap(), a.local_addr().port());
    let not_ours = Path { local: not_ours, remote: b.local_addr() };
    for _ in 0..1000 {
        assert_eq!(a.send(&not_ours, None, &[1; 10], None), Sent::Dropped);
        a.flush().unwrap();
    }
    assert_eq!((a.stats().tx_state_rebuilt, a.counters().drops.get(Drop::TxError)), (1, 1000));
    check_tx(&a, 1000);
}

#[test]
fn what_the_kernel_drops_is_visible() {
    let mut a = bind("127.0.0.1:0");
    let options = Options { receive_buffer_bytes: 4096, ..Options::default() };
    let mut b = UdpPort::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
    assert_eq!(b.kernel_drops().unwrap(), 0);
    let there = path(&a, &b);
    for _ in 0..100 {
        a.send(&there, None, &[1; 1200], None);
    }
    let mut arrived = 0;
    loop {
        match receive_now(&mut b).len() {
            0 => break,
            n => arrived += n as u64,
        }
    }
    let lost = b.kernel_drops().unwrap();
    assert!(lost > 0 && arrived > 0);
    assert_eq!(arrived + lost, 100, "in = out + drops");
    let mut six = UdpPort::bind("[::]:0".parse().unwrap(), Options::default()).unwrap();
    assert_eq!(six.kernel_drops().unwrap(), 0);
    assert!(receive_now(&mut six).is_empty());
}

#[test]
fn a_long_exchange_loses_and_doubles_nothing() {
    let seed = 0x5eed_u64;
    println!("seed {seed:#x}");
    let mut state = seed;
    // A 64-bit linear congruential generator (Knuth's MMIX constants): enough to vary sizes.
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut a, mut b) = pair("[::1]:0");
    let there = path(&a, &b);
    let (mut given, mut got) = (0u64, 0u64);
    for round in 0..400 {
        let size = 1 + random(1500);
        let bytes = vec![round as u8; 1 + random(size * 64)];
        let datagrams = bytes.len().div_ceil(size);
        assert!(a.send_room() >= datagrams);
        assert_eq!(a.send(&there, None, &bytes, Some(size)), Sent::Queued);
        given += datagrams as u64;
        let seen = receive(&mut b, datagrams);
        assert!(seen.iter().map(|one| one.bytes.as_slice()).eq(bytes.chunks(size)));
        got += datagrams as u64;
        check_tx(&a, given);
    }
    assert_eq!((a.counters().tx_datagrams, b.counters().rx_delivered), (given, got));
    assert_eq!(a.counters().tx_bytes, b.counters().rx_bytes);
    assert_eq!(b.free_frames(), Options::default().frame_count);
}
