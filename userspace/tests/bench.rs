//! `beam bench` at both ends, and with a stack that nobody here wrote at either.
//!
//! Goal: bytes asked are bytes got, and each stream, handshake, 0-RTT and datagram is counted alike at both ends; what is
//! wrong is said with its exit code; strangers stay within bounds. Method: real processes in the rig's namespaces, counts
//! instead of times, aioquic as client, as server and as a client without manners.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};

use pair::{LIMIT, Place, TUNNEL_PORT, number, path, until, words};
use rig::{Beam, GATEWAY_V4, Ns, Proc, authority, binary, checkout, python, root_or_skip};
use rustix::process::Signal;
use serde_json::Value;

/// A measuring server, ready.
fn server(place: &Place, more: &[&str]) -> Beam {
    let mut args: Vec<String> =
        ["bench", "serve", "-l", &authority(GATEWAY_V4, TUNNEL_PORT)].map(str::to_owned).into();
    args.extend(["--tls-cert".into(), path(&place.pki.server_cert)]);
    args.extend(["--tls-key".into(), path(&place.pki.server_key)]);
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    Beam::start(&place.rig, Ns::Gateway, "bench", &words(&args))
}

/// `beam bench run` in the client's namespace.
fn load(place: &Place, more: &[&str]) -> Command {
    let mut command = place.rig.command(Ns::Client, binary());
    command.args(["bench", "run", &format!("https://{}", authority(GATEWAY_V4, TUNNEL_PORT))]);
    command.args(["--ca", &path(&place.pki.ca), "-J"]).args(more);
    command
}

fn parsed(out: &Output) -> Value {
    let said: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {} {}", out.status, String::from_utf8_lossy(&out.stderr)));
    assert_eq!(said["schema"], "beam.bench.run.v1", "{said:#}");
    said
}

/// What a measurement that ends well says.
fn measured(place: &Place, more: &[&str]) -> Value {
    let out = load(place, more).output().unwrap();
    let said = parsed(&out);
    assert!(out.status.success(), "{more:?}: {} {said:#}", String::from_utf8_lossy(&out.stderr));
    assert_eq!((&said["interrupted"], &said["trouble"]), (&Value::Bool(false), &Value::Null));
    said
}

/// The counts of the whole of a single run.
fn counts<'a>(said: &'a Value, load: &str) -> &'a Value {
    let loads = said["tests"][0]["runs"][0]["loads"].as_array().unwrap();
    let of = loads.iter().find(|of| of["load"] == load).unwrap_or_else(|| panic!("no {load} in {said:#}"));
    &of["all"]
}

/// Counters of the server, to be compared with those of a moment ago.
struct Seen<'a>(&'a Beam, Value);

impl<'a> Seen<'a> {
    fn new(beam: &'a Beam) -> Self {
        Self(beam, beam.status()["counters"].clone())
    }

    /// By how much each has risen since the last call.
    fn risen<const N: usize>(&mut self, names: [&str; N]) -> [u64; N] {
        let now = self.0.status()["counters"].clone();
        let of = |value: &Value, name: &str| value[name].as_u64().unwrap_or(0);
        let risen = names.map(|name| of(&now, name) - of(&self.1, name));
        self.1 = now;
        risen
    }
}

