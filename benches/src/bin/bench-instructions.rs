//! Counts the instructions and allocations of each operation: `scripts/bench instructions` runs it. See `beam_benches::ops`
//! for what they are, and `beam_benches::callgrind` for how.
//!
//! What hashes nothing and draws no random numbers counts the same to the instruction, run after run. Tunnels, handshakes,
//! caches and timers, with their hash seeds, keys and start times, differed by up to 0.8 % in four runs; hence the mark at 1 %.

use anyhow::{Context, Result, bail, ensure};
use beam_benches::{
    allocations::Counting,
    baseline::{self, Report, Row, SCHEMA, Tools},
    callgrind::{self, COUNTED_LEVEL, Callgrind},
    host::{commit, rounded},
    ops::{self, Counter, Done, Effort, Meter, Op},
    output::kept,
};
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    path::PathBuf,
    process::{Command, ExitCode},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Passes of an operation: those before it is counted, and those that are.
const PASSES: (u64, u64) = (3, 12);
const QUICK_PASSES: (u64, u64) = (1, 1);

const METHOD: &str = "callgrind: instructions of the operation alone, its set-up apart, after three passes that warm it up; \
    a unit's share of twelve passes. allocations: calls of the allocator in the same passes, and the bytes that they ask for";

#[derive(Parser)]
#[command(about = "Instructions and allocations of each operation, beside the baseline that is kept")]
struct Arguments {
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Fewer passes: shows that it works; the counts are less settled.
    #[arg(long)]
    quick: bool,
    /// Only operations whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Counts by this valgrind.
    #[arg(long, value_name = "PROGRAM", required_unless_present_any = ["show", "count"])]
    valgrind: Option<PathBuf>,
    /// Counts nothing: prints the table of an object that was kept.
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,
    /// What to compare with, if it is there.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Ends with 1 when an operation's instructions moved by more than so many percent, up or down, when it allocates
    /// otherwise, is new or gone. Counts by other tools than the baseline's are shown, and not judged.
    #[arg(long, value_name = "PERCENT", requires = "baseline")]
    check: Option<f64>,
    /// Runs the operations, for callgrind to count; prints what they did.
    #[arg(long, hide = true)]
    count: bool,
}

