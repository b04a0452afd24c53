//! A gateway, clients and an origin as real processes on loopback: for what needs no privilege and no namespace.

use crate::pair::{LIMIT, path};
use crate::rig::{Pki, Proc, binary, read_status, write_users};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde_json::Value;

use super::counter;

/// What the origin says first.
pub(crate) const GREETING: &[u8; 6] = b"hello\n";

/// Says hello, then echoes. Counts its connections, each of which is one request that was run.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicU64>,
}

impl Origin {
    pub(crate) fn start() -> Self {
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

    pub(crate) fn executions(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A UDP port that nobody has, nor gets by asking for any: below the ephemeral ones, by process and `number`.
fn free_port(number: u32) -> SocketAddr {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    let begin = std::process::id().wrapping_mul(64).wrapping_add(number);
    let candidates = (0..COUNT).step_by(64).map(|step| FIRST + begin.wrapping_add(step) % COUNT);
    let mut addresses = candidates.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16)));
    addresses.find(|address| UdpSocket::bind(address).is_ok()).expect("some port is free")
}

/// The files of one test, a port for its gateway, and the origin.
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    pub(crate) pki: Pki,
    pub(crate) users: PathBuf,
    /// The gateway's, and that of whatever stands before it.
    pub(crate) address: SocketAddr,
    pub(crate) relay: SocketAddr,
    pub(crate) origin: Origin,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let directory = std::env::temp_dir().join(format!("beam-early-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let [address, relay] = [0, 1].map(|offset| free_port(2 * number + offset));
        Self {
            pki: Pki::create(&directory),
            users: write_users(&directory, &[("alice", "a-token-of-this-test")]),
            address,
            relay,
            origin: Origin::start(),
            directory,
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A gateway with two workers, ready.
    pub(crate) fn gateway(&self, more: &[&str]) -> Gateway {
        let control = self.file("gateway.sock");
        let mut command = Command::new(binary());
        command.args(["serve", "-l", &self.address.to_string(), "--xdp", "off"]);
        if !more.contains(&"--allow") {
            command.args(["--allow", "127.0.0.0/8"]);
        }
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
    pub(crate) fn client(&self, gateway: SocketAddr, name: &str) -> Client {
        self.client_with(gateway, name, &["--state-dir", &path(&self.file(name))])
    }

    pub(crate) fn client_with(&self, gateway: SocketAddr, name: &str, more: &[&str]) -> Client {
        self.client_to(gateway, &self.origin.address.to_string(), name, more)
    }

    /// The same to some other destination.
    pub(crate) fn client_to(&self, gateway: SocketAddr, to: &str, name: &str, more: &[&str]) -> Client {
        let more = [&["--once", "-W", to], more].concat();
        self.launch(gateway, name, &more)
    }

    /// A client whose `-L` on some port carries UDP to `to`.
    pub(crate) fn udp_client(&self, gateway: SocketAddr, to: SocketAddr, name: &str) -> Client {
        let forward = format!("0:{to}/udp");
        self.launch(gateway, name, &["-L", &forward, "--state-dir", &path(&self.file(name))])
    }

    fn launch(&self, gateway: SocketAddr, name: &str, more: &[&str]) -> Client {
        let control = self.file(&format!("{name}.sock"));
        let mut command = Command::new(binary());
        command.args(["connect", &format!("https://{gateway}"), "--xdp", "off", "-v"]);
        command.args(["--ca", &path(&self.pki.ca), "--token-file", &path(&self.file("alice.token"))]);
        command.args(["--control", &path(&control)]).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Client { process: Proc::spawn(name, &mut command), control }
    }

    /// A client that comes and goes, and leaves a ticket for the next.
    pub(crate) fn visit(&self, gateway: SocketAddr, name: &str) {
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

pub(crate) struct Gateway {
    pub(crate) process: Proc,
    pub(crate) control: PathBuf,
}

impl Gateway {
    pub(crate) fn count(&self, name: &str) -> u64 {
        counter(&read_status(&self.control), name)
    }

    /// One level of one cache, as `beam show caches` has it.
    pub(crate) fn cache(&self, cache: &str, level: &str) -> Value {
        show_cache(&self.control, cache, level)
    }

    pub(crate) fn stop(mut self) {
        assert!(self.process.terminate(LIMIT).success());
    }

    pub(crate) fn kill(mut self) {
        self.process.kill();
    }
}

pub(crate) struct Client {
    pub(crate) process: Proc,
    pub(crate) control: PathBuf,
}

impl Client {
    /// Returns once the first bytes are there.
    pub(crate) fn hear_greeting(&mut self) -> std::process::ChildStdout {
        let mut output = self.process.stdout();
        let mut greeting = [0; GREETING.len()];
        output.read_exact(&mut greeting).unwrap_or_else(|e| panic!("{e}: {}", self.process.stderr()));
        assert_eq!(greeting, *GREETING);
        output
    }

    /// Ends by the end of its input.
    pub(crate) fn leave(&mut self) {
        drop(self.process.stdin());
        let status = self.process.wait(LIMIT);
        assert!(status.success(), "{status}: {}", self.process.stderr());
    }
}

/// One level of one cache; panics if there is none.
pub(crate) fn show_cache(control: &std::path::Path, cache: &str, level: &str) -> Value {
    let out =
        Command::new(binary()).args(["show", "caches", "-j", "--control"]).arg(control).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let shown: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(shown["schema"], "beam.show.caches.v1");
    let rows = shown["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["cache"] == cache && row["level"] == level);
    row.unwrap_or_else(|| panic!("no {level} level of {cache} in {shown:#}")).clone()
}
