//! What a part of a worker costs: the path in memory with it and without, interleaved.
//!
//! A [`Subject`] is a part that can be left out. Instructions are what its price is told by; the nanoseconds beside them show
//! that nothing that instructions don't see (caches) weighs more.

use crate::path::{Bench, Cost, Extras, Mode, Setup};
use simd::{Cipher, Level};

/// A part of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The histograms of engine and loop.
    Metrics,
    /// The copy that is the cipher: what "with" saves, rather than adds.
    FusedCopy,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Metrics, Self::FusedCopy];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::FusedCopy => "fused-copy",
        }
    }

    /// What the path does beside, with the part or without.
    #[must_use]
    pub fn extras(self, on: bool) -> Extras {
        match self {
            Self::Metrics => Extras { metrics: on, ..Extras::default() },
            Self::FusedCopy => Extras { fused_copy: on, ..Extras::default() },
        }
    }
}

/// One path that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is left out or not.
    pub subject: Subject,
    /// It isn't.
    pub on: bool,
    /// Bytes of UDP payload.
    pub mtu: u16,
}

impl Case {
    /// AES-128-GCM in batches at this level.
    #[must_use]
    pub fn bench(&self, level: Level, warm_packets: u64) -> Bench {
        let setup = Setup { mode: Mode::Batched, cipher: Some(Cipher::Aes128Gcm), mtu: self.mtu, level };
        Bench::with(setup, self.subject.extras(self.on), warm_packets)
    }

    /// `metrics/1452/on`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.subject.name(), self.mtu, if self.on { "on" } else { "off" })
    }
}

/// Nanoseconds a packet of many rounds, out and in; the median of each.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    out: Vec<f64>,
    taken: Vec<f64>,
}

impl Rounds {
    /// Adds a round.
    pub fn add(&mut self, cost: Cost, ticks_per_ns: f64) {
        let ns = |ticks: u64| ticks as f64 / cost.packets.max(1) as f64 / ticks_per_ns;
        self.out.push(ns(cost.ticks_out));
        self.taken.push(ns(cost.ticks_in));
    }

    /// Medians, out and in.
    #[must_use]
    pub fn medians(&self) -> (f64, f64) {
        (median(&self.out), median(&self.taken))
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_in_the_middle() {
        assert_eq!([&[3.0][..], &[9.0, 1.0, 2.0]].map(median), [3.0, 2.0]);
        assert!(median(&[]).is_nan());
    }
}
