//! Instructions, counted by callgrind: a program runs itself under valgrind.
//!
//! [`counted`]: with `--count NAME`, which sends the packets of that case through [`crate::path::Bench::run_counted`] and
//! prints how many there were; the two ends are told apart by the names of functions. [`each`]: with any flags, for
//! operations one after the other, each measured by [`Callgrind`] and ended by [`operation_ends`], where callgrind begins a
//! new profile.
//!
//! This and not the crate gungraun, which wants a runner of exactly its version installed beside it, keeps its baselines
//! in the target directory, one process and some files for each function, and would still need the comparison with a file
//! that is kept in the repository.

use crate::ops::Meter;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The level that valgrind 3.19 can run.
pub const COUNTED_LEVEL: &str = "aesni";

/// Instructions a packet, out and in.
pub type Counts = (f64, f64);

/// Counts the case of this name.
///
/// # Errors
/// What valgrind says.
pub fn counted(valgrind: &Path, name: &str) -> Result<Counts> {
    let place = Place::new()?;
    let file = place.0.join("profile");
    let toggles = ["--toggle-collect=*counted_out_*", "--toggle-collect=*counted_in_*"];
    let said = run(valgrind, &toggles, &file, &["--count", name])?;
    let packets: f64 = said.trim().parse().context("the count of packets")?;
    let profile = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let inclusive = |part: &str| -> Result<f64> {
        let instructions = inclusive_instructions(&profile, part);
        ensure!(instructions > 0, "callgrind saw no function named like `{part}`");
        Ok(instructions as f64 / packets)
    };
    Ok((inclusive("counted_out_")?, inclusive("counted_in_")?))
}

/// Runs this program with `arguments`. Returns what it said, and the instructions of each of its operations.
///
/// # Errors
/// What valgrind says.
pub fn each(valgrind: &Path, arguments: &[&str]) -> Result<(String, Vec<u64>)> {
    let place = Place::new()?;
    let flags = ["--toggle-collect=*counted_operation*", "--dump-before=*operation_ends*"];
    let said = run(valgrind, &flags, &place.0.join("profile"), arguments)?;
    let total = |file: &Path| -> Result<u64> {
        let profile = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
        total.with_context(|| format!("{}: no `totals:`", file.display()))
    };
    let numbered = (1..).map(|number| place.0.join(format!("profile.{number}")));
    let totals = numbered.take_while(|file| file.exists()).map(|file| total(&file)).collect::<Result<_>>()?;
    let rest = total(&place.0.join("profile"))?;
    ensure!(rest == 0, "callgrind counted {rest} instructions that belong to no operation");
    Ok((said, totals))
}

/// The [`Meter`] of a program that [`each`] runs.
#[derive(Debug, Default)]
pub struct Callgrind;

impl Meter for Callgrind {
    fn measure(&mut self, part: &mut dyn FnMut()) {
        counted_operation(part);
    }
}

#[inline(never)]
fn counted_operation(part: &mut dyn FnMut()) {
    part();
}

/// The operation is over; what comes next is another one's.
#[inline(never)]
pub fn operation_ends() {
    // So that neither the function nor its calls are found to do nothing.
    std::hint::black_box(());
}

/// A directory for profiles, gone afterwards.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("beam-callgrind.{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Ok(Self(directory))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs this program under callgrind. Returns what it said.
fn run(valgrind: &Path, flags: &[&str], profile: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(valgrind)
        .args(["--tool=callgrind", "--quiet"])
        .args(flags)
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args(arguments)
        .env("BEAM_SIMD", COUNTED_LEVEL)
        .output()
        .with_context(|| valgrind.display().to_string())?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind on `{}`: {complaint}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// What the functions whose names hold `part` cost with all that they call, from a profile of callgrind's: `fn=(id) name`
/// begins a function, of which lines of numbers follow; the last one of a line is a cost, a call's own or its callee's.
fn inclusive_instructions(profile: &str, part: &str) -> u64 {
    let (mut ids, mut inside, mut total) = (Vec::new(), false, 0);
    for line in profile.lines() {
        // A name stands beside its id where that comes first, be it as a callee's.
        let function = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn="));
        if let Some((id, name)) = function.and_then(|function| function.split_once(' '))
            && name.contains(part)
        {
            ids.push(id.to_owned());
        }
        if let Some(function) = line.strip_prefix("fn=") {
            inside = ids.iter().any(|id| function.split(' ').next() == Some(id));
        } else if inside && line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            total += line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    total
}
