//! Goal: a client lives on. It reconnects and keeps its listeners; a change of its address moves the tunnel and leaves every
//! flow alone; with `--pool` it has several tunnels, on several workers of the gateway.
//! Method: a gateway and a client on the rig; addresses of the client's interface are replaced and links taken down in
//! the middle of transfers, gateways stopped and killed; then exact counts at both ends and at the origin.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use pair::{
    FORWARD_PORT, LIMIT, Place, number, path, pattern_sha256, settled, sha256, until, words, workers,
};
use rig::{Beam, CLIENT_V4, EchoServer, GATEWAY_V4, GATEWAY_V6, HttpServer, Ns, ORIGIN_V4, Proc};
use serde_json::{Value, json};
use tools::{counter, dial, random_bytes, read_all, read_some, seed, until_counter};

const NATIVE_GATEWAY: &[&str] = &["--xdp", "native", "-i", "g0", "--umem", "16"];
const NATIVE_CLIENT: &[&str] = &["--xdp", "native", "-i", "c0", "--umem", "16"];
const KERNEL: &[&str] = &["--xdp", "off"];
/// What the client's interface gets in place of its address.
/// Where the gateway is, what the client has, and what it has instead.
type Move = (IpAddr, &'static [&'static str], &'static [&'static str]);
const MOVE_V4: Move = (IpAddr::V4(GATEWAY_V4), &["198.18.0.2/24"], &["198.18.0.77/24"]);
const MOVE_V6: Move =
    (IpAddr::V6(GATEWAY_V6), &["2001:db8:1::2/64", "nodad"], &["2001:db8:1::77/64", "nodad"]);

/// One number of each worker.
fn by_worker(status: &Value, name: &str) -> Vec<u64> {
    workers(status).map(|worker| number(worker, name)).collect()
}

fn all_tunnels_are_up(client: &Beam, count: usize) -> Value {
    let up = json!({"up": count, "of": count});
    until("all tunnels are up", || client.status(), |status| status["tunnels"] == up)
}

/// Opens a flow that stays: one byte there and back.
fn open_flow(place: &Place) -> TcpStream {
    let mut stream = dial(place, FORWARD_PORT);
    stream.write_all(b"?").unwrap();
    assert_eq!(&read_some::<1>(&mut stream), b"?");
    stream
}

// Two tunnels are on two workers of the gateway, for their packets leave by two queues; eight flows are four on each.
#[test]
fn two_tunnels_use_two_workers_with_af_xdp() {
    if !rig::root_or_skip("two_tunnels_use_two_workers_with_af_xdp") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, NATIVE_GATEWAY);
    let flags = [NATIVE_CLIENT, &["--pool", "2"]].concat();
    let mut client = place.client(GATEWAY_V4, &echo.address().to_string(), &flags);
    all_tunnels_are_up(&client, 2);
    let flows: Vec<TcpStream> = (0..8).map(|_| open_flow(&place)).collect();
    let status = gateway.status();
    assert_eq!(by_worker(&status, "connections"), [1, 1], "{status:#}");
    assert_eq!(by_worker(&status, "flows"), [4, 4], "{status:#}");
    assert_eq!(by_worker(&status, "handed_in"), [0, 0], "each worker hears its own: {status:#}");

    for flow in &flows {
        flow.shutdown(Shutdown::Write).unwrap();
    }
    until("the flows have ended", || client.status(), |status| status["flows"] == 0);
    let held: Vec<TcpStream> = (0..3).map(|_| open_flow(&place)).collect();
    let mut of_each = by_worker(&gateway.status(), "flows");
    of_each.sort_unstable();
    assert_eq!(of_each, [1, 2]);
    drop(held);
    let status = client.status();
    assert_eq!((counter(&status, "reconnects"), counter(&status, "requests")), (0, 11), "{status:#}");
    assert_eq!(client.process.terminate(LIMIT).code(), Some(0));
}

// The kernel's hash chooses the worker of each of sixteen ports: all on one of two is as likely as 1 in 32,768.
#[test]
fn sixteen_tunnels_use_two_workers_with_kernel_udp() {
    const POOL: usize = 16;
    if !rig::root_or_skip("sixteen_tunnels_use_two_workers_with_kernel_udp") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &[KERNEL, &["--cpus", "0-1"]].concat());
    let client = place.client(
        GATEWAY_V4,
        &echo.address().to_string(),
        &[KERNEL, &["--pool", &POOL.to_string()]].concat(),
    );
    all_tunnels_are_up(&client, POOL);
    let flows: Vec<TcpStream> = (0..2 * POOL).map(|_| open_flow(&place)).collect();
    let status = gateway.status();
    let (connections, open) = (by_worker(&status, "connections"), by_worker(&status, "flows"));
    assert_eq!(connections.iter().sum::<u64>(), POOL as u64, "{status:#}");
    assert!(connections.iter().all(|&count| count > 0), "{connections:?}");
    let twice: Vec<u64> = connections.iter().map(|count| 2 * count).collect();
    assert_eq!(open, twice, "two flows on each tunnel");
    drop(flows);
}

