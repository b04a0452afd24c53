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
use rig::{Pki, Proc, binary, read_status, write_users};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tools::{counter, random_bytes, seed, steps::Steps};

const GREETING: &[u8; 6] = b"hello\n";

/// Says hello, then echoes. Counts its connections, each of which is one request that was run.
struct Origin {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
}

impl Origin {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicU64>::default();
        let counted = connections.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut back = stream.try_clone().unwrap();
                    let _ = stream.write_all(GREETING);
                    let _ = std::io::copy(&mut stream, &mut back);
                    let _ = back.shutdown(std::net::Shutdown::Write);
                });
            }
        });
        Self { address, connections }
    }

    fn executions(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// The files of one test, a port for its gateway, and the origin.
struct Place {
    directory: PathBuf,
    pki: Pki,
    users: PathBuf,
    /// The gateway's, and that of whatever stands before it.
    address: SocketAddr,
    relay: SocketAddr,
    origin: Origin,
}

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let directory = std::env::temp_dir().join(format!("beam-early-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let probes = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [address, relay] = probes.map(|probe| probe.local_addr().unwrap());
        Self {
            pki: Pki::create(&directory),
            users: write_users(&directory, &[("alice", "a-token-of-this-test")]),
            address,
            relay,
            origin: Origin::start(),
            directory,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A gateway with two workers, ready.
    fn gateway(&self, more: &[&str]) -> Gateway {
        let control = self.file("gateway.sock");
        let mut command = Command::new(binary());
        command.args(["serve", "-l", &self.address.to_string(), "--xdp", "off", "--allow", "127.0.0.0/8"]);
        command.args(["--users", &path(&self.users), "--control", &path(&control)]);
        command.args(["--tls-cert", &path(&self.pki.server_cert), "--tls-key", &path(&self.pki.server_key)]);
        if !more.contains(&"--state-dir") {
            command.args(["--state-dir", &path(&self.file("gateway"))]);
        }
        command.arg("-v").args(more).stdin(Stdio::null());
        let process = Proc::spawn("gateway", &mut command);
        process.wait_for_line("ready: ", LIMIT);
        Gateway { process, control }
    }

    /// A client of `gateway`, by way of a relay or not, that carries its standard input and output to the origin.
    fn client(&self, gateway: SocketAddr, name: &str) -> Client {
        self.client_with(gateway, name, &["--state-dir", &path(&self.file(name))])
    }

    fn client_with(&self, gateway: SocketAddr, name: &str, more: &[&str]) -> Client {
        let control = self.file(&format!("{name}.sock"));
        let mut command = Command::new(binary());
        command.args(["connect", &format!("https://{gateway}"), "--xdp", "off", "--once", "-v"]);
        command.args(["--ca", &path(&self.pki.ca), "--token-file", &path(&self.file("alice.token"))]);
        command.args(["-W", &self.origin.address.to_string(), "--control", &path(&control)]).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Client { process: Proc::spawn(name, &mut command), control }
    }

    /// A client that comes and goes, and leaves a ticket for the next.
    fn visit(&self, gateway: SocketAddr, name: &str) {
        let mut client = self.client(gateway, name);
        client.hear_greeting();
        client.leave();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

struct Gateway {
    process: Proc,
    control: PathBuf,
}

impl Gateway {
    fn count(&self, name: &str) -> u64 {
        counter(&read_status(&self.control), name)
    }

    fn stop(mut self) {
        assert!(self.process.terminate(LIMIT).success());
    }

    fn kill(mut self) {
        self.process.kill();
    }
}

struct Client {
    process: Proc,
    control: PathBuf,
}

impl Client {
    /// Returns once the first bytes are there.
    fn hear_greeting(&mut self) -> std::process::ChildStdout {
        let mut output = self.process.stdout();
        let mut greeting = [0; GREETING.len()];
        output.read_exact(&mut greeting).unwrap_or_else(|e| panic!("{e}: {}", self.process.stderr()));
        assert_eq!(greeting, *GREETING);
        output
    }

    /// Ends by the end of its input.
    fn leave(&mut self) {
        drop(self.process.stdin());
        let status = self.process.wait(LIMIT);
        assert!(status.success(), "{status}: {}", self.process.stderr());
    }
}

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
        (round_trips, relay.first_answer_bytes())
    };
    let gateway = place.gateway(&[]);
    let (full, full_bytes) = measure();
    assert_eq!(gateway.count("early_connections"), 0);
    let (early, _) = measure();
    let (again, _) = measure();
    assert_eq!(gateway.count("early_connections"), 2);
    assert_eq!(gateway.count("requests"), 3);
    gateway.stop();
    // Without early data: first with a ticket that would permit it, then with one that doesn't.
    let gateway = place.gateway(&["--0rtt", "off"]);
    let (refused, _) = measure();
    let (resumed, resumed_bytes) = measure();
    println!(
        "round trips to the first byte: full {full} ({full_bytes} bytes in the first answer), resumed {resumed} \
         ({resumed_bytes} bytes), refused early data {refused}, 0-RTT {early}"
    );
    assert_eq!((full, resumed, refused, early, again), (2, 2, 2, 1, 1));
    assert_eq!((gateway.count("early_connections"), gateway.count("requests")), (0, 2));
    assert_eq!(place.origin.executions(), 5);
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
