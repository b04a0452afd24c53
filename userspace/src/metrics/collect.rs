//! Gathers everything at one instant: the workers' snapshots, the interfaces, the caches, the process.

use super::{Collected, ProcessStatus, Value, counters, table::*};
use crate::{
    identity,
    supervisor::{Supervisor, fast, slow},
    worker::{
        meters::{Meter, Meters},
        snapshot::{PortSnapshot, WorkerSnapshot},
    },
};
use cache::CacheReport;
use std::{
    borrow::Cow,
    time::{Instant, UNIX_EPOCH},
};

/// Each meter's metric.
static METERS: [(Meter, &super::Spec); Meter::ALL.len()] = [
    (Meter::Handshake, &HANDSHAKE_SECONDS),
    (Meter::FirstByte, &FIRST_BYTE_SECONDS),
    (Meter::RoundTrip, &TUNNEL_RTT_SECONDS),
    (Meter::LoopLag, &LOOP_LAG_SECONDS),
    (Meter::TimerLag, &TIMER_LAG_SECONDS),
    (Meter::ReceiveBurst, &RECEIVE_BURST_PACKETS),
    (Meter::SealBatch, &SEAL_BATCH_PACKETS),
    (Meter::OpenBatch, &OPEN_BATCH_PACKETS),
];

impl Supervisor {
    /// Every metric, now. Asks each worker once, and waits two seconds at most.
    pub(crate) fn collect(&self) -> Collected {
        let snapshots = self.snapshots();
        let mut to = Collected::default();
        self.collect_daemon(&snapshots, &mut to);
        for snapshot in &snapshots {
            collect_worker(snapshot, &mut to);
        }
        collect_drops(&snapshots, &mut to);
        collect_share(&snapshots, &mut to);
        collect_meters(&merged(&snapshots), &mut to);
        self.collect_ports(&snapshots, &mut to);
        self.collect_interfaces(&mut to);
        for report in self.cache_reports(&snapshots) {
            collect_cache(report, &mut to);
        }
        ProcessStatus::now().collect(&mut to);
        to
    }

    fn collect_daemon(&self, snapshots: &[WorkerSnapshot], to: &mut Collected) {
        let simd = snapshots.first().map_or(String::new(), |snapshot| snapshot.protection.simd.clone());
        let info = [env!("CARGO_PKG_VERSION").into(), self.identity.role.into(), Cow::Owned(simd)];
        to.add(&BUILD_INFO, info, 1);
        to.add_plain(&READY, self.readiness(snapshots).is_ok().into());
        to.add_plain(&DRAINING, self.is_draining().into());
        let silent = self.seats.len().saturating_sub(snapshots.len());
        to.add(&WORKERS, ["answering"], snapshots.len() as u64);
        to.add(&WORKERS, ["silent"], silent as u64);
        if let Some((up, of)) = snapshots.iter().find_map(|snapshot| snapshot.tunnels) {
            to.add(&TUNNELS, ["up"], up as u64);
            to.add(&TUNNELS, ["down"], of.saturating_sub(up) as u64);
        }
        to.add_plain(&TUNNELS_ASLEEP, self.asleep(snapshots));
        if let Some(gateway) = &self.identity.gateway {
            let report = gateway.current().config.sleepers.report(Instant::now());
            let events = [
                ("lapses", report.lapses),
                ("wakes", report.wakes),
                ("evicted", report.evicted),
                ("expired", report.expired),
            ];
            for (event, n) in events {
                to.add(&TUNNEL_SLEEP, [event], n);
            }
        }
        let leaf = self.identity.gateway.as_ref().map(|gateway| gateway.current().leaf);
        if let Some(not_after_s) = leaf.and_then(|leaf| identity::not_after_s(&leaf)) {
            to.set(&CERTIFICATE_NOT_AFTER, Value::Real(not_after_s as f64));
        }
        for (alert, is_firing) in self.alerts.series() {
            to.add(&ALERT_FIRING, [alert], is_firing.into());
        }
        for (fate, n) in self.alerts.notices() {
            to.add(&ALERT_NOTICES, [fate], n);
        }
        if let Ok(started) = self.started_at().duration_since(UNIX_EPOCH) {
            to.set(&PROCESS_START, Value::Real(started.as_secs_f64()));
        }
    }

    /// By AF_XDP socket.
    fn collect_ports(&self, snapshots: &[WorkerSnapshot], to: &mut Collected) {
        let name_of = |interface: u32| {
            let device = self.devices().find(|device| device.index() == interface);
            device.map_or("?".to_owned(), |device| device.name().to_owned())
        };
        for port in snapshots.iter().flat_map(|snapshot| &snapshot.ports) {
            let (Some(census), Some(fields)) = (port.frames, port.kernel) else { continue };
            let (interface, queue) = (name_of(census.interface), census.queue.to_string());
            for (field, n) in fields {
                to.add(
                    &XDP_STATISTICS,
                    [interface.clone().into(), queue.clone().into(), Cow::Borrowed(field)],
                    n,
                );
            }
        }
        let inner = snapshots.iter().flat_map(|snapshot| snapshot.inner_frames.iter().copied());
        let outer = snapshots.iter().flat_map(|snapshot| &snapshot.ports).filter_map(|port| port.frames);
        for census in outer.chain(inner) {
            let (interface, queue) = (name_of(census.interface), census.queue.to_string());
            let port::Census { free, fill, rx, tx, completion, out, .. } = census;
            let holders = [
                ("free", free),
                ("fill", fill),
                ("rx", rx),
                ("tx", tx),
                ("completion", completion),
                ("out", out),
            ];
            for (holder, n) in holders {
                let labels = [interface.clone().into(), queue.clone().into(), Cow::Borrowed(holder)];
                to.add(&UMEM_FRAMES, labels, n as u64);
            }
        }
    }

