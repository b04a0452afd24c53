//! Goal: a tunnel whose packets land on another worker's queue works as any other: every byte arrives, every frame goes
//! home, every datagram is accounted for; and a tunnel that has nothing to do costs nothing.
//! Method: a NAT between client and gateway (a relay of the test) whose source ports fall on different queues of the
//! gateway: on veth and with SO_REUSEPORT alike, the queue follows from the port. It is rebound before and during
//! transfers; the gateway's own counters of hand-over, migration and frames are then compared.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use pair::{FORWARD_PORT, Place, number, over_workers, settled, until, workers};
use rig::{Beam, EchoServer, GATEWAY_V4, ORIGIN_V4};
use serde_json::Value;
use tools::relay::Relay;
use tools::stranger::{one_port_each, received};
use tools::{Tunnel, counter, dial, random_bytes, seed};

const NATIVE: &[&str] = &["--xdp", "native", "-i", "g0", "--umem", "16"];
const KERNEL: &[&str] = &["--xdp", "off"];
/// Frames of one queue with that UMEM.
const UMEM_FRAMES: u64 = (16 << 20) / 4096;

/// Gateway, relay and client; the relay's `first` back is the one that worker `first` hears.
struct Nat {
    stream: TcpStream,
    client: Beam,
    relay: Relay,
    gateway: Beam,
    echo: EchoServer,
    /// Goes last.
    _place: Place,
}

fn nat(flags: &[&str]) -> Nat {
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, rig::Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, flags);
    let relay = Relay::start(
        &place.rig,
        one_port_each(&place.rig, &gateway).expect("64 ports fall on both queues").into(),
    );
    let client = tools::relayed_client(&place, &relay, &echo);
    let stream = dial(&place, FORWARD_PORT);
    Nat { stream, client, relay, gateway, echo, _place: place }
}

