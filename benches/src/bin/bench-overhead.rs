//! Measures what a part of a worker costs a packet: `scripts/bench metrics` runs it. See `beam_benches::overhead`.

use anyhow::{Context, Result, ensure};
use beam_benches::{
    callgrind::{self, COUNTED_LEVEL, Counts},
    clock::Rate,
    host::{Host, rounded},
    output::{kept, print_json},
    overhead::{Case, Rounds, Subject},
    path::{BURST, Bench},
};
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// As in beam.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 300;
const ROUND_BYTES: u64 = 1_500_000;
const WARM_PACKETS: u64 = 20_000;
/// Under callgrind, which is some fifty times as slow.
const COUNTED_PACKETS: u64 = 20_000;
const COUNTED_WARM_PACKETS: u64 = 2_000;
const MTUS: [u16; 2] = [1200, 1452];

const METHOD: &str = "the path in memory of bench-engine (bulk over one stream, AES-128-GCM, bursts of 32 datagrams, which is more \
    than a lightly loaded worker has: fewer packets a burst share a burst's price), with the part and without, in \
    interleaved rounds of the same program. Sender: write, transmit, take the answers. Receiver: take the burst, read, answer. \
    instructions: callgrind, a datagram, batches at the level named; ns: median of all rounds; percent: what the part adds. \
    metrics: each turn records its time and its burst, each batch its size, round trips once a virtual second. \
    fused-copy: without it each batch is copied once more between QUIC's buffers and the frames, both ways. Not in it: the \
    clock, which metrics read once more only for a sleep without a timer";

