//! A gateway and its tunnels, and what has become of them so far: what all modes share.

use super::{
    ask::Wanted,
    dial::FleetConfig,
    fleet::{Fleet, Happening},
    gateway::{Gateway, GatewayConfig, counter},
    latency::Latency,
    process::Process,
    report::{Row, ratio},
    sources::Sources,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// What all modes need.
#[derive(Clone, Debug)]
pub struct Common {
    /// The gateway.
    pub gateway: GatewayConfig,
    /// Addresses that tunnels come from.
    pub sources: Sources,
    /// Kernel sockets that they share.
    pub sockets: u16,
    /// What requests are for.
    pub wanted: Wanted,
    /// Interval of keep-alives.
    pub keep_alive: Option<Duration>,
    /// Handshakes under way at once.
    pub in_flight: u32,
}

/// Set by a signal: the run ends as soon as may be, and takes its gateway with it.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Nothing happens for so long: the run is given up.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// How often to look at the clock while waiting.
const LOOK: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Run {
    pub(super) gateway: Gateway,
    pub(super) fleet: Fleet,
    pub(super) tally: Tally,
    in_flight: u32,
    /// The gateway's memory when it was ready.
    rss_before: u64,
    own_rss_before: u64,
}

/// Sums of what has happened.
pub(super) struct Tally {
    pub(super) up: u64,
    pub(super) answered: u64,
    pub(super) early_accepted: u64,
    pub(super) early_refused: u64,
    pub(super) sent_again: u64,
    /// Requests that came to nothing, by why.
    pub(super) failed: BTreeMap<String, u64>,
    /// Connections that ended, by why.
    pub(super) ended: BTreeMap<String, u64>,
    pub(super) since_due: Latency,
    pub(super) since_sent: Latency,
}

impl Tally {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            up: 0,
            answered: 0,
            early_accepted: 0,
            early_refused: 0,
            sent_again: 0,
            failed: BTreeMap::new(),
            ended: BTreeMap::new(),
            since_due: Latency::new()?,
            since_sent: Latency::new()?,
        })
    }

    fn take(&mut self, happening: &Happening) {
        match happening {
            Happening::Up { early, .. } => {
                self.up += 1;
                self.early_accepted += u64::from(*early == Some(true));
                self.early_refused += u64::from(*early == Some(false));
            }
            Happening::Answered { since_due, since_sent, sent_again, .. } => {
                self.answered += 1;
                self.sent_again += u64::from(*sent_again);
                self.since_due.record(*since_due);
                self.since_sent.record(*since_sent);
            }
            Happening::Failed { why, .. } => *self.failed.entry(why.clone()).or_default() += 1,
            Happening::Ended { why, .. } => *self.ended.entry(why.to_string()).or_default() += 1,
        }
    }

    pub(super) fn failed_count(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// CPU time of the gateway and of this process from here on.
pub(super) struct Window {
    began: Instant,
    gateway: Duration,
    own: Duration,
}

impl Run {
    pub(super) fn start(common: &Common, sleepers: Option<(u32, Duration)>) -> Result<Self> {
        let gateway = Gateway::start(common.gateway.clone())?;
        let config = FleetConfig {
            gateway: gateway.address,
            pin: gateway.pin,
            sources: common.sources,
            sockets: common.sockets,
            wanted: common.wanted,
            keep_alive: common.keep_alive,
            sleepers,
        };
        let fleet = Fleet::new(config, gateway.users.clone())?;
        let rss_before = gateway.memory(&gateway.status()?)?.rss_bytes;
        let own_rss_before = Process::own().memory()?.resident_bytes;
        Ok(Self {
            gateway,
            fleet,
            tally: Tally::new()?,
            in_flight: common.in_flight.max(1),
            rss_before,
            own_rss_before,
        })
    }

    /// One turn of the loop; tells what happened, after it was counted.
    pub(super) fn turn(&mut self, mut each: impl FnMut(&Happening)) -> Result<bool> {
        ensure!(!INTERRUPTED.load(Relaxed), "interrupted");
        let more = self.fleet.turn()?;
        while let Some(happening) = self.fleet.next() {
            self.tally.take(&happening);
            each(&happening);
        }
        Ok(more)
    }

    /// Sends, and rests until `until`, but not for long.
    pub(super) fn rest(&mut self, more: bool, until: Option<Instant>) -> Result<()> {
        let look = Instant::now() + LOOK;
        self.fleet.send_and_rest(more, Some(until.map_or(look, |until| until.min(look))))
    }

    /// Opens these tunnels, with so many under way at once, and waits until each has its answer or its end.
    pub(super) fn establish(&mut self, numbers: Range<u32>) -> Result<Duration> {
        let began = Instant::now();
        let mut settled = vec![false; numbers.len()];
        let (mut next, mut left, mut under_way) = (numbers.start, numbers.len(), 0);
        let mut last = began;
        while left > 0 {
            let mut settle = 0;
            let more = self.turn(|happening| {
                let (Happening::Answered { number, .. }
                | Happening::Failed { number, .. }
                | Happening::Ended { number, .. }) = happening
                else {
                    return;
                };
                let place = number.checked_sub(numbers.start).and_then(|at| settled.get_mut(at as usize));
                settle += usize::from(place.is_some_and(|place| !std::mem::replace(place, true)));
            })?;
            left -= settle;
            under_way -= settle as u32;
            let now = self.fleet.now();
            if settle > 0 {
                last = now;
            } else if now.saturating_duration_since(last) > STALL_LIMIT {
                bail!(
                    "{left} tunnels of {} have neither an answer nor an end: {:?}",
                    numbers.len(),
                    self.tally.failed
                );
            }
            while under_way < self.in_flight && next < numbers.end {
                self.fleet.open(next, now).with_context(|| format!("tunnel {next}"))?;
                (next, under_way) = (next + 1, under_way + 1);
            }
            self.rest(more, None)?;
        }
        Ok(began.elapsed())
    }

    /// Asks one of `numbers` after the other, evenly over `each` of them, for `time`; waits for the last answers.
    pub(super) fn traffic(&mut self, numbers: &[u32], each: Duration, time: Duration) -> Result<u64> {
        let began = Instant::now();
        let interval = each.div_f64(numbers.len().max(1) as f64);
        let count = (time.as_secs_f64() / interval.as_secs_f64()) as u64;
        let due = |at: u64| began + interval.mul_f64(at as f64);
        let (mut asked, mut done) = (0, 0);
        let mut last = began;
        loop {
            let mut heard = 0;
            let more = self.turn(|happening| {
                heard +=
                    u64::from(matches!(happening, Happening::Answered { .. } | Happening::Failed { .. }));
            })?;
            done += heard;
            let now = self.fleet.now();
            if heard > 0 || asked == done {
                last = now;
            } else if now.saturating_duration_since(last) > STALL_LIMIT {
                bail!("{} requests of {asked} have no answer", asked - done);
            }
            while asked < count && due(asked) <= now {
                self.fleet.ask(numbers[(asked % numbers.len() as u64) as usize], due(asked));
                asked += 1;
            }
            if now >= began + time && done >= asked && asked == count {
                return Ok(asked);
            }
            let next = if asked < count { due(asked) } else { began + time };
            self.rest(more, Some(next))?;
        }
    }

    /// Goes on until `done` says so, which is asked each time that something may have changed. False: not within `limit`.
    pub(super) fn until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<bool> {
        let limit = Instant::now() + limit;
        loop {
            let more = self.turn(|_| {})?;
            if done(self)? {
                return Ok(true);
            }
            if self.fleet.now() > limit {
                return Ok(false);
            }
            self.rest(more, None)?;
        }
    }

    pub(super) fn window(&self) -> Result<Window> {
        let (gateway, own) = (self.gateway.process().cpu()?, Process::own().cpu()?);
        Ok(Window { began: Instant::now(), gateway, own })
    }

    /// Percent of a core since then: the gateway's, and this process'.
    pub(super) fn percent(&self, since: &Window) -> Result<(f64, f64)> {
        let wall = since.began.elapsed().as_secs_f64();
        let gateway = self.gateway.process().cpu()?.saturating_sub(since.gateway);
        let own = Process::own().cpu()?.saturating_sub(since.own);
        Ok((ratio(gateway.as_secs_f64() * 100.0, wall), ratio(own.as_secs_f64() * 100.0, wall)))
    }

    /// Fills in what every mode reports.
    pub(super) fn describe(&self, row: &mut Row, status: &Value, tunnels: u64) -> Result<()> {
        let held = self.gateway.memory(status)?;
        (row.rss_bytes, row.umem_bytes) = (held.rss_bytes, held.umem_bytes);
        row.bytes_per_tunnel = ratio(held.rss_bytes.saturating_sub(self.rss_before) as f64, tunnels as f64);
        let own = Process::own().memory()?.resident_bytes;
        row.set("rss_file_bytes", held.file_bytes)?;
        row.set("rss_before_bytes", self.rss_before)?;
        row.set("own_rss_bytes", own)?;
        row.set(
            "own_bytes_per_tunnel",
            ratio(own.saturating_sub(self.own_rss_before) as f64, tunnels as f64),
        )?;
        row.set("private_dirty_bytes", held.private_dirty_bytes)?;
        row.set("gateway_flags", &self.gateway.flags)?;
        row.set("workers", status["workers"].as_array().map_or(0, Vec::len))?;
        row.set("xdp_mode", &status["workers"][0]["xdp_mode"])?;
        row.set("gateway_counters", &status["counters"])?;
        row.set("gateway_drops", &status["drops"])?;
        row.set("own_drops", self.fleet.drops().into_iter().collect::<BTreeMap<_, _>>())?;
        row.set("failed", &self.tally.failed)?;
        row.set("ended", &self.tally.ended)?;
        row.set("retries_sent", counter(status, "retries_sent"))?;
        row.set("in_flight", self.in_flight)
    }

    /// Latencies under these names: `PREFIXp50_ms` and so on.
    pub(super) fn latencies(row: &mut Row, prefix: &str, latency: &Latency) -> Result<()> {
        for (name, percent) in [("p50", 50.0), ("p95", 95.0), ("p99", 99.0), ("max", 100.0)] {
            let key = format!("{prefix}{name}_ms");
            if key != "p95_ms" {
                row.set(&key, latency.percentile_ms(percent))?;
            }
        }
        row.set(&format!("{prefix}latency_ms"), latency.curve_ms())
    }

    /// Connections that clients have proved to be theirs, as the gateway counts them.
    pub(super) fn authenticated(&self) -> Result<u64> {
        let shown = self.gateway.show("clients")?;
        let rows = shown["rows"].as_array().context("beam show clients: no rows")?;
        Ok(rows.iter().filter_map(|row| row["connections"].as_u64()).sum())
    }

    /// Closes everything in order.
    pub(super) fn end(mut self) -> Result<()> {
        self.fleet.close_all();
        self.until(Duration::from_secs(20), |run| Ok(run.fleet.connections() == 0))?;
        self.gateway.stop()
    }
}
