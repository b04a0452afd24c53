//! What a thread may do, taken away when it has what it needs.
//!
//! ```text
//!   prepare(plan)          once, before the first thread: no_new_privs, the handler of forbidden calls, what the kernel has
//!        │
//!   enter(room)            each thread, for itself: capabilities ─► landlock ─► seccomp. There is no way back.
//!        │
//!   report()               for `beam status` and the log
//! ```
//! All three are properties of a thread that its children inherit, so a thread that enters confines whatever it starts.
//!
//! | room | capabilities | system calls | files |
//! |---|---|---|---|
//! | [`Room::Worker`] | none | [`calls::WORKER`] | none can be opened |
//! | [`Room::Control`] | none | [`calls::CONTROL`] | what the [`Plan`] names |
//! | [`Room::Device`], [`Room::Broker`] | the few that the caller names | as `Control` | as `Control` |
//! | [`Room::Hook`] | none | all but [`calls::HOOK_REFUSED`] | all, but only the program and system directories to run |
//!
//! **Why threads that keep capabilities, and no helper process.** A helper that opens AF_XDP sockets and passes descriptors
//! can't do the one thing that has to be done: `XDP_UMEM_REG` pins pages of the *caller's* address space, so a helper
//! could register only memory of its own. It would have to share that memory with the daemon from the start (a memfd for
//! every queue that might ever come), and give up the frames that are there. So the queue that `ethtool -L` brings is
//! opened by a thread of the daemon, which keeps what `socket(AF_XDP)` and pinned memory ask for, and nothing else.
//! What that is worth: a worker that is taken over by a packet finds no call that opens a file, runs a program or sends a
//! netlink request that counts, and its credentials are empty. It does share memory with the threads that keep some:
//! whoever can write all of the process's memory can make those threads work for him, within *their* filters. Where
//! no queue can come (`--queues LIST`, `--xdp off`) and no IP is carried, there is no such thread.

pub mod calls;
mod capabilities;
mod files;
mod filter;
mod names;
mod pages;
mod sys;
mod trap;

pub use capabilities::{Capabilities, set_names};
pub use files::Files;
pub use pages::{release_program, release_program_again};

use filter::Programs;
use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// What a thread is for, and so what it may do. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Packets and flows.
    Worker,
    /// Everything else.
    Control,
    /// Opens sockets on new NIC queues; follows routes and neighbours.
    Device(Capabilities),
    /// Does what workers may not: addresses and routes of the tunnel, ports below 1024.
    Broker(Capabilities),
    /// Runs the operator's program.
    Hook,
}

impl Room {
    fn keeps(self) -> Capabilities {
        match self {
            Self::Device(kept) | Self::Broker(kept) => kept,
            Self::Worker | Self::Control | Self::Hook => Capabilities::empty(),
        }
    }
}

/// What the process will need.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Files that stay within reach.
    pub files: Files,
    /// The program that [`Room::Hook`] runs.
    pub hook: Option<PathBuf>,
}

/// How far the process is confined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// System calls that workers may make; `None` where the kernel has no seccomp filters.
    pub worker_calls: Option<usize>,
    /// The kernel's landlock ABI, as far as it is known here; 0 where there is none.
    pub landlock_abi: i32,
    /// What is missing, in words.
    pub lacks: Vec<String>,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("can't confine a thread: {step}: {why}")]
pub struct ConfineError {
    step: &'static str,
    why: String,
}

impl ConfineError {
    fn new(step: &'static str, why: impl fmt::Display) -> Self {
        Self { step, why: why.to_string() }
    }
}

struct Prepared {
    plan: Plan,
    programs: Option<Programs>,
    landlock: files::Level,
    report: Report,
}

static PREPARED: OnceLock<Prepared> = OnceLock::new();
/// A thread that couldn't tell its starter has failed to enter.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Once, before there are threads: from here on nothing that this process runs gains a privilege.
///
/// # Errors
/// Where the kernel refuses what every kernel that this runs on has. What some lack is in the [`Report`].
pub fn prepare(plan: Plan) -> Result<Report, ConfineError> {
    rustix::thread::set_no_new_privs(true).map_err(|error| ConfineError::new("no_new_privs", error))?;
    let mut lacks = Vec::new();
    let programs = if filter::is_supported() {
        trap::explain_forbidden_calls().map_err(|error| ConfineError::new("the SIGSYS handler", error))?;
        Some(Programs::compile().map_err(|error| ConfineError::new("compiling the filters", error))?)
    } else {
        lacks.push("seccomp filters (CONFIG_SECCOMP_FILTER): system calls are not restricted".to_owned());
        None
    };
    let landlock = files::level();
    if landlock.abi == 0 {
        lacks.push(format!("landlock ({}): files are not restricted", landlock.why_not));
    }
    let report = Report {
        worker_calls: programs.as_ref().map(|_| calls::worker_count()),
        landlock_abi: landlock.abi,
        lacks,
    };
    // A second call changes nothing: the first plan counts.
    let _ = PREPARED.set(Prepared { plan, programs, landlock, report: report.clone() });
    Ok(report)
}

/// Confines the calling thread for good. Does nothing in a process that wasn't prepared (`--sandbox off`).
///
/// # Errors
/// With the step that the kernel refused. The thread may be half confined then.
pub fn enter(room: Room) -> Result<(), ConfineError> {
    let Some(prepared) = PREPARED.get() else { return Ok(()) };
    // In this order: each step is forbidden by the next.
    capabilities::keep_only(room.keeps()).map_err(|error| ConfineError::new("capabilities", error))?;
    prepared.landlock.restrict(&prepared.plan, room).map_err(|error| ConfineError::new("landlock", error))?;
    if let Some(programs) = &prepared.programs {
        programs.apply(room).map_err(|error| ConfineError::new("seccomp", error))?;
    }
    Ok(())
}

/// As [`enter`], for threads that have nobody to tell. Where it is false, the log says why, and [`has_failed`].
pub fn enter_or_note(room: Room) -> bool {
    let entered = enter(room);
    if let Err(error) = &entered {
        tracing::error!("{error}");
        FAILED.store(true, Ordering::SeqCst);
    }
    entered.is_ok()
}

/// A thread couldn't be confined; the log says why.
#[must_use]
pub fn has_failed() -> bool {
    FAILED.load(Ordering::SeqCst)
}

/// Runs `work` on a thread of that room; threads that `work` starts are of the same.
///
/// # Errors
/// If there is no thread, or it can't be confined.
pub fn within<T: Send>(room: Room, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let confined = move || enter(room).map(|()| work());
        let thread = std::thread::Builder::new().name("beam-starter".into()).spawn_scoped(scope, confined)?;
        match thread.join() {
            Ok(done) => done.map_err(io::Error::other),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What [`prepare`] found; `None` where it wasn't called.
#[must_use]
pub fn report() -> Option<&'static Report> {
    PREPARED.get().map(|prepared| &prepared.report)
}
