//! 0-RTT between real processes on loopback, no privilege needed: round trips to the first byte, replays over restarts of
//! the gateway, refused early data, and state that can't be used.
//!
//! Method: `beam connect -W` to an origin that speaks first, so that the first byte on its standard output needs the
//! tunnel and nothing else. [`Steps`] stands between where round trips are counted or a flight is recorded.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use pair::{LIMIT, over_workers, path, until};
use rig::{Proc, read_status};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use tools::loopback::{Gateway, Place, show_cache};
use tools::{counter, random_bytes, seed, steps::Steps};

// Goal: first-byte time in round trips: full handshake 2, resumed 2, 0-RTT 1 (an origin that waits to be asked costs one
// more each). Method: a process of its own each time; the relay counts.
#[test]
fn a_restarted_client_has_its_first_byte_after_one_round_trip() {
    let place = Place::new();
    let measure = || {
        let relay = Steps::start(place.relay, place.address);
        let mut client = place.client(place.relay, "client");
        client.hear_greeting();
        let round_trips = relay.round_trips();
        client.leave();
        round_trips
    };
    let gateway = place.gateway(&[]);
    let full = measure();
    assert_eq!(gateway.count("early_connections"), 0);
    let early = measure();
    let again = measure();
    assert_eq!(gateway.count("early_connections"), 2);
    assert_eq!(gateway.count("requests"), 3);
    gateway.stop();
    // Without early data: first with a ticket that would permit it, then with one that doesn't.
    let gateway = place.gateway(&["--0rtt", "off"]);
    let refused = measure();
    let resumed = measure();
    println!(
        "round trips to the first byte: full {full}, resumed {resumed}, refused {refused}, 0-RTT {early}"
    );
    assert_eq!((full, resumed, refused, early, again), (2, 2, 2, 1, 1));
    assert_eq!((gateway.count("early_connections"), gateway.count("requests")), (0, 2));
    let tickets = gateway.cache("tickets", "shared");
    assert_eq!(
        (&tickets["hits"], &tickets["misses"]),
        (&2.into(), &0.into()),
        "both were resumed: {tickets:#}"
    );
    assert_eq!(place.origin.executions(), 5);
    gateway.stop();
}

// RFC 9114 section 7.2.4.2. Goal: extended CONNECT in early data, by the settings that the gateway had when it gave the
// ticket: the first UDP payload is back after 2 round trips (the question, then the datagram), not 4 (the handshake, the
// settings, the question, the datagram). Method: `-L .../udp` to an echo; the datagram is sent when the listener is there,
// which is before the handshake.
#[test]
fn udp_is_asked_for_in_early_data() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..length], from);
        }
    });
    let measure = || {
        let relay = Steps::start(place.relay, place.address);
        let mut client = place.udp_client(place.relay, to, "client");
        let line = client.process.wait_for_line("-L listens on UDP ", LIMIT);
        let local = line.split("on UDP ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.connect(local).unwrap();
        socket.send(b"anyone?").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
        let round_trips = relay.round_trips();
        assert!(client.process.terminate(LIMIT).success());
        round_trips
    };
    let (full, early) = (measure(), measure());
    println!("round trips to the first UDP payload: full {full}, 0-RTT {early}");
    assert_eq!(early, 2);
    assert!(full > early);
    assert_eq!(gateway.count("early_connections"), 1);
    gateway.stop();
}

/// Sends a flight again, from ten other ports, and waits until the gateway has taken it all in.
fn replay_ten_times(place: &Place, gateway: &Gateway, flight: &[Vec<u8>]) {
    let received = || over_workers(&read_status(&gateway.control), "kernel_rx_packets");
    let before = received();
    for _ in 0..10 {
        let attacker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        attacker.connect(place.address).unwrap();
        flight.iter().for_each(|datagram| assert_eq!(attacker.send(datagram).unwrap(), datagram.len()));
    }
    let all = before + 10 * flight.len() as u64;
    until("ten replays arrive", received, |&count| count >= all);
    // A request behind them: whatever a replay could have run has been run when this one has.
    let executions = place.origin.executions();
    place.visit(place.address, "bystander");
    assert_eq!(place.origin.executions(), executions + 1, "the bystander's request and no other");
}

