//! Goal: strangers get nothing, and cost little. What is not a client's first Initial or a client's own connection draws
//! not one byte; what is answered stays within three times the bytes received from that very address; a flood of
//! handshakes meets Retry; the live CID of another gives no one anything.
//! Method: raw UDP sockets against a gateway on AF_XDP and on kernel UDP. Silence is told by order, not by waiting: each
//! silence ends with the answer to a probe sent after it. Every datagram is found again in a counter with a name.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pair::{FORWARD_PORT, Place, TUNNEL_PORT, number, until};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rig::{Beam, EchoServer, GATEWAY_V4, Ns, ORIGIN_V4};
use serde_json::Value;
use tools::quic::{config, first_flight};
use tools::relay::{Relay, back};
use tools::stranger::{Stranger, until_long};
use tools::{counter, dial, dropped, dropped_in_all, read_some, seed};

/// Both kinds of datapath, each with the flags of the gateway.
const NATIVE: &[&str] = &["--xdp", "native", "-i", "g0"];
const KERNEL: &[&str] = &["--xdp", "off"];

/// Longer than the gateway's patience with handshakes, so that only this one counts.
const IDLE: Duration = Duration::from_secs(60);

fn address() -> SocketAddr {
    (GATEWAY_V4, TUNNEL_PORT).into()
}

fn random(rng: &mut StdRng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// A long header of this type and version, then random bytes up to `length`.
fn long_header(rng: &mut StdRng, kind: u8, version: u32, dcid_bytes: usize, length: usize) -> Vec<u8> {
    let mut datagram = vec![0xc0 | kind << 4 | (rng.next_u32() as u8 & 0xf)];
    datagram.extend(version.to_be_bytes());
    datagram.push(dcid_bytes as u8);
    datagram.extend(random(rng, dcid_bytes));
    datagram.extend([8, 1, 2, 3, 4, 5, 6, 7, 8]);
    let rest = length.checked_sub(datagram.len()).expect("room for the header");
    datagram.extend(random(rng, rest));
    datagram
}

/// What a stranger sends, and the name under which it must be counted.
fn garbage(rng: &mut StdRng) -> Vec<(&'static str, Vec<u8>)> {
    const INITIAL: u8 = 0;
    const V1: u32 = 1;
    let mut all = Vec::new();
    for length in 0..=1500 {
        // A short header, by its first bit: CIDs of ours are 17 bytes.
        let mut datagram = random(rng, length);
        if let Some(first) = datagram.first_mut() {
            *first &= 0x7f;
        }
        // Half of them with the first octet that our CIDs have.
        if length > 17 && length % 2 == 0 {
            datagram[1] = 0x10;
        }
        let name = match length {
            0 => "rx_malformed",
            1..=17 => "drop_malformed",
            _ => "drop_cid_unknown",
        };
        all.push((name, datagram));
        // A long header of a version that nobody speaks, too short for an answer (RFC 9000 5.2.2).
        if (1..1200).contains(&length) {
            let mut datagram = random(rng, length);
            datagram[0] |= 0x80;
            if length > 1 {
                datagram[1] |= 0x40;
            }
            let whole = length >= 6 && length >= 6 + usize::from(datagram[5]);
            all.push((if whole { "drop_version_too_short" } else { "drop_malformed" }, datagram));
        }
        // Initials that are too short, too (RFC 9000 14.1).
        if (30..1200).contains(&length) {
            all.push(("drop_initial_too_short", long_header(rng, INITIAL, V1, 8, length)));
        }
    }
    for length in [1200, 1201, 1357, 1452, 1472] {
        for dcid_bytes in 0..8 {
            all.push(("drop_initial_short_cid", long_header(rng, INITIAL, V1, dcid_bytes, length)));
        }
        for dcid_bytes in 8..=20 {
            // No token, and a length field that covers the rest: a whole packet that no key has sealed.
            let mut datagram = long_header(rng, INITIAL, V1, dcid_bytes, length);
            let at = 6 + dcid_bytes + 9;
            let rest = (length - at - 3) as u16;
            datagram[at] = 0;
            datagram[at + 1..at + 3].copy_from_slice(&(0x4000 | rest).to_be_bytes());
            all.push((UNSEALED, datagram.clone()));
            // A length field that points past the end.
            datagram[at + 1..at + 3].copy_from_slice(&(0x4000 | (rest + 1)).to_be_bytes());
            all.push((UNSEALED, datagram));
        }
        // A first Initial with a CID that RFC 9000 17.2 forbids in version 1.
        all.push((UNSEALED, long_header(rng, INITIAL, V1, 21, length)));
    }
    // 0-RTT, Handshake, Retry and Version Negotiation for connections that never were.
    for length in (50..=1472).step_by(61) {
        for dcid_bytes in [0, 8, 17, 20] {
            for kind in 1..=3 {
                all.push(("drop_long_unknown", long_header(rng, kind, V1, dcid_bytes, length)));
            }
            // The type bits of a Version Negotiation packet mean nothing.
            let kind = (length % 4) as u8;
            all.push(("drop_long_unknown", long_header(rng, kind, 0, dcid_bytes, length)));
        }
    }
    all
}

/// A first Initial of a real client, and what a stranger who has seen it can make of it.
fn damaged_initials(rng: &mut StdRng) -> Vec<(&'static str, Vec<u8>)> {
    let quic = config(IDLE);
    // A fresh one each: those with the same CID would be kept for the first of them to be looked at.
    let damaged = (0..64).map(|_| {
        let mut initial = first_flight(&quic, address()).remove(0);
        // Behind the header, whose length fields would change the meaning.
        let at = rng.random_range(60..initial.len());
        initial[at] ^= 1 << rng.random_range(0..8);
        (UNSEALED, initial)
    });
    let mut all: Vec<_> = damaged.collect();
    all.push(("drop_initial_too_short", first_flight(&quic, address()).remove(0)[..1199].to_vec()));
    all
}

/// An Initial that nobody sealed. Header protection comes off before the seal is tried: three of four show reserved bits
/// that are not zero, or a length that can't be, and count as invalid, the others as not authentic.
const UNSEALED: &str = "drop_initial_invalid";

fn folded(name: &str) -> &str {
    if name == "drop_initial_unauthenticated" { UNSEALED } else { name }
}

/// What a gateway has counted besides the probes: it adds up, and the names are exactly these.
fn assert_counted(status: &Value, expected: &BTreeMap<&str, u64>, probe_count: u64) {
    let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, n) in status["drops"].as_object().unwrap() {
        *counted.entry(folded(name)).or_default() += n.as_u64().unwrap();
    }
    assert_eq!(&counted, expected, "{status:#}");
    let sent = expected.values().sum::<u64>() + probe_count;
    let sums = &status["conservation"];
    assert_eq!((number(sums, "frames_in"), number(sums, "in_flight")), (sent, 0), "{status:#}");
    assert_eq!(sums["holds"], true, "{status:#}");
    assert_eq!(dropped_in_all(status), sent - probe_count);
    assert_eq!(counter(status, "version_negotiations_sent"), probe_count);
    for name in ["retries_sent", "stateless_resets_sent", "stateless_closes_sent", "refused", "connections"] {
        assert_eq!(counter(status, name), 0, "{name}: {status:#}");
    }
}

