//! The CPUs that workers are pinned to: how fast, how alone, how near to the NIC.

use super::{
    files::{cpu_list, told},
    finding::Finding,
    fix::knob::Knob,
    host::{Host, Nic},
};

const CPU_DIRECTORY: &str = "/sys/devices/system/cpu";
const NODE_DIRECTORY: &str = "/sys/devices/system/node";

/// CPUs that get a worker.
fn workers_cpus(host: &Host) -> Vec<u32> {
    let mut cpus: Vec<u32> =
        (0..host.worker_count().max(1)).filter_map(|worker| host.plan.cpu_of(worker)).collect();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

pub(super) fn governor(host: &Host) -> Finding {
    let needed = "performance, on the workers' CPUs: packets come too seldom to make a slow CPU fast in time";
    let mut slow = Vec::new();
    let mut seen = Vec::new();
    for cpu in workers_cpus(host) {
        let file = format!("{CPU_DIRECTORY}/cpu{cpu}/cpufreq/scaling_governor");
        let Some(governor) = host.files.text(&file) else { continue };
        seen.push(format!("CPU {cpu} {governor}"));
        if governor != "performance" {
            slow.push(cpu);
        }
    }
    if seen.is_empty() {
        return Finding::not_applicable(
            "this kernel scales no frequency (in a virtual machine its host does)",
        );
    }
    if slow.is_empty() {
        return Finding::pass(seen.join(", "), needed);
    }
    let finding = Finding::warn(seen.join(", "), needed);
    slow.into_iter().fold(finding, |finding, cpu| finding.change(Knob::Governor { cpu }, "performance"))
}

pub(super) fn isolation(host: &Host) -> Finding {
    let needed = "workers on isolated CPUs, where there are any or where they never sleep (--busy-poll)";
    let list = |name| host.files.text(&format!("{CPU_DIRECTORY}/{name}")).map(|text| cpu_list(&text));
    let Some(isolated) = list("isolated") else {
        return Finding::not_seen(format!("{CPU_DIRECTORY}/isolated can't be read"), needed);
    };
    let workers = workers_cpus(host);
    let beside: Vec<u32> = workers.iter().copied().filter(|cpu| !isolated.contains(cpu)).collect();
    match (isolated.is_empty(), beside.is_empty()) {
        (true, _) if host.plan.busy_poll_usec > 0 => {
            let seen =
                format!("workers never sleep, and share CPU(s) {} with everything else", told(&workers));
            Finding::warn(seen, needed).command(isolating(&workers))
        }
        (true, _) => Finding::pass("no CPU is isolated; workers sleep when idle", needed),
        (false, true) => Finding::pass(format!("workers on CPU(s) {}, isolated", told(&workers)), needed),
        (false, false) => {
            let seen = format!("CPU(s) {} are isolated, workers run on {}", told(&isolated), told(&workers));
            Finding::warn(seen, needed).command(format!("beam serve --cpus {} ...", told(&isolated)))
        }
    }
}

/// As Debian's GRUB takes it.
fn isolating(cpus: &[u32]) -> String {
    let argument = format!("isolcpus={}", told(cpus));
    format!(
        "echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {argument}\"' > /etc/default/grub.d/beam.cfg && \
         update-grub   # holds from the next boot on"
    )
}

pub(super) fn irq(host: &Host, nic: &Nic) -> Finding {
    let needed = "each queue's interrupt on its worker's CPU, or on one without a worker";
    let served = host.plan.queues_of(nic.queue_count);
    let irqs: Vec<(usize, u32, u32)> = served
        .iter()
        .enumerate()
        .filter_map(|(index, &queue)| {
            let known = nic.queues.iter().find(|known| known.queue == queue)?;
            Some((host.first_worker(nic) + index, queue, known.irq?))
        })
        .collect();
    if irqs.is_empty() {
        return match nic.is_virtual() {
            true => Finding::not_applicable(format!("a {} raises no interrupts", nic.driver())),
            false => Finding::not_seen("the driver doesn't tell which interrupt serves which queue", needed),
        };
    }
    let workers = workers_cpus(host);
    let mut seen = Vec::new();
    let mut wrong = Vec::new();
    for (worker, queue, irq) in irqs {
        let file = |name| host.files.text(&format!("/proc/irq/{irq}/{name}")).map(|text| cpu_list(&text));
        // What the interrupt controller chose, of what is allowed.
        let cpus = file("effective_affinity_list").filter(|list| !list.is_empty());
        let Some(cpus) = cpus.or_else(|| file("smp_affinity_list")) else { continue };
        seen.push(format!("queue {queue} irq {irq} CPU {}", told(&cpus)));
        let Some(own) = host.plan.cpu_of(worker) else { continue };
        if cpus.iter().any(|cpu| *cpu != own && workers.contains(cpu)) {
            wrong.push((irq, own));
        }
    }
    if seen.is_empty() {
        return Finding::not_seen("/proc/irq can't be read", needed);
    }
    if wrong.is_empty() {
        return Finding::pass(seen.join(", "), needed);
    }
    let mut finding = Finding::warn(seen.join(", "), needed);
    if host.files.names("/proc").iter().any(|pid| is_irqbalance(host, pid)) {
        finding = finding.command("systemctl stop irqbalance   # or it moves them again");
    }
    wrong.into_iter().fold(finding, |finding, (irq, cpu)| finding.change(Knob::IrqAffinity { irq }, cpu))
}

fn is_irqbalance(host: &Host, pid: &str) -> bool {
    pid.bytes().all(|byte| byte.is_ascii_digit())
        && host.files.text(&format!("/proc/{pid}/comm")).as_deref() == Some("irqbalance")
}

pub(super) fn numa(host: &Host, nic: &Nic) -> Finding {
    let needed = "workers on the node that the NIC's memory is on";
    let nodes: Vec<String> =
        host.files.names(NODE_DIRECTORY).into_iter().filter(|name| is_node(name)).collect();
    if nodes.len() <= 1 {
        return Finding::not_applicable("this host has one NUMA node");
    }
    if !nic.in_sysfs {
        return Finding::not_seen("/sys shows another network namespace", needed);
    }
    let Some(node) = host.files.number::<u32>(&nic.sys("device/numa_node")) else {
        return Finding::not_applicable("the interface is on no node");
    };
    let cpus = host.files.text(&format!("{NODE_DIRECTORY}/node{node}/cpulist"));
    let cpus = cpu_list(&cpus.unwrap_or_default());
    let workers = workers_cpus(host);
    let far: Vec<u32> = workers.iter().copied().filter(|cpu| !cpus.contains(cpu)).collect();
    if far.is_empty() {
        return Finding::pass(format!("node {node}, as are CPU(s) {}", told(&workers)), needed);
    }
    Finding::warn(format!("the NIC is on node {node}, CPU(s) {} are not", told(&far)), needed)
        .command(format!("beam serve --cpus {} ...", told(&cpus)))
}

fn is_node(name: &str) -> bool {
    name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok())
}
