//! Reverse forwarding: listeners here for services of the client's side.

use super::{Gateway, Refusal, extended::Extended};
use crate::worker::core::Core;

impl Gateway {
    /// Takes a request to listen on a port of this gateway.
    pub(super) fn listen(&mut self, core: &mut Core, _request: Extended<'_>) -> Result<(), Refusal> {
        core.totals.refused_not_found += 1;
        Err(Refusal::new(501))
    }

    /// Takes a client's stream for a connection that a listener has accepted.
    pub(super) fn accept(&mut self, core: &mut Core, _request: Extended<'_>) -> Result<(), Refusal> {
        core.totals.refused_not_found += 1;
        Err(Refusal::new(501))
    }
}
