//! Goal: what a client may do is what the users file says, for each client by itself; a reload and a kick touch those
//! whom they are about and nobody else; `beam show` tells all of it.
//! Method: two clients of one gateway in real processes; limits are held to exact counts, downloads that run through a
//! reload or a kick to their SHA-256, tables to the JSON that `-j` prints. How a rate is kept is proved under a virtual
//! clock, in `worker/account.rs` and `worker/ledger/tests.rs`; here it is that it engages, and loses no byte.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pair::{LIMIT, Place, TUNNEL_PORT, number, path, pattern_sha256, sha256, until};
use rig::{Beam, EchoServer, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, Pki, authority, binary, write_users};
use rustix::process::Signal;
use serde_json::Value;

/// Kernel sockets: two workers, one for each CPU of the machine.
const GATEWAY: [&str; 4] = ["--xdp", "off", "--cpus", "0,1"];

/// Writes the users file afresh: a line for each name, its token `NAME-token`, and its options.
fn write_policies(place: &Place, users: &[(&str, &str)]) {
    let tokens: Vec<String> = users.iter().map(|(name, _)| format!("{name}-token")).collect();
    let named: Vec<_> = users.iter().zip(&tokens).map(|((name, _), token)| (*name, token.as_str())).collect();
    let file = write_users(place.rig.directory(), &named);
    let text = fs::read_to_string(&file).unwrap();
    let lines = text.lines().zip(users).map(|(line, (_, options))| format!("{line} {options}\n"));
    fs::write(&file, lines.collect::<String>()).unwrap();
}

/// A client with the user's token and a forward on a port of its own.
fn client(place: &Place, user: &str, port: u16, to: SocketAddr) -> Beam {
    client_of(place, &place.pki.ca, user, port, to)
}

fn client_of(place: &Place, ca: &Path, user: &str, port: u16, to: SocketAddr) -> Beam {
    let url = format!("https://{}", authority(GATEWAY_V4, TUNNEL_PORT));
    let token = place.rig.directory().join(format!("{user}.token"));
    let forward = format!("{port}:{to}");
    let args =
        ["connect", &url, "--ca", &path(ca), "--token-file", &path(&token), "-L", &forward, "--xdp", "off"];
    Beam::start(&place.rig, Ns::Client, user, &args)
}

