//! Measures the whole path in memory: `scripts/bench engine` runs it. See `beam_benches::path` for what a mode is.
//!
//! All modes are interleaved: a round gives each of them some thousand packets, and rounds are repeated over the whole
//! run. A mode's figure is its best round, for sender and receiver apart.

use anyhow::{Context, Result, ensure};
use beam_benches::{
    callgrind::{self, COUNTED_LEVEL, Counts},
    clock::Rate,
    host::{Host, rounded},
    output::{kept, print_json},
    path::{BURST, Bench, Cost, MTUS, Mode, Setup},
};
use clap::Parser;
use serde::{Deserialize, Serialize};
use simd::{Cipher, Level};
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// As in beam. glibc's gives the memory of blocks back to the kernel, and asks for it again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 200;
/// Short enough that most rounds are not interrupted on a busy machine, long enough for what comes once in some bursts.
const ROUND_BYTES: u64 = 1_500_000;
const WARM_PACKETS: u64 = 20_000;
/// Under callgrind, which is some fifty times as slow.
const COUNTED_PACKETS: u64 = 2_000;
const COUNTED_WARM_PACKETS: u64 = 2_000;

const METHOD: &str = "two ends on one thread, no kernel, a virtual clock that moves 50 us a burst; bulk over one stream from server \
    to client, bursts of 32 datagrams, transmits of 10 segments, blocks of 64 KB, the same windows and ACK frequency in all \
    modes. Sender: write, transmit, take the answers. Receiver: take the burst (one copy into a 64 KB slab), read, answer. \
    quinn_alone: bare quinn-proto and ring, no frames, no MASQUE. eager and batched: beam's engine, HTTP/3 DATA frames, Ethernet \
    frames written, judged and summed, by scalar code in eager and at the level in batched. gbps: payload that the application got over one side's time. ns: best of \
    the interleaved rounds, a datagram. state_ns: the same mode with keys that do nothing, called packet by packet; \
    crypto_ns: what protection adds to that. instructions: callgrind, a datagram, at the level named. ratio_to_quinn_alone: gbps over that of \
    quinn_alone, same cipher and MTU, this run; above one is faster";

#[derive(Parser)]
#[command(about = "Cost of a packet through the whole path in memory: bare quinn-proto, and beam's engine")]
struct Arguments {
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// One round of few packets: shows that it works, and measures nothing.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name (cipher/mtu/mode) contains this; quinn_alone always comes along.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Counts instructions, too, with this valgrind.
    #[arg(long, value_name = "PROGRAM")]
    valgrind: Option<PathBuf>,
    /// Measures nothing: prints the table of an object that was kept.
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,
    /// Runs one case under callgrind; prints how many packets were counted.
    #[arg(long, value_name = "CASE", hide = true)]
    count: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Report {
    schema: String,
    host: Host,
    method: String,
    rounds: usize,
    /// The vector level of the batches.
    simd_level: String,
    /// The vector level under callgrind, which has no VAES; `null` when nothing was counted.
    instructions_level: Option<String>,
    /// Why nothing was counted.
    instructions_missing: Option<String>,
    rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    cipher: String,
    mode: String,
    mtu: u16,
    gbps_out: f64,
    gbps_in: f64,
    ns_out: f64,
    ns_in: f64,
    state_ns_out: f64,
    state_ns_in: f64,
    crypto_ns_out: f64,
    crypto_ns_in: f64,
    instructions_out: Option<f64>,
    instructions_in: Option<f64>,
    ratio_to_quinn_alone_out: f64,
    ratio_to_quinn_alone_in: f64,
}

/// One flow that is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Case {
    cipher: Cipher,
    mtu: u16,
    mode: Mode,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        Cipher::ALL.into_iter().flat_map(|cipher| {
            MTUS.into_iter().flat_map(move |mtu| Mode::ALL.map(|mode| Self { cipher, mtu, mode }))
        })
    }

    fn setup(&self, level: Level) -> Setup {
        Setup { mode: self.mode, cipher: Some(self.cipher), mtu: self.mtu, level }
    }

    fn name(&self) -> String {
        format!("{}/{}/{}", self.cipher.name(), self.mtu, self.mode.name())
    }
}

