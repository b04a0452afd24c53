//! Instructions a packet, counted by callgrind: a program runs itself under valgrind with `--count NAME`, which sends the
//! packets of that case through [`crate::path::Bench::run_counted`] and prints how many there were.

use anyhow::{Context, Result, ensure};
use std::{fs, path::Path, process::Command};

/// The level that valgrind 3.19 can run.
pub const COUNTED_LEVEL: &str = "aesni";

/// Instructions a packet, out and in.
pub type Counts = (f64, f64);

/// Counts the case of this name.
///
/// # Errors
/// What valgrind says.
pub fn counted(valgrind: &Path, name: &str) -> Result<Counts> {
    let file = std::env::temp_dir().join(format!("beam-callgrind.{}", std::process::id()));
    let output = Command::new(valgrind)
        .args([
            "--tool=callgrind",
            "--quiet",
            "--toggle-collect=*counted_out_*",
            "--toggle-collect=*counted_in_*",
        ])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args(["--count", name])
        .env("BEAM_SIMD", COUNTED_LEVEL)
        .output()
        .with_context(|| valgrind.display().to_string())?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind on {name}: {complaint}");
    let packets: f64 = String::from_utf8(output.stdout)?.trim().parse().context("the count of packets")?;
    let profile = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    fs::remove_file(&file)?;
    let inclusive = |part: &str| -> Result<f64> {
        let instructions = inclusive_instructions(&profile, part);
        ensure!(instructions > 0, "callgrind saw no function named like `{part}`");
        Ok(instructions as f64 / packets)
    };
    Ok((inclusive("counted_out_")?, inclusive("counted_in_")?))
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
