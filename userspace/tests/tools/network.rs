//! The users of an IP network, in a namespace by name: whatever program, ping, iperf3.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::pair::{LIMIT, until};
use crate::rig::{Proc, output};

/// Runs a program; what it printed, on either stream, and whether it was content.
pub(crate) fn run(netns: &str, program: &str, args: &[&str]) -> (bool, String) {
    let out = output("ip", &[&["netns", "exec", netns, program], args].concat());
    let out = out.unwrap_or_else(|why| panic!("{why}"));
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(!said.contains(&format!("exec of \"{program}\" failed")), "{said}install it: scripts/setup");
    (out.status.success(), said)
}

/// What ping says. It waits for five seconds, unless told otherwise: an answer ends that.
pub(crate) fn ping(netns: &str, args: &[&str]) -> String {
    try_ping(netns, args).1
}

fn try_ping(netns: &str, args: &[&str]) -> (bool, String) {
    run(netns, "ping", &[&["-n", "-i", "0.1", "-W", "5"], args].concat())
}

/// Three of three.
pub(crate) fn must_ping(netns: &str, args: &[&str]) {
    let (good, said) = try_ping(netns, &[&["-c", "3"], args].concat());
    let all = "3 packets transmitted, 3 received, 0% packet loss";
    assert!(good && said.contains(all), "ping {args:?}: {said}");
}

/// A server for one client. Between two clients a server closes its listener and opens it anew, and whoever connects just
/// then is reset.
fn iperf3_server(netns: &str) -> Proc {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns, "iperf3", "-s", "-1"]).stdin(Stdio::null());
    let server = Proc::spawn("iperf3", command.stdout(Stdio::null()));
    until("iperf3 listens", || run(netns, "ss", &["-ltn"]).1, |said| said.contains(":5201 "));
    server
}

/// The result of a second of iperf3 to an address that a server in namespace `on` has.
pub(crate) fn iperf3(netns: &str, on: &str, to: &str, args: &[&str]) -> Value {
    let mut server = iperf3_server(on);
    let (_, said) = run(netns, "iperf3", &[&["-J", "-t", "1", "-c", to], args].concat());
    let ended = server.wait(LIMIT);
    let result: Value =
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("iperf3 {to} {args:?}: {e}: {said}"));
    assert_eq!(result.get("error"), None, "iperf3 {to} {args:?}: {result:#}");
    assert!(ended.success(), "iperf3's server: {ended}: {}", server.stderr());
    result["end"].clone()
}
