//! Whoever asks: for so many packets, and no more; too slowly; for what isn't theirs.

use crate::{
    Capture, beam, count, file,
    pair::{FORWARD_PORT, Place, number, path, pattern_sha256, settled, until},
    rig::{Beam, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, binary, root_or_skip},
    tshark,
};
use rustix::process::Signal;
use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

/// The ring of each of the gateway's two workers holds 4 MiB, the socket and the pass some more: this is several times that.
const BODY_BYTES: u64 = 48 << 20;

#[test]
fn callers_get_what_they_asked_for_and_hold_nobody_up() {
    if !root_or_skip("callers_get_what_they_asked_for_and_hold_nobody_up") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let _client = place.client(GATEWAY_V4, &http.address().to_string(), &["--xdp", "native", "-i", "c0"]);
    exactly_so_many(&place, &gateway);
    a_stalled_reader_only_misses(&place, &gateway);
    secrets_are_for_root(&place, &gateway);
    a_reader_that_is_killed_leaves_nothing(&place, &gateway);
}

fn fetch(place: &Place, bytes: u64) {
    let (got, digest) = place.curl(&[&format!("http://127.0.0.1:{FORWARD_PORT}/{bytes}")]);
    assert_eq!((got, digest), (bytes, pattern_sha256(bytes)));
}

fn exactly_so_many(place: &Place, gateway: &Beam) {
    let mut capture = Capture::start(place, gateway, "seven", &["-c", "7", "-i", "g0"]);
    let control = path(&gateway.control);
    let mut lines = place.rig.command(Ns::Gateway, binary());
    lines.args(["capture", "-c", "5", "--point", "tx", "--control", &control]).stdout(Stdio::piped());
    let lines = lines.stderr(Stdio::null()).spawn().unwrap();
    until("both are there", || gateway.status(), |status| status["captures"].as_array().unwrap().len() == 2);
    fetch(place, 1 << 20);
    let (file, said) = capture.ended();
    assert_eq!((said.captured, count(&file, "frame")), (7, 7), "{said:?}");
    let lines = String::from_utf8(lines.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(lines.lines().count(), 5, "{lines}");
    for line in lines.lines() {
        assert!(line.contains(" tx g0/") && line.contains(" 198.18.0.1:4433 > 198.18.0.2:"), "{line}");
    }
    let (code, said) = beam(place, &["capture", "-i", "nope0", "--control", &control]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no interface nope0 here; there are: g0, udp, inner"), "{said}");
}

/// The worker goes on, the tunnel delivers every byte, and what was seen is what was written and what was missed.
fn a_stalled_reader_only_misses(place: &Place, gateway: &Beam) {
    // The tunnel's own buffers are grown by then.
    fetch(place, BODY_BYTES);
    let before = settled(gateway);
    let memory_before = resident_bytes(gateway);
    let stalled = Capture::start(place, gateway, "stalled", &["--point", "tx"]);
    stalled.process.signal(Signal::STOP);
    fetch(place, BODY_BYTES);
    let after = settled(gateway);
    let of_it = &after["captures"][0];
    assert!(number(of_it, "missed") > 0, "{of_it}");
    // The sum in src/capture/mod.rs for two workers, without --keylog and --qlog; and 4 MiB for what isn't the capture's.
    let grown = resident_bytes(gateway).saturating_sub(memory_before);
    assert!(grown < (3 * 2 * 4 + 4) << 20, "{grown} bytes more");
    stalled.process.signal(Signal::CONT);
    let (file, said) = stalled.stop();
    let sent = crate::moved(&after).1 - crate::moved(&before).1;
    assert_eq!(said.captured + said.missed, sent, "{said:?}");
    assert_eq!(count(&file, "frame"), said.captured);
    assert!(said.said.contains(&format!("{} packets missed: tx {}", said.missed, said.missed)), "{said:?}");
    let ended = |status: &serde_json::Value| status["captures"].as_array().unwrap().is_empty();
    until("it is over", || gateway.status(), ended);
}

fn resident_bytes(of: &Beam) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", of.process.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn secrets_are_for_root(place: &Place, gateway: &Beam) {
    let control = path(&gateway.control);
    // As if the socket's group had a member: the socket lets him in, the daemon knows who he is.
    fs::set_permissions(&gateway.control, fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(place.rig.directory(), fs::Permissions::from_mode(0o777)).unwrap();
    let as_nobody = |more: &[&str]| {
        let mut command = place.rig.command(Ns::Gateway, "setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(binary());
        let out = command.args(["capture", "--control", &control]).args(more).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, said) = as_nobody(&["--keylog", "-w", &file(place, "stolen.pcapng")]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("--keylog is for root and the daemon's own user (uid 0), but you are uid 65534"),
        "{said}"
    );
    assert!(!fs::exists(file(place, "stolen.pcapng")).unwrap(), "not even a file");

    // One at a time, and none where it is forbidden.
    let first = Capture::start(place, gateway, "first", &["--keylog"]);
    let (code, said) = beam(place, &["capture", "--keylog", "-w", "/dev/null", "--control", &control]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another capture has --keylog"), "{said}");
    let (file, _) = first.stop();
    assert_eq!(tshark(&file, &["-Y", "tls.handshake.type == 20"]).len(), 0, "no handshake began");
}

fn a_reader_that_is_killed_leaves_nothing(place: &Place, gateway: &Beam) {
    let mut killed = Capture::start(place, gateway, "killed", &["--keylog"]);
    killed.process.kill();
    let gone = |status: &serde_json::Value| status["captures"].as_array().unwrap().is_empty();
    until("the daemon notices", || gateway.status(), gone);
    fetch(place, 1 << 20);
}
