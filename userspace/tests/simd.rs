//! Goal: which packet protection runs is the operator's choice, is said everywhere, and never changes a byte.
//! Method: 16 MiB by curl over AF_XDP at every level that this CPU has, the other end at another level; what the status
//! counts; a level that this CPU lacks; `beam doctor`.

mod pair;
mod rig;

use std::process::{Command, Output};

use pair::{FORWARD_PORT, Place, number, pattern_sha256, settled};
use rig::{GATEWAY_V4, HttpServer, Ns, ORIGIN_V4};
use serde_json::Value;
use tunnel::Level;

const BODY_BYTES: u64 = 16 << 20;
const NAMES: [&str; 4] = ["avx512", "avx2", "aesni", "ring"];

#[test]
fn every_level_carries_the_same_bytes_over_af_xdp() {
    if !rig::root_or_skip("every_level_carries_the_same_bytes_over_af_xdp") {
        return;
    }
    let levels = Level::available();
    println!("levels here: {levels:?}");
    for (n, level) in levels.iter().enumerate() {
        let other = levels[(n + 1) % levels.len()];
        let place = Place::new();
        let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
        let flags = |interface, level: Level| ["--xdp", "native", "-i", interface, "--simd", level.name()];
        let serving = place.gateway(GATEWAY_V4, &flags("g0", *level));
        let client = place.client(GATEWAY_V4, &http.address().to_string(), &flags("c0", other));
        serving.process.wait_for_line(&format!("packet protection: {level} ("), pair::LIMIT);

        let fetched = place.curl(&[&format!("http://127.0.0.1:{FORWARD_PORT}/{BODY_BYTES}")]);
        assert_eq!(fetched, (BODY_BYTES, pattern_sha256(BODY_BYTES)), "{level} to {other}");

        // The body's packets: sealed in batches by the one end, opened ahead by the other.
        let packets_min = BODY_BYTES / 1452;
        for (end, level, counted) in
            [(&serving, *level, "packets_sealed_in_batches"), (&client, other, "packets_opened_in_batches")]
        {
            let status = settled(end);
            let protection = &status["protection"];
            assert_eq!(protection["simd"], level.name(), "{status:#}");
            assert_eq!(protection["simd_best"], Level::best().name());
            match level == Level::RING {
                true => assert_eq!(number(protection, counted), 0, "packet by packet: {protection:#}"),
                false => assert!(number(protection, counted) > packets_min, "{protection:#}"),
            }
            let looked = number(protection, "canary_checked");
            assert_eq!(looked > 0, level != Level::RING, "ring needs no canary: {protection:#}");
            assert_eq!(number(protection, "canary_failed"), 0);
            assert_eq!(protection["stopped"], false);
            let drops = &status["drops"];
            assert!(drops["drop_not_sealed"].is_null() && drops["drop_misdirected"].is_null(), "{drops:#}");
        }
    }
}

fn beam(args: &[&str], forced: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beam"));
    command.args(args).env_remove("BEAM_SIMD");
    if let Some(level) = forced {
        command.env("BEAM_SIMD", level);
    }
    command.output().expect("run beam")
}

/// The one finding of `beam doctor simd -j`.
fn finding(out: &Output) -> Value {
    let report: Value = serde_json::from_slice(&out.stdout).expect("one JSON object");
    assert_eq!(report["schema"], "beam.doctor.v1");
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(1), "{report:#}");
    report["findings"][0].clone()
}

#[test]
fn doctor_tells_what_runs_and_what_could() {
    let best = Level::best();
    let out = beam(&["doctor", "simd", "-j"], None);
    let found = finding(&out);
    assert_eq!(found["check"], "simd");
    assert_eq!(found["outcome"], if best == Level::RING { "WARN" } else { "PASS" }, "{found:#}");
    assert!(out.status.success());
    for name in NAMES {
        let level = Level::available().iter().find(|level| level.name() == name);
        let expected = match level {
            None => ("FAIL", Some(4)),
            Some(&level) if level < best || level == Level::RING => ("WARN", Some(0)),
            Some(_) => ("PASS", Some(0)),
        };
        let out = beam(&["doctor", "simd", "-j"], Some(name));
        assert_eq!(
            (finding(&out)["outcome"].as_str(), out.status.code()),
            (Some(expected.0), expected.1),
            "{name}"
        );
    }
    let text = beam(&["doctor", "simd"], None);
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains("  simd: ") && text.contains(best.name()), "{text}");
    assert_eq!(beam(&["doctor", "simd", "--strict"], Some("ring")).status.code(), Some(4));
    assert_eq!(beam(&["doctor", "nonsense"], None).status.code(), Some(2));
}

/// A level that isn't there is a host that isn't fit (4), a word that is none is a wrong flag (2); both before anything
/// is opened.
#[test]
fn a_level_that_can_not_run_is_refused_with_what_there_is() {
    for name in NAMES {
        if Level::available().iter().any(|level| level.name() == name) {
            continue;
        }
        let out = beam(&["connect", "https://192.0.2.1", "-D", "0", "--insecure"], Some(name));
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(4), "{said}");
        for words in
            [&format!("the SIMD level {name} can't run here"), "it needs the CPU features", "--simd auto"]
        {
            assert!(said.contains(words), "{words}: {said}");
        }
        println!("refused as it should be: {}", said.trim());
    }
    let out = beam(&["serve", "--self-signed", "--simd", "sse9"], None);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("sse9") && said.contains("auto, avx512, avx2, aesni, ring"), "{said}");
}
