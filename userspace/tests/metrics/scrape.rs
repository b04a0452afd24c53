//! One scrape, by curl and by Prometheus' own parser.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::rig::{Ns, Rig, checkout, python};

/// A name and its labels, sorted.
pub(crate) type Series = (String, BTreeMap<String, String>);

/// Every sample of a scrape, and each family's type.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) samples: BTreeMap<Series, f64>,
    pub(crate) types: BTreeMap<String, String>,
}

/// What curl says of a page: status, content type, body.
pub(crate) fn page(rig: &Rig, ns: Ns, url: &str, more: &[&str]) -> (u16, String, String) {
    let mut command = rig.command(ns, "curl");
    command
        .args(["-q", "-sS", "--max-time", "20", "-w", "\n%{http_code} %{content_type}"])
        .args(more)
        .arg(url);
    let out = command.output().expect("run curl");
    assert!(out.status.success(), "curl {url}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("text is UTF-8");
    let (body, said) = text.rsplit_once('\n').expect("curl's own line is the last");
    let (status, content_type) = said.split_once(' ').expect("two words");
    (status.parse().expect("a status"), content_type.to_owned(), body.to_owned())
}

impl Scrape {
    pub(crate) fn of(rig: &Rig, ns: Ns, port: u16) -> Self {
        let (status, content_type, text) = page(rig, ns, &format!("http://127.0.0.1:{port}/metrics"), &[]);
        assert_eq!((status, content_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        Self::read(&text)
    }

    fn read(text: &str) -> Self {
        let script = checkout().join("userspace/tests/python/scrape.py");
        let mut parser = Command::new(python().expect("a Python with prometheus_client"))
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run the parser");
        parser.stdin.take().expect("piped").write_all(text.as_bytes()).expect("give it the text");
        let out = parser.wait_with_output().expect("the parser ends");
        assert!(out.status.success(), "the parser refused:\n{text}");
        let families: Vec<Value> = serde_json::from_slice(&out.stdout).expect("JSON");
        let mut scrape = Self { samples: BTreeMap::new(), types: BTreeMap::new() };
        for family in &families {
            let name = family["name"].as_str().expect("a name");
            assert!(!family["help"].as_str().expect("a help").is_empty(), "{name} has no HELP");
            let kind = family["type"].as_str().expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is {kind}");
            let before = scrape.types.insert(name.to_owned(), kind.to_owned());
            assert_eq!(before, None, "{name} is there twice");
            for sample in family["samples"].as_array().expect("samples") {
                let labels = sample["labels"].as_object().expect("labels").iter();
                let labels = labels.map(|(k, v)| (k.clone(), v.as_str().expect("text").to_owned())).collect();
                let series = (sample["name"].as_str().expect("a name").to_owned(), labels);
                let value = sample["value"].as_f64().unwrap_or_else(|| panic!("{series:?} is no number"));
                assert_eq!(scrape.samples.insert(series.clone(), value), None, "{series:?} is there twice");
            }
        }
        scrape
    }

    /// All samples of that name whose labels are, among others, these; summed.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = |(sample, has): &Series| {
            sample == name && labels.iter().all(|&(k, v)| has.get(k).is_some_and(|value| value == v))
        };
        self.samples.iter().filter(|(series, _)| wanted(series)).map(|(_, value)| value).sum()
    }

    /// As [`Scrape::sum`], of what counts.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// The values of one label.
    pub(crate) fn by(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let of = |((sample, labels), value): (&Series, &f64)| {
            (sample == name).then(|| (labels[label].clone(), *value as u64))
        };
        let mut all = BTreeMap::new();
        for (value, n) in self.samples.iter().filter_map(of) {
            *all.entry(value).or_default() += n;
        }
        all
    }

    pub(crate) fn series(&self) -> Vec<&Series> {
        self.samples.keys().collect()
    }

    /// Histograms are whole: buckets grow, the last is the count, and none of them has a sum without a count.
    pub(crate) fn check_histograms(&self) {
        let histograms = self.types.iter().filter(|(_, kind)| *kind == "histogram");
        assert_eq!(histograms.clone().count(), 8);
        for (name, _) in histograms {
            let bound = |labels: &BTreeMap<String, String>| labels["le"].parse::<f64>().expect("a bound");
            let of = |((sample, labels), value): (&Series, &f64)| {
                (*sample == format!("{name}_bucket")).then(|| (bound(labels), *value))
            };
            let mut buckets: Vec<(f64, f64)> = self.samples.iter().filter_map(of).collect();
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name}: {buckets:?}");
            let (count, sum) =
                (self.sum(&format!("{name}_count"), &[]), self.sum(&format!("{name}_sum"), &[]));
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}");
            // Each value lies in its bucket: so does their sum, to the 1 % that a bound is true to.
            let (mut least, mut most, mut before) = (0.0, 0.0, (0.0, 0.0));
            for &(bound, below) in &buckets {
                least += (below - before.1) * before.0;
                most += (below - before.1) * bound * 1.01;
                before = (bound, below);
            }
            // Nothing is in the last bucket, as a rule; NaN is 0 times infinity.
            let most = if most.is_nan() { f64::INFINITY } else { most };
            assert!(least <= sum && sum <= most, "{name}: {least} <= {sum} <= {most}");
        }
    }

    /// No counter has fallen since an earlier scrape, and none is gone.
    pub(crate) fn check_grown_since(&self, earlier: &Self) {
        for (series, before) in &earlier.samples {
            let family = series.0.strip_suffix("_total").unwrap_or(&series.0);
            let parts = ["_bucket", "_count", "_sum"].iter().find_map(|end| series.0.strip_suffix(end));
            let is_counter = self.types.get(family).is_some_and(|kind| kind == "counter")
                || parts.is_some_and(|name| self.types.get(name).is_some_and(|kind| kind == "histogram"));
            let now = self.samples.get(series).unwrap_or_else(|| panic!("{series:?} is gone"));
            assert!(!is_counter || now >= before, "{series:?} fell from {before} to {now}");
        }
    }
}
