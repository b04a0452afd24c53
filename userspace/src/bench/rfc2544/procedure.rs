//! What is done for each frame size, and in which order. Over a trait, so that it is tested with a device that is made up.
//!
//! ```text
//!  each size, each run:  does it come through at all? ──► search (NDR, PDR) ──► latency at 10, 50, 90 % of the NDR
//! ```

use super::{
    count::Tally,
    search::{Found, Next, Search, Seen},
};
use crate::{
    cli::{FrameSize, Rfc2544Args},
    failure::Failure,
};
use std::time::Duration;

/// Parts of the no-drop rate at which latency is measured, in percent.
pub(super) const LATENCY_PERCENT: [u32; 3] = [10, 50, 90];

/// One trial, wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ask {
    pub(super) size: FrameSize,
    pub(super) rate: Next,
    pub(super) wants_latency: bool,
}

/// One trial, done.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) rate: Next,
    /// Frames that left.
    pub(super) sent: u64,
    /// Frames that the sending interface refused: they never left, and aren't among `sent`.
    pub(super) refused: u64,
    pub(super) took: Duration,
    pub(super) tally: Tally,
}

impl Trial {
    fn per_s(&self, frames: u64) -> f64 {
        let seconds = self.took.as_secs_f64();
        if seconds > 0.0 { frames as f64 / seconds } else { 0.0 }
    }

    pub(super) fn offered_per_s(&self) -> f64 {
        self.per_s(self.sent)
    }

    pub(super) fn forwarded_per_s(&self) -> f64 {
        self.per_s(self.tally.received.min(self.sent))
    }

    /// Frames that left and didn't come, or came spoilt.
    pub(super) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.tally.received)
    }

    pub(super) fn loss(&self) -> f64 {
        self.part(self.lost())
    }

    fn part(&self, frames: u64) -> f64 {
        // Where nothing left, nothing was shown.
        if self.sent > 0 { frames as f64 / self.sent as f64 } else { 1.0 }
    }

    fn seen(&self) -> Seen {
        Seen {
            offered_per_s: self.offered_per_s(),
            forwarded_per_s: self.forwarded_per_s(),
            loss: self.loss(),
            receiver_loss: self.part(self.tally.receiver_dropped.min(self.lost())),
        }
    }
}

/// Sends and counts.
pub(super) trait Tester {
    /// Learning frames (RFC 2544 section 23): the first part of the size that doesn't come through, if there is one.
    fn learn(&mut self, size: FrameSize) -> Result<Option<FrameSize>, Failure>;
    /// `None` where it was interrupted.
    fn trial(&mut self, ask: &Ask) -> Result<Option<Trial>, Failure>;
    /// The measurement is to end with what there is.
    fn is_interrupted(&self) -> bool;
    /// For whoever waits.
    fn say(&mut self, what: String);
}

/// All of one size.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) size: FrameSize,
    pub(super) runs: Vec<Run>,
    /// The part of it that doesn't come through.
    pub(super) not_forwarded: Option<FrameSize>,
}

/// One search and its latencies.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) trials: Vec<Trial>,
    /// No-drop and partial-drop rate.
    pub(super) found: [Found; 2],
    /// By the part of the no-drop rate, in percent.
    pub(super) latency: Vec<(u32, Trial)>,
    pub(super) contradictions: usize,
    pub(super) is_exhausted: bool,
}

/// Measures all sizes. Rows are added as they come, so that those before an error or an interruption are there.
pub(super) fn measure(
    tester: &mut impl Tester,
    args: &Rfc2544Args,
    sizes: &[FrameSize],
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    for &size in sizes {
        if tester.is_interrupted() {
            break;
        }
        let not_forwarded = tester.learn(size)?;
        rows.push(Row { size, runs: Vec::new(), not_forwarded });
        let Some(row) = rows.last_mut().filter(|row| row.not_forwarded.is_none()) else { continue };
        for number in 1..=args.runs {
            let Some(run) = one_run(tester, args, size, number)? else { return Ok(()) };
            row.runs.push(run);
        }
    }
    Ok(())
}

/// `None` where it was interrupted.
fn one_run(
    tester: &mut impl Tester,
    args: &Rfc2544Args,
    size: FrameSize,
    number: u32,
) -> Result<Option<Run>, Failure> {
    let (pdr_loss, precision) = (args.pdr_loss.0, args.precision.0);
    let mut search = Search::new(pdr_loss, precision, args.min_rate, args.max_rate);
    let mut trials = Vec::new();
    while let Some(rate) = search.next() {
        let at = match rate {
            Next::AsFastAsItGoes => "as fast as it goes".to_owned(),
            Next::PerSecond(rate) => format!("{rate:.0} frames/s"),
        };
        let trial_number = trials.len() + 1;
        tester.say(format!("{}, run {number} of {}, trial {trial_number}: {at}", size.label(), args.runs));
        let Some(trial) = tester.trial(&Ask { size, rate, wants_latency: false })? else { return Ok(None) };
        search.record(rate, trial.seen());
        trials.push(trial);
    }
    let Some(found) = search.found() else { return Ok(None) };
    let mut latency = Vec::new();
    if let Some(ndr) = found[0].passed.filter(|_| !args.no_latency) {
        for percent in LATENCY_PERCENT {
            let rate = Next::PerSecond((ndr.offered_per_s * f64::from(percent) / 100.0).max(1.0));
            tester.say(format!("{}, run {number} of {}, latency at {percent} %", size.label(), args.runs));
            let Some(trial) = tester.trial(&Ask { size, rate, wants_latency: true })? else {
                return Ok(None);
            };
            latency.push((percent, trial));
        }
    }
    let (contradictions, is_exhausted) = (search.contradictions(), search.is_exhausted());
    Ok(Some(Run { trials, found, latency, contradictions, is_exhausted }))
}

