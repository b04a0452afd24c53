//! What the host says of itself: kernel, CPU, memory, networking. From /proc and /etc, and of NICs from the kernel itself.

use serde_json::{Value, json};
use std::{fmt::Write, fs, io::Read};
use xsk::{
    ethtool::{self, Family, HashFields},
    look::{self, Link},
};

/// Of one file.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// A host with more has the first of them told.
const NICS_MAX: usize = 64;

/// Names in the archive, and what is read for them.
pub(super) const FILES: [(&str, &str); 24] = [
    ("host/os-release.txt", "/etc/os-release"),
    ("host/kernel.txt", "/proc/version"),
    ("host/cmdline.txt", "/proc/cmdline"),
    ("host/cpuinfo.txt", "/proc/cpuinfo"),
    ("host/meminfo.txt", "/proc/meminfo"),
    ("host/loadavg.txt", "/proc/loadavg"),
    ("host/limits.txt", "/proc/self/limits"),
    ("host/interrupts.txt", "/proc/interrupts"),
    ("host/softirqs.txt", "/proc/softirqs"),
    ("host/numa.txt", "/sys/devices/system/node/online"),
    ("host/isolated-cpus.txt", "/sys/devices/system/cpu/isolated"),
    ("host/clocksource.txt", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    ("host/hugepages-2048kB.txt", "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
    ("network/dev.txt", "/proc/net/dev"),
    ("network/route4.txt", "/proc/net/route"),
    ("network/route6.txt", "/proc/net/ipv6_route"),
    ("network/neighbours4.txt", "/proc/net/arp"),
    ("network/address6.txt", "/proc/net/if_inet6"),
    ("network/address4.txt", "/proc/net/fib_trie"),
    ("network/udp4.txt", "/proc/net/udp"),
    ("network/udp6.txt", "/proc/net/udp6"),
    ("network/snmp.txt", "/proc/net/snmp"),
    ("network/snmp6.txt", "/proc/net/snmp6"),
    ("network/softnet.txt", "/proc/net/softnet_stat"),
];

const SYSCTLS: [&str; 13] = [
    "kernel/osrelease",
    "kernel/unprivileged_bpf_disabled",
    "net/core/bpf_jit_enable",
    "net/core/bpf_jit_harden",
    "net/core/busy_poll",
    "net/core/busy_read",
    "net/core/netdev_budget",
    "net/core/netdev_max_backlog",
    "net/core/optmem_max",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
];

/// The start of a file, and whether there is more.
pub(super) fn read(path: &str) -> std::io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let more = bytes.len() as u64 > FILE_BYTES_MAX;
    bytes.truncate(FILE_BYTES_MAX as usize);
    Ok((bytes, more))
}

/// `sysctl -a` of what matters here.
pub(super) fn sysctls() -> String {
    let mut text = String::new();
    for path in SYSCTLS {
        let value = fs::read_to_string(format!("/proc/sys/{path}"));
        let value = value.map_or_else(|error| format!("({error})"), |value| value.trim().to_owned());
        let _ = writeln!(text, "{} = {value}", path.replace('/', "."));
    }
    text
}

/// Settings of every interface, as ethtool would tell.
pub(super) fn nics() -> std::io::Result<Value> {
    let links = look::links()?;
    let told: Vec<Value> = links.iter().take(NICS_MAX).map(nic).collect();
    Ok(json!({ "schema": "beam.diag.nics.v1", "count": links.len(), "nics": told }))
}

fn nic(link: &Link) -> Value {
    let name = &link.name;
    json!({
        "interface": name,
        "index": link.index,
        "driver": link.driver,
        "kind": link.kind,
        "mtu": link.mtu,
        "up": link.up,
        "carrier": link.has_carrier,
        "master": link.master,
        "below": link.below,
        "xdp_program": or_why(xsk::attached(name), |program| match program {
            Some(program) => json!({
                "name": program.name, "id": program.id, "mode": program.mode, "link_id": program.link_id,
                "is_beam": program.is_beam,
            }),
            None => Value::Null,
        }),
        "channels": or_why(ethtool::channels(name), |c| json!({
            "rx": c.rx, "tx": c.tx, "combined": c.combined, "other": c.other,
            "rx_max": c.rx_max, "tx_max": c.tx_max, "combined_max": c.combined_max, "other_max": c.other_max,
        })),
        "rings": or_why(ethtool::rings(name), |r| json!({
            "rx": r.rx, "tx": r.tx, "rx_max": r.rx_max, "tx_max": r.tx_max,
        })),
        "udp4_hash": or_why(ethtool::udp_hash(name, Family::V4), |fields| json!(HashFields::letters(fields))),
        "udp6_hash": or_why(ethtool::udp_hash(name, Family::V6), |fields| json!(HashFields::letters(fields))),
        "features": or_why(ethtool::features(name), |features| features.into_iter().map(|feature| {
            let fixed = if feature.changeable { "" } else { " [fixed]" };
            (feature.name, json!(format!("{}{fixed}", if feature.on { "on" } else { "off" })))
        }).collect::<serde_json::Map<_, _>>().into()),
        "statistics": statistics(name),
    })
}

fn or_why<T, E: std::fmt::Display>(result: Result<T, E>, tell: impl FnOnce(T) -> Value) -> Value {
    match result {
        Ok(value) => tell(value),
        Err(error) => json!({ "missing": error.to_string() }),
    }
}

fn statistics(interface: &str) -> Value {
    let directory = fs::read_dir(format!("/sys/class/net/{interface}/statistics"));
    let files = directory.into_iter().flatten().flatten();
    let number = |file: fs::DirEntry| {
        let value = fs::read_to_string(file.path()).ok()?.trim().parse::<u64>().ok()?;
        Some((file.file_name().to_string_lossy().into_owned(), json!(value)))
    };
    files.into_iter().filter_map(number).collect::<serde_json::Map<_, _>>().into()
}
