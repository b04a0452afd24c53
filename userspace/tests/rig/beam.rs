//! The binary under test, run in a namespace: `serve` and `connect` with a control socket of their own, ready on return.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::{Ns, Proc, Rig};

/// The binary under test: cargo's, or `BEAM_BIN` where the test was carried elsewhere.
pub(crate) fn binary() -> OsString {
    std::env::var_os("BEAM_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_beam").into())
}

/// A copy in `directory` that anybody may run. Another process writes it: what other tests fork while this one had it open
/// for writing would hold it open, too, and until they exec nobody could run it (ETXTBSY).
pub(crate) fn copied_to(directory: &Path) -> PathBuf {
    let copy = directory.join("beam");
    if !copy.exists() {
        let copied = Command::new("install").args(["-m", "755"]).arg(binary()).arg(&copy).status();
        assert!(copied.expect("run install").success(), "install {}", copy.display());
    }
    copy
}

const READY_LIMIT: Duration = Duration::from_secs(20);

/// A running `beam serve` or `beam connect`.
#[derive(Debug)]
pub(crate) struct Beam {
    pub(crate) process: Proc,
    pub(crate) control: PathBuf,
}

impl Beam {
    /// Starts `beam ARGS --control DIR/NAME.sock` in the namespace and waits until it says that it is ready.
    pub(crate) fn start(rig: &Rig, ns: Ns, name: &str, args: &[&str]) -> Self {
        let started = Self::launch(rig, ns, name, args);
        started.wait_until_ready();
        started
    }

    /// As [`Beam::start`] without the wait, for tests of what happens before ready, or instead of it.
    pub(crate) fn launch(rig: &Rig, ns: Ns, name: &str, args: &[&str]) -> Self {
        let control = rig.directory().join(format!("{name}.sock"));
        let mut command = rig.command(ns, binary());
        command.args(args).arg("--control").arg(&control);
        Self { process: Proc::spawn(name, &mut command), control }
    }

    /// Waits for the `ready` line, and holds the status verb to the same word.
    pub(crate) fn wait_until_ready(&self) {
        self.process.wait_for_line("ready: ", READY_LIMIT);
        let status = self.status();
        assert_eq!(status["ready"], true, "the log said ready, the status verb did not: {status:#}");
    }

    /// Waits until it is ready, or over: the exit status.
    pub(crate) fn ready_or_ended(&mut self) -> Option<ExitStatus> {
        self.process.line_or_end("ready: ", READY_LIMIT)
    }

    /// One `beam.status.v1` object.
    pub(crate) fn status(&self) -> serde_json::Value {
        read_status(&self.control)
    }

    /// The `sha256:...` fingerprint that `--self-signed` prints, as `--pin` takes it.
    pub(crate) fn fingerprint(&self) -> String {
        let line = self.process.wait_for_line("fingerprint sha256:", READY_LIMIT);
        let start = line.find("sha256:").expect("the pattern just matched");
        line[start..].split_whitespace().next().expect("a word follows").to_owned()
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let out = Command::new(binary()).args(["status", "--control"]).arg(&self.control).output();
            // A daemon that is gone says nothing, and its log follows anyway.
            let said = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
            eprintln!("--- status of {}:\n{said}---", self.control.display());
        }
    }
}

/// Runs `beam status -j --control PATH`; panics with its complaint when it fails or answers another schema.
pub(crate) fn read_status(control: &Path) -> serde_json::Value {
    let out = Command::new(binary())
        .args(["status", "-j", "--control"])
        .arg(control)
        .output()
        .expect("run beam status");
    let complaint = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "beam status --control {control:?}: {}: {complaint}", out.status);
    let status: serde_json::Value =
        serde_json::from_slice(&out.stdout).expect("beam status -j prints one JSON object");
    assert_eq!(status["schema"], "beam.status.v1", "another schema: {status:#}");
    status
}
