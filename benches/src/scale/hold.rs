//! Holds tunnels, with light traffic in each.

use super::{
    gateway::counter,
    report::{Row, ratio},
    run::{Common, Run, Tally},
};
use anyhow::Result;
use std::time::Duration;

/// What is held.
#[derive(Clone, Debug)]
pub struct Hold {
    /// How many tunnels.
    pub tunnels: u32,
    /// Each has a request so often; `None`: so that all together have [`REQUESTS_PER_SECOND`].
    pub every: Option<Duration>,
    /// For how long.
    pub time: Duration,
    /// Before that, for how long there are keep-alives only.
    pub idle: Duration,
}

/// Of all tunnels together.
const REQUESTS_PER_SECOND: f64 = 400.0;
/// No tunnel has more than one a second of its own accord.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// One run: a fresh gateway, its tunnels, and their row.
///
/// # Errors
/// If it could not be run; what went otherwise than it must is in the row.
pub fn hold(common: &Common, hold: &Hold) -> Result<Row> {
    let count = u64::from(hold.tunnels);
    let mut row = Row { mode: "hold".into(), live: count, ..Row::default() };
    let mut run = Run::start(common, None)?;
    let took = run.establish(0..hold.tunnels)?;
    row.setup_per_s = ratio(count as f64, took.as_secs_f64());
    row.set("time_to_reach_s", took.as_secs_f64())?;
    Run::latencies(&mut row, "setup_", &run.tally.since_due)?;
    row.must_be("tunnels that were answered while they were made", run.tally.answered, count);

    if !hold.idle.is_zero() {
        let window = run.window()?;
        run.until(hold.idle, |_| Ok(false))?;
        let (gateway, own) = run.percent(&window)?;
        row.set("idle_cpu_percent", gateway)?;
        row.set("idle_own_cpu_percent", own)?;
    }

    let failed_before = run.tally.failed_count();
    let before = std::mem::replace(&mut run.tally, Tally::new()?);
    (run.tally.failed, run.tally.ended) = (before.failed, before.ended);
    let every = hold
        .every
        .unwrap_or_else(|| Duration::from_secs_f64(count as f64 / REQUESTS_PER_SECOND).max(EVERY_MIN));
    let numbers: Vec<u32> = (0..hold.tunnels).collect();
    let window = run.window()?;
    let asked = run.traffic(&numbers, every, hold.time)?;
    let (gateway, own) = run.percent(&window)?;
    row.cpu_percent = gateway;
    row.set("own_cpu_percent", own)?;
    row.set("every_s", every.as_secs_f64())?;
    row.set("keep_alive_s", common.keep_alive.map(|interval| interval.as_secs_f64()))?;
    row.set("held_s", (hold.time + hold.idle).as_secs_f64())?;
    row.set("users", common.gateway.users)?;
    row.set("requests", asked)?;
    row.set("answered", run.tally.answered)?;
    row.p95_ms = run.tally.since_due.percentile_ms(95.0);
    Run::latencies(&mut row, "", &run.tally.since_due)?;

    row.must_be("requests that were answered while tunnels were held", run.tally.answered, asked);
    row.must_be("requests that failed", run.tally.failed_count() + failed_before, 0);
    row.must_be("tunnels that ended", run.tally.ended.values().sum(), 0);
    let status = run.gateway.status()?;
    row.must_be("the gateway's connections", status["connections"].as_u64().unwrap_or(0), count);
    row.must_be("its handshakes that were done", counter(&status, "handshakes_completed"), count);
    row.must_be("its handshakes that failed", counter(&status, "handshakes_failed"), 0);
    let authenticated = run.authenticated()?;
    row.must_be("its connections that are some client's", authenticated, count);
    row.set("authenticated", authenticated)?;
    run.describe(&mut row, &status, count)?;
    run.end()?;
    Ok(row)
}
