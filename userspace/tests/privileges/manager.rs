//! The service manager's end: what it hears, in order.

use super::{LIMIT, held::Held, loopback, worker};
use crate::rig::{Proc, binary, patiently};
use rustix::process::Signal;
use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::Command,
};

/// NOTIFY_SOCKET.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn at_path(place: &loopback::Place) -> Self {
        let name = place.file("notify.sock").to_str().unwrap().to_owned();
        Self::new(UnixDatagram::bind(&name).unwrap(), name)
    }

    fn at_abstract_name() -> Self {
        let name = format!("beam-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self::new(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    fn new(socket: UnixDatagram, name: String) -> Self {
        socket.set_read_timeout(Some(patiently(LIMIT))).unwrap();
        Self { socket, name }
    }

    /// The next message, as lines.
    fn hear(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("the daemon says something");
        std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned).collect()
    }

    /// The messages that wait.
    fn waiting(&self) -> Vec<Vec<String>> {
        self.socket.set_nonblocking(true).unwrap();
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            all.push(text.lines().map(str::to_owned).collect());
        }
        self.socket.set_nonblocking(false).unwrap();
        all
    }

    /// A gateway that this manager starts.
    fn gateway(&self, place: &loopback::Place, environment: &[(&str, &str)]) -> Proc {
        let mut command = Command::new(binary());
        command.args(["serve", "-l", &place.address.to_string(), "--xdp", "off", "--self-signed"]);
        command.args(["--cpus", "0", "--drain-timeout", "30s", "--state-dir"]).arg(place.file("state"));
        command.arg("--users").arg(&place.users).arg("--control").arg(place.file("gateway.sock"));
        command.env("NOTIFY_SOCKET", &self.name).envs(environment.iter().copied());
        Proc::spawn("gateway", &mut command)
    }
}

fn number(line: &str, name: &str) -> u64 {
    line.strip_prefix(name).unwrap_or_else(|| panic!("{name} in {line}")).parse().unwrap()
}

// Each message exactly, from the start to the end, for a reload that works and one that doesn't.
#[test]
fn the_service_manager_hears_everything_in_order() {
    let place = loopback::Place::new();
    let manager = Manager::at_path(&place);
    let before = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let mut gateway = manager.gateway(&place, &[]);
    let listening = format!("STATUS=gateway on {}", place.address);
    assert_eq!(manager.hear(), ["READY=1", &listening]);

    let users = std::fs::read(&place.users).unwrap();
    for (text, outcome) in
        [(&users[..], "STATUS=reloaded: "), (b"alice", "STATUS=reload failed, nothing has changed: ")]
    {
        std::fs::write(&place.users, text).unwrap();
        gateway.signal(Signal::HUP);
        let reloading = manager.hear();
        assert_eq!((&*reloading[0], &*reloading[2]), ("RELOADING=1", "STATUS=reading files again"));
        let usec = number(&reloading[1], "MONOTONIC_USEC=");
        assert!(usec >= before.tv_sec as u64 * 1_000_000, "{usec} is before {before:?}");
        let ready = manager.hear();
        assert_eq!((ready.len(), &*ready[0]), (2, "READY=1"));
        assert!(ready[1].starts_with(outcome), "{ready:?}");
    }

    gateway.signal(Signal::TERM);
    let stopping = manager.hear();
    assert_eq!(stopping[0], "STOPPING=1");
    assert!(stopping[1].starts_with("STATUS=draining: 0 flow(s)"), "{stopping:?}");
    // The drain's 30 s and the margin.
    assert_eq!(stopping[2..], ["EXTEND_TIMEOUT_USEC=35000000"]);
    assert!(gateway.wait(LIMIT).success());
    assert_eq!(
        manager.waiting(),
        Vec::<Vec<String>>::new(),
        "no watchdog was asked for, nothing is said twice"
    );
}

// Under an abstract name, with a watchdog: signs of life while the worker lives; none once it hangs, and the log says who;
// again when it goes on.
#[test]
fn the_watchdog_is_not_reset_for_a_worker_that_hangs() {
    let place = loopback::Place::new();
    let manager = Manager::at_abstract_name();
    let mut gateway = manager.gateway(&place, &[("WATCHDOG_USEC", "1000000")]);
    let (mut ready, mut alive) = (0, 0);
    while ready == 0 || alive < 2 {
        let message = manager.hear();
        alive += usize::from(message == ["WATCHDOG=1"]);
        ready += usize::from(message[0] == "READY=1");
    }
    let held = Held::hold(worker(gateway.pid()));
    gateway.wait_for_line("worker(s) [0] don't answer", LIMIT);
    // What was said before that line; nothing after it, as long as the thread is held.
    manager.waiting();
    let out =
        Command::new(binary()).args(["status", "-j", "--control"]).arg(place.file("gateway.sock")).output();
    let status: serde_json::Value = serde_json::from_slice(&out.unwrap().stdout).unwrap();
    assert_eq!(status["why_not_ready"], "a worker does not answer", "{status:#}");
    assert_eq!(manager.waiting(), Vec::<Vec<String>>::new());
    drop(held);
    assert_eq!(manager.hear(), ["WATCHDOG=1"]);
    gateway.signal(Signal::TERM);
    assert!(gateway.wait(LIMIT).success());

    // A watchdog for another process is none of ours.
    manager.waiting();
    let mut gateway = manager.gateway(&place, &[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")]);
    gateway.wait_for_line("ready: ", LIMIT);
    assert!(gateway.terminate(LIMIT).success());
    let first_lines: Vec<String> = manager.waiting().into_iter().map(|mut lines| lines.remove(0)).collect();
    assert_eq!(first_lines, ["READY=1", "STOPPING=1"]);
}
