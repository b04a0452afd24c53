//! Extended CONNECT (RFC 9220): who asks, and which of the protocols behind `:protocol` it is.

use super::{Gateway, Refusal};
use crate::worker::{core::Core, gateway::Asker, ledger::FlowPermit};
use masque::{Request, RequestReader};
use tunnel::{ConnId, StreamId};

/// One extended CONNECT whose client has shown who it is.
pub(super) struct Extended<'a> {
    pub(super) conn: ConnId,
    pub(super) stream: StreamId,
    /// What follows the header section.
    pub(super) reader: RequestReader,
    pub(super) request: &'a Request,
    /// The expanded URI template.
    pub(super) path: &'a str,
    /// Who it is, and what it may do.
    pub(super) asker: Asker,
    /// Counts the flow among its client's: whatever the request becomes holds it.
    pub(super) permit: FlowPermit,
}

impl Gateway {
    /// Hands the request to the protocol that it names.
    pub(super) fn take_extended(
        &mut self,
        core: &mut Core,
        protocol: &str,
        extended: Extended<'_>,
    ) -> Result<(), Refusal> {
        match protocol {
            masque::CONNECT_UDP => self.connect_udp(core, extended),
            masque::CONNECT_IP => self.connect_ip(core, extended),
            "beam-listen" => self.listen(core, extended),
            "beam-accept" => self.accept(core, extended),
            _ => {
                core.totals.refused_not_found += 1;
                Err(Refusal::new(501))
            }
        }
    }
}
