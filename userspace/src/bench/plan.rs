//! Which jobs the flags of `beam bench run` name.

use crate::{
    cli::BenchRunArgs,
    failure::Failure,
    worker::bench::{self, DatagramSpec, HandshakeSpec, JobSpec, LoadSpec, Pace, StreamSpec, UNLIMITED},
};
use anyhow::anyhow;
use std::time::Duration;

/// Of the small requests that measure latency.
const PROBES_PER_SECOND: f64 = 200.0;
/// Each stream of a load that keeps to a rate.
const LOAD_STREAM_BYTES: u64 = 64 << 10;
/// A run that shows whether it works.
const QUICK: Duration = Duration::from_millis(500);

/// `--quick` in the flags that it stands for.
pub(super) fn quickened(args: &BenchRunArgs) -> BenchRunArgs {
    let mut args = args.clone();
    if args.quick {
        (args.time, args.omit, args.runs) = (QUICK, Duration::ZERO, 1);
    }
    args
}

/// What clap can't judge.
pub(super) fn must_fit(args: &BenchRunArgs) -> Result<(), Failure> {
    let size = args.size.unwrap_or(u64::MAX);
    if args.datagrams && size < bench::HEAD_BYTES as u64 {
        return Err(Failure::Config(anyhow!(
            "--size {size}: a datagram needs {} bytes for its number and its instant; give at least that",
            bench::HEAD_BYTES
        )));
    }
    if args.time.is_zero() {
        return Err(Failure::Config(anyhow!(
            "--time 0 measures nothing; give a time such as 10s, or --count N"
        )));
    }
    let is_throughput = args.rps.is_none() && args.hps.is_none() && !args.datagrams;
    if args.count.is_some() && args.size.is_none() && is_throughput && !args.latency {
        return Err(Failure::Config(anyhow!(
            "--count of streams without end is never reached; give --size BYTES beside it"
        )));
    }
    if args.count.is_some() && args.load.is_some() {
        return Err(Failure::Config(anyhow!("--load goes by the clock: give --time instead of --count")));
    }
    Ok(())
}

/// The tests that flags name, but for those under load.
pub(super) fn plan(args: &BenchRunArgs) -> Vec<(&'static str, JobSpec)> {
    let pace = |rate: f64| if rate > 0.0 { Pace::PerSecond(rate) } else { Pace::Parallel(args.parallel) };
    if let Some(rate) = args.hps {
        let spec = HandshakeSpec {
            kind: args.handshake,
            pace: pace(rate),
            size: args.size,
            omit: args.omit,
            time: time(args),
            count: args.count,
        };
        return vec![("handshakes", JobSpec::Handshakes(spec))];
    }
    if let Some(rate) = args.rps {
        let load = LoadSpec { name: "requests", pace: pace(rate), up: 0, down: args.size.unwrap_or(1000) };
        return vec![("requests", streams(args, vec![load]))];
    }
    if args.datagrams {
        let size = args.size.unwrap_or(1000).min(u64::from(u16::MAX)) as usize;
        let spec = DatagramSpec {
            connections: args.connections,
            size,
            per_second: (args.bitrate > 0.0).then(|| args.bitrate / (8 * size) as f64),
            omit: args.omit,
            time: time(args),
            count: args.count,
        };
        return vec![("datagrams", JobSpec::Datagrams(spec))];
    }
    if args.latency {
        return vec![("latency", streams(args, vec![probes(args)]))];
    }
    vec![("throughput", streams(args, bulk(args)))]
}

fn time(args: &BenchRunArgs) -> Option<Duration> {
    args.count.is_none().then_some(args.time)
}

pub(super) fn streams(args: &BenchRunArgs, loads: Vec<LoadSpec>) -> JobSpec {
    JobSpec::Streams(StreamSpec {
        connections: args.connections,
        loads,
        omit: args.omit,
        time: time(args),
        count: args.count,
    })
}

/// Whether this end sends, and whether the server does.
fn ways(args: &BenchRunArgs) -> (bool, bool) {
    (!args.reverse, args.reverse || args.bidir)
}

/// Streams that move as much as goes.
pub(super) fn bulk(args: &BenchRunArgs) -> Vec<LoadSpec> {
    // A size is that of the test's own streams, and latency has small ones.
    let size = args.size.filter(|_| !args.latency).unwrap_or(UNLIMITED);
    let pace = Pace::Parallel(args.parallel);
    let (up, down) = ways(args);
    let up = up.then_some(LoadSpec { name: "up", pace, up: size, down: 0 });
    let down = down.then_some(LoadSpec { name: "down", pace, up: 0, down: size });
    up.into_iter().chain(down).collect()
}

fn probes(args: &BenchRunArgs) -> LoadSpec {
    LoadSpec {
        name: "latency",
        pace: Pace::PerSecond(PROBES_PER_SECOND),
        up: 0,
        down: args.size.unwrap_or(1),
    }
}

/// Probes, and beside them so many bits a second, shared by the ways that they go.
pub(super) fn loaded(args: &BenchRunArgs, bits_per_s: f64) -> Vec<LoadSpec> {
    let (up, down) = ways(args);
    let share = if up && down { 0.5 } else { 1.0 };
    let pace = Pace::PerSecond(share * bits_per_s / (8 * LOAD_STREAM_BYTES) as f64);
    let up = up.then_some(LoadSpec { name: "load up", pace, up: LOAD_STREAM_BYTES, down: 0 });
    let down = down.then_some(LoadSpec { name: "load down", pace, up: 0, down: LOAD_STREAM_BYTES });
    [probes(args)].into_iter().chain(up).chain(down).collect()
}
