//! What `beam bench rfc2544` tells as JSON. Each figure has its unit in its name; [`super::text`] says the same to people.

use super::{
    count::Latency,
    plan::Flow,
    procedure::{LATENCY_PERCENT, Row, Run, Trial},
    search::{Found, Limit, Next},
    size,
};
use crate::{
    bench::spread::Spread,
    cli::{FrameSize, Rfc2544Args},
    generate::host::mac_text,
};
use serde_json::{Value, json};

/// Name of the object's shape.
const SCHEMA: &str = "beam.bench.rfc2544.v1";
/// RFC 2544 section 24.
pub(super) const FINAL_TRIAL_S: u64 = 60;
/// What a latency is the time between.
pub(super) const LATENCY_IS: &str = "from just before a frame is given to the sending interface until it is taken from the receiving \
                                     one, by one monotonic clock: this host's own way out and in is part of it";

/// The receiving side, for people.
#[derive(Clone, Debug)]
pub(super) struct Receiving {
    pub(super) mode: String,
    pub(super) queues: Vec<u32>,
    pub(super) why: Vec<String>,
}

/// All that is said.
pub(super) struct Told<'a> {
    pub(super) args: &'a Rfc2544Args,
    /// Its facts, from before a thread was pinned.
    pub(super) host: &'a Value,
    pub(super) flow: &'a Flow,
    pub(super) receiving: &'a Receiving,
    pub(super) rows: &'a [Row],
    pub(super) interrupted: bool,
    pub(super) trouble: Option<&'a str>,
}

/// The two rates, by their place in [`Run::found`].
pub(super) const GOALS: [(usize, &str); 2] = [(0, "ndr"), (1, "pdr")];

impl Row {
    /// The rates that its runs found, in frames a second. Runs that found none have no share in it: see [`Row::none`].
    pub(super) fn rate(&self, goal: usize) -> Option<Spread> {
        let passed = self.runs.iter().filter_map(|run| run.found[goal].passed);
        Spread::of(&passed.map(|passed| passed.offered_per_s).collect::<Vec<_>>())
    }

    /// Runs in which even the lowest rate lost too much.
    pub(super) fn none(&self, goal: usize) -> usize {
        self.runs.iter().filter(|run| run.found[goal].passed.is_none()).count()
    }

    /// Who kept the rates from being higher, each once.
    pub(super) fn limits(&self, goal: usize) -> Vec<Limit> {
        let mut limits: Vec<Limit> = self.runs.iter().map(|run| run.found[goal].limit).collect();
        limits.sort_by_key(|limit| limit.name());
        limits.dedup();
        limits
    }

    /// Latencies of all runs at that part of the no-drop rate.
    pub(super) fn latency(&self, percent: u32) -> Option<Latency> {
        let mut all = self.trials_at(percent).filter_map(|trial| trial.tally.latency.as_ref());
        let mut sum = all.next()?.clone();
        all.for_each(|latency| sum.add(latency));
        Some(sum)
    }

    /// The trials behind it.
    pub(super) fn trials_at(&self, percent: u32) -> impl Iterator<Item = &Trial> {
        let of_run = move |run: &'_ Run| run.latency.iter().position(|(of, _)| *of == percent);
        self.runs.iter().filter_map(move |run| of_run(run).map(|place| &run.latency[place].1))
    }

    /// What the sender reached when it sent as fast as it could.
    pub(super) fn highest(&self) -> Option<Spread> {
        let first = self.runs.iter().filter_map(|run| run.trials.first());
        Spread::of(&first.map(Trial::offered_per_s).collect::<Vec<_>>())
    }
}

fn times(spread: Spread, by: f64) -> Spread {
    Spread { median: spread.median * by, min: spread.min * by, max: spread.max * by }
}

