//! Connections that may be dead: another run of their client, killed and started again say, wants their port.

use super::Gateway;
use crate::worker::{core::Core, session::quic_code};
use masque::Code;
use std::time::{Duration, Instant};
use tunnel::ConnId;

/// A connection that is suspected dead, because another of its client wants its port, has so long to say a word.
const DOUBT_LIMIT: Duration = Duration::from_secs(3);

impl Gateway {
    /// Another run of this connection's client wants its port: is it still there?
    pub(in crate::worker) fn listener_doubted(&mut self, core: &mut Core, conn: ConnId) {
        let Some(mut quic) = core.engine.connection(conn) else { return };
        if self.listens.doubted.iter().all(|&(_, of, _)| of != conn) {
            quic.ping();
            self.listens.doubted.push((core.now + DOUBT_LIMIT, conn, quic.stats().udp_rx.datagrams));
        }
    }

    /// Closes those that have said nothing since they were asked.
    pub(super) fn end_doubts(&mut self, core: &mut Core, now: Instant) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.listens.doubted).into_iter().partition(|&(until, ..)| until <= now);
        self.listens.doubted = later;
        for (_, conn, heard) in due {
            if let Some(mut quic) = core.engine.connection(conn)
                && quic.stats().udp_rx.datagrams == heard
            {
                tracing::info!("a connection that doesn't answer makes room for another one of its client");
                quic.close(quic_code(Code::H3_NO_ERROR), b"silent, and its port is wanted");
            }
        }
    }
}
