//! The rig's own test. Goal: the namespaces carry packets end to end, children are guarded, certificates and users files
//! are what beam will read, and nothing is left behind. Method: sockets opened inside the namespaces, exact bytes counted,
//! and the kernel asked afterwards.

mod rig;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rig::{
    CLIENT_V4, CLIENT_V6, EchoServer, GATEWAY_V4, GATEWAY_V6, HttpServer, Ns, ORIGIN_V4, Pki, Proc, Rig,
};

const LIMIT: Duration = Duration::from_secs(10);

fn ping(rig: &Rig, from: IpAddr, to: IpAddr) -> io::Result<()> {
    let listener = rig.within(Ns::Gateway, || UdpSocket::bind((to, 0)))?;
    let sender = rig.within(Ns::Client, || UdpSocket::bind((from, 0)))?;
    for socket in [&listener, &sender] {
        socket.set_read_timeout(Some(LIMIT))?;
    }
    let mut buffer = [0; 64];
    sender.send_to(b"ping", listener.local_addr()?)?;
    let (length, peer) = listener.recv_from(&mut buffer)?;
    assert_eq!((&buffer[..length], peer), (&b"ping"[..], sender.local_addr()?));
    listener.send_to(b"pong", peer)?;
    let (length, peer) = sender.recv_from(&mut buffer)?;
    assert_eq!((&buffer[..length], peer), (&b"pong"[..], listener.local_addr()?));
    Ok(())
}

#[test]
fn datagrams_cross_between_namespaces_and_nothing_stays() {
    if !rig::root_or_skip("datagrams_cross_between_namespaces_and_nothing_stays") {
        return;
    }
    let rig = Rig::new();
    ping(&rig, CLIENT_V4.into(), GATEWAY_V4.into()).unwrap();
    ping(&rig, CLIENT_V6.into(), GATEWAY_V6.into()).unwrap();
    assert!(!rig.has_xdp(Ns::Gateway, "g0"), "a fresh veth carries no XDP program");

    let names = [Ns::Client, Ns::Gateway, Ns::Origin].map(|ns| rig.netns(ns));
    let directory = rig.directory().to_owned();
    drop(rig);
    let listed = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in names {
        assert!(!listed.contains(&name), "namespace {name} was left behind");
    }
    assert!(!directory.exists(), "{directory:?} was left behind");
}

#[test]
fn the_veth_has_the_queues_asked_for() {
    if !rig::root_or_skip("the_veth_has_the_queues_asked_for") {
        return;
    }
    let rig = Rig::with_queues(4);
    let count = "ls -d /sys/class/net/g0/queues/rx-* | wc -l";
    let out = rig.command(Ns::Gateway, "sh").args(["-c", count]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "4");
}

#[test]
fn echo_and_http_serve_exact_bytes_through_the_gateway() {
    if !rig::root_or_skip("echo_and_http_serve_exact_bytes_through_the_gateway") {
        return;
    }
    let rig = Rig::new();
    rig.route_through_gateway();
    let echo = EchoServer::start(&rig, Ns::Origin, ORIGIN_V4, 0);
    let mut stream = connect(&rig, echo.address()).unwrap();
    let sent: Vec<u8> = (0..100_000).map(rig::pattern).collect();
    let mut reader = stream.try_clone().unwrap();
    let receiver = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    });
    stream.write_all(&sent).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(receiver.join().unwrap().unwrap(), sent);
    assert_eq!((echo.connection_count(), echo.echoed_bytes()), (1, 100_000));

    let http = HttpServer::start(&rig, Ns::Origin, ORIGIN_V4, 0);
    let (head, body) = get(&rig, http.address(), "/70000").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, (0..70_000).map(rig::pattern).collect::<Vec<_>>());
    assert!(get(&rig, http.address(), "/nothing").unwrap().0.starts_with("HTTP/1.1 404 "));
    assert_eq!((http.connection_count(), http.body_bytes()), (2, 70_000));
}

fn connect(rig: &Rig, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = rig.within(Ns::Client, || TcpStream::connect_timeout(&to, LIMIT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn get(rig: &Rig, to: SocketAddr, path: &str) -> io::Result<(String, Vec<u8>)> {
    let mut stream = connect(rig, to)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: origin\r\n\r\n")?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let head_bytes =
        all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends with a blank line") + 4;
    Ok((String::from_utf8_lossy(&all[..head_bytes]).into_owned(), all.split_off(head_bytes)))
}

#[test]
fn a_child_is_heard_signalled_and_never_outlives_its_guard() {
    let talk = "echo first >&2; echo now ready >&2; exec sleep 1000";
    let child = Proc::spawn("talker", Command::new("sh").args(["-c", talk]).stdin(Stdio::null()));
    assert_eq!(child.wait_for_line("ready", LIMIT), "now ready");
    assert_eq!(child.wait_for_line("first", LIMIT), "first", "a line from before the wait counts too");
    let path = format!("/proc/{}", child.pid());
    assert!(std::path::Path::new(&path).exists());
    drop(child);
    assert!(!std::path::Path::new(&path).exists(), "the child outlived its guard");

    let mut child = Proc::spawn("sleeper", Command::new("sleep").arg("1000").stdin(Stdio::null()));
    assert_eq!(child.terminate(LIMIT).signal(), Some(15));
    let mut child = Proc::spawn("exits", Command::new("sh").args(["-c", "echo last words >&2; exit 3"]));
    assert_eq!(child.wait(LIMIT).code(), Some(3));
    assert_eq!(child.stderr(), "last words", "the log is whole once the child is reaped");
}

#[test]
fn certificates_and_users_are_what_beam_reads() {
    let directory = std::env::temp_dir().join(format!("beam-rig-pki-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let pki = Pki::create(&directory);
    let chain = std::fs::read_to_string(&pki.server_cert).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
    let server = pem.parse_x509().unwrap();
    let authority_pem = std::fs::read_to_string(&pki.ca).unwrap();
    let (_, authority_pem) = x509_parser::pem::parse_x509_pem(authority_pem.as_bytes()).unwrap();
    assert_eq!(server.issuer(), authority_pem.parse_x509().unwrap().subject());
    assert_eq!(std::fs::metadata(&pki.client_key).unwrap().permissions().mode() & 0o777, 0o600);

    let users = rig::write_users(&directory, &[("alice", "wonderland")]);
    // The digest was computed by sha256sum, which nobody here wrote.
    let hex = "a71a7c7011f53a1bab3642ec2ce12593f05230ace8de1e3e7645f69efac1443d";
    assert_eq!(std::fs::read_to_string(&users).unwrap(), format!("alice sha256:{hex}\n"));
    assert_eq!(std::fs::metadata(&users).unwrap().permissions().mode() & 0o777, 0o640);
    std::fs::remove_dir_all(&directory).unwrap();
}
