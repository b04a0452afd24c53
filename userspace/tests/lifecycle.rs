//! Goal: beam comes and goes without harm: what runs beside it on the interface never notices, a drain loses no byte of a
//! running flow, a killed daemon leaves nothing behind, a client finds its gateway again.
//! Method: real processes and signals. Every wait is for an event (a log line, the end of a process, a byte) or asks the
//! kernel or the daemon again until a deadline; bytes are compared with the pattern they were made of.

mod pair;
mod rig;

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use pair::{FORWARD_PORT, LIMIT, Place, SOCKS_PORT, number, path, pattern_sha256, settled, until, words};
use rig::{Beam, EchoServer, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, Proc, pattern};
use rustix::process::Signal;

const NATIVE_GATEWAY: [&str; 4] = ["--xdp", "native", "-i", "g0"];
const NATIVE_CLIENT: [&str; 4] = ["--xdp", "native", "-i", "c0"];

/// What stands for ssh: one TCP connection between the namespaces that says something and hears it back, for ever.
struct Bystander {
    heard_count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
    _echo: EchoServer,
}

impl Bystander {
    fn start(place: &Place) -> Self {
        let echo = EchoServer::start(&place.rig, Ns::Gateway, GATEWAY_V4, 0);
        let stream = dial(place, echo.address());
        let (heard_count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (heard_of_thread, stop_of_thread) = (heard_count.clone(), stop.clone());
        let thread = std::thread::spawn(move || keep_talking(stream, &heard_of_thread, &stop_of_thread));
        Self { heard_count, stop, thread: Some(thread), _echo: echo }
    }

    fn heard_count(&self) -> u64 {
        self.heard_count.load(Ordering::Relaxed)
    }

    /// Panics unless the conversation goes on from here.
    fn keeps_flowing(&self, when: &str) {
        let before = self.heard_count();
        let wanted = before + 50;
        let done = |&now: &u64| now >= wanted;
        let asking = || {
            std::thread::yield_now();
            self.heard_count()
        };
        let now = until(&format!("the TCP connection beside beam flows {when}"), asking, done);
        println!("{when}: {before} answers before, {now} now");
    }

    fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("finished once");
        thread.join().expect("the bystander's thread").expect("the connection beside beam never broke");
    }
}

fn keep_talking(mut stream: TcpStream, heard_count: &AtomicU64, stop: &AtomicBool) -> io::Result<()> {
    let mut answer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        let number = heard_count.load(Ordering::Relaxed);
        let said: [u8; 64] = std::array::from_fn(|i| pattern(number * 64 + i as u64));
        stream.write_all(&said)?;
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, said, "answer {number}");
        heard_count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// A TCP connection from the client's namespace, with a limit on silence.
fn dial(place: &Place, to: SocketAddr) -> TcpStream {
    let stream = place
        .rig
        .within(Ns::Client, || TcpStream::connect_timeout(&to, LIMIT))
        .unwrap_or_else(|e| panic!("connect to {to}: {e}"));
    stream.set_read_timeout(Some(LIMIT)).expect("set a read timeout");
    stream.set_write_timeout(Some(LIMIT)).expect("set a write timeout");
    stream
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// TCP sockets of the namespace hold 64 KiB at most in each direction, so that a test knows where bytes wait.
fn small_socket_buffers(place: &Place, ns: Ns) {
    let script = "for side in r w; do echo 4096 16384 65536 > /proc/sys/net/ipv4/tcp_${side}mem; done";
    let done = place.rig.command(ns, "sh").args(["-ec", script]).status().expect("run sh");
    assert!(done.success(), "setting tcp_rmem and tcp_wmem failed");
}

/// Sends the pattern's next bytes and hears them back.
fn echo_some(stream: &mut TcpStream, at: &mut u64, length: u64) {
    let said: Vec<u8> = (*at..*at + length).map(pattern).collect();
    stream.write_all(&said).expect("write into the flow");
    let mut heard = vec![0; said.len()];
    stream.read_exact(&mut heard).expect("read from the flow");
    assert!(heard == said, "{length} bytes from {at} on came back changed");
    *at += length;
}

/// Asks a SOCKS5 server for `to`; the reply code of RFC 1928 section 6.
fn socks(stream: &mut TcpStream, to: SocketAddr) -> u8 {
    let SocketAddr::V4(to) = to else { panic!("an IPv4 address is enough here") };
    let [high, low] = to.port().to_be_bytes();
    stream.write_all(&[5, 1, 0]).expect("greet");
    let mut method = [0; 2];
    stream.read_exact(&mut method).expect("hear the method");
    assert_eq!(method, [5, 0]);
    let request = [&[5, 1, 0, 1][..], &to.ip().octets(), &[high, low]].concat();
    stream.write_all(&request).expect("request");
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).expect("hear the reply");
    reply[1]
}

