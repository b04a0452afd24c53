//! Tunnels that sleep: what the gateway keeps of each, how one wakes, and what a storm of wakes does.

use super::{
    fleet::Happening,
    gateway::counter,
    latency::Latency,
    report::{Row, ratio},
    run::{Common, Run, Tally},
};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Asleep {
    /// How many sleep.
    pub tunnels: u32,
    /// How many live beside them.
    pub live: u32,
    /// What those that sleep announce: they lapse when they were silent for so long.
    pub lapse: Duration,
    /// How long all are held, with light traffic in those that live.
    pub time: Duration,
    /// Wakes one by one, each beside a request of a live tunnel.
    pub wakes: u32,
    /// Wakes within one second.
    pub storm: u32,
}

/// Beyond their lapse, until the last is gone at both ends.
const LAPSE_LIMIT: Duration = Duration::from_secs(60);
/// Before a wake whose round trips are counted.
const QUIET: Duration = Duration::from_millis(30);
/// What one flight brings comes within this.
const FLIGHT_LIMIT: Duration = Duration::from_millis(500);
const TRIPS_MAX: u32 = 10;
const STORM_LIMIT: Duration = Duration::from_secs(120);
/// Of one live tunnel.
const EVERY: Duration = Duration::from_secs(5);
/// An allocator gives memory back after a while.
const SETTLE: Duration = Duration::from_secs(3);

/// One run.
///
/// # Errors
/// If it could not be run; what went otherwise than it must is in the row.
pub fn asleep(common: &Common, asleep: &Asleep) -> Result<Row> {
    let Asleep { tunnels, live, lapse, .. } = *asleep;
    let mut row = Row { mode: "asleep".into(), live: live.into(), asleep: tunnels.into(), ..Row::default() };
    let sleepers: Vec<u32> = (live..live + tunnels).collect();
    let mut run = Run::start(common, Some((live, lapse)))?;
    let wakes = asleep.wakes.min(tunnels);

    run.establish(0..live)?;
    run.until(SETTLE, |_| Ok(false))?;
    let rss_live = run.gateway.memory(&run.gateway.status()?)?.rss_bytes;
    row.set("rss_live_bytes", rss_live)?;
    let took = run.establish(live..live + tunnels)?;
    row.setup_per_s = ratio(tunnels.into(), took.as_secs_f64());
    row.set("time_to_reach_s", took.as_secs_f64())?;
    row.must_be("answered while they were made", run.tally.answered, u64::from(live) + u64::from(tunnels));
    row.must_be("failed while they were made", run.tally.failed_count(), 0);

    fall_asleep(&mut run, &mut row, asleep)?;
    let window = run.window()?;
    let numbers: Vec<u32> = (0..live).collect();
    run.tally = Tally::new()?;
    let asked = if live > 0 { run.traffic(&numbers, EVERY, asleep.time)? } else { 0 };
    (row.cpu_percent, _) = run.percent(&window)?;
    row.must_be("answered of the live ones", run.tally.answered, asked);
    let status = run.gateway.status()?;
    let held = run.gateway.memory(&status)?;
    let per_tunnel = ratio(held.rss_bytes.saturating_sub(rss_live) as f64, tunnels.into());
    row.set("rss_asleep_bytes", held.rss_bytes)?;
    row.must_be(
        "tunnels that the gateway says are asleep",
        status["asleep"].as_u64().unwrap_or(0),
        tunnels.into(),
    );
    let (tickets, tokens) = run.fleet.kept();
    row.must_be("tunnels with a ticket", tickets, u64::from(live) + u64::from(tunnels));
    row.must_be("tunnels with a token", tokens, u64::from(live) + u64::from(tunnels));

    wake_one_by_one(&mut run, &mut row, &sleepers[..wakes as usize], live > 0)?;
    let stormers = &sleepers[wakes as usize..];
    let stormers = &stormers[..stormers.len().min(asleep.storm as usize)];
    if !stormers.is_empty() {
        storm(&mut run, &mut row, stormers)?;
    }
    fall_asleep(&mut run, &mut row, asleep)?;
    run.until(SETTLE, |_| Ok(false))?;
    let status = run.gateway.status()?;
    row.must_be("asleep in the end", status["asleep"].as_u64().unwrap_or(0), tunnels.into());
    let woken = u64::from(wakes) + stormers.len() as u64;
    row.must_be("the gateway's `early_connections`", counter(&status, "early_connections"), woken);
    run.describe(&mut row, &status, tunnels.into())?;
    row.bytes_per_tunnel = per_tunnel;
    row.set("rss_after_storm_bytes", row.rss_bytes)?;
    row.rss_bytes = held.rss_bytes;
    row.set("rss_file_bytes", held.file_bytes)?;
    row.set("lapse_s", lapse.as_secs_f64())?;
    row.set("users", common.gateway.users)?;
    run.end()?;
    Ok(row)
}

/// Waits until none is left but those that live, at both ends.
fn fall_asleep(run: &mut Run, row: &mut Row, asleep: &Asleep) -> Result<()> {
    let live = asleep.live as usize;
    let mut look_at = Instant::now();
    let lapsed = run.until(asleep.lapse + LAPSE_LIMIT, |run| {
        if run.fleet.connections() > live || run.fleet.now() < look_at {
            return Ok(false);
        }
        look_at = run.fleet.now() + Duration::from_millis(200);
        Ok(run.gateway.status()?["connections"].as_u64() == Some(live as u64))
    })?;
    if !lapsed {
        let seen = &run.gateway.status()?["connections"];
        let here = run.fleet.connections();
        row.problems
            .push(format!("connections that are left: {here} here, {seen} at the gateway, wanted {live}"));
    }
    Ok(())
}