#[derive(Parser)]
#[command(about = "Cost of a part of a worker: the path in memory with it and without")]
struct Arguments {
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// One round of few packets: shows that it works, and measures nothing.
    #[arg(long)]
    quick: bool,
    /// Only this part.
    #[arg(long, value_name = "PART", default_value = "")]
    only: String,
    /// Counts instructions, too, with this valgrind.
    #[arg(long, value_name = "PROGRAM")]
    valgrind: Option<PathBuf>,
    /// Measures nothing: prints the table of an object that was kept.
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,
    /// For callgrind: sends packets through the case of this name, and prints how many.
    #[arg(long, value_name = "CASE", hide = true)]
    count: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Report {
    schema: String,
    host: Host,
    method: String,
    rounds: usize,
    /// The vector level of the batches; that of the instructions is valgrind's.
    simd_level: String,
    instructions_level: Option<String>,
    rows: Vec<Row>,
}

/// One part at one MTU.
#[derive(Serialize, Deserialize)]
struct Row {
    part: String,
    mtu: u16,
    out: Side,
    r#in: Side,
}

#[derive(Serialize, Deserialize)]
struct Side {
    instructions_off: Option<f64>,
    instructions_on: Option<f64>,
    instructions_percent: Option<f64>,
    ns_off: f64,
    ns_on: f64,
    ns_percent: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    if let Some(name) = &arguments.count {
        let case = cases("")
            .find(|case| case.name() == *name)
            .with_context(|| format!("no case is named `{name}`"))?;
        let mut bench = case.bench(beam_benches::level()?, COUNTED_WARM_PACKETS);
        return Ok(writeln!(out, "{}", bench.run_counted(COUNTED_PACKETS).packets)?);
    }
    if let Some(file) = &arguments.show {
        return print_table(out, &kept(file)?);
    }
    let report = measured(&arguments)?;
    if arguments.json { print_json(out, &report) } else { print_table(out, &report) }
}

/// Pairs: without the part, and with it.
fn cases(only: &str) -> impl Iterator<Item = Case> {
    let subjects = Subject::ALL.into_iter().filter(move |subject| subject.name().contains(only));
    subjects.flat_map(|subject| {
        MTUS.into_iter().flat_map(move |mtu| [false, true].map(|on| Case { subject, on, mtu }))
    })
}

struct Measured {
    case: Case,
    bench: Bench,
    rounds: Rounds,
    counts: Option<Counts>,
}

fn measured(arguments: &Arguments) -> Result<Report> {
    let (rounds, round_bytes, warm) = match arguments.quick {
        true => (1, 1, 16 * BURST as u64),
        false => (ROUNDS, ROUND_BYTES, WARM_PACKETS),
    };
    let (host, level) = (Host::seen(), beam_benches::level()?);
    let count = |case: &Case, valgrind: &Path| callgrind::counted(valgrind, &case.name());
    let flows: Result<Vec<Measured>> = cases(&arguments.only)
        .map(|case| {
            let counts = arguments.valgrind.as_deref().map(|valgrind| count(&case, valgrind)).transpose()?;
            Ok(Measured { case, bench: case.bench(level, warm), rounds: Rounds::default(), counts })
        })
        .collect();
    let mut flows = flows?;
    ensure!(!flows.is_empty(), "no part is named like `{}`", arguments.only);
    let rate = Rate::measured();
    for round in 0..rounds {
        // Each pair's order changes: what one leaves in the caches, the other finds.
        let count = flows.len();
        for at in 0..count {
            let flow = &mut flows[at ^ (round & 1)];
            let packets = round_bytes.div_ceil(flow.case.mtu.into());
            flow.rounds.add(flow.bench.run(packets), rate.ticks_per_ns);
        }
    }
    Ok(Report {
        schema: "beam.bench.overhead.v1".into(),
        host,
        method: METHOD.into(),
        rounds,
        simd_level: level.name().into(),
        instructions_level: arguments.valgrind.as_ref().map(|_| COUNTED_LEVEL.into()),
        rows: flows.chunks_exact(2).map(|pair| row(&pair[0], &pair[1])).collect(),
    })
}

fn row(off: &Measured, on: &Measured) -> Row {
    let (ns_off, ns_on) = (off.rounds.medians(), on.rounds.medians());
    let counts = off.counts.zip(on.counts);
    let part = |ns: (f64, f64), instructions: Option<(f64, f64)>| Side {
        instructions_off: instructions.map(|(off, _)| rounded(off)),
        instructions_on: instructions.map(|(_, on)| rounded(on)),
        instructions_percent: instructions.map(percent),
        ns_off: rounded(ns.0),
        ns_on: rounded(ns.1),
        ns_percent: percent(ns),
    };
    Row {
        part: off.case.subject.name().into(),
        mtu: off.case.mtu,
        out: part((ns_off.0, ns_on.0), counts.map(|(off, on)| (off.0, on.0))),
        r#in: part((ns_off.1, ns_on.1), counts.map(|(off, on)| (off.1, on.1))),
    }
}

fn percent((off, on): (f64, f64)) -> f64 {
    rounded((on / off - 1.0) * 100.0)
}

fn print_table(mut out: impl Write, report: &Report) -> Result<()> {
    writeln!(out, "{}", report.host)?;
    writeln!(out, "medians of {} interleaved rounds; batches at {}", report.rounds, report.simd_level)?;
    writeln!(
        out,
        "{:<10} {:>5} {:<4} {:>27} {:>24}",
        "part", "mtu", "side", "instructions a packet", "ns a packet"
    )?;
    for row in &report.rows {
        for (name, side) in [("out", &row.out), ("in", &row.r#in)] {
            let count = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{n:.1}"));
            writeln!(
                out,
                "{:<10} {:>5} {name:<4} {:>9} {:>9} {:>6}%  {:>7.1} {:>7.1} {:>6.2}%",
                row.part,
                row.mtu,
                count(side.instructions_off),
                count(side.instructions_on),
                side.instructions_percent.map_or("-".to_owned(), |n| format!("{n:.2}")),
                side.ns_off,
                side.ns_on,
                side.ns_percent
            )?;
        }
    }
    Ok(())
}
