//! What this process may do, and how much memory it may lock.

use super::{
    finding::Finding,
    fix::knob::Knob,
    host::{FOR_XDP, Host},
};
use crate::cli::HugePages;
use rustix::{
    process::{Resource, getrlimit},
    thread::CapabilitySet,
};

pub(super) fn capabilities(host: &Host) -> Finding {
    let needed = "CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW (and CAP_IPC_LOCK where locked memory is short)";
    if !host.plan.wants_xdp() {
        return Finding::not_applicable("--xdp off needs none");
    }
    let missing = host.lacks(&FOR_XDP);
    if missing.is_empty() {
        return Finding::pass("CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW", needed);
    }
    let beam = std::env::current_exe().map_or_else(|_| "beam".into(), |path| path.display().to_string());
    Finding::lacks(host.plan.insists_on_xdp(), format!("this process lacks {}", missing.join(", ")), needed)
        .command(format!(
            "setcap cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock,cap_net_bind_service+ep {beam}"
        ))
}

pub(super) fn memlock(host: &Host) -> Finding {
    if !host.plan.wants_xdp() {
        return Finding::not_applicable("--xdp off locks none");
    }
    let queues = host.worker_count().max(1) as u64;
    let bytes = (u64::from(host.plan.umem_mib) << 20) * queues;
    let needed =
        format!("{bytes} bytes of UMEM: {} MiB (--umem) for each of {queues} queue(s)", host.plan.umem_mib);
    if host.capabilities.contains(CapabilitySet::IPC_LOCK) {
        return Finding::pass("CAP_IPC_LOCK: locked memory isn't limited", needed);
    }
    // beam raises the soft limit to the hard one, and the hard one where it may.
    match getrlimit(Resource::Memlock).maximum {
        Some(limit) if limit < bytes && !host.capabilities.contains(CapabilitySet::SYS_RESOURCE) => {
            let seen = format!("RLIMIT_MEMLOCK is {limit} bytes, and this process lacks CAP_IPC_LOCK");
            Finding::lacks(host.plan.insists_on_xdp(), seen, needed)
                .command(format!("ulimit -l {}", bytes.div_ceil(1024)))
                .command("systemctl edit beam   # LimitMEMLOCK=infinity, below [Service]")
        }
        Some(limit) if limit < bytes => {
            Finding::pass(format!("RLIMIT_MEMLOCK is {limit} bytes, and beam may raise it"), needed)
        }
        Some(limit) => Finding::pass(format!("RLIMIT_MEMLOCK is {limit} bytes"), needed),
        None => Finding::pass("RLIMIT_MEMLOCK is unlimited", needed),
    }
}

pub(super) fn hugepages(host: &Host) -> Finding {
    const PAGE_KIB: u32 = 2048;
    let directory = format!("/sys/kernel/mm/hugepages/hugepages-{PAGE_KIB}kB");
    let free = host.files.number::<u64>(&format!("{directory}/free_hugepages"));
    let there = host.files.number::<u64>(&format!("{directory}/nr_hugepages"));
    let (Some(free), Some(there)) = (free, there) else {
        return Finding::not_seen(
            format!("this kernel has no {directory}"),
            "free pages of 2 MiB for the UMEM",
        );
    };
    if host.plan.hugepages == HugePages::Off || !host.plan.wants_xdp() {
        let seen = format!("not asked for (--hugepages off); {free} of 2 MiB are free");
        return Finding::pass(seen, "nothing");
    }
    let queues = host.worker_count().max(1) as u64;
    let pages = (u64::from(host.plan.umem_mib) << 10).div_ceil(u64::from(PAGE_KIB)) * queues;
    let needed =
        format!("{pages} free pages of 2 MiB: {} MiB for each of {queues} queue(s)", host.plan.umem_mib);
    if free >= pages {
        return Finding::pass(format!("{free} of 2 MiB are free"), needed);
    }
    Finding::warn(format!("{free} of {there} are free: the UMEM takes ordinary pages"), needed)
        .change(Knob::Hugepages { kib: PAGE_KIB }, there + pages - free)
}