fn strangers_get_nothing(test: &str, flags: &[&str]) {
    if !rig::root_or_skip(test) {
        return;
    }
    let seed = seed(test);
    let mut rng = StdRng::seed_from_u64(seed);
    let place = Place::new();
    let gateway = place.gateway(GATEWAY_V4, flags);
    let mut sent = garbage(&mut rng);
    sent.extend(damaged_initials(&mut rng));
    let mut expected = BTreeMap::new();
    for (name, _) in &sent {
        *expected.entry(*name).or_default() += 1;
    }
    // Four strangers, so that every queue and every worker meets them.
    let mut strangers: Vec<Stranger> =
        (0..4).map(|n| Stranger::new(&place.rig, address(), StdRng::seed_from_u64(seed ^ n))).collect();
    for (n, stranger) in strangers.iter_mut().enumerate() {
        stranger.send_unanswered(sent.iter().skip(n).step_by(4).map(|(_, datagram)| datagram));
    }
    // Long datagrams came in pieces, past AF_XDP and by way of the kernel's socket: wait for the last of them.
    let probes = |strangers: &[Stranger]| strangers.iter().map(|s| s.probe_count).sum::<u64>();
    let total = sent.len() as u64 + probes(&strangers);
    until(
        "every datagram is counted",
        || gateway.status(),
        |status| number(&status["conservation"], "frames_in") >= total,
    );
    strangers.iter_mut().for_each(Stranger::assert_silence);
    assert_counted(&gateway.status(), &expected, probes(&strangers));
}