#[cfg(test)]
pub(super) mod tests {
    //! Goal: each size is searched as often as asked, latencies are taken at the right rates, a size that doesn't come
    //! through is named and costs nothing else, and an interruption keeps what is whole. Method: a device that is made up.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{bench::rfc2544::count::Latency, cli::tests_of_rfc2544::args};

    /// Forwards `capacity` bits a second of frames up to `mtu` bytes. A trial takes a second, a frame a microsecond.
    pub(in super::super) struct MadeUp {
        pub(in super::super) capacity: f64,
        pub(in super::super) mtu: u16,
        pub(in super::super) sender_max: f64,
        pub(in super::super) trials_left: usize,
        pub(in super::super) asks: Vec<Ask>,
    }

    impl MadeUp {
        pub(in super::super) fn new(capacity: f64) -> Self {
            Self { capacity, mtu: 1518, sender_max: 1e6, trials_left: usize::MAX, asks: Vec::new() }
        }
    }

    impl Tester for MadeUp {
        fn learn(&mut self, size: FrameSize) -> Result<Option<FrameSize>, Failure> {
            let parts = super::super::size::parts(size, false);
            Ok(parts.into_iter().find(|part| matches!(part, FrameSize::Bytes(bytes) if *bytes > self.mtu)))
        }

        fn trial(&mut self, ask: &Ask) -> Result<Option<Trial>, Failure> {
            self.asks.push(*ask);
            if self.trials_left == 0 {
                return Ok(None);
            }
            self.trials_left -= 1;
            let sent = match ask.rate {
                Next::AsFastAsItGoes => self.sender_max,
                Next::PerSecond(rate) => rate.min(self.sender_max),
            };
            let bytes = super::super::size::mean_bytes(ask.size, false);
            let received = sent.min(self.capacity / (8.0 * bytes));
            let mut latency = Latency::new().filter(|_| ask.wants_latency);
            if let Some(latency) = &mut latency {
                (0..100).for_each(|n| latency.record(1000 + n));
            }
            Ok(Some(Trial {
                rate: ask.rate,
                sent: sent as u64,
                refused: 0,
                took: Duration::from_secs(1),
                tally: Tally { received: received as u64, latency, ..Tally::default() },
            }))
        }

        fn is_interrupted(&self) -> bool {
            self.trials_left == 0
        }

        fn say(&mut self, _: String) {}
    }

    fn measured(tester: &mut MadeUp, flags: &str) -> Vec<Row> {
        let args = args(flags);
        let mut rows = Vec::new();
        measure(tester, &args, &args.sizes, &mut rows).unwrap();
        rows
    }

    #[test]
    fn rates_and_latencies_of_each_size() {
        let mut tester = MadeUp::new(1e8);
        let rows = measured(&mut tester, "-s 64,1518,imix --runs 2");
        assert_eq!(rows.len(), 3);
        for row in &rows {
            assert_eq!((row.runs.len(), row.not_forwarded), (2, None));
            let true_rate = 1e8 / (8.0 * super::super::size::mean_bytes(row.size, false));
            for run in &row.runs {
                let ndr = run.found[0].passed.unwrap();
                assert!(ndr.loss == 0.0 && ndr.offered_per_s > 0.98 * true_rate, "{:?}", run.found);
                let percents: Vec<u32> = run.latency.iter().map(|(percent, _)| *percent).collect();
                assert_eq!(percents, LATENCY_PERCENT);
                for (percent, trial) in &run.latency {
                    let expected = ndr.offered_per_s * f64::from(*percent) / 100.0;
                    assert_eq!(trial.rate, Next::PerSecond(expected));
                    assert_eq!((trial.lost(), trial.tally.latency.as_ref().unwrap().count()), (0, 100));
                }
                assert_eq!((run.contradictions, run.is_exhausted), (0, false));
            }
        }
    }

    #[test]
    fn a_size_that_does_not_come_through() {
        let mut tester = MadeUp { mtu: 1300, ..MadeUp::new(1e8) };
        let rows = measured(&mut tester, "-s 1280,1518,imix --runs 1 --no-latency");
        let seen: Vec<_> = rows.iter().map(|row| (row.runs.len(), row.not_forwarded)).collect();
        let large = Some(FrameSize::Bytes(1518));
        assert_eq!(seen, [(1, None), (0, large), (0, large)]);
        assert!(tester.asks.iter().all(|ask| ask.size == FrameSize::Bytes(1280) && !ask.wants_latency));
    }

    #[test]
    fn an_interruption_keeps_what_is_whole() {
        let mut tester = MadeUp::new(1e8);
        let whole = measured(&mut tester, "-s 64 --runs 1")[0].runs.len();
        let one = tester.asks.len();
        let mut tester = MadeUp { trials_left: one + 2, ..MadeUp::new(1e8) };
        let rows = measured(&mut tester, "-s 64,128 --runs 2");
        assert_eq!((rows.len(), rows[0].runs.len(), whole), (1, 1, 1));
    }

    #[test]
    fn what_a_trial_shows() {
        let tally = Tally { received: 90, receiver_dropped: 4, ..Tally::default() };
        let took = Duration::from_millis(500);
        let trial = Trial { rate: Next::AsFastAsItGoes, sent: 100, refused: 7, took, tally };
        let seen = trial.seen();
        assert_eq!((seen.offered_per_s, seen.forwarded_per_s), (200.0, 180.0));
        assert_eq!((trial.lost(), seen.loss, seen.receiver_loss), (10, 0.1, 0.04));
        assert_eq!(Trial { sent: 0, ..trial }.loss(), 1.0);
    }
}
