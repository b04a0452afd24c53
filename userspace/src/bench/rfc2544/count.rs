//! [`Counter`]: what became of a trial's frames, counted exactly at the receiver. Pure: payloads and instants in, sums out.

use super::stamp::Stamp;
use hdrhistogram::Histogram;
use pktgen::Sizes;

/// Digits of the latency histogram: quantiles are within a thousandth of the truth.
const DIGITS: u8 = 3;

/// What came of a trial at the receiver.
///
/// Invariant: each frame that came counts under exactly one of `received`, `duplicate`, `corrupted`, `late` and `foreign`.
/// `reordered` is a part of `received`.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Different frames of this trial, whole.
    pub(super) received: u64,
    /// Frames that had come before.
    pub(super) duplicate: u64,
    /// Came after one with a higher number (RFC 4737 section 3).
    pub(super) reordered: u64,
    /// With a wrong checksum or length.
    pub(super) corrupted: u64,
    /// Of an earlier trial.
    pub(super) late: u64,
    /// To the measurement's address and port, but none of its frames.
    pub(super) foreign: u64,
    /// Lost by the receiver itself, not by the device: it was too slow.
    pub(super) receiver_dropped: u64,
    /// Of frames received, in nanoseconds, if asked for.
    pub(super) latency: Option<Latency>,
}

/// A histogram of nanoseconds, with the extremes as they were.
#[derive(Clone, Debug)]
pub(super) struct Latency {
    histogram: Histogram<u64>,
    min_ns: u64,
    max_ns: u64,
}

impl Latency {
    pub(super) fn new() -> Option<Self> {
        Some(Self { histogram: Histogram::new(DIGITS).ok()?, min_ns: u64::MAX, max_ns: 0 })
    }