impl Told<'_> {
    pub(super) fn json(&self) -> Value {
        let Self { args, flow, receiving, .. } = self;
        json!({
            "schema": SCHEMA,
            "host": self.host,
            "sender": {
                "interface": args.interface,
                "mac": mac_text(flow.link.src_mac),
                "queue": args.queue,
                "mode": "AF_XDP copy",
            },
            "receiver": {
                "interface": args.receive,
                "mode": receiving.mode,
                "queues": receiving.queues,
                "why": receiving.why,
            },
            "flow": {
                "source": flow.path.local.to_string(),
                "destination": flow.path.remote.to_string(),
                "next_hop_mac": mac_text(flow.link.dst_mac),
                "gateway": args.gateway.map(|gateway| gateway.to_string()),
                "ip_version": if args.ipv6 { 6 } else { 4 },
            },
            "asked": {
                "frame_sizes": args.sizes.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "trial_s": args.time.as_secs_f64(),
                "settle_s": args.settle.as_secs_f64(),
                "runs": args.runs,
                "pdr_loss_ratio": args.pdr_loss.0,
                "precision_ratio": args.precision.0,
                "min_frames_per_s": args.min_rate,
                "max_frames_per_s": args.max_rate,
            },
            "method": {
                "rfc2544_final_trial_s": FINAL_TRIAL_S,
                "meets_final_trial": args.time.as_secs() >= FINAL_TRIAL_S,
                "rate_is": "frames a second that left the sending interface in the trial that passed",
                "lost_is": "left the sending interface and did not come, or came spoilt",
                "latency_is": LATENCY_IS,
            },
            "sizes": self.rows.iter().map(|row| self.row(row)).collect::<Vec<_>>(),
            "interrupted": self.interrupted,
            "trouble": self.trouble,
        })
    }

    fn row(&self, row: &Row) -> Value {
        let mut out = json!({
            "frame_size": row.size.to_string(),
            "frame_bytes": size::mean_bytes(row.size, self.args.ipv6),
            "forwarded": row.not_forwarded.is_none(),
            "not_forwarded_size": row.not_forwarded.map(|size| size.to_string()),
            "highest_offered_frames_per_s": row.highest(),
            "latency": LATENCY_PERCENT.iter().filter_map(|percent| latency(row, *percent)).collect::<Vec<_>>(),
            "runs": row.runs.iter().map(|run| self.run(row.size, run)).collect::<Vec<_>>(),
        });
        for (goal, name) in GOALS {
            let rate = row.rate(goal);
            let (l2, wire) = size::bits_per_s(row.size, self.args.ipv6, 1.0);
            let limits: Vec<&str> = row.limits(goal).into_iter().map(Limit::name).collect();
            out[name] = json!({
                "frames_per_s": rate,
                "l2_bits_per_s": rate.map(|rate| times(rate, l2)),
                "wire_bits_per_s": rate.map(|rate| times(rate, wire)),
                "runs_without": row.none(goal),
                "limited_by": limits,
            });
        }
        out
    }

    fn run(&self, size: FrameSize, run: &Run) -> Value {
        let latency: Vec<Value> = run
            .latency
            .iter()
            .map(|(percent, trial)| {
                let mut out = trial_json(trial);
                out["percent_of_ndr"] = (*percent).into();
                out["latency"] = trial.tally.latency.as_ref().map_or(Value::Null, figures);
                out
            })
            .collect();
        json!({
            "ndr": self.found(size, &run.found[0]),
            "pdr": self.found(size, &run.found[1]),
            "trials": run.trials.iter().map(trial_json).collect::<Vec<_>>(),
            "latency_trials": latency,
            "contradictions": run.contradictions,
            "exhausted": run.is_exhausted,
        })
    }

    fn found(&self, size: FrameSize, found: &Found) -> Value {
        let rate = found.passed.map(|passed| passed.offered_per_s);
        let bits = rate.map(|rate| size::bits_per_s(size, self.args.ipv6, rate));
        json!({
            "frames_per_s": rate,
            "l2_bits_per_s": bits.map(|(l2, _)| l2),
            "wire_bits_per_s": bits.map(|(_, wire)| wire),
            "loss_ratio": found.passed.map(|passed| passed.loss),
            "upper_frames_per_s": found.upper_per_s,
            "limited_by": found.limit.name(),
        })
    }
}

fn trial_json(trial: &Trial) -> Value {
    let tally = &trial.tally;
    let asked = if let Next::PerSecond(rate) = trial.rate { Some(rate) } else { None };
    json!({
        "asked_frames_per_s": asked,
        "offered_frames_per_s": trial.offered_per_s(),
        "forwarded_frames_per_s": trial.forwarded_per_s(),
        "seconds": trial.took.as_secs_f64(),
        "sent": trial.sent,
        "refused": trial.refused,
        "received": tally.received,
        "lost": trial.lost(),
        "loss_ratio": trial.loss(),
        "duplicate": tally.duplicate,
        "reordered": tally.reordered,
        "corrupted": tally.corrupted,
        "late": tally.late,
        "foreign": tally.foreign,
        "receiver_dropped": tally.receiver_dropped,
    })
}

