//! The findings, for people and for programs.

use super::{Finding, Outcome};
use crate::failure::Failure;
use serde::Serialize;
use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

/// Name of the JSON object's shape.
const SCHEMA: &str = "beam.doctor.v1";

#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    pass: usize,
    warn: usize,
    fail: usize,
    skip: usize,
    pub(super) findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
        Self {
            schema: SCHEMA,
            pass: count(Outcome::Pass),
            warn: count(Outcome::Warn),
            fail: count(Outcome::Fail),
            skip: count(Outcome::Skip),
            findings,
        }
    }

    pub(super) fn count(&self, outcome: Outcome) -> usize {
        match outcome {
            Outcome::Pass => self.pass,
            Outcome::Warn => self.warn,
            Outcome::Fail => self.fail,
            Outcome::Skip => self.skip,
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let text = if json {
            serde_json::to_string(self).map_err(Failure::runtime)? + "\n"
        } else {
            self.text(out.is_terminal() && std::env::var_os("NO_COLOR").is_none())
        };
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // Whoever reads has seen enough (`| head`); the exit code still tells.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(Failure::runtime),
        }
    }

    /// A line for each finding, and what is needed and mends it below those that aren't well.
    fn text(&self, colour: bool) -> String {
        let mut out = String::new();
        for Finding { check, interface, outcome, seen, needed, mend, quirks } in &self.findings {
            let of = interface.as_ref().map_or(String::new(), |name| format!(" {name}"));
            let _ = writeln!(out, "{}  {check}{of}: {seen}", outcome.word(colour));
            if matches!(outcome, Outcome::Warn | Outcome::Fail) {
                let _ = writeln!(out, "      needed: {needed}");
            }
            for mend in mend {
                let _ = writeln!(out, "      mend: {}", mend.command());
            }
            for quirk in quirks {
                let _ = writeln!(out, "      note: {} ({})", quirk.text, quirk.source);
            }
        }
        let Self { pass, warn, fail, skip, .. } = self;
        let _ = writeln!(out, "{pass} passed, {warn} warned, {fail} failed, {skip} not judged");
        out
    }
}

impl Outcome {
    fn word(self, colour: bool) -> String {
        let (word, code) = match self {
            Self::Pass => ("PASS", 32),
            Self::Warn => ("WARN", 33),
            Self::Fail => ("FAIL", 31),
            Self::Skip => ("SKIP", 2),
        };
        if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: both forms say the same; what is well takes one line.
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Finding::pass("up", "up").named("link", Some("eth0")),
            Finding::fail("MTU 9000", "3504 at most")
                .command("ip link set eth0 mtu 3504")
                .named("mtu", Some("eth0")),
            Finding::not_seen("needs CAP_BPF", "a program that loads").named("verifier", None),
        ])
    }

    #[test]
    fn text_is_short_where_all_is_well() {
        let expected = "PASS  link eth0: up\n\
                        FAIL  mtu eth0: MTU 9000\n      needed: 3504 at most\n      mend: ip link set eth0 mtu 3504\n\
                        SKIP  verifier: not seen: needs CAP_BPF\n\
                        1 passed, 0 warned, 1 failed, 1 not judged\n";
        assert_eq!(report().text(false), expected);
        assert!(report().text(true).starts_with("\x1b[32mPASS\x1b[0m  link"));
    }

    #[test]
    fn json_has_what_text_has() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["schema"], "beam.doctor.v1");
        assert_eq!((&json["fail"], &json["skip"]), (&1.into(), &1.into()));
        let finding = &json["findings"][1];
        assert_eq!(finding["outcome"], "FAIL");
        assert_eq!(finding["interface"], "eth0");
        assert_eq!(finding["mend"][0]["command"], "ip link set eth0 mtu 3504");
        assert_eq!(finding["mend"][0]["fixable"], false);
        assert!(json["findings"][2]["interface"].is_null());
    }
}