/// Sends everything and reads it back; `at_half` is called once half of it is back.
fn echo_all(stream: &mut TcpStream, payload: &Arc<Vec<u8>>, at_half: impl FnOnce()) {
    let mut sending = stream.try_clone().unwrap();
    let sent = payload.clone();
    let writer = std::thread::spawn(move || {
        sending.write_all(&sent).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    let mut echoed = vec![0; payload.len()];
    let (first, second) = echoed.split_at_mut(payload.len() / 2);
    stream.read_exact(first).unwrap();
    at_half();
    stream.read_exact(second).unwrap();
    assert_eq!(sha256(&echoed), sha256(payload), "other bytes came back");
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the end follows the last byte");
    writer.join().unwrap();
}

// RFC 9000 section 9: the client's address changes in the middle of a transfer; the connection moves, the flow sees nothing.
fn an_address_is_replaced(test: &str, how: Move, gateway_flags: &[&str], client_flags: &[&str]) {
    const BYTES: usize = 32 << 20;
    if !rig::root_or_skip(test) {
        return;
    }
    let payload = Arc::new(random_bytes(seed(test), BYTES));
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let (at, home, away) = how;
    let gateway = place.gateway(at, gateway_flags);
    let client = place.client(at, &echo.address().to_string(), client_flags);
    let mut stream = dial(&place, FORWARD_PORT);
    let replace = |old: &[&str], new: &[&str]| {
        place.rig.ip(Ns::Client, &["address", "del", old[0], "dev", "c0"]);
        place.rig.ip(Ns::Client, &[&["address", "add", "dev", "c0"], new].concat());
    };
    echo_all(&mut stream, &payload, || replace(home, away));
    let moved = settled(&client);
    assert!(counter(&moved, "address_changes") >= 1, "{moved:#}");
    assert_eq!((counter(&moved, "reconnects"), counter(&moved, "connections_closed")), (0, 0), "{moved:#}");
    if client_flags == NATIVE_CLIENT {
        let (fast, slow) = (number(&moved, "xsk_tx_frames"), number(&moved, "kernel_udp_packets"));
        assert!(4 * slow < fast, "the new address is on the fast path soon: {slow} of {fast}: {moved:#}");
    }
    let status = settled(&gateway);
    assert!(counter(&status, "migrations") >= 1 && counter(&status, "paths_validated") >= 1, "{status:#}");
    assert_eq!((counter(&status, "connections_closed"), echo.echoed_bytes()), (0, BYTES as u64));
    assert_eq!(status["conservation"]["holds"], true, "{status:#}");
    // An idle tunnel moves, too: back again.
    let before = counter(&status, "paths_validated");
    replace(away, home);
    until_counter(&gateway, "paths_validated", before + 1);
    drop(open_flow(&place));
    let (client, gateway) = (client.status(), gateway.status());
    assert_eq!((counter(&client, "connections_closed"), counter(&gateway, "connections_closed")), (0, 0));
}

#[test]
fn an_address_is_replaced_in_mid_transfer_with_af_xdp() {
    const TEST: &str = "an_address_is_replaced_in_mid_transfer_with_af_xdp";
    an_address_is_replaced(TEST, MOVE_V4, NATIVE_GATEWAY, NATIVE_CLIENT);
}

#[test]
fn an_ipv6_address_is_replaced_in_mid_transfer_with_af_xdp() {
    const TEST: &str = "an_ipv6_address_is_replaced_in_mid_transfer_with_af_xdp";
    an_address_is_replaced(TEST, MOVE_V6, NATIVE_GATEWAY, NATIVE_CLIENT);
}

#[test]
fn an_address_is_replaced_in_mid_transfer_with_kernel_udp() {
    const TEST: &str = "an_address_is_replaced_in_mid_transfer_with_kernel_udp";
    an_address_is_replaced(TEST, MOVE_V4, KERNEL, KERNEL);
}

// A client that starts without a network tries again when there is one, and not when its pause is over.
#[test]
fn a_pause_ends_when_there_is_a_way() {
    if !rig::root_or_skip("a_pause_ends_when_there_is_a_way") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, KERNEL);
    place.rig.ip(Ns::Client, &["address", "flush", "dev", "c0"]);
    let mut args = place.connect_args(GATEWAY_V4, KERNEL);
    args.extend(["-L".into(), format!("{FORWARD_PORT}:{}", http.address())]);
    let client = Beam::launch(&place.rig, Ns::Client, "client", &words(&args));
    let said = client.process.wait_for_line("next attempt in", LIMIT);
    assert!(
        said.contains("gateway 198.18.0.1 (198.18.0.1:4433): no route; see: ip route get 198.18.0.1"),
        "{said}"
    );
    // The pauses grow: by the fourth they last for four seconds at least.
    until(
        "some attempts fail",
        || client.process.stderr(),
        |log| log.matches("next attempt in").count() >= 4,
    );
    place.rig.ip(Ns::Client, &["address", "add", &format!("{CLIENT_V4}/24"), "dev", "c0"]);
    client.process.wait_for_line("come from 198.18.0.2 now: trying again", LIMIT);
    client.process.wait_for_line("ready: tunnel to 198.18.0.1", LIMIT);
    assert_eq!(place.curl(&[&format!("http://127.0.0.1:{FORWARD_PORT}/1000")]), (1000, pattern_sha256(1000)));
    drop(gateway);
}

// A gateway comes and goes ten times; the listeners of -L and -R stay, and a local connection made while there is no
// tunnel waits for the next one.
#[test]
fn ten_reconnects_keep_the_listeners() {
    const ROUNDS: u64 = 10;
    const BODY_BYTES: u64 = 100_000;
    if !rig::root_or_skip("ten_reconnects_keep_the_listeners") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let service = HttpServer::start(&place.rig, Ns::Client, Ipv4Addr::LOCALHOST, 0);
    let gateway_flags = [NATIVE_GATEWAY, &["--allow-listen", "8080"]].concat();
    let mut gateway = place.gateway(GATEWAY_V4, &gateway_flags);
    let publication = format!("8080:{}", service.address());
    let flags = ["--pool", "2", "--max-retry-interval", "200ms", "-R", &publication];
    let client = place.client(GATEWAY_V4, &http.address().to_string(), &[NATIVE_CLIENT, &flags].concat());
    let url = format!("http://127.0.0.1:{FORWARD_PORT}/{BODY_BYTES}");
    all_tunnels_are_up(&client, 2);
    for round in 1..=ROUNDS {
        until_counter(&client, "listens_opened", round);
        assert_eq!(place.curl(&[&url]), (BODY_BYTES, pattern_sha256(BODY_BYTES)), "round {round}");
        let mut visitor = place
            .rig
            .within(Ns::Gateway, || TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)))
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(fetched(&mut visitor, 2000), "round {round}, by -R");
        drop(visitor);

        assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
        until("the tunnels are gone", || client.status(), |status| status["tunnels"]["up"] == 0);
        let mut waiting = dial(&place, FORWARD_PORT);
        write!(waiting, "GET /1000 HTTP/1.1\r\n\r\n").unwrap();
        gateway = place.gateway(GATEWAY_V4, &gateway_flags);
        assert!(rest_is_pattern(&mut waiting, 1000), "round {round}");
        let status = all_tunnels_are_up(&client, 2);
        assert_eq!(counter(&status, "reconnects"), 2 * round, "{status:#}");
    }
    until_counter(&client, "listens_opened", ROUNDS + 1);
    let status = settled(&client);
    let wanted = [
        // A flow each for -L, for what waited, for -R and for its listener.
        ("requests", 4 * ROUNDS + 1),
        ("flows_finished", 3 * ROUNDS),
        ("connections_closed", 2 * ROUNDS),
        ("reverse_arrived", ROUNDS),
        ("reverse_opened", ROUNDS),
        ("listens_denied", 0),
        ("flows_reset_by_stream", 0),
    ];
    for (name, count) in wanted {
        assert_eq!(counter(&status, name), count, "{name}: {status:#}");
    }
    assert_eq!((http.connection_count(), http.body_bytes()), (2 * ROUNDS, ROUNDS * (BODY_BYTES + 1000)));
    assert_eq!((service.connection_count(), service.body_bytes()), (ROUNDS, ROUNDS * 2000));
}