    fn collect_interfaces(&self, to: &mut Collected) {
        for device in self.devices() {
            let name = || Cow::<'static, str>::Owned(device.name().to_owned());
            to.add(&INTERFACE_UP, [name()], u64::from(device.link_state() == xsk::LinkState::Up));
            let queues = [("present", device.queue_count().unwrap_or(0)), ("served", device.served_count())];
            for (state, n) in queues {
                to.add(&INTERFACE_QUEUES, [name(), state.into()], n.into());
            }
            for report in device.reports() {
                let labels = [name(), report.queue.to_string().into(), report.mode.to_string().into()];
                to.add(&QUEUE_INFO, labels, 1);
            }
            for (verdict, n) in device.steering_counters() {
                to.add(&STEERING, [name(), verdict.into()], n);
            }
            for (counter, n) in device.nic_drops().into_iter().flatten() {
                to.add(&NIC_DROPS, [name(), counter.into()], n);
            }
        }
        // A daemon without an interface still says how it runs.
        for seat in &self.seats {
            let lane = seat.lane();
            if lane.queues.is_empty() {
                to.set_info(&QUEUE_INFO, vec!["".into(), "".into(), lane.mode.clone().into()]);
            }
        }
    }
}

/// The histograms of all workers together.
pub(crate) fn merged(snapshots: &[WorkerSnapshot]) -> Meters {
    let mut all = Meters::default();
    snapshots.iter().filter_map(|snapshot| snapshot.meters.as_ref()).for_each(|meters| all.add(meters));
    all
}

fn collect_meters(meters: &Meters, to: &mut Collected) {
    for &(meter, spec) in &METERS {
        to.set(spec, Value::Histogram(Box::new(meters.get(meter).clone())));
    }
}

fn collect_worker(snapshot: &WorkerSnapshot, to: &mut Collected) {
    let id = || Cow::<'static, str>::Owned(snapshot.id.to_string());
    to.add(&CONNECTIONS, [id()], snapshot.connections);
    to.add(&FLOWS, [id()], snapshot.flows);
    to.add(&FLOWS_OPENED, [id()], snapshot.flows_opened);
    to.add_plain(&REQUESTS_PENDING, snapshot.pending);
    to.add(&WORKER_LOOPS, [id()], snapshot.loops);
    to.add(&WORKER_SLEEPS, [id()], snapshot.sleeps);
    to.add(&HANDED_OVER, [id(), "out".into()], snapshot.hand_over.handed_out);
    to.add(&HANDED_OVER, [id(), "in".into()], snapshot.hand_over.delivered_handed);
    for &(name, n) in &snapshot.counters {
        if name == "retry_active" {
            to.add(&RETRY_ACTIVE, [id()], n);
        }
        counters::collect(name, n, to);
    }
    for port in &snapshot.ports {
        collect_port(port, &id(), to);
    }
}

fn collect_port(port: &PortSnapshot, worker: &str, to: &mut Collected) {
    let worker = || Cow::Owned(worker.to_owned());
    let path = if port.frames.is_some() { "xsk" } else { "kernel" };
    let counters = &port.counters;
    for (direction, packets, bytes) in
        [("rx", counters.rx_datagrams, counters.rx_bytes), ("tx", counters.tx_datagrams, counters.tx_bytes)]
    {
        let labels = || [path.into(), direction.into(), worker()];
        to.add(&PACKETS, labels(), packets);
        to.add(&BYTES, labels(), bytes);
    }
    let events = [
        ("rx_checksum_partial", counters.rx_checksum_partial),
        ("rx_bursts", counters.rx_bursts),
        ("tx_no_route", counters.tx_no_route),
        ("tx_completed", counters.tx_completed),
        ("syscalls", counters.syscalls),
    ];
    for (event, n) in events {
        to.add(&PORT_EVENTS, [path, event], n);
    }
}

/// Each reason that there is, also while it is zero: a rate has to see the first drop.
fn collect_drops(snapshots: &[WorkerSnapshot], to: &mut Collected) {
    for snapshot in snapshots {
        let ports = snapshot.ports.iter().flat_map(|port| port.counters.drops.iter());
        let drops = ports.chain(snapshot.hand_over.drops()).chain(snapshot.drops.iter().copied());
        for (reason, n) in drops {
            to.add(&DROPS, [reason], n);
        }
    }
}

fn collect_share(snapshots: &[WorkerSnapshot], to: &mut Collected) {
    let moved = |port: &port::Counters| port.rx_datagrams + port.tx_datagrams;
    let fast: u64 = snapshots.iter().flat_map(fast).map(moved).sum();
    let slow: u64 = snapshots.iter().flat_map(slow).map(moved).sum();
    if fast + slow > 0 {
        to.set(&SLOW_PATH_RATIO, Value::Real(slow as f64 / (fast + slow) as f64));
    }
}

fn collect_cache(report: CacheReport, to: &mut Collected) {
    let CacheReport { name, local, shared, disk } = report;
    for (level, report) in [("worker", local), ("shared", shared), ("disk", disk)] {
        let Some(report) = report else { continue };
        let numbers = [
            (&CACHE_HITS, report.hits),
            (&CACHE_NEGATIVE, report.negative),
            (&CACHE_MISSES, report.misses),
            (&CACHE_EVICTIONS, report.evictions),
            (&CACHE_EXPIRED, report.expired),
            (&CACHE_LOST, report.lost),
            (&CACHE_ENTRIES, report.entries),
            (&CACHE_BYTES, report.bytes),
        ];
        for (spec, n) in numbers {
            to.add(spec, [name, level], n);
        }
    }
}
