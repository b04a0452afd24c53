//! Goal: a tunnel without flows falls asleep without a packet, is told from live ones at both ends, keeps its counters, and
//! is woken by its next flow in 0-RTT; what has to be reached stays live; kick, reload and a restart of the gateway do what
//! they must to sleepers.
//! Method: a gateway and clients on the rig with `--sleep-after 1s`; curl and datagrams by `-L`; the engines' own counts of
//! datagrams; `show tunnels` at both ends.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use std::net::UdpSocket;
use std::process::Command;

use pair::{FORWARD_PORT, LIMIT, Place, number, path, pattern_sha256, settled, until};
use rig::{Beam, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4};
use serde_json::Value;
use tools::{counter, until_counter};

const KERNEL: &[&str] = &["--xdp", "off"];
const SLEEPY: &[&str] = &["--xdp", "off", "--sleep-after", "1s"];
/// For a count of packets: what an exchange leaves to acknowledge may follow it by most of a second on a busy machine.
const SLOW_TO_SLEEP: &[&str] = &["--xdp", "off", "--sleep-after", "4s"];
const LOOKS: usize = 8;
const BODY_BYTES: u64 = 10_000;

fn order(daemon: &Beam, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(rig::binary());
    let out = command.args(args).arg("--control").arg(&daemon.control).output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

fn tunnels(daemon: &Beam) -> Vec<Value> {
    let (done, said) = order(daemon, &["show", "tunnels", "-j"]);
    assert!(done, "{said}");
    serde_json::from_str::<Value>(&said).unwrap()["rows"].as_array().unwrap().clone()
}

/// The one tunnel of a daemon, once it is in that state.
fn the_tunnel(daemon: &Beam, state: &str) -> Value {
    let is_one = |rows: &Vec<Value>| rows.len() == 1 && rows[0]["state"] == state;
    until(&format!("the only tunnel is {state}"), || tunnels(daemon), is_one).remove(0)
}

fn asleep(gateway: &Beam, client: &Beam) -> Value {
    until("the client says asleep", || client.status(), |status| status["asleep"] == 1);
    until("so does the gateway", || gateway.status(), |status| status["asleep"] == 1)
}

fn fetch(place: &Place) {
    let url = format!("http://127.0.0.1:{FORWARD_PORT}/{BODY_BYTES}");
    assert_eq!(place.curl(&[&url]), (BODY_BYTES, pattern_sha256(BODY_BYTES)));
}

fn datagrams(status: &Value) -> (u64, u64) {
    (counter(status, "datagrams_in"), counter(status, "datagrams_out"))
}

/// The datagrams of a gateway whose last exchange is over: the same at [`LOOKS`] of 200 ms each in which none moved.
fn silent(gateway: &Beam) -> (u64, u64) {
    let look = |_| datagrams(&settled(gateway));
    let is_silent = |looks: &Vec<_>| looks.iter().all(|one| *one == looks[0]);
    until("no packet follows", || (0..LOOKS).map(look).collect(), is_silent)[0]
}

#[test]
fn a_tunnel_sleeps_in_silence_and_wakes_in_early_data() {
    if !rig::root_or_skip("a_tunnel_sleeps_in_silence_and_wakes_in_early_data") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let state = path(&place.rig.directory().join("state"));
    let gateway_flags = [KERNEL, &["--state-dir", &state, "--cpus", "0-1"]].concat();
    let gateway = place.gateway(GATEWAY_V4, &gateway_flags);
    let client = place.client(GATEWAY_V4, &http.address().to_string(), SLOW_TO_SLEEP);
    fetch(&place);
    let live = the_tunnel(&gateway, "live");
    let before = silent(&gateway);
    let status = asleep(&gateway, &client);
    assert_eq!(datagrams(&status), before, "it fell asleep without a packet");
    let status = client.status();
    assert_eq!((&status["ready"], number(&status, "connections")), (&true.into(), 0), "{status:#}");
    assert_eq!(counter(&status, "connections_closed"), 1, "{status:#}");

    let sleeper = the_tunnel(&gateway, "asleep");
    assert_eq!((&sleeper["id"], &sleeper["client"]), (&live["id"], &"alice".into()));
    assert_eq!(number(&sleeper, "flows_opened"), 1);
    assert!(number(&sleeper, "tx_bytes") > BODY_BYTES && number(&sleeper, "rx_bytes") > 0, "{sleeper:#}");
    let own = the_tunnel(&client, "asleep");
    assert_eq!((&own["id"], number(&own, "flows_opened")), (&live["id"], 1));
    assert!(number(&own, "rx_bytes") > BODY_BYTES, "{own:#}");

    for round in 1..=3 {
        fetch(&place);
        let status = until_counter(&gateway, "early_connections", round);
        assert_eq!(counter(&status, "early_connections"), round, "each wake is 0-RTT: {status:#}");
        let row = the_tunnel(&gateway, "live");
        assert_eq!(
            (&row["id"], number(&row, "flows_opened")),
            (&live["id"], 1 + round),
            "the same row: {row:#}"
        );
        assert!(number(&row, "tx_bytes") > (1 + round) * BODY_BYTES, "its numbers go on: {row:#}");
        asleep(&gateway, &client);
    }
    let status = client.status();
    let wanted =
        [("tunnel_lapses", 4), ("tunnel_wakes", 3), ("reconnects", 0), ("early_refused", 0), ("requests", 4)];
    for (name, count) in wanted {
        assert_eq!(counter(&status, name), count, "{name}: {status:#}");
    }
    assert_eq!(counter(&gateway.status(), "requests"), 4);

    // The operator sends it away: its next flow is another tunnel's first, by numbers.
    let (done, said) = order(&gateway, &["kick", "alice"]);
    assert!(done && said.contains("1 sleeping tunnel(s) forgotten"), "{said}");
    assert!(tunnels(&gateway).is_empty());
    fetch(&place);
    assert_eq!(number(&the_tunnel(&gateway, "live"), "flows_opened"), 1);
    asleep(&gateway, &client);
    // One who may no longer come is remembered no longer, and doesn't come in.
    std::fs::write(&place.users, "").unwrap();
    let (done, said) = order(&gateway, &["reload"]);
    assert!(done, "{said}");
    assert_eq!(number(&gateway.status(), "asleep"), 0);
    assert!(tunnels(&gateway).is_empty());
    assert_eq!(http.connection_count(), 5);
}

// The gateway comes and goes while its client sleeps: with its tickets, the next flow is 0-RTT still; killed, it is a full
// handshake. The client has lost nothing, and says nothing of a reconnect.
#[test]
fn a_gateway_that_was_restarted_is_met_again() {
    if !rig::root_or_skip("a_gateway_that_was_restarted_is_met_again") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let state = path(&place.rig.directory().join("state"));
    let gateway_flags = [KERNEL, &["--state-dir", &state]].concat();
    let mut gateway = place.gateway(GATEWAY_V4, &gateway_flags);
    let client = place.client(GATEWAY_V4, &http.address().to_string(), SLEEPY);
    fetch(&place);
    asleep(&gateway, &client);
    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
    gateway = place.gateway(GATEWAY_V4, &gateway_flags);
    fetch(&place);
    assert_eq!(counter(&gateway.status(), "early_connections"), 1);
    asleep(&gateway, &client);
    gateway.process.kill();
    let gateway = place.gateway(GATEWAY_V4, &gateway_flags);
    fetch(&place);
    assert_eq!(counter(&gateway.status(), "early_connections"), 0);
    let status = client.status();
    assert_eq!((counter(&status, "reconnects"), counter(&status, "tunnel_wakes")), (0, 2), "{status:#}");
    assert_eq!(http.connection_count(), 3);
}

// A datagram wakes it as well. What has to be reached from outside doesn't offer to sleep, whatever the flag says.
#[test]
fn a_datagram_wakes_it_and_what_must_be_reached_stays_live() {
    if !rig::root_or_skip("a_datagram_wakes_it_and_what_must_be_reached_stays_live") {
        return;
    }
    let place = Place::new();
    let echo = place.rig.within(Ns::Origin, || UdpSocket::bind((ORIGIN_V4, 0))).unwrap();
    let to = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..length], from);
        }
    });
    let gateway = place.gateway(GATEWAY_V4, &[KERNEL, &["--allow-listen", "8080"]].concat());
    let forward = format!("18081:{to}/udp");
    let flags = [SLEEPY, &["-L", &forward, "--udp-idle-timeout", "500ms"]].concat();
    let mut client = place.client(GATEWAY_V4, &to.to_string(), &flags);
    let socket = place.rig.within(Ns::Client, || UdpSocket::bind("127.0.0.1:0")).unwrap();
    socket.connect("127.0.0.1:18081").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    for round in 0..2 {
        socket.send(b"anyone?").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
        assert_eq!(counter(&gateway.status(), "early_connections"), round);
        asleep(&gateway, &client);
    }
    assert_eq!(client.process.terminate(LIMIT).code(), Some(0));

    let published = [SLEEPY, &["-R", "8080:127.0.0.1:9"]].concat();
    let client = place.client(GATEWAY_V4, &to.to_string(), &published);
    until_counter(&client, "listens_opened", 1);
    let live: Vec<Value> = tunnels(&gateway).into_iter().filter(|row| row["state"] == "live").collect();
    assert_eq!((live.len(), &live[0]["id"]), (1, &Value::Null), "it has no id, by which it could sleep");
    assert_eq!(tunnels(&client)[0]["id"], Value::Null);
}
