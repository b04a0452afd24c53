//! `beam doctor`: looks at the host, and says of each thing what was seen, what is needed and what mends it.
//!
//! One check so far: `simd`, the packet protection that this CPU can run. It needs no root.

pub(crate) mod fix;

use crate::{cli::DoctorArgs, failure::Failure, protection};
use anyhow::anyhow;
use serde::Serialize;
use std::fmt::Write;

/// Name of the JSON object's shape.
const SCHEMA: &str = "beam.doctor.v1";

/// The checks' names.
pub(crate) const CHECKS: [&str; 1] = ["simd"];

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Outcome {
    Pass,
    Warn,
    Fail,
}

/// One check's report.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    outcome: Outcome,
    seen: String,
    needed: String,
    /// The command that mends it, where there is something to mend.
    mend: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    findings: Vec<Finding>,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    if args.fix.undo {
        return fix::undo(&args.fix.how(args.json));
    }
    // There is one check, so it is wanted however many are named.
    let report = Report { schema: SCHEMA, findings: vec![simd(args.simd)] };
    if args.json {
        println!("{}", serde_json::to_string(&report).map_err(Failure::runtime)?);
    } else {
        print!("{}", text(&report));
    }
    let bad = |finding: &&Finding| {
        finding.outcome == Outcome::Fail || (args.strict && finding.outcome == Outcome::Warn)
    };
    match report.findings.iter().filter(bad).count() {
        0 => Ok(()),
        count => Err(Failure::Preflight(anyhow!("{count} of {} checks: see above", report.findings.len()))),
    }
}

/// Which packet protection runs, and whether it agrees with ring on this CPU.
fn simd(wanted: protection::Simd) -> Finding {
    let best = tunnel::Level::best();
    let needed =
        format!("avx2 or avx512 for full speed; the best that this CPU has is {best} ({})", best.needs());
    let finding = |outcome, seen, mend: Option<&str>| Finding {
        check: "simd",
        outcome,
        seen,
        needed: needed.clone(),
        mend: mend.map(str::to_owned),
    };
    let level = match wanted.level() {
        Ok(level) => level,
        Err(error) => return finding(Outcome::Fail, error.to_string(), Some("unset BEAM_SIMD")),
    };
    let differs = tunnel::ciphers_that_differ_from_ring(level);
    if !differs.is_empty() {
        let seen = format!("{level} and ring give different bytes for {}", differs.join(", "));
        return finding(Outcome::Fail, seen, Some("beam serve --simd ring ... (and report the CPU, please)"));
    }
    let seen = format!("{level} runs: packets are sealed and opened in batches, and ring agrees with it");
    if level < best {
        return finding(Outcome::Warn, format!("{seen}; it was forced"), Some("unset BEAM_SIMD"));
    }
    match level == tunnel::Level::RING {
        true => {
            finding(Outcome::Warn, "ring runs, packet by packet: this CPU has no AES-NI".to_owned(), None)
        }
        false => finding(Outcome::Pass, seen, None),
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for Finding { check, outcome, seen, needed, mend } in &report.findings {
        let word = match outcome {
            Outcome::Pass => "PASS",
            Outcome::Warn => "WARN",
            Outcome::Fail => "FAIL",
        };
        let _ = writeln!(out, "{word}  {check}: {seen}");
        let _ = writeln!(out, "      needed: {needed}");
        if let Some(mend) = mend {
            let _ = writeln!(out, "      mend: {mend}");
        }
    }
    out
}
