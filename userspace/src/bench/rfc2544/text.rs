//! What `beam bench rfc2544` tells people: two tables, and in sentences what tables can't hold.

use super::{
    procedure::{LATENCY_PERCENT, Row, Trial},
    report::{FINAL_TRIAL_S, GOALS, LATENCY_IS, Told},
    search::Limit,
    size,
    tester::LEARN_COUNT,
};
use crate::{
    bench::{facts, report::table, spread::Spread},
    cli::FrameSize,
};
use std::fmt::Write as _;

impl Told<'_> {
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let Self { args, flow, receiving, .. } = self;
        let queues: Vec<String> = receiving.queues.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "flow   {}", flow.announcement(args));
        let _ = writeln!(out, "host   {}", facts::line(self.host));
        let _ = writeln!(
            out,
            "path   sends by AF_XDP copy, queue {}; receives by AF_XDP {}, queue {}",
            args.queue,
            receiving.mode,
            queues.join(",")
        );
        let _ = writeln!(
            out,
            "method trials of {} s, late frames waited for {} s; {} search(es) of each size, to {} %; PDR allows {} % of loss",
            args.time.as_secs_f64(),
            args.settle.as_secs_f64(),
            args.runs,
            percent(args.precision.0),
            percent(args.pdr_loss.0)
        );
        if args.time.as_secs() < FINAL_TRIAL_S {
            let _ = writeln!(
                out,
                "       (RFC 2544 section 24 asks for final trials of {FINAL_TRIAL_S} s: -t {FINAL_TRIAL_S}s)"
            );
        }
        self.rates(&mut out);
        self.latencies(&mut out);
        self.remarks(&mut out);
        if self.interrupted {
            out.push_str("\ninterrupted: this is what was measured so far\n");
        }
        out
    }

    fn rates(&self, out: &mut String) {
        let head = [
            "bytes",
            "rate",
            "frames/s",
            "min",
            "max",
            "Gbit/s",
            "on the wire",
            "loss",
            "tried up to",
            "limited by",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for row in self.rows.iter().filter(|row| !row.runs.is_empty()) {
            for (goal, name) in GOALS {
                rows.push(self.rate(row, goal, name));
            }
        }
        if rows.len() > 1 {
            out.push_str("\nthroughput (RFC 2544 section 26.1): NDR without loss, PDR with a little\n");
            table(out, &rows);
        }
        for row in self.rows {
            if let Some(part) = row.not_forwarded {
                let of = if part == row.size {
                    String::new()
                } else {
                    format!(", for its frames of {part} bytes")
                };
                let _ = writeln!(
                    out,
                    "{}: not forwarded at this size{of}: none of {LEARN_COUNT} came out. Its rate isn't zero, it has none",
                    row.size
                );
            }
        }
    }

    fn rate(&self, row: &Row, goal: usize, name: &str) -> Vec<String> {
        let limits: Vec<&str> = row.limits(goal).into_iter().map(limit).collect();
        let loss = row.runs.iter().filter_map(|run| run.found[goal].passed).map(|passed| passed.loss);
        let loss = loss.fold(0.0, f64::max);
        let highest = row.highest().map_or("-".to_owned(), |highest| format!("{:.0}", highest.max));
        let front = [row.size.to_string(), name.to_uppercase()];
        let Some(Spread { median, min, max }) = row.rate(goal) else {
            let none = ["none", "-", "-", "-", "-", "-"].map(str::to_owned);
            return front.into_iter().chain(none).chain([highest, limits.join(", ")]).collect();
        };
        let (l2, wire) = size::bits_per_s(row.size, self.args.ipv6, median);
        let whole = [median, min, max].map(|rate| format!("{rate:.0}"));
        let bits = [l2, wire].map(|bits| format!("{:.4}", bits / 1e9));
        let back = [format!("{} %", percent(loss)), highest, limits.join(", ")];
        front.into_iter().chain(whole).chain(bits).chain(back).collect()
    }

    fn latencies(&self, out: &mut String) {
        let head =
            ["bytes", "of NDR", "frames/s", "frames", "lost", "min", "P50", "P90", "P99", "P99.9", "max"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for row in self.rows {
            for part in LATENCY_PERCENT {
                let Some(latency) = row.latency(part) else { continue };
                let offered: Vec<f64> = row.trials_at(part).map(Trial::offered_per_s).collect();
                let offered =
                    Spread::of(&offered).map_or("-".to_owned(), |spread| format!("{:.0}", spread.median));
                let lost: u64 = row.trials_at(part).map(Trial::lost).sum();
                let front = [
                    row.size.to_string(),
                    format!("{part} %"),
                    offered,
                    latency.count().to_string(),
                    lost.to_string(),
                ];
                let figures = latency.figures().map_or(vec!["-".to_owned(); 6], |all| {
                    all.iter().map(|(_, ns)| format!("{:.1}", *ns as f64 / 1e3)).collect()
                });
                rows.push(front.into_iter().chain(figures).collect());
            }
        }
        if rows.len() > 1 {
            let _ =
                writeln!(out, "\nlatency in µs (RFC 2544 section 26.2, but of every frame):\n{LATENCY_IS}");
            table(out, &rows);
        }
    }

    fn remarks(&self, out: &mut String) {
        let mut remarks = Vec::new();
        for row in self.rows {
            remarks.extend(GOALS.iter().filter_map(|(goal, name)| without(row, *goal, name)));
            remarks.extend(odd(row));
        }
        let limited =
            |by| self.rows.iter().any(|row| GOALS.iter().any(|(goal, _)| row.limits(*goal).contains(&by)));
        if limited(Limit::Generator) {
            remarks.push(
                "limited by the generator: this host can't send faster, so the device may be able to do more; no loss of the device's \
                 is told of what was never sent"
                    .to_owned(),
            );
        }
        if limited(Limit::Receiver) {
            remarks.push(
                "limited by the receiver: this host lost frames that the device had forwarded; the device may be able to do more. Give \
                 the receiver a CPU of its own: --receive-cpu"
                    .to_owned(),
            );
        }
        if !remarks.is_empty() {
            out.push('\n');
        }
        remarks.iter().for_each(|remark| {
            let _ = writeln!(out, "{remark}");
        });
    }
}

fn limit(limit: Limit) -> &'static str {
    match limit {
        Limit::Device => "device",
        Limit::Generator => "generator",
        Limit::Receiver => "receiver",
        Limit::Asked => "--max-rate",
    }
}