#[test]
fn what_is_asked_is_got_and_counted_alike_at_both_ends() {
    const BYTES: [&str; 3] = ["perf_streams", "perf_bytes_received", "perf_bytes_sent"];
    const SHAKEN: [&str; 3] = ["handshakes_completed", "handshakes_failed", "perf_early_connections"];
    if !root_or_skip("what_is_asked_is_got_and_counted_alike_at_both_ends") {
        return;
    }
    let place = Place::new();
    let server = server(&place, &["-i", "g0", "--xdp", "native"]);
    let mut seen = Seen::new(&server);
    let all = |said: &Value, load: &str, names: [&str; 4]| names.map(|name| number(counts(said, load), name));
    const NAMES: [&str; 4] = ["done", "failed", "up_bytes", "down_bytes"];

    // Throughput, by AF_XDP at both ends.
    let fast = ["-i", "c0", "--xdp", "native", "--quick", "-n", "5", "--size", "300000", "-P", "2"];
    let said = measured(&place, &fast);
    assert_eq!(all(&said, "up", NAMES), [5, 0, 1_500_000, 0]);
    assert_eq!(seen.risen(BYTES), [5, 1_500_000, 0]);
    assert_eq!(said["path"]["interface"], "c0", "{said:#}");
    assert!(!place.rig.has_xdp(Ns::Client, "c0"));
    let way = ["--xdp", "off", "--quick"];
    let said =
        measured(&place, &[&way[..], &["-R", "-n", "6", "--size", "200000", "--connections", "3"]].concat());
    assert_eq!(all(&said, "down", NAMES), [6, 0, 0, 1_200_000]);
    assert_eq!(number(counts(&said, "down"), "asked_bytes"), 1_200_000);
    assert_eq!(seen.risen(BYTES), [6, 0, 1_200_000]);
    let said = measured(&place, &[&way[..], &["--bidir", "-n", "4", "--size", "100K"]].concat());
    assert_eq!(all(&said, "up", NAMES), [4, 0, 409_600, 0]);
    assert_eq!(all(&said, "down", NAMES), [4, 0, 0, 409_600]);
    assert_eq!(seen.risen(BYTES), [8, 409_600, 409_600]);
    // By the clock instead of a count: streams without end, and the server has all that was sent.
    let said = measured(&place, &[&way[..], &["-P", "3"]].concat());
    let [done, failed, up, _] = all(&said, "up", NAMES);
    assert_eq!((done, failed), (3, 0));
    assert_eq!(seen.risen(BYTES), [3, up, 0]);
    assert!(said["tests"][0]["loads"][0]["spread"]["up_bits_per_s"]["median"].as_f64().unwrap() > 0.0);

    // Requests.
    let said = measured(&place, &[&way[..], &["--rps", "400", "-n", "40", "--size", "777"]].concat());
    assert_eq!(all(&said, "requests", NAMES), [40, 0, 0, 40 * 777]);
    assert_eq!(seen.risen(BYTES), [40, 0, 40 * 777]);
    let run = &said["tests"][0]["runs"][0]["loads"][0];
    assert_eq!((&run["window"]["offered"], &run["latency"]["count"]), (&40.into(), &40.into()));
    let said = measured(&place, &[&way[..], &["--rps", "0", "-n", "50", "-P", "7"]].concat());
    assert_eq!(all(&said, "requests", NAMES), [50, 0, 0, 50_000]);

    // Latency, idle and under a load: by the clock, so that a busy machine may leave some unasked, but none uncounted.
    let said = measured(&place, &[&way[..], &["--latency", "--load", "5M"]].concat());
    for run in [&said["tests"][0]["runs"][0], &said["tests"][1]["runs"][0]] {
        for load in run["loads"].as_array().unwrap() {
            let [asked, done, failed, unanswered] =
                ["asked", "done", "failed", "unanswered"].map(|name| number(&load["all"], name));
            assert_eq!((asked, failed), (done + unanswered, 0), "{said:#}");
            let offered = if load["load"] == "load up" { 5 } else { 100 };
            assert_eq!((asked, number(&load["window"], "offered")), (offered, offered), "{said:#}");
            assert!(done > 0);
        }
    }
    let control = path(&server.control);
    let said =
        measured(&place, &[&way[..], &["--latency", "--load", "50%", "--server-control", &control]].concat());
    let names: Vec<&Value> = said["tests"].as_array().unwrap().iter().map(|test| &test["test"]).collect();
    assert_eq!(names, ["latency", "throughput", "latency under load"]);
    assert!(said["tests"][1]["runs"][0]["server_cpu_s"].as_f64().unwrap() >= 0.0);

    // Handshakes: each is one at the server; with a ticket the certificate isn't seen again.
    seen.risen(SHAKEN);
    let said = measured(&place, &[&way[..], &["--hps", "0", "-P", "4", "-n", "20"]].concat());
    let shaken = |said: &Value| {
        ["done", "failed", "tickets_used", "certificates_seen", "early_data_accepted"]
            .map(|name| number(counts(said, "handshakes"), name))
    };
    assert_eq!((shaken(&said), seen.risen(SHAKEN)), ([20, 0, 0, 20, 0], [20, 0, 0]));
    let said = measured(&place, &[&way[..], &["--hps", "100", "-n", "10"]].concat());
    assert_eq!((shaken(&said), seen.risen(SHAKEN)), ([10, 0, 0, 10, 0], [10, 0, 0]));
    let resumed = ["--hps", "0", "-P", "4", "-n", "20", "--handshake", "resumed"];
    assert_eq!(shaken(&measured(&place, &[&way[..], &resumed].concat())), [20, 0, 20, 0, 0]);
    let [completed, failed, early] = seen.risen(SHAKEN);
    assert!(
        completed > 20 && failed == 0 && early == 0,
        "{completed} with those that brought the first tickets"
    );
    let early = ["--hps", "0", "-P", "4", "-n", "20", "--handshake", "0rtt", "--size", "100"];
    let said = measured(&place, &[&way[..], &early].concat());
    assert_eq!(shaken(&said), [20, 0, 20, 0, 20]);
    assert_eq!(number(counts(&said, "handshakes"), "down_bytes"), 2000);
    assert_eq!(seen.risen(SHAKEN)[1..], [0, 20]);

    // Datagrams may get lost, but not uncounted.
    const ECHOED: [&str; 3] =
        ["perf_datagrams_received", "perf_datagrams_echoed", "perf_datagrams_not_echoed"];
    let said =
        measured(&place, &[&way[..], &["--datagrams", "-n", "200", "-b", "4M", "--size", "500"]].concat());
    let [asked, done, lost, failed] =
        ["asked", "done", "unanswered", "failed"].map(|name| number(counts(&said, "datagrams"), name));
    let [received, echoed, not_echoed] = seen.risen(ECHOED);
    assert_eq!((asked, done + lost, failed, received), (200, 200, 0, echoed + not_echoed));
    assert!(done <= echoed && echoed <= 200 && done > 0, "{done} of {echoed}");

    // Three runs, told apart.
    let said = measured(&place, &["--xdp", "off", "--rps", "0", "-n", "5", "--runs", "3"]);
    assert_eq!(said["tests"][0]["runs"].as_array().unwrap().len(), 3);
    let spread = &said["tests"][0]["loads"][0]["spread"]["done_per_s"];
    let [min, median, max] = ["min", "median", "max"].map(|name| spread[name].as_f64().unwrap());
    assert!(0.0 < min && min <= median && median <= max, "{said:#}");
    for fact in ["cpu", "kernel", "cores", "build"] {
        assert!(!said["host"][fact].is_null(), "{said:#}");
    }
    assert_eq!((&said["path"]["mode"], &said["path"]["congestion"]), (&"off".into(), &"cubic".into()));
    assert_eq!(server.status()["role"], "bench");
}

