//! The host beside each figure: a number without it says nothing.

use serde_json::{Value, json};
use std::fs;

/// CPU, cores, memory, kernel and beam's version.
pub(crate) fn host() -> Value {
    json!({
        "cpu": cpu_model(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_mib": memory_mib(),
        "kernel": proc("osrelease"),
        "machine": std::env::consts::ARCH,
        "beam": env!("CARGO_PKG_VERSION"),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
    })
}

/// The same in a line.
pub(crate) fn line(host: &Value) -> String {
    let text = |name: &str| host[name].as_str().unwrap_or("?").to_owned();
    let debug = if host["build"] == "debug" { ", a DEBUG build: slow" } else { "" };
    format!(
        "{}, {} cores, {} MiB, Linux {}, beam {}{debug}",
        text("cpu"),
        host["cores"],
        host["memory_mib"],
        text("kernel"),
        text("beam")
    )
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split_once(':')).map(|(_, model)| model.trim().to_owned());
    // Arm has no names there.
    model.unwrap_or_else(|| "unknown CPU".to_owned())
}

fn memory_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// A file of `/proc/sys/kernel`.
fn proc(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    text.map_or("?".to_owned(), |text| text.trim().to_owned())
}