/// At most four digits behind the point, and no needless zero.
fn percent(part: f64) -> String {
    let text = format!("{:.4}", part * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Runs in which no rate passed.
fn without(row: &Row, goal: usize, name: &str) -> Option<String> {
    let none = row.none(goal);
    let lowest = row.runs.iter().map(|run| run.found[goal].upper_per_s).fold(f64::INFINITY, f64::min);
    (none > 0).then(|| {
        format!(
            "{}: no {} in {none} of {} run(s): more was lost than it allows, down to {lowest:.0} frames/s",
            row.size,
            name.to_uppercase(),
            row.runs.len()
        )
    })
}

/// What no device should do, and what makes a search doubtful.
fn odd(row: &Row) -> Vec<String> {
    let trials = || {
        row.runs.iter().flat_map(|run| run.trials.iter().chain(run.latency.iter().map(|(_, trial)| trial)))
    };
    let sum = |of: fn(&Trial) -> u64| trials().map(of).sum::<u64>();
    let counts = [
        ("came twice", sum(|trial| trial.tally.duplicate)),
        ("came out of order", sum(|trial| trial.tally.reordered)),
        ("came spoilt", sum(|trial| trial.tally.corrupted)),
        ("came after their trial's end", sum(|trial| trial.tally.late)),
        ("weren't of this measurement", sum(|trial| trial.tally.foreign)),
        ("were lost by the receiver", sum(|trial| trial.tally.receiver_dropped)),
        ("were refused by the sending interface", sum(|trial| trial.refused)),
    ];
    let counts: Vec<String> =
        counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
    let mut remarks = Vec::new();
    if !counts.is_empty() {
        remarks.push(format!("{}: of the frames of all trials {}", row.size, counts.join(", ")));
    }
    let contradictions: usize = row.runs.iter().map(|run| run.contradictions).sum();
    if contradictions > 0 || row.runs.iter().any(|run| run.is_exhausted) {
        remarks.push(format!(
            "{}: {contradictions} trial(s) told the opposite of another one: device or host isn't steady; longer trials (-t) help",
            row.size
        ));
    }
    remarks
}

/// For an error: nothing came through, of any size.
pub(super) fn nothing_came(rows: &[Row]) -> bool {
    !rows.is_empty() && rows.iter().all(|row| row.not_forwarded.is_some())
}

/// The smallest of the sizes that are asked for: what comes through anywhere, if anything does.
pub(super) fn smallest(sizes: &[FrameSize], ipv6: bool) -> Option<FrameSize> {
    let parts = sizes.iter().flat_map(|size| size::parts(*size, ipv6));
    parts.min_by_key(|part| if let FrameSize::Bytes(bytes) = part { *bytes } else { u16::MAX })
}

#[cfg(test)]
mod tests {
    //! Goal: each case has its words: rates, limits, a size without, an unsteady host. Method: a made-up device.
    use super::super::{procedure::tests::MadeUp, report::tests::told};
    use super::*;

    /// A row of a table that begins and ends so, whatever the columns' widths.
    fn has_row(said: &str, begins: &str, ends: &str) -> bool {
        let rows = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        rows.into_iter().any(|row: String| row.starts_with(begins) && row.ends_with(ends))
    }

    #[test]
    fn a_device_that_is_the_limit() {
        let mut device = MadeUp { mtu: 1300, ..MadeUp::new(1e8) };
        let said = told(&mut device, "-s 64,1518,imix --runs 2", |told| told.text());
        for line in [
            "PDR allows 0.5 % of loss",
            "RFC 2544 section 24 asks for final trials of 60 s: -t 60s",
            "1518: not forwarded at this size: none of 20 came out",
            "IMIX: not forwarded at this size, for its frames of 1518 bytes",
            "latency in µs",
        ] {
            assert!(said.contains(line), "{line}:\n{said}");
        }
        assert!(has_row(&said, "64 NDR 195", "device") && has_row(&said, "64 PDR 19", "device"), "{said}");
        assert!(!said.contains("limited by the generator"), "{said}");
    }

    #[test]
    fn a_generator_that_is_the_limit() {
        let mut device = MadeUp { sender_max: 1000.0, ..MadeUp::new(1e9) };
        let said = told(&mut device, "-s 64 --runs 1 --no-latency -t 60s", |told| told.text());
        assert!(said.contains("limited by the generator: this host can't send faster"), "{said}");
        assert!(!said.contains("latency in µs") && !said.contains("section 24"), "{said}");
    }

    #[test]
    fn a_device_that_forwards_next_to_nothing() {
        let mut device = MadeUp::new(1.0);
        let said = told(&mut device, "-s 64 --runs 1", |told| told.text());
        assert!(said.contains("64: no NDR in 1 of 1 run(s)"), "{said}");
        assert!(has_row(&said, "64 NDR none", "device"), "{said}");
    }

    #[test]
    fn percentages_and_the_smallest_size() {
        assert_eq!(
            ["0.005", "0.5", "0"].map(|part| percent(part.parse().unwrap_or(1.0))),
            ["0.5", "50", "0"]
        );
        assert_eq!(smallest(&[FrameSize::Imix, FrameSize::Bytes(128)], true), Some(FrameSize::Bytes(84)));
    }
}
