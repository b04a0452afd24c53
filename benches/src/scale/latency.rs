//! Latencies, in a histogram of three significant digits.

use anyhow::Result;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Up to ten minutes; what is longer counts as that.
const MAX_US: u64 = 600_000_000;

/// Times from when something was due until it was there.
#[derive(Clone, Debug)]
pub(super) struct Latency(Histogram<u64>);

impl Latency {
    /// Without values.
    ///
    /// # Errors
    /// None in practice: the bounds are constants.
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, MAX_US, 3)?))
    }

    /// Takes one.
    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record((took.as_micros() as u64).max(1));
    }

    /// In milliseconds; `None` without values.
    #[must_use]
    pub(super) fn percentile_ms(&self, percent: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_percentile(percent) as f64 / 1000.0)
    }

    /// For a plot: percentile and milliseconds, each percentile that a reader may ask for.
    #[must_use]
    pub(super) fn curve_ms(&self) -> Vec<(f64, f64)> {
        const PERCENTS: [f64; 11] = [1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0];
        PERCENTS.iter().filter_map(|&percent| Some((percent, self.percentile_ms(percent)?))).collect()
    }
}