fn dial(place: &Place, port: u16) -> TcpStream {
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = place.rig.within(Ns::Client, || TcpStream::connect_timeout(&to, LIMIT)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// A flow that is open: a byte went to the echo server and came back.
fn open(place: &Place, port: u16) -> TcpStream {
    let mut stream = dial(place, port);
    echo(&mut stream);
    stream
}

fn echo(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    let mut heard = [0];
    stream.read_exact(&mut heard).expect("the echo of an open flow");
    assert_eq!(&heard, b"x");
}

/// A flow that the gateway refuses: its local end is reset, maybe before connect(2) has returned.
fn refused(place: &Place, port: u16) {
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let heard =
        place.rig.within(Ns::Client, || TcpStream::connect_timeout(&to, LIMIT)).and_then(|mut stream| {
            stream.set_read_timeout(Some(LIMIT))?;
            stream.read(&mut [0])
        });
    assert_eq!(heard.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
}

/// A download that has begun: so many bytes of the pattern are asked for, the head and the first of them are here.
struct Download {
    stream: TcpStream,
    body: Vec<u8>,
    length: u64,
}

impl Download {
    fn begin(place: &Place, port: u16, length: u64) -> Self {
        let mut stream = dial(place, port);
        write!(stream, "GET /{length} HTTP/1.1\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the head of a response");
            head.push(byte[0]);
        }
        let mut body = vec![0; 1000];
        stream.read_exact(&mut body).expect("the first bytes of a body");
        Self { stream, body, length }
    }

    /// The rest, whole.
    fn finish(mut self) {
        self.stream.read_to_end(&mut self.body).expect("the flow ends in order");
        assert_eq!(self.body.len() as u64, self.length);
        assert_eq!(sha256(&self.body), pattern_sha256(self.length));
    }
}

fn beam(control: &Path, args: &[&str]) -> Output {
    Command::new(binary()).args(args).arg("--control").arg(control).output().unwrap()
}

/// Exit code and what was said on standard output and standard error.
fn order(gateway: &Beam, args: &[&str]) -> (Option<i32>, String) {
    let out = beam(&gateway.control, args);
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code(), said)
}

/// The rows of `beam show NOUN FILTERS -j`.
fn show(daemon: &Beam, noun: &str, filters: &[&str]) -> Vec<Value> {
    let out = beam(&daemon.control, &[&["show", noun, "-j"], filters].concat());
    assert!(out.status.success(), "beam show {noun}: {}", String::from_utf8_lossy(&out.stderr));
    let shown: Value = serde_json::from_slice(&out.stdout).expect("one JSON object");
    assert_eq!(shown["schema"], format!("beam.show.{noun}.v1"));
    let rows = shown["rows"].as_array().expect("rows").clone();
    assert_eq!(number(&shown, "total"), rows.len() as u64, "nothing was left out: {shown:#}");
    rows
}

/// The one row of a client.
fn usage(gateway: &Beam, name: &str) -> Value {
    let rows = show(gateway, "clients", &[&format!("client={name}")]);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    rows[0].clone()
}

fn error_count(gateway: &Beam, counter: &str) -> u64 {
    show(gateway, "errors", &[&format!("counter={counter}")]).first().map_or(0, |row| number(row, "count"))
}

/// alice may have two flows and one connection, bob what he likes. Then the tables: who is there, and what for.
#[test]
fn limits_are_each_clients_own() {
    if !rig::root_or_skip("limits_are_each_clients_own") {
        return;
    }
    let place = Place::new();
    write_policies(&place, &[("alice", "max-flows=2 max-connections=1"), ("bob", "routes=10.7.0.0/16")]);
    let server = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &GATEWAY);
    let alice = client(&place, "alice", 18_081, server.address());
    let bob = client(&place, "bob", 18_082, server.address());

    let (one, two) = (open(&place, 18_081), open(&place, 18_081));
    refused(&place, 18_081);
    let said = alice.process.wait_for_line("refused 198.19.0.2", LIMIT);
    assert!(said.contains("429") && said.contains("as many flows as it may"), "{said}");
    let bobs: Vec<TcpStream> = (0..5).map(|_| open(&place, 18_082)).collect();
    assert_eq!(error_count(&gateway, "refused_limit"), 1);

    tables_tell(&gateway, &bob, server.address());

    // A place that is free again is taken.
    drop(one);
    until("a place is free", || usage(&gateway, "alice"), |row| row["flows"] == 1);
    let three = open(&place, 18_081);
    drop((two, three, bobs));

    // A second host with alice's token: its requests are refused while the first is there.
    let token = place.rig.directory().join("alice.token");
    fs::copy(&token, place.rig.directory().join("alice-again.token")).unwrap();
    let again = client(&place, "alice-again", 18_083, server.address());
    refused(&place, 18_083);
    let said = again.process.wait_for_line("refused 198.19.0.2", LIMIT);
    assert!(said.contains("429") && said.contains("as many connections as it may"), "{said}");
    drop(alice);
    order(&gateway, &["kick", "alice"]);
    until("the first is gone", || usage(&gateway, "alice"), |row| row["connections"] == 0);
    open(&place, 18_083);
    let row = usage(&gateway, "alice");
    assert_eq!((number(&row, "connections"), number(&row, "refused_limit")), (1, 2), "{row:#}");

    // Counted from zero again; what is open stays, and so do the totals of the status.
    assert_eq!(order(&gateway, &["clear", "counters"]).0, Some(0));
    let row = usage(&gateway, "alice");
    let seen = ["connections", "flows_opened", "sent_bytes", "refused_limit"].map(|key| number(&row, key));
    assert_eq!(seen, [1, 0, 0, 0], "{row:#}");
    assert_eq!(error_count(&gateway, "refused_limit"), 0);
    assert_eq!(number(&gateway.status()["counters"], "refused_limit"), 2);
}

