//! More tunnels than the gateway may have: who is refused, how, and what becomes of the others.

use super::{
    gateway::counter,
    report::{Row, ratio},
    run::{Common, Run, Tally},
};
use anyhow::{Result, ensure};
use std::time::Duration;
use tunnel::CloseReason;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Limit {
    /// How many tunnels are opened.
    pub tunnels: u32,
    /// How many the gateway may have (`--max-connections`, on its one worker).
    pub connections_max: u32,
}

/// Closing connections stay for three probe timeouts.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);
/// Each that is in is asked once, spread over this.
const ASK_TIME: Duration = Duration::from_secs(2);

/// One run. The gateway has one worker, since its limit is one a worker.
///
/// # Errors
/// If it could not be run; what went otherwise than it must is in the row.
pub fn limit(common: &Common, limit: &Limit) -> Result<Row> {
    let Limit { tunnels, connections_max } = *limit;
    ensure!(connections_max < tunnels, "--max-connections {connections_max} refuses nobody of {tunnels}");
    let excess = tunnels - connections_max;
    let mut common = common.clone();
    let flags = &mut common.gateway.flags;
    flags.extend(["--max-connections".into(), connections_max.to_string()]);
    if !flags.iter().any(|flag| flag == "--cpus") {
        flags.extend(["--cpus".into(), "0".into()]);
    }
    let mut row = Row { mode: "limit".into(), ..Row::default() };
    let mut run = Run::start(&common, None)?;

    // Those that fit, then the excess.
    let took = run.establish(0..connections_max)?;
    row.setup_per_s = ratio(connections_max.into(), took.as_secs_f64());
    row.must_be("answered of those that fit", run.tally.answered, connections_max.into());
    run.establish(connections_max..tunnels)?;
    let refused = run.tally.ended.get(&CloseReason::Refused.to_string()).copied().unwrap_or(0);
    row.must_be("refused of the excess (CONNECTION_REFUSED)", refused, excess.into());
    row.must_be("ended in all", run.tally.ended.values().sum(), excess.into());
    row.must_be("answered in all", run.tally.answered, connections_max.into());
    let status = run.gateway.status()?;
    // An Initial that was sent again is refused again.
    if counter(&status, "refused") < u64::from(excess) {
        row.must_be("the gateway's `refused`", counter(&status, "refused"), excess.into());
    }
    row.must_be("its connections", status["connections"].as_u64().unwrap_or(0), connections_max.into());

    // Those that are in go on being answered.
    let ended = run.tally.ended.clone();
    run.tally = Tally::new()?;
    let numbers: Vec<u32> = (0..connections_max).collect();
    let window = run.window()?;
    let asked = run.traffic(&numbers, ASK_TIME, ASK_TIME)?;
    (row.cpu_percent, _) = run.percent(&window)?;
    row.must_be("answered at the limit", run.tally.answered, asked);
    row.must_be("failed at the limit", run.tally.failed_count(), 0);
    row.p95_ms = run.tally.since_due.percentile_ms(95.0);
    Run::latencies(&mut row, "", &run.tally.since_due)?;

    // Some leave, and as many of the excess come in.
    let leave = excess.min(connections_max);
    (0..leave).for_each(|number| run.fleet.close(number));
    let left = run.until(LEAVE_LIMIT, |run| {
        let connections = run.gateway.status()?["connections"].as_u64();
        Ok(connections == Some(u64::from(connections_max - leave)))
    })?;
    row.must_be("the gateway has seen them leave", left.into(), 1);
    run.tally = Tally::new()?;
    run.establish(connections_max..connections_max + leave)?;
    row.must_be("answered of those that came for those that left", run.tally.answered, leave.into());
    row.must_be("ended of them", run.tally.ended.values().sum(), 0);
    let status = run.gateway.status()?;
    row.must_be(
        "its connections at the end",
        status["connections"].as_u64().unwrap_or(0),
        connections_max.into(),
    );
    row.live = connections_max.into();
    row.set("tried", tunnels)?;
    row.set("connections_max", connections_max)?;
    row.set("refused", refused)?;
    row.set("refused_as", "QUIC error CONNECTION_REFUSED (0x2), stateless; the gateway's counter `refused`")?;
    row.set("came_after_others_left", leave)?;
    run.describe(&mut row, &status, connections_max.into())?;
    row.set("ended", ended)?;
    run.end()?;
    Ok(row)
}
