//! Goal: a daemon whose log nobody reads any more still obeys: TERM drains it and it exits 0.
//! Method: a gateway over kernel UDP on loopback; once it is ready the reader of its standard error goes away, so that
//! every further line fails with EPIPE.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn term_is_obeyed_when_nobody_reads_the_log() {
    let beam = env!("CARGO_BIN_EXE_beam");
    let directory = std::env::temp_dir().join(format!("beam-closed-log-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let users = directory.join("users");
    let added = Command::new(beam).args(["user", "add", "alice", "--users"]).arg(&users).output().unwrap();
    assert!(added.status.success());

    let mut daemon = Command::new(beam)
        .args(["serve", "-l", "127.0.0.1:0", "--xdp", "off", "--self-signed", "--allow", "127.0.0.0/8"])
        .arg("--users")
        .arg(&users)
        .arg("--state-dir")
        .arg(&directory)
        .arg("--control")
        .arg(directory.join("beam.sock"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready: ") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the gateway ended before it was ready");
    }
    drop(log);

    let pid = daemon.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(daemon.wait()));
    let status = end.recv_timeout(LIMIT);
    if status.is_err() {
        let _ = Command::new("kill").args(["-KILL", &pid]).status();
    }
    std::fs::remove_dir_all(&directory).unwrap();
    let status = status.expect("the gateway exits after TERM").unwrap();
    assert_eq!(status.code(), Some(0));
}
