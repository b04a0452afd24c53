//! The rig of the end-to-end tests: three network namespaces joined by two veth pairs.
//!
//! ```text
//!   client ns               gateway ns                      origin ns
//!   c0 198.18.0.2  ──veth── g0 198.18.0.1 · g1 198.19.0.1 ──veth── o0 198.19.0.2
//!      2001:db8:1::2           2001:db8:1::1   2001:db8:2::1          2001:db8:2::2
//! ```
//!
//! Every test makes its own `Rig` and drops it; the interfaces are born inside the namespaces, so the machine's own
//! network is never touched. In an emulator (`scripts/kernels`) two NICs of the guest take the place of the first veth
//! pair: [`nics`]. [`process`] guards the children, [`origin`] serves echo and HTTP, [`pki`] writes
//! certificates and users files, [`beam`] runs the binary under test. Each test binary uses its own part of this.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test binary that includes the rig uses another part of it"
)]

mod beam;
mod nics;
mod origin;
mod pki;
mod process;

pub(crate) use beam::{Beam, binary, copied_to, read_status};
pub(crate) use nics::Nics;
pub(crate) use origin::{EchoServer, HttpServer, pattern};
pub(crate) use pki::{Pki, write_users};
pub(crate) use process::{Proc, patiently};

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub(crate) const GATEWAY_INNER_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// For a test that puts a VLAN device on `g0`.
pub(crate) const GATEWAY_VLAN_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 1);
pub(crate) const ORIGIN_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub(crate) const GATEWAY_INNER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
pub(crate) const ORIGIN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2);

/// The name that the gateway's test certificate carries beside its addresses.
pub(crate) const GATEWAY_NAME: &str = "gateway.beam.example";

/// One of the three places of the rig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ns {
    Client,
    Gateway,
    Origin,
}

impl Ns {
    const ALL: [Self; 3] = [Self::Client, Self::Gateway, Self::Origin];

    fn suffix(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Origin => "origin",
        }
    }

    /// The interface that faces the gateway's other side: `c0`, `g0` (towards the client) or `o0`.
    pub(crate) fn interface(self) -> &'static str {
        match self {
            Self::Client => "c0",
            Self::Gateway => "g0",
            Self::Origin => "o0",
        }
    }
}

/// True when this process may build namespaces; otherwise says so on the real standard error, past cargo's capture.
///
/// `if !rig::root_or_skip("name") { return; }` opens every privileged test.
pub(crate) fn root_or_skip(test: &str) -> bool {
    static CAN: OnceLock<Result<(), String>> = OnceLock::new();
    match CAN.get_or_init(try_namespace) {
        Ok(()) => true,
        Err(why) => {
            // Not eprintln!: the harness swallows that one for tests that pass, and a skip must be heard.
            let _ = writeln!(std::io::stderr(), "SKIPPED: needs root: {test} ({why})");
            false
        }
    }
}

fn try_namespace() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("run it as root: sudo -E scripts/test".into());
    }
    let name = format!("bt{}-probe", std::process::id());
    run("ip", &["netns", "add", &name])?;
    run("ip", &["netns", "del", &name])
}

/// Three namespaces, two veth pairs and a directory for the test's files; all gone after drop.
#[derive(Debug)]
pub(crate) struct Rig {
    prefix: String,
    directory: PathBuf,
    /// What joins client and gateway instead of a veth pair.
    nics: Option<Nics>,
}

impl Rig {
    /// Two queues on every veth, offloads off: frames look as they would on a wire.
    pub(crate) fn new() -> Self {
        Self::with_queues(2)
    }

    /// As [`Rig::new`] with `queue_count` receive and transmit queues on every veth.
    pub(crate) fn with_queues(queue_count: u32) -> Self {
        Self::build(queue_count, None)
    }

    /// As [`Rig::new`], with NICs of this machine as `c0` and `g0`; they go back on drop.
    pub(crate) fn with_nics(nics: Nics) -> Self {
        Self::build(2, Some(nics))
    }

