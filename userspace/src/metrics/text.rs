//! The text that Prometheus reads: exposition format 0.0.4.

use super::{Collected, Family, Kind, Value};
use meter::{Histogram, Scale};
use std::{borrow::Cow, fmt::Write as _};

/// Of the format that [`encode`] writes.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything as text, each family with its HELP and TYPE.
pub(super) fn encode(collected: &Collected) -> String {
    let mut out = String::with_capacity(64 << 10);
    collected.families().for_each(|family| write_family(&mut out, family));
    out
}

fn write_family(out: &mut String, family: &Family) {
    let spec = family.spec;
    // Writing into a String can't fail.
    let _ = writeln!(out, "# HELP {} {}", spec.name, escaped(spec.help, false));
    let _ = writeln!(out, "# TYPE {} {}", spec.name, spec.kind.name());
    for (values, sample) in &family.samples {
        let labels: Vec<String> = spec
            .labels
            .iter()
            .zip(values)
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value, true)))
            .collect();
        match sample {
            Value::Whole(n) => line(out, spec.name, &labels, n),
            Value::Real(x) => line(out, spec.name, &labels, x),
            Value::Histogram(histogram) => write_histogram(out, family, &labels, histogram),
        }
    }
}

fn line(out: &mut String, name: &str, labels: &[String], value: impl std::fmt::Display) {
    let _ = match labels {
        [] => writeln!(out, "{name} {value}"),
        _ => writeln!(out, "{name}{{{}}} {value}", labels.join(",")),
    };
}

fn write_histogram(out: &mut String, family: &Family, labels: &[String], histogram: &Histogram) {
    let Kind::Histogram(bounds) = family.spec.kind else { return };
    let name = family.spec.name;
    let shown = |value: u64| match histogram.scale() {
        Scale::Time => value as f64 / 1e6,
        Scale::Count => value as f64,
    };
    let bucket = format!("{name}_bucket");
    let at_most = |bound: &str| [labels, &[format!("le=\"{bound}\"")]].concat();
    for (&bound, count) in bounds.iter().zip(histogram.cumulative(bounds)) {
        line(out, &bucket, &at_most(&shown(bound).to_string()), count);
    }
    line(out, &bucket, &at_most("+Inf"), histogram.count());
    line(out, &format!("{name}_sum"), labels, shown(histogram.sum()));
    line(out, &format!("{name}_count"), labels, histogram.count());
}

/// Backslashes and line feeds, and in a label's value quotes, as the format wants them.
fn escaped(text: &str, is_label: bool) -> Cow<'_, str> {
    let special = |c: char| c == '\\' || c == '\n' || (is_label && c == '"');
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            c if special(c) => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    //! Goal: the text is what the format's specification says, byte by byte. That others read it is in tests/metrics.
    use super::{super::Spec, *};

    static COUNTER: Spec =
        Spec { name: "a_total", kind: Kind::Counter, labels: &["x", "y"], help: "Says \"so\" in C:\\\nhere" };
    static TIMES: Spec =
        Spec { name: "b_seconds", kind: Kind::Histogram(&[10, 2_500]), labels: &[], help: "Times" };
    static GAUGE: Spec = Spec { name: "c_ratio", kind: Kind::Gauge, labels: &[], help: "A share" };

    #[test]
    fn the_text_is_as_the_format_says() {
        let mut collected = Collected::default();
        collected.add(&COUNTER, ["q\"uo\\te", "line\nfeed"], 3);
        collected.add(&COUNTER, ["plain", ""], u64::MAX);
        collected.add(&COUNTER, ["q\"uo\\te", "line\nfeed"], 4);
        let mut histogram = Histogram::new(Scale::Time);
        [1, 10, 11, 2_500, 59_000_000].into_iter().for_each(|us| histogram.record(us));
        collected.set(&TIMES, Value::Histogram(Box::new(histogram)));
        collected.set(&GAUGE, Value::Real(0.25));
        let text = "# HELP a_total Says \"so\" in C:\\\\\\nhere
# TYPE a_total counter
a_total{x=\"plain\",y=\"\"} 18446744073709551615
a_total{x=\"q\\\"uo\\\\te\",y=\"line\\nfeed\"} 7
# HELP b_seconds Times
# TYPE b_seconds histogram
b_seconds_bucket{le=\"0.00001\"} 2
b_seconds_bucket{le=\"0.0025\"} 4
b_seconds_bucket{le=\"+Inf\"} 5
b_seconds_sum 59.002522
b_seconds_count 5
# HELP c_ratio A share
# TYPE c_ratio gauge
c_ratio 0.25
";
        assert_eq!(encode(&collected), text);
    }
}
