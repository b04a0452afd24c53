//! [`Search`]: which rate to try next, and what the trials so far say. Pure, so that it is tested against made-up devices.
//!
//! The first trial goes as fast as the sender can, and the next one at the rate that the device forwarded then, as the
//! MLRsearch of FD.io's CSIT begins. From there it steps away, each step twice as long, until the rate lies between one that
//! passed and one that failed; that interval is halved until it is narrow enough. Both goals learn from every trial.
//!
//! ```text
//!  min ──── lower (passed) ◄─── next trial ───► upper (failed, or as fast as it goes) ────
//! ```

/// Trials of one search: thirty halvings of both goals, which no precision above 0.01 % needs.
const TRIALS_MAX: usize = 64;
/// A paced sender that reaches less than this of what it was asked for is the limit itself.
const REACHED_MIN: f64 = 0.98;

/// What keeps a rate from being higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Above it, the device loses frames.
    Device,
    /// This host can't send faster: the device may be able to do more.
    Generator,
    /// This host can't receive faster: the device may be able to do more.
    Receiver,
    /// `--max-rate`.
    Asked,
}

impl Limit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Generator => "generator",
            Self::Receiver => "receiver",
            Self::Asked => "max_rate",
        }
    }
}

/// A trial in the search's eyes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    /// Frames a second that left.
    pub(super) offered_per_s: f64,
    /// Frames a second that came out.
    pub(super) forwarded_per_s: f64,
    /// Of the frames that left, from 0 to 1.
    pub(super) loss: f64,
    /// The part of it that this host's receiver may have lost.
    pub(super) receiver_loss: f64,
}

/// A rate that passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Passed {
    pub(super) offered_per_s: f64,
    pub(super) loss: f64,
}

/// What a search has found for one goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    /// The highest rate that passed; none where even the lowest one loses too much.
    pub(super) passed: Option<Passed>,
    pub(super) limit: Limit,
    /// The lowest rate that didn't pass, or the highest that could be tried.
    pub(super) upper_per_s: f64,
}

/// One of the two: no loss, some loss.
struct Goal {
    loss_max: f64,
    passed: Vec<Passed>,
    upper: Option<(f64, Limit)>,
    /// The lowest rate has been tried, and failed.
    hopeless: bool,
}

impl Goal {
    fn new(loss_max: f64) -> Self {
        Self { loss_max, passed: Vec::new(), upper: None, hopeless: false }
    }

    /// The highest rate that passed below all that failed: what failed lower is believed.
    fn lower(&self) -> Option<Passed> {
        let (upper, _) = self.upper?;
        let below = self.passed.iter().filter(|passed| passed.offered_per_s <= upper);
        below.copied().max_by(|a, b| a.offered_per_s.total_cmp(&b.offered_per_s))
    }

    fn found(&self) -> Option<Found> {
        let (upper_per_s, limit) = self.upper?;
        Some(Found { passed: self.lower(), limit, upper_per_s })
    }
}

/// See the module.
pub(super) struct Search {
    goals: [Goal; 2],
    precision: f64,
    min_per_s: Option<f64>,
    max_per_s: Option<f64>,
    /// What the first trial offered.
    top_per_s: f64,
    /// What the device forwarded of that, if not all: the first guess.
    guess: Option<f64>,
    trials: usize,
    /// A trial told the opposite of an earlier one.
    contradictions: usize,
}

/// What to try: a rate, or as fast as it goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Next {
    AsFastAsItGoes,
    PerSecond(f64),
}

impl Search {
    /// For no loss and for a loss of `pdr_loss`; to a `precision`, both from 0 to 1.
    pub(super) fn new(pdr_loss: f64, precision: f64, min_per_s: Option<f64>, max_per_s: Option<f64>) -> Self {
        let goals = [Goal::new(0.0), Goal::new(pdr_loss)];
        Self {
            goals,
            precision,
            min_per_s,
            max_per_s,
            top_per_s: 0.0,
            guess: None,
            trials: 0,
            contradictions: 0,
        }
    }

