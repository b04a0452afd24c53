//! All alerts of a daemon: judged by the one thread that looks, read by whoever asks.

use super::{
    notice::{Moment, Notice},
    phase::{Change, Phase},
    quantity::Quantity,
    rule::Rule,
};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Every rule, and where it is.
#[derive(Debug)]
pub(crate) struct Board {
    alerts: Vec<Alert>,
}

#[derive(Debug)]
struct Alert {
    rule: Rule,
    phase: Phase,
    /// At the last look that could tell.
    value: Option<f64>,
    /// When the phase began, by the calendar.
    since: Moment,
}

/// One alert that isn't fine, in `beam status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AlertStatus {
    /// The rule, which is its name.
    pub(crate) alert: String,
    pub(crate) quantity: String,
    /// At the last look; `null` where nothing was measured.
    pub(crate) value: Option<f64>,
    pub(crate) threshold: f64,
    pub(crate) unit: String,
    /// `2026-11-26 08:00:00 UTC`
    pub(crate) since: String,
    pub(crate) for_s: u64,
}

/// The alerts in `beam status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AlertsStatus {
    pub(crate) rules: usize,
    pub(crate) firing: Vec<AlertStatus>,
    /// They hold, but not for long enough.
    pub(crate) pending: Vec<AlertStatus>,
    /// What became of notices, by name.
    pub(crate) notices: std::collections::BTreeMap<String, u64>,
}

impl Board {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        let since = Moment::EPOCH;
        let alerts = rules.into_iter().map(|rule| Alert { rule, phase: Phase::Fine, value: None, since });
        Self { alerts: alerts.collect() }
    }

    /// Looks at every rule once; what is to be said aloud.
    pub(crate) fn judge(
        &mut self,
        value: impl Fn(&Quantity) -> Option<f64>,
        is_complete: bool,
        now: Instant,
        today: Moment,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for alert in &mut self.alerts {
            let value = value(&alert.rule.quantity);
            if value.is_none() && !is_complete {
                // A worker is too busy to answer: what can't be told now is as it was.
                continue;
            }
            alert.value = value;
            let holds = alert.value.is_some_and(|value| alert.rule.holds(value));
            let was = std::mem::discriminant(&alert.phase);
            let began = alert.since;
            let change = alert.phase.step(holds, alert.rule.lasts, now);
            if was != std::mem::discriminant(&alert.phase) {
                alert.since = today;
            }
            let since = match change {
                Some(Change::Fired) => today,
                Some(Change::Resolved) => began,
                None => continue,
            };
            notices.push(Notice {
                rule: alert.rule.clone(),
                is_firing: change == Some(Change::Fired),
                value: alert.value,
                since,
                at: today,
            });
        }
        notices
    }

    /// How many rules there are, those that fire and those that are about to.
    pub(crate) fn status(&self, now: Instant) -> AlertsStatus {
        let mut status = AlertsStatus { rules: self.alerts.len(), ..AlertsStatus::default() };
        for alert in &self.alerts {
            let (list, since) = match alert.phase {
                Phase::Fine => continue,
                Phase::Pending { since } => (&mut status.pending, since),
                Phase::Firing { since, .. } => (&mut status.firing, since),
            };
            list.push(AlertStatus {
                alert: alert.rule.to_string(),
                quantity: alert.rule.quantity.to_string(),
                value: alert.value,
                threshold: alert.rule.threshold,
                unit: alert.rule.quantity.unit().name().to_owned(),
                since: alert.since.to_string(),
                for_s: now.saturating_duration_since(since).as_secs(),
            });
        }
        status
    }

    /// For Prometheus: each rule, and whether it fires.
    pub(crate) fn series(&self) -> Vec<(String, bool)> {
        let firing = |alert: &Alert| matches!(alert.phase, Phase::Firing { .. });
        self.alerts.iter().map(|alert| (alert.rule.to_string(), firing(alert))).collect()
    }
}

impl AlertStatus {
    /// For a person.
    pub(crate) fn line(&self) -> String {
        let unit = self.alert.split(' ').next().and_then(|name| Quantity::parse(name).ok()).map(|q| q.unit());
        let value = match (self.value, unit) {
            (Some(value), Some(unit)) => unit.show(value),
            (Some(value), None) => value.to_string(),
            (None, _) => "not measured".to_owned(),
        };
        format!("{}: {value}, for {} s (since {})", self.alert, self.for_s, self.since)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a board says what changed, once, and shows what is.
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_look_a_second() {
        let rules = ["drops > 5/s for 2s", "memory > 10MiB"].map(|rule| rule.parse().unwrap());
        let (start, mut board) = (Instant::now(), Board::new(rules.to_vec()));
        let mut look = |second: u64, drops: f64| {
            let now = start + Duration::from_secs(second);
            let value = |quantity: &Quantity| match quantity {
                Quantity::Drops(None) => Some(drops),
                _ => None,
            };
            let said = board.judge(value, true, now, Moment::from_unix_s(1_000 + second as i64));
            let said: Vec<_> =
                said.iter().map(|notice| (notice.rule.to_string(), notice.is_firing, notice.since)).collect();
            (said, board.status(now), board.series())
        };
        let (said, status, _) = look(0, 9.0);
        assert_eq!((said.len(), status.rules, status.firing.len(), status.pending.len()), (0, 2, 0, 1));
        assert_eq!(look(1, 9.0).0, []);
        let name = "drops > 5/s for 2s".to_owned();
        let (said, _, series) = look(2, 8.0);
        assert_eq!(said, [(name.clone(), true, Moment::from_unix_s(1_002))]);
        assert_eq!(series, [(name.clone(), true), ("memory > 10MiB".to_owned(), false)]);
        let (_, status, _) = look(9, 7.5);
        assert!(status.pending.is_empty());
        let firing = &status.firing[0];
        assert_eq!((firing.value, firing.threshold, firing.for_s), (Some(7.5), 5.0, 7));
        assert_eq!(firing.line(), "drops > 5/s for 2s: 7.5/s, for 7 s (since 1970-01-01 00:16:42 UTC)");
        assert_eq!(look(10, 0.0).0, []);
        assert_eq!(look(12, 0.0).0, [(name, false, Moment::from_unix_s(1_002))]);
        assert_eq!(look(13, 0.0).1, AlertsStatus { rules: 2, ..AlertsStatus::default() });
    }
}
