//! Goal: what `scripts/bench` prints holds every combination once, with numbers that are numbers, and can be shown again.
//! Method: both programs for real, on few packets (`--quick`), their objects taken apart. No figure is judged.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

use serde_json::Value;
use std::{collections::BTreeSet, fs, process::Command};

const AEAD: &str = env!("CARGO_BIN_EXE_bench-aead");
const ENGINE: &str = env!("CARGO_BIN_EXE_bench-engine");
const OVERHEAD: &str = env!("CARGO_BIN_EXE_bench-overhead");
const CIPHERS: [&str; 3] = ["aes128gcm", "aes256gcm", "chacha20poly1305"];

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn report(program: &str) -> Value {
    serde_json::from_str(&run(program, &["--quick", "--json"])).unwrap()
}

/// The values of `keys` in each row, joined; each comes once.
fn combinations(report: &Value, keys: &[&str]) -> BTreeSet<String> {
    let rows = report["rows"].as_array().unwrap();
    let name = |row: &Value| keys.iter().map(|key| text(&row[key])).collect::<Vec<_>>().join("/");
    let names: BTreeSet<String> = rows.iter().map(name).collect();
    assert_eq!(names.len(), rows.len(), "a combination came twice");
    names
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// serde_json writes what is no number as null.
fn numbers(report: &Value, keys: &[&str]) {
    for row in report["rows"].as_array().unwrap() {
        for key in keys {
            assert!(row[key].as_f64().is_some_and(f64::is_finite), "{key} in {row}");
        }
    }
}

fn positive(report: &Value, keys: &[&str]) {
    numbers(report, keys);
    for row in report["rows"].as_array().unwrap() {
        assert!(keys.iter().all(|key| row[key].as_f64() > Some(0.0)), "{row}");
    }
}

fn host(report: &Value) {
    let host = &report["host"];
    for key in ["cpu", "kernel"] {
        assert!(host[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {host}");
    }
    for key in ["cores", "tsc_ghz", "core_ghz"] {
        assert!(host[key].as_f64() > Some(0.0), "{key} in {host}");
    }
    for key in ["load_average_1m", "governor", "commit", "simd_levels", "optimised"] {
        assert!(host.get(key).is_some(), "{key} in {host}");
    }
}

fn shown_again(program: &str, report: &Value) {
    let file = std::env::temp_dir()
        .join(format!("beam-bench-{}-{}", std::process::id(), report["schema"]).replace('"', ""));
    fs::write(&file, report.to_string()).unwrap();
    let table = run(program, &["--show", file.to_str().unwrap()]);
    fs::remove_file(&file).unwrap();
    assert!(table.starts_with(report["host"]["cpu"].as_str().unwrap()), "the host comes first: {table}");
    assert!(program == OVERHEAD || CIPHERS.iter().all(|cipher| table.contains(cipher)), "{table}");
}

#[test]
fn packet_protection_has_every_combination() {
    let report = report(AEAD);
    host(&report);
    positive(&report, &["cycles", "ratio_to_ring"]);

    let mut ways = vec!["ring", "ring-copy"];
    if cfg!(feature = "aws-lc") {
        ways.push("aws-lc-rs");
    }
    ways.extend(simd::Level::available().iter().map(|level| level.name()).filter(|name| *name != "ring"));
    let mut expected = BTreeSet::new();
    for cipher in CIPHERS {
        for op in ["seal", "open", "protect"] {
            for size in [64, 128, 256, 1200, 1400, 4000, 9000] {
                for (keys, batch) in [(1, 32), (32, 32), (1, 1)] {
                    expected
                        .extend(ways.iter().map(|way| format!("{cipher}/{op}/{size}/{keys}/{batch}/{way}")));
                }
            }
        }
    }
    let seen = combinations(&report, &["cipher", "op", "size_bytes", "keys", "batch", "impl"]);
    assert_eq!(seen, expected);
    for row in report["rows"].as_array().unwrap().iter().filter(|row| row["impl"] == "ring") {
        assert_eq!(row["ratio_to_ring"], 1.0, "ring is its own reference");
    }
    shown_again(AEAD, &report);
}

#[test]
fn the_whole_path_has_every_combination() {
    let report = report(ENGINE);
    host(&report);
    positive(&report, &["gbps_out", "gbps_in", "ns_out", "ns_in", "state_ns_out", "state_ns_in"]);
    positive(&report, &["ratio_to_quinn_alone_out", "ratio_to_quinn_alone_in"]);
    // A difference of two times: one round of few packets may have it below zero.
    numbers(&report, &["crypto_ns_out", "crypto_ns_in"]);

    let mut expected = BTreeSet::new();
    for cipher in CIPHERS {
        for mtu in [1200, 1452, 8972] {
            expected.extend(["quinn_alone", "eager", "batched"].map(|mode| format!("{cipher}/{mtu}/{mode}")));
        }
    }
    assert_eq!(combinations(&report, &["cipher", "mtu", "mode"]), expected);
    for row in report["rows"].as_array().unwrap() {
        assert!(
            row["instructions_out"].is_null() && row["instructions_in"].is_null(),
            "nothing counted them"
        );
        if row["mode"] == "quinn_alone" {
            assert_eq!(row["ratio_to_quinn_alone_out"], 1.0);
        }
    }
    assert!(report["instructions_level"].is_null());
    assert!(report["instructions_missing"].as_str().is_some_and(|why| !why.is_empty()));
    shown_again(ENGINE, &report);
}

#[test]
fn what_parts_cost_has_every_part() {
    let report = report(OVERHEAD);
    host(&report);
    assert_eq!(
        combinations(&report, &["part", "mtu"]),
        BTreeSet::from(
            ["fused-copy/1200", "fused-copy/1452", "metrics/1200", "metrics/1452"].map(String::from)
        )
    );
    for row in report["rows"].as_array().unwrap() {
        for side in [&row["out"], &row["in"]] {
            assert!(side["ns_off"].as_f64() > Some(0.0) && side["ns_on"].as_f64() > Some(0.0), "{row}");
            assert!(side["ns_percent"].as_f64().is_some_and(f64::is_finite), "{row}");
            assert!(side["instructions_on"].is_null(), "nothing counted them");
        }
    }
    shown_again(OVERHEAD, &report);
}

#[test]
fn a_case_that_is_not_there_is_an_error() {
    for program in [AEAD, ENGINE] {
        let output = Command::new(program).args(["--quick", "--only", "des/"]).output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("no case is named like `des/`"));
    }
}
