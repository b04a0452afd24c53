//! Goal: bench-scale counts exactly what a real gateway does: tunnels that are held, refused at the limit, and asleep and
//! woken in early data; and it says so when something isn't as it must be.
//! Method: the program for real, on loopback, against the `beam` beside it (cargo builds it with the workspace's tests;
//! `BEAM_BIN` names another). Figures are not judged, counts are.

#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SCALE: &str = env!("CARGO_BIN_EXE_bench-scale");

fn beam() -> PathBuf {
    let beside = || Path::new(SCALE).with_file_name("beam");
    let beam = std::env::var_os("BEAM_BIN").map_or_else(beside, PathBuf::from);
    assert!(beam.is_file(), "{} is missing: cargo build -p beam", beam.display());
    beam
}

fn run(arguments: &[&str]) -> (Output, Value) {
    let mut command = Command::new(SCALE);
    // Whatever the environment configures is another gateway's.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BEAM_")) {
        command.env_remove(name);
    }
    let output =
        command.args([arguments[0], "--json", "--beam"]).arg(beam()).args(&arguments[1..]).output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output, report)
}

/// The row of a run that has to be good.
fn row(arguments: &[&str]) -> Value {
    let (output, report) = run(arguments);
    let row = report["rows"][0].clone();
    assert!(output.status.success(), "{row:#}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        (report["schema"].as_str(), &row["problems"]),
        (Some("beam.bench.scale.v1"), &Value::Array(vec![]))
    );
    assert!(report["host"]["cpu"].is_string());
    for key in ["rss_bytes", "bytes_per_tunnel", "setup_per_s", "p95_ms"] {
        assert!(row[key].as_f64() > Some(0.0), "{key} in {row:#}");
    }
    for key in ["umem_bytes", "cpu_percent"] {
        assert!(row[key].as_f64() >= Some(0.0), "{key} in {row:#}");
    }
    row
}

fn counts<const N: usize>(row: &Value, keys: [&str; N]) -> [u64; N] {
    keys.map(|key| row[key].as_u64().unwrap_or_else(|| panic!("{key} in {row:#}")))
}

#[test]
fn two_hundred_tunnels_are_held() {
    let row = row(&["hold", "200", "--users", "7", "--hold", "2", "--every", "1", "--", "--cpus", "0,1"]);
    let keys = ["live", "asleep", "authenticated", "requests", "answered", "workers", "users"];
    assert_eq!(counts(&row, keys), [200, 0, 200, 400, 400, 2, 7]);
    let gateway = &row["gateway_counters"];
    assert_eq!(counts(gateway, ["connections", "handshakes_completed", "requests"]), [200, 200, 600]);
}

#[test]
fn the_excess_is_refused_and_comes_when_others_leave() {
    let row = row(&["limit", "50", "--max-connections", "40"]);
    let keys = ["live", "tried", "refused", "came_after_others_left", "workers"];
    assert_eq!(counts(&row, keys), [40, 50, 10, 10, 1]);
    assert!(row["gateway_counters"]["refused"].as_u64() >= Some(10), "{row:#}");
}

// Requests are flows to an origin here, so that a wake is what a user's would be.
#[test]
fn a_hundred_sleep_and_wake_in_early_data() {
    let row = row(&[
        "asleep",
        "100",
        "--live",
        "20",
        "--lapse",
        "1",
        "--hold",
        "1",
        "--wakes",
        "5",
        "--storm",
        "95",
        "--origin",
        "127.0.0.1:0",
    ]);
    let keys = ["live", "asleep", "wakes", "storm_wakes", "storm_failed", "storm_early_accepted"];
    assert_eq!(counts(&row, keys), [20, 100, 5, 95, 0, 95]);
    assert_eq!(counts(&row, ["wake_round_trips_max", "live_round_trips_max", "storm_retries"]), [1, 1, 0]);
    assert_eq!(row["gateway_counters"]["early_connections"], 100);
}

// A check that can't fail is none: half the tunnels are more than this gateway takes.
#[test]
fn what_is_not_as_it_must_be_is_said() {
    let (output, report) =
        run(&["hold", "20", "--hold", "0.2", "--", "--max-connections", "10", "--cpus", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let problems = report["rows"][0]["problems"].as_array().unwrap();
    let said = |text: &str| problems.iter().any(|problem| problem.as_str().unwrap().contains(text));
    assert!(said("the gateway's connections: 10, wanted 20"), "{problems:#?}");
}
