//! Goal: what bypasses tcpdump is seen, exactly: a stranger (tshark) decodes QUIC from it and, with the secrets, HTTP/3;
//! its numbers are beam's own; drops have their reasons; whoever reads slowly misses packets and holds nobody up; secrets
//! are for root.
//! Method: real namespaces, curl and ping as users, `beam capture` at both ends, tshark as the reader.
//!
//! [`Capture`] runs the verb and counts what tshark sees; the tests are in [`wire`], [`drops`] and [`callers`].
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod callers;
mod drops;
#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;
mod wire;

use pair::{LIMIT, Place, path};
use rig::{Beam, Ns, Proc, binary};
use rustix::process::Signal;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A running `beam capture`.
#[derive(Debug)]
struct Capture {
    process: Proc,
    file: PathBuf,
}

/// What `beam capture` said at its end.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    captured: u64,
    missed: u64,
    said: String,
}

impl Capture {
    /// Begins, and is listening on return. It needs no namespace: the control socket is a file.
    fn start(place: &Place, of: &Beam, name: &str, args: &[&str]) -> Self {
        let file = place.rig.directory().join(format!("{name}.pcapng"));
        let mut command = Command::new(binary());
        command.args(["capture", "--control"]).arg(&of.control).arg("-w").arg(&file).args(args);
        let process = Proc::spawn(name, command.stdin(Stdio::null()));
        process.wait_for_line("beam: listening at the ", LIMIT);
        Self { process, file }
    }

    /// Ends it as ctrl-C does.
    fn stop(mut self) -> (PathBuf, Summary) {
        self.process.signal(Signal::INT);
        self.ended()
    }

    /// Waits until it ends by itself.
    fn ended(&mut self) -> (PathBuf, Summary) {
        let status = self.process.wait(LIMIT);
        let said = self.process.stderr();
        assert!(status.success(), "{status}: {said}");
        let number = |what: &str| -> u64 {
            let line =
                said.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {said}"));
            line.split_whitespace().next().unwrap().parse().unwrap_or_else(|e| panic!("{line}: {e}"))
        };
        let (captured, missed) = (number("packets captured"), number("packets missed"));
        (self.file.clone(), Summary { captured, missed, said })
    }
}

/// Runs tshark over a file: its lines.
fn tshark(file: &Path, args: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    // No settings of whoever runs the tests; the gateway's port is QUIC's.
    command
        .env("HOME", file.parent().unwrap())
        .args([
            "-d",
            "udp.port==4433,quic",
            "-o",
            "ip.check_checksum:TRUE",
            "-o",
            "udp.check_checksum:TRUE",
            "-r",
        ])
        .arg(file)
        .args(args);
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("tshark: {e}; scripts/setup"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "tshark {args:?}: {said}");
    assert!(!said.contains("malformed") && !said.contains("cut short"), "tshark {args:?}: {said}");
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// How many packets a display filter shows.
fn count(file: &Path, filter: &str) -> u64 {
    tshark(file, &["-Y", filter]).len() as u64
}

/// Packets in the direction that the flags of their blocks tell: 1 in, 2 out.
fn directed(file: &Path, direction: u64) -> u64 {
    count(file, &format!("frame.packet_flags_direction == {direction}"))
}

/// The daemon's counters of datagrams, in and out, on every path.
fn moved(status: &serde_json::Value) -> (u64, u64) {
    let sum = |names: &[&str]| -> u64 { names.iter().map(|name| pair::over_workers(status, name)).sum() };
    (sum(&["xsk_rx_frames", "kernel_rx_packets"]), sum(&["xsk_tx_frames", "kernel_tx_packets"]))
}

/// Where files of the rig's own go.
fn file(place: &Place, name: &str) -> String {
    path(&place.rig.directory().join(name))
}

/// Runs `beam` to its end: whether it went well, and what it said.
fn beam(place: &Place, args: &[&str]) -> (Option<i32>, String) {
    let mut command = place.rig.command(Ns::Gateway, binary());
    let out = command.args(args).output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8_lossy(&said).into_owned())
}