    pub(super) fn record(&mut self, ns: u64) {
        // It grows as it needs to; any number of nanoseconds fits.
        let _ = self.histogram.record(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    pub(super) fn add(&mut self, other: &Self) {
        let _ = self.histogram.add(&other.histogram);
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// By name: min, P50, P90, P99, P99.9, max, in nanoseconds. `None` without values.
    pub(super) fn figures(&self) -> Option<[(&'static str, u64); 6]> {
        let quantile = |q| self.histogram.value_at_quantile(q).clamp(self.min_ns, self.max_ns);
        (self.count() > 0).then(|| {
            [
                ("min", self.min_ns),
                ("p50", quantile(0.5)),
                ("p90", quantile(0.9)),
                ("p99", quantile(0.99)),
                ("p99_9", quantile(0.999)),
                ("max", self.max_ns),
            ]
        })
    }
}

/// Of which trial frames are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) magic: u32,
    pub(super) trial: u16,
    pub(super) sizes: Sizes,
    /// Bytes in front of the payload.
    pub(super) headers_bytes: usize,
    /// Numbers from here on weren't sent. Bounds the memory that a stranger's frame can claim.
    pub(super) count_max: u32,
    pub(super) wants_latency: bool,
}

/// Counts the frames of one trial.
pub(super) struct Counter {
    expected: Expected,
    tally: Tally,
    /// A bit for each number that came.
    seen: Vec<u64>,
    highest: Option<u32>,
}

impl Counter {
    pub(super) fn new(expected: Expected) -> Self {
        let latency = expected.wants_latency.then(Latency::new).flatten();
        Self { expected, tally: Tally { latency, ..Tally::default() }, seen: Vec::new(), highest: None }
    }

    /// Different frames so far.
    pub(super) fn received(&self) -> u64 {
        self.tally.received
    }

    /// A UDP payload whose checksum was right, that came at `at_ns`.
    pub(super) fn take(&mut self, payload: &[u8], at_ns: u64) {
        let Expected { magic, trial, sizes, headers_bytes, count_max, .. } = self.expected;
        let tally = &mut self.tally;
        let Some(stamp) = Stamp::read(payload).filter(|stamp| stamp.magic == magic) else {
            tally.foreign += 1;
            return;
        };
        if stamp.trial != trial {
            tally.late += 1;
            return;
        }
        let Stamp { sequence, .. } = stamp;
        if sequence >= count_max || payload.len() + headers_bytes != sizes.of(u64::from(sequence)) {
            tally.corrupted += 1;
            return;
        }
        let (word, bit) = ((sequence / 64) as usize, 1u64 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            tally.duplicate += 1;
            return;
        }
        self.seen[word] |= bit;
        tally.received += 1;
        match self.highest {
            Some(highest) if sequence < highest => tally.reordered += 1,
            _ => self.highest = Some(sequence),
        }
        if let Some(latency) = &mut tally.latency {
            latency.record(at_ns.saturating_sub(stamp.at_ns));
        }
    }

    /// The sums, with what the port and the kernel counted beside them.
    pub(super) fn finish(mut self, corrupted: u64, receiver_dropped: u64) -> Tally {
        self.tally.corrupted += corrupted;
        self.tally.receiver_dropped = receiver_dropped;
        self.tally
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each frame counts once, under what it is; a stranger's can't claim memory. Method: crafted payloads, and for
    //! loss, copies and disorder a shuffle by a seed, which is printed, against sums that are known.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

    const EXPECTED: Expected = Expected {
        magic: 1,
        trial: 2,
        sizes: Sizes::Fixed(60),
        headers_bytes: 42,
        count_max: 1000,
        wants_latency: true,
    };

    fn payload(stamp: Stamp) -> [u8; 18] {
        let mut bytes = [0; 18];
        stamp.write(&mut bytes).unwrap();
        bytes
    }

    fn frame(sequence: u32) -> [u8; 18] {
        payload(Stamp { magic: 1, trial: 2, sequence, at_ns: 100 })
    }

    #[test]
    fn each_counts_under_what_it_is() {
        let mut counter = Counter::new(EXPECTED);
        for sequence in [0, 1, 3, 2, 2, 4] {
            counter.take(&frame(sequence), 150 + u64::from(sequence));
        }
        counter.take(&frame(1000), 200);
        counter.take(&[&frame(5)[..], &[0]].concat(), 200);
        counter.take(&payload(Stamp { magic: 9, trial: 2, sequence: 5, at_ns: 0 }), 200);
        counter.take(&[0; 3], 200);
        counter.take(&payload(Stamp { magic: 1, trial: 1, sequence: 5, at_ns: 0 }), 200);
        let tally = counter.finish(7, 3);
        assert_eq!((tally.received, tally.duplicate, tally.reordered), (5, 1, 1));
        assert_eq!((tally.corrupted, tally.foreign, tally.late, tally.receiver_dropped), (9, 2, 1, 3));
        let latency = tally.latency.unwrap();
        assert_eq!(latency.count(), 5);
        let figures = latency.figures().unwrap();
        assert_eq!((figures[0], figures[1], figures[5]), (("min", 50), ("p50", 52), ("max", 54)));
    }

    #[test]
    fn loss_copies_and_disorder_by_a_seed() {
        for seed in 0..20 {
            println!("seed {seed}");
            let mut rng = StdRng::seed_from_u64(seed);
            let mut order: Vec<u32> = (0..1000).filter(|n| n % 7 != 0).collect();
            let different = order.len() as u64;
            order.extend((0..1000).filter(|n| n % 70 == 1));
            let copies = order.len() as u64 - different;
            order.shuffle(&mut rng);
            let mut counter = Counter::new(EXPECTED);
            order.iter().for_each(|&sequence| counter.take(&frame(sequence), 100));
            let tally = counter.finish(0, 0);
            assert_eq!((tally.received, tally.duplicate), (different, copies));
            // The oracle: those that come first behind a higher one.
            let mut highest = None;
            let mut seen = std::collections::BTreeSet::new();
            let reordered = order.iter().filter(|&&n| {
                let is_new = seen.insert(n);
                let is_behind = is_new && highest.is_some_and(|highest| n < highest);
                highest = highest.max(Some(n));
                is_behind
            });
            assert_eq!(tally.reordered, reordered.count() as u64);
        }
    }

    #[test]
    fn latencies_of_several_runs_add_up() {
        let (mut one, mut other) = (Latency::new().unwrap(), Latency::new().unwrap());
        assert_eq!(one.figures(), None);
        one.record(1000);
        other.record(10);
        one.add(&other);
        assert_eq!((one.count(), one.figures().unwrap()[0].1, one.figures().unwrap()[5].1), (2, 10, 1000));
    }
}
