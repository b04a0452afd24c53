//! Goal: an alert is what an operator is told in time, everywhere at once, and is over when it is over; a hook that hangs
//! holds nothing up; what ships for Prometheus and Grafana asks for what there is.
//! Method: real daemons in real namespaces; drops are real packets that a gateway drops, latency that of a real tunnel;
//! the webhook is a TLS server of the test, the program a script, Prometheus Debian's. How rules are read and when they
//! fire is proved under a virtual clock, in `src/alerts`.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod monitoring;
#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;
mod webhook;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pair::{FORWARD_PORT, LIMIT, Place, TUNNEL_PORT, path, until};
use rig::{Beam, EchoServer, GATEWAY_V4, Ns, ORIGIN_V4, authority, binary};
use serde_json::Value;

const DROPS: &str = "drops{drop_malformed} > 20/s for 2s";
const LATENCY: &str = "latency_p95 > 1us for 1s";

/// Of the alerts in this state.
fn names(status: &Value, state: &str) -> Vec<String> {
    let alerts = status["alerts"][state].as_array().expect("a list of alerts");
    alerts.iter().map(|alert| alert["alert"].as_str().expect("a name").to_owned()).collect()
}

/// Sends what is no QUIC to the gateway, some hundred packets a second, until told to stop.
fn flood(place: &Place, stop: &AtomicBool) {
    let socket = place.rig.within(Ns::Client, || UdpSocket::bind("198.18.0.2:0").unwrap());
    while !stop.load(Ordering::Relaxed) {
        // A gateway that is gone answers by ICMP: the test says so by itself.
        (0..5).for_each(|_| drop(socket.send_to(b"?", (GATEWAY_V4, TUNNEL_PORT))));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_alert_is_told_everywhere_and_resolves() {
    if !rig::root_or_skip("an_alert_is_told_everywhere_and_resolves") {
        return;
    }
    let place = Place::new();
    let hook = webhook::Server::start(&place);
    let dir = path(place.rig.directory());
    // It hangs while the alert fires, longer than it may.
    let script = format!(
        "#!/bin/sh\nenv | grep ^BEAM_ALERT_ >>{dir}/told\n[ $BEAM_ALERT_STATE = resolved ] || sleep 1000\n"
    );
    let program = place.rig.directory().join("hook");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let url = format!("https://localhost:{}/hook/secret", hook.port);
    let exec = path(&program);
    let flags = [
        "--xdp",
        "off",
        "--cpus",
        "0",
        "--log-format",
        "json",
        "--alert",
        "none",
        "--alert",
        DROPS,
        "--alert",
        LATENCY,
    ];
    let flags = [&flags[..], &["--alert-webhook", &url, "--alert-exec", &exec]].concat();
    let gateway =
        webhook::trusting(&place, &place.certified_args(authority(GATEWAY_V4, TUNNEL_PORT), &flags));
    let status = gateway.status();
    assert_eq!((status["alerts"]["rules"].as_u64(), names(&status, "firing").len()), (Some(2), 0));

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&place, &stop));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let status =
                until("the alert fires", || gateway.status(), |status| names(status, "firing") == [DROPS]);
            let alert = &status["alerts"]["firing"][0];
            assert!(alert["value"].as_f64().unwrap() > 20.0 && alert["threshold"] == 20.0, "{alert:#}");
            assert_eq!(alert["unit"], "per_second");
        }));
        stop.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let text =
        Command::new(binary()).args(["status", "--control", &path(&gateway.control)]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(&format!("FIRING   {DROPS}: ")), "{text}");
    let line = gateway.process.wait_for_line("alert: drops{drop_malformed} is", LIMIT);
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["level"], &event["fields"]["alert"]), (&"WARN".into(), &DROPS.into()), "{event:#}");
    let fired = hook.next();
    assert_eq!(
        (&fired["state"], &fired["alert"], &fired["role"]),
        (&"firing".into(), &DROPS.into(), &"gateway".into())
    );
    assert_eq!(fired["address"], authority(GATEWAY_V4, TUNNEL_PORT));

    // The program still hangs; nothing waits for it.
    until("the alert is over", || gateway.status(), |status| names(status, "firing").is_empty());
    let over = hook.next();
    assert_eq!((&over["state"], &over["since_unix_s"]), (&"resolved".into(), &fired["since_unix_s"]));
    gateway.process.wait_for_line("alert over: drops{drop_malformed} is", LIMIT);

    a_slow_tunnel_is_told(&place, &gateway);
    let fired = hook.next();
    assert_eq!((&fired["alert"], &fired["unit"]), (&LATENCY.into(), &"seconds".into()));

    let notices = |status: &Value| status["alerts"]["notices"].clone();
    let all_told = |notices: &Value| {
        notices["exec_timed_out"] == 2 || notices["exec_done"] == 1 && notices["exec_timed_out"] == 1
    };
    let told = until("the program was run", || notices(&gateway.status()), all_told);
    assert!(told["webhook_sent"].as_u64().unwrap() >= 3 && told["webhook_failed"].is_null(), "{told:#}");
    let facts = fs::read_to_string(place.rig.directory().join("told")).unwrap();
    for fact in [&format!("BEAM_ALERT_NAME={DROPS}"), "BEAM_ALERT_STATE=firing", "BEAM_ALERT_STATE=resolved"]
    {
        assert!(facts.lines().any(|line| line == fact), "{fact} is not in:\n{facts}");
    }
    assert!(!gateway.process.stderr().contains("secret"), "the URL's path is nobody's business");
}

/// A tunnel in use, whose round trips take longer than a microsecond.
fn a_slow_tunnel_is_told(place: &Place, gateway: &Beam) {
    let server = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let _client = place.client(GATEWAY_V4, &server.address().to_string(), &["--xdp", "off"]);
    let to = SocketAddr::from(([127, 0, 0, 1], FORWARD_PORT));
    let mut stream = place.rig.within(Ns::Client, || TcpStream::connect_timeout(&to, LIMIT)).unwrap();
    let mut ask = || {
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        gateway.status()
    };
    let status = until("the latency alert fires", &mut ask, |status| names(status, "firing") == [LATENCY]);
    let seconds = status["alerts"]["firing"][0]["value"].as_f64().unwrap();
    assert!((1e-6..1.0).contains(&seconds), "{seconds}");
}

/// A rule that can't be understood, or a hook that can't be run, ends the start before anything else happened.
#[test]
fn what_is_wrong_with_an_alert_is_a_configuration_error() {
    let cases: [(&[&str], &[&str]); 6] = [
        (
            &["--alert", "latency_p96 > 1ms for 30s"],
            &["`latency_p96 > 1ms for 30s`", "latency_p95", "mode_degraded"],
        ),
        (&["--alert", "memory > many"], &["`many`", "mebibytes", "5MiB", "\"latency_p95 > 1ms for 30s\""]),
        (&["--alert", "drops{no_such} > 1"], &["no_such", "beam show errors"]),
        (&["--alert-webhook", "ftp://alerts.example/"], &["ftp", "https://"]),
        (&["--alert-exec", "/no/such/program"], &["/no/such/program", "executable"]),
        (&["--alert-exec", "/etc/passwd"], &["/etc/passwd", "0644", "chmod +x"]),
    ];
    for (flags, says) in cases {
        let ran = Command::new(binary())
            .args(["connect", "https://127.0.0.1:1", "-D", "0", "--once"])
            .args(flags)
            .output();
        let ran = ran.unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(3), "{flags:?}: {said}");
        assert!(says.iter().all(|word| said.contains(word)), "{flags:?} does not say {says:?}: {said}");
    }
}