// RFC 9000 5.2.2, 10.3, 14.1: what belongs to no connection is dropped without a word.
#[test]
fn strangers_get_nothing_over_af_xdp() {
    strangers_get_nothing("strangers_get_nothing_over_af_xdp", NATIVE);
}

#[test]
fn strangers_get_nothing_over_kernel_udp() {
    strangers_get_nothing("strangers_get_nothing_over_kernel_udp", KERNEL);
}

/// A certificate of some 9 KB: eight times what a client's first datagram allows for in all.
fn large_certificate(directory: &Path) -> [String; 2] {
    let names: Vec<String> =
        (0..150).map(|n| format!("{n:03}.{}.beam.example", "long-name".repeat(5))).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    assert!(made.cert.der().len() > 8 << 10, "{} bytes", made.cert.der().len());
    let write = |name: &str, text: String| {
        std::fs::write(directory.join(name), text).unwrap();
        pair::path(&directory.join(name))
    };
    [write("large.pem", made.cert.pem()), write("large.key", made.signing_key.serialize_pem())]
}

// RFC 9000 8.1: "an endpoint MUST limit the amount of data it sends to the unvalidated address to three times the amount
// of data received from that address". Method: real ClientHellos from senders that then fall silent, until the gateway
// gives their handshakes up (10 s of probe timeouts); every byte that came back is counted, by 4-tuple.
fn amplification(test: &str, flags: &[&str], large: bool) {
    if !rig::root_or_skip(test) {
        return;
    }
    let seed = seed(test);
    let place = Place::new();
    let gateway = if large {
        let [cert, key] = large_certificate(place.rig.directory());
        let args = place.serve_args(GATEWAY_V4, &[flags, &["--tls-cert", &cert, "--tls-key", &key]].concat());
        Beam::start(&place.rig, Ns::Gateway, "gateway", &pair::words(&args))
    } else {
        place.gateway(GATEWAY_V4, flags)
    };
    let quic = config(IDLE);
    let flight = || first_flight(&quic, address());
    let mut senders: Vec<Stranger> =
        (0..6).map(|n| Stranger::new(&place.rig, address(), StdRng::seed_from_u64(seed ^ n))).collect();
    // Two that send once, one that repeats itself, one that sends a shred more afterwards.
    for n in [0, 1] {
        flight().iter().for_each(|datagram| senders[n].send(datagram));
    }
    let repeated = flight();
    for _ in 0..3 {
        repeated.iter().for_each(|datagram| senders[2].send(datagram));
    }
    // Three times 1,252 bytes are three of the gateway's datagrams and a part of a fourth, which quinn would send.
    let mut longer = flight().remove(0);
    longer.extend([0; 52]);
    senders[3].send(&longer);
    senders[3].send(&longer[..60]);
    // And one whose datagram somebody sends again and again from another port: that earns the first one nothing.
    let copied = flight();
    senders[4].send(&copied[0]);
    for _ in 0..10 {
        senders[5].send(&copied[0]);
    }
    until_long(
        "the gateway gives up",
        || {
            senders.iter_mut().for_each(Stranger::drain);
            gateway.status()
        },
        |status| counter(status, "handshakes_timed_out") >= 5 && counter(status, "connections") == 0,
    );
    senders.iter_mut().for_each(Stranger::flush);
    let status = gateway.status();
    for (n, sender) in senders.iter().enumerate() {
        let (sent, received) = (sender.sent_bytes, sender.received_bytes);
        eprintln!("sender {n}: {received} bytes for {sent}, {:.2} times", received as f64 / sent as f64);
        assert!(received <= 3 * sent, "sender {n} got {received} bytes for {sent}");
    }
    for (n, sender) in senders[..5].iter().enumerate() {
        assert!(sender.received_bytes >= 1200, "sender {n} got no answer to its ClientHello");
    }
    // The strict limit was at work: quinn alone would have gone past it.
    assert!(!large || counter(&status, "amplification_held") > 0, "{status:#}");
    assert_eq!(counter(&status, "handshakes_completed"), 0);
    assert_eq!(status["conservation"]["holds"], true, "{status:#}");
}

