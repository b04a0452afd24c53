//! All that outlives a gateway's run, in one hand.

use super::{
    circumstances,
    state::State,
    tickets::{Tickets, TicketsOf},
    tokens::TokensUsed,
};
use crate::{cli::EarlyData, worker};
use cache::CacheReport;
use std::{fs, sync::Arc};

/// See the module.
pub(crate) struct AtGateway {
    tickets: Arc<Tickets>,
    pub(crate) tokens: Arc<TokensUsed>,
}

impl AtGateway {
    /// Empty.
    pub(crate) fn new(state: &State, early: EarlyData) -> Arc<Self> {
        let tickets = Arc::new(Tickets::new(state.disk(), early));
        Arc::new(Self { tickets, tokens: TokensUsed::new(state.disk()) })
    }

    /// The tickets that are good for this host, this version, what it announces to clients, and `identity`.
    pub(crate) fn tickets(&self, identity: &[&[u8]]) -> Arc<TicketsOf> {
        // A copy of the directory on another host brings no tickets there. Without the file, so be it.
        let host = fs::read("/etc/machine-id").unwrap_or_default();
        // RFC 9114 section 7.2.4.2, RFC 9000 section 7.4.1: early data only under limits that are no lower than before.
        let announced = format!(
            "{:?} {:?} {}",
            worker::gateway_h3_config(),
            tunnel::transport::TransportOptions::gateway(),
            env!("CARGO_PKG_VERSION")
        );
        let parts: Vec<&[u8]> =
            [&host[..], announced.as_bytes()].into_iter().chain(identity.iter().copied()).collect();
        Arc::new(TicketsOf::new(self.tickets.clone(), circumstances(&parts)))
    }

    /// Takes over what the last run left.
    pub(crate) fn load(&self) {
        self.tickets.load();
        self.tokens.load();
    }

    /// Leaves it to the next one. No worker runs any more.
    pub(crate) fn keep(&self) {
        self.tickets.keep();
        self.tokens.keep();
    }

    pub(crate) fn report(&self) -> Vec<CacheReport> {
        vec![self.tickets.report(), self.tokens.report()]
    }
}