/// Two flows of alice's and five of bob's are open; one byte went each way on each.
fn tables_tell(gateway: &Beam, bob: &Beam, origin: SocketAddr) {
    let row = usage(gateway, "alice");
    let seen = ["connections", "flows", "flows_opened", "sent_bytes", "received_bytes", "refused_limit"];
    assert_eq!(seen.map(|key| number(&row, key)), [1, 2, 2, 2, 2, 1], "{row:#}");
    assert_eq!(row["policy"], "max-flows=2 max-connections=1");
    assert_eq!(number(&usage(gateway, "bob"), "flows"), 5);

    let tunnels = show(gateway, "tunnels", &["client=bob"]);
    assert_eq!(tunnels.len(), 1, "{tunnels:#?}");
    let tunnel = &tunnels[0];
    assert!(tunnel["remote"].as_str().unwrap().starts_with("198.18.0.2:"), "{tunnel:#}");
    assert!(tunnel["rtt_ms"].as_f64().unwrap() > 0.0 && number(tunnel, "mtu") >= 1200, "{tunnel:#}");
    let inner = number(tunnel, "datagram_mtu");
    assert!(inner + 20 < number(tunnel, "mtu") && inner > 1100, "{tunnel:#}");
    assert_eq!(number(tunnel, "flows"), 5);

    let flows = show(gateway, "flows", &["client=bob", "kind=tcp"]);
    assert_eq!(flows.len(), 5);
    for flow in &flows {
        assert_eq!(flow["to"], origin.to_string());
        assert_eq!((&flow["state"], &flow["tunnel"]), (&"open".into(), &tunnel["tunnel"]));
        assert_eq!((number(flow, "sent_bytes"), number(flow, "received_bytes")), (1, 1), "{flow:#}");
    }
    // The client sees its own the same way round.
    let own = show(bob, "flows", &["state=open"]);
    assert_eq!(own.len(), 5);
    assert!(own.iter().all(|flow| flow["to"] == origin.to_string() && number(flow, "sent_bytes") == 1));
    assert!(!beam(&bob.control, &["show", "clients"]).status.success(), "a client has none");

    let routes = show(gateway, "routes", &[]);
    assert_eq!(
        (routes.len(), &routes[0]["prefix"], &routes[0]["client"]),
        (1, &"10.7.0.0/16".into(), &"bob".into())
    );
    assert_eq!(show(gateway, "queues", &[]).len(), 2, "two workers");
    assert!(!show(gateway, "caches", &[]).is_empty() && !show(bob, "caches", &[]).is_empty());
    let limit = show(gateway, "config", &["flag=--drain-timeout"]);
    assert_eq!((&limit[0]["value"], &limit[0]["from"]), (&"30s".into(), &"default".into()));
    let certificate = &show(gateway, "cert", &[])[0];
    assert_eq!(certificate["subject"], "CN=server");
    assert!(
        certificate["names"].as_array().unwrap().contains(&GATEWAY_V4.to_string().into()),
        "{certificate:#}"
    );
    assert_eq!(certificate["fingerprint"], gateway.fingerprint());

    // For people: a note where rows are left out, and words for a wrong column.
    let text = order(gateway, &["show", "flows", "--limit", "3"]);
    assert!(text.0 == Some(0) && text.1.contains("... and 4 more"), "{}", text.1);
    let text = order(gateway, &["show", "flows", "name=bob"]);
    assert!(
        text.0 == Some(3) && text.1.contains("has no column \"name\"") && text.1.contains("client"),
        "{}",
        text.1
    );
}

