//! CONNECT-UDP (RFC 9298): from the request to an open flow.

use super::{Gateway, Refusal, extended::Extended};
use crate::worker::core::Core;

impl Gateway {
    /// Takes a request for a UDP flow.
    pub(super) fn connect_udp(&mut self, core: &mut Core, _request: Extended<'_>) -> Result<(), Refusal> {
        core.totals.refused_not_found += 1;
        Err(Refusal::new(501))
    }
}
