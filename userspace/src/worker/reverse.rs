//! What both ends of `-R` share: counters, and the frames that have come for a listen stream.
//!
//! ```text
//!  gateway:  a port ─► BEAM_ACCEPT on the listen stream ··· beam-accept ─► flow (TCP)
//!                  └─► datagrams of the listen stream, an association each peer (UDP)
//!  client:   BEAM_ACCEPT ─► local service ─► beam-accept ─► flow (TCP); a local socket each association (UDP)
//! ```

use bytes::Bytes;
use tunnel::{ConnId, StreamId};

/// The request's field that tells one run of a client from another: only the same run may take its listener over from a
/// connection that it has lost.
pub(super) const INSTANCE_FIELD: &str = "beam-instance";
/// UDP associations of one listener, at either end. Beyond it the one that was silent the longest makes room.
pub(super) const PEERS_MAX: usize = 1024;
/// Batches read from one socket before others get their turn.
pub(super) const BATCHES_MAX: usize = 8;

/// Counters of either end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Gateway: listeners opened; client: published.
    pub(super) listens_opened: u64,
    /// Gateway: those of them that a reconnected client took over.
    pub(super) listens_taken_over: u64,
    /// Gateway: refused, because the client may not. Client: refused for any reason.
    pub(super) listens_denied: u64,
    /// Gateway: refused, because somebody has the port.
    pub(super) listens_port_taken: u64,
    /// Gateway: refused for other reasons.
    pub(super) listens_failed: u64,
    /// Connections that came to the port.
    pub(super) arrived: u64,
    /// … that became flows.
    pub(super) opened: u64,
    /// … that nobody came for in time.
    pub(super) expired: u64,
    /// … that the client's local service did not take.
    pub(super) declined: u64,
    /// … that went away with their listener.
    pub(super) abandoned: u64,
    /// … that were more than there may be.
    pub(super) overflowed: u64,
    pub(super) peers_opened: u64,
    pub(super) peers_idle: u64,
    /// Closed by the other end, or with their listener.
    pub(super) peers_closed: u64,
    pub(super) peers_evicted: u64,
    pub(super) datagrams_to_sockets: u64,
    pub(super) datagrams_from_sockets: u64,
    /// Dropped: of an association that there isn't.
    pub(super) unknown_peer: u64,
    /// Dropped: the socket did not take it.
    pub(super) socket_refused: u64,
}

impl Totals {
    pub(super) fn counters(&self) -> [(&'static str, u64); 17] {
        [
            ("listens_opened", self.listens_opened),
            ("listens_taken_over", self.listens_taken_over),
            ("listens_denied", self.listens_denied),
            ("listens_port_taken", self.listens_port_taken),
            ("listens_failed", self.listens_failed),
            ("reverse_arrived", self.arrived),
            ("reverse_opened", self.opened),
            ("reverse_expired", self.expired),
            ("reverse_declined", self.declined),
            ("reverse_abandoned", self.abandoned),
            ("reverse_overflowed", self.overflowed),
            ("reverse_peers_opened", self.peers_opened),
            ("reverse_peers_idle", self.peers_idle),
            ("reverse_peers_closed", self.peers_closed),
            ("reverse_peers_evicted", self.peers_evicted),
            ("reverse_datagrams_to_sockets", self.datagrams_to_sockets),
            ("reverse_datagrams_from_sockets", self.datagrams_from_sockets),
        ]
    }

    pub(super) fn drops(&self) -> [(&'static str, u64); 2] {
        [("reverse_unknown_peer", self.unknown_peer), ("reverse_socket_refused", self.socket_refused)]
    }
}

/// Of a worker.
#[derive(Debug, Default)]
pub(super) struct Reverse {
    pub(super) totals: Totals,
    /// QUIC DATAGRAM frames for listen streams. Filled and emptied within one event.
    pub(super) frames: Vec<(ConnId, StreamId, Bytes)>,
}
