//! What `beam bench run` tells: one object, or a compact table a test. Each figure has its unit in its name.

use super::{
    facts,
    run::{bits_per_s, ended_well},
    spread::Spread,
};
use crate::{
    cli::BenchRunArgs,
    interface::LaneFacts,
    worker::bench::{Figures, Outcome},
};
use meter::Histogram;
use serde_json::{Map, Value, json};
use std::{fmt::Write as _, net::SocketAddr, time::Duration};

/// Name of the object's shape.
const SCHEMA: &str = "beam.bench.run.v1";

/// A test with its runs.
pub(super) struct Test {
    pub(super) name: &'static str,
    pub(super) runs: Vec<Run>,
}

/// One run of a job. CPU time is that of all of it, warm-up included.
pub(super) struct Run {
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
    pub(super) cpu_s: f64,
    pub(super) server_cpu_s: Option<f64>,
}

impl Test {
    /// Of its last run, all ways together.
    pub(super) fn bits_per_s(&self) -> f64 {
        self.runs.last().map_or(0.0, |run| run.outcome.figures.iter().map(bits_per_s).sum())
    }

    /// Kinds of load, in order.
    fn kinds(&self) -> Vec<&'static str> {
        let first = self.runs.first();
        first.map_or(Vec::new(), |run| run.outcome.figures.iter().map(|figures| figures.name).collect())
    }

    fn of_kind(&self, kind: &str) -> Vec<&Figures> {
        self.runs.iter().filter_map(|run| run.outcome.figures.iter().find(|of| of.name == kind)).collect()
    }
}

/// The quantiles that are told of each histogram.
const QUANTILES: [(f64, &str); 9] = [
    (0.0, "p0"),
    (0.25, "p25"),
    (0.5, "p50"),
    (0.75, "p75"),
    (0.9, "p90"),
    (0.95, "p95"),
    (0.99, "p99"),
    (0.999, "p99_9"),
    (1.0, "p100"),
];

/// The figures that the spread is told of, by name with the unit.
fn measures(figures: &Figures) -> Vec<(String, f64)> {
    let seconds = figures.window.as_secs_f64();
    let per_s = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
    let mut out = Vec::new();
    if figures.bytes_up > 0 {
        out.push(("up_bits_per_s".to_owned(), 8.0 * per_s(figures.bytes_up)));
    }
    if figures.bytes_down > 0 {
        out.push(("down_bits_per_s".to_owned(), 8.0 * per_s(figures.bytes_down)));
    }
    if figures.offered > 0 {
        out.push(("offered_per_s".to_owned(), per_s(figures.offered)));
    }
    if figures.latency.count() > 0 {
        out.push(("done_per_s".to_owned(), per_s(figures.done)));
    }
    for (prefix, histogram) in [("handshake", &figures.handshake), ("latency", &figures.latency)] {
        for (q, name) in [(0.5, "p50"), (0.99, "p99"), (1.0, "max")] {
            if let Some(value) = histogram.quantile(q) {
                out.push((format!("{prefix}_{name}_us"), value as f64));
            }
        }
    }
    out
}

/// All that is said.
pub(super) struct Told<'a> {
    pub(super) args: &'a BenchRunArgs,
    pub(super) lane: &'a LaneFacts,
    pub(super) remote: SocketAddr,
    pub(super) interrupted: bool,
    pub(super) trouble: Option<&'a str>,
}

