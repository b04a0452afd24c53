//! The gateway: a real `beam serve` as a child process, with files of its own.

use super::{
    process::{Memory, Process},
    users::Users,
};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tunnel::tls::Fingerprint;

/// How it is started.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The program.
    pub beam: PathBuf,
    /// The network namespace that it runs in, by the name that `ip netns` knows.
    pub netns: Option<String>,
    /// What it runs under: a profiler with its flags.
    pub under: Vec<String>,
    /// Where it listens; `None`: a free port of 127.0.0.1.
    pub listen: Option<SocketAddr>,
    /// The interface that it attaches to; `None`: kernel UDP.
    pub interface: Option<String>,
    /// Users in its file.
    pub users: u32,
    /// Further flags.
    pub flags: Vec<String>,
}

/// See the module.
pub(super) struct Gateway {
    config: GatewayConfig,
    child: Child,
    directory: PathBuf,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Its certificate.
    pub(super) pin: Fingerprint,
    pub(super) users: Users,
    /// Its flags, as they were given.
    pub(super) flags: Vec<String>,
    log: Arc<Log>,
}

/// What a gateway takes of memory.
pub(super) struct Held {
    /// VmRSS without the UMEM.
    pub(super) rss_bytes: u64,
    pub(super) umem_bytes: u64,
    /// As [`Memory`] has them.
    pub(super) file_bytes: u64,
    pub(super) private_dirty_bytes: u64,
}

/// The end of its log.
#[derive(Default)]
struct Log {
    lines: Mutex<(VecDeque<String>, bool)>,
    more: Condvar,
}

/// Lines that are kept.
const LOG_LINES_MAX: usize = 40;
/// A users file of a hundred thousand is read in a second; under valgrind everything takes fifty times as long.
const READY_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a UMEM frame, unless `--frame-size` says otherwise.
const FRAME_BYTES: u64 = 4096;

impl Gateway {
    /// Starts it, and waits until it is ready.
    ///
    /// # Errors
    /// With the end of its log.
    pub(super) fn start(config: GatewayConfig) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("beam-scale-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| directory.display().to_string())?;
        let started = Self::start_in(config, &directory);
        if started.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        started
    }

    fn start_in(config: GatewayConfig, directory: &Path) -> Result<Self> {
        let file = |name: &str| directory.join(name);
        let made = rcgen::generate_simple_self_signed(["gateway.test".into()])?;
        write(&file("gateway.pem"), &made.cert.pem())?;
        write(&file("gateway.key"), &made.signing_key.serialize_pem())?;
        let users = Users::new(config.users)?;
        users.write(&file("users"))?;
        let address = match config.listen {
            Some(address) => address,
            None => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?,
        };
        let mut flags = vec!["--listen".to_owned(), address.to_string()];
        match &config.interface {
            Some(interface) => flags.extend(["--interface".into(), interface.clone()]),
            None => flags.extend(["--xdp".into(), "off".into()]),
        }
        flags.extend(config.flags.iter().cloned());
        let mut words = Vec::new();
        if let Some(netns) = &config.netns {
            words.extend(["ip", "netns", "exec", netns].map(Into::into));
        }
        words.extend(config.under.iter().map(Into::into));
        words.push(config.beam.clone().into_os_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("serve").args(&flags);
        for (flag, name) in [
            ("--tls-cert", "gateway.pem"),
            ("--tls-key", "gateway.key"),
            ("--users", "users"),
            ("--state-dir", "state"),
            ("--control", "control"),
        ] {
            command.arg(flag).arg(file(name));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{} can't be run", words[0].display()))?;
        let log = Arc::<Log>::default();
        let stderr = child.stderr.take().context("its log")?;
        let follows = log.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || follows.follow(stderr))?;
        let pin = Fingerprint::of(made.cert.der());
        let mut gateway =
            Self { config, child, directory: directory.into(), address, pin, users, flags, log };
        gateway.wait_until_ready()?;
        Ok(gateway)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let limit = Instant::now() + READY_LIMIT;
        while !self.log.is_ready(Duration::from_millis(100)) {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > limit {
                let how = ended
                    .map_or("is not ready after two minutes".into(), |status| format!("ended: {status}"));
                bail!("beam serve {how}\n{}", self.log.text());
            }
        }
        Ok(())
    }

    /// One `beam status -j`.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub(super) fn status(&self) -> Result<Value> {
        self.verb(&["status", "-j"])
    }

    /// `beam show WHAT -j`.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub(super) fn show(&self, what: &str) -> Result<Value> {
        self.verb(&["show", what, "-j"])
    }

    fn verb(&self, words: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.config.beam);
        command.args(words).arg("--control").arg(self.directory.join("control"));
        let output = command.output().with_context(|| self.config.beam.display().to_string())?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "beam {}: {complaint}{}", words.join(" "), self.log.text());
        serde_json::from_slice(&output.stdout).with_context(|| format!("beam {}: no JSON", words.join(" ")))
    }

    pub(super) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// What it takes. The UMEM is pinned, so all of it is resident.
    pub(super) fn memory(&self, status: &Value) -> Result<Held> {
        let Memory { resident_bytes, file_bytes, private_dirty_bytes, hugetlb_bytes } =
            self.process().memory()?;
        let workers = status["workers"].as_array().map_or(&[][..], Vec::as_slice);
        let frames = workers.iter().filter_map(|worker| worker["frames"].as_array()).flatten();
        let frame_count: u64 = frames.filter_map(|frames| frames["total"].as_u64()).sum();
        let umem_bytes = frame_count * self.frame_bytes();
        let rss_bytes = resident_bytes.saturating_sub(umem_bytes.saturating_sub(hugetlb_bytes));
        Ok(Held { rss_bytes, umem_bytes, file_bytes, private_dirty_bytes })
    }

    fn frame_bytes(&self) -> u64 {
        let at = self.flags.iter().position(|flag| flag == "--frame-size");
        at.and_then(|at| self.flags.get(at + 1)?.parse().ok()).unwrap_or(FRAME_BYTES)
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// If it doesn't, or not well.
    pub(super) fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let limit = Instant::now() + STOP_LIMIT;
        // The second one: at once, without waiting for flows.
        let mut again = Some(Instant::now() + STOP_LIMIT / 4);
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if again.take_if(|at| *at <= Instant::now()).is_some() {
                self.signal(Signal::TERM)?;
            }
            ensure!(
                Instant::now() < limit,
                "beam serve hasn't ended after {STOP_LIMIT:?}\n{}",
                self.log.text()
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        ensure!(status.success(), "beam serve ended: {status}\n{}", self.log.text());
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("its process id")?;
        kill_process(pid, signal).context("signalling beam serve")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Log {
    fn follow(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).lines() {
            let Ok(line) = line else { return };
            let (lines, ready) = &mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            *ready |= line.contains("ready: ");
            if lines.len() == LOG_LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line);
            self.more.notify_all();
        }
    }

    /// Waits for so long at most.
    fn is_ready(&self, within: Duration) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.more.wait_timeout_while(lines, within, |(_, ready)| !*ready);
        waited.unwrap_or_else(PoisonError::into_inner).0.1
    }

    fn text(&self) -> String {
        let (lines, _) = &*self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().fold("its log ends:\n".to_owned(), |text, line| text + line + "\n")
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
}

/// A counter of a status; those at zero are left out there.
pub(super) fn counter(status: &Value, name: &str) -> u64 {
    status["counters"][name].as_u64().unwrap_or(0)
}
