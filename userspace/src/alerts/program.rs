//! `--alert-exec PROGRAM`: run for each notice, whose facts are in its environment (`BEAM_ALERT_*`).
//!
//! No shell, no arguments, nothing of the daemon's own environment but PATH; one at a time, and for at most
//! [`RUN_LIMIT`], then it and what it started are killed. A thread of its own, `beam-alert-exec`, which is the only one of
//! a daemon that starts programs: a sandbox must leave it fork, exec and wait, and take them from all others. What it
//! starts inherits the sandbox and the user of the daemon.

use super::{
    notice::{Notice, Sender},
    tally::{Fate, Tally},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a program may run.
pub(super) const RUN_LIMIT: Duration = Duration::from_secs(10);

/// What runs it.
pub(super) struct Program {
    path: PathBuf,
    sender: Sender,
    tally: Arc<Tally>,
    limit: Duration,
}

/// An absolute path to a file that may be executed, and that nobody but its owner and root may change.
pub(crate) fn check(path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    let file = fs::canonicalize(path)
        .map_err(|error| format!("--alert-exec {shown}: {error}; needed: the path of an executable file"))?;
    let metadata = fs::metadata(&file).map_err(|error| format!("--alert-exec {shown}: {error}"))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_file() {
        return Err(format!("--alert-exec {shown} is no file; needed: the path of an executable file"));
    }
    if mode & 0o111 == 0 {
        return Err(format!(
            "--alert-exec {shown} has mode {mode:04o}: nobody may run it.\n  mend it with: chmod +x {shown}"
        ));
    }
    let us = rustix::process::geteuid().as_raw();
    if mode & 0o022 != 0 || ![0, us].contains(&metadata.uid()) {
        return Err(format!(
            "--alert-exec {shown} has mode {mode:04o} and owner {}: others may change what beam runs.\n  mend it with: \
             chown root {shown}; chmod go-w {shown}",
            metadata.uid()
        ));
    }
    Ok(file)
}

impl Program {
    pub(super) fn new(path: PathBuf, sender: Sender, tally: Arc<Tally>) -> Self {
        Self { path, sender, tally, limit: RUN_LIMIT }
    }

    /// Runs it to its end.
    pub(super) fn run(&self, notice: &Notice) {
        let shown = self.path.display();
        let fate = match self.start(notice).and_then(|mut child| finish(&mut child, self.limit)) {
            Ok(Some(status)) if status.success() => Fate::ExecDone,
            Ok(Some(status)) => {
                tracing::warn!("alert program {shown}: {status}, needed is 0");
                Fate::ExecFailed
            }
            Ok(None) => {
                tracing::warn!("alert program {shown}: killed after {} s", self.limit.as_secs_f32());
                Fate::ExecTimedOut
            }
            Err(error) => {
                tracing::warn!("alert program {shown}: {error}");
                Fate::ExecFailed
            }
        };
        self.tally.count(fate);
    }

    fn start(&self, notice: &Notice) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        // The daemon's environment may hold what is nobody's business; without a PATH a script finds nothing.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(notice.variables(&self.sender));
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).current_dir("/").spawn()
    }
}

/// Waits until it ends; `None`: it took too long, and was killed with its group. It is reaped in any case.
fn finish(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let group = Pid::from_child(child);
    let ended = ends_within(group, limit);
    if !matches!(ended, Ok(true)) {
        kill_process_group(group, Signal::KILL).or_else(|_| child.kill().map_err(|_| Errno::SRCH)).ok();
    }
    let status = child.wait()?;
    Ok(ended?.then_some(status))
}

