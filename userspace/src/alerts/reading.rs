//! What the rules are judged by: two samples of a daemon, a look apart, and the quantities between them.
//!
//! A sample costs each worker one snapshot, the same as `beam status` asks for.

use super::quantity::Quantity;
use crate::{
    cli::{PathArgs, XdpMode},
    identity,
    metrics::{self, ProcessStatus},
    supervisor::{self, Supervisor},
    worker::{
        meters::{Meter, Meters},
        snapshot::WorkerSnapshot,
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Instant, SystemTime},
};

/// Fewer packets a look than this have no share worth an alert: the first of a connection may well take the slow path.
const SHARE_OF_PACKETS_MIN: u64 = 100;

/// The least that this daemon's queues were asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Kernel sockets: nothing can be less.
    Nothing,
    GenericXdp,
    NativeXdp,
}

impl Asked {
    pub(crate) fn of(args: &PathArgs) -> Self {
        match args.xdp {
            XdpMode::Off => Self::Nothing,
            XdpMode::Skb => Self::GenericXdp,
            XdpMode::Auto | XdpMode::Native if args.interfaces.is_empty() => Self::Nothing,
            XdpMode::Auto | XdpMode::Native => Self::NativeXdp,
        }
    }

    fn is_met_by(self, mode: &str) -> bool {
        match self {
            Self::Nothing => true,
            Self::GenericXdp => mode.starts_with("skb") || mode.starts_with("native"),
            Self::NativeXdp => mode.starts_with("native"),
        }
    }
}

/// A daemon at one instant.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    at: Instant,
    /// Every worker answered. Without, the sums below are not to be compared with others.
    pub(super) is_complete: bool,
    process: ProcessStatus,
    /// What the workers have measured since the start.
    pub(super) meters: Box<Meters>,
    /// Of all AF_XDP sockets.
    pub(super) umem_frames: u64,
    certificate_days: Option<f64>,
    drops: BTreeMap<String, u64>,
    /// What isn't a drop and has a meaning all the same (`beam show errors`).
    counters: BTreeMap<String, u64>,
    /// Packets, both ways; `None` without AF_XDP.
    paths: Option<Paths>,
    degraded_queues: u64,
    connections: u64,
    is_ready: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Paths {
    fast: u64,
    slow: u64,
}

impl Sample {
    pub(super) fn take(daemon: &Supervisor, now: Instant) -> Self {
        let snapshots = daemon.snapshots();
        let is_complete = snapshots.len() == daemon.seats.len();
        Self {
            at: now,
            is_complete,
            process: ProcessStatus::now(),
            meters: Box::new(metrics::merged(&snapshots)),
            umem_frames: umem_frames(&snapshots),
            certificate_days: certificate_days(daemon),
            drops: supervisor::drops(&snapshots),
            counters: supervisor::merge(snapshots.iter().flat_map(|s| s.counters.iter().copied())),
            paths: paths(&snapshots),
            degraded_queues: degraded_queues(daemon),
            connections: snapshots.iter().map(|s| s.connections).sum(),
            // Whoever has it drain knows.
            is_ready: daemon.is_draining() || daemon.readiness(&snapshots).is_ok(),
        }
    }
}

/// Of the host; for the default threshold of `memory`.
pub(super) fn total_mebibytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.trim().strip_suffix(" kB")?.parse::<u64>().ok()? / 1024)
}

fn certificate_days(daemon: &Supervisor) -> Option<f64> {
    let not_after_s = identity::not_after_s(&daemon.identity.gateway.as_ref()?.current().leaf)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some((not_after_s as f64 - now.as_secs_f64()) / 86_400.0)
}

fn umem_frames(snapshots: &[WorkerSnapshot]) -> u64 {
    let frames = |worker: &WorkerSnapshot| -> usize {
        let tunnel = worker.ports.iter().filter_map(|port| port.frames);
        tunnel.chain(worker.inner_frames.iter().copied()).map(|census| census.total).sum()
    };
    snapshots.iter().map(|worker| frames(worker) as u64).sum()
}

fn paths(snapshots: &[WorkerSnapshot]) -> Option<Paths> {
    let ports = || snapshots.iter().flat_map(|snapshot| &snapshot.ports);
    ports().find(|port| port.frames.is_some())?;
    let packets = |is_fast: bool| {
        let those = ports().filter(|port| port.frames.is_some() == is_fast);
        those.map(|port| port.counters.rx_datagrams + port.counters.tx_datagrams).sum()
    };
    Some(Paths { fast: packets(true), slow: packets(false) })
}