// RFC 8446 section 8.1. Goal: ten replays of a first flight run nothing: at the same gateway, at one that was restarted,
// at one that was killed, whichever worker they reach. Method: the datagrams as the relay recorded them, from ten other
// ports each time; executions are counted at the origin. (That each of ten handshakes is refused its early data is shown
// in tunnel/tests/early.rs, where no connection of the first replay catches the others by its CID.)
#[test]
fn ten_replays_are_one_execution_over_restarts() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    {
        let _relay = Steps::start(place.relay, place.address);
        place.visit(place.relay, "client");
    }
    let flight = {
        let relay = Steps::start(place.relay, place.address);
        place.visit(place.relay, "client");
        relay.first_flight()
    };
    assert_eq!(gateway.count("early_connections"), 1, "the flight holds a request");
    assert_eq!(place.origin.executions(), 2);
    replay_ten_times(&place, &gateway, &flight);
    gateway.stop();
    for (killed, is_last) in [(false, false), (true, true)] {
        let gateway = place.gateway(&[]);
        let before = gateway.count("handshakes_started");
        replay_ten_times(&place, &gateway, &flight);
        let handshakes = gateway.count("handshakes_started") - before;
        assert!(handshakes >= 2, "{handshakes}: the bystander's, and a replay's on one worker at least");
        if killed {
            gateway.kill()
        } else {
            gateway.stop()
        }
        if is_last {
            let gateway = place.gateway(&[]);
            replay_ten_times(&place, &gateway, &flight);
            gateway.stop();
        }
    }
    assert_eq!(place.origin.executions(), 2 + 4, "the client's two, and a bystander's at each gateway");
}

// Goal: where the gateway has lost its tickets, what was asked in early data is asked again, once, and nothing of what
// follows is lost or doubled. Method: the gateway is killed; 1 MiB through the echo, seeded.
#[test]
fn refused_early_data_is_asked_again_once() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    place.visit(place.address, "client");
    gateway.kill();
    let gateway = place.gateway(&[]);
    let mut client = place.client(place.address, "client");
    let sent = random_bytes(seed("refused_early_data_is_asked_again_once"), 1 << 20);
    let mut output = client.hear_greeting();
    assert_eq!(counter(&read_status(&client.control), "early_refused"), 1);
    let mut input = client.process.stdin();
    let to_send = sent.clone();
    let sender = std::thread::spawn(move || input.write_all(&to_send).unwrap());
    let mut echoed = vec![0; sent.len()];
    output.read_exact(&mut echoed).unwrap();
    sender.join().unwrap();
    assert!(echoed == sent, "the echo differs");
    assert!(client.process.wait(LIMIT).success());
    assert_eq!(place.origin.executions(), 2, "one each");
    assert_eq!((gateway.count("requests"), gateway.count("early_connections")), (1, 0));
    gateway.stop();
}

/// The warnings in a log.
fn warnings(process: &Proc) -> Vec<String> {
    process.stderr().lines().filter(|line| line.contains(" WARN ")).map(str::to_owned).collect()
}

