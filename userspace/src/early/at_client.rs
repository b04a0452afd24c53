//! All that a client keeps of its gateway, in one hand.

use super::{
    Circumstances, FLUSH_LIMIT,
    peers::Remembered,
    state::State,
    tokens::TokensHeld,
    vault::{Pile, TicketsHeld},
};
use cache::{Cache, CacheReport, Disk};
use std::sync::Arc;

/// See the module.
pub(crate) struct AtClient {
    pub(crate) tickets: Arc<TicketsHeld>,
    pub(crate) tokens: Arc<TokensHeld>,
    pub(crate) settings: Remembered,
    disk: Option<Arc<Disk>>,
}

impl AtClient {
    /// What earlier processes left for `count` connections to a gateway. `of` is all that must be the same: which gateway,
    /// how it is trusted, who we say we are.
    pub(crate) fn open(state: &State, of: Circumstances, count: u8) -> Arc<Self> {
        let disk = state.disk();
        Arc::new(Self {
            tickets: Arc::new(TicketsHeld(Pile::open(Cache::new(disk.clone()), of, count))),
            tokens: Arc::new(TokensHeld(Pile::open(Cache::new(disk.clone()), of, count))),
            settings: Remembered::open(Cache::new(disk.clone()), of),
            disk,
        })
    }

    /// Leaves to the next process what this one hasn't used. No worker runs any more.
    pub(crate) fn keep(&self) {
        self.tickets.0.keep();
        self.tokens.0.keep();
        if let Some(disk) = &self.disk {
            disk.flush(FLUSH_LIMIT);
        }
    }

    pub(crate) fn report(&self) -> Vec<CacheReport> {
        vec![self.tickets.0.report(), self.tokens.0.report(), self.settings.report()]
    }
}