/// What the program says under callgrind of each operation.
#[derive(Serialize, Deserialize)]
struct Counted {
    operation: String,
    unit: String,
    units: u64,
    allocations: u64,
    allocated_bytes: u64,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let out = std::io::stdout().lock();
    if arguments.count {
        count(out, &arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = match &arguments.show {
        Some(file) => kept(file)?,
        None => counted(&arguments)?,
    };
    if arguments.json {
        print_json(out, &report)?;
    } else {
        print_table(out, &report, &arguments)?;
    }
    judged(&report, &arguments)
}

/// The operations that are asked for.
fn wanted(arguments: &Arguments) -> Vec<Op> {
    ops::all().into_iter().filter(|op| op.counted && op.name.contains(&arguments.only)).collect()
}

/// The baseline, as far as it is about what was asked for.
fn baseline(arguments: &Arguments) -> Result<Option<Report>> {
    let Some(file) = arguments.baseline.as_ref().filter(|file| file.exists()) else { return Ok(None) };
    let mut kept: Report = kept(file)?;
    kept.rows.retain(|row| row.operation.contains(&arguments.only));
    Ok(Some(kept))
}

/// Both meters at once.
#[derive(Default)]
struct Both(Counter);

impl Meter for Both {
    fn measure(&mut self, part: &mut dyn FnMut()) {
        // Around callgrind's part, so that the counter's own few instructions are outside of it.
        self.0.measure(&mut || Callgrind.measure(part));
    }
}

/// Under callgrind.
fn count(mut out: impl Write, arguments: &Arguments) -> Result<()> {
    let (warm, passes) = if arguments.quick { QUICK_PASSES } else { PASSES };
    for op in wanted(arguments) {
        let mut pass = op.prepare(Effort::Try);
        // Neither their instructions nor their allocations count.
        for _ in 0..warm {
            pass(&mut Counter::default());
        }
        let mut both = Both::default();
        let done =
            (0..passes).map(|_| pass(&mut both)).fold(0, |units, Done { units: more, .. }| units + more);
        callgrind::operation_ends();
        let Both(Counter { allocations }) = both;
        let counted = Counted {
            operation: op.name,
            unit: op.unit.into(),
            units: done,
            allocations: allocations.count,
            allocated_bytes: allocations.bytes,
        };
        serde_json::to_writer(&mut out, &counted)?;
        writeln!(out)?;
    }
    Ok(())
}

fn counted(arguments: &Arguments) -> Result<Report> {
    let Some(valgrind) = &arguments.valgrind else { bail!("--valgrind is needed to count") };
    ensure!(!wanted(arguments).is_empty(), "no operation is named like `{}`", arguments.only);
    let mut own = vec!["--count", "--only", &arguments.only];
    own.extend(arguments.quick.then_some("--quick"));
    let (said, totals) = callgrind::each(valgrind, &own)?;
    let counted: Vec<Counted> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(
        counted.len() == totals.len(),
        "{} operations ran, and callgrind wrote {} profiles",
        counted.len(),
        totals.len()
    );
    let rows = counted.into_iter().zip(totals).map(|(it, total)| row(it, total)).collect::<Result<_>>()?;
    Ok(Report {
        schema: SCHEMA.into(),
        method: METHOD.into(),
        commit: commit(),
        tools: Tools {
            rustc: version("rustc"),
            valgrind: version(valgrind),
            simd_level: COUNTED_LEVEL.into(),
            machine: machine(),
        },
        rows,
    })
}

fn row(counted: Counted, instructions: u64) -> Result<Row> {
    let Counted { operation, unit, units, allocations, allocated_bytes } = counted;
    ensure!(units > 0 && instructions > 0, "callgrind counted nothing of {operation}");
    let share = |count: u64| rounded(count as f64 / units as f64);
    Ok(Row {
        operation,
        unit,
        instructions: share(instructions),
        allocations: share(allocations),
        allocated_bytes: share(allocated_bytes),
    })
}

/// The first line that a program says of its version.
fn version(program: impl AsRef<std::ffi::OsStr>) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

#[cfg(target_arch = "x86_64")]
fn machine() -> String {
    let vectors = if std::arch::is_x86_feature_detected!("avx2") { "AVX2" } else { "no AVX2" };
    format!("x86_64, {vectors}")
}

#[cfg(not(target_arch = "x86_64"))]
fn machine() -> String {
    std::env::consts::ARCH.into()
}

fn print_json(mut out: impl Write, report: &Report) -> Result<()> {
    serde_json::to_writer_pretty(&mut out, report).context("standard output")?;
    Ok(writeln!(out)?)
}

fn print_table(mut out: impl Write, report: &Report, arguments: &Arguments) -> Result<()> {
    let Tools { rustc, valgrind, simd_level, machine } = &report.tools;
    writeln!(
        out,
        "{rustc}; {valgrind}; batches at {simd_level}; {machine}; commit {}",
        name(&report.commit)
    )?;
    let kept = baseline(arguments)?;
    match &kept {
        Some(kept) => {
            writeln!(out, "baseline: commit {}", name(&kept.commit))?;
            if let Some(why) = incomparable(&kept.tools, &report.tools) {
                writeln!(out, "note: {why}; what differs may be theirs")?;
            }
        }
        None => writeln!(out, "no baseline to compare with")?,
    }
    writeln!(out, "\n{}", baseline::heading())?;
    let before = kept.map(|kept| kept.rows).unwrap_or_default();
    for moved in baseline::compared(&before, &report.rows) {
        writeln!(out, "{moved}")?;
    }
    Ok(())
}

fn name(commit: &Option<String>) -> &str {
    commit.as_deref().unwrap_or("unknown")
}

/// Why counts can't be compared.
fn incomparable(before: &Tools, now: &Tools) -> Option<String> {
    (before != now).then(|| {
        let text = |tools: &Tools| {
            format!("{}; {}; {}; {}", tools.rustc, tools.valgrind, tools.simd_level, tools.machine)
        };
        format!("the baseline was counted by other tools ({}, and here {})", text(before), text(now))
    })
}

/// The verdict of `--check`.
fn judged(report: &Report, arguments: &Arguments) -> Result<ExitCode> {
    let Some(percent) = arguments.check else { return Ok(ExitCode::SUCCESS) };
    let kept = baseline(arguments)?
        .context("--check needs a baseline; make one: scripts/bench instructions --save")?;
    let mut err = std::io::stderr().lock();
    if let Some(why) = incomparable(&kept.tools, &report.tools) {
        writeln!(err, "not judged: {why}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let moved = baseline::compared(&kept.rows, &report.rows);
    let beyond: Vec<_> = moved.iter().filter(|it| it.is_beyond(percent)).collect();
    if beyond.is_empty() {
        writeln!(err, "{} operations, none moved by more than {percent} %", moved.len())?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(err, "{} of {} operations moved by more than {percent} %:", beyond.len(), moved.len())?;
    for it in beyond {
        writeln!(err, "{it}")?;
    }
    writeln!(err, "if that is meant, renew the baseline: scripts/bench instructions --save")?;
    Ok(ExitCode::FAILURE)
}
