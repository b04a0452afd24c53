//! What a daemon gives up once it is set up, and what is left; the means are in the `confine` room.
//!
//! | thread | keeps | for |
//! |---|---|---|
//! | `beam-worker-N` | nothing | packets and flows: the tightest filter, no file |
//! | `beam-device-N`, `beam-lan` | NET_ADMIN, NET_RAW, IPC_LOCK, BPF, where `--queues all` may bring new queues | AF_XDP sockets, pinned memory, the program that veth forgets |
//! | `beam-netlink` | NET_ADMIN, BPF | has the kernel look for neighbours (NTF_USE), follows addresses into the maps |
//! | `beam-broker` ([`broker`]) | NET_ADMIN, BPF with `--ip-pool`, `--tun` or `--lan`; NET_BIND_SERVICE at a gateway | addresses and routes of the tunnel; ports below 1024 for `-R` |
//! | `beam-alert-exec` | nothing | runs the operator's program: any file, but only it and what is in system directories to run |
//! | all others, the main thread too | nothing | signals, control socket, names, caches on disk |
//!
//! BPF is for kernels before 5.19, which ask for it at each map call; NET_ADMIN for XDP is asked for by all. Reading the
//! certificates again takes no privilege but that of the files' owner: [`settle`] says which of them can't be read any more.

pub(crate) mod broker;

use crate::{cli::Sandbox, failure::Failure, notify};
use anyhow::anyhow;
use confine::{Capabilities, Files, Plan, Room};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Files that are read again; looked at once privileges are gone.
static READ_AGAIN: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// Before the first thread starts.
pub(crate) fn prepare(sandbox: Sandbox, files: Files, hook: Option<&Path>) -> Result<(), Failure> {
    notify::open();
    if sandbox == Sandbox::Off {
        tracing::warn!("--sandbox off: this daemon keeps its capabilities, all system calls and all files");
        return Ok(());
    }
    let _ = READ_AGAIN.set(files.read.clone());
    let report = confine::prepare(Plan { files, hook: hook.map(Path::to_owned) }).map_err(failed)?;
    for lack in &report.lacks {
        tracing::warn!("this kernel lacks {lack}");
    }
    Ok(())
}

/// The calling thread has set everything up: from here on it is like any other, and so is what it starts.
pub(crate) fn settle() -> Result<(), Failure> {
    confine::enter(Room::Control).map_err(failed)?;
    if confine::has_failed() {
        return Err(Failure::Preflight(anyhow!(
            "a thread can't be confined; the log says why; --sandbox off runs without"
        )));
    }
    for path in READ_AGAIN.get().into_iter().flatten() {
        if let Err(error) = File::open(path) {
            tracing::warn!(
                "{} can't be read without privileges ({error}), and so `beam reload` will fail: let it belong to the user that runs beam",
                path.display()
            );
        }
    }
    Ok(())
}

/// What to say behind an error that the sandbox may be the reason of.
pub(crate) fn hint(error: &str) -> &'static str {
    let is_denied = error.contains("(os error 13)");
    match confine::report() {
        Some(_) if is_denied => {
            "; a running beam reads what its user owns, in the directories of the files that it was started with: restart it to read others"
        }
        _ => "",
    }
}

fn failed(error: confine::ConfineError) -> Failure {
    Failure::Preflight(anyhow!("{error}; --sandbox off runs without"))
}

/// Of a thread that opens sockets on queues that come later, if any may.
pub(crate) fn device_room(queues_may_come: bool) -> Room {
    let all = Capabilities::NET_ADMIN | Capabilities::NET_RAW | Capabilities::IPC_LOCK | Capabilities::BPF;
    Room::Device(if queues_may_come { all } else { Capabilities::empty() })
}

/// The first act of a thread that follows routes and neighbours.
pub(crate) fn enter_netlink() {
    // One that isn't confined goes on: the start ends over it ([`settle`]).
    let _ = confine::enter_or_note(Room::Broker(Capabilities::NET_ADMIN | Capabilities::BPF));
}

/// What `beam status` says, as the kernel sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PrivilegesStatus {
    /// `auto` or `off`.
    pub(crate) sandbox: String,
    /// Threads that have capabilities, and which.
    pub(crate) capabilities: BTreeMap<String, Vec<String>>,
    /// All threads have it.
    pub(crate) no_new_privs: bool,
    /// System calls in the workers' filter; `None` without one.
    pub(crate) seccomp_worker_calls: Option<usize>,
    /// Threads without a filter.
    pub(crate) unfiltered: Vec<String>,
    /// 0: none.
    pub(crate) landlock_abi: i32,
    /// What this kernel doesn't have.
    pub(crate) lacks: Vec<String>,
}

/// What a thread of `/proc/self/task` has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Thread {
    name: String,
    permitted: u64,
    no_new_privs: bool,
    filtered: bool,
}