/// Sends everything and reads it back, and lets `on_the_way` know how far it is.
fn echo_all(stream: &mut TcpStream, payload: &Arc<Vec<u8>>, mut on_the_way: impl FnMut(usize)) {
    let mut sending = stream.try_clone().unwrap();
    let sent = payload.clone();
    let writer = std::thread::spawn(move || {
        sending.write_all(&sent).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    let mut echoed = vec![0; payload.len()];
    let mut length = 0;
    while length < echoed.len() {
        let until = echoed.len().min(length + (64 << 10));
        let n = stream.read(&mut echoed[length..until]).unwrap();
        assert!(n > 0, "the end after {length} of {} bytes", payload.len());
        length += n;
        on_the_way(length);
    }
    assert!(echoed == **payload, "other bytes came back");
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the end follows the last byte");
    writer.join().unwrap();
}

/// Everything that the gateway received is delivered or dropped under a name, and what was handed out was handed in.
fn assert_conserved(status: &Value) {
    let sums = &status["conservation"];
    assert_eq!((&sums["holds"], number(sums, "in_flight")), (&Value::Bool(true), 0), "{status:#}");
    let delivered_or_dropped = number(sums, "delivered") + number(sums, "dropped");
    assert_eq!(number(sums, "frames_in"), delivered_or_dropped, "{status:#}");
    assert_eq!(over_workers(status, "handed_out"), over_workers(status, "handed_in"), "{status:#}");
    workers(status).for_each(frames_are_home);
}

/// Every frame of a silent worker's AF_XDP sockets is idle, or waits for the NIC on a fill ring.
fn frames_are_home(worker: &Value) {
    let sockets = worker["frames"].as_array().unwrap();
    assert_eq!(sockets.len(), worker["queues"].as_array().unwrap().len(), "{worker:#}");
    for frames in sockets {
        let away = ["rx", "tx", "completion", "out"].map(|holder| number(frames, holder));
        assert_eq!((away, &frames["holds"]), ([0; 4], &Value::Bool(true)), "{worker:#}");
        assert_eq!(number(frames, "free") + number(frames, "fill"), UMEM_FRAMES, "{worker:#}");
    }
}

// The whole upload arrives on the queue of a worker that doesn't own the connection. With more packets than that queue
// has frames, the transfer ends only if the frames come home.
fn a_large_transfer_is_handed_over(test: &str, flags: &[&str]) {
    const BYTES: usize = 32 << 20;
    if !rig::root_or_skip(test) {
        return;
    }
    let payload = Arc::new(random_bytes(seed(test), BYTES));
    let mut nat = nat(flags);
    nat.stream.write_all(b"?").unwrap();
    nat.stream.read_exact(&mut [0]).unwrap();
    let before = nat.gateway.status();
    assert_eq!(over_workers(&before, "handed_out"), 0, "the owner hears its own connection: {before:#}");
    let owner = workers(&before).position(|worker| number(worker, "connections") == 1).expect("one has it");
    assert_eq!(owner, 0, "the first port is worker 0's");

    nat.relay.rebind(1);
    echo_all(&mut nat.stream, &payload, |_| {});
    let status = settled(&nat.gateway);
    assert_conserved(&status);
    let worker = |n: usize| workers(&status).nth(n).unwrap();
    assert_eq!((number(worker(0), "handed_out"), number(worker(1), "handed_in")), (0, 0), "{status:#}");
    let handed = number(worker(1), "handed_out");
    let dropped =
        status["drops"].as_object().unwrap().iter().filter(|(name, _)| name.starts_with("handover_"));
    let dropped: u64 = dropped.map(|(_, n)| n.as_u64().unwrap()).sum();
    assert!(handed > 2 * UMEM_FRAMES, "{handed} frames were handed over: {status:#}");
    // What worker 1 received beside it were its probes.
    assert!(received(worker(1)) <= handed + dropped + 64, "{status:#}");
    assert!(counter(&status, "migrations") >= 1 && counter(&status, "paths_validated") >= 1, "{status:#}");
    assert_eq!(counter(&status, "connections_closed"), 0);
    assert_eq!((counter(&nat.client.status(), "reconnects"), nat.echo.echoed_bytes()), (0, BYTES as u64 + 1));
    eprintln!("{handed} handed over, {dropped} dropped on the way");
}

#[test]
fn a_large_transfer_is_handed_over_with_af_xdp() {
    a_large_transfer_is_handed_over("a_large_transfer_is_handed_over_with_af_xdp", NATIVE);
}

#[test]
fn a_large_transfer_is_handed_over_with_kernel_udp() {
    a_large_transfer_is_handed_over("a_large_transfer_is_handed_over_with_kernel_udp", KERNEL);
}

// RFC 9000 9: the connection survives a change of the client's address. Method: the NAT rebinds in the middle of a
// transfer in both directions, to and fro, each time after a part of the bytes has come back.
fn rebinding_in_mid_transfer(test: &str, flags: &[&str]) {
    const BYTES: usize = 32 << 20;
    const REBINDS: usize = 3;
    if !rig::root_or_skip(test) {
        return;
    }
    let payload = Arc::new(random_bytes(seed(test), BYTES));
    let mut nat = nat(flags);
    let mut done = 0;
    let relay = &nat.relay;
    echo_all(&mut nat.stream, &payload, |length| {
        if done < REBINDS && length >= (done + 1) * BYTES / (REBINDS + 1) {
            done += 1;
            relay.rebind(done % 2);
        }
    });
    assert_eq!(done, REBINDS);
    let status = settled(&nat.gateway);
    assert_conserved(&status);
    assert!(counter(&status, "migrations") >= REBINDS as u64, "{status:#}");
    assert!(over_workers(&status, "handed_out") > 0, "{status:#}");
    assert!(relay.outward_count(0) > 0 && relay.outward_count(1) > 0);
    let ends = [&nat.gateway, &nat.client].map(|end| counter(&end.status(), "connections_closed"));
    assert_eq!(ends, [0, 0], "one connection, from the first byte to the last");
    assert_eq!((counter(&nat.client.status(), "reconnects"), nat.echo.echoed_bytes()), (0, BYTES as u64));
}

#[test]
fn a_nat_rebinds_in_mid_transfer_with_af_xdp() {
    rebinding_in_mid_transfer("a_nat_rebinds_in_mid_transfer_with_af_xdp", NATIVE);
}

#[test]
fn a_nat_rebinds_in_mid_transfer_with_kernel_udp() {
    rebinding_in_mid_transfer("a_nat_rebinds_in_mid_transfer_with_kernel_udp", KERNEL);
}

/// Ticks of processor time that a process has used, from `/proc/PID/stat`.
fn processor_ticks(beam: &Beam) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", beam.process.pid())).unwrap();
    // The command name, in parentheses, may hold anything; utime and stime are the 14th and 15th fields.
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

// An idle tunnel costs nothing: no loop runs unless something needs it. Method: an established tunnel with an open flow
// that says nothing; loops, sleeps and processor time are read, three seconds go by, and they are read again. Reading
// them costs loops of its own: as many as two readings without a pause between show.
#[test]
fn an_idle_tunnel_costs_nothing() {
    /// Timers that may fire within the pause: of the handshake, of path MTU discovery, of the loss detection behind it.
    const LOOPS_MAX: u64 = 30;
    const PAUSE: Duration = Duration::from_secs(3);
    if !rig::root_or_skip("an_idle_tunnel_costs_nothing") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, rig::Ns::Origin, ORIGIN_V4, 0);
    let tunnel = Tunnel::native(place, echo.address());
    let mut stream = tunnel.dial();
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    for beam in [&tunnel.gateway, &tunnel.client] {
        until("no packet moves", || beam.status(), |status| status["rates"]["rx_packets_per_s"] == 0);
    }
    for (name, beam) in [("gateway", &tunnel.gateway), ("client", &tunnel.client)] {
        let loops = || over_workers(&beam.status(), "loops");
        let first = loops();
        let of_a_reading = loops() - first;
        let (before, ticks_before) = (loops(), processor_ticks(beam));
        std::thread::sleep(PAUSE);
        let (ticks, after) = (processor_ticks(beam) - ticks_before, loops());
        let own = (after - before).saturating_sub(of_a_reading);
        eprintln!("{name}: {own} loops and {ticks} ticks in {PAUSE:?}; a reading costs {of_a_reading} loops");
        assert!(own <= LOOPS_MAX, "{name}: {own} loops in {PAUSE:?} of idleness");
        // A tick is 10 ms; a spinning worker would use 300 of them.
        assert!(ticks <= 3, "{name}: {ticks} ticks of processor time in {PAUSE:?} of idleness");
    }
    stream.write_all(b"!").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}
