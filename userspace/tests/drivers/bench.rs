//! One pair of NICs in one mode, with what every case needs: both ends of a tunnel, a web server behind it, and the
//! kernel's word about the mode.

use crate::{
    NotHere,
    pair::{FORWARD_PORT, LIMIT, Place, number, path, settled, sha256, until, words, workers},
    rig::{self, Beam, GATEWAY_V4, Nics, Ns, ORIGIN_V4, ORIGIN_V6, Proc, Rig, authority},
};
use serde_json::{Map, Value, json};
use std::{net::IpAddr, process::Stdio};

/// How frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    ZeroCopy,
    Copy,
    Generic,
    Off,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::ZeroCopy, Self::Copy, Self::Generic, Self::Off];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
            Self::Generic => "generic",
            Self::Off => "off",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name);
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| format!("no mode {text:?}; known: {}", names.join(", ")))
    }

    /// What `beam status` calls it.
    pub(crate) fn in_status(self) -> &'static str {
        match self {
            Self::ZeroCopy => "native-zerocopy",
            Self::Copy => "native-copy",
            Self::Generic => "skb-copy",
            Self::Off => "off",
        }
    }

    /// Where the XDP program runs.
    pub(crate) fn hook(self) -> Option<&'static str> {
        match self {
            Self::ZeroCopy | Self::Copy => Some("native"),
            Self::Generic => Some("skb"),
            Self::Off => None,
        }
    }

    /// The flags that ask for it, and for nothing else.
    pub(crate) fn flags(self, interface: &str) -> Vec<&str> {
        let mut flags = match self {
            Self::ZeroCopy => vec!["--xdp", "native", "--zero-copy", "on"],
            Self::Copy => vec!["--xdp", "native", "--zero-copy", "off"],
            Self::Generic => vec!["--xdp", "skb"],
            Self::Off => return vec!["--xdp", "off"],
        };
        flags.extend(["-i", interface, "--umem", "16"]);
        flags
    }
}

/// What this machine is, for the results.
pub(crate) fn facts() -> Map<String, Value> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let bench = Bench::new(Mode::Off, Mode::Off);
    let mut facts = Map::new();
    facts.insert("release".into(), release.trim().into());
    facts.insert("driver".into(), bench.driver().into());
    facts.insert("queues".into(), bench.queue_count().map_or(Value::Null, Value::from));
    facts.insert("queues_max".into(), bench.queues_max().map_or(Value::Null, Value::from));
    facts
}

/// See the module.
pub(crate) struct Bench {
    pub(crate) mode: Mode,
    /// The best that the driver has.
    pub(crate) best: Mode,
    pub(crate) place: Place,
    /// Queues of the gateway's NIC before the case.
    queues_before: Option<u64>,
    facts: Map<String, Value>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // NICs outlive the case, also one that failed half-way.
        if let Some(before) = self.queues_before.filter(|_| self.queue_count() != self.queues_before) {
            let set = self.set_queues(before);
            println!("back to {before} queue(s): {set:?}");
        }
    }
}

impl Bench {
    pub(crate) fn new(mode: Mode, best: Mode) -> Self {
        let rig = match Nics::from_environment() {
            Some(nics) => Rig::with_nics(nics),
            // Two queues, and room to grow.
            None => Rig::with_queues(4),
        };
        let is_veth = Nics::from_environment().is_none();
        let mut bench = Self { mode, best, place: Place::on(rig), queues_before: None, facts: Map::new() };
        if is_veth {
            for ns in [Ns::Client, Ns::Gateway] {
                bench.must_in(ns, "ethtool", &["-L", ns.interface(), "rx", "2", "tx", "2"]);
            }
        }
        bench.wait_for_link(Ns::Client);
        bench.wait_for_link(Ns::Gateway);
        bench.queues_before = bench.queue_count();
        bench
    }

