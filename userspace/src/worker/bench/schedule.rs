//! When things are due, and which of them count. Pure objects that are told the time.
//!
//! An open loop asks at the instants of its schedule, whether or not what it asked before was answered, and a latency is
//! counted from the scheduled instant: a server that stalls for a second is then seen by everything that was due in that
//! second, and not by the one request that happened to be under way (coordinated omission).

use std::time::{Duration, Instant};

/// What makes the next one due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// The end of one before: so many are under way at any time.
    Parallel(u32),
    /// The clock: so many a second.
    PerSecond(f64),
}

/// The instants of an open loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    begun: Instant,
    per_second: f64,
    /// How many were taken.
    taken: u64,
}

impl Schedule {
    /// `per_second` is above zero.
    pub(super) fn new(begun: Instant, per_second: f64) -> Self {
        Self { begun, per_second, taken: 0 }
    }

    /// The instant of number `n`. Worked out from the start each time, so that no rounding adds up over a run.
    fn at(&self, n: u64) -> Option<Instant> {
        let after = Duration::try_from_secs_f64(n as f64 / self.per_second).ok()?;
        self.begun.checked_add(after)
    }

    /// The instant of the next one.
    pub(super) fn next(&self) -> Option<Instant> {
        self.at(self.taken)
    }

    /// The next one, if it is due before `end`, and by now.
    pub(super) fn due(&self, now: Instant, end: Option<Instant>) -> Option<Instant> {
        self.next().filter(|&at| at <= now && end.is_none_or(|end| at < end))
    }

    /// The next one is under way.
    pub(super) fn take(&mut self) {
        self.taken += 1;
    }

    /// Gives up on all that are due before `end` and were not taken; how many.
    pub(super) fn skip_until(&mut self, end: Instant) -> u64 {
        let before = self.taken;
        let past = end.saturating_duration_since(self.begun).as_secs_f64();
        // Near enough; by the instants themselves it is exact.
        let mut due = ((past * self.per_second) as u64).saturating_sub(1);
        while self.at(due).is_some_and(|at| at < end) {
            due += 1;
        }
        self.taken = before.max(due);
        self.taken - before
    }
}

/// The part of a run that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    omit: Duration,
    /// `None`: it ends with the last of a given count.
    time: Option<Duration>,
    begun: Option<Instant>,
}

impl Window {
    pub(super) fn new(omit: Duration, time: Option<Duration>) -> Self {
        // What is counted is counted from the first on.
        let omit = if time.is_none() { Duration::ZERO } else { omit };
        Self { omit, time, begun: None }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.begun = Some(now);
    }

    pub(super) fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// The first instant that counts.
    pub(super) fn from(&self) -> Option<Instant> {
        self.begun?.checked_add(self.omit)
    }

    /// The first instant that counts no more.
    pub(super) fn until(&self) -> Option<Instant> {
        self.from()?.checked_add(self.time?)
    }

    pub(super) fn holds(&self, at: Instant) -> bool {
        self.from().is_some_and(|from| at >= from) && self.until().is_none_or(|until| at < until)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now >= until)
    }

    /// How much of it has passed.
    pub(super) fn passed(&self, now: Instant) -> Duration {
        let end = self.until().map_or(now, |until| until.min(now));
        self.from().map_or(Duration::ZERO, |from| end.saturating_duration_since(from))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: an open loop's instants are those of its rate, whenever it is looked at; what is late keeps its instant.
    use super::*;

    fn at(begun: Instant, ms: u64) -> Instant {
        begun + Duration::from_millis(ms)
    }

    #[test]
    fn instants_are_those_of_the_rate_and_late_ones_keep_theirs() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(begun, 100.0);
        let end = Some(at(begun, 50));
        assert_eq!(schedule.due(begun, end), Some(begun));
        schedule.take();
        assert_eq!((schedule.due(at(begun, 9), end), schedule.next()), (None, Some(at(begun, 10))));
        // The loop was held up: those of 10, 20 and 30 ms are all due, each from its own instant.
        let mut late = Vec::new();
        while let Some(due) = schedule.due(at(begun, 35), end) {
            late.push(due.duration_since(begun).as_millis());
            schedule.take();
        }
        assert_eq!(late, [10, 20, 30]);
        schedule.take();
        // 50 ms is the end: nothing is due there, however late it is.
        assert_eq!(schedule.due(at(begun, 1000), end), None);
    }

    #[test]
    fn what_was_never_asked_is_counted() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(begun, 1000.0);
        (0..3).for_each(|_| schedule.take());
        assert_eq!(schedule.skip_until(at(begun, 10)), 7, "0 to 9 ms, less three");
        assert_eq!(schedule.skip_until(at(begun, 10)), 0);
        assert_eq!(schedule.skip_until(at(begun, 5)), 0, "time doesn't run backwards");
        // Whatever the rate, as many are due in half a second as half of it.
        for rate in [300_u32, 700, 1000, 12_346] {
            let due = Schedule::new(begun, f64::from(rate)).skip_until(at(begun, 500));
            assert_eq!(due, u64::from(rate).div_ceil(2), "{rate} a second");
        }
    }

    #[test]
    fn no_rounding_adds_up() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(begun, 3.0);
        (0..3_000_000).for_each(|_| schedule.take());
        let off = schedule.next().unwrap().duration_since(begun).as_secs_f64() - 1e6;
        assert!(off.abs() < 1e-6, "{off}");
        assert_eq!(Schedule::new(begun, 1e-300).next(), Some(begun));
    }

    #[test]
    fn a_window_begins_behind_the_warm_up_and_ends_with_its_time() {
        let begun = Instant::now();
        let mut window = Window::new(Duration::from_millis(100), Some(Duration::from_millis(200)));
        assert!(!window.holds(begun) && !window.is_over(begun));
        window.begin(begun);
        let held: Vec<bool> = [99, 100, 299, 300].map(|ms| window.holds(at(begun, ms))).to_vec();
        assert_eq!(held, [false, true, true, false]);
        assert_eq!([299, 300].map(|ms| window.is_over(at(begun, ms))), [false, true]);
        let passed = [50, 150, 900].map(|ms| window.passed(at(begun, ms)).as_millis());
        assert_eq!(passed, [0, 50, 200]);
        // A count is counted from the first on, and never over by the clock.
        let mut counted = Window::new(Duration::from_secs(1), None);
        counted.begin(begun);
        assert!(counted.holds(begun) && !counted.is_over(at(begun, 1 << 40)));
    }
}
