//! A child process under guard: its standard error is kept and can be waited on line by line, and it dies with the guard.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// A limit as this machine needs it: an emulated one (`BEAM_RIG_SLOW=N`) takes N times as long for everything.
pub(crate) fn patiently(limit: Duration) -> Duration {
    static SLOWNESS: OnceLock<u32> = OnceLock::new();
    let slowness = SLOWNESS.get_or_init(|| {
        let text = std::env::var("BEAM_RIG_SLOW").unwrap_or_else(|_| "1".into());
        text.parse().expect("BEAM_RIG_SLOW is a whole number")
    });
    limit * *slowness
}

/// What the child has written so far. `ended` rises at end of file, so that a waiter never waits for a dead child.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("a log reader panicked")
    }

    fn fill(&self, from: impl Read) {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { break };
            self.lock().lines.push(String::from_utf8_lossy(&line).into_owned());
            self.changed.notify_all();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

/// A child of this test: killed, by its own pid, and reaped when the guard drops.
#[derive(Debug)]
pub(crate) struct Proc {
    name: String,
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Proc {
    /// Starts the command with its standard error piped into the guard's log.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start {name} ({command:?}): {e}"));
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Log::default());
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || log.fill(stderr)
        });
        Self { name: name.into(), child, log, reader: Some(reader), status: None }
    }

    /// The process id of the program itself.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child's standard input, once, where the command piped it.
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("standard input was piped and not taken before")
    }

    /// The child's standard output, once, where the command piped it.
    pub(crate) fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("standard output was piped and not taken before")
    }

    /// Everything on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.log.lock().lines.join("\n")
    }

    /// Waits for a line that contains `pattern` and returns it; panics with the log when the child ends or time runs out.
    pub(crate) fn wait_for_line(&self, pattern: &str, limit: Duration) -> String {
        let deadline = Instant::now() + patiently(limit);
        let mut state = self.log.lock();
        let mut seen_count = 0;
        loop {
            if let Some(line) = state.lines[seen_count..].iter().find(|line| line.contains(pattern)) {
                return line.clone();
            }
            seen_count = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                let why = if state.ended { "closed its standard error" } else { "stayed silent" };
                let all = state.lines.join("\n");
                drop(state);
                panic!(
                    "{} {why} without a line with {pattern:?} (limit {limit:?}); its log:\n{all}",
                    self.name
                );
            }
            state = self.log.changed.wait_timeout(state, left).expect("a log reader panicked").0;
        }
    }

    /// Waits for a line that contains `pattern`, or for the child's end, and says which: `None` is the line.
    pub(crate) fn line_or_end(&mut self, pattern: &str, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patiently(limit);
        let mut state = self.log.lock();
        loop {
            if state.lines.iter().any(|line| line.contains(pattern)) {
                return None;
            }
            if state.ended {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} neither said {pattern:?} nor ended within {limit:?}", self.name);
            state = self.log.changed.wait_timeout(state, left).expect("a log reader panicked").0;
        }
        drop(state);
        Some(self.wait(limit))
    }

    /// Sends one signal to this child alone.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            kill_process(Pid::from_child(&self.child), signal)
                .unwrap_or_else(|e| panic!("signal {}: {e}", self.name));
        }
    }

    /// Waits for the child to end by itself; panics with its log after `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        let ended = ends_within(&self.child, limit);
        assert!(ended, "{} did not end within {limit:?}; its log:\n{}", self.name, self.stderr());
        self.reap()
    }

    /// TERM, then waits: how an operator stops beam.
    pub(crate) fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// KILL, then reaps: how the out-of-memory killer stops beam.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.reap()
    }

    fn reap(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap_or_else(|e| panic!("reap {}: {e}", self.name));
        self.status = Some(status);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        status
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- standard error of {}:\n{}\n---", self.name, self.stderr());
        }
    }
}

/// Sleeps on the child's pidfd, so that the end of the child wakes the test at once.
fn ends_within(child: &Child, limit: Duration) -> bool {
    let pidfd =
        pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("open a pidfd of an unreaped child");
    let deadline = Instant::now() + patiently(limit);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a test's limit fits a timespec");
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready_count) => return ready_count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll a pidfd: {error}"),
        }
    }
}