    /// Notes what a reader of the results may want to know.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    pub(crate) fn into_facts(mut self) -> Map<String, Value> {
        std::mem::take(&mut self.facts)
    }

    /// Runs a program in a namespace; its standard output, or why it failed.
    pub(crate) fn try_in(&self, ns: Ns, program: &str, args: &[&str]) -> Result<String, String> {
        let out = self.place.rig.command(ns, program).args(args).output().map_err(|e| e.to_string())?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&out.stderr).trim().to_owned())
    }

    pub(crate) fn must_in(&self, ns: Ns, program: &str, args: &[&str]) -> String {
        self.try_in(ns, program, args).unwrap_or_else(|why| panic!("{program} {args:?} in {ns:?}: {why}"))
    }

    pub(crate) fn in_gateway(&self, program: &str, args: &[&str]) -> String {
        self.must_in(Ns::Gateway, program, args)
    }

    /// Waits until the NIC says that it has a carrier: a real one takes its time.
    pub(crate) fn wait_for_link(&self, ns: Ns) {
        let flags = || self.must_in(ns, "ip", &["-br", "link", "show", "dev", ns.interface()]);
        until("the link comes up", flags, |flags| flags.contains("LOWER_UP"));
    }

    /// Name of the gateway's NIC's driver.
    pub(crate) fn driver(&self) -> String {
        let info = self.in_gateway("ethtool", &["-i", "g0"]);
        info.lines().find_map(|line| line.strip_prefix("driver: ")).unwrap_or("?").to_owned()
    }

    /// Combined channels of the gateway's NIC, now and at most; `None` where the driver doesn't say.
    pub(crate) fn queue_count(&self) -> Option<u64> {
        self.channels().map(|[_, now]| now)
    }

    pub(crate) fn queues_max(&self) -> Option<u64> {
        self.channels().map(|[max, _]| max)
    }

    pub(crate) fn set_queues(&self, count: u64) -> Result<String, String> {
        let count = count.to_string();
        self.try_in(Ns::Gateway, "ethtool", &["-L", "g0", "combined", &count])
            // A veth: its other end bounds how many it may send on.
            .or_else(|_| self.try_in(Ns::Gateway, "ethtool", &["-L", "g0", "rx", &count]))
    }

    fn channels(&self) -> Option<[u64; 2]> {
        let text = self.try_in(Ns::Gateway, "ethtool", &["-l", "g0"]).ok()?;
        let combined = |text: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix("Combined:")?.trim().parse().ok())
        };
        let (max, now) = text.split_once("Current hardware settings")?;
        // A veth says it by its receive queues.
        let either = |text: &str| {
            combined(text)
                .filter(|&n| n > 0)
                .or_else(|| text.lines().find_map(|line| line.strip_prefix("RX:")?.trim().parse().ok()))
        };
        Some([either(max)?, either(now)?])
    }

    /// A gateway on `address`, in this mode.
    pub(crate) fn gateway(&self, address: impl Into<IpAddr>) -> Beam {
        self.gateway_in(self.mode, address)
    }

    pub(crate) fn gateway_in(&self, mode: Mode, address: impl Into<IpAddr>) -> Beam {
        let gateway = self.place.gateway(address, &mode.flags("g0"));
        self.assert_mode(mode, Ns::Gateway, &gateway);
        gateway
    }

    /// A client of it, whose `-L` leads to `origin`.
    pub(crate) fn client(&self, address: impl Into<IpAddr>, origin: &Origin) -> Beam {
        self.client_in(self.mode, address, origin)
    }

    pub(crate) fn client_in(&self, mode: Mode, address: impl Into<IpAddr>, origin: &Origin) -> Beam {
        let client = self.place.client(address, &origin.address, &mode.flags("c0"));
        self.assert_mode(mode, Ns::Client, &client);
        client
    }

    /// Holds a daemon to its mode: by its own status, by the kernel's word about the program, and by the kernel's word
    /// about the sockets.
    pub(crate) fn assert_mode(&self, mode: Mode, ns: Ns, beam: &Beam) {
        let status = beam.status();
        // Queues that virtio_net adds for XDP are bound in copy mode (`xsk/src/quirks.rs`); they come after the others.
        let may_copy_later = mode == Mode::ZeroCopy && status["interfaces"][0]["driver"] == "virtio_net";
        for worker in workers(&status) {
            let modes = worker["xdp_mode"].as_str().expect("a worker has a mode");
            let later = modes.strip_prefix(mode.in_status());
            let is_right = later == Some("") || (may_copy_later && later == Some(",native-copy"));
            assert!(is_right, "{mode:?}, but the status says {modes}: {status:#}");
        }
        assert_eq!(self.place.rig.xdp_hook(ns, ns.interface()), mode.hook(), "the kernel's word, {ns:?}");
        let zero_copy = self.zero_copy_sockets(ns);
        // Debian's 6.1 has no xsk_diag, nor zero-copy; where there is zero-copy, the kernel's own list has to say so.
        assert!(mode != Mode::ZeroCopy || zero_copy.is_some(), "no xsk_diag, so nobody can tell zero-copy");
        if let Some(zero_copy) = zero_copy {
            let wanted = mode == Mode::ZeroCopy;
            let right_count = zero_copy.iter().filter(|&&is| is == wanted).count();
            let at_start = self.queues_before.unwrap_or(1) as usize;
            let is_right = right_count == zero_copy.len() || (may_copy_later && right_count >= at_start);
            assert!(is_right, "{mode:?}, but ss says {zero_copy:?}");
            assert_eq!(zero_copy.is_empty(), mode == Mode::Off, "XDP sockets in {ns:?}: {zero_copy:?}");
        }
    }

    /// For each XDP socket of the namespace, whether its UMEM is in zero-copy; `None` where the kernel has no xsk_diag.
    fn zero_copy_sockets(&self, ns: Ns) -> Option<Vec<bool>> {
        if !std::path::Path::new("/sys/module/xsk_diag").exists() {
            return None;
        }
        let text = self.must_in(ns, "ss", &["--xdp", "-e"]);
        Some(text.split(',').filter_map(|word| word.strip_prefix("zc:")).map(|bit| bit == "1").collect())
    }

    /// Fetches the origin's file through the tunnel; the digest is compared.
    pub(crate) fn fetch(&self, origin: &Origin) {
        let url = format!("http://127.0.0.1:{FORWARD_PORT}/file");
        assert_eq!(
            self.place.curl(&[&url]),
            (origin.size_bytes, origin.sha256.clone()),
            "through the tunnel"
        );
    }

    /// As [`Self::fetch`], while `meanwhile` runs once a part of the file has arrived.
    pub(crate) fn fetch_while(&self, origin: &Origin, meanwhile: impl FnOnce()) {
        use std::io::{Read as _, Write as _};
        let mut stream = crate::tools::dial(&self.place, FORWARD_PORT);
        stream.write_all(b"GET /file HTTP/1.1\r\nHost: beam\r\nConnection: close\r\n\r\n").expect("ask");
        let mut all = vec![0; 1 << 20];
        stream.read_exact(&mut all).expect("the file's first MiB");
        meanwhile();
        stream.read_to_end(&mut all).expect("the rest of the file");
        let head = all.windows(4).position(|window| window == b"\r\n\r\n").expect("a response head") + 4;
        assert_eq!((all.len() - head) as u64, origin.size_bytes, "the file's length");
        assert_eq!(sha256(&all[head..]), origin.sha256, "the file's digest");
    }

    /// Both ends at rest: what came in is delivered or dropped under a name, and every frame of every UMEM is somewhere.
    pub(crate) fn assert_conserved(&self, ends: &[&Beam]) -> Vec<Value> {
        // A packet may still be on its way when the first is asked.
        ends.iter().for_each(|end| drop(settled(end)));
        let statuses: Vec<Value> = ends.iter().map(|end| settled(end)).collect();
        for status in &statuses {
            let sums = &status["conservation"];
            assert_eq!((&sums["holds"], number(sums, "in_flight")), (&json!(true), 0), "{status:#}");
            for worker in workers(status) {
                let frames = worker["frames"].as_array().expect("a worker has a census of its frames");
                let in_xdp = worker["xdp_mode"] != "off";
                assert_eq!(frames.is_empty(), !in_xdp, "{status:#}");
                for queue in frames {
                    let parts = ["free", "fill", "rx", "tx", "completion", "out"];
                    let sum: u64 = parts.iter().map(|part| number(queue, part)).sum();
                    assert_eq!(sum, number(queue, "total"), "frames of a queue: {status:#}");
                    assert_eq!(number(queue, "out"), 0, "frames that a worker keeps: {status:#}");
                }
            }
        }
        statuses
    }
}

