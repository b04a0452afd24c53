//! Histograms for what a worker measures while packets pass.
//!
//! A [`Histogram`] has one writer, which records without a lock, an atomic or a clock: an index from the value's leading
//! zeros, and a few additions. It takes memory up to the largest value that came, so it grows a few times at most. Whoever
//! wants to look gets a copy, and merges copies ([`Histogram::add`]) or takes what an earlier copy had away
//! ([`Histogram::since`]). Values are kept to two significant digits, so that a quantile is within 1 % of the truth; the
//! sum is exact.

use std::time::Duration;

/// What is recorded: the unit, and how far it goes. A value beyond is counted as the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Microseconds, up to a minute: 20 KB at most, 8 KB where all are below 16 ms.
    Time,
    /// Numbers of packets in a batch, up to 4096: 7 KB at most, 2 KB where all are below 256.
    Count,
}

const SIGNIFICANT_DIGITS: u8 = 2;

impl Scale {
    const fn max(self) -> u64 {
        match self {
            Self::Time => 60_000_000,
            Self::Count => 4096,
        }
    }
}

/// See the module. Its sum may wrap: after half a million years.
#[derive(Clone, Debug)]
pub struct Histogram {
    scale: Scale,
    counts: hdrhistogram::Histogram<u64>,
    sum: u64,
}

impl Histogram {
    /// Without values.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        let Ok(counts) = hdrhistogram::Histogram::new(SIGNIFICANT_DIGITS) else {
            unreachable!("the digits are a constant below 6")
        };
        Self { scale, counts, sum: 0 }
    }

    /// Records one value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        let value = value.min(self.scale.max());
        self.sum = self.sum.wrapping_add(value);
        // The only error is a value that it can't grow to, of which the scales have none.
        let _ = self.counts.record(value);
    }

    /// Records a time, in whole microseconds.
    #[inline]
    pub fn record_time(&mut self, time: Duration) {
        self.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds what another one of the same scale holds.
    ///
    /// # Panics
    /// In debug builds, if the scales differ.
    pub fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.scale, other.scale, "microseconds aren't packets");
        // As above.
        if self.counts.add(&other.counts).is_ok() {
            self.sum = self.sum.wrapping_add(other.sum);
        }
    }

    /// What was recorded after `earlier`, an older copy of this one; all of it if that isn't one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        if later.counts.subtract(&earlier.counts).is_err() {
            return self.clone();
        }
        later.sum = self.sum.wrapping_sub(earlier.sum);
        later
    }

    /// What is recorded.
    #[must_use]
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// Of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The value that so many are below or at, `q` from 0 to 1; `None` without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        (self.count() > 0).then(|| self.counts.value_at_quantile(q))
    }

    /// The largest value; `None` without values.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.counts.max().min(self.scale.max()))
    }

    /// How many values are at most each of `bounds`, which rise. A value within 1 % above a bound may count as below.
    #[must_use]
    pub fn cumulative(&self, bounds: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; bounds.len()];
        let mut at = 0;
        let mut total = 0;
        for step in self.counts.iter_recorded() {
            // The lowest value of the step: what lies above a bound in whole isn't below it.
            let lowest = self.counts.lowest_equivalent(step.value_iterated_to());
            while at < bounds.len() && bounds[at] < lowest {
                counts[at] = total;
                at += 1;
            }
            total += step.count_since_last_iteration();
        }
        counts[at..].fill(total);
        counts
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.counts.distinct_values() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: counts and sums are exact, quantiles and bounds true to 1 %, whatever is merged or taken away; memory is as
    //! the documents say. Method: an oracle that keeps every value, on seeded random values; the seed is printed.
    use super::*;
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    fn random(scale: Scale, seed: u64, count: usize) -> (Histogram, Vec<u64>) {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut histogram = Histogram::new(scale);
        let draw = |rng: &mut StdRng| {
            let bits = rng.random_range(0..30);
            rng.random_range(0..=1_u64 << bits)
        };
        let values: Vec<u64> = (0..count).map(|_| draw(&mut rng)).collect();
        values.iter().for_each(|&value| histogram.record(value));
        (histogram, values.into_iter().map(|value| value.min(scale.max())).collect())
    }

    fn near(seen: u64, truth: u64) -> bool {
        seen.abs_diff(truth) as f64 <= truth as f64 * 0.01
    }

    #[test]
    fn quantiles_sums_and_bounds_are_those_of_the_values() {
        for (scale, seed) in [(Scale::Time, 11), (Scale::Count, 12)] {
            let (histogram, mut values) = random(scale, seed, 20_000);
            values.sort_unstable();
            assert_eq!(histogram.count(), values.len() as u64);
            assert_eq!(histogram.sum(), values.iter().sum());
            assert_eq!(histogram.max(), values.last().copied());
            for q in [0.5, 0.95, 0.99, 1.0] {
                let truth = values[((values.len() as f64 * q).ceil() as usize).max(1) - 1];
                let seen = histogram.quantile(q).unwrap();
                assert!(near(seen, truth), "{scale:?} {q}: {seen} for {truth}");
            }
            let bounds = [0, 1, 2, 10, 64, 100, 250, 1000, 2500, 100_000, 60_000_000];
            for (&bound, seen) in bounds.iter().zip(histogram.cumulative(&bounds)) {
                let at_most = |bound: u64| values.iter().filter(|&&value| value <= bound).count() as u64;
                // A hundredth above the bound at most; below 256 exact.
                let slack = if bound < 256 { bound } else { bound + bound / 100 };
                assert!((at_most(bound)..=at_most(slack)).contains(&seen), "{scale:?} <= {bound}: {seen}");
            }
        }
    }

    #[test]
    fn copies_merge_and_subtract() {
        let (mut one, first) = random(Scale::Time, 21, 5000);
        let (other, second) = random(Scale::Time, 22, 5000);
        let before = one.clone();
        one.add(&other);
        assert_eq!(one.count(), 10_000);
        assert_eq!(one.sum(), first.iter().chain(&second).sum());
        let later = one.since(&before);
        assert_eq!((later.count(), later.sum()), (5000, other.sum()));
        let quantiles = |histogram: &Histogram| [0.5, 0.95, 0.99].map(|q| histogram.quantile(q));
        assert_eq!(quantiles(&later), quantiles(&other));
        assert_eq!(one.since(&one.clone()).quantile(0.5), None);
        // Not an older copy: nothing is taken away.
        assert_eq!(before.since(&one).count(), 5000);
    }

    #[test]
    fn nothing_is_out_of_range() {
        let mut histogram = Histogram::new(Scale::Time);
        assert_eq!(
            (histogram.quantile(0.5), histogram.max(), histogram.cumulative(&[1, 2])),
            (None, None, vec![0, 0])
        );
        histogram.record_time(Duration::MAX);
        histogram.record_time(Duration::from_nanos(999));
        assert_eq!((histogram.count(), histogram.max()), (2, Some(60_000_000)));
        assert_eq!(histogram.cumulative(&[0, 59_000_000, 60_000_000]), [1, 1, 2]);
    }

    #[test]
    fn memory_is_bounded_and_known() {
        let kilobytes = |scale, largest| {
            let mut histogram = Histogram::new(scale);
            histogram.record(largest);
            histogram.memory_bytes() / 1024
        };
        assert_eq!(kilobytes(Scale::Time, 16_000), 8);
        assert_eq!(kilobytes(Scale::Time, u64::MAX), 20);
        assert_eq!(kilobytes(Scale::Count, 255), 2);
        assert_eq!(kilobytes(Scale::Count, u64::MAX), 7);
    }
}