/// Asks for so many bytes of the pattern, and gets them.
fn fetched(stream: &mut TcpStream, length: u64) -> bool {
    tools::patient(stream);
    write!(stream, "GET /{length} HTTP/1.1\r\n\r\n").unwrap();
    rest_is_pattern(stream, length)
}

fn rest_is_pattern(stream: &mut TcpStream, length: u64) -> bool {
    read_all(stream).ends_with(&(0..length).map(rig::pattern).collect::<Vec<_>>())
}

// A gateway that was killed says nothing to anybody; the next run of it, with the same state directory, answers what it
// doesn't know by a stateless reset (RFC 9000 section 10.3), and the client is back long before its idle timeout.
#[test]
fn a_killed_gateway_is_found_again_at_once() {
    if !rig::root_or_skip("a_killed_gateway_is_found_again_at_once") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let state = path(&place.rig.directory().join("state"));
    let gateway_flags = [NATIVE_GATEWAY, &["--state-dir", &state]].concat();
    let mut gateway = place.gateway(GATEWAY_V4, &gateway_flags);
    let client = place.client(GATEWAY_V4, &http.address().to_string(), NATIVE_CLIENT);
    let url = format!("http://127.0.0.1:{FORWARD_PORT}/1000");
    assert_eq!(place.curl(&[&url]), (1000, pattern_sha256(1000)));
    gateway.process.kill();
    until("the kernel takes the program off", || place.rig.has_xdp(Ns::Gateway, "g0"), |&attached| !attached);
    let gateway = place.gateway(GATEWAY_V4, &gateway_flags);
    // The client may not know yet. Then what it asks now the new gateway can't read, and it asks once more.
    assert_eq!(place.curl(&[&url]), (1000, pattern_sha256(1000)));
    let said = client.process.wait_for_line("stateless reset", LIMIT);
    assert!(said.contains("tunnel to 198.18.0.1 ended"), "{said}");
    let status = client.status();
    assert_eq!(counter(&status, "reconnects"), 1, "{status:#}");
    assert!(counter(&gateway.status(), "stateless_resets_sent") >= 1);
    assert_eq!((http.connection_count(), http.body_bytes()), (2, 2000));
}