/// The best of some rounds, a packet; infinite before the first.
#[derive(Clone, Copy)]
struct Best {
    ticks_out: f64,
    ticks_in: f64,
    payload_bytes: f64,
}

impl Best {
    const NONE: Self = Self { ticks_out: f64::INFINITY, ticks_in: f64::INFINITY, payload_bytes: 0.0 };

    fn take(&mut self, cost: Cost) {
        let packets = cost.packets as f64;
        self.ticks_out = self.ticks_out.min(cost.ticks_out as f64 / packets);
        self.ticks_in = self.ticks_in.min(cost.ticks_in as f64 / packets);
        self.payload_bytes = self.payload_bytes.max(cost.payload_bytes as f64 / packets);
    }
}

/// A flow and what was seen of it.
struct Measured {
    setup: Setup,
    bench: Bench,
    best: Best,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let out = std::io::stdout().lock();
    if let Some(name) = &arguments.count {
        return count(out, name);
    }
    if let Some(file) = &arguments.show {
        return print_table(out, &kept(file)?);
    }
    let report = measured(&arguments)?;
    if arguments.json { print_json(out, &report) } else { print_table(out, &report) }
}

fn measured(arguments: &Arguments) -> Result<Report> {
    let wanted = |case: &Case| case.name().contains(&arguments.only);
    let cases: Vec<Case> = Case::all()
        .filter(|case| {
            Mode::ALL.into_iter().any(|mode| {
                (case.mode == mode || case.mode == Mode::QuinnAlone) && wanted(&Case { mode, ..*case })
            })
        })
        .collect();
    ensure!(!cases.is_empty(), "no case is named like `{}`", arguments.only);
    let host = Host::seen();
    let (rounds, round_bytes, warm) = match arguments.quick {
        true => (1, 1, 16 * BURST as u64),
        false => (ROUNDS, ROUND_BYTES, WARM_PACKETS),
    };
    let level = beam_benches::level()?;
    let mut flows = flows(&cases, level, warm);
    for _ in 0..rounds {
        for flow in &mut flows {
            flow.best.take(flow.bench.run(round_bytes.div_ceil(flow.setup.mtu.into())));
        }
    }
    let (instructions, missing) = instructions(arguments, &cases);
    let rate = Rate::measured();
    let rows = cases
        .iter()
        .zip(instructions)
        .map(|(case, counted)| row(case, &flows, level, counted, &rate))
        .collect();
    Ok(Report {
        schema: "beam.bench.engine.v1".into(),
        host,
        method: METHOD.into(),
        rounds,
        simd_level: level.name().into(),
        instructions_level: missing.is_none().then(|| COUNTED_LEVEL.into()),
        instructions_missing: missing,
        rows,
    })
}

/// Each case's instructions, or why there are none: minutes of measuring are not thrown away because counting doesn't work
/// on some machine.
fn instructions(arguments: &Arguments, cases: &[Case]) -> (Vec<Option<Counts>>, Option<String>) {
    let counts: Result<Vec<_>> = match &arguments.valgrind {
        Some(valgrind) => cases.iter().map(|case| counted(valgrind, case).map(Some)).collect(),
        None => Err(anyhow::anyhow!("not asked for, or no valgrind here")),
    };
    match counts {
        Ok(counts) => (counts, None),
        Err(why) => (vec![None; cases.len()], Some(format!("{why:#}"))),
    }
}

/// The flows to measure: each case, and for each MTU and mode one without a cipher.
fn flows(cases: &[Case], level: Level, warm: u64) -> Vec<Measured> {
    let mut flows: Vec<Measured> = Vec::new();
    for case in cases {
        let setup = case.setup(level);
        for setup in [setup, Setup { cipher: None, ..setup }] {
            if !flows.iter().any(|flow| flow.setup == setup) {
                flows.push(Measured { setup, bench: Bench::new(setup, warm), best: Best::NONE });
            }
        }
    }
    flows
}

