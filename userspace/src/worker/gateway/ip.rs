//! CONNECT-IP (RFC 9484).

use super::{Gateway, Refusal, extended::Extended};
use crate::worker::core::Core;

impl Gateway {
    /// Takes a request for an IP session.
    pub(super) fn connect_ip(&mut self, core: &mut Core, _request: Extended<'_>) -> Result<(), Refusal> {
        core.totals.refused_not_found += 1;
        Err(Refusal::new(501))
    }
}