/// Lanes below what was asked, by their queues, and queues that came later and have no socket.
fn degraded_queues(daemon: &Supervisor) -> u64 {
    let asked = daemon.identity.asked;
    let of_lanes = daemon.seats.iter().map(|seat| {
        let lane = seat.lane();
        if asked.is_met_by(&lane.mode) { 0 } else { lane.queues.len().max(1) }
    });
    let unserved = daemon.interfaces.iter().map(|interface| interface.unserved_queues().len());
    (of_lanes.sum::<usize>() + unserved.sum::<usize>()) as u64
}

/// What the workers had measured at the last few looks, 120 KB each at most, so that a quantile is of more than a second and of
/// nothing that is over.
#[derive(Debug, Default)]
pub(super) struct Lately(VecDeque<Box<Meters>>);

/// Quantiles are of what came within so many looks.
const LATELY_LOOKS: usize = 5;

impl Lately {
    /// Takes the newest in, and says what is new since the oldest.
    pub(super) fn renew(&mut self, now: &Meters) -> Meters {
        let lately = self.0.front().map_or_else(Meters::default, |oldest| now.since(oldest));
        self.0.push_back(Box::new(now.clone()));
        if self.0.len() > LATELY_LOOKS {
            self.0.pop_front();
        }
        lately
    }
}

/// The quantities between two samples; quantiles are of the last few.
pub(super) struct Reading<'a> {
    pub(super) before: &'a Sample,
    pub(super) after: &'a Sample,
    /// What was measured lately.
    pub(super) lately: &'a Meters,
}

