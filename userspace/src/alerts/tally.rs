//! What became of the notices that hooks were given.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// Each notice ends under one of these names for each hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    WebhookSent,
    /// Tried as often as it is, or refused for good.
    WebhookFailed,
    WebhookQueueFull,
    ExecDone,
    /// It couldn't be started, or ended with another code than 0.
    ExecFailed,
    ExecTimedOut,
    ExecQueueFull,
}

const NAMES: [(Fate, &str); 7] = [
    (Fate::WebhookSent, "webhook_sent"),
    (Fate::WebhookFailed, "webhook_failed"),
    (Fate::WebhookQueueFull, "webhook_queue_full"),
    (Fate::ExecDone, "exec_done"),
    (Fate::ExecFailed, "exec_failed"),
    (Fate::ExecTimedOut, "exec_timed_out"),
    (Fate::ExecQueueFull, "exec_queue_full"),
];

impl Fate {
    /// What may become of a notice of the same hook.
    pub(super) fn siblings(self) -> &'static [Self] {
        match self {
            Self::WebhookSent | Self::WebhookFailed | Self::WebhookQueueFull => {
                &[Self::WebhookSent, Self::WebhookFailed, Self::WebhookQueueFull]
            }
            Self::ExecDone | Self::ExecFailed | Self::ExecTimedOut | Self::ExecQueueFull => {
                &[Self::ExecDone, Self::ExecFailed, Self::ExecTimedOut, Self::ExecQueueFull]
            }
        }
    }
}

/// The counters, written by the hooks' threads.
#[derive(Debug, Default)]
pub(super) struct Tally([AtomicU64; NAMES.len()]);

impl Tally {
    pub(super) fn count(&self, fate: Fate) {
        self.0[fate as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One of them, and its name.
    pub(super) fn counter(&self, fate: Fate) -> (&'static str, u64) {
        (NAMES[fate as usize].1, self.0[fate as usize].load(Ordering::Relaxed))
    }

    /// Those above zero, by name.
    pub(super) fn counters(&self) -> BTreeMap<String, u64> {
        let all = NAMES.iter().map(|&(fate, _)| self.counter(fate)).map(|(name, n)| (name.to_owned(), n));
        all.filter(|&(_, n)| n > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fate_has_its_name() {
        let tally = Tally::default();
        NAMES.iter().for_each(|&(fate, _)| (0..=fate as usize).for_each(|_| tally.count(fate)));
        let wanted = NAMES.iter().map(|&(fate, name)| (name.to_owned(), fate as u64 + 1));
        assert_eq!(tally.counters(), wanted.collect());
        assert!(NAMES.iter().all(|&(fate, name)| tally.counter(fate).0 == name));
        assert!(NAMES.iter().all(|(fate, _)| fate.siblings().contains(fate)));
    }
}
