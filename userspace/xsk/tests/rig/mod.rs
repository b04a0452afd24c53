//! Two network namespaces joined by one veth pair, and helpers to move datagrams between a kernel socket and ports.
//!
//! ```text
//!   ours: x0 198.18.0.1, 2001:db8::1, XDP     ──veth──     peer: p0 198.18.0.2, 2001:db8::2, kernel sockets
//! ```
//!
//! Sockets belong to the namespace of the thread that made them, so they are made on a thread that went there and
//! then handed to the test.
#![allow(dead_code, reason = "every test file uses another part of it")]

use beam_xsk::{Config, Interface, OpenError, XskPort};
use port::{Port, Received};
use std::{
    fs::File,
    io::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

pub(crate) const OURS: [&str; 2] = ["198.18.0.1", "2001:db8::1"];
pub(crate) const PEER: [&str; 2] = ["198.18.0.2", "2001:db8::2"];
pub(crate) const OUR_MAC: &str = "02:00:00:00:00:01";
pub(crate) const PEER_MAC: &str = "02:00:00:00:00:02";
pub(crate) const PORT: u16 = 4433;
/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// True as root; otherwise says loudly that the test didn't run.
pub(crate) fn root_or_skip(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        // Past the harness, which swallows what passing tests print.
        let _ = writeln!(std::io::stderr(), "SKIPPED: needs root: {test}");
    }
    root
}

/// Two namespaces; gone after drop.
pub(crate) struct Rig {
    name: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Peer,
}

impl Rig {
    pub(crate) fn new(queue_count: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bx{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let rig = Self { name };
        let (ours, peer) = (rig.namespace(Side::Ours), rig.namespace(Side::Peer));
        for namespace in [&ours, &peer] {
            run(&format!("ip netns add {namespace}"));
        }
        let queues = format!("numrxqueues {queue_count} numtxqueues {queue_count}");
        rig.ours(&format!(
            "ip link add x0 address {OUR_MAC} {queues} type veth peer name p0 address {PEER_MAC} {queues} netns {peer}"
        ));
        for (side, link, addresses) in [(Side::Ours, "x0", OURS), (Side::Peer, "p0", PEER)] {
            rig.run(side, "ip link set lo up");
            rig.run(side, &format!("ip link set {link} up"));
            rig.run(side, &format!("ip addr add {}/24 dev {link}", addresses[0]));
            rig.run(side, &format!("ip addr add {}/64 dev {link} nodad", addresses[1]));
        }
        // Native XDP on veth wants NAPI at the other end.
        rig.peer("ethtool -K p0 gro on");
        rig
    }

    pub(crate) fn namespace(&self, side: Side) -> String {
        format!("{}{}", self.name, if side == Side::Ours { "o" } else { "p" })
    }

    pub(crate) fn run(&self, side: Side, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.namespace(side)))
    }

    pub(crate) fn ours(&self, command: &str) -> String {
        self.run(Side::Ours, command)
    }

    pub(crate) fn peer(&self, command: &str) -> String {
        self.run(Side::Peer, command)
    }

    /// Runs `body` on a thread in the namespace.
    pub(crate) fn inside<T: Send>(&self, side: Side, body: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/var/run/netns/{}", self.namespace(side))).unwrap();
        thread::scope(|scope| {
            let inside = move || {
                use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
                use std::os::fd::AsFd;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                body()
            };
            scope.spawn(inside).join().unwrap()
        })
    }

    pub(crate) fn socket(&self, side: Side, address: &str) -> UdpSocket {
        let socket =
            self.inside(side, || UdpSocket::bind(address)).unwrap_or_else(|e| panic!("{address}: {e}"));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(crate) fn try_open(&self, config: &Config) -> Result<(Interface, Vec<XskPort>), OpenError> {
        self.inside(Side::Ours, || beam_xsk::open(config))
    }

    /// Opened, and steering UDP to our addresses at [`PORT`].
    pub(crate) fn open(&self, config: &Config) -> (Interface, Vec<XskPort>) {
        let (interface, ports) = self.try_open(config).unwrap_or_else(|error| panic!("{error}"));
        interface.set_targets(&ours()).unwrap();
        (interface, ports)
    }

    /// Makes the kernel learn the peer's MAC addresses, and waits until the mirror has them.
    pub(crate) fn learn_neighbours(&self, port: &mut XskPort) {
        for (ours, peer) in OURS.iter().zip(PEER) {
            let socket = self.inside(Side::Ours, || UdpSocket::bind((ip(ours), 0)).unwrap());
            socket.send_to(b"who has", (ip(peer), 9)).unwrap();
            let path =
                port::Path { local: SocketAddr::new(ip(ours), 1), remote: SocketAddr::new(ip(peer), 9) };
            wait_for("the neighbour", || port.send(&path, None, b"x", None) == port::Sent::Queued);
        }
        flush(port);
    }

    /// The id of the XDP program on `link`, as the kernel tells everybody.
    pub(crate) fn attached(&self, link: &str) -> bool {
        self.ours(&format!("ip link show {link}")).contains("prog/xdp")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for side in [Side::Ours, Side::Peer] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(side)]).status();
        }
    }
}

pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn ours() -> Vec<SocketAddr> {
    OURS.iter().map(|text| SocketAddr::new(ip(text), PORT)).collect()
}

/// A small UMEM, so that several tests fit side by side.
pub(crate) fn config() -> Config {
    Config { ring_size: 512, umem_bytes: 8 << 20, ..Config::new("x0") }
}

/// Tries until it is true; yields between tries, since the awaited has no descriptor to wait on.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Flushes until the port is idle.
pub(crate) fn flush(port: &mut XskPort) {
    wait_for("the TX ring to empty", || port.flush().unwrap() == port::Flushed::Idle);
}

/// Receives until `count` datagrams are there.
pub(crate) fn receive(port: &mut XskPort, count: usize) -> Vec<Received> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut burst = Vec::new();
    let began = Instant::now();
    while burst.len() < count {
        let want = count - burst.len();
        if port.receive(&mut burst, want).unwrap() == 0 {
            assert!(began.elapsed() < PATIENCE, "{} of {count} datagrams after {PATIENCE:?}", burst.len());
            let mut fds = [PollFd::from_borrowed_fd(port.poll_fd(), PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
        }
    }
    burst
}

/// Receives from several ports until `count` datagrams are there; with each, the index of its port.
pub(crate) fn receive_any(ports: &mut [XskPort], count: usize) -> Vec<(usize, Received)> {
    let mut got = Vec::new();
    wait_for("datagrams on any port", || {
        for (index, port) in ports.iter_mut().enumerate() {
            let mut burst = Vec::new();
            port.receive(&mut burst, count).unwrap();
            got.extend(burst.into_iter().map(|received| (index, received)));
        }
        got.len() >= count
    });
    got
}

/// Datagram number `index` of the run with this seed: 1 to 1400 bytes that depend on both.
pub(crate) fn datagram(seed: u64, index: usize) -> Vec<u8> {
    let mut state = seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let length = 1 + (next() % 1400) as usize;
    (0..length).map(|_| next() as u8).collect()
}

/// One steering counter.
pub(crate) fn steering(interface: &Interface, name: &str) -> u64 {
    interface.steering_counters().into_iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name}")).1
}

/// Every frame is accounted for, none is with the worker.
pub(crate) fn assert_conserved(port: &mut XskPort) {
    let census = port.census().unwrap();
    assert_eq!(census.sum(), census.total, "{census:?}");
    assert_eq!(census.out, 0, "{census:?}");
    let counters = port.counters();
    assert_eq!(counters.rx_datagrams, counters.rx_delivered + counters.drops.rx_total(), "{counters:?}");
}
