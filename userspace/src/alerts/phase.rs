//! Where an alert is: fine, pending, firing. Pure: the time is an argument.
//!
//! ```text
//!            holds            held for `lasts`
//!      ok ─────────► pending ─────────────────► firing ──┐ doesn't hold: calm since then;
//!       ▲               │                         │  ▲───┘ holds again: no longer calm
//!       └───────────────┘◄────────────────────────┘
//!        doesn't hold              calm for `lasts`: resolved
//! ```
//!
//! The same duration both ways is the hysteresis: what flickers faster than it neither fires nor resolves.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Fine,
    Pending {
        since: Instant,
    },
    Firing {
        since: Instant,
        /// Since when the rule hasn't held.
        calm_since: Option<Instant>,
    },
}

/// What is said aloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Fired,
    Resolved,
}

impl Phase {
    /// The next look at it. A rule that can't be judged doesn't hold: nothing is measured where nothing happens.
    pub(crate) fn step(&mut self, holds: bool, lasts: Duration, now: Instant) -> Option<Change> {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= lasts;
        if let (Self::Fine, true) = (&*self, holds) {
            *self = Self::Pending { since: now };
        }
        match self {
            Self::Pending { since } if holds && is_over(*since) => {
                *self = Self::Firing { since: now, calm_since: None };
                Some(Change::Fired)
            }
            Self::Pending { .. } if !holds => {
                *self = Self::Fine;
                None
            }
            Self::Firing { calm_since, .. } if holds => {
                *calm_since = None;
                None
            }
            Self::Firing { calm_since, .. } => {
                if !is_over(*calm_since.get_or_insert(now)) {
                    return None;
                }
                *self = Self::Fine;
                Some(Change::Resolved)
            }
            Self::Fine | Self::Pending { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: an alert fires after its duration and not before, and is over after it and not before. Under a virtual clock.
    use super::*;
    use proptest::prelude::*;

    const LASTS: Duration = Duration::from_secs(3);

    /// A look a second: what each changed.
    fn looks(holds: &[bool]) -> Vec<(usize, Change)> {
        let (start, mut phase) = (Instant::now(), Phase::default());
        let step = |(second, &holds): (usize, &bool)| {
            let now = start + Duration::from_secs(second as u64);
            phase.step(holds, LASTS, now).map(|change| (second, change))
        };
        holds.iter().enumerate().filter_map(step).collect()
    }

    fn from_text(text: &str) -> Vec<bool> {
        text.chars().map(|c| c == 'x').collect()
    }

    #[test]
    fn the_duration_holds_both_ways() {
        use Change::{Fired, Resolved};
        assert_eq!(looks(&from_text("xxx.xxx.xx")), [], "never three seconds on end");
        assert_eq!(looks(&from_text("..xxxxxx")), [(5, Fired)], "once");
        assert_eq!(looks(&from_text("xxxx.xxx..x....")), [(3, Fired), (14, Resolved)]);
        assert_eq!(looks(&from_text("xxxx....xxxx")), [(3, Fired), (7, Resolved), (11, Fired)]);
    }

    #[test]
    fn without_a_duration_it_is_at_once() {
        let (now, mut phase) = (Instant::now(), Phase::default());
        assert_eq!(phase.step(true, Duration::ZERO, now), Some(Change::Fired));
        assert_eq!(phase.step(true, Duration::ZERO, now), None);
        assert_eq!(phase.step(false, Duration::ZERO, now), Some(Change::Resolved));
        assert_eq!(phase, Phase::Fine);
    }

    proptest! {
        /// Against the plainest oracle: it fires at the end of a run of looks that is long enough, and so on in turn.
        #[test]
        fn as_the_oracle_says(holds in prop::collection::vec(any::<bool>(), 0..200)) {
            let run = LASTS.as_secs() as usize;
            let (mut firing, mut wanted) = (false, Vec::new());
            for second in 0..holds.len() {
                let ran = (second >= run).then(|| &holds[second - run..=second]);
                if ran.is_some_and(|ran| ran.iter().all(|&holds| holds != firing)) {
                    firing = !firing;
                    wanted.push((second, if firing { Change::Fired } else { Change::Resolved }));
                }
            }
            prop_assert_eq!(looks(&holds), wanted);
        }
    }
}