// Goal: state that is damaged, locked or can't be written costs one warning that names it and says what to do, and
// resumption; never a start.
#[test]
fn unusable_state_is_a_warning_and_no_failed_start() {
    let place = Place::new();
    place.gateway(&[]).stop();
    let store = place.file("gateway").join("cache").join("gateway.redb");
    assert!(store.exists());
    let works = |what: &str, gateway: &Gateway| {
        place.visit(place.address, "client");
        let warnings = warnings(&gateway.process);
        println!("{what}: {warnings:#?}");
        warnings
    };

    fs::write(&store, b"no store at all").unwrap();
    let gateway = place.gateway(&[]);
    let said = works("garbage", &gateway);
    assert!(matches!(&said[..], [one] if one.contains(&path(&store)) && one.contains("rm ")), "{said:#?}");
    gateway.stop();

    fs::write(place.file("gateway").join("secrets"), b"garbage").unwrap();
    let gateway = place.gateway(&[]);
    let said = works("secrets", &gateway);
    assert!(matches!(&said[..], [one] if one.contains("secrets")), "{said:#?}");
    gateway.stop();

    let held = redb::Database::open(&store).unwrap();
    let gateway = place.gateway(&[]);
    let said = works("locked", &gateway);
    assert!(matches!(&said[..], [one] if one.contains("fuser -v")), "{said:#?}");
    drop(held);
    gateway.stop();

    let blocked = place.file("a-file");
    fs::write(&blocked, b"").unwrap();
    let blocked = path(&blocked.join("state"));
    let gateway = place.gateway(&["--state-dir", &blocked]);
    let said = works("unwritable", &gateway);
    assert!(matches!(&said[..], [one] if one.contains(&blocked) && one.contains("mkdir -p")), "{said:#?}");

    let mut client = place.client_with(place.address, "client", &["--state-dir", &blocked]);
    client.hear_greeting();
    client.leave();
    let said = warnings(&client.process);
    assert!(matches!(&said[..], [one] if one.contains(&blocked)), "{said:#?}");
    gateway.stop();
}

// Goal: a name is looked up once for many requests; each time, its addresses are judged anew: a name that leads to
// loopback is refused however often it is asked for, and leads nowhere. Method: `localhost`, at a gateway that allows it
// and at one that doesn't.
#[test]
fn names_are_remembered_and_judged_each_time() {
    let place = Place::new();
    let named = format!("localhost:{}", place.origin.address.port());
    let known = |gateway: &Gateway| {
        let (worker, shared) = (gateway.cache("names", "worker"), gateway.cache("names", "shared"));
        let sum = |field: &str| worker[field].as_u64().unwrap() + shared[field].as_u64().unwrap();
        (sum("hits"), shared["inserts"].as_u64().unwrap(), shared["misses"].as_u64().unwrap())
    };
    let gateway = place.gateway(&["--allow", "localhost", "--allow", "127.0.0.0/8"]);
    for _ in 0..3 {
        let mut client = place.client_to(place.address, &named, "client", &["--pool", "1"]);
        client.hear_greeting();
        client.leave();
    }
    assert_eq!(known(&gateway), (2, 1, 1), "one lookup, two answers from memory");
    gateway.stop();
    let gateway = place.gateway(&["--allow", "198.18.0.0/15", "--allow", "localhost:1"]);
    for _ in 0..3 {
        let mut client = place.client_to(place.address, &named, "client", &[]);
        assert_eq!(client.process.wait(LIMIT).code(), Some(1));
        assert!(client.process.stderr().contains("403"), "{}", client.process.stderr());
    }
    assert_eq!(gateway.count("refused_denied"), 3);
    assert_eq!(place.origin.executions(), 3);
    gateway.stop();
}

// Goal: both ends show their caches; a client has its one ticket in memory, and on the disk.
#[test]
fn both_ends_show_their_caches() {
    let place = Place::new();
    let gateway = place.gateway(&[]);
    let mut client = place.client(place.address, "client");
    client.hear_greeting();
    let of_client = |cache: &str, level: &str| show_cache(&client.control, cache, level);
    let settled = || {
        (of_client("tickets", "disk")["inserts"].clone(), of_client("tickets", "shared")["entries"].clone())
    };
    until("the ticket is in memory, and on the disk", settled, |seen| *seen == (1.into(), 1.into()));
    until("a token is on the disk", || of_client("tokens", "disk")["entries"].clone(), |count| *count == 1);
    until("so are the settings", || of_client("settings", "disk")["entries"].clone(), |count| *count == 1);
    let tickets = gateway.cache("tickets", "shared");
    assert_eq!((&tickets["entries"], &tickets["inserts"]), (&1.into(), &1.into()));
    assert_eq!(gateway.cache("used-tokens", "shared")["entries"], 0);
    client.leave();
    place.visit(place.address, "client");
    let used = gateway.cache("used-tokens", "shared");
    assert_eq!(used["entries"], 1, "the token proved the address of the second connection: {used:#}");
    assert_eq!(gateway.cache("tickets", "shared")["hits"], 1);
    gateway.stop();
}
