//! Goal: `beam doctor` says of a healthy host that it is well, and of each thing that is amiss just that, with the command
//! that mends it; and it disturbs nothing.
//! Method: the rig's gateway namespace is made ill in one way at a time. The one check must tell, the command that it
//! printed is run as it stands, and the same check must then pass.
//!
//! [`ill`] has the illnesses, [`well`] the healthy host, a running beam, and users without privilege.

mod ill;
#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;
mod well;

use std::process::Command;

use pair::Place;
use rig::Ns;
use serde_json::Value;

const BEAM: &str = env!("CARGO_BIN_EXE_beam");
/// Becomes a user without any capability.
const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all";

/// What `beam doctor ARGS -j` came to.
struct Report {
    exit: Option<i32>,
    json: Value,
}

impl Report {
    /// The one finding of a check.
    fn of(&self, check: &str) -> &Value {
        let findings = self.json["findings"].as_array().expect("findings are a list");
        let mut found = findings.iter().filter(|finding| finding["check"] == check);
        let first = found.next().unwrap_or_else(|| panic!("no finding of {check}: {:#}", self.json));
        assert!(found.next().is_none(), "two findings of {check}: {:#}", self.json);
        first
    }

    fn outcome(&self, check: &str) -> &str {
        self.of(check)["outcome"].as_str().expect("an outcome is a word")
    }

    fn seen(&self, check: &str) -> &str {
        self.of(check)["seen"].as_str().expect("what was seen is text")
    }

    /// The commands that mend a check's finding.
    fn commands(&self, check: &str) -> Vec<&str> {
        let mends = self.of(check)["mend"].as_array().expect("mends are a list");
        mends.iter().map(|mend| mend["command"].as_str().expect("a command is text")).collect()
    }

    /// The checks that came out so.
    fn with(&self, outcome: &str) -> Vec<&str> {
        let findings = self.json["findings"].as_array().expect("findings are a list");
        let such = findings.iter().filter(|finding| finding["outcome"] == outcome);
        such.map(|finding| finding["check"].as_str().expect("a name")).collect()
    }
}

/// Runs the doctor in the gateway's namespace by way of `by`, with `args`, and holds its report to its schema.
fn doctor(place: &Place, by: &str, args: &str) -> Report {
    let line = format!("{by} {} doctor {args} -j", program(place, by));
    let mut words = line.split_whitespace();
    let mut command = place.rig.command(Ns::Gateway, words.next().expect("a command"));
    command.args(words).env_remove("BEAM_SIMD").env_remove("BEAM_INTERFACE");
    let out = command.output().expect("run beam doctor");
    let said = String::from_utf8_lossy(&out.stderr);
    let json: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|error| panic!("beam doctor {args}: {error}: {said}"));
    assert_eq!(json["schema"], "beam.doctor.v1");
    let report = Report { exit: out.status.code(), json };
    for (word, count) in [("PASS", "pass"), ("WARN", "warn"), ("FAIL", "fail"), ("SKIP", "skip")] {
        assert_eq!(report.json[count], report.with(word).len(), "{count} of {args}");
    }
    let strict = args.split(' ').any(|word| word == "--strict");
    let bad = report.with("FAIL").len() + if strict { report.with("WARN").len() } else { 0 };
    assert_eq!(report.exit, Some(if bad > 0 { 4 } else { 0 }), "exit code of {args}: {:#}", report.json);
    report
}

/// The binary, where the user that `by` makes can read it.
fn program(place: &Place, by: &str) -> String {
    if by.is_empty() {
        return BEAM.to_owned();
    }
    rig::copied_to(place.rig.directory()).display().to_string()
}

/// Runs a command line as an operator would, in the gateway's namespace.
fn shell(place: &Place, line: &str) {
    let out = place.rig.command(Ns::Gateway, "sh").args(["-ec", line]).output().expect("run sh");
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Compiles an XDP program that passes every packet; clang is there, for xsk-rs needs it to build.
fn foreign_program(place: &Place) -> String {
    let directory = place.rig.directory();
    let (source, object) = (directory.join("foreign.c"), directory.join("foreign.o"));
    let program = "__attribute__((section(\"xdp\"), used)) int somebody_else(void *packet) { return 2; }\n\
                   char _license[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";
    std::fs::write(&source, program).expect("write the foreign program");
    let mut clang = Command::new("clang");
    let done = clang.args(["-target", "bpf", "-O2", "-g", "-c", "-o"]).arg(&object).arg(&source).status();
    assert!(done.expect("run clang").success(), "clang -target bpf failed");
    object.display().to_string()
}
