//! Goal: what can't be staged with a veth is judged as it should be: hardware's interrupts, nodes, governors, drivers.
//! Method: files as such hosts show them, below a directory of the test's own, and interfaces as netlink tells of them.

use super::{
    Finding, Outcome, cpus, files::Files, host::Host, host::Nic, kernel, link, nic, plan::Plan, privilege,
    quirks, reach, xdp,
};
use crate::cli::{Cli, Verb};
use clap::Parser as _;
use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};
use xsk::{
    ethtool::Channels,
    look::{Link, RxQueue},
};

/// A host of files; gone after drop.
struct Recorded {
    root: PathBuf,
    host: Host,
}

impl Recorded {
    /// `flags` of the doctor, workers on `cpus`, one NIC, and files with their contents.
    fn new(flags: &str, cpus: &[u32], nic: Nic, files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("beam-doctor-{}-{number}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let line = format!("beam doctor -i eth0 {flags}");
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Verb::Doctor(args) = cli.verb else { panic!("{line}") };
        let plan = Plan { cpus: cpus.to_vec(), ..Plan::new(&args).unwrap() };
        let host = Host::recorded(plan, Files::below(&root), vec![nic]);
        Self { root, host }
    }

    fn nic(&self) -> &Nic {
        self.host.nic("eth0").unwrap()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn a_nic(driver: &str, queue_count: u32, max: u32) -> Nic {
    let link = Link {
        index: 2,
        name: "eth0".into(),
        driver: Some(driver.into()),
        mtu: 1500,
        is_ethernet: true,
        up: true,
        has_carrier: true,
        ..Link::default()
    };
    let mut channels = Channels::default();
    (channels.combined, channels.combined_max) = (queue_count, max);
    let irq = |queue| RxQueue { queue, has_socket: false, irq: Some(40 + queue) };
    Nic {
        link,
        queue_count,
        features: None,
        channels: Some(channels),
        queues: (0..queue_count).map(irq).collect(),
        in_sysfs: true,
    }
}

fn commands(finding: &Finding) -> Vec<String> {
    finding.mend.iter().map(super::finding::Mend::command).collect()
}

#[test]
fn interrupts_go_where_their_worker_is_or_where_none_is() {
    let at = |zero: &str, one: &str| {
        let files = [
            ("/proc/irq/40/effective_affinity_list", zero),
            ("/proc/irq/41/smp_affinity_list", one),
            ("/proc/77/comm", "irqbalance\n"),
        ];
        let recorded = Recorded::new("", &[2, 3], a_nic("ice", 2, 8), &files);
        cpus::irq(&recorded.host, recorded.nic())
    };
    for (zero, one) in [("2\n", "3\n"), ("0", "1"), ("2", "0-1")] {
        let finding = at(zero, one);
        assert_eq!(finding.outcome, Outcome::Pass, "{finding:?}");
    }
    let finding = at("3", "0-3");
    assert_eq!(finding.outcome, Outcome::Warn);
    assert_eq!(finding.seen, "queue 0 irq 40 CPU 3, queue 1 irq 41 CPU 0-3");
    let expected = [
        "systemctl stop irqbalance   # or it moves them again",
        "echo '2' > /proc/irq/40/smp_affinity_list",
        "echo '3' > /proc/irq/41/smp_affinity_list",
    ];
    assert_eq!(commands(&finding), expected);
    let nothing = Recorded::new("", &[2, 3], a_nic("ice", 2, 8), &[]);
    assert_eq!(cpus::irq(&nothing.host, nothing.nic()).outcome, Outcome::Skip);
}

#[test]
fn governors_isolation_and_nodes() {
    let files = [
        ("/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave\n"),
        ("/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "performance\n"),
        ("/sys/devices/system/cpu/isolated", "4-5\n"),
        ("/sys/devices/system/node/node0/cpulist", "0-3\n"),
        ("/sys/devices/system/node/node1/cpulist", "4-7\n"),
        ("/sys/class/net/eth0/device/numa_node", "1\n"),
    ];
    let near = |cpus: &[u32]| Recorded::new("", cpus, a_nic("ice", 2, 8), &files);
    let far = near(&[2, 3]);
    let finding = cpus::governor(&far.host);
    assert_eq!(finding.outcome, Outcome::Warn);
    let knob = "echo 'performance' > /sys/devices/system/cpu/cpu2/cpufreq/scaling_governor";
    assert_eq!(commands(&finding), [knob]);
    let finding = cpus::isolation(&far.host);
    assert_eq!(
        (finding.outcome, commands(&finding)[0].as_str()),
        (Outcome::Warn, "beam serve --cpus 4-5 ...")
    );
    let finding = cpus::numa(&far.host, far.nic());
    assert_eq!(
        (finding.outcome, commands(&finding)[0].as_str()),
        (Outcome::Warn, "beam serve --cpus 4-7 ...")
    );
    let well = near(&[4, 5]);
    assert_eq!(cpus::isolation(&well.host).outcome, Outcome::Pass);
    assert_eq!(cpus::numa(&well.host, well.nic()).outcome, Outcome::Pass);

    let none = [("/sys/devices/system/cpu/isolated", "\n")];
    let busy = Recorded::new("--busy-poll 50", &[2, 3], a_nic("ice", 2, 8), &none);
    let finding = cpus::isolation(&busy.host);
    assert!(commands(&finding)[0].contains("isolcpus=2-3"), "{finding:?}");
    assert_eq!(cpus::governor(&busy.host).outcome, Outcome::Skip);
    assert_eq!(cpus::numa(&busy.host, busy.nic()).outcome, Outcome::Skip);
}

#[test]
fn the_jit_and_huge_pages() {
    let off = [
        ("/proc/sys/net/core/bpf_jit_enable", "0\n"),
        ("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "3\n"),
        ("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "5\n"),
    ];
    let host = Recorded::new("--hugepages auto --umem 24", &[0, 1], a_nic("ice", 2, 8), &off);
    let finding = kernel::jit(&host.host);
    assert_eq!(
        (finding.outcome, commands(&finding)[0].as_str()),
        (Outcome::Warn, "sysctl -w net.core.bpf_jit_enable='1'")
    );
    // 24 MiB for each of two queues are 24 pages; 3 are free, 2 are in use.
    let finding = privilege::hugepages(&host.host);
    assert_eq!(finding.outcome, Outcome::Warn, "{finding:?}");
    let knob = "echo '26' > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    assert_eq!(commands(&finding), [knob]);
    let host = Recorded::new("", &[0, 1], a_nic("ice", 2, 8), &off);
    assert_eq!(privilege::hugepages(&host.host).outcome, Outcome::Pass);
}

#[test]
fn limits_of_drivers_are_applied() {
    let told = |driver, mtu, flags: &str| {
        let mut nic = a_nic(driver, 4, 8);
        nic.link.mtu = mtu;
        let host = Recorded::new(flags, &[0, 1, 2, 3], nic, &[]);
        let finding = link::mtu(&host.host, host.nic());
        (finding.outcome, commands(&finding).first().cloned().unwrap_or_default())
    };
    assert_eq!(told("ice", 1500, ""), (Outcome::Pass, String::new()));
    assert_eq!(told("ena", 9001, ""), (Outcome::Fail, "ip link set eth0 mtu 3498".into()));
    assert_eq!(told("igc", 2000, ""), (Outcome::Warn, "ip link set eth0 mtu 1500".into()));
    assert_eq!(told("igc", 2000, "--xdp native"), (Outcome::Fail, "ip link set eth0 mtu 1500".into()));
    assert_eq!(told("ice", 2000, "--frame-size 2048"), (Outcome::Fail, "ip link set eth0 mtu 1770".into()));
    assert_eq!(told("ice", 1200, ""), (Outcome::Warn, "ip link set eth0 mtu 1500".into()));

    let told = |driver, count, cpus: &[u32], flags: &str| {
        let host = Recorded::new(flags, cpus, a_nic(driver, count, 8), &[]);
        let finding = nic::channels(&host.host, host.nic());
        (finding.outcome, commands(&finding).first().cloned().unwrap_or_default())
    };
    let combined = |count: u32| format!("ethtool -L eth0 combined {count}");
    assert_eq!(told("ena", 8, &[0, 1, 2, 3, 4, 5, 6, 7], ""), (Outcome::Warn, combined(4)));
    assert_eq!(told("ice", 8, &[0, 1], ""), (Outcome::Warn, combined(2)));
    assert_eq!(told("ice", 2, &[0, 1, 2, 3], ""), (Outcome::Warn, combined(4)));
    assert_eq!(told("ice", 4, &[0, 1, 2, 3], ""), (Outcome::Pass, String::new()));
    assert_eq!(told("ice", 4, &[0, 1, 2, 3], "--queues 0-5"), (Outcome::Fail, combined(6)));
    assert_eq!(
        told("ice", 4, &[0, 1, 2, 3], "--queues 0-9"),
        (Outcome::Fail, "beam serve --queues all ...".into())
    );
}

#[test]
fn quirks_are_told_where_they_apply() {
    let release = [("/proc/sys/kernel/osrelease", "6.1.0-28-amd64\n")];
    let told = |driver, check: &'static str, mtu| {
        let mut nic = a_nic(driver, 4, 8);
        nic.link.mtu = mtu;
        let host = Recorded::new("", &[0, 1, 2, 3, 4], nic, &release);
        quirks::of(check, &host.host, host.nic()).iter().map(|note| note.text).collect::<Vec<_>>()
    };
    assert_eq!(told("igb", "trial-zero-copy", 1500), ["has zero-copy from Linux 6.14 on"]);
    assert_eq!(told("mlx5_core", "trial-zero-copy", 1500), Vec::<&str>::new(), "6.1 is new enough");
    assert_eq!(told("ena", "mtu", 1500), Vec::<&str>::new());
    assert_eq!(told("ena", "mtu", 9001).len(), 1);
    assert_eq!(told("virtio_net", "channels", 1500).len(), 1, "4 to spare for 5 CPUs");
    assert_eq!(told("nobody's", "channels", 1500), Vec::<&str>::new());
}

#[test]
fn what_an_interface_belongs_to() {
    let told = |kind: Option<&str>, below, master, flags: &str| {
        let mut nic = a_nic("ice", 2, 8);
        nic.link.kind = kind.map(str::to_owned);
        (nic.link.below, nic.link.master) = (below, master);
        let mut recorded = Recorded::new(flags, &[0, 1], nic, &[]);
        let other = |index, name: &str, kind: &str, master| Link {
            index,
            name: name.into(),
            kind: Some(kind.into()),
            master,
            ..Link::default()
        };
        recorded.host.links.extend([other(7, "br0", "bridge", None), other(8, "eth1", "veth", Some(2))]);
        let finding = link::master(&recorded.host, recorded.nic());
        (finding.outcome, commands(&finding).first().cloned().unwrap_or_default())
    };
    assert_eq!(told(None, None, None, ""), (Outcome::Pass, String::new()));
    assert_eq!(told(None, None, Some(7), ""), (Outcome::Warn, "ip link set eth0 nomaster".into()));
    assert_eq!(told(Some("vlan"), Some(8), None, ""), (Outcome::Warn, "beam serve -i eth1 ...".into()));
    let native = told(Some("macvlan"), Some(8), None, "--xdp native");
    assert_eq!(native, (Outcome::Fail, "beam serve -i eth1 ...".into()));
    assert_eq!(told(Some("bond"), None, None, ""), (Outcome::Warn, "beam serve -i eth1 ...".into()));
}

#[test]
fn without_features_and_without_questions_nothing_is_judged() {
    let host = Recorded::new("", &[0, 1], a_nic("virtio_net", 2, 2), &[]);
    assert_eq!(xdp::features(&host.host, host.nic()).outcome, Outcome::Skip);
    // It would pause a queue, and nobody named it.
    let finding = xdp::trial_zero_copy(&host.host, host.nic());
    assert!(finding.seen.contains("beam doctor trial-zero-copy"), "{finding:?}");
    for check in [reach::listen, reach::route, reach::neighbour] {
        let finding = check(&host.host);
        assert_eq!(finding.outcome, Outcome::Skip);
        assert!(finding.seen.starts_with("not asked: --"), "{finding:?}");
    }
}