/// What an sshd of the test's own needs, and a client of it.
struct Ssh<'a> {
    place: &'a Place,
    directory: PathBuf,
    _daemon: Proc,
}

impl<'a> Ssh<'a> {
    const PORT: u16 = 2222;

    /// On the origin's address; it lets root in by a key.
    fn start(place: &'a Place) -> Self {
        let directory = place.rig.directory().join("ssh");
        std::fs::create_dir(&directory).unwrap();
        // Where sshd drops its privileges; the package makes it when the service starts, which it doesn't here.
        std::fs::create_dir_all("/run/sshd").unwrap();
        for name in ["host", "user"] {
            let key = path(&directory.join(name));
            rig::must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key]);
        }
        let public =
            |name: &str| std::fs::read_to_string(directory.join(name).with_extension("pub")).unwrap();
        std::fs::write(directory.join("authorized"), public("user")).unwrap();
        let known = format!("[{ORIGIN_V4}]:{} {}", Self::PORT, public("host"));
        std::fs::write(directory.join("known"), known).unwrap();
        let at = |name: &str| path(&directory.join(name));
        let config = format!(
            "ListenAddress {ORIGIN_V4}:{}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nPidFile none\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\n",
            Self::PORT,
            at("host"),
            at("authorized"),
        );
        std::fs::write(directory.join("config"), config).unwrap();
        let mut command = place.rig.command(Ns::Origin, "/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", &at("config")]);
        let daemon = Proc::spawn("sshd", &mut command);
        daemon.wait_for_line("Server listening on", LIMIT);
        Self { place, directory, _daemon: daemon }
    }

    /// `ssh` in the client's namespace, through `beam connect ... -W`, with this command for the other side.
    fn command(&self, remote: &str) -> Command {
        let at = |name: &str| path(&self.directory.join(name));
        let connect = self.place.connect_args(GATEWAY_V4, &["--xdp", "off", "-W", "%h:%p"]).join(" ");
        let proxy = format!("ProxyCommand={} {connect}", rig::binary().to_str().unwrap());
        let mut ssh = self.place.rig.command(Ns::Client, "ssh");
        ssh.args(["-F", "none", "-i", &at("user"), "-p", &Self::PORT.to_string()]);
        ssh.args(["-o", &format!("UserKnownHostsFile={}", at("known")), "-o", "BatchMode=yes", "-o", &proxy]);
        ssh.args([&format!("root@{ORIGIN_V4}"), remote]);
        ssh
    }
}

// ssh logs in through the tunnel as it would by itself: bytes both ways, the command's exit status, a clean end.
#[test]
fn ssh_logs_in_by_its_proxy_command() {
    const TEST: &str = "ssh_logs_in_by_its_proxy_command";
    if !rig::root_or_skip(TEST) {
        return;
    }
    let payload = random_bytes(seed(TEST), 4 << 20);
    let place = Place::new();
    let gateway = place.gateway(GATEWAY_V4, KERNEL);
    let ssh = Ssh::start(&place);
    let mut child =
        ssh.command("sha256sum; exit 7").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&payload).unwrap();
    drop(input);
    let out = child.wait_with_output().unwrap();
    let (said, code) = (String::from_utf8_lossy(&out.stdout), out.status.code());
    assert_eq!((said.trim(), code), (format!("{}  -", sha256(&payload)).as_str(), Some(7)));
    let status = settled(&gateway);
    assert_eq!((counter(&status, "flows_finished"), counter(&status, "requests")), (1, 1), "{status:#}");
}
