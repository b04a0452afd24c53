//! A healthy host, a running beam beside the doctor, and a user who may do nothing.

use crate::pair::{self, LIMIT, Place};
use crate::rig::{self, GATEWAY_V4, Ns};
use crate::{NOBODY, doctor, shell};

const ALL: &str = "-i g0 --listen 198.18.0.1:4433 --peer 198.18.0.2";
/// What needs a privilege to be seen.
const PRIVILEGED: [&str; 2] = ["verifier", "trial-copy"];

#[test]
fn a_healthy_veth_passes_and_is_left_as_it_was() {
    if !rig::root_or_skip("doctor: healthy") {
        return;
    }
    let place = Place::new();
    let state = || {
        let show = ["-c", "ip -d link show g0; ethtool -k g0; ethtool -l g0; ip rule; ip route"];
        place.rig.command(Ns::Gateway, "sh").args(show).output().expect("run sh").stdout
    };
    let before = state();
    let report = doctor(&place, "", &format!("{ALL} --tls-cert {}", place.pki.server_cert.display()));
    assert!(before == state(), "the doctor changed something");
    for check in [
        "kernel",
        "bpf-jit",
        "verifier",
        "capabilities",
        "memlock",
        "listen",
        "route",
        "neighbour",
        "certificate",
        "link",
        "master",
        "mtu",
        "xdp-features",
        "xdp-program",
        "trial-copy",
        "channels",
        "lro",
        "vlan",
        "ssh",
    ] {
        assert_eq!(report.outcome(check), "PASS", "{check}: {:#}", report.json);
    }
    assert!(report.seen("trial-copy").contains("bound and read back, copy"), "{:#}", report.json);
    assert_eq!(report.with("FAIL"), Vec::<&str>::new());
    // The rest is about hosts, or about hardware that a veth isn't.
    for check in report.with("WARN") {
        assert!(["clock", "simd", "governor", "isolation"].contains(&check), "{:#}", report.of(check));
    }
    for check in ["rings", "irq", "numa", "trial-zero-copy"] {
        assert_eq!(report.outcome(check), "SKIP", "{:#}", report.of(check));
    }
    let said =
        place.rig.command(Ns::Gateway, crate::BEAM).args(["doctor", "link", "-i", "g0"]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("PASS  link g0: up, with a carrier; driver veth, 2 queue(s)"), "{said}");
    assert_eq!(lines[1], "1 passed, 0 warned, 0 failed, 0 not judged");
}

#[test]
fn a_running_beam_is_recognised_and_not_disturbed() {
    if !rig::root_or_skip("doctor: beside a running beam") {
        return;
    }
    let place = Place::new();
    let mut gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let report = doctor(&place, "", ALL);
    assert_eq!(report.with("FAIL"), Vec::<&str>::new(), "{:#}", report.json);
    let by = format!("beam (pid {})", gateway.process.pid());
    let told = report.seen("xdp-program");
    assert!(told.starts_with("beam's own: ") && told.ends_with(&format!("held by {by}")), "{told}");
    assert_eq!(report.seen("listen"), format!("UDP 198.18.0.1:4433 is served by {by}"));
    let told = report.seen("trial-copy");
    assert!(told.starts_with("not tried: XDP program beam_steer is there"), "{told}");
    // Whoever may not see whose program it is doesn't call it a failure.
    let report = doctor(&place, NOBODY, "xdp-program -i g0");
    assert_eq!(report.outcome("xdp-program"), "WARN", "{:#}", report.json);
    let status = gateway.status();
    assert_eq!(place.rig.xdp_hook(Ns::Gateway, "g0"), Some("native"), "{status:#}");
    assert_eq!(status["ready"], true, "{status:#}");
    for worker in pair::workers(&status) {
        assert_eq!(worker["xdp_mode"], "native-copy", "{status:#}");
    }
    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
}

#[test]
fn without_privilege_it_says_what_it_could_not_see() {
    if !rig::root_or_skip("doctor: without privilege") {
        return;
    }
    let place = Place::new();
    shell(&place, &format!("chmod 755 {}", place.rig.directory().display()));
    let report = doctor(&place, NOBODY, "-i g0");
    assert_eq!(report.with("FAIL"), Vec::<&str>::new(), "{:#}", report.json);
    for check in PRIVILEGED {
        assert_eq!(report.outcome(check), "SKIP", "{check}: {:#}", report.json);
        let seen = report.seen(check);
        assert!(seen.starts_with("not seen: needs CAP_NET_ADMIN, CAP_BPF"), "{check}: {seen}");
    }
    for check in ["kernel", "link", "master", "mtu", "xdp-features", "xdp-program", "channels"] {
        assert_eq!(report.outcome(check), "PASS", "{check}: {:#}", report.json);
    }
    assert_eq!(report.outcome("capabilities"), "WARN", "beam would step down");
    let strict = doctor(&place, NOBODY, "capabilities -i g0 --strict");
    assert_eq!(strict.exit, Some(4));
    let insists = doctor(&place, NOBODY, "capabilities -i g0 --xdp native");
    assert_eq!(insists.outcome("capabilities"), "FAIL");
    // The command that it prints, run as root, and seen again as nobody.
    let command = insists.commands("capabilities")[0].to_owned();
    shell(&place, &command);
    let report = doctor(&place, NOBODY, "capabilities verifier trial-copy memlock -i g0 --xdp native");
    assert_eq!(report.with("PASS").len(), 4, "{:#}", report.json);
}
