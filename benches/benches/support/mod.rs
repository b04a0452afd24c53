//! Criterion around the operations of one group: time by criterion, allocations by a counting allocator, said beside it and
//! kept as `target/criterion/allocations/GROUP.json`.

use beam_benches::{
    allocations::Counting,
    clock::Rate,
    ops::{self, Clock, Counter, Done, Effort, Op, Pass},
};
use criterion::{Criterion, Throughput};
use serde_json::{Value, json};
use std::{io::Write as _, path::PathBuf, time::Duration};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the tunnels promise.
const PROMISED_GBPS: f64 = 1.0;
/// Before allocations are counted: buffers have their size by then.
const WARM_PASSES: u64 = 4;
const COUNTED_PASSES: u64 = 8;

/// The whole of a bench's `main`.
pub(crate) fn run(group: &str) {
    // As criterion decides: without `--bench` it runs each once, to see that it works.
    let measures = std::env::args().any(|argument| argument == "--bench")
        && !std::env::args().any(|argument| argument == "--test");
    let effort = if measures { Effort::Measure } else { Effort::Try };
    let mut criterion = Criterion::default().configure_from_args();
    let mut rows = Vec::new();
    let mine: Vec<Op> = ops::all().into_iter().filter(|op| op.group() == group).collect();
    assert!(!mine.is_empty(), "no operation belongs to {group}");
    for op in &mine {
        rows.extend(bench(&mut criterion, op, effort));
    }
    if measures {
        keep(group, &rows);
        criterion.final_summary();
    }
}

/// One operation; nothing when the filter of the command line leaves it out.
fn bench(criterion: &mut Criterion, op: &Op, effort: Effort) -> Option<Value> {
    let (group, name) = op.name.split_once('/')?;
    let rate = Rate::measured();
    let mut pass: Option<Pass> = None;
    let mut samples = Vec::new();
    let mut criterion_group = criterion.benchmark_group(group);
    criterion_group
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
        .throughput(match op.meant.bytes {
            0 => Throughput::Elements(op.meant.units),
            bytes => Throughput::Bits(bytes * 8),
        });
    criterion_group.bench_function(name, |bencher| {
        let pass = pass.get_or_insert_with(|| op.prepare(effort));
        bencher.iter_custom(|passes| {
            let ticks: f64 = (0..passes).map(|_| timed(op, pass)).sum();
            samples.push(ticks / passes as f64 / rate.ticks_per_ns);
            rate.duration(ticks)
        });
    });
    criterion_group.finish();
    let mut pass = pass?;
    samples.sort_by(f64::total_cmp);
    let median_ns = samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN);
    Some(say(op, &mut pass, median_ns, effort))
}

/// Ticks of what a pass is meant to do.
fn timed(op: &Op, pass: &mut Pass) -> f64 {
    let mut clock = Clock::default();
    let done = pass(&mut clock);
    let share = match op.meant.bytes {
        0 => op.meant.units as f64 / done.units as f64,
        bytes => bytes as f64 / done.bytes as f64,
    };
    clock.ticks as f64 * share
}

/// Counts allocations, and says what there is to say.
fn say(op: &Op, pass: &mut Pass, median_ns: f64, effort: Effort) -> Value {
    let (warm, counted) = if effort == Effort::Try { (1, 1) } else { (WARM_PASSES, COUNTED_PASSES) };
    let mut counter = Counter::default();
    for _ in 0..warm {
        pass(&mut Clock::default());
    }
    let done = (0..counted).map(|_| pass(&mut counter)).fold(Done::default(), |sum, done| Done {
        units: sum.units + done.units,
        bytes: sum.bytes + done.bytes,
    });
    let per_unit = |count: u64| (count as f64 / done.units as f64 * 1000.0).round() / 1000.0;
    let (count, bytes) = (per_unit(counter.allocations.count), per_unit(counter.allocations.bytes));
    let Op { name, unit, .. } = op;
    let mut text = format!("{name}: {count} allocations, {bytes} bytes allocated a {unit}");
    let mut row = json!({"operation": name, "unit": unit, "allocations": count, "allocated_bytes": bytes});
    if effort == Effort::Measure {
        let gbps = op.meant.bytes as f64 * 8.0 / median_ns;
        row["ns"] = json!(median_ns / op.meant.units as f64);
        if op.group() == "1gbps_tunnel" {
            let place = if gbps > PROMISED_GBPS { "above" } else { "NOT above" };
            text += &format!("; {gbps:.2} Gbit/s, {place} {PROMISED_GBPS} Gbit/s");
        }
    }
    let _ = writeln!(std::io::stdout(), "{text}\n");
    row
}

/// Beside criterion's own files.
fn keep(group: &str, rows: &[Value]) {
    let report = json!({"schema": "beam.bench.allocations.v1", "host": beam_benches::host::Host::seen(), "rows": rows});
    // target/release/deps/BENCH
    let Some(target) =
        std::env::current_exe().ok().and_then(|file| Some(file.ancestors().nth(3)?.to_owned()))
    else {
        return;
    };
    let directory: PathBuf = target.join("criterion/allocations");
    let kept = std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::write(directory.join(format!("{group}.json")), report.to_string()));
    if let Err(error) = kept {
        let _ = writeln!(std::io::stderr(), "{}: {error}", directory.display());
    }
}