    fn build(queue_count: u32, nics: Option<Nics>) -> Self {
        static RIG_COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("bt{}-{}", std::process::id(), RIG_COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(format!("beam-{prefix}"));
        // Built before anything exists, so that a failure half-way is cleaned by drop.
        let rig = Self { prefix, directory, nics };
        std::fs::create_dir_all(&rig.directory).expect("make the rig's directory");
        for ns in Ns::ALL {
            must("ip", &["netns", "add", &rig.netns(ns)]);
            rig.ip(ns, &["link", "set", "lo", "up"]);
        }
        match &rig.nics {
            Some(nics) => nics.enter(&rig),
            None => rig.join((Ns::Client, "c0"), (Ns::Gateway, "g0"), queue_count),
        }
        rig.join((Ns::Gateway, "g1"), (Ns::Origin, "o0"), queue_count);
        rig.address(Ns::Client, "c0", CLIENT_V4, CLIENT_V6);
        rig.address(Ns::Gateway, "g0", GATEWAY_V4, GATEWAY_V6);
        rig.address(Ns::Gateway, "g1", GATEWAY_INNER_V4, GATEWAY_INNER_V6);
        rig.address(Ns::Origin, "o0", ORIGIN_V4, ORIGIN_V6);
        rig
    }

    /// The namespace's name as `ip netns` knows it.
    pub(crate) fn netns(&self, ns: Ns) -> String {
        format!("{}-{}", self.prefix, ns.suffix())
    }

    /// A directory of this rig's own for sockets, certificates and logs; its path is short enough for a Unix socket.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command that runs `program` inside the namespace. `ip netns exec` execs, so the child's pid is the program's.
    pub(crate) fn command(&self, ns: Ns, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns(ns)]).arg(program).stdin(Stdio::null());
        // Not the host's: tests run beside each other, and beside a daemon.
        command.env("BEAM_STATE_DIR", self.directory().join("state"));
        command.env("BEAM_DOCTOR_STATE_DIR", self.directory().join("doctor"));
        command
    }

    /// Runs `work` on a thread that stands inside the namespace. A socket opened there stays there for life, so a test
    /// can carry it out and use it from any thread.
    pub(crate) fn within<T: Send>(&self, ns: Ns, work: impl FnOnce() -> T + Send) -> T {
        let path = Path::new("/var/run/netns").join(self.netns(ns));
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let file = File::open(&path).expect("open the namespace's file");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("enter the namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip -n NAMESPACE ARGS`, and panics with its complaint where it fails.
    pub(crate) fn ip(&self, ns: Ns, args: &[&str]) {
        let netns = self.netns(ns);
        let mut all = vec!["-n", netns.as_str()];
        all.extend_from_slice(args);
        must("ip", &all);
    }

    /// Whether an XDP program sits on the interface, by the kernel's word.
    pub(crate) fn has_xdp(&self, ns: Ns, interface: &str) -> bool {
        self.xdp_hook(ns, interface).is_some()
    }

    /// Where the interface's XDP program runs, by the kernel's word: in the driver (`native`) or in the generic hook.
    pub(crate) fn xdp_hook(&self, ns: Ns, interface: &str) -> Option<&'static str> {
        let out = output("ip", &["-n", &self.netns(ns), "-j", "-d", "link", "show", "dev", interface])
            .expect("ip link show");
        let links: serde_json::Value = serde_json::from_slice(&out.stdout).expect("ip -j prints JSON");
        // XDP_ATTACHED_* of the kernel's if_link.h.
        match links[0].get("xdp")?["mode"].as_u64().expect("an attached program has a mode") {
            1 => Some("native"),
            2 => Some("skb"),
            mode => panic!("{interface} carries XDP in mode {mode}: {links:#}"),
        }
    }

    /// Packets that the interface's driver dropped instead of sending: a veth whose other end is too slow does so.
    pub(crate) fn tx_dropped(&self, ns: Ns, interface: &str) -> u64 {
        let statistic = format!("/sys/class/net/{interface}/statistics/tx_dropped");
        let out = self.command(ns, "cat").arg(&statistic).output().expect("run cat");
        let text = String::from_utf8_lossy(&out.stdout);
        text.trim().parse().unwrap_or_else(|e| panic!("{statistic} reads {text:?}: {e}"))
    }

    /// Gives the namespace an `/etc/hosts` of its own, for the commands run in it from now on.
    pub(crate) fn set_hosts(&self, ns: Ns, text: &str) {
        let directory = netns_files(&self.netns(ns));
        std::fs::create_dir_all(&directory).expect("make the namespace's directory under /etc/netns");
        std::fs::write(directory.join("hosts"), text).expect("write the namespace's hosts file");
    }

    /// Lets the gateway namespace forward packets, for the runs that compare with no tunnel at all.
    pub(crate) fn route_through_gateway(&self) {
        let script =
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        let done = self.command(Ns::Gateway, "sh").args(["-c", script]).status().expect("run sh");
        assert!(done.success(), "turning on forwarding in {} failed", self.netns(Ns::Gateway));
        self.ip(Ns::Client, &["route", "add", "default", "via", &GATEWAY_V4.to_string()]);
        self.ip(Ns::Origin, &["route", "add", "default", "via", &GATEWAY_INNER_V4.to_string()]);
        self.ip(Ns::Client, &["-6", "route", "add", "default", "via", &GATEWAY_V6.to_string()]);
        self.ip(Ns::Origin, &["-6", "route", "add", "default", "via", &GATEWAY_INNER_V6.to_string()]);
    }

    fn join(&self, a: (Ns, &str), b: (Ns, &str), queue_count: u32) {
        let queues = queue_count.to_string();
        let (a_ns, b_ns) = (self.netns(a.0), self.netns(b.0));
        let ends = ["link", "add", a.1, "netns", &a_ns, "numrxqueues", &queues, "numtxqueues", &queues];
        let peer = [
            "type",
            "veth",
            "peer",
            "name",
            b.1,
            "netns",
            &b_ns,
            "numrxqueues",
            &queues,
            "numtxqueues",
            &queues,
        ];
        must("ip", &[&ends[..], &peer[..]].concat());
        for (ns, interface) in [a, b] {
            let off = ["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
            let done =
                self.command(ns, "ethtool").args(off).stdout(Stdio::null()).status().expect("run ethtool");
            assert!(done.success(), "ethtool {off:?} failed in {}", self.netns(ns));
        }
    }

    fn address(&self, ns: Ns, interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) {
        self.ip(ns, &["address", "add", &format!("{v4}/24"), "dev", interface]);
        // nodad: a tentative address can't be bound for its first second.
        self.ip(ns, &["address", "add", &format!("{v6}/64"), "dev", interface, "nodad"]);
        self.ip(ns, &["link", "set", interface, "up"]);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(nics) = &self.nics {
            nics.leave(self);
        }
        for ns in Ns::ALL {
            let _ = output("ip", &["netns", "del", &self.netns(ns)]);
            let _ = std::fs::remove_dir_all(netns_files(&self.netns(ns)));
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Files that `ip netns exec` lays over those in `/etc`.
fn netns_files(netns: &str) -> PathBuf {
    Path::new("/etc/netns").join(netns)
}

/// `address:port`, with the brackets that an IPv6 address needs in a URL.
pub(crate) fn authority(address: impl Into<IpAddr>, port: u16) -> String {
    std::net::SocketAddr::new(address.into(), port).to_string()
}

/// The top of the checkout, where `scripts/` lives.
pub(crate) fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("userspace/ has a parent")
}

/// The Python with aioquic that `scripts/venv` makes under `target/`; `BEAM_PYTHON` names it when already made.
pub(crate) fn python() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("BEAM_PYTHON") {
        return Ok(path.into());
    }
    let script = checkout().join("scripts/venv");
    let made = Command::new(&script)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{script:?}: {error}"))?;
    if !made.status.success() {
        return Err(format!("{script:?} failed: {}", String::from_utf8_lossy(&made.stderr)));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&made.stdout).trim()))
}

pub(crate) fn output(program: &str, args: &[&str]) -> Result<Output, String> {
    let ran = Command::new(program).args(args).stdin(Stdio::null()).output();
    ran.map_err(|error| format!("{program} can't be run: {error}; install it: scripts/setup"))
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let out = output(program, args)?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim()))
}

pub(crate) fn must(program: &str, args: &[&str]) {
    run(program, args).unwrap_or_else(|why| panic!("{why}"));
}