impl Told<'_> {
    pub(super) fn json(&self, tests: &[Test]) -> Value {
        let args = self.args;
        let simd = args.path.simd.level().map_or("?".to_owned(), |level| level.to_string());
        json!({
            "schema": SCHEMA,
            "server": format!("https://{}:{}", args.gateway.url.host, args.gateway.url.port),
            "address": self.remote.to_string(),
            "host": facts::host(),
            "path": {
                "mode": self.lane.mode,
                "interface": self.lane.interface,
                "why": self.lane.why,
                "simd": simd,
                "congestion": name(args.gateway.cc),
                "mtu_bytes": mtu(tests),
            },
            "asked": {
                "connections": args.connections,
                "parallel": args.parallel,
                "size_bytes": args.size,
                "time_s": args.count.is_none().then_some(args.time.as_secs_f64()),
                "omit_s": args.count.is_none().then_some(args.omit.as_secs_f64()),
                "count": args.count,
                "runs": args.runs,
                "handshake": args.hps.map(|_| name(args.handshake)),
            },
            "tests": tests.iter().map(test_json).collect::<Vec<_>>(),
            "interrupted": self.interrupted,
            "trouble": self.trouble,
        })
    }

    pub(super) fn text(&self, tests: &[Test]) -> String {
        let mut out = String::new();
        let (args, url) = (self.args, &self.args.gateway.url);
        let simd = args.path.simd.level().map_or("?".to_owned(), |level| level.to_string());
        let _ = writeln!(out, "server https://{}:{} ({})", url.host, url.port, self.remote);
        let _ = writeln!(out, "host   {}", facts::line(&facts::host()));
        let mtu = mtu(tests).map_or("?".to_owned(), |mtu| mtu.to_string());
        let mode = if self.lane.mode == "off" {
            "kernel UDP".to_owned()
        } else {
            format!("AF_XDP {}", self.lane.mode)
        };
        let _ = writeln!(out, "path   {mode}, {simd}, {}, UDP payload {mtu} bytes", name(args.gateway.cc));
        tests.iter().for_each(|test| test_text(&mut out, test));
        if self.interrupted {
            out.push_str("\ninterrupted: this is what was measured so far\n");
        }
        out
    }
}