#[test]
fn a_killed_gateway_leaves_no_program_and_disturbs_nobody() {
    if !rig::root_or_skip("a_killed_gateway_leaves_no_program_and_disturbs_nobody") {
        return;
    }
    const BODY_BYTES: u64 = 32 << 20;
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let bystander = Bystander::start(&place);
    bystander.keeps_flowing("before beam");

    let mut gateway = place.gateway(GATEWAY_V4, &NATIVE_GATEWAY);
    let client = place.client(GATEWAY_V4, &http.address().to_string(), &NATIVE_CLIENT);
    assert_eq!(place.rig.xdp_hook(Ns::Gateway, "g0"), Some("native"));
    bystander.keeps_flowing("with both programs attached");

    let before = bystander.heard_count();
    let url = format!("http://127.0.0.1:{FORWARD_PORT}/{BODY_BYTES}");
    assert_eq!(place.curl(&[&url]), (BODY_BYTES, pattern_sha256(BODY_BYTES)));
    assert!(bystander.heard_count() > before, "not one answer while the tunnel was busy");
    bystander.keeps_flowing("after the tunnel's load");

    // Killed in the middle of a flow, as the out-of-memory killer would.
    let mut flow = dial(&place, local(FORWARD_PORT));
    write!(flow, "GET /{BODY_BYTES} HTTP/1.1\r\n\r\n").unwrap();
    flow.read_exact(&mut [0; 1 << 16]).unwrap();
    gateway.process.kill();
    let gone = || place.rig.has_xdp(Ns::Gateway, "g0");
    until("the kernel takes the program off", gone, |&attached| !attached);
    bystander.keeps_flowing("after kill -9");
    assert_eq!(place.rig.xdp_hook(Ns::Client, "c0"), Some("native"), "the client's program is its own");
    drop(client);
    until("the client's program goes", || place.rig.has_xdp(Ns::Client, "c0"), |&attached| !attached);
    bystander.keeps_flowing("after the client's end, too");

    // What a killed daemon leaves, its control socket, doesn't keep the next one from starting on the same interface.
    assert!(gateway.control.exists(), "kill -9 leaves the socket's file");
    let mut again = place.gateway(GATEWAY_V4, &NATIVE_GATEWAY);
    assert_eq!(again.process.terminate(LIMIT).code(), Some(0));
    bystander.keeps_flowing("after an orderly end");
    bystander.finish();
}