/// A sleeping tunnel's first byte beside a live one's: time, and round trips.
fn wake_one_by_one(run: &mut Run, row: &mut Row, sleepers: &[u32], has_live: bool) -> Result<()> {
    let (mut wake, mut live) = (Latency::new()?, Latency::new()?);
    let (mut wake_trips, mut live_trips) = (Vec::new(), Vec::new());
    run.tally = Tally::new()?;
    for &number in sleepers {
        if has_live {
            let (took, trips) = first_byte(run, 0)?;
            live.record(took);
            live_trips.push(trips);
        }
        let (took, trips) = first_byte(run, number)?;
        wake.record(took);
        wake_trips.push(trips);
    }
    row.must_be(
        "single wakes whose early data was accepted",
        run.tally.early_accepted,
        sleepers.len() as u64,
    );
    row.set("wakes", sleepers.len())?;
    Run::latencies(row, "wake_", &wake)?;
    Run::latencies(row, "live_", &live)?;
    row.set("wake_round_trips_max", wake_trips.iter().max())?;
    row.set("live_round_trips_max", live_trips.iter().max())?;
    let added = wake.percentile_ms(50.0).zip(live.percentile_ms(50.0)).map(|(wake, live)| wake - live);
    row.set("wake_added_ms", added)
}

/// Asks on a tunnel that is up, or wakes it: how long until the answer, and how many round trips it took. After its first
/// flight this side is silent: only where that brings no answer for a while it may send a second one, and so on. So one
/// round trip means that nothing was needed but the first flight.
fn first_byte(run: &mut Run, number: u32) -> Result<(Duration, u32)> {
    // What others had to say is over, for now.
    run.until(QUIET, |_| Ok(false))?;
    let due = Instant::now();
    run.turn(|_| {})?;
    match run.fleet.is_open(number) {
        true => run.fleet.ask(number, due),
        false => run.fleet.open(number, due).with_context(|| format!("waking tunnel {number}"))?,
    }
    for trips in 1..=TRIPS_MAX {
        run.fleet.send()?;
        let until = Instant::now() + FLIGHT_LIMIT;
        while Instant::now() < until {
            run.fleet.listen(until)?;
            let (mut took, mut failed) = (None, None);
            run.turn(|happening| match happening {
                Happening::Answered { number: of, since_due, .. } if *of == number => took = Some(*since_due),
                Happening::Failed { number: of, why } if *of == number => failed = Some(why.clone()),
                _ => {}
            })?;
            match (took, failed) {
                (Some(took), _) => return Ok((took, trips)),
                (None, Some(why)) => bail!("the first byte of tunnel {number}: {why}"),
                (None, None) => {}
            }
        }
    }
    bail!("tunnel {number} has no first byte after {TRIPS_MAX} round trips")
}

/// All of them within one second, evenly.
fn storm(run: &mut Run, row: &mut Row, sleepers: &[u32]) -> Result<()> {
    let count = sleepers.len() as u64;
    let before = run.gateway.status()?;
    run.tally = Tally::new()?;
    let window = run.window()?;
    let began = Instant::now();
    let due = |at: usize| began + Duration::from_secs(1).mul_f64(at as f64 / sleepers.len() as f64);
    let mut next = 0;
    loop {
        let more = run.turn(|_| {})?;
        let now = run.fleet.now();
        // Some at a time, so that what comes is taken meanwhile.
        for _ in 0..32 {
            if next < sleepers.len() && due(next) <= now {
                run.fleet.open(sleepers[next], due(next)).context("waking a tunnel")?;
                next += 1;
            }
        }
        let done = run.tally.answered + run.tally.failed_count();
        if next == sleepers.len() && done >= count || now > began + STORM_LIMIT {
            break;
        }
        run.rest(more, (next < sleepers.len()).then(|| due(next)))?;
    }
    let took = began.elapsed();
    let (gateway, own) = run.percent(&window)?;
    let after = run.gateway.status()?;
    let more = |name: &str| counter(&after, name).saturating_sub(counter(&before, name));
    let dropped = |name: &str| {
        let of = |status: &serde_json::Value| status["drops"][name].as_u64().unwrap_or(0);
        of(&after).saturating_sub(of(&before))
    };
    row.must_be("wakes of the storm that were answered", run.tally.answered, count);
    row.must_be("flows of the storm that failed", run.tally.failed_count(), 0);
    row.must_be("wakes of the storm whose early data was accepted", run.tally.early_accepted, count);
    row.p95_ms = run.tally.since_due.percentile_ms(95.0);
    row.set("storm_wakes", count)?;
    row.set("storm_took_s", took.as_secs_f64())?;
    row.set("storm_failed", run.tally.failed_count())?;
    row.set("storm_early_accepted", run.tally.early_accepted)?;
    row.set("storm_early_refused", run.tally.early_refused)?;
    row.set("storm_sent_again", run.tally.sent_again)?;
    row.set("storm_retries", more("retries_sent"))?;
    row.set("storm_initials_dropped", dropped("drop_initial_queue_full"))?;
    row.set("storm_cpu_percent", gateway)?;
    row.set("storm_own_cpu_percent", own)?;
    Run::latencies(row, "storm_", &run.tally.since_due)?;
    Run::latencies(row, "storm_since_sent_", &run.tally.since_sent)
}
