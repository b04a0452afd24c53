//! `beam status`: one screen about a running daemon, and the JSON object behind it.

use crate::{
    alerts::{AlertStatus, AlertsStatus},
    capture::CaptureStatus,
    cli::StatusArgs,
    control::{self, Answer, Request},
    failure::Failure,
    memory::MemoryStatus,
    metrics::{BatchStatus, LatencyStatus, ProcessStatus},
    privileges::PrivilegesStatus,
    protection::ProtectionStatus,
};
use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write};

/// Name of the JSON object's shape.
pub(crate) const SCHEMA: &str = "beam.status.v1";

/// Everything that `beam status -j` prints.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) schema: String,
    pub(crate) version: String,
    /// `gateway`, `client` or `bench`.
    pub(crate) role: String,
    pub(crate) ready: bool,
    /// What is missing, where `ready` is false.
    pub(crate) why_not_ready: Option<String>,
    /// A client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnels: Option<Tunnels>,
    /// Tunnels without a connection, which the next flow wakes.
    #[serde(default)]
    pub(crate) asleep: u64,
    pub(crate) draining: bool,
    pub(crate) uptime_s: u64,
    /// The address served, or the gateway connected to.
    pub(crate) address: String,
    pub(crate) connections: u64,
    pub(crate) flows: u64,
    pub(crate) flows_opened: u64,
    pub(crate) rates: Rates,
    pub(crate) workers: Vec<WorkerStatus>,
    pub(crate) interfaces: Vec<InterfaceStatus>,
    /// Datagrams that the AF_XDP sockets received and sent.
    pub(crate) xsk_rx_frames: u64,
    pub(crate) xsk_tx_frames: u64,
    /// Datagrams that passed through kernel UDP sockets, both ways.
    pub(crate) kernel_udp_packets: u64,
    /// Every drop counter above zero.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Every other counter of the engine above zero.
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) conservation: Conservation,
    pub(crate) protection: ProtectionStatus,
    #[serde(default)]
    pub(crate) alerts: AlertsStatus,
    #[serde(default)]
    pub(crate) latency: LatencyStatus,
    #[serde(default)]
    pub(crate) batches: BatchStatus,
    #[serde(default)]
    pub(crate) process: ProcessStatus,
    /// A gateway's that has a `--memory-limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<MemoryStatus>,
    /// Captures that run.
    #[serde(default)]
    pub(crate) captures: Vec<CaptureStatus>,
    /// Parts of the datapath that were left out to measure them; see `ablation`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ablation: Vec<String>,
    pub(crate) privileges: PrivilegesStatus,
}

/// The QUIC connections of a client (`--pool`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tunnels {
    /// Those asleep are among them.
    pub(crate) up: usize,
    pub(crate) of: usize,
}

/// Over the last [`Rates::over_ms`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rates {
    pub(crate) over_ms: u64,
    pub(crate) rx_bits_per_s: u64,
    pub(crate) tx_bits_per_s: u64,
    pub(crate) rx_packets_per_s: u64,
    pub(crate) tx_packets_per_s: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerStatus {
    pub(crate) id: u8,
    pub(crate) cpu: Option<u32>,
    pub(crate) interface: Option<String>,
    pub(crate) queues: Vec<u32>,
    /// `native-zerocopy`, `native-copy`, `skb-copy` or `off` (kernel UDP), as read back from the kernel.
    pub(crate) xdp_mode: String,
    /// Each step down the ladder and its reason.
    pub(crate) xdp_why: Vec<String>,
    pub(crate) connections: u64,
    pub(crate) flows: u64,
    pub(crate) xsk_rx_frames: u64,
    pub(crate) xsk_rx_bytes: u64,
    pub(crate) xsk_tx_frames: u64,
    pub(crate) xsk_tx_bytes: u64,
    pub(crate) kernel_rx_packets: u64,
    pub(crate) kernel_rx_bytes: u64,
    pub(crate) kernel_tx_packets: u64,
    pub(crate) kernel_tx_bytes: u64,
    pub(crate) handed_out: u64,
    pub(crate) handed_in: u64,
    /// Datagrams delivered, and looks at the ports that brought any: their quotient is how full a batch is.
    #[serde(default)]
    pub(crate) rx_delivered: u64,
    #[serde(default)]
    pub(crate) rx_bursts: u64,
    /// Everything that this worker dropped.
    #[serde(default)]
    pub(crate) drops: u64,
    pub(crate) loops: u64,
    pub(crate) sleeps: u64,
    /// Where the frames of each AF_XDP socket are.
    #[serde(default)]
    pub(crate) frames: Vec<FrameStatus>,
}

/// The frames of one AF_XDP socket, by who holds them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FrameStatus {
    pub(crate) interface: String,
    pub(crate) queue: u32,
    pub(crate) total: usize,
    /// Idle.
    pub(crate) free: usize,
    /// On the fill ring, or in the kernel's receive path.
    pub(crate) fill: usize,
    /// On the RX ring.
    pub(crate) rx: usize,
    /// On the TX ring, or in the kernel's transmit path.
    pub(crate) tx: usize,
    /// On the completion ring.
    pub(crate) completion: usize,
    /// With the workers.
    pub(crate) out: usize,
    /// Those above make up `total`.
    pub(crate) holds: bool,
}

