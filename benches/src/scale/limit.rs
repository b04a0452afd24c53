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
    /// What keeps them out.
    pub bound: Bound,
}

/// A gateway's limit.
#[derive(Clone, Debug)]
pub enum Bound {
    /// `--max-connections`, on its one worker: exactly so many.
    Connections(u32),
    /// `--memory-limit`, as its flag takes it: fewer than are tried.
    Memory(String),
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
    let tunnels = limit.tunnels;
    let mut common = common.clone();
    let flags = &mut common.gateway.flags;
    let fit = match &limit.bound {
        Bound::Connections(max) => {
            ensure!(*max < tunnels, "--max-connections {max} refuses nobody of {tunnels}");
            flags.extend(["--max-connections".into(), max.to_string()]);
            *max
        }
        Bound::Memory(size) => {
            flags.extend(["--memory-limit".into(), size.clone()]);
            0
        }
    };
    if !flags.iter().any(|flag| flag == "--cpus") {
        flags.extend(["--cpus".into(), "0".into()]);
    }
    let mut row = Row { mode: "limit".into(), ..Row::default() };
    let mut run = Run::start(&common, None)?;

    // Those that are sure to fit, then the others.
    let mut took = run.establish(0..fit)?;
    row.must_be("answered of those that fit", run.tally.answered, fit.into());
    took += run.establish(fit..tunnels)?;
    let refused = run.tally.ended.get(&CloseReason::Refused.to_string()).copied().unwrap_or(0);
    let live: Vec<u32> = (0..tunnels).filter(|&number| run.fleet.is_open(number)).collect();
    let count = live.len() as u64;
    row.setup_per_s = ratio(count as f64, took.as_secs_f64());
    row.must_be("ended in all", run.tally.ended.values().sum(), refused);
    row.must_be("answered in all", run.tally.answered, count);
    row.must_be("refused (CONNECTION_REFUSED) and answered", refused + count, tunnels.into());
    match limit.bound {
        Bound::Connections(max) => row.must_be("answered", count, max.into()),
        Bound::Memory(_) => {
            row.must_be("some were refused, and some were not", (refused.min(count) > 0).into(), 1)
        }
    }
    let status = run.gateway.status()?;
    let name = match limit.bound {
        Bound::Connections(_) => "refused",
        Bound::Memory(_) => "refused_memory",
    };
    // An Initial that was sent again is refused again.
    if counter(&status, name) < refused {
        row.must_be(&format!("the gateway's `{name}`"), counter(&status, name), refused);
    }
    row.must_be("its connections", status["connections"].as_u64().unwrap_or(0), count);
    let rss_at_limit = run.gateway.memory(&status)?.rss_bytes;

    // Those that are in go on being answered.
    let ended = run.tally.ended.clone();
    run.tally = Tally::new()?;
    let window = run.window()?;
    let asked = run.traffic(&live, ASK_TIME, ASK_TIME)?;
    (row.cpu_percent, _) = run.percent(&window)?;
    row.must_be("answered at the limit", run.tally.answered, asked);
    row.must_be("failed at the limit", run.tally.failed_count(), 0);
    row.p95_ms = run.tally.since_due.percentile_ms(95.0);
    Run::latencies(&mut row, "", &run.tally.since_due)?;

    // Some leave, and as many of those that were refused come in.
    let leave = refused.min(count.div_ceil(2));
    live.iter().take(leave as usize).for_each(|&number| run.fleet.close(number));
    let left = run.until(LEAVE_LIMIT, |run| {
        let connections = run.gateway.status()?["connections"].as_u64();
        Ok(connections == Some(count - leave))
    })?;
    row.must_be("the gateway has seen them leave", left.into(), 1);
    run.tally = Tally::new()?;
    run.establish(tunnels..tunnels + leave as u32)?;
    let came = run.tally.answered;
    row.must_be(
        "of those that came for those that left: answered or refused",
        came + run.tally.ended.values().sum::<u64>(),
        leave,
    );
    match limit.bound {
        Bound::Connections(_) => row.must_be("of those that came for those that left: answered", came, leave),
        Bound::Memory(_) => row.must_be("some came for those that left", (came > 0).into(), 1),
    }
    let status = run.gateway.status()?;
    row.live = count - leave + came;
    row.must_be("its connections at the end", status["connections"].as_u64().unwrap_or(0), row.live);
    row.set("tried", tunnels)?;
    match &limit.bound {
        Bound::Connections(max) => row.set("connections_max", max)?,
        Bound::Memory(size) => row.set("memory_limit", size)?,
    }
    row.set("rss_at_limit_bytes", rss_at_limit)?;
    row.set("refused", refused)?;
    row.set(
        "refused_as",
        format!("QUIC error CONNECTION_REFUSED (0x2), stateless; the gateway's counter `{name}`"),
    )?;
    row.set("came_after_others_left", came)?;
    let live = row.live;
    run.describe(&mut row, &status, live)?;
    row.set("ended", ended)?;
    run.end()?;
    Ok(row)
}