/// alice gets 40 Mbit/s each way; her bytes are late and whole, both ways at once. bob isn't limited.
#[test]
fn a_rate_engages_and_loses_nothing() {
    if !rig::root_or_skip("a_rate_engages_and_loses_nothing") {
        return;
    }
    const LENGTH: u64 = 4 << 20;
    let place = Place::new();
    write_policies(&place, &[("alice", "max-rate=40M"), ("bob", "")]);
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let echoes = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &GATEWAY);
    let _alice = client(&place, "alice", 18_081, http.address());
    let _bob = client(&place, "bob", 18_082, http.address());
    let _uploader = client_as(&place, "alice", "uploader", 18_083, echoes.address());

    let downloads: Vec<Download> = (0..3).map(|_| Download::begin(&place, 18_081, LENGTH)).collect();
    Download::begin(&place, 18_082, LENGTH).finish();
    upload(dial(&place, 18_083), LENGTH);
    downloads.into_iter().for_each(Download::finish);

    let row = until("alice's flows are over", || usage(&gateway, "alice"), |row| row["flows"] == 0);
    assert!(number(&row, "rate_waits") > 0, "{row:#}");
    // 57 bytes of head to each body.
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nConnection: close\r\n\r\n").len() as u64;
    assert_eq!(number(&row, "received_bytes"), 3 * (LENGTH + head) + LENGTH, "{row:#}");
    let requests = 3 * format!("GET /{LENGTH} HTTP/1.1\r\n\r\n").len() as u64;
    assert_eq!(number(&row, "sent_bytes"), requests + LENGTH, "{row:#}");
    assert_eq!(number(&row, "connections"), 2);
    assert_eq!(number(&usage(&gateway, "bob"), "rate_waits"), 0);
}

/// Another client with a user's token.
fn client_as(place: &Place, user: &str, name: &str, port: u16, to: SocketAddr) -> Beam {
    let directory = place.rig.directory();
    fs::copy(directory.join(format!("{user}.token")), directory.join(format!("{name}.token"))).unwrap();
    client(place, name, port, to)
}

/// Echoes `length` bytes of the pattern.
fn upload(stream: TcpStream, length: u64) {
    let bytes: Vec<u8> = (0..length).map(rig::pattern).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut heard = Vec::new();
    let mut stream = stream;
    stream.read_to_end(&mut heard).expect("the echo ends in order");
    writing.join().unwrap();
    assert!(heard == bytes, "{} bytes of {length} came back, or others", heard.len());
}

