//! A gateway and a client on one rig, as the fetching and the lifecycle tests start them: certificates of the test's CA,
//! one user with a token, the origin's networks allowed. And what such tests ask of them.
#![allow(dead_code, reason = "every test binary that includes this uses another part of it")]

use std::io::Read as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::{Beam, Ns, Pki, Proc, Rig, authority, patiently, write_users};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// Where the gateway listens.
pub(crate) const TUNNEL_PORT: u16 = 4433;
/// The client's listeners on its namespace's loopback.
pub(crate) const FORWARD_PORT: u16 = 18_080;
pub(crate) const SOCKS_PORT: u16 = 11_080;

/// A rig with the files that both ends read.
pub(crate) struct Place {
    pub(crate) rig: Rig,
    pub(crate) pki: Pki,
    pub(crate) users: PathBuf,
    pub(crate) token: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::on(Rig::new())
    }

    pub(crate) fn on(rig: Rig) -> Self {
        let pki = Pki::create(rig.directory());
        let users = write_users(rig.directory(), &[("alice", "a-token-of-this-test")]);
        let token = rig.directory().join("alice.token");
        Self { rig, pki, users, token }
    }

    /// Flags of a gateway on `address` that `more` completes (with `--xdp`, at least).
    pub(crate) fn serve_args(&self, address: impl Into<IpAddr>, more: &[&str]) -> Vec<String> {
        self.serve_args_on(authority(address, TUNNEL_PORT), more)
    }

    fn serve_args_on(&self, listen: String, more: &[&str]) -> Vec<String> {
        let mut args = vec!["serve".to_owned(), "-l".to_owned(), listen];
        args.extend(["--users".into(), path(&self.users)]);
        args.extend(["--allow", "198.19.0.0/24", "--allow", "2001:db8:2::/64"].map(String::from));
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        args
    }

    /// As [`Place::serve_args`], for a listener as `-l` takes it, and with the CA's certificate.
    pub(crate) fn certified_args(&self, listen: String, more: &[&str]) -> Vec<String> {
        let mut args = self.serve_args_on(listen, more);
        args.extend(["--tls-cert".into(), path(&self.pki.server_cert)]);
        args.extend(["--tls-key".into(), path(&self.pki.server_key)]);
        args
    }

    /// A gateway with the CA's certificate, ready.
    pub(crate) fn gateway(&self, address: impl Into<IpAddr>, more: &[&str]) -> Beam {
        self.gateway_on(authority(address, TUNNEL_PORT), more)
    }

    /// The same, for a listener as `-l` takes it.
    pub(crate) fn gateway_on(&self, listen: String, more: &[&str]) -> Beam {
        Beam::start(&self.rig, Ns::Gateway, "gateway", &words(&self.certified_args(listen, more)))
    }

    /// Flags of a client of the gateway on `address`.
    pub(crate) fn connect_args(&self, address: impl Into<IpAddr>, more: &[&str]) -> Vec<String> {
        let mut args = vec!["connect".into(), format!("https://{}", authority(address, TUNNEL_PORT))];
        args.extend(["--ca".into(), path(&self.pki.ca), "--token-file".into(), path(&self.token)]);
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        args
    }

    /// A client with `-L` to `forward_to` and `-D`, ready.
    pub(crate) fn client(&self, address: impl Into<IpAddr>, forward_to: &str, more: &[&str]) -> Beam {
        let mut args = self.connect_args(address, more);
        args.extend(["-L".into(), format!("{FORWARD_PORT}:{forward_to}")]);
        args.extend(["-D".into(), SOCKS_PORT.to_string()]);
        Beam::start(&self.rig, Ns::Client, "client", &words(&args))
    }

    /// `curl ARGS URL` in the client's namespace: how many bytes came and their SHA-256. Panics unless curl says 0.
    pub(crate) fn curl(&self, args: &[&str]) -> (u64, String) {
        let mut command = self.rig.command(Ns::Client, "curl");
        for variable in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(variable).env_remove(variable.to_uppercase());
        }
        let limit = patiently(Duration::from_secs(60)).as_secs().to_string();
        // -q: no ~/.curlrc; --fail: an HTTP error is an error.
        command.args(["-q", "-sS", "--fail", "--max-time", &limit]).args(args).stdout(Stdio::piped());
        let mut curl = Proc::spawn("curl", &mut command);
        let mut body = curl.stdout();
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let mut buffer = vec![0; 1 << 20];
        let mut body_bytes = 0;
        loop {
            match body.read(&mut buffer).expect("read curl's standard output") {
                0 => break,
                n => {
                    digest.update(&buffer[..n]);
                    body_bytes += n as u64;
                }
            }
        }
        let status = curl.wait(LIMIT);
        assert!(status.success(), "curl {args:?}: {status} after {body_bytes} bytes: {}", curl.stderr());
        (body_bytes, hex(digest.finish().as_ref()))
    }
}

/// SHA-256 of the first `length` bytes of the origin's [pattern](crate::rig::pattern).
pub(crate) fn pattern_sha256(length: u64) -> String {
    const CHUNK_BYTES: u64 = 1 << 20;
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut done = 0;
    while done < length {
        let until = length.min(done + CHUNK_BYTES);
        digest.update(&(done..until).map(crate::rig::pattern).collect::<Vec<_>>());
        done = until;
    }
    hex(digest.finish().as_ref())
}

/// SHA-256, in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn path(path: &std::path::Path) -> String {
    path.to_str().expect("the rig's paths are UTF-8").to_owned()
}

pub(crate) fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Asks again and again until `done` says so; panics with `what` and the last answer after [`LIMIT`]. For facts that
/// nobody announces: the question itself takes long enough that this is no spinning.
pub(crate) fn until<T: std::fmt::Debug>(what: &str, ask: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    until_within(LIMIT, what, ask, done)
}

/// As [`until`], with a limit of the caller's.
pub(crate) fn until_within<T: std::fmt::Debug>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> T,
    done: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + patiently(limit);
    loop {
        let answer = ask();
        if done(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}; the last answer: {answer:#?}");
    }
}

/// The status of a daemon that has nothing more to say: no packet moved while the status was measured (200 ms), no flow
/// is open.
pub(crate) fn settled(beam: &Beam) -> Value {
    let silent = |status: &Value| {
        let rates = &status["rates"];
        status["flows"] == 0 && rates["rx_packets_per_s"] == 0 && rates["tx_packets_per_s"] == 0
    };
    until("the daemon falls silent", || beam.status(), silent)
}

/// One number of a status, or its sum over the workers.
pub(crate) fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} is no number in {value:#}"))
}

pub(crate) fn over_workers(status: &Value, name: &str) -> u64 {
    workers(status).map(|worker| number(worker, name)).sum()
}

pub(crate) fn workers(status: &Value) -> impl Iterator<Item = &Value> {
    status["workers"].as_array().expect("a status has workers").iter()
}