#[test]
fn amplification_stays_within_three_times_over_af_xdp() {
    amplification("amplification_stays_within_three_times_over_af_xdp", NATIVE, false);
}

#[test]
fn amplification_stays_within_three_times_with_a_large_certificate() {
    amplification("amplification_stays_within_three_times_with_a_large_certificate", NATIVE, true);
}

#[test]
fn amplification_stays_within_three_times_over_kernel_udp() {
    amplification("amplification_stays_within_three_times_over_kernel_udp", KERNEL, true);
}

/// Type bits of a Retry packet of version 1 (RFC 9000 17.2.5).
fn is_retry(datagram: &[u8]) -> bool {
    datagram[0] & 0xf0 == 0xf0 && datagram[1..5] == [0, 0, 0, 1]
}

// `--retry always`: one more round trip for everybody, no state for anybody before it.
#[test]
fn retry_always_asks_first_and_then_serves() {
    const TEST: &str = "retry_always_asks_first_and_then_serves";
    if !rig::root_or_skip(TEST) {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &[NATIVE, &["--retry", "always"]].concat());
    let mut stranger = Stranger::new(&place.rig, address(), StdRng::seed_from_u64(seed(TEST)));
    let hello = first_flight(&config(IDLE), address()).remove(0);
    stranger.send(&hello);
    let answer = stranger.receive();
    assert!(is_retry(&answer) && answer.len() <= 3 * hello.len(), "{answer:02x?}");
    stranger.flush();
    assert_eq!(stranger.received.len(), 1, "a Retry and nothing behind it");
    let status = gateway.status();
    assert_eq!((counter(&status, "retries_sent"), counter(&status, "handshakes_started")), (1, 0));

    let client = place.client(GATEWAY_V4, &echo.address().to_string(), &["--xdp", "native", "-i", "c0"]);
    let mut stream = dial(&place, FORWARD_PORT);
    stream.write_all(b"after all").unwrap();
    assert_eq!(&read_some::<9>(&mut stream), b"after all");
    let status = gateway.status();
    assert_eq!((counter(&status, "handshakes_started"), counter(&status, "handshakes_completed")), (1, 1));
    assert!(counter(&status, "retries_sent") >= 2, "{status:#}");
    assert_eq!(counter(&status, "retry_engaged"), 0, "it was on from the start");
    drop(client);
}

// `--retry auto`: past a threshold of unvalidated handshakes strangers are asked to prove their address, a client gets
// through all the while, and after the flood nobody is asked any more. Method: 3,000 ClientHellos, each from a port of
// its own, and on until the client is through; the engaged and disengaged counters are the events waited for.
#[test]
fn retry_auto_rides_out_a_flood() {
    const TEST: &str = "retry_auto_rides_out_a_flood";
    const HELLOS_MIN: u64 = 3_000;
    if !rig::root_or_skip(TEST) {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, NATIVE);
    let quic = config(IDLE);
    let stop = AtomicBool::new(false);
    let hello_count = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut count = 0;
            while count < HELLOS_MIN || !stop.load(Ordering::SeqCst) {
                let hello = first_flight(&quic, address()).remove(0);
                back(&place.rig, address()).send(&hello).unwrap();
                count += 1;
            }
            count
        });
        // Whatever happens here, the flood must end.
        let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until_long("Retry engages", || gateway.status(), |status| counter(status, "retry_engaged") > 0);
            let args: &[&str] = &["--xdp", "native", "-i", "c0"];
            let client = place.client(GATEWAY_V4, &echo.address().to_string(), args);
            let mut stream = dial(&place, FORWARD_PORT);
            stream.write_all(b"through the flood").unwrap();
            assert_eq!(&read_some::<17>(&mut stream), b"through the flood");
            (client, stream)
        }));
        stop.store(true, Ordering::SeqCst);
        let count = flood.join().unwrap();
        let (_client, mut stream) = served.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let status = until_long(
            "Retry disengages",
            || gateway.status(),
            |status| counter(status, "retry_disengaged") == counter(status, "retry_engaged"),
        );
        assert_eq!(counter(&status, "retry_active"), 0, "{status:#}");
        assert!(counter(&status, "retries_sent") > 0, "{status:#}");
        assert_eq!(counter(&status, "handshakes_completed"), 1, "one client among {count} strangers");
        assert_eq!(status["conservation"]["holds"], true, "{status:#}");
        // 256 handshakes a worker, and what came in before the count was taken: far from 3,000.
        let started = counter(&status, "handshakes_started");
        assert!(started < HELLOS_MIN / 2, "{started} handshakes for {count} strangers: {status:#}");
        stream.write_all(b"and on").unwrap();
        assert_eq!(&read_some::<6>(&mut stream), b"and on");
        count
    });
    eprintln!("{hello_count} ClientHellos");
}

