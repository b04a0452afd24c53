//! When many connections have come or gone, and no more do: then what they have left free is given back to the system, and
//! the pages of the program that only handshakes have run.

/// Fewer leave little. A handshake takes some 32 KiB at its height.
const MANY: u64 = 256;

/// Looked at once a second.
#[derive(Debug, Default)]
pub(super) struct Churn {
    /// Comings and goings at the last look.
    seen: u64,
    /// And when memory was given back.
    given_back: u64,
}

impl Churn {
    /// True once after many comings and goings, of which there were `changes` so far, when none came since the last look.
    pub(super) fn is_over(&mut self, changes: u64) -> bool {
        let is_calm = std::mem::replace(&mut self.seen, changes) == changes;
        let is_over = is_calm && self.goes_on();
        if is_over {
            self.given_back = changes;
        }
        is_over
    }

    /// There is to be another look, even if nothing else wakes the worker.
    pub(super) fn goes_on(&self) -> bool {
        self.seen.saturating_sub(self.given_back) >= MANY
    }
}

#[cfg(test)]
mod tests {
    //! Goal: once for each burst, after it, and never for a few.
    use super::*;

    #[test]
    fn once_after_each_burst() {
        let mut churn = Churn::default();
        assert!(!churn.is_over(0) && !churn.goes_on());
        // It goes on, and then is over.
        assert!(!churn.is_over(MANY) && churn.goes_on());
        assert!(!churn.is_over(2 * MANY) && churn.goes_on());
        assert!(churn.is_over(2 * MANY) && !churn.goes_on());
        assert!(!churn.is_over(2 * MANY));
        // A few are none, until they are many.
        assert!(!churn.is_over(3 * MANY - 1) && !churn.goes_on());
        assert!(!churn.is_over(3 * MANY - 1));
        assert!(!churn.is_over(3 * MANY) && churn.goes_on());
        assert!(churn.is_over(3 * MANY));
    }
}