    /// The next trial; `None` once both rates are found.
    pub(super) fn next(&self) -> Option<Next> {
        if self.trials == 0 {
            return Some(self.max_per_s.map_or(Next::AsFastAsItGoes, Next::PerSecond));
        }
        if self.trials >= TRIALS_MAX {
            return None;
        }
        self.goals.iter().find_map(|goal| self.next_of(goal)).map(Next::PerSecond)
    }

    fn next_of(&self, goal: &Goal) -> Option<f64> {
        let (upper, _) = goal.upper.filter(|_| !goal.hopeless)?;
        let lower = goal.lower().map(|passed| passed.offered_per_s);
        let floor = self.floor();
        let (low, width) = (lower.unwrap_or(floor), self.precision * upper);
        if upper - low <= width {
            // Nothing has passed yet: the lowest rate of all decides.
            return lower.is_none().then_some(floor);
        }
        let near = |rate: &f64| (low + width / 2.0..upper - width / 2.0).contains(rate);
        let stepped = self.guess.and_then(|guess| {
            let step = 2.0 * self.precision * guess;
            match lower {
                _ if near(&guess) => Some(guess),
                None if upper <= guess + step => Some(guess - 2.0 * (guess - upper).max(0.0) - step),
                Some(lower) if lower >= guess - step => Some(guess + 2.0 * (lower - guess).max(0.0) + step),
                _ => None,
            }
        });
        // In the middle of what is left, by the ratio: the precision is one, too.
        Some(stepped.filter(near).unwrap_or((low * upper).sqrt()))
    }

    /// The lowest rate, unless told otherwise: a hundredth of what came out of the first trial, or of what went in, where
    /// nothing did. At least one frame a second.
    fn floor(&self) -> f64 {
        let came_out = self.guess.filter(|guess| *guess > 0.0).unwrap_or(self.top_per_s);
        self.min_per_s.unwrap_or(came_out / 100.0).max(1.0)
    }

    /// What came of the trial that [`Search::next`] asked for.
    pub(super) fn record(&mut self, asked: Next, seen: Seen) {
        self.trials += 1;
        let fell_short = match asked {
            Next::AsFastAsItGoes => true,
            Next::PerSecond(rate) => seen.offered_per_s < REACHED_MIN * rate,
        };
        let is_top = self.trials == 1;
        if is_top {
            self.top_per_s = seen.offered_per_s;
        }
        let is_lowest = !is_top && asked == Next::PerSecond(self.floor());
        let rate = seen.offered_per_s;
        for goal in &mut self.goals {
            if seen.loss <= goal.loss_max {
                // A sender that stays below what it is asked for would have the same rate asked for ever.
                let no_news = |lower: Passed| {
                    let known = lower.offered_per_s * (1.0 + self.precision / 4.0);
                    rate <= known && matches!(asked, Next::PerSecond(asked) if asked > known)
                };
                let fell_short = fell_short || goal.lower().is_some_and(no_news);
                let is_above = goal.upper.is_some_and(|(upper, _)| rate > upper);
                self.contradictions += usize::from(is_above);
                goal.passed.push(Passed { offered_per_s: rate, loss: seen.loss });
                if is_top || (fell_short && !is_above) {
                    let limit = if fell_short { Limit::Generator } else { Limit::Asked };
                    goal.upper = Some((rate, limit));
                }
                goal.hopeless |= is_lowest && goal.lower().is_none();
                continue;
            }
            self.contradictions += usize::from(goal.lower().is_some_and(|lower| rate <= lower.offered_per_s));
            // What the receiver lost may have passed the device.
            let is_receivers = seen.loss - seen.receiver_loss <= goal.loss_max;
            let limit = if is_receivers { Limit::Receiver } else { Limit::Device };
            if goal.upper.is_none_or(|(upper, _)| rate <= upper) {
                goal.upper = Some((rate, limit));
                // A rate passes from below it on.
                goal.passed.retain(|passed| passed.offered_per_s < rate);
            }
            goal.hopeless |= is_lowest && goal.lower().is_none();
        }
        if is_top && seen.loss > 0.0 {
            self.guess = Some(seen.forwarded_per_s);
        }
    }