// A datagram with a live CID reaches the CID's owner from any queue, and gives the one who sent it nothing: no stateless
// reset, no migration, no trouble for the owner's connection. Method: the client's own datagrams, recorded by a relay,
// sent again from other ports, whole and damaged.
fn live_cids(test: &str, flags: &[&str]) {
    if !rig::root_or_skip(test) {
        return;
    }
    let seed = seed(test);
    let mut rng = StdRng::seed_from_u64(seed);
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, flags);
    let relay = Relay::start(&place.rig, vec![back(&place.rig, address())]);
    let client = tools::relayed_client(&place, &relay, &echo);
    let mut stream = dial(&place, FORWARD_PORT);
    for n in 0..32 {
        stream.write_all(&[n; 100]).unwrap();
        assert_eq!(read_some::<100>(&mut stream), [n; 100]);
    }
    let live: Vec<Vec<u8>> = relay.kept().into_iter().filter(|d| d[0] & 0x80 == 0 && d.len() > 40).collect();
    assert!(live.len() >= 32, "{} datagrams of the connection were recorded", live.len());
    let before = gateway.status();
    let mut strangers: Vec<Stranger> = Vec::new();
    let mut sent_count = 0;
    let probe_count = |strangers: &[Stranger]| strangers.iter().map(|s| s.probe_count).sum::<u64>();
    let frames_in = |status: &Value| number(&status["conservation"], "frames_in");
    // Which of two queues a port's datagrams take is the kernel's hash to say: eight ports, and eight more while all of
    // them took the owner's.
    for round in 0..8 {
        for n in 0..8 {
            let mut stranger =
                Stranger::new(&place.rig, address(), StdRng::seed_from_u64(seed ^ (8 * round + n)));
            let mut volley = Vec::new();
            for datagram in &live {
                volley.push(datagram.clone());
                // The CID stays; what follows is noise.
                let mut noise = datagram[..18].to_vec();
                let length = rng.random_range(3..1400);
                noise.extend(random(&mut rng, length));
                volley.push(noise);
            }
            sent_count += volley.len() as u64;
            stranger.send_unanswered(&volley);
            strangers.push(stranger);
        }
        let least = frames_in(&before) + sent_count + probe_count(&strangers);
        let status = until(
            "all is delivered",
            || gateway.status(),
            |status| frames_in(status) >= least && number(&status["conservation"], "in_flight") == 0,
        );
        if pair::over_workers(&status, "handed_out") > 0 {
            break;
        }
    }
    for n in 0..32 {
        stream.write_all(&[n; 100]).unwrap();
        assert_eq!(read_some::<100>(&mut stream), [n; 100], "the connection goes on");
    }
    strangers.iter_mut().for_each(Stranger::assert_silence);
    let status = gateway.status();
    for name in ["stateless_resets_sent", "migrations", "connections_closed", "reconnects"] {
        assert_eq!(counter(&status, name), 0, "{name}: {status:#}");
    }
    assert_eq!(dropped(&status, "drop_cid_unknown"), 0, "a live CID is known: {status:#}");
    assert_eq!((number(&status, "connections"), number(&status, "flows")), (1, 1));
    assert_eq!(status["conservation"]["holds"], true, "{status:#}");
    // Some of it took the other queue, and was handed to the owner.
    let handed_out = pair::over_workers(&status, "handed_out");
    assert!(handed_out > 0, "nothing crossed between workers: {status:#}");
    assert_eq!(handed_out, pair::over_workers(&status, "handed_in"), "{status:#}");
    assert_eq!(counter(&client.status(), "reconnects"), 0);
}

#[test]
fn a_live_cid_serves_its_owner_alone_over_af_xdp() {
    live_cids("a_live_cid_serves_its_owner_alone_over_af_xdp", NATIVE);
}

#[test]
fn a_live_cid_serves_its_owner_alone_over_kernel_udp() {
    live_cids("a_live_cid_serves_its_owner_alone_over_kernel_udp", KERNEL);
}