/// nginx behind the gateway, with one file.
pub(crate) struct Origin {
    /// Where it listens, as `-L` takes it.
    pub(crate) address: String,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
    _nginx: Proc,
}

/// The file of the issue.
pub(crate) const FILE_BYTES: u64 = 16 << 20;
/// For cases about something else than a transfer, which need one to happen in the middle of.
const QUARTER_BYTES: u64 = FILE_BYTES / 4;

const NGINX: &str = "
# One process, ours to stop: a worker would outlive a master that is killed.
master_process off;
daemon off;
pid DIRECTORY/nginx.pid;
error_log stderr;
user root;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path DIRECTORY/nginx-body;
    proxy_temp_path DIRECTORY/nginx-proxy;
    fastcgi_temp_path DIRECTORY/nginx-fastcgi;
    uwsgi_temp_path DIRECTORY/nginx-uwsgi;
    scgi_temp_path DIRECTORY/nginx-scgi;
    server {
        listen 198.19.0.2:8080;
        listen [2001:db8:2::2]:8080;
        root DIRECTORY/www;
    }
}
";

impl Origin {
    /// Serves `size_bytes` of the rig's pattern at `/file`, on IPv4 and IPv6.
    pub(crate) fn start(bench: &Bench, size_bytes: u64) -> Self {
        let directory = bench.place.rig.directory();
        let www = directory.join("www");
        std::fs::create_dir_all(&www).expect("make the web root");
        let body: Vec<u8> = (0..size_bytes).map(rig::pattern).collect();
        std::fs::write(www.join("file"), body).expect("write the file");
        let config = directory.join("nginx.conf");
        std::fs::write(&config, NGINX.replace("DIRECTORY", &path(directory))).expect("write nginx.conf");
        let mut command = bench.place.rig.command(Ns::Origin, "nginx");
        // nginx lives where not every PATH looks.
        let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        command.env("PATH", search).args(["-e", "stderr", "-c"]).arg(&config).stdout(Stdio::null());
        let nginx = Proc::spawn("nginx", &mut command);
        let listens =
            || bench.try_in(Ns::Origin, "ss", &["-Hltn", "sport", "=", ":8080"]).unwrap_or_default();
        until("nginx listens", listens, |sockets| sockets.lines().count() == 2);
        Self {
            address: authority(ORIGIN_V4, 8080),
            size_bytes,
            sha256: crate::pair::pattern_sha256(size_bytes),
            _nginx: nginx,
        }
    }

