//! When frames are due.

use std::time::{Duration, Instant};

/// Spreads bursts over time at an even distance. What was late is made up, so that the rate is kept over the whole run.
///
/// Invariant: `taken` bursts have been taken of those due since `start`, the first of which is due at once.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    start: Instant,
    /// Nanoseconds from one burst to the next; 0: all are due at once.
    gap_ns: f64,
    taken: u64,
}

impl Pacer {
    /// One burst each `gap_ns` from `start` on.
    #[must_use]
    pub fn new(start: Instant, gap_ns: f64) -> Self {
        Self { start, gap_ns: gap_ns.max(0.0), taken: 0 }
    }

    /// Bursts that are due now and haven't been taken, at most `max`.
    #[must_use]
    pub fn due(&self, now: Instant, max: usize) -> usize {
        if self.gap_ns == 0.0 {
            return max;
        }
        let since = now.saturating_duration_since(self.start).as_nanos() as f64;
        let due = (since / self.gap_ns) as u64 + 1;
        usize::try_from(due.saturating_sub(self.taken)).unwrap_or(max).min(max)
    }

    /// So many of them go out.
    pub fn take(&mut self, count: usize) {
        self.taken += count as u64;
    }

    /// How long until the next one is due.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        let at = self.taken as f64 * self.gap_ns;
        let since = now.saturating_duration_since(self.start).as_nanos() as f64;
        // At the edge of a nanosecond `due` and this could differ for ever.
        Duration::from_nanos((at - since).max(0.0).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the right number is due at each virtual instant; what was late is made up; nothing is due twice.
    use super::*;

    #[test]
    fn one_each_gap() {
        let start = Instant::now();
        let at = |ns| start + Duration::from_nanos(ns);
        let mut pacer = Pacer::new(start, 1000.0);
        assert_eq!(pacer.due(start, 32), 1);
        pacer.take(1);
        assert_eq!((pacer.due(at(999), 32), pacer.wait(at(999))), (0, Duration::from_nanos(1)));
        assert_eq!(pacer.due(at(1000), 32), 1);
        // Late: those of 1, 2 and 3 microseconds.
        assert_eq!((pacer.due(at(3500), 32), pacer.due(at(3500), 2)), (3, 2));
        pacer.take(3);
        assert_eq!((pacer.due(at(3500), 32), pacer.wait(at(3500))), (0, Duration::from_nanos(500)));
    }

    #[test]
    fn the_rate_is_exact_over_a_second_whenever_it_is_asked() {
        for (rate, step_ns) in [(3.0, 7_777_777), (1000.0, 1_234_567), (148_809.0, 10_007)] {
            let start = Instant::now();
            let mut pacer = Pacer::new(start, 1e9 / rate);
            let (mut now_ns, mut sent) = (0, 0);
            while now_ns < 1_000_000_000 {
                let due = pacer.due(start + Duration::from_nanos(now_ns), usize::MAX);
                pacer.take(due);
                sent += due as u64;
                now_ns += step_ns;
            }
            assert!((sent as f64 - rate).abs() <= rate * step_ns as f64 / 1e9 + 1.0, "{rate}: {sent}");
        }
    }

    #[test]
    fn unpaced() {
        let pacer = Pacer::new(Instant::now(), 0.0);
        assert_eq!((pacer.due(Instant::now(), 32), pacer.wait(Instant::now())), (32, Duration::ZERO));
    }
}
