//! `beam diag`: whole with a daemon and without one, for its owner only, and without a secret.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::beam;
use crate::pair::{LIMIT, Place, path};
use crate::rig::{self, GATEWAY_V4, Ns};

/// Unpacks the archive by tar(1); the manifest.
fn unpack(archive: &Path, to: &Path) -> Value {
    fs::create_dir_all(to).expect("make a directory");
    let done = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(to).status().expect("run tar");
    assert!(done.success(), "tar can't read {archive:?}");
    let manifest = fs::read(to.join("beam-diag/manifest.json")).expect("read the manifest");
    serde_json::from_slice(&manifest).expect("the manifest is JSON")
}

fn part<'a>(manifest: &'a Value, name: &str) -> &'a Value {
    let parts = manifest["parts"].as_array().expect("a manifest has parts");
    parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("no {name} in {manifest:#}"))
}

#[test]
fn an_archive_with_everything_and_no_secret() {
    if !rig::root_or_skip("an_archive_with_everything_and_no_secret") {
        return;
    }
    let place = Place::new();
    let rig = &place.rig;
    let mut gateway =
        place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0", "--metrics", "127.0.0.1:9100"]);
    // A secret finds its way into the log: somebody took the token for the client's name.
    let kick = format!("kick a-token-of-this-test --control {}", path(&gateway.control));
    beam(rig, &kick, &[]);
    let archive = rig.directory().join("diag.tar");
    let said = beam(rig, &format!("diag -o {} --control {}", path(&archive), path(&gateway.control)), &[]);
    said.is(0, &["wrote ", "read it before you send it"]);
    assert_eq!(fs::metadata(&archive).expect("it is there").permissions().mode() & 0o777, 0o600);

    let inside = rig.directory().join("inside");
    let manifest = unpack(&archive, &inside);
    assert_eq!(manifest["schema"], "beam.diag.v1");
    let read = |name: &str| {
        assert!(part(&manifest, name)["bytes"].as_u64() > Some(0), "{:#}", part(&manifest, name));
        fs::read_to_string(inside.join("beam-diag").join(name)).expect("read a part")
    };
    let json = |name: &str| serde_json::from_str::<Value>(&read(name)).expect("a part is JSON");
    assert_eq!(json("daemon/status.json")["schema"], "beam.status.v1");
    assert_eq!(json("daemon/show-queues.json")["schema"], "beam.show.queues.v1");
    assert_eq!(json("doctor.json")["schema"], "beam.doctor.v1");
    assert!(read("daemon/config.json").contains("--users"));
    assert!(read("daemon/log.txt").contains("ready: gateway on 198.18.0.1:4433"));
    assert!(read("network/dev.txt").contains("g0:"));
    let nics = json("network/nics.json");
    let g0 = nics["nics"].as_array().expect("NICs").iter().find(|nic| nic["interface"] == "g0").expect("g0");
    assert_eq!((&g0["driver"], &g0["channels"]["rx"]), (&"veth".into(), &2.into()), "{g0:#}");
    assert_eq!(g0["xdp_program"]["name"], "beam_steer");
    assert_eq!(g0["features"]["rx-gro"], "off");
    assert!(read("daemon/metrics.txt").contains("# TYPE beam_"));

    // No secret of the set-up: the token, its hash, any line of the keys.
    let bytes = fs::read(&archive).expect("read the archive");
    let holds = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
    assert!(holds("ready: gateway"), "the search finds what is there");
    let users = fs::read_to_string(&place.users).expect("read the users file");
    let hash = users.split("sha256:").nth(1).expect("a hash").split_whitespace().next().expect("a word");
    let key = fs::read_to_string(&place.pki.server_key).expect("read the key");
    let lines = key.lines().filter(|line| !line.starts_with("-----"));
    for secret in lines.chain(["a-token-of-this-test", hash, "PRIVATE KEY"]) {
        assert!(!holds(secret), "the archive holds {secret}");
    }
    assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));

    // With the daemon dead all else is there, and the manifest says why that isn't; standard output will do as well.
    let script = format!("{} diag -o - --control {}", env!("CARGO_BIN_EXE_beam"), path(&gateway.control));
    let piped = rig.directory().join("piped.tar");
    let into = format!("{script} > {} 2> {}", path(&piped), path(&rig.directory().join("said")));
    let done = rig.command(Ns::Gateway, "sh").args(["-c", &into]).status().expect("run sh");
    assert!(done.success(), "{script}: {done}");
    let manifest = unpack(&piped, &rig.directory().join("inside-piped"));
    let why = part(&manifest, "daemon/status.json")["missing"].as_str().expect("it is missing").to_owned();
    assert!(why.contains("no daemon at"), "{why}");
    assert!(part(&manifest, "doctor.json")["bytes"].as_u64() > Some(0));
}

#[test]
fn a_place_that_takes_no_archive_is_named() {
    if !rig::root_or_skip("a_place_that_takes_no_archive_is_named") {
        return;
    }
    let place = Place::new();
    let said = beam(&place.rig, "diag -o /proc/beam/diag.tar --control /nowhere.sock", &[]);
    said.is(1, &["can't write /proc/beam/diag.tar", "-o FILE"]);
}