impl Reading<'_> {
    /// `None` where it can't be told: there is no such thing here, or nothing happened that has it.
    pub(super) fn value(&self, quantity: &Quantity) -> Option<f64> {
        let Self { before, after, lately: _ } = *self;
        match quantity {
            Quantity::LatencyP50 => self.quantile(Meter::RoundTrip, 0.5),
            Quantity::LatencyP95 => self.quantile(Meter::RoundTrip, 0.95),
            Quantity::LatencyP99 => self.quantile(Meter::RoundTrip, 0.99),
            Quantity::LoopLagP99 => self.quantile(Meter::LoopLag, 0.99),
            Quantity::HandshakeP95 => self.quantile(Meter::Handshake, 0.95),
            Quantity::Drops(None) => self.rate(|sample| sample.drops.values().sum()),
            Quantity::Drops(Some(counter)) => self.rate(|sample| {
                let of = |counts: &BTreeMap<String, u64>| counts.get(counter).copied();
                of(&sample.drops).or_else(|| of(&sample.counters)).unwrap_or(0)
            }),
            Quantity::SlowPath => self.slow_percent(),
            Quantity::ModeDegraded => Some(after.degraded_queues as f64),
            Quantity::Memory => after.process.resident_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)),
            Quantity::Cpu => {
                let used_seconds = after.process.cpu_seconds - before.process.cpu_seconds;
                Some(used_seconds / self.seconds()? * 100.0)
            }
            Quantity::Certificate => after.certificate_days,
            Quantity::Connections => after.is_complete.then_some(after.connections as f64),
            Quantity::NotReady => Some(if after.is_ready { 0.0 } else { 1.0 }),
        }
    }

    /// In seconds.
    fn quantile(&self, meter: Meter, q: f64) -> Option<f64> {
        self.lately.get(meter).quantile(q).map(|us| us as f64 / 1e6)
    }

    fn seconds(&self) -> Option<f64> {
        let seconds = self.after.at.saturating_duration_since(self.before.at).as_secs_f64();
        (seconds > 0.0).then_some(seconds)
    }

    fn is_comparable(&self) -> bool {
        self.before.is_complete && self.after.is_complete
    }

    fn rate(&self, count: impl Fn(&Sample) -> u64) -> Option<f64> {
        let more = self.is_comparable().then(|| count(self.after).saturating_sub(count(self.before)))?;
        Some(more as f64 / self.seconds()?)
    }

    fn slow_percent(&self) -> Option<f64> {
        let (before, after) = (self.before.paths?, self.after.paths?);
        let fast = after.fast.saturating_sub(before.fast);
        let slow = after.slow.saturating_sub(before.slow);
        let is_worth_it = self.is_comparable() && fast + slow >= SHARE_OF_PACKETS_MIN;
        is_worth_it.then(|| slow as f64 / (fast + slow) as f64 * 100.0)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: rates and shares are of what lies between two samples, and what can't be told isn't told.
    use super::*;
    use std::time::Duration;

    fn sample(at: Instant) -> Sample {
        Sample {
            at,
            is_complete: true,
            process: ProcessStatus { resident_bytes: Some(3 << 19), ..ProcessStatus::default() },
            meters: Box::default(),
            umem_frames: 0,
            certificate_days: None,
            drops: BTreeMap::new(),
            counters: BTreeMap::new(),
            paths: None,
            degraded_queues: 0,
            connections: 3,
            is_ready: true,
        }
    }

    #[test]
    fn what_lies_between() {
        let start = Instant::now();
        let before = sample(start);
        let mut after = sample(start + Duration::from_secs(2));
        after.drops = [("rx_checksum".to_owned(), 10), ("tx_error".to_owned(), 4)].into();
        after.counters = [("refused_denied".to_owned(), 6)].into();
        after.process.cpu_seconds = 3.0;
        let lately = Meters::default();
        let value = |after: &Sample, text: &str| {
            let reading = Reading { before: &before, after, lately: &lately };
            reading.value(&Quantity::parse(text).unwrap())
        };
        assert_eq!(value(&after, "drops"), Some(7.0));
        assert_eq!(value(&after, "drops{rx_checksum}"), Some(5.0));
        assert_eq!(value(&after, "drops{refused_denied}"), Some(3.0));
        assert_eq!(value(&after, "drops{rx_martian}"), Some(0.0));
        assert_eq!(value(&after, "cpu"), Some(150.0));
        assert_eq!(value(&after, "connections"), Some(3.0));
        assert_eq!(value(&after, "not_ready"), Some(0.0));
        assert_eq!(value(&after, "slow_path"), None, "there is no AF_XDP");
        assert_eq!(value(&after, "certificate"), None, "a client has none");
        assert_eq!(value(&after, "memory"), Some(1.5));
        assert_eq!(value(&after, "latency_p95"), None, "nothing was measured");
        after.is_complete = false;
        assert_eq!((value(&after, "drops"), value(&after, "connections")), (None, None));
    }

    #[test]
    fn a_share_needs_packets() {
        let start = Instant::now();
        let (mut before, mut after) = (sample(start), sample(start + Duration::from_secs(1)));
        before.paths = Some(Paths { fast: 1000, slow: 10 });
        let share = |paths, after: &mut Sample| {
            after.paths = Some(paths);
            let lately = Meters::default();
            Reading { before: &before, after, lately: &lately }.value(&Quantity::SlowPath)
        };
        assert_eq!(share(Paths { fast: 1000, slow: 109 }, &mut after), None);
        assert_eq!(share(Paths { fast: 1000, slow: 110 }, &mut after), Some(100.0));
        assert_eq!(share(Paths { fast: 1750, slow: 260 }, &mut after), Some(25.0));
    }

    #[test]
    fn quantiles_forget_what_is_over() {
        let (start, mut lately, mut all) = (Instant::now(), Lately::default(), Meters::default());
        let mut p99 = |round_trips: &[u64]| {
            round_trips.iter().for_each(|&us| all.time(Meter::RoundTrip, Duration::from_micros(us)));
            let (now, new) = (sample(start), lately.renew(&all));
            Reading { before: &now, after: &now, lately: &new }.value(&Quantity::LatencyP99)
        };
        assert_eq!(p99(&[]), None);
        let near =
            |value: Option<f64>, truth: f64| value.is_some_and(|value| (value - truth).abs() < truth / 50.0);
        assert!(near(p99(&[20_000; 100]), 0.02));
        for _ in 1..LATELY_LOOKS {
            assert!(near(p99(&[]), 0.02), "it was lately");
        }
        assert!(near(p99(&[50]), 50e-6));
    }

    #[test]
    fn a_mode_is_held_against_what_was_asked() {
        let met = |asked: Asked| {
            ["native-zerocopy", "native-copy", "skb-copy", "off"].map(|mode| asked.is_met_by(mode))
        };
        assert_eq!(met(Asked::NativeXdp), [true, true, false, false]);
        assert_eq!(met(Asked::GenericXdp), [true, true, true, false]);
        assert_eq!(met(Asked::Nothing), [true; 4]);
    }
}