/// The script of the other stack.
fn script(place: &Place, ns: Ns, role: &str, more: &[&str]) -> Command {
    let python = python().expect("scripts/venv makes a Python with aioquic");
    let mut command = place.rig.command(ns, python);
    command.arg(checkout().join("userspace/tests/python/aioquic_perf.py")).arg(role);
    command.args(["--host", &GATEWAY_V4.to_string(), "--port", &TUNNEL_PORT.to_string()]).args(more);
    command.stdout(Stdio::piped());
    command
}

#[test]
fn another_stack_is_served_exactly_and_measured() {
    if !root_or_skip("another_stack_is_served_exactly_and_measured") {
        return;
    }
    let place = Place::new();
    let serving = server(&place, &["--xdp", "off"]);
    let mut seen = Seen::new(&serving);
    let mut client = Proc::spawn("aioquic client", &mut script(&place, Ns::Client, "client", &[]));
    let mut printed = String::new();
    client.stdout().read_to_string(&mut printed).unwrap();
    assert!(client.wait(LIMIT).success(), "{printed}");
    let cases: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cases.len(), 7, "{printed}");
    for case in &cases {
        assert_eq!(case["ok"], true, "{case:#}");
    }
    let sent: u64 = cases.iter().map(|case| number(case, "sent")).sum();
    assert_eq!(seen.risen(["perf_bytes_received", "perf_datagrams_echoed"]), [sent, 50]);
    // Whoever speaks something else is refused before anything is served.
    let mut foreign = script(&place, Ns::Client, "client", &["--alpn", "h3", "--case", "down"]);
    let out = foreign.output().unwrap();
    let case: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&case["ok"], seen.risen(["perf_streams", "handshakes_completed"])),
        (&false.into(), [0, 0]),
        "{case:#}"
    );
    drop(serving);

    let pki = [path(&place.pki.server_cert), path(&place.pki.server_key)];
    let args = ["--cert", &pki[0], "--key", &pki[1]];
    let mut command = script(&place, Ns::Gateway, "server", &args);
    let mut theirs = Proc::spawn("aioquic server", command.stdin(Stdio::piped()));
    let mut lines = BufReader::new(theirs.stdout()).lines();
    assert!(lines.next().unwrap().unwrap().contains("ready"));
    let down = measured(&place, &["--xdp", "off", "--quick", "-R", "-n", "3", "--size", "500000"]);
    assert_eq!(number(counts(&down, "down"), "down_bytes"), 1_500_000);
    let up = measured(&place, &["--xdp", "off", "--quick", "-n", "2", "--size", "300000"]);
    assert_eq!((number(counts(&up, "up"), "done"), number(counts(&up, "up"), "up_bytes")), (2, 600_000));
    let shaken = measured(&place, &["--xdp", "off", "--quick", "--hps", "0", "-n", "5"]);
    assert_eq!(number(counts(&shaken, "handshakes"), "done"), 5);
}