/// Three flows when SIGTERM comes. One talks both ways. One is downloading, stalled by its slow reader. One is over for
/// the gateway: all of its bytes are acknowledged, and wait in the client for a reader that is slow, too.
#[test]
fn sigterm_drains_running_flows_and_refuses_new_ones() {
    if !rig::root_or_skip("sigterm_drains_running_flows_and_refuses_new_ones") {
        return;
    }
    // The client grants 8 MiB to each stream: more than the second body, less than the first.
    const STALLED_BYTES: u64 = 12 << 20;
    const ARRIVED_BYTES: u64 = 7 << 20;
    let place = Place::new();
    small_socket_buffers(&place, Ns::Client);
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let more = [&NATIVE_GATEWAY[..], &["--drain-timeout", "10m"]].concat();
    let mut gateway = place.gateway(GATEWAY_V4, &more);
    let client = place.client(GATEWAY_V4, &http.address().to_string(), &NATIVE_CLIENT);

    let mut talking = dial(&place, local(SOCKS_PORT));
    assert_eq!(socks(&mut talking, echo.address()), 0);
    let mut at = 0;
    echo_some(&mut talking, &mut at, 100_000);
    let stalled = request(&place, STALLED_BYTES);
    let arrived = request(&place, ARRIVED_BYTES);
    let stands_still = |status: &serde_json::Value| {
        let rates = &status["rates"];
        status["flows"] == 2 && rates["tx_packets_per_s"] == 0 && rates["rx_packets_per_s"] == 0
    };
    until("one flow is over for the gateway, two stand still", || gateway.status(), stands_still);
    assert_eq!(number(&client.status(), "flows"), 3);

    gateway.process.signal(Signal::TERM);
    let said = gateway.process.wait_for_line("draining: ", LIMIT);
    assert!(said.contains("2 flow(s) may finish within 600 s"), "{said}");
    client.process.wait_for_line("the gateway is draining", LIMIT);
    let status = gateway.status();
    assert_eq!((&status["draining"], &status["ready"]), (&true.into(), &false.into()), "{status:#}");

    let mut late = dial(&place, local(SOCKS_PORT));
    assert_ne!(socks(&mut late, echo.address()), 0, "a new flow is refused");
    let said = client.process.wait_for_line("refused 198.19.0.2", LIMIT);
    assert!(said.contains("503") && said.contains("draining"), "{said}");
    // A forward has only a reset to tell it, which may come before connect(2) has returned.
    let late = place.rig.within(Ns::Client, || TcpStream::connect_timeout(&local(FORWARD_PORT), LIMIT));
    let heard = late.and_then(|mut stream| stream.read(&mut [0; 1]));
    assert_eq!(heard.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    assert_eq!(number(&gateway.status()["counters"], "refused_draining"), 2);

    echo_some(&mut talking, &mut at, 100_000);
    hear_body(stalled, STALLED_BYTES);
    echo_some(&mut talking, &mut at, 100_000);
    talking.shutdown(Shutdown::Write).unwrap();
    assert_eq!(talking.read(&mut [0; 1]).unwrap(), 0, "and the talking flow ends in order");

    assert_eq!(gateway.process.wait(LIMIT).code(), Some(0));
    gateway.process.wait_for_line("0 flow(s) cut off", LIMIT);
    assert!(!place.rig.has_xdp(Ns::Gateway, "g0"), "an orderly end detaches");
    assert!(!gateway.control.exists(), "and removes the control socket");

    // The tunnel is gone, and what it had brought is not.
    client.process.wait_for_line("tunnel to 198.18.0.1 ended", LIMIT);
    hear_body(arrived, ARRIVED_BYTES);
    until("the client's flows are over", || client.status(), |status| status["flows"] == 0);
    let counters = client.status()["counters"].clone();
    assert_eq!((number(&counters, "flows_finished"), counters.get("flows_reset_by_stream")), (3, None));
}

/// Asks for a body through `-L`, and says no more.
fn request(place: &Place, body_bytes: u64) -> TcpStream {
    let mut stream = dial(place, local(FORWARD_PORT));
    write!(stream, "GET /{body_bytes} HTTP/1.1\r\n\r\n").expect("write a request");
    stream.shutdown(Shutdown::Write).expect("half-close");
    stream
}

fn hear_body(mut stream: TcpStream, body_bytes: u64) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the flow ends in order");
    let body = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!((all.len() - body) as u64, body_bytes);
    assert!(all[body..].iter().zip(0..).all(|(&byte, i)| byte == pattern(i)), "the body's bytes");
}

#[test]
fn a_second_sigterm_stops_at_once() {
    if !rig::root_or_skip("a_second_sigterm_stops_at_once") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0", "--drain-timeout", "10m"]);
    let client = place.client(GATEWAY_V4, &echo.address().to_string(), &["--xdp", "off"]);
    let mut flow = dial(&place, local(FORWARD_PORT));
    echo_some(&mut flow, &mut 0, 1000);
    gateway.process.signal(Signal::TERM);
    gateway.process.wait_for_line("draining: 1 flow(s)", LIMIT);
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.wait(LIMIT).code(), Some(0));
    gateway.process.wait_for_line("second signal", LIMIT);
    assert!(!place.rig.has_xdp(Ns::Gateway, "g0"));
    // The client is told, and tells the flow: a reset, not an end that would look like success.
    client.process.wait_for_line("tunnel to 198.18.0.1 ended: closed by the peer", LIMIT);
    let error = flow.read(&mut [0; 1]).expect_err("a cut flow is reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A drain that takes too long is cut off after `--drain-timeout`, and says what it cut.
#[test]
fn the_drain_timeout_is_kept() {
    if !rig::root_or_skip("the_drain_timeout_is_kept") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "off", "--drain-timeout", "100ms"]);
    let _client = place.client(GATEWAY_V4, &echo.address().to_string(), &["--xdp", "off"]);
    let mut flow = dial(&place, local(FORWARD_PORT));
    echo_some(&mut flow, &mut 0, 1000);
    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
    gateway.process.wait_for_line("1 flow(s) cut off", LIMIT);
}

