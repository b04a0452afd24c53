//! Goal: the programs that beam is compared with carry flows byte by byte, end them as TCP does, and trust nobody else.
//! Method: server and client for real, on loopback, with certificates made here; targets that echo, that speak first and
//! that break. `quinn-perf` comes along with the feature of its name.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const LOOPBACK: &str = "127.0.0.1:0";
const LIMIT: Duration = Duration::from_secs(30);

/// The programs that forward, which this build has.
fn forwarders() -> Vec<&'static str> {
    let forwarders = vec![env!("CARGO_BIN_EXE_tls-forward")];
    #[cfg(feature = "quinn-perf")]
    let forwarders = [forwarders, vec![env!("CARGO_BIN_EXE_quinn-perf")]].concat();
    forwarders
}

/// A server of one program, its certificate and its clients; taken down at the end.
struct Place {
    program: &'static str,
    directory: PathBuf,
    children: Vec<Child>,
    server: SocketAddr,
}

impl Place {
    fn new(program: &'static str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("beam-comparators-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        for name in ["server", "stranger"] {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
            std::fs::write(directory.join(format!("{name}.crt")), made.cert.pem()).unwrap();
            std::fs::write(directory.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        }
        let mut place = Self { program, directory, children: Vec::new(), server: LOOPBACK.parse().unwrap() };
        let (certificate, key) = (place.file("server.crt"), place.file("server.key"));
        place.server = place.spawn(&["server", "--listen", LOOPBACK, "--cert", &certificate, "--key", &key]);
        place
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// Starts a process that says where it listens, and waits until it does.
    fn spawn(&mut self, arguments: &[&str]) -> SocketAddr {
        let mut child = Command::new(self.program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.children.push(child);
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("it said `{line}`"));
        address.parse().unwrap()
    }

    /// A client that forwards to `target`; where it listens.
    fn forward(&mut self, target: SocketAddr) -> SocketAddr {
        let (server, ca, target) = (self.server.to_string(), self.file("server.crt"), target.to_string());
        self.spawn(&["client", "--connect", &server, "--ca", &ca, "--forward", LOOPBACK, &target])
    }

    /// Runs a client to its end.
    fn client(&self, ca: &str, arguments: &[&str]) -> Output {
        let server = self.server.to_string();
        let mut command = Command::new(self.program);
        command.args(["client", "--connect", &server, "--ca", &self.file(ca)]).args(arguments);
        command.output().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A target on a thread of its own, which does the same with each connection.
fn target(act: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || act(stream));
        }
    });
    address
}

/// Bytes that no shift of themselves equals.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends everything and the end, while it reads to the other end.
fn exchange(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    let mut reader = stream.try_clone().unwrap();
    thread::scope(|scope| {
        let received = scope.spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes
        });
        stream.write_all(sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        received.join().unwrap()
    })
}

#[test]
fn flows_come_back_byte_by_byte_and_end_half_by_half() {
    let echo = target(|mut stream| {
        let mut reader = stream.try_clone().unwrap();
        std::io::copy(&mut reader, &mut stream).unwrap();
        stream.write_all(b"the end was seen").unwrap();
    });
    for program in forwarders() {
        let mut place = Place::new(program);
        let address = place.forward(echo);
        let flows: Vec<_> = [0, 1, 65_536, 3_000_001, 8 << 20]
            .map(|length| {
                thread::spawn(move || {
                    let mut sent = pattern(length);
                    let received = exchange(address, &sent);
                    sent.extend_from_slice(b"the end was seen");
                    assert_eq!(received.len(), sent.len(), "{program}");
                    assert!(received == sent, "{program}: other bytes of {length}");
                })
            })
            .into();
        flows.into_iter().for_each(|flow| flow.join().unwrap());
    }
}

#[test]
fn a_target_may_speak_first_and_end_first() {
    let greeter = target(|mut stream| {
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said, pattern(100_000));
    });
    for program in forwarders() {
        let mut place = Place::new(program);
        let mut stream = connect(place.forward(greeter));
        let mut greeting = Vec::new();
        stream.read_to_end(&mut greeting).unwrap();
        assert_eq!(greeting, b"hello", "{program}");
        // The other direction lives on.
        stream.write_all(&pattern(100_000)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{program}");
    }
}

#[test]
fn a_flow_that_breaks_does_not_look_as_if_it_ended() {
    // Closing with unread bytes resets.
    let breaker = target(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"half a sent").unwrap();
    });
    // Nobody listens there: it was bound, and is free again.
    let nobody = TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    for program in forwarders() {
        let mut place = Place::new(program);
        for target in [breaker, nobody] {
            let mut stream = connect(place.forward(target));
            let failed =
                stream.write_all(&[7; 2]).and_then(|()| stream.read_to_end(&mut Vec::new())).unwrap_err();
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::ConnectionAborted];
            assert!(kinds.contains(&failed.kind()), "{program}: {failed}");
        }
    }
}

#[test]
fn a_server_that_is_not_trusted_gets_nothing() {
    let unused = target(|_| panic!("nobody may come here"));
    for program in forwarders() {
        let mut place = Place::new(program);
        if program.ends_with("tls-forward") {
            // It connects with the first flow.
            let (server, ca, target) =
                (place.server.to_string(), place.file("stranger.crt"), unused.to_string());
            let address =
                place.spawn(&["client", "--connect", &server, "--ca", &ca, "--forward", LOOPBACK, &target]);
            let failed = connect(address).read(&mut [0]).unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::ConnectionReset);
        } else {
            let refused = place.client("stranger.crt", &["--forward", LOOPBACK, &unused.to_string()]);
            assert_eq!(refused.status.code(), Some(1));
            let complaint = String::from_utf8_lossy(&refused.stderr);
            assert!(complaint.contains("invalid peer certificate"), "{complaint}");
        }
    }
}

#[cfg(feature = "quinn-perf")]
#[test]
fn transfers_move_as_many_bytes_as_were_asked_for() {
    let place = Place::new(env!("CARGO_BIN_EXE_quinn-perf"));
    for (direction, bytes, streams) in
        [("down", 10_000_001, 1), ("up", 10_000_001, 1), ("down", 1_000_000, 5), ("up", 0, 3)]
    {
        let flag = if direction == "down" { "--download" } else { "--upload" };
        let done =
            place.client("server.crt", &[flag, &bytes.to_string(), "-P", &streams.to_string(), "--json"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(report["direction"], direction);
        assert_eq!(report["bytes"], bytes * streams);
        assert_eq!(report["streams"], streams);
        assert!(report["seconds"].as_f64() > Some(0.0), "{report}");
    }
}