#[test]
fn a_client_without_manners_costs_a_window_and_nobody_else_waits() {
    const WINDOW: u64 = 200_000;
    if !root_or_skip("a_client_without_manners_costs_a_window_and_nobody_else_waits") {
        return;
    }
    let place = Place::new();
    let server = server(&place, &["--xdp", "off", "--cpus", "0"]);
    let before = server.status()["process"]["resident_bytes"].as_u64().unwrap();
    let mut command = script(&place, Ns::Client, "hostile", &["--window", &WINDOW.to_string()]);
    let mut hostile = Proc::spawn("hostile", command.stdin(Stdio::piped()));
    let mut lines = BufReader::new(hostile.stdout()).lines();
    let said: Value = serde_json::from_str(&lines.next().expect("it says ready").unwrap()).unwrap();
    assert_eq!(said["got"], WINDOW, "{said:#}");
    let status = server.status();
    let streams = number(&status, "flows");
    assert!((2..=4096).contains(&streams), "{streams} streams are open");
    // What the client's windows take, and not the 2^62 that it asks for.
    assert_eq!(number(&status["counters"], "perf_bytes_sent"), WINDOW);
    let grown = number(&status["process"], "resident_bytes").saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for one client");
    let others = measured(&place, &["--xdp", "off", "--quick", "-R", "-n", "3", "--size", "1M"]);
    assert_eq!(number(counts(&others, "down"), "done"), 3);
    drop(hostile);
}

#[test]
fn what_is_wrong_is_said_with_its_exit_code() {
    let run = |more: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["bench", "run", "https://127.0.0.1:9", "--insecure", "--xdp", "off"]).args(more);
        let out = command.output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    for (more, code, words) in [
        (&["-R", "--bidir"][..], 2, "cannot be used with"),
        (&["--rps", "1", "--hps", "1"], 2, "cannot be used with"),
        (&["--handshake", "0rtt"], 2, "--hps"),
        (&["--load", "50%"], 2, "--latency"),
        (&["--latency", "--load", "0%"], 2, "50%"),
        (&["--size", "many"], 2, "64K"),
        (&["-n", "0"], 2, "1.."),
        (&["--datagrams", "--size", "8"], 3, "16 bytes"),
        (&["-n", "5"], 3, "--size"),
        (&["-t", "0"], 3, "--time"),
        (&["--latency", "--load", "1M", "-n", "5"], 3, "--time"),
        (&["--quick"], 1, "no answer from 127.0.0.1:9"),
    ] {
        let (seen, said) = run(more);
        assert_eq!(seen, code, "{more:?}: {said}");
        assert!(said.contains(words), "{more:?}: {said}");
    }
    let serve = Command::new(binary()).args(["bench", "serve", "-l", "127.0.0.1:0", "--xdp", "off"]).output();
    let serve = serve.unwrap();
    assert_eq!(serve.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&serve.stderr).contains("--self-signed"));
}

#[test]
fn a_gateway_is_no_measuring_server_and_a_server_that_dies_is_missed() {
    if !root_or_skip("a_gateway_is_no_measuring_server_and_a_server_that_dies_is_missed") {
        return;
    }
    let place = Place::new();
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "off"]);
    let out = load(&place, &["--xdp", "off", "--quick"]).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let trouble = parsed(&out)["trouble"].as_str().unwrap().to_owned();
    assert!(trouble.contains("application protocol perf"), "{trouble}");
    drop(gateway);

    let mut serving = server(&place, &["--xdp", "off"]);
    let begun = |serving: &Beam| number(&serving.status()["counters"], "perf_streams") > 20;
    let endless = ["--xdp", "off", "--rps", "500", "-t", "10m", "-O", "0"];
    // The measurer is interrupted: what it has is told.
    let mut running = Proc::spawn("run", load(&place, &endless).stdout(Stdio::piped()));
    until("requests are served", || begun(&serving), |&begun| begun);
    running.signal(Signal::INT);
    let mut printed = String::new();
    running.stdout().read_to_string(&mut printed).unwrap();
    assert!(running.wait(LIMIT).success(), "{}", running.stderr());
    let said: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&said["interrupted"], &said["trouble"]), (&Value::Bool(true), &Value::Null));
    assert!(number(counts(&said, "requests"), "done") > 20, "{said:#}");
    // The server is killed: the same, and why.
    let before = number(&serving.status()["counters"], "perf_streams");
    let mut running = Proc::spawn("run", load(&place, &endless).stdout(Stdio::piped()));
    let served = || number(&serving.status()["counters"], "perf_streams");
    until("requests are served", served, |&served| served > before + 20);
    serving.process.kill();
    printed.clear();
    running.stdout().read_to_string(&mut printed).unwrap();
    assert_eq!(running.wait(LIMIT).code(), Some(1), "{}", running.stderr());
    let said: Value = serde_json::from_str(&printed).unwrap();
    assert!(said["trouble"].as_str().unwrap().contains("the server is gone"), "{said:#}");
    assert!(number(counts(&said, "requests"), "done") > 20, "{said:#}");
}