#[test]
fn a_client_drains_too() {
    if !rig::root_or_skip("a_client_drains_too") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "off"]);
    let mut client = place.client(GATEWAY_V4, &echo.address().to_string(), &NATIVE_CLIENT);
    let mut flow = dial(&place, local(FORWARD_PORT));
    let mut at = 0;
    echo_some(&mut flow, &mut at, 1000);
    client.process.signal(Signal::TERM);
    client.process.wait_for_line("draining: 1 flow(s)", LIMIT);
    let late = place.rig.within(Ns::Client, || TcpStream::connect_timeout(&local(FORWARD_PORT), LIMIT));
    let refused = late.map_err(|error| error.kind()).map(drop);
    assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused), "a draining client no longer listens");
    echo_some(&mut flow, &mut at, 1000);
    flow.shutdown(Shutdown::Write).unwrap();
    assert_eq!(flow.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(client.process.wait(LIMIT).code(), Some(0));
    client.process.wait_for_line("0 flow(s) cut off", LIMIT);
    assert!(!place.rig.has_xdp(Ns::Client, "c0"));
    assert!(!client.control.exists());
    // The gateway was told, and does not wait for an idle timer.
    until("the connection is gone", || gateway.status(), |status| status["connections"] == 0);
}

/// A restarted gateway has the same certificate by `--state-dir`, so that a pinned client takes it up again by itself.
#[test]
fn a_client_finds_its_restarted_gateway() {
    if !rig::root_or_skip("a_client_finds_its_restarted_gateway") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let state = path(&place.rig.directory().join("state"));
    let args = place.serve_args(GATEWAY_V4, &["--self-signed", "--state-dir", &state]);
    let args = [words(&args), NATIVE_GATEWAY.to_vec()].concat();
    let mut gateway = Beam::start(&place.rig, Ns::Gateway, "gateway", &args);
    let fingerprint = gateway.fingerprint();
    let url = format!("https://{}", rig::authority(GATEWAY_V4, pair::TUNNEL_PORT));
    let (token, forward) = (path(&place.token), format!("{FORWARD_PORT}:{}", http.address()));
    let connect = ["connect", &url, "--pin", &fingerprint, "--token-file", &token, "-L", &forward];
    let connect = [&connect[..], &NATIVE_CLIENT, &["--max-retry-interval", "1s"]].concat();
    let client = Beam::start(&place.rig, Ns::Client, "client", &connect);
    let fetch = format!("http://127.0.0.1:{FORWARD_PORT}/1000000");
    assert_eq!(place.curl(&[&fetch]).0, 1_000_000);

    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
    let said = client.process.wait_for_line("tunnel to 198.18.0.1 ended: ", LIMIT);
    assert!(said.contains("next attempt in"), "{said}");
    let status = client.status();
    assert_eq!(status["ready"], false);
    assert!(status["why_not_ready"].as_str().unwrap().contains("last error: tunnel to"), "{status:#}");
    // This one waits for the tunnel: accepted while there is none, answered once there is.
    let mut waiting = dial(&place, local(FORWARD_PORT));
    write!(waiting, "GET /1000 HTTP/1.1\r\n\r\n").unwrap();

    let gateway = Beam::start(&place.rig, Ns::Gateway, "gateway", &args);
    assert_eq!(gateway.fingerprint(), fingerprint);
    let status = until("the client is back", || client.status(), |status| status["ready"] == true);
    assert_eq!(number(&status["counters"], "reconnects"), 1);
    let mut all = Vec::new();
    waiting.read_to_end(&mut all).unwrap();
    assert!(all.ends_with(&(0..1000).map(pattern).collect::<Vec<_>>()));
    drop(waiting);
    assert_eq!(place.curl(&[&fetch]), (1_000_000, pattern_sha256(1_000_000)));
    settled(&gateway);
}

#[test]
fn once_means_once() {
    if !rig::root_or_skip("once_means_once") {
        return;
    }
    let place = Place::new();
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "off"]);
    let mut client = place.client(GATEWAY_V4, "198.19.0.2:80", &["--xdp", "native", "-i", "c0", "--once"]);
    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
    assert_eq!(client.process.wait(LIMIT).code(), Some(1));
    let said = client.process.stderr();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("beam: tunnel to 198.18.0.1 ended: closed by the peer"), "{said}");
    assert!(!place.rig.has_xdp(Ns::Client, "c0"));
    assert!(!client.control.exists());
}

/// Starts `beam connect -W to`; its standard input and output are pipes.
fn stdio(place: &Place, to: SocketAddr) -> Proc {
    let args = place.connect_args(GATEWAY_V4, &["--xdp", "native", "-i", "c0", "-W", &to.to_string()]);
    let mut command = place.rig.command(Ns::Client, env!("CARGO_BIN_EXE_beam"));
    Proc::spawn("stdio", command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()))
}

fn feed(process: &mut Proc, length: u64) -> JoinHandle<io::Result<()>> {
    let mut input = process.stdin();
    std::thread::spawn(move || input.write_all(&(0..length).map(pattern).collect::<Vec<_>>()))
}

