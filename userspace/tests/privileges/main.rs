//! Goal: a daemon that is set up has given up what it needs no more, says so, and still does its work; the service manager
//! hears what happens to it, and hears nothing once a worker hangs.
//! Method: `/proc/PID/task/*/status` of real daemons, thread by thread and exactly; a socket of the test's own as
//! NOTIFY_SOCKET, every datagram compared; a worker that hangs is one thread held by ptrace. What a filter forbids and
//! landlock refuses is tried call by call in `userspace/confine/tests`; that new queues are served all the same, in
//! `tests/queues.rs`.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod held;
mod manager;
#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;
#[path = "../tools/mod.rs"]
mod tools;

use pair::{LIMIT, Place, path, until, words};
use rig::{Beam, EchoServer, GATEWAY_V4, Ns};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::Command,
};
use tools::{loopback, until_counter};

const NONE: u64 = 0;
/// linux/capability.h
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const IPC_LOCK: u64 = 1 << 14;
const BPF: u64 = 1 << 39;
const DEVICE: u64 = NET_ADMIN | NET_RAW | IPC_LOCK | BPF;

/// A thread, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Thread {
    name: String,
    id: i32,
    /// Inheritable, permitted, effective, bounding, ambient.
    sets: [u64; 5],
    no_new_privs: bool,
    filtered: bool,
}

fn threads(pid: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(Result::ok);
    let read = |task: fs::DirEntry| {
        let id = task.file_name().to_str()?.parse().ok()?;
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        let set = |name| u64::from_str_radix(field(name).unwrap(), 16).unwrap();
        Some(Thread {
            name: field("Name").unwrap().to_owned(),
            id,
            sets: ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(set),
            no_new_privs: field("NoNewPrivs") == Some("1"),
            filtered: field("Seccomp") == Some("2"),
        })
    };
    tasks.filter_map(read).collect()
}

/// Every thread is confined, and has exactly what `kept` says of its name; what isn't named there has nothing. All that
/// are named are there.
fn assert_threads(beam: &Beam, kept: &[(&str, u64)]) {
    let threads = threads(beam.process.pid());
    for thread in &threads {
        let kept = kept.iter().find(|(name, _)| *name == thread.name).map_or(NONE, |(_, set)| *set);
        assert_eq!(thread.sets, [NONE, kept, kept, NONE, NONE], "{thread:x?}");
        assert!(thread.no_new_privs && thread.filtered, "{thread:?}");
    }
    let there: BTreeSet<&str> = threads.iter().map(|thread| &*thread.name).collect();
    for (name, _) in kept {
        assert!(there.contains(name), "{name} is not among {there:?}");
    }
    for name in ["beam-worker-0", "beam-signals", "beam-control", "beam-dns-0", "beam-cache"] {
        assert!(there.contains(name), "{name} is not among {there:?}");
    }
}

fn status_text(beam: &Beam) -> String {
    let out = Command::new(rig::binary()).args(["status", "--control"]).arg(&beam.control).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

// A gateway with everything that takes privileges at run time, and a client with a TUN device. Then each of those things
// is done: an address and a route are set, a port below 1024 is opened, replaced files are read.
#[test]
fn what_is_kept_is_exact_and_suffices() {
    if !rig::root_or_skip("what_is_kept_is_exact_and_suffices") {
        return;
    }
    let place = Place::new();
    let serve = ["--xdp", "native", "-i", "g0", "--umem", "16", "--ip-pool", "198.18.64.0/24"];
    let more = ["--ip-route", "198.19.0.0/24", "--allow-listen", "80"];
    let gateway = place.gateway(GATEWAY_V4, &[&serve[..], &more[..]].concat());
    let kept = [
        ("beam-device-0", DEVICE),
        ("beam-netlink", NET_ADMIN | BPF),
        ("beam-broker", NET_ADMIN | NET_BIND_SERVICE | BPF),
    ];
    assert_threads(&gateway, &kept);
    let status = gateway.status();
    let privileges = &status["privileges"];
    assert_eq!((&privileges["sandbox"], &privileges["no_new_privs"]), (&json!("auto"), &json!(true)));
    assert_eq!(
        privileges["capabilities"],
        json!({
            "beam-device-0": ["NET_ADMIN", "NET_RAW", "IPC_LOCK", "BPF"],
            "beam-netlink": ["NET_ADMIN", "BPF"],
            "beam-broker": ["NET_BIND_SERVICE", "NET_ADMIN", "BPF"],
        })
    );
    assert_eq!(privileges["unfiltered"], json!([]));
    let line =
        status_text(&gateway).lines().find(|line| line.starts_with("privileges: ")).unwrap().to_owned();
    for part in [
        "capabilities none (beam-broker: NET_BIND_SERVICE",
        ", no_new_privs, seccomp: workers ",
        " calls, landlock ",
    ] {
        assert!(line.contains(part), "{line}");
    }

    let service = EchoServer::start(&place.rig, Ns::Client, Ipv4Addr::LOCALHOST, 0);
    let publication = format!("80:{}", service.address());
    let mut args = place.connect_args(GATEWAY_V4, &["--xdp", "off", "--tun", "beam0", "-R", &publication]);
    args.extend(["--route".into(), "198.19.0.0/24".into()]);
    let client = Beam::start(&place.rig, Ns::Client, "client", &words(&args));
    assert_threads(&client, &[("beam-broker", NET_ADMIN | BPF)]);
    // The broker's doing, at the client: the address that the gateway lends.
    client.process.wait_for_line("beam0: 198.18.64.2 to 198.19.0.0/24", LIMIT);
    let (_, way) = tools::network::run(&place.rig.netns(Ns::Client), "ip", &["route", "get", "198.19.0.2"]);
    assert!(way.contains("dev beam0 src 198.18.64.2"), "{way}");
    // And at the gateway: the port.
    until_counter(&client, "listens_opened", 1);
    let visit = || TcpStream::connect((Ipv4Addr::LOCALHOST, 80)).unwrap();
    let mut visitor = place.rig.within(Ns::Gateway, visit);
    visitor.write_all(b"to port 80").unwrap();
    let mut back = [0; 10];
    visitor.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"to port 80");
    drop(visitor);
    reload_reads_replaced_files(&place, &gateway);
    // Nothing has grown meanwhile.
    assert_threads(&gateway, &kept);
    drop(client);
}

