//! Measures packet protection: `scripts/bench aead` runs it. See `beam_benches::aead` for what is compared with what.
//!
//! All ways are interleaved: a round measures each case once with each way, and rounds are repeated over the whole run,
//! so that what a neighbour takes for some seconds spoils one round of all ways and not all rounds of one. A case's
//! figure is the lowest of its rounds' medians.

use anyhow::Result;
use beam_benches::{
    aead::{Case, PACKETS, Way},
    clock,
    host::{Host, rounded},
    output::{kept, print_json},
};
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::{io::Write, path::PathBuf};

const ROUNDS: usize = 20;
/// A round measures a case at least so often, and at least for so long.
const PASSES_MIN: usize = 15;
const ROUND_NS_MIN: f64 = 1_000_000.0;

const METHOD: &str = "cycles a packet: time-stamp ticks times the core cycles that a tick is worth beside it (a chain of \
    multiplications of known latency); passes of 32 packets, header 25 B, each way's lowest of the rounds' medians, all ways \
    interleaved in one run. ring and aws-lc-rs: in place, packet by packet. ring-copy: ring out of place, copy included. \
    avx512, avx2, aesni: beam's, out of place, `batch` packets a call. protect: seal, mask, apply (out of place: header \
    copied too). size_bytes: the payload, header and tag apart. ratio_to_ring: how many times as fast as ring, in this run";

#[derive(Parser)]
#[command(
    about = "Cycles a packet of packet protection: ring, aws-lc-rs, and beam's own at each vector level"
)]
struct Arguments {
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// One round of few passes: shows that it works, and measures nothing.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name (cipher/op/size/keys) contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Measures nothing: prints the table of an object that was kept.
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Report {
    schema: String,
    host: Host,
    method: String,
    rounds: usize,
    rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    cipher: String,
    op: String,
    size_bytes: usize,
    keys: usize,
    batch: usize,
    #[serde(rename = "impl")]
    way: String,
    cycles: f64,
    ratio_to_ring: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let out = std::io::stdout().lock();
    if let Some(file) = &arguments.show {
        return print_table(out, &kept(file)?);
    }
    let report = measured(&arguments)?;
    if arguments.json { print_json(out, &report) } else { print_table(out, &report) }
}

fn measured(arguments: &Arguments) -> Result<Report> {
    let cases: Vec<Case> = Case::all().filter(|case| case.to_string().contains(&arguments.only)).collect();
    anyhow::ensure!(!cases.is_empty(), "no case is named like `{}`", arguments.only);
    let host = Host::seen();
    let ways = Way::available();
    let rounds = if arguments.quick { 1 } else { ROUNDS };
    let mut lowest = vec![vec![f64::INFINITY; ways.len()]; cases.len()];
    for _ in 0..rounds {
        for (case, lowest) in cases.iter().zip(&mut lowest) {
            for (way, lowest) in ways.iter().zip(lowest) {
                *lowest = lowest.min(median_cycles(case, *way, arguments.quick));
            }
        }
    }
    let rows = rows(&cases, &ways, &lowest);
    Ok(Report { schema: "beam.bench.aead.v1".into(), host, method: METHOD.into(), rounds, rows })
}

/// Cycles a packet: the median of one round's passes.
fn median_cycles(case: &Case, way: Way, quick: bool) -> f64 {
    let cycles_per_tick = clock::cycles_per_tick();
    let reading = clock::reading_ticks();
    let budget = if quick { 0.0 } else { ROUND_NS_MIN * clock_ticks_per_ns() };
    let mut median = 0.0;
    case.with_pass(way, &mut |pass| {
        let (mut ticks, mut spent) = (Vec::new(), 0.0);
        while ticks.len() < PASSES_MIN || spent < budget {
            let pass = pass().saturating_sub(reading);
            spent += pass as f64;
            ticks.push(pass);
        }
        ticks.sort_unstable();
        median = ticks[ticks.len() / 2] as f64;
    });
    median * cycles_per_tick / PACKETS as f64
}

fn clock_ticks_per_ns() -> f64 {
    static RATE: std::sync::LazyLock<clock::Rate> = std::sync::LazyLock::new(clock::Rate::measured);
    RATE.ticks_per_ns
}

fn rows(cases: &[Case], ways: &[Way], lowest: &[Vec<f64>]) -> Vec<Row> {
    let of_case = |(case, lowest): (&Case, &Vec<f64>)| {
        let row = |(way, cycles): (&Way, &f64)| Row {
            cipher: case.cipher.name().into(),
            op: case.op.name().into(),
            size_bytes: case.size_bytes,
            keys: case.keys,
            batch: case.batch,
            way: way.name().into(),
            cycles: (cycles * 10.0).round() / 10.0,
            // ring is the first way.
            ratio_to_ring: rounded(lowest[0] / cycles),
        };
        ways.iter().zip(lowest).map(row).collect::<Vec<_>>()
    };
    cases.iter().zip(lowest).flat_map(of_case).collect()
}

/// A block for each cipher, operation and shape; a line for each size; a column for each way.
fn print_table(mut out: impl Write, report: &Report) -> Result<()> {
    writeln!(out, "{}", report.host)?;
    writeln!(
        out,
        "cycles a packet, and in brackets how many times as fast as ring; lowest of {} medians",
        report.rounds
    )?;
    let mut block = None;
    // A line is ring and who is compared with it.
    for line in report.rows.chunk_by(|_, next| next.way != "ring") {
        let first = &line[0];
        let this = (&first.cipher, &first.op, first.keys, first.batch);
        if block != Some(this) {
            block = Some(this);
            let keys = if first.keys == 1 { "one key".into() } else { format!("{} keys", first.keys) };
            write!(
                out,
                "\n{} {}, {keys}, batches of {}\n{:>8}",
                first.cipher, first.op, first.batch, "bytes"
            )?;
            line.iter().try_for_each(|row| write!(out, "{:>17}", row.way))?;
            writeln!(out)?;
        }
        write!(out, "{:>8}", first.size_bytes)?;
        for row in line {
            write!(out, "{:>9.0} [{:>5.2}]", row.cycles, row.ratio_to_ring)?;
        }
        writeln!(out)?;
    }
    Ok(())
}
