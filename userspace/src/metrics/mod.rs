//! Metrics: what a daemon counts and measures, under one table of names, for Prometheus (`--metrics ADDR`), for alerts and
//! for `beam status`.
//!
//! ```text
//!  workers ── snapshot (plain counters, histograms) ─┐
//!  interfaces, caches, the process ──────────────────┴─► collect ─► Collected ─┬─► text ─► http: /metrics
//!                                                                              └─► alerts, status
//! ```
//! [`table`] has every metric with its type, labels and meaning; nothing is exposed that isn't in it. Labels have few
//! values: no client's name, no address. Counters only grow: `beam clear counters` sets `beam show`'s tables to zero and
//! nothing here, as Prometheus wants it.

mod collect;
mod counters;
mod http;
mod process;
#[cfg(test)]
mod readme;
mod request;
pub(crate) mod table;
mod text;
mod window;

pub(crate) use collect::merged;
pub(crate) use http::{Bound, bind};
pub(crate) use process::ProcessStatus;
pub(crate) use window::{BatchStatus, LatencyStatus, Windows};

use crate::supervisor::Supervisor;
use meter::Histogram;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows while the daemon runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Shown by these bounds: microseconds, or packets.
    Histogram(&'static [u64]),
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

/// One sample's value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Whole(u64),
    Real(f64),
    Histogram(Box<Histogram>),
}

/// Values of labels, in the order of [`Spec::labels`].
pub(crate) type Labels = Vec<Cow<'static, str>>;

/// One metric with its samples, at one instant.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) spec: &'static Spec,
    pub(crate) samples: BTreeMap<Labels, Value>,
}

/// Everything at one instant, by name. What has no sample isn't there.
#[derive(Debug, Default)]
pub(crate) struct Collected(BTreeMap<&'static str, Family>);

impl Collected {
    pub(crate) fn families(&self) -> impl Iterator<Item = &Family> {
        self.0.values()
    }

    /// One metric.
    #[cfg(test)]
    fn family(&self, spec: &Spec) -> Option<&Family> {
        self.0.get(spec.name)
    }

    fn sample(&mut self, spec: &'static Spec, labels: Labels) -> &mut Value {
        debug_assert_eq!(labels.len(), spec.labels.len(), "{}", spec.name);
        let family = self.0.entry(spec.name).or_insert_with(|| Family { spec, samples: BTreeMap::new() });
        family.samples.entry(labels).or_insert(Value::Whole(0))
    }

    /// Adds to a sample that counts.
    pub(crate) fn add<const N: usize>(
        &mut self,
        spec: &'static Spec,
        labels: [impl Into<Cow<'static, str>>; N],
        n: u64,
    ) {
        self.add_labels(spec, labels.into_iter().map(Into::into).collect(), n);
    }

    /// The same.
    pub(crate) fn add_labels(&mut self, spec: &'static Spec, labels: Labels, n: u64) {
        if let Value::Whole(sum) = self.sample(spec, labels) {
            *sum += n;
        }
    }

    /// As [`Self::add`], of a metric without labels.
    pub(crate) fn add_plain(&mut self, spec: &'static Spec, n: u64) {
        self.add(spec, [""; 0], n);
    }

    /// Sets a sample that says something by its labels.
    fn set_info(&mut self, spec: &'static Spec, labels: Labels) {
        *self.sample(spec, labels) = Value::Whole(1);
    }

    /// Sets a sample of a metric without labels.
    pub(crate) fn set(&mut self, spec: &'static Spec, value: Value) {
        *self.sample(spec, Vec::new()) = value;
    }
}

/// What was found is told again to whoever asks so soon: a scraper in a loop costs the workers thirty snapshots a second.
const ANSWER_LIVES: Duration = Duration::from_millis(100);

/// An answer, and when it was found.
struct Kept<T>(Option<(Instant, T)>);

impl<T: Clone> Kept<T> {
    fn get(&mut self, find: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some((at, kept)) if at.elapsed() < ANSWER_LIVES => kept.clone(),
            _ => self.0.insert((Instant::now(), find())).1.clone(),
        }
    }
}

/// Serves the pages on a thread of its own until the process ends.
pub(crate) fn serve(bound: Bound, supervisor: Arc<Supervisor>) -> io::Result<()> {
    let (mut text, mut health, mut ready) = (Kept(None), Kept(None), Kept(None));
    bound.serve(move |page| match page {
        request::Page::Metrics => http::Answer {
            status: 200,
            content_type: text::CONTENT_TYPE,
            body: text.get(|| text::encode(&supervisor.collect())),
        },
        request::Page::Healthy => http::Answer::of(health.get(|| supervisor.health())),
        request::Page::Ready => http::Answer::of(ready.get(|| supervisor.ready())),
    })
}

impl Supervisor {
    /// Every worker takes its turns.
    fn health(&self) -> Result<(), String> {
        self.all_answer(&self.snapshots())
    }

    /// New tunnels and flows are served, or why not.
    fn ready(&self) -> Result<(), String> {
        self.readiness(&self.snapshots())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_again_for_a_moment_only() {
        let (mut kept, mut found) = (Kept(None), 0);
        let mut ask = || {
            kept.get(|| {
                found += 1;
                found
            })
        };
        let from = Instant::now();
        while ask() < 3 {
            assert!(from.elapsed() < Duration::from_secs(60), "it is told for ever");
        }
        assert!(from.elapsed() >= 2 * ANSWER_LIVES);
    }
}