    /// By its IPv6 address.
    pub(crate) fn over_ipv6(mut self) -> Self {
        self.address = authority(ORIGIN_V6, 8080);
        self
    }
}

/// A gateway and a client in the bench's mode, and the origin.
pub(crate) struct Tunnel {
    pub(crate) client: Beam,
    pub(crate) gateway: Beam,
    pub(crate) origin: Origin,
}

impl Tunnel {
    pub(crate) fn start(bench: &Bench) -> Self {
        let origin = Origin::start(bench, QUARTER_BYTES);
        let gateway = bench.gateway(GATEWAY_V4);
        let client = bench.client(GATEWAY_V4, &origin);
        Self { client, gateway, origin }
    }
}

/// `beam ARGS` in a namespace, to its end: exit code and what it said.
pub(crate) fn beam_says(bench: &Bench, ns: Ns, args: &[String]) -> (Option<i32>, String) {
    let control = bench.place.rig.directory().join("short.sock");
    let mut command = bench.place.rig.command(ns, rig::binary());
    command.args(words(args)).arg("--control").arg(control).stdout(Stdio::null());
    let mut process = Proc::spawn("beam", &mut command);
    let status = process.wait(LIMIT);
    (status.code(), process.stderr())
}

/// For a case that needs a device type, module or tool. A guest of `scripts/kernels` has them all.
pub(crate) fn needs<T>(result: Result<T, String>, what: &str) -> Result<T, NotHere> {
    result.map_err(|why| {
        assert!(Nics::from_environment().is_none(), "a guest has {what}: {why}");
        NotHere(format!("{what}: {why}"))
    })
}
