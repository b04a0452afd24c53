//! What is counted of inner packets. Each that goes nowhere is counted under one name.

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct Totals {
    pub(in crate::worker) sessions_opened: u64,
    pub(in crate::worker) sessions_ended: u64,
    pub(in crate::worker) packets_to_tunnel: u64,
    pub(in crate::worker) bytes_to_tunnel: u64,
    pub(in crate::worker) packets_from_tunnel: u64,
    pub(in crate::worker) bytes_from_tunnel: u64,
    /// Packets and super-packets for clients whose connection another worker has.
    pub(in crate::worker) handed_over: u64,
    pub(in crate::worker) fragmented: u64,
    pub(in crate::worker) icmp_sent: u64,
    /// Requests refused because no address was left.
    pub(in crate::worker) pool_exhausted: u64,
    /// Routes of clients that were not taken: not permitted, or somebody else's.
    pub(in crate::worker) routes_refused: u64,
    /// Addresses that a client took over from an older session of its own.
    pub(in crate::worker) addresses_moved: u64,
    /// Dropped: no IP packet.
    pub(in crate::worker) malformed: u64,
    /// Dropped: from an address that isn't the client's; or from the LAN, and from an address that is behind the tunnel.
    pub(in crate::worker) spoofed_source: u64,
    /// Dropped: to where the client may not send.
    pub(in crate::worker) denied_destination: u64,
    /// Dropped by a client: not for its addresses.
    pub(in crate::worker) other_destination: u64,
    /// Dropped by a client: its kernel sent it from an address that isn't the tunnel's.
    pub(in crate::worker) other_source: u64,
    /// Dropped: nobody has the destination.
    pub(in crate::worker) no_route: u64,
    /// Dropped by a client: there is no session at the moment.
    pub(in crate::worker) no_session: u64,
    /// Dropped: larger than the tunnel takes. The sender is told.
    pub(in crate::worker) too_big: u64,
    /// Dropped: the client is over its rate.
    pub(in crate::worker) over_rate: u64,
    /// Dropped: its hop limit ran out. The sender is told.
    pub(in crate::worker) hop_limit: u64,
    /// Dropped: the other worker has too many waiting.
    pub(in crate::worker) hand_over_full: u64,
    /// Dropped: this worker has no device.
    pub(in crate::worker) no_device: u64,
}

impl Totals {
    pub(in crate::worker) fn counters(&self) -> [(&'static str, u64); 12] {
        [
            ("ip_sessions_opened", self.sessions_opened),
            ("ip_sessions_ended", self.sessions_ended),
            ("ip_packets_to_tunnel", self.packets_to_tunnel),
            ("ip_bytes_to_tunnel", self.bytes_to_tunnel),
            ("ip_packets_from_tunnel", self.packets_from_tunnel),
            ("ip_bytes_from_tunnel", self.bytes_from_tunnel),
            ("ip_handed_over", self.handed_over),
            ("ip_fragmented", self.fragmented),
            ("ip_icmp_sent", self.icmp_sent),
            ("ip_pool_exhausted", self.pool_exhausted),
            ("ip_routes_refused", self.routes_refused),
            ("ip_addresses_moved", self.addresses_moved),
        ]
    }

    /// The name that a packet was dropped under since `before`, if it was.
    pub(in crate::worker) fn dropped_since(&self, before: &Self) -> Option<&'static str> {
        let mut both = self.drops().into_iter().zip(before.drops());
        both.find(|((_, now), (_, before))| now > before).map(|((name, _), _)| name)
    }

    pub(in crate::worker) fn drops(&self) -> [(&'static str, u64); 12] {
        [
            ("ip_malformed", self.malformed),
            ("ip_spoofed_source", self.spoofed_source),
            ("ip_denied_destination", self.denied_destination),
            ("ip_other_destination", self.other_destination),
            ("ip_other_source", self.other_source),
            ("ip_no_route", self.no_route),
            ("ip_no_session", self.no_session),
            ("ip_too_big", self.too_big),
            ("ip_over_rate", self.over_rate),
            ("ip_hop_limit", self.hop_limit),
            ("ip_hand_over_full", self.hand_over_full),
            ("ip_no_device", self.no_device),
        ]
    }
}
