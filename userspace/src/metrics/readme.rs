//! README's table of metrics, made from the code.
//!
//! After a change of the table:
//! `cargo test -p beam --bin beam -- --ignored --exact metrics::readme::print --nocapture`
//! prints the new block, lines of the test harness around it.

use super::{Kind, Spec, table};
use std::fmt::Write as _;

const BEGIN: &str = "<!-- metrics: made from the code, see userspace/src/metrics/readme.rs -->";
const END: &str = "<!-- end of metrics -->";

/// The block with its markers.
fn block() -> String {
    let mut out = format!("{BEGIN}\n| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for spec in table::ALL {
        let labels: Vec<String> = spec.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, unit, help) = (spec.name, spec.kind.name(), spec.unit(), spec.help);
        let _ = writeln!(out, "| `{name}` | {kind} | {unit} | {} | {help} |", labels.join(" "));
    }
    out + END
}

#[test]
#[ignore = "prints the block for README"]
fn print() {
    println!("{}", block());
}

#[test]
fn readme_has_the_table_of_the_code() {
    let readme = include_str!("../../../README.md");
    let begin = readme.find(BEGIN).expect("README's block of metrics begins");
    let end = readme.find(END).expect("README's block of metrics ends") + END.len();
    assert!(
        readme[begin..end] == block(),
        "README's table of metrics is an old one; see the head of userspace/src/metrics/readme.rs"
    );
}

/// Names, units and labels are as Prometheus wants them (<https://prometheus.io/docs/practices/naming/>).
#[test]
fn names_keep_the_conventions() {
    let lower = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    for (place, &&Spec { name, kind, labels, help }) in table::ALL.iter().enumerate() {
        assert!(lower(name) && (name.starts_with("beam_") || name.starts_with("process_")), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            kind == Kind::Counter,
            "{name}: counters, and they alone, end in _total"
        );
        assert!(!["_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end)), "{name}");
        assert!(labels.iter().all(|label| lower(label) && *label != "le"), "{name}");
        assert!(help.len() > 5 && !help.contains(['|', '\n']) && !help.ends_with('.'), "{name}: {help}");
        assert!(table::ALL[..place].iter().all(|other| other.name != name), "{name} is there twice");
        if let Kind::Histogram(bounds) = kind {
            assert!(bounds.is_sorted_by(|a, b| a < b) && labels.is_empty(), "{name}");
        }
    }
}