/// A reload while bob downloads: carol comes, alice goes, bob notices nothing. Then a bad file, which changes nothing;
/// a narrower policy, which cuts what it forbids; another certificate, which the next handshake shows.
#[test]
fn a_reload_touches_whom_it_is_about() {
    if !rig::root_or_skip("a_reload_touches_whom_it_is_about") {
        return;
    }
    const LENGTH: u64 = 24 << 20;
    let place = Place::new();
    write_policies(&place, &[("alice", ""), ("bob", ""), ("carol", "")]);
    write_policies(&place, &[("alice", ""), ("bob", "")]);
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let server = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &GATEWAY);
    let alice = client(&place, "alice", 18_081, server.address());
    let bob = client(&place, "bob", 18_082, http.address());
    let carol = client(&place, "carol", 18_083, server.address());
    let mut alices = open(&place, 18_081);
    let bobs = Download::begin(&place, 18_082, LENGTH);
    refused(&place, 18_083);
    carol.process.wait_for_line("407", LIMIT);

    write_policies(&place, &[("bob", "max-flows=9"), ("carol", "")]);
    let (code, said) = order(&gateway, &["reload"]);
    assert_eq!(code, Some(0), "{said}");
    let wanted = "2 client(s) in the users file: 1 added, 1 removed, 1 changed; the certificate is the same; \
                  1 connection(s) closed, 0 flow(s) cut";
    assert!(said.contains(wanted), "{said}");
    alice.process.wait_for_line("this client is no longer admitted", LIMIT);
    assert_eq!(alices.read(&mut [0]).map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    let mut carols = open(&place, 18_083);
    assert_eq!(usage(&gateway, "bob")["policy"], "max-flows=9");

    // A bad file: said by the verb and by the log, and the old one stays.
    fs::write(&place.users, "bob sha256:zz\n").unwrap();
    let (code, said) = order(&gateway, &["reload"]);
    assert!(code == Some(1) && said.contains("nothing has changed") && said.contains("line 1"), "{said}");
    gateway.process.signal(Signal::HUP);
    gateway.process.wait_for_line("reload failed, nothing has changed: users file", LIMIT);
    echo(&mut carols);
    drop(open(&place, 18_083));
    until("carol has one flow", || usage(&gateway, "carol"), |row| row["flows"] == 1);

    // SIGHUP with a policy that forbids where carol's flow goes: the flow is cut, her tunnel stays.
    write_policies(&place, &[("bob", ""), ("carol", "allow=198.19.0.2:1")]);
    gateway.process.signal(Signal::HUP);
    gateway.process.wait_for_line("0 connection(s) closed, 1 flow(s) cut", LIMIT);
    assert_eq!(carols.read(&mut [0]).map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    refused(&place, 18_083);
    carol.process.wait_for_line("not allowed for this client", LIMIT);
    assert_eq!(error_count(&gateway, "flows_revoked"), 1);

    // Another authority's certificate: who is there stays, who comes sees the new one.
    let other = renew_certificate(&place);
    let (code, said) = order(&gateway, &["reload"]);
    assert!(code == Some(0) && said.contains("new certificate, fingerprint sha256:"), "{said}");
    write_policies(&place, &[("bob", ""), ("dave", "")]);
    assert_eq!(order(&gateway, &["reload"]).0, Some(0));
    let _dave = client_of(&place, &other, "dave", 18_084, server.address());
    open(&place, 18_084);

    bobs.finish();
    assert_eq!(bob.process.stderr().matches("ready: ").count(), 1, "bob has had one tunnel all along");
    assert_eq!(error_count(&gateway, "closed_revoked"), 2, "alice's and carol's");
}

/// Puts a certificate of another authority in the place of the gateway's; that authority.
fn renew_certificate(place: &Place) -> PathBuf {
    let directory = place.rig.directory().join("renewed");
    fs::create_dir(&directory).unwrap();
    let other = Pki::create(&directory);
    fs::copy(&other.server_cert, &place.pki.server_cert).unwrap();
    fs::copy(&other.server_key, &place.pki.server_key).unwrap();
    other.ca
}

/// One of two is kicked, by name and by tunnel; the other's download doesn't notice.
#[test]
fn a_kick_closes_one_client() {
    if !rig::root_or_skip("a_kick_closes_one_client") {
        return;
    }
    const LENGTH: u64 = 24 << 20;
    let place = Place::new();
    write_policies(&place, &[("alice", ""), ("bob", "")]);
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let server = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &GATEWAY);
    let (code, said) = order(&gateway, &["kick", "alice"]);
    assert!(code == Some(1) && said.contains("nobody has"), "{said}");
    let alice = client(&place, "alice", 18_081, server.address());
    let bob = client(&place, "bob", 18_082, http.address());
    let mut alices = open(&place, 18_081);
    let bobs = Download::begin(&place, 18_082, LENGTH);
    let (code, said) = order(&gateway, &["kick", "eve"]);
    assert!(code == Some(1) && said.contains("these have: alice, bob"), "{said}");

    let (code, said) = order(&gateway, &["kick", "alice"]);
    assert!(code == Some(0) && said.contains("alice: 1 connection(s) closed"), "{said}");
    alice.process.wait_for_line("the operator closed this connection", LIMIT);
    assert_eq!(alices.read(&mut [0]).map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));

    // She comes again by herself; this time it is her tunnel that is named.
    let ready = |said: &String| said.matches("ready: ").count() == 2;
    until("alice is back", || alice.process.stderr(), ready);
    open(&place, 18_081);
    let tunnel = show(&gateway, "tunnels", &["client=alice"])[0]["tunnel"].as_str().unwrap().to_owned();
    assert_eq!(order(&gateway, &["kick", &tunnel]).0, Some(0));
    assert_eq!(order(&gateway, &["kick", &tunnel]).0, Some(1), "it is closed already");

    bobs.finish();
    assert_eq!(bob.process.stderr().matches("ready: ").count(), 1);
    assert_eq!(error_count(&gateway, "closed_kicked"), 2);
    let mode = fs::metadata(&gateway.control).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "who may kick is who may open the socket");
}