/// Files that took the place of others, as editors and certificate managers do it.
fn reload_reads_replaced_files(place: &Place, gateway: &Beam) {
    let replace = |file: &std::path::Path, text: &[u8]| {
        let beside = file.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, file).unwrap();
    };
    let fresh = place.rig.directory().join("fresh");
    fs::create_dir(&fresh).unwrap();
    let pki = rig::Pki::create(&fresh);
    replace(&place.pki.server_cert, &fs::read(pki.server_cert).unwrap());
    replace(&place.pki.server_key, &fs::read(pki.server_key).unwrap());
    let users = fs::read_to_string(&place.users).unwrap();
    replace(&place.users, format!("{users}bob sha256:{}\n", "0".repeat(64)).as_bytes());
    gateway.process.signal(Signal::HUP);
    let line = gateway.process.wait_for_line("reloaded: ", LIMIT);
    assert!(line.contains("1 added") && line.contains("new certificate"), "{line}");
}

// No queue can come, no IP is carried: nothing is kept for that.
#[test]
fn nothing_is_kept_where_nothing_can_come() {
    if !rig::root_or_skip("nothing_is_kept_where_nothing_can_come") {
        return;
    }
    let place = Place::new();
    let serve = ["--xdp", "native", "-i", "g0", "--umem", "16", "--queues", "0"];
    let gateway = place.gateway(GATEWAY_V4, &serve);
    let kept =
        [("beam-netlink", NET_ADMIN | BPF), ("beam-broker", NET_BIND_SERVICE), ("beam-device-0", NONE)];
    assert_threads(&gateway, &kept);
}

// One that has nothing to give up gives up the rest: and `--sandbox off` nothing.
#[test]
fn a_daemon_without_privileges_is_confined_too() {
    let place = loopback::Place::new();
    let gateway = place.gateway(&[]);
    let privileges = rig::read_status(&gateway.control)["privileges"].clone();
    let is_root = rustix::process::geteuid().is_root();
    let kept = if is_root { json!({"beam-broker": ["NET_BIND_SERVICE"]}) } else { json!({}) };
    assert_eq!((&privileges["capabilities"], &privileges["no_new_privs"]), (&kept, &json!(true)));
    assert_eq!((&privileges["unfiltered"], &privileges["sandbox"]), (&json!([]), &json!("auto")));
    // It works: a tunnel, a flow, a ticket on disk.
    place.visit(place.address, "client");
    gateway.stop();

    let gateway = place.gateway(&["--sandbox", "off"]);
    let line = gateway.process.wait_for_line("--sandbox off", LIMIT);
    assert!(line.contains("WARN"), "{line}");
    let off = threads(gateway.process.pid());
    assert!(off.iter().all(|thread| !thread.filtered && !thread.no_new_privs), "{off:?}");
    let status: Value = rig::read_status(&gateway.control);
    assert_eq!(status["privileges"]["sandbox"], "off");
    gateway.stop();

    if is_root {
        let place = loopback::Place::new();
        let control = place.file("bare.sock");
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(rig::binary());
        command.args(["serve", "-l", &place.address.to_string(), "--xdp", "off", "--self-signed"]);
        command.args(["--users", &path(&place.users), "--control", &path(&control)]);
        command.args(["--state-dir", &path(&place.file("state"))]);
        let mut bare = rig::Proc::spawn("bare", &mut command);
        bare.wait_for_line("ready: ", LIMIT);
        let all = threads(bare.pid());
        assert!(all.iter().all(|thread| thread.sets == [NONE; 5] && thread.filtered), "{all:?}");
        assert!(!all.iter().any(|thread| thread.name == "beam-broker"), "{all:?}");
        assert!(bare.terminate(LIMIT).success());
    }
}

/// The thread of a worker.
fn worker(pid: u32) -> i32 {
    let found =
        until("a worker", || threads(pid), |all| all.iter().any(|thread| thread.name == "beam-worker-0"));
    found.into_iter().find(|thread| thread.name == "beam-worker-0").unwrap().id
}
