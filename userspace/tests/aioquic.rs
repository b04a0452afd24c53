//! Goal: a client that nobody here wrote gets what the standards promise: CONNECT with a token and with a certificate,
//! 10 MB each way, and the right answer to everything that must be refused.
//! Method: aioquic runs all its cases against a gateway over AF_XDP; each case judges itself and prints what it saw, and
//! the origin's and the gateway's own counts must agree with the client's.

mod pair;
mod rig;

use std::process::Stdio;
use std::{io::Read as _, time::Duration};

use pair::{Place, TUNNEL_PORT, number, path, settled, words};
use rig::{EchoServer, GATEWAY_V4, Ns, ORIGIN_V4, Proc, Rig, python, root_or_skip};
use serde_json::Value;

/// Sixteen cases, of which each may take 30 s before it gives up.
const LIMIT: Duration = Duration::from_secs(240);
/// What the cases that transfer send, and get back, together: two of 10 MB and one of 100 kB.
const ECHOED_BYTES: u64 = 20_100_000;

#[test]
fn a_client_that_nobody_here_wrote() {
    if !root_or_skip("a_client_that_nobody_here_wrote") {
        return;
    }
    let python = python().expect("scripts/venv makes a Python with aioquic");
    let place = Place::new();
    let origin = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let more = ["-i", "g0", "--xdp", "native", "--client-ca", &path(&place.pki.ca), "--allow", "*"];
    let gateway = place.gateway(GATEWAY_V4, &more);

    let script = rig::checkout().join("userspace/tests/python/aioquic_connect.py");
    let target = origin.address().to_string();
    let args: Vec<String> = [
        path(&script),
        "--host".into(),
        GATEWAY_V4.to_string(),
        "--port".into(),
        TUNNEL_PORT.to_string(),
        "--ca".into(),
        path(&place.pki.ca),
        "--token-file".into(),
        path(&place.token),
        "--cert".into(),
        path(&place.pki.client_cert),
        "--key".into(),
        path(&place.pki.client_key),
        "--stranger-cert".into(),
        path(&place.pki.stranger_cert),
        "--stranger-key".into(),
        path(&place.pki.stranger_key),
        "--target".into(),
        target,
        "--denied".into(),
        "198.18.0.2:22".into(),
        "--refused".into(),
        format!("{ORIGIN_V4}:9"),
        "--case".into(),
        "all".into(),
    ]
    .into();
    let cases = run(&place.rig, &path(&python), &words(&args));

    for case in &cases {
        assert_eq!(case["ok"], true, "{case:#}");
    }
    let sum = |name: &str| cases.iter().map(|case| number(case, name)).sum::<u64>();
    assert_eq!((sum("bytes_up"), sum("bytes_down")), (ECHOED_BYTES, ECHOED_BYTES));
    assert_eq!(origin.echoed_bytes(), ECHOED_BYTES);
    let status = settled(&gateway);
    assert_eq!(number(&status["counters"], "bytes_to_sockets"), ECHOED_BYTES);
    assert_eq!(number(&status["counters"], "bytes_from_sockets"), ECHOED_BYTES);
    assert!(number(&status, "xsk_tx_frames") > ECHOED_BYTES / 1500, "the bytes travelled by AF_XDP");
    assert_eq!(status["conservation"]["holds"], true, "{status:#}");
}

/// Runs the script in the client's namespace; its JSON lines.
fn run(rig: &Rig, python: &str, args: &[&str]) -> Vec<Value> {
    let mut command = rig.command(Ns::Client, python);
    command.args(args).stdout(Stdio::piped());
    let mut script = Proc::spawn("aioquic", &mut command);
    let mut printed = String::new();
    script.stdout().read_to_string(&mut printed).expect("the script prints UTF-8");
    script.wait(LIMIT);
    let cases: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    assert!(cases.len() >= 16, "{} cases ran: {printed}\n{}", cases.len(), script.stderr());
    cases
}
