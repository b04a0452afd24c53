//! What became of the cases: for people on standard output, as JSON lines for `scripts/kernels`.

use crate::Verdict;
use serde_json::{Map, Value, json};
use std::{
    fs::File,
    io::Write as _,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// What one case came to.
pub(crate) enum Outcome {
    Pass,
    /// This machine lacks something; what.
    Skip(String),
    Fail(String),
}

/// The first panic since the last case began, wherever it was: later ones are its consequences.
static FIRST_PANIC: Mutex<Option<String>> = Mutex::new(None);

fn first_panic() -> Option<String> {
    FIRST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Counts and passes on.
pub(crate) struct Results {
    file: Option<File>,
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Results {
    pub(crate) fn open() -> Self {
        let file = std::env::var_os("BEAM_DRIVERS_RESULTS").map(|path| {
            File::options().append(true).create(true).open(&path).expect("open BEAM_DRIVERS_RESULTS")
        });
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            FIRST_PANIC
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(|| info.to_string());
            default(info);
        }));
        Self { file, passed: 0, failed: 0, skipped: 0 }
    }

    fn write(&mut self, line: &Value) {
        if let Some(file) = &mut self.file {
            writeln!(file, "{line}").expect("write to BEAM_DRIVERS_RESULTS");
        }
    }

    /// What this machine is.
    pub(crate) fn facts(&mut self, facts: Map<String, Value>) {
        println!("{}", Value::Object(facts.clone()));
        self.write(&json!({ "facts": facts }));
    }

    /// Runs one case; a panic in it is its failure.
    pub(crate) fn run(
        &mut self,
        case: &str,
        mode: &str,
        run: impl FnOnce() -> (Verdict, Map<String, Value>),
    ) {
        println!("{case} ({mode}) ...");
        let began = Instant::now();
        first_panic();
        let (outcome, facts) = match panic::catch_unwind(AssertUnwindSafe(run)) {
            Ok((verdict, facts)) => (verdict.into(), facts),
            Err(_) => (Outcome::Fail(first_panic().unwrap_or_else(|| "a panic".into())), Map::new()),
        };
        let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let mut line = json!({ "case": case, "mode": mode, "seconds": seconds, "facts": facts });
        let word = match outcome {
            Outcome::Pass => {
                self.passed += 1;
                "pass"
            }
            Outcome::Skip(why) => {
                self.skipped += 1;
                println!("{case} ({mode}): not here: {why}");
                line["why"] = why.into();
                "skip"
            }
            Outcome::Fail(why) => {
                self.failed += 1;
                line["why"] = why.into();
                "fail"
            }
        };
        line["result"] = word.into();
        println!("{case} ({mode}): {word} in {seconds} s {}", line["facts"]);
        self.write(&line);
    }

    /// The summary, as cargo's own runner words it.
    pub(crate) fn finish(mut self) -> ExitCode {
        let Self { passed, failed, skipped, .. } = self;
        self.write(&json!({ "done": true, "passed": passed, "failed": failed, "skipped": skipped }));
        let word = if failed == 0 { "ok" } else { "FAILED" };
        println!("test result: {word}. {passed} passed; {failed} failed; {skipped} ignored");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