fn is_whole(bytes: &[u8], length: u64) -> bool {
    bytes.len() as u64 == length && bytes.iter().zip(0..).all(|(&byte, i)| byte == pattern(i))
}

#[test]
fn stdio_carries_both_ways() {
    if !rig::root_or_skip("stdio_carries_both_ways") {
        return;
    }
    const STDIO_BYTES: u64 = 10_000_000;
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let _gateway = place.gateway(GATEWAY_V4, &NATIVE_GATEWAY);
    let mut process = stdio(&place, echo.address());
    let feeder = feed(&mut process, STDIO_BYTES);
    let mut heard = Vec::new();
    process.stdout().read_to_end(&mut heard).unwrap();
    feeder.join().unwrap().unwrap();
    assert!(is_whole(&heard, STDIO_BYTES), "{} of {STDIO_BYTES} bytes came back", heard.len());
    assert_eq!(process.wait(LIMIT).code(), Some(0), "{}", process.stderr());
}

/// The far side has nothing to say, says so at once, and reads slowly. For the client both directions are over as soon
/// as its last byte is in QUIC's send buffer; for QUIC, once that byte waits in the gateway. All must arrive all the same.
#[test]
fn stdio_delivers_its_last_byte_before_it_ends() {
    if !rig::root_or_skip("stdio_delivers_its_last_byte_before_it_ends") {
        return;
    }
    // Fits into the 4 MiB that the gateway grants a stream, where it waits for a reader that has not begun.
    const STDIO_BYTES: u64 = 4_000_000;
    let place = Place::new();
    small_socket_buffers(&place, Ns::Gateway);
    small_socket_buffers(&place, Ns::Origin);
    let _gateway = place.gateway(GATEWAY_V4, &NATIVE_GATEWAY);
    let listener = place.rig.within(Ns::Origin, || TcpListener::bind((ORIGIN_V4, 0))).unwrap();
    let mut process = stdio(&place, listener.local_addr().unwrap());
    let feeder = feed(&mut process, STDIO_BYTES);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // Standard output ends with the far side's words; standard input is not affected.
    let mut output = process.stdout();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(output.read(&mut [0; 1])));
    assert_eq!(told.recv_timeout(LIMIT).expect("standard output ends").unwrap(), 0);
    feeder.join().unwrap().unwrap();
    // The client has nothing left to do, and ends; only then does the far side read.
    assert_eq!(process.wait(LIMIT).code(), Some(0), "{}", process.stderr());
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert!(is_whole(&heard, STDIO_BYTES), "{} of {STDIO_BYTES} bytes arrived", heard.len());
}

/// A cut is told apart from an end, which a pipe alone can't do.
#[test]
fn stdio_that_is_cut_off_fails() {
    if !rig::root_or_skip("stdio_that_is_cut_off_fails") {
        return;
    }
    let place = Place::new();
    let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "off", "--drain-timeout", "0s"]);
    let mut process = stdio(&place, echo.address());
    let (mut input, mut output) = (process.stdin(), process.stdout());
    input.write_all(b"hello").unwrap();
    output.read_exact(&mut [0; 5]).unwrap();
    gateway.process.terminate(LIMIT);
    assert_eq!(process.wait(LIMIT).code(), Some(1));
    let said = process.stderr();
    assert!(said.contains("beam: the connection of -W was cut off: closed by the peer"), "{said}");
}

#[test]
fn one_control_path_has_one_daemon() {
    if !rig::root_or_skip("one_control_path_has_one_daemon") {
        return;
    }
    let place = Place::new();
    let mut first = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let tls = [path(&place.pki.server_cert), path(&place.pki.server_key)];
    let users = path(&place.users);
    let second = ["serve", "-l", ":4434", "--users", &users, "--xdp", "off"];
    let second = [&second[..], &["--tls-cert", &tls[0], "--tls-key", &tls[1]]].concat();
    let mut refused = Beam::launch(&place.rig, Ns::Gateway, "gateway", &second);
    assert_eq!(refused.process.wait(LIMIT).code(), Some(4));
    let said = refused.process.stderr();
    let socket = path(&first.control);
    assert!(said.contains(&format!("another beam answers on {socket}")), "{said}");
    assert!(said.contains("--control PATH"), "{said}");
    // The first is as well as before, and its socket is still its own.
    assert_eq!(first.status()["ready"], true);

    first.process.kill();
    assert!(first.control.exists());
    let mut next = Beam::start(&place.rig, Ns::Gateway, "gateway", &second);
    assert_eq!(next.status()["ready"], true, "a stale socket is replaced");
    assert_eq!(next.process.terminate(LIMIT).code(), Some(0));
    assert!(!next.control.exists(), "and removed at the end");
}