    /// No-drop and partial-drop rate. `None` before the first trial.
    pub(super) fn found(&self) -> Option<[Found; 2]> {
        Some([self.goals[0].found()?, self.goals[1].found()?])
    }

    /// Trials that told the opposite of an earlier one: a device, or a host, that isn't steady.
    pub(super) fn contradictions(&self) -> usize {
        self.contradictions
    }

    /// The search gave up narrowing.
    pub(super) fn is_exhausted(&self) -> bool {
        self.trials >= TRIALS_MAX && self.goals.iter().any(|goal| self.next_of(goal).is_some())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: whatever a device does, the search ends, and says the rate that it stands for, to the precision, and who is
    //! the limit. Method: made-up devices and senders, trials without time.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const PDR: f64 = 0.005;

    /// Searches a device by its loss at each rate, behind a sender that reaches `sender_max`.
    fn search(search: &mut Search, sender_max: f64, mut seen_at: impl FnMut(f64) -> (f64, f64)) -> usize {
        let mut count = 0;
        while let Some(next) = search.next() {
            let offered_per_s = match next {
                Next::AsFastAsItGoes => sender_max,
                Next::PerSecond(rate) => rate.min(sender_max),
            };
            let (loss, receiver_loss) = seen_at(offered_per_s);
            let forwarded_per_s = offered_per_s * (1.0 - loss);
            search.record(next, Seen { offered_per_s, forwarded_per_s, loss, receiver_loss });
            count += 1;
            assert!(count <= TRIALS_MAX, "it doesn't end");
        }
        count
    }

    fn new() -> Search {
        Search::new(PDR, 0.01, None, None)
    }

    /// A device that forwards so many a second and drops the rest.
    fn capacity(capacity: f64) -> impl FnMut(f64) -> (f64, f64) {
        move |rate| ((1.0 - capacity / rate).max(0.0), 0.0)
    }

    #[test]
    fn a_device_with_a_capacity() {
        for true_rate in [15_000.0, 123_456.0, 500_000.0, 990_000.0] {
            let mut under_test = new();
            let count = search(&mut under_test, 1e6, capacity(true_rate));
            let [ndr, pdr] = under_test.found().unwrap();
            let (ndr_rate, pdr_rate) = (ndr.passed.unwrap().offered_per_s, pdr.passed.unwrap().offered_per_s);
            assert!(ndr_rate <= true_rate && ndr_rate > true_rate * 0.985, "{true_rate}: {ndr_rate}");
            let pdr_true = true_rate / (1.0 - PDR);
            assert!(
                pdr_rate <= pdr_true * 1.000_001 && pdr_rate > pdr_true * 0.985,
                "{true_rate}: {pdr_rate}"
            );
            assert!(pdr_rate >= ndr_rate && pdr.passed.unwrap().loss <= PDR);
            assert_eq!((ndr.limit, pdr.limit), (Limit::Device, Limit::Device));
            assert!(ndr.upper_per_s > ndr_rate && count <= 10, "{count} trials");
            assert_eq!(under_test.contradictions(), 0);
        }
    }

    #[test]
    fn a_device_that_is_never_the_limit() {
        let mut under_test = new();
        assert_eq!(search(&mut under_test, 1e6, |_| (0.0, 0.0)), 1);
        let found = under_test.found().unwrap();
        assert!(found.iter().all(|found| found.limit == Limit::Generator));
        assert!(found.iter().all(|found| found.passed.unwrap().offered_per_s == 1e6));
    }

    #[test]
    fn a_rate_that_was_asked_for() {
        let mut under_test = Search::new(PDR, 0.01, None, Some(5e5));
        assert_eq!(search(&mut under_test, 1e6, |_| (0.0, 0.0)), 1);
        assert_eq!(under_test.found().unwrap()[0].limit, Limit::Asked);
        // And a sender that doesn't reach it.
        let mut under_test = Search::new(PDR, 0.01, None, Some(5e6));
        search(&mut under_test, 1e6, |_| (0.0, 0.0));
        assert_eq!(under_test.found().unwrap()[0].limit, Limit::Generator);
    }

    #[test]
    fn a_device_that_loses_a_little_always() {
        // 0.1 % at any rate: no no-drop rate, and a partial-drop rate that the sender limits.
        let mut under_test = new();
        search(&mut under_test, 1e6, |_| (0.001, 0.0));
        let [ndr, pdr] = under_test.found().unwrap();
        assert_eq!((ndr.passed, ndr.limit), (None, Limit::Device));
        assert!(ndr.upper_per_s <= 10_000.0, "the lowest rate was tried: {ndr:?}");
        assert_eq!((pdr.limit, pdr.passed.unwrap().offered_per_s), (Limit::Generator, 1e6));
        // 1 %: neither.
        let mut under_test = new();
        search(&mut under_test, 1e6, |_| (0.01, 0.0));
        assert!(under_test.found().unwrap().iter().all(|found| found.passed.is_none()));
        // Nothing comes through at all.
        let mut under_test = new();
        search(&mut under_test, 1e6, |_| (1.0, 0.0));
        assert!(under_test.found().unwrap().iter().all(|found| found.passed.is_none()));
    }

    #[test]
    fn what_the_receiver_loses_isnt_the_devices() {
        let mut under_test = new();
        search(&mut under_test, 1e6, |rate| {
            let lost = (1.0 - 300_000.0 / rate).max(0.0);
            (lost, lost)
        });
        let [ndr, pdr] = under_test.found().unwrap();
        assert_eq!((ndr.limit, pdr.limit), (Limit::Receiver, Limit::Receiver));
        assert!(ndr.passed.unwrap().offered_per_s <= 300_000.0);
    }

    #[test]
    fn a_sender_that_tires() {
        // It reached a million once, and only half of it afterwards: said of the rate, not held against the device.
        let mut first = true;
        let mut under_test = new();
        while let Some(next) = under_test.next() {
            let offered_per_s = if first { 1e6 } else { 5e5 };
            let loss = if first { 0.2 } else { 0.0 };
            first = false;
            let forwarded_per_s = offered_per_s * (1.0 - loss);
            under_test.record(next, Seen { offered_per_s, forwarded_per_s, loss, receiver_loss: 0.0 });
        }
        let [ndr, _] = under_test.found().unwrap();
        assert_eq!((ndr.limit, ndr.passed.unwrap().offered_per_s), (Limit::Generator, 5e5));
    }

    #[test]
    fn an_unsteady_device_ends_all_the_same() {
        // Loses by the number of the trial, not by the rate: the lower failure is believed.
        for salt in 0..200_u64 {
            let mut n = salt;
            let mut under_test = new();
            search(&mut under_test, 1e6, |_| {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (if n >> 63 == 0 { 0.0 } else { 0.1 }, 0.0)
            });
            for found in under_test.found().unwrap() {
                assert!(
                    found.passed.is_none_or(|passed| passed.offered_per_s <= found.upper_per_s),
                    "{salt}"
                );
            }
        }
    }

    #[test]
    fn a_device_that_loses_early_and_a_sender_that_is_slack() {
        // Loss begins at a tenth of what the device forwards when it is flooded; the sender reaches 98.5 % of each rate.
        for (slack, trials_max) in [(1.0, 18), (0.985, 22)] {
            let mut under_test = new();
            let mut count = 0;
            while let Some(next) = under_test.next() {
                let offered_per_s = if let Next::PerSecond(rate) = next { rate * slack } else { 1e6 };
                let loss = if offered_per_s > 5e4 { 0.5 } else { 0.0 };
                let forwarded_per_s = offered_per_s * (1.0 - loss);
                under_test.record(next, Seen { offered_per_s, forwarded_per_s, loss, receiver_loss: 0.0 });
                count += 1;
            }
            let rate = under_test.found().unwrap()[0].passed.unwrap().offered_per_s;
            assert!(rate <= 5e4 && rate > 4.8e4 && count <= trials_max, "{rate} after {count} trials");
        }
    }

    #[test]
    fn nothing_is_found_before_a_trial() {
        assert_eq!(new().found(), None);
        assert_eq!(new().next(), Some(Next::AsFastAsItGoes));
    }
}