/// A value of a flag as it is typed.
fn name<T: clap::ValueEnum>(value: T) -> String {
    value.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

fn mtu(tests: &[Test]) -> Option<u16> {
    let runs = tests.iter().flat_map(|test| &test.runs);
    runs.filter_map(|run| run.outcome.path.map(|path| path.mtu_bytes)).max()
}

fn test_json(test: &Test) -> Value {
    let kinds: Vec<Value> = test
        .kinds()
        .into_iter()
        .map(|kind| {
            let all = test.of_kind(kind);
            json!({ "load": kind, "spread": spreads(&all) })
        })
        .collect();
    json!({ "test": test.name, "loads": kinds, "runs": test.runs.iter().map(run_json).collect::<Vec<_>>() })
}

/// Median, lowest and highest of each measure.
fn spreads(all: &[&Figures]) -> Map<String, Value> {
    let rows: Vec<Vec<(String, f64)>> = all.iter().map(|figures| measures(figures)).collect();
    let mut out = Map::new();
    for (name, _) in rows.first().into_iter().flatten() {
        let values: Vec<f64> =
            rows.iter().flatten().filter(|(of, _)| of == name).map(|(_, value)| *value).collect();
        if let Some(spread) = Spread::of(&values) {
            out.insert(name.clone(), json!(spread));
        }
    }
    out
}

fn run_json(run: &Run) -> Value {
    let path = run.outcome.path.map(|path| {
        json!({
            "mtu_bytes": path.mtu_bytes,
            "rtt_us": path.rtt.as_micros() as u64,
            "sent_packets": path.sent_packets,
            "lost_packets": path.lost_packets,
            "congestion_events": path.congestion_events,
        })
    });
    json!({
        "complete": ended_well(&run.outcome),
        "took_s": run.took.as_secs_f64(),
        "cpu_s": run.cpu_s,
        "server_cpu_s": run.server_cpu_s,
        "path": path,
        "loads": run.outcome.figures.iter().map(figures_json).collect::<Vec<_>>(),
    })
}

fn figures_json(figures: &Figures) -> Value {
    let mut out = json!({
        "load": figures.name,
        "window_s": figures.window.as_secs_f64(),
        "window": {
            "offered": figures.offered,
            "done": figures.done,
            "up_bytes": figures.bytes_up,
            "down_bytes": figures.bytes_down,
        },
        "all": {
            "asked": figures.all_asked,
            "done": figures.all_done,
            "failed": figures.all_failed,
            "unanswered": figures.all_unanswered,
            "asked_bytes": figures.all_bytes_asked,
            "up_bytes": figures.all_bytes_up,
            "down_bytes": figures.all_bytes_down,
        },
        "latency": histogram_json(&figures.latency),
    });
    if figures.name == "handshakes" {
        out["handshake"] = histogram_json(&figures.handshake);
        out["all"]["tickets_used"] = figures.all_tickets.into();
        out["all"]["early_data_accepted"] = figures.all_early.into();
        out["all"]["certificates_seen"] = figures.all_certificates.into();
    }
    if figures.name == "datagrams" {
        out["all"]["reordered"] = figures.all_reordered.into();
    }
    for (name, value) in measures(figures) {
        out[name] = json!(value);
    }
    out
}

fn histogram_json(histogram: &Histogram) -> Value {
    let of = |&(q, name): &(f64, &str)| Some((name.to_owned(), json!(histogram.quantile(q)?)));
    let quantiles: Map<String, Value> = QUANTILES.iter().filter_map(of).collect();
    json!({ "unit": "us", "count": histogram.count(), "sum": histogram.sum(), "quantiles": quantiles })
}

fn test_text(out: &mut String, test: &Test) {
    for kind in test.kinds() {
        let all = test.of_kind(kind);
        let title = if kind == test.name { test.name.to_owned() } else { format!("{}: {kind}", test.name) };
        let _ = writeln!(out, "\n{title}");
        let spreads = spreads(&all);
        let names: Vec<&String> = spreads.keys().collect();
        let mut rows =
            vec![["run".to_owned()].into_iter().chain(names.iter().map(|name| heading(name))).collect()];
        for (index, figures) in all.iter().enumerate() {
            let seen = measures(figures);
            let value = |name: &&String| {
                let found = seen.iter().find(|(of, _)| of == *name);
                found.map_or("-".to_owned(), |(_, value)| shown(name, *value))
            };
            rows.push(
                [(index + 1).to_string()].into_iter().chain(names.iter().map(value)).collect::<Vec<_>>(),
            );
        }
        if all.len() > 1 {
            for of in ["median", "min", "max"] {
                let value = |name: &&String| shown(name, spreads[*name][of].as_f64().unwrap_or(0.0));
                rows.push([of.to_owned()].into_iter().chain(names.iter().map(value)).collect());
            }
        }
        table(out, &rows);
        let sum = |of: fn(&Figures) -> u64| all.iter().map(|figures| of(figures)).sum::<u64>();
        let (done, failed) = (sum(|of| of.all_done), sum(|of| of.all_failed));
        let _ = write!(out, "{done} of {} done", sum(|of| of.all_asked));
        let silent = sum(|of| of.all_unanswered);
        for (n, what) in
            [(failed, "failed"), (silent, if kind == "datagrams" { "lost" } else { "unanswered" })]
        {
            if n > 0 {
                let _ = write!(out, ", {n} {what}");
            }
        }
        if kind == "handshakes" {
            let _ = write!(
                out,
                "; {} showed a ticket, 0-RTT accepted in {}",
                sum(|of| of.all_tickets),
                sum(|of| of.all_early)
            );
        }
        if kind == "datagrams" {
            let _ = write!(out, "; {} came out of order", sum(|of| of.all_reordered));
        }
        out.push('\n');
    }
    let here: f64 = test.runs.iter().map(|run| run.cpu_s).sum();
    let there: Option<f64> = test.runs.iter().map(|run| run.server_cpu_s).sum();
    let there = there.map_or(String::new(), |cpu| format!(", {cpu:.2} s at the server"));
    let _ = writeln!(out, "CPU {here:.2} s here{there}");
}

fn heading(name: &str) -> String {
    let name = name.replace("bits_per_s", "Mbit/s").replace("_per_s", "/s").replace("_us", " ms");
    name.replace('_', " ")
}

fn shown(name: &str, value: f64) -> String {
    match () {
        () if name.ends_with("bits_per_s") => format!("{:.1}", value / 1e6),
        () if name.ends_with("_us") => format!("{:.3}", value / 1e3),
        () => format!("{value:.1}"),
    }
}

/// Columns to the right, the first to the left.
pub(super) fn table(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = if column == 0 { write!(out, "{cell:<width$}") } else { write!(out, "  {cell:>width$}") };
        }
        out.push('\n');
    }
}