fn row(case: &Case, flows: &[Measured], level: Level, instructions: Option<Counts>, rate: &Rate) -> Row {
    let best = |setup: Setup| {
        let flow = flows.iter().find(|flow| flow.setup == setup);
        flow.map_or(Best::NONE, |flow| flow.best)
    };
    let setup = case.setup(level);
    let own = best(setup);
    let state = best(Setup { cipher: None, ..setup });
    let reference = best(Setup { mode: Mode::QuinnAlone, ..setup });
    let ns = |ticks: f64| (ticks / rate.ticks_per_ns * 10.0).round() / 10.0;
    let gbps = |best: &Best, ticks: f64| best.payload_bytes * 8.0 * rate.ticks_per_ns / ticks;
    Row {
        cipher: case.cipher.name().into(),
        mode: case.mode.name().into(),
        mtu: case.mtu,
        gbps_out: rounded(gbps(&own, own.ticks_out)),
        gbps_in: rounded(gbps(&own, own.ticks_in)),
        ns_out: ns(own.ticks_out),
        ns_in: ns(own.ticks_in),
        state_ns_out: ns(state.ticks_out),
        state_ns_in: ns(state.ticks_in),
        crypto_ns_out: ns(own.ticks_out - state.ticks_out),
        crypto_ns_in: ns(own.ticks_in - state.ticks_in),
        instructions_out: instructions.map(|(out, _)| out.round()),
        instructions_in: instructions.map(|(_, taken)| taken.round()),
        ratio_to_quinn_alone_out: rounded(gbps(&own, own.ticks_out) / gbps(&reference, reference.ticks_out)),
        ratio_to_quinn_alone_in: rounded(gbps(&own, own.ticks_in) / gbps(&reference, reference.ticks_in)),
    }
}

/// One case, to be run under callgrind.
fn count(mut out: impl Write, name: &str) -> Result<()> {
    let case =
        Case::all().find(|case| case.name() == name).with_context(|| format!("no case is named `{name}`"))?;
    let mut bench = Bench::new(case.setup(beam_benches::level()?), COUNTED_WARM_PACKETS);
    let cost = bench.run_counted(COUNTED_PACKETS);
    Ok(writeln!(out, "{}", cost.packets)?)
}

fn counted(valgrind: &Path, case: &Case) -> Result<Counts> {
    callgrind::counted(valgrind, &case.name())
}

fn print_table(mut out: impl Write, report: &Report) -> Result<()> {
    writeln!(out, "{}", report.host)?;
    writeln!(
        out,
        "best of {} interleaved rounds; batches at {}; instructions: {}",
        report.rounds,
        report.simd_level,
        match (&report.instructions_level, &report.instructions_missing) {
            (Some(level), _) => format!("callgrind, batches at {level}"),
            (None, why) => why.clone().unwrap_or_default(),
        }
    )?;
    let mut block = None;
    for row in &report.rows {
        let this = (&row.cipher, row.mtu);
        if block != Some(this) {
            block = Some(this);
            writeln!(out, "\n{} at MTU {}", row.cipher, row.mtu)?;
            writeln!(out, "{:<12} {:>31}   {:>31}", "", "out", "in")?;
            let columns = "Gbit/s  ratio  ns (state+crypto)  instr";
            writeln!(out, "{:<12} {columns}   {columns}", "")?;
        }
        write!(out, "{:<12}", row.mode)?;
        let sides = [
            (
                row.gbps_out,
                row.ratio_to_quinn_alone_out,
                row.ns_out,
                row.state_ns_out,
                row.crypto_ns_out,
                row.instructions_out,
            ),
            (
                row.gbps_in,
                row.ratio_to_quinn_alone_in,
                row.ns_in,
                row.state_ns_in,
                row.crypto_ns_in,
                row.instructions_in,
            ),
        ];
        for (gbps, ratio, ns, state, crypto, instructions) in sides {
            let instructions = instructions.map_or("-".into(), |count| format!("{count:.0}"));
            write!(
                out,
                " {gbps:>6.2} {ratio:>6.2} {ns:>5.0} ({state:>5.0}+{crypto:>5.0}) {instructions:>6}  "
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}