fn latency(row: &Row, percent: u32) -> Option<Value> {
    let mut out = figures(&row.latency(percent)?);
    let offered: Vec<f64> = row.trials_at(percent).map(Trial::offered_per_s).collect();
    out["percent_of_ndr"] = percent.into();
    out["offered_frames_per_s"] = json!(Spread::of(&offered));
    out["lost"] = row.trials_at(percent).map(Trial::lost).sum::<u64>().into();
    Some(out)
}

fn figures(latency: &Latency) -> Value {
    let mut out = json!({ "unit": "ns", "count": latency.count() });
    for (name, ns) in latency.figures().into_iter().flatten() {
        out[name] = ns.into();
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    //! Goal: the object has every figure that its schema promises, of sizes that were measured and that weren't. Method: a
    //! made-up device.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{
        bench::{
            facts,
            rfc2544::procedure::{measure, tests::MadeUp},
        },
        cli::tests_of_rfc2544::args,
    };
    use wire::{Path, datagram::Vlans, encap::Link};

    /// What is told of a device that is measured with these flags.
    pub(in super::super) fn told<T>(
        tester: &mut MadeUp,
        flags: &str,
        look: impl FnOnce(&Told<'_>) -> T,
    ) -> T {
        let args = args(flags);
        let mut rows = Vec::new();
        measure(tester, &args, &args.sizes, &mut rows).unwrap();
        let path = Path { local: "198.18.0.2:9".parse().unwrap(), remote: "198.18.1.2:9".parse().unwrap() };
        let link = Link { src_mac: [2; 6], dst_mac: [4; 6], vlans: Vlans::new(&[]).unwrap() };
        let flow = Flow { link, path, is_bridged: true };
        let receiving = Receiving { mode: "native-copy".to_owned(), queues: vec![0, 1], why: Vec::new() };
        look(&Told {
            args: &args,
            host: &facts::host(),
            flow: &flow,
            receiving: &receiving,
            rows: &rows,
            interrupted: false,
            trouble: None,
        })
    }

    #[test]
    fn every_figure_is_there() {
        let mut device = MadeUp { mtu: 1300, ..MadeUp::new(1e8) };
        let said = told(&mut device, "-s 64,1518 --runs 3", |told| told.json());
        assert_eq!(said["schema"], SCHEMA);
        let [small, large] = [&said["sizes"][0], &said["sizes"][1]];
        assert_eq!((&small["frame_size"], &small["forwarded"]), (&"64".into(), &true.into()));
        for goal in ["ndr", "pdr"] {
            let rate = small[goal]["frames_per_s"]["median"].as_f64().unwrap();
            assert!(rate > 190_000.0 && rate < 197_000.0, "{said:#}");
            assert_eq!(small[goal]["l2_bits_per_s"]["median"].as_f64().unwrap(), rate * 512.0);
            assert_eq!(small[goal]["wire_bits_per_s"]["median"].as_f64().unwrap(), rate * 672.0);
            assert_eq!(
                (&small[goal]["limited_by"][0], &small[goal]["runs_without"]),
                (&"device".into(), &0.into())
            );
            assert_eq!(large[goal]["frames_per_s"], Value::Null);
        }
        let latency = small["latency"].as_array().unwrap();
        let percents: Vec<&Value> = latency.iter().map(|of| &of["percent_of_ndr"]).collect();
        assert_eq!(percents, [10, 50, 90]);
        for of in latency {
            assert_eq!((&of["unit"], &of["count"], &of["lost"]), (&"ns".into(), &300.into(), &0.into()));
            let names = ["min", "p50", "p90", "p99", "p99_9", "max"];
            let values: Vec<u64> = names.iter().map(|name| of[*name].as_u64().unwrap()).collect();
            assert!(values.is_sorted() && values[0] == 1000 && values[5] == 1099, "{values:?}");
        }
        assert_eq!((&large["forwarded"], &large["not_forwarded_size"]), (&false.into(), &"1518".into()));
        assert_eq!(large["runs"].as_array().map(Vec::len), Some(0));
        for trial in small["runs"][0]["trials"].as_array().unwrap() {
            let of = |name: &str| trial[name].as_u64().unwrap();
            assert_eq!(of("sent"), of("received") + of("lost"));
        }
        assert_eq!(said["method"]["meets_final_trial"], false);
    }
}