/// The users file speaks of a certificate by its name: its limits hold, a reload that forbids a destination cuts a UDP
/// flow, too, and `disabled` keeps out whom the authority lets in.
#[test]
fn a_certificate_has_the_policy_of_its_name() {
    if !rig::root_or_skip("a_certificate_has_the_policy_of_its_name") {
        return;
    }
    let place = Place::new();
    let server = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let datagrams = place.rig.within(Ns::Origin, || UdpSocket::bind((ORIGIN_V4, 0)).unwrap());
    let udp_to = datagrams.local_addr().unwrap();
    let say = |line: &str| {
        fs::write(&place.users, format!("{line}\n")).unwrap();
    };
    say("client cert max-flows=2");
    // A file of its own, for it changes.
    let authorities = place.rig.directory().join("authorities.pem");
    fs::copy(&place.pki.ca, &authorities).unwrap();
    let client_ca = path(&authorities);
    let gateway = place.gateway(GATEWAY_V4, &[&GATEWAY[..], &["--client-ca", &client_ca]].concat());
    let url = format!("https://{}", authority(GATEWAY_V4, TUNNEL_PORT));
    let (cert, key) = (path(&place.pki.client_cert), path(&place.pki.client_key));
    let (tcp, udp) = (format!("18081:{}", server.address()), format!("18082:{udp_to}/udp"));
    let ca = path(&place.pki.ca);
    let args = ["connect", &url, "--ca", &ca, "--cert", &cert, "--key", &key, "-L", &tcp, "-L", &udp];
    let client = Beam::start(&place.rig, Ns::Client, "client", &[&args[..], &["--xdp", "off"]].concat());

    let mut flow = open(&place, 18_081);
    let local = place.rig.within(Ns::Client, || UdpSocket::bind("127.0.0.1:0").unwrap());
    local.send_to(b"ping", "127.0.0.1:18082").unwrap();
    datagrams.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(datagrams.recv_from(&mut buffer).unwrap().0, 4);
    refused(&place, 18_081);
    client.process.wait_for_line("as many flows as it may", LIMIT);
    let rows = show(&gateway, "flows", &["client=client", "kind=udp"]);
    assert_eq!(
        (rows.len(), &rows[0]["to"], number(&rows[0], "sent_bytes")),
        (1, &udp_to.to_string().into(), 4)
    );
    assert_eq!(number(&usage(&gateway, "client"), "flows"), 2);

    say(&format!("client cert allow={}:{}", ORIGIN_V4, server.address().port()));
    let (code, said) = order(&gateway, &["reload"]);
    assert!(
        code == Some(0)
            && said.contains("1 changed")
            && said.contains("0 connection(s) closed, 1 flow(s) cut"),
        "{said}"
    );
    echo(&mut flow);
    assert!(show(&gateway, "flows", &["kind=udp"]).is_empty());

    // Another authority: whom the old one let in goes, and comes back with its return.
    let closes_one = |gateway: &Beam| {
        let (code, said) = order(gateway, &["reload"]);
        assert!(code == Some(0) && said.contains("1 connection(s) closed"), "{said}");
    };
    let is_back = |times: usize| {
        let ready = |said: &String| said.matches("ready: ").count() == times;
        until("the client is back", || client.process.stderr(), ready);
    };
    let elsewhere = place.rig.directory().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::copy(Pki::create(&elsewhere).ca, &authorities).unwrap();
    closes_one(&gateway);
    assert_eq!(flow.read(&mut [0]).map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    fs::copy(&place.pki.ca, &authorities).unwrap();
    assert_eq!(order(&gateway, &["reload"]).0, Some(0));
    is_back(2);
    let mut flow = open(&place, 18_081);
    echo(&mut flow);

    say("client cert disabled");
    closes_one(&gateway);
    assert_eq!(flow.read(&mut [0]).map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    is_back(3);
    refused(&place, 18_081);
    client.process.wait_for_line("403", LIMIT);
}
