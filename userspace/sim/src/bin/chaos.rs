//! Runs seeds for as long as asked, on all cores: `scripts/chaos`.
//!
//! `beam-chaos [HOURS] [--seeds N] [--from SEED] [--seed SEED]`. A failing seed prints its scenario and the command that
//! repeats it; the others go on. Exit 1 if any failed.

use beam_sim::chaos::{Report, run};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a line of progress is printed.
const PROGRESS_EACH: Duration = Duration::from_secs(30);
/// Without an argument: about a minute.
const SEEDS_DEFAULT: u64 = 10_000;

struct Plan {
    from: u64,
    /// How many.
    seeds: u64,
    until: Option<Instant>,
    threads: usize,
}

#[derive(Default)]
struct Tally {
    sum: Report,
    runs: u64,
    failed: Vec<u64>,
    last: Option<Report>,
}

fn main() -> ExitCode {
    let plan = match parse(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("beam-chaos: {why}");
            return ExitCode::from(2);
        }
    };
    let (next, tally, started) = (AtomicU64::new(0), Mutex::new(Tally::default()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..plan.threads {
            scope.spawn(|| work(&plan, &next, &tally));
        }
        let mut told = started;
        while next.load(Ordering::Relaxed) < plan.seeds
            && plan.until.is_none_or(|until| Instant::now() < until)
        {
            std::thread::sleep(Duration::from_millis(50));
            if told.elapsed() >= PROGRESS_EACH {
                told = Instant::now();
                tell(&lock(&tally), plan.from + next.load(Ordering::Relaxed), started);
            }
        }
    });
    let tally = lock(&tally);
    tell(&tally, plan.from + next.load(Ordering::Relaxed).min(plan.seeds), started);
    match plan.seeds {
        // The sum of one lacks its trace, by which two runs are compared.
        1 => tally.last.iter().for_each(|report| println!("{report:?}")),
        _ => println!("{:?}", tally.sum),
    }
    for seed in &tally.failed {
        println!("FAILED: seed {seed}; repeat it with: scripts/chaos --seed {seed}");
    }
    ExitCode::from(u8::from(!tally.failed.is_empty()))
}

fn work(plan: &Plan, next: &AtomicU64, tally: &Mutex<Tally>) {
    while plan.until.is_none_or(|until| Instant::now() < until) {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= plan.seeds {
            return;
        }
        let seed = plan.from + at;
        let report = std::panic::catch_unwind(|| run(seed));
        let mut tally = lock(tally);
        tally.runs += 1;
        match report {
            Ok(report) => {
                tally.sum.add(&report);
                tally.last = Some(report);
            }
            Err(_) => tally.failed.push(seed),
        }
    }
}

fn tell(tally: &Tally, next: u64, started: Instant) {
    let Tally { sum, runs, failed, .. } = tally;
    let rate = *runs as f64 / started.elapsed().as_secs_f64();
    println!(
        "{runs} seeds ({rate:.0}/s), next {next}: {} flows complete, {} reported failed, {} MB checked; {} seeds FAILED",
        sum.complete,
        sum.failed.values().sum::<u64>(),
        sum.bytes >> 20,
        failed.len()
    );
}

/// A run that panics holds no lock.
fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Plan, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut plan = Plan { from: 0, seeds: SEEDS_DEFAULT, until: None, threads };
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64, String> {
            let value = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
            value.parse().map_err(|_| format!("{arg} needs a number, not `{value}`"))
        };
        match arg.as_str() {
            "--seeds" => plan.seeds = number()?,
            "--from" => plan.from = number()?,
            "--seed" => (plan.from, plan.seeds, plan.threads) = (number()?, 1, 1),
            "--threads" => plan.threads = number()?.clamp(1, 1024) as usize,
            hours => {
                let hours: f64 = hours.parse().map_err(|_| format!("`{hours}` is no number of hours"))?;
                let time = Duration::try_from_secs_f64(hours * 3600.0).map_err(|e| e.to_string())?;
                (plan.until, plan.seeds) = (Some(Instant::now() + time), u64::MAX);
            }
        }
    }
    Ok(plan)
}