/// Sleeps on the child's pidfd. Not reaped yet, its id is nobody else's.
fn ends_within(pid: Pid, limit: Duration) -> io::Result<bool> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready_count) => return Ok(ready_count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the program gets the facts and nothing else, its failure is counted, and one that hangs is killed with its
    //! children and reaped.
    use super::*;
    use crate::alerts::notice::Moment;

    struct Script(PathBuf);

    impl Script {
        fn new(name: &str, text: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("beam-alert-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("text"), format!("#!/bin/sh\n{text}\n")).unwrap();
            // Never open for writing in this process: a child that another test is starting would hold it open until it is
            // another program, and what somebody may write can't be run (ETXTBSY).
            let made = Command::new("install").args(["-m", "755", "text", "hook"]).current_dir(&dir).status();
            assert!(made.unwrap().success());
            Self(dir)
        }

        fn path(&self) -> PathBuf {
            self.0.join("hook")
        }

        fn run(&self, limit: Duration) -> Vec<String> {
            let tally = Arc::new(Tally::default());
            let sender = Sender::new("client", "https://gw.example:443");
            let mut program = Program::new(check(&self.path()).unwrap(), sender, tally.clone());
            program.limit = limit;
            let since = Moment::from_unix_s(7);
            let rule = "drops{rx_checksum} > 0/s".parse().unwrap();
            program.run(&Notice { rule, is_firing: false, value: None, since, at: since });
            tally.counters().into_keys().collect()
        }
    }

    impl Drop for Script {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_facts_are_its_environment() {
        let script = Script::new("facts", r#"env >"${0%/*}/env"; [ $# = 0 ] && [ "$PWD" = / ]"#);
        assert_eq!(script.run(RUN_LIMIT), ["exec_done"]);
        let env = fs::read_to_string(script.0.join("env")).unwrap();
        let has = |line: &str| env.lines().any(|there| there == line);
        assert!(has("BEAM_ALERT_NAME=drops{rx_checksum} > 0/s") && has("BEAM_ALERT_STATE=resolved"), "{env}");
        assert!(has("BEAM_ALERT_VALUE=") && has("BEAM_ALERT_SINCE_UNIX_S=7"), "{env}");
        let others = env.lines().filter(|line| !line.starts_with("BEAM_ALERT_"));
        let names: Vec<_> = others.map(|line| line.split('=').next().unwrap_or_default()).collect();
        assert!(names.iter().all(|name| ["PATH", "PWD", "_", "SHLVL", "OLDPWD"].contains(name)), "{names:?}");
    }

    #[test]
    fn failures_are_counted() {
        assert_eq!(Script::new("fails", "exit 3").run(RUN_LIMIT), ["exec_failed"]);
        let gone = Script::new("gone", "");
        let path = check(&gone.path()).unwrap();
        fs::remove_file(&path).unwrap();
        let tally = Arc::new(Tally::default());
        let program = Program::new(path, Sender::new("client", ""), tally.clone());
        let since = Moment::EPOCH;
        let rule = "cpu > 1".parse().unwrap();
        program.run(&Notice { rule, is_firing: true, value: Some(2.0), since, at: since });
        assert_eq!(tally.counters(), [("exec_failed".to_owned(), 1)].into());
    }

    #[test]
    fn what_hangs_is_killed_with_its_children() {
        let script = Script::new(
            "hangs",
            r#"sleep 1000 & echo $! $$ >"${0%/*}/pids.new"; mv "${0%/*}/pids.new" "${0%/*}/pids"; wait"#,
        );
        // Long enough for a shell to start; on a busy machine not at the first time.
        let pids = (1..=4).find_map(|doubled| {
            assert_eq!(script.run(Duration::from_secs(1 << doubled)), ["exec_timed_out"]);
            fs::read_to_string(script.0.join("pids")).ok()
        });
        let pids = pids.expect("a shell starts within 16 s");
        assert_eq!(pids.split_whitespace().count(), 2, "{pids}");
        for pid in pids.split_whitespace() {
            let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
            // Killed: it dies as soon as it has a CPU. It may be a zombie of whoever inherited it, or reaped.
            match ends_within(pid, Duration::from_secs(60)) {
                Ok(ended) => assert!(ended, "{pid:?} lives on"),
                Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::SRCH.raw_os_error())),
            }
        }
    }

    #[test]
    fn a_program_that_others_may_change_is_refused() {
        let script = Script::new("modes", "");
        let mode = |mode| fs::set_permissions(script.path(), fs::Permissions::from_mode(mode)).unwrap();
        for (bits, says) in [(0o644, "chmod +x"), (0o775, "chmod go-w"), (0o757, "chmod go-w")] {
            mode(bits);
            let error = check(&script.path()).unwrap_err();
            assert!(error.contains(says) && error.contains(&format!("{bits:04o}")), "{error}");
        }
        mode(0o755);
        assert!(check(&script.path()).is_ok());
        assert!(check(&script.0).unwrap_err().contains("is no file"));
        assert!(check(&script.0.join("none")).unwrap_err().contains("No such file"));
    }
}