impl Thread {
    fn parse(status: &str) -> Self {
        let mut thread = Self::default();
        for (key, value) in status.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match key {
                "Name" => value.clone_into(&mut thread.name),
                "CapPrm" => thread.permitted = u64::from_str_radix(value, 16).unwrap_or(u64::MAX),
                "NoNewPrivs" => thread.no_new_privs = value == "1",
                "Seccomp" => thread.filtered = value == "2",
                _ => {}
            }
        }
        thread
    }
}

/// Looks at this process.
pub(crate) fn status() -> PrivilegesStatus {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().filter_map(Result::ok);
    // One that ends meanwhile is none.
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let threads: Vec<Thread> = texts.map(|text| Thread::parse(&text)).collect();
    summary(&threads, confine::report())
}

fn summary(threads: &[Thread], report: Option<&confine::Report>) -> PrivilegesStatus {
    let names = |permitted| {
        let set = Capabilities::from_bits_retain(permitted);
        confine::set_names(set).split(", ").map(str::to_owned).collect()
    };
    let with = threads.iter().filter(|thread| thread.permitted != 0);
    let unfiltered = threads.iter().filter(|thread| !thread.filtered);
    PrivilegesStatus {
        sandbox: if report.is_some() { "auto" } else { "off" }.to_owned(),
        capabilities: with.map(|thread| (thread.name.clone(), names(thread.permitted))).collect(),
        no_new_privs: threads.iter().all(|thread| thread.no_new_privs),
        seccomp_worker_calls: report.and_then(|report| report.worker_calls),
        unfiltered: unfiltered.map(|thread| thread.name.clone()).collect(),
        landlock_abi: report.map_or(0, |report| report.landlock_abi),
        lacks: report.map_or(Vec::new(), |report| report.lacks.clone()),
    }
}

impl PrivilegesStatus {
    /// For a person.
    pub(crate) fn line(&self) -> String {
        let kept: Vec<String> = self
            .capabilities
            .iter()
            .map(|(thread, names)| format!("{thread}: {}", names.join(" ")))
            .collect();
        let capabilities = match (&*self.sandbox, kept.is_empty()) {
            ("off", _) => return "privileges: all are kept (--sandbox off)".to_owned(),
            (_, true) => "none".to_owned(),
            (_, false) => format!("none ({})", kept.join("; ")),
        };
        let nnp = if self.no_new_privs { ", no_new_privs" } else { "" };
        let calls = self.seccomp_worker_calls.map_or("no seccomp".to_owned(), |calls| {
            let without = if self.unfiltered.is_empty() { "" } else { " (not all threads)" };
            format!("seccomp: workers {calls} calls{without}")
        });
        let files = match self.landlock_abi {
            0 => "no landlock".to_owned(),
            abi => format!("landlock ABI {abi}"),
        };
        format!("privileges: capabilities {capabilities}{nnp}, {calls}, {files}")
    }
}

/// Directories that a daemon writes to: where its control socket is, and its state.
pub(crate) fn written(control: Option<&Path>, state: Option<&Path>) -> Vec<PathBuf> {
    let socket = control.and_then(Path::parent).map(|parent| match parent.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => parent.to_owned(),
    });
    socket.into_iter().chain(state.map(Path::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: what /proc says of threads is read and said right.
    use super::*;

    const WORKER: &str = "Name:\tbeam-worker-0\nUmask:\t0022\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t4\n";
    const DEVICE: &str = "Name:\tbeam-device-0\nCapPrm:\t0000000000003000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn threads_are_summed_up() {
        let threads = [Thread::parse(WORKER), Thread::parse(DEVICE)];
        assert_eq!(
            threads[0],
            Thread { name: "beam-worker-0".into(), permitted: 0, no_new_privs: true, filtered: true }
        );
        let report = confine::Report { worker_calls: Some(60), landlock_abi: 7, lacks: Vec::new() };
        let status = summary(&threads, Some(&report));
        assert_eq!(
            status.line(),
            "privileges: capabilities none (beam-device-0: NET_ADMIN NET_RAW), no_new_privs, seccomp: workers 60 calls, landlock ABI 7"
        );
        let bare = Thread { name: "x".into(), ..Thread::default() };
        let status = summary(&[bare], Some(&confine::Report { worker_calls: None, ..report }));
        assert_eq!(status.line(), "privileges: capabilities none, no seccomp, landlock ABI 7");
        assert_eq!(summary(&threads, None).line(), "privileges: all are kept (--sandbox off)");
    }

    #[test]
    fn directories_that_are_written_to() {
        let written = written(Some(Path::new("beam.sock")), Some(Path::new("/var/lib/beam")));
        assert_eq!(written, [Path::new("."), Path::new("/var/lib/beam")]);
    }
}
