//! Goal: a change against the baseline is shown in percent and judged, and operations are counted one by one.
//! Method: the program for real: on made-up pairs of reports, whose verdicts are known; and under valgrind where there is one,
//! twice, on operations whose instructions depend on nothing but the code.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_bench-instructions");

fn report(rustc: &str, rows: &[(&str, f64, f64)]) -> Value {
    let row = |(operation, instructions, allocations): &(&str, f64, f64)| {
        json!({"operation": operation, "unit": "packet", "instructions": instructions, "allocations": allocations,
               "allocated_bytes": 0.0})
    };
    let tools =
        json!({"rustc": rustc, "valgrind": "valgrind-1", "simd_level": "aesni", "machine": "made-up"});
    json!({"schema": "beam.bench.instructions.v1", "method": "", "commit": null, "tools": tools,
           "rows": rows.iter().map(row).collect::<Vec<_>>()})
}

/// Shows one report beside the other, judged at `percent`.
fn judged(name: &str, before: &Value, now: &Value, percent: &str) -> Output {
    let file = |which: &str, value: &Value| -> PathBuf {
        let file =
            std::env::temp_dir().join(format!("beam-instructions-{}-{name}-{which}", std::process::id()));
        std::fs::write(&file, value.to_string()).unwrap();
        file
    };
    let (before, now) = (file("before", before), file("now", now));
    let output = Command::new(PROGRAM)
        .arg("--show")
        .arg(&now)
        .arg("--baseline")
        .arg(&before)
        .args(["--check", percent])
        .output()
        .unwrap();
    std::fs::remove_file(before).unwrap();
    std::fs::remove_file(now).unwrap();
    output
}

#[test]
fn a_change_is_shown_in_percent_and_judged() {
    let before = report("rustc 1", &[("path/slower", 1000.0, 0.0), ("path/same", 50.0, 1.0)]);
    let now = report("rustc 1", &[("path/slower", 1030.0, 0.0), ("path/same", 50.0, 1.0)]);
    for (percent, code) in [("2.9", 1), ("3.1", 0)] {
        let output = judged("percent", &before, &now, percent);
        assert_eq!(output.status.code(), Some(code), "{percent} %");
        let table = String::from_utf8(output.stdout).unwrap();
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(
            line("path/slower").contains("+3.00 %") && line("path/slower").ends_with("<-- moved"),
            "{table}"
        );
        assert!(line("path/same").contains("+0.00 %") && !line("path/same").contains("moved"), "{table}");
        let verdict = String::from_utf8(output.stderr).unwrap();
        assert_eq!(verdict.contains("path/slower") && verdict.contains("--save"), code == 1, "{verdict}");
    }
}

#[test]
fn an_operation_that_allocates_or_is_gone_has_moved() {
    let before = report("rustc 1", &[("path/one", 10.0, 0.0), ("path/two", 10.0, 0.0)]);
    let allocates = report("rustc 1", &[("path/one", 10.0, 1.0), ("path/two", 10.0, 0.0)]);
    let gone = report("rustc 1", &[("path/one", 10.0, 0.0)]);
    for now in [allocates, gone] {
        assert_eq!(judged("more", &before, &now, "5").status.code(), Some(1), "{now}");
    }
    assert_eq!(judged("more", &before, &before, "0").status.code(), Some(0));
}

#[test]
fn another_compiler_is_not_judged() {
    let (before, now) =
        (report("rustc 1", &[("path/one", 10.0, 0.0)]), report("rustc 2", &[("path/one", 20.0, 0.0)]));
    let output = judged("compiler", &before, &now, "1");
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("not judged: "), "and it says so");
    assert!(String::from_utf8_lossy(&output.stdout).contains("+100.00 %"), "it is shown all the same");
}

#[test]
fn a_check_without_a_baseline_is_an_error() {
    let output = Command::new(PROGRAM).args(["--show", "/dev/null", "--check", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn two_runs_count_the_same() {
    const VALGRIND: &str = "/usr/bin/valgrind";
    if !std::path::Path::new(VALGRIND).exists() {
        println!("SKIPPED: two_runs_count_the_same: no {VALGRIND}; scripts/bench instructions installs it");
        return;
    }
    let counted = || -> Value {
        let output = Command::new(PROGRAM)
            .args(["--valgrind", VALGRIND, "--quick", "--json", "--only", "steering_parse/"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["rows"].clone()
    };
    let (first, second) = (counted(), counted());
    assert_eq!(first, second);
    let rows = first.as_array().unwrap();
    assert_eq!(rows.len(), 12, "every kind of frame");
    let of = |name: &str| rows.iter().find(|row| row["operation"] == name).unwrap()["instructions"].as_f64();
    // A frame that is judged by its Ethernet header alone costs less than one that is read to its end.
    assert!(of("steering_parse/arp") < of("steering_parse/ours_ipv4"), "{first}");
    assert!(rows.iter().all(|row| row["allocations"] == 0.0), "{first}");
}