impl FrameStatus {
    pub(crate) fn new(interface: &str, census: &port::Census) -> Self {
        let port::Census { interface: _, queue, free, fill, rx, tx, completion, out, total } = *census;
        let (interface, holds) = (interface.to_owned(), census.holds());
        Self { interface, queue, total, free, fill, rx, tx, completion, out, holds }
    }

    /// For a person; the words are those of the JSON.
    fn line(&self) -> String {
        let Self { interface, queue, total, free, fill, rx, tx, completion, out, holds } = self;
        let verdict = if *holds { "" } else { "   (do NOT add up: please report)" };
        format!(
            "frames of {interface}/{queue}: {total} = free {free} + fill {fill} + rx {rx} + tx {tx} + \
             completion {completion} + out {out}{verdict}"
        )
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct InterfaceStatus {
    pub(crate) name: String,
    pub(crate) driver: Option<String>,
    /// `up`, `no-carrier`, `down` or `removed`.
    pub(crate) link: String,
    pub(crate) mtu: Option<u32>,
    /// Queues that the NIC receives on.
    pub(crate) queues_now: u32,
    /// Queues that have a socket.
    pub(crate) queues_served: u32,
    /// Something that an operator should act on.
    pub(crate) alert: Option<String>,
    /// Verdicts of the XDP program, by name.
    pub(crate) steering: BTreeMap<String, u64>,
    /// Packets that the NIC and its driver lost, as the kernel counts them.
    pub(crate) nic_drops: BTreeMap<String, u64>,
}

/// `frames_in = delivered + dropped + in_flight`, over all workers; exact once no frame is on its way between two.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Conservation {
    /// Datagrams that the ports took in.
    pub(crate) frames_in: u64,
    /// Datagrams given to an engine.
    pub(crate) delivered: u64,
    /// Datagrams dropped under a name between the port and the engine.
    pub(crate) dropped: u64,
    /// Datagrams on their way from one worker to another.
    pub(crate) in_flight: u64,
    pub(crate) holds: bool,
}

pub(crate) fn run(args: &StatusArgs) -> Result<(), Failure> {
    control::repeat(args.watch, || {
        let status = match control::ask(&args.control, &Request::Status)? {
            Answer::Status(status) => status,
            Answer::Error(error) => return Err(Failure::Runtime(anyhow!("the daemon says: {error}"))),
            _ => return Err(Failure::Runtime(anyhow!("the daemon answers another question"))),
        };
        if args.json {
            say!("{}", serde_json::to_string(&status).map_err(Failure::runtime)?);
        } else {
            say_text!("{}", screen(&status));
        }
        Ok(())
    })
}

/// The status as text for a person.
fn screen(status: &Status) -> String {
    let mut out = String::new();
    let state = match (status.ready, status.draining, &status.why_not_ready) {
        (_, true, _) => "draining".to_owned(),
        (true, ..) if let Some(Tunnels { up, of: of @ 2.. }) = status.tunnels => {
            format!("ready, {up} of {of} tunnels up")
        }
        (true, ..) => "ready".to_owned(),
        (false, _, Some(why)) => format!("not ready: {why}"),
        (false, _, None) => "not ready".to_owned(),
    };
    let tunnels = match (status.role.as_str(), status.asleep) {
        ("gateway", asleep) => format!("tunnels {} live, {asleep} asleep   ", status.connections),
        (_, 0) => String::new(),
        (_, asleep) => format!("{asleep} asleep   "),
    };
    let preposition = if status.role != "client" { "on" } else { "to" };
    let _ = writeln!(
        out,
        "beam {} {} {preposition} {}: {state}, up {}",
        status.version,
        status.role,
        status.address,
        uptime(status.uptime_s)
    );
    let _ = writeln!(
        out,
        "{tunnels}connections {}   flows {} (opened {})   rx {}/s ({} pkt/s)   tx {}/s ({} pkt/s)",
        status.connections,
        status.flows,
        status.flows_opened,
        bits(status.rates.rx_bits_per_s),
        status.rates.rx_packets_per_s,
        bits(status.rates.tx_bits_per_s),
        status.rates.tx_packets_per_s
    );
    let _ = writeln!(
        out,
        "\nworker  cpu  queue         xdp              conns   flows  xsk rx frames  xsk tx frames  kernel rx+tx"
    );
    for worker in &status.workers {
        let queues: Vec<String> = worker.queues.iter().map(u32::to_string).collect();
        let queue =
            worker.interface.as_ref().map_or("-".to_owned(), |name| format!("{name}/{}", queues.join(",")));
        let cpu = worker.cpu.map_or("-".to_owned(), |cpu| cpu.to_string());
        let _ = writeln!(
            out,
            "{:>6} {:>4}  {:<12}  {:<15} {:>6} {:>7} {:>14} {:>14} {:>13}",
            worker.id,
            cpu,
            queue,
            worker.xdp_mode,
            worker.connections,
            worker.flows,
            worker.xsk_rx_frames,
            worker.xsk_tx_frames,
            worker.kernel_rx_packets + worker.kernel_tx_packets
        );
        for why in &worker.xdp_why {
            let _ = writeln!(out, "             why: {why}");
        }
        for frames in &worker.frames {
            let _ = writeln!(out, "             {}", frames.line());
        }
    }
    for interface in &status.interfaces {
        let verdicts: Vec<String> = interface
            .steering
            .iter()
            .filter(|&(_, &n)| n > 0)
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        let mtu = interface.mtu.map_or("-".to_owned(), |mtu| mtu.to_string());
        let _ = writeln!(
            out,
            "\n{}: driver {}, link {}, mtu {mtu}, queues {} ({} with a socket)",
            interface.name,
            interface.driver.as_deref().unwrap_or("unknown"),
            interface.link,
            interface.queues_now,
            interface.queues_served
        );
        if let Some(alert) = &interface.alert {
            let _ = writeln!(out, "ALERT: {alert}");
        }
        let _ = writeln!(out, "steering on {}: {}", interface.name, verdicts.join(", "));
        let lost: Vec<String> = interface.nic_drops.iter().map(|(name, n)| format!("{name} {n}")).collect();
        if !lost.is_empty() {
            let _ = writeln!(out, "lost by {}: {}", interface.name, lost.join(", "));
        }
    }
    out.push_str(&alerts(&status.alerts));
    let _ = writeln!(out, "\n{}", status.latency.line());
    let _ = writeln!(out, "{}", status.batches.line());
    let _ = writeln!(out, "{}", status.process.line());
    if let Some(memory) = &status.memory {
        let refused = status.counters.get("refused_memory").copied().unwrap_or(0);
        let _ = writeln!(out, "{}", memory.line(refused));
    }
    let _ = writeln!(out, "\n{}", status.protection.line());
    let _ = writeln!(out, "{}", status.privileges.line());
    if !status.ablation.is_empty() {
        let _ = writeln!(out, "ABLATION: {}: for measuring only", status.ablation.join(", "));
    }
    if status.drops.is_empty() {
        let _ = writeln!(out, "\ndrops: none");
    } else {
        let drops: Vec<String> = status.drops.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let _ = writeln!(out, "\ndrops: {}", drops.join(", "));
    }
    for capture in &status.captures {
        let points: Vec<&str> = capture.points.iter().map(|point| point.name()).collect();
        let _ = writeln!(
            out,
            "capture {} of {}, for uid {} process {}: {} packets, {} missed{}",
            capture.id,
            points.join(","),
            capture.uid,
            capture.pid,
            capture.seen,
            capture.missed,
            if capture.keylog { ", with TLS secrets" } else { "" }
        );
    }
    let c = &status.conservation;
    let _ = writeln!(
        out,
        "frames: in {} = delivered {} + dropped {} + in flight {}{}",
        c.frames_in,
        c.delivered,
        c.dropped,
        c.in_flight,
        if c.holds { "" } else { "   (does NOT add up: please report)" }
    );
    out
}

/// A line each, those that fire first.
fn alerts(alerts: &AlertsStatus) -> String {
    let AlertsStatus { rules, firing, pending, notices } = alerts;
    let mut out = match (firing.len(), pending.len()) {
        (0, 0) => format!("\nalerts: none of {rules} rules firing\n"),
        (firing, pending) => format!("\nalerts: {firing} of {rules} rules firing, {pending} pending\n"),
    };
    let line = |state: &str, alert: &AlertStatus| format!("{state:8} {}\n", alert.line());
    out.extend(firing.iter().map(|alert| line("FIRING", alert)));
    out.extend(pending.iter().map(|alert| line("pending", alert)));
    let failed: Vec<String> = notices.iter().map(|(name, n)| format!("{name} {n}")).collect();
    if !failed.is_empty() {
        let _ = writeln!(out, "notices: {}", failed.join(", "));
    }
    out
}

fn bits(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} bit"),
        1_000..1_000_000 => format!("{:.1} kbit", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} Mbit", n as f64 / 1e6),
        _ => format!("{:.2} Gbit", n as f64 / 1e9),
    }
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a census that doesn't add up can't be overlooked, in the object or on the screen.
    use super::*;

    fn frames(out: usize) -> FrameStatus {
        let (free, fill, rx, tx, completion, total) = (10, 20, 3, 2, 1, 40);
        let census = port::Census { interface: 7, queue: 1, free, fill, rx, tx, completion, out, total };
        FrameStatus::new("eth0", &census)
    }

    #[test]
    fn frames_add_up_or_say_so() {
        let (whole, one_lost) = (frames(4), frames(3));
        assert_eq!((whole.holds, one_lost.holds), (true, false));
        assert_eq!(
            whole.line(),
            "frames of eth0/1: 40 = free 10 + fill 20 + rx 3 + tx 2 + completion 1 + out 4"
        );
        assert!(one_lost.line().ends_with("out 3   (do NOT add up: please report)"));
    }
}
