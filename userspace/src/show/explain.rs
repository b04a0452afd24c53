//! What each counter of a mishap means, in a line.

/// Counters of the workers that tell of something refused, cut or failed. Drops are shown whether they are here or not.
const MEANINGS: &[(&str, &str)] = &[
    // Requests and connections.
    (
        "refused_unauthenticated",
        "a request without a token or certificate that the gateway knows (401, 407, 403)",
    ),
    ("refused_denied", "a destination that --allow, --deny or the client's allow= forbids (403)"),
    ("refused_bad_request", "a request that breaks HTTP/3, or names no destination (400)"),
    ("refused_not_found", "a request for something that the gateway doesn't offer (404, 501)"),
    ("refused_upstream", "a destination that was not reached: its name, its port, or no answer (502, 504)"),
    ("refused_draining", "a request that came while the gateway drains (503)"),
    ("refused_limit", "a limit: flows or connections of the client, lookups, descriptors (429, 503)"),
    ("refused_other_client", "a request of one client on the connection of another (421)"),
    ("socks_refused", "a SOCKS client that was told no, or made no sense"),
    ("closed_unproven", "a connection closed because it made no request, and too many did not"),
    ("closed_revoked", "a connection closed by a reload: its client is no longer admitted"),
    (
        "sleepers_evicted",
        "a sleeping tunnel forgotten to make room for another; --max-sleeping says for how many",
    ),
    ("closed_kicked", "a connection closed by beam kick"),
    ("flows_reset_by_stream", "a flow that the tunnel's peer cut off"),
    ("flows_reset_by_socket", "a flow whose socket was reset, or failed"),
    ("flows_protocol_error", "a flow whose peer broke HTTP/3"),
    ("flows_revoked", "a flow cut by a reload: its client may no longer go there"),
    ("handshakes_failed", "a QUIC handshake that ended without a connection"),
    ("handshakes_timed_out", "a QUIC handshake that took too long"),
    ("refused", "a connection attempt refused: too many connections, or draining"),
    ("refused_memory", "a connection attempt refused: --memory-limit is reached"),
    ("amplification_held", "a datagram held back until the peer's address has proved itself"),
    ("ecn_marked", "received in a queue that stood, so marked by ECN: its sender shall slow down"),
    ("packets_restored", "a packet opened in a batch with the wrong key, and opened again"),
    ("canary_failed", "packet protection that disagreed with ring: please report"),
    // Drops at the ports.
    ("rx_malformed", "received: headers that don't agree with the frame's length"),
    ("rx_not_ours", "received: not UDP to an address of ours, although steering sent it here"),
    ("rx_checksum", "received: a wrong IPv4 or UDP checksum"),
    ("rx_bad_address", "received: a ring named a frame that isn't ours: please report"),
    ("rx_truncated", "received: a datagram that the kernel cut short"),
    ("rx_martian", "received on the LAN: from an address that no honest packet comes from"),
    ("tx_not_there", "to the LAN: to many, to nobody, or to this host itself"),
    ("tx_unroutable", "to the LAN: the routes don't lead there"),
    ("tx_no_neighbour", "to the LAN: the neighbour didn't answer, or too many packets waited for one"),
    ("tx_too_big", "to send: larger than the frame or the path's MTU"),
    ("tx_no_room", "to send: no free frame or ring slot"),
    ("tx_error", "to send: the kernel refused it (-vv logs the errno)"),
    ("xsk_rx_dropped", "received: no frame on the fill ring; more --umem, or fewer clients a queue"),
    (
        "xsk_rx_ring_full",
        "received: the worker did not empty its RX ring in time; a larger --ring-size, or its CPU is busy",
    ),
    ("udp_rx_buffer_full", "received: the kernel socket's buffer was full; raise net.core.rmem_max"),
    ("handover_full", "received for another worker, whose queue was full"),
    ("handover_no_such_worker", "received with the CID of a worker that doesn't exist"),
    ("handover_mixed_batch", "received in one batch with datagrams of another worker"),
    // Drops in the engine.
    ("drop_malformed", "received: too short or inconsistent to be QUIC"),
    ("drop_initial_too_short", "received: an Initial in a datagram below 1200 bytes"),
    ("drop_initial_short_cid", "received: an Initial whose CID is below 8 bytes"),
    ("drop_initial_invalid", "received: an Initial that QUIC would not take"),
    ("drop_initial_unauthenticated", "received: a first Initial that failed authentication"),
    ("drop_initial_queue_full", "received: a first Initial, while too many handshakes waited"),
    ("drop_no_server", "received: a connection attempt at a client"),
    ("drop_version_too_short", "received: an unknown QUIC version in a datagram too short to answer"),
    ("drop_version_no_server", "received: an unknown QUIC version at a client"),
    ("drop_long_unknown", "received: a handshake packet of no connection of ours"),
    ("drop_cid_unknown", "received: a packet whose CID this gateway did not make"),
    ("drop_other_worker", "received: a CID of another worker: please report"),
    ("drop_reset_suppressed", "received for a connection that is gone; no stateless reset was due"),
    ("drop_answer_too_large", "received: an answer would have been more than three times as large"),
    ("drop_connection_gone", "received for a connection that had just ended"),
    ("drop_misdirected", "received: opened with the keys of another connection"),
    ("drop_answer_queue_full", "received: too many stateless answers waited"),
    ("drop_amplification_limit", "to send: over three times what an unproven address had sent"),
    ("drop_not_sealed", "to send: could not be protected: please report"),
    ("drop_amplification_expired", "to send: held for an address that never proved itself"),
    // UDP flows.
    ("udp_flows_unreachable", "a UDP flow that an ICMP error ended: nobody is there"),
    ("udp_flows_reset", "a UDP flow that the tunnel's peer cut off, or that ended with its connection"),
    ("udp_flows_protocol_error", "a UDP flow whose peer broke HTTP/3"),
    ("udp_flows_evicted", "a UDP flow closed to make room for another"),
    ("udp_flows_refused", "a UDP flow that the gateway refused, or that a reload forbade"),
    ("udp_icmp_ignored", "an ICMP error about a UDP flow that ended nothing"),
    ("udp_socket_full", "UDP: a socket's buffer or the queue in front of it was full; the oldest went"),
    ("udp_too_big_for_path", "UDP: longer than the MTU on the way"),
    ("udp_send_failed", "UDP: the kernel did not send it"),
    ("udp_flow_not_opened", "UDP: waited too long for its flow, or the flow came to nothing"),
    ("udp_over_rate", "UDP: its client is over its max-rate"),
    ("udp_refused_resting", "UDP of a local sender: the gateway refused that destination a moment ago"),
    ("socks_udp_garbage", "UDP of a SOCKS client: no SOCKS header, or no destination in it"),
    ("socks_udp_fragment", "UDP of a SOCKS client: a fragment; beam takes whole datagrams only"),
    ("socks_udp_stranger", "UDP to a SOCKS relay from somebody else than its client"),
    ("udp_local_draining", "UDP of a local sender: a new flow, while the client drains"),
    // IP sessions.
    ("ip_pool_exhausted", "an IP session refused: no address of --ip-pool is left"),
    ("ip_routes_refused", "a network that a client announced: not permitted (routes=), or somebody else's"),
    ("ip_malformed", "IP: no IP packet"),
    ("ip_spoofed_source", "IP: from an address that isn't the client's"),
    ("ip_denied_destination", "IP: to where the client may not send; --ip-route names where it may"),
    ("ip_other_destination", "IP at a client: not for its addresses"),
    ("ip_other_source", "IP at a client: from an address that isn't the tunnel's"),
    ("ip_no_route", "IP: nobody has the destination"),
    ("ip_no_session", "IP at a client: there is no session at the moment"),
    ("ip_too_big", "IP: larger than the tunnel takes; its sender is told"),
    ("ip_over_rate", "IP: its client is over its max-rate"),
    ("ip_hop_limit", "IP: its hop limit ran out; its sender is told"),
    ("ip_hand_over_full", "IP for another worker, which has too many waiting"),
    ("tun_read_malformed", "IP: what the TUN device gave was no packet"),
    ("tun_queue_full", "IP from the kernel: the TUN device's queue was full (`ip -s link`: TX dropped)"),
    ("tun_write_dropped", "IP: the TUN device did not take it"),
    ("ip_no_device", "IP at a worker without a device"),
    // -R.
    (
        "listens_denied",
        "-R: a port that the client may not have; --allow-listen, or listen= in the users file (403)",
    ),
    ("listens_port_taken", "-R: a port that somebody has (409)"),
    ("listens_failed", "-R: a listener refused for another reason"),
    ("reverse_expired", "-R: a connection that the client did not come for in time"),
    ("reverse_declined", "-R: a connection that the client's local service did not take"),
    ("reverse_abandoned", "-R: a connection that went away with its listener"),
    ("reverse_overflowed", "-R: a connection too many"),
    ("reverse_peers_evicted", "-R: a UDP peer that made room for another"),
    ("reverse_unknown_peer", "-R: a datagram of a UDP peer that there isn't"),
    ("reverse_socket_refused", "-R: a datagram that the socket did not take"),
    // beam bench serve.
    ("perf_streams_cut", "a measuring stream that its client, or the end of its connection, cut off"),
    ("perf_streams_headless", "a measuring stream that ended before the 8 bytes that say what is wanted"),
    ("perf_streams_refused", "a measuring stream that came while the server drains, or had no way back"),
    ("perf_datagrams_not_echoed", "a measuring datagram that there was no room to send back"),
    // HTTP datagrams.
    ("datagram_unknown_flow", "an HTTP datagram for a stream that carries none, or is over"),
    ("datagram_receive_full", "an HTTP datagram that QUIC had no room for, counted when its connection ends"),
    ("datagram_unknown_context", "an HTTP datagram with a context id that its stream doesn't know"),
    ("capsule_unknown", "a capsule of a type that its stream doesn't know; passed over"),
    ("capsule_oversize", "a DATAGRAM capsule longer than any datagram"),
    ("datagram_queue_full", "an HTTP datagram, the oldest of a full queue towards the peer"),
    ("datagram_too_large", "an HTTP datagram that the path's MTU no longer carries"),
    ("datagram_early", "an HTTP datagram that came before its request, and had to make room"),
];

/// Of a counter that tells of a mishap. Those of the LAN port have a prefix.
pub(crate) fn meaning(counter: &str) -> Option<&'static str> {
    let counter = counter.strip_prefix("lan_").unwrap_or(counter);
    MEANINGS.iter().find(|(name, _)| *name == counter).map(|&(_, means)| means)
}

#[cfg(test)]
mod tests {
    //! Goal: no drop reason without its line, and no line twice.
    use super::*;

    #[test]
    fn every_drop_has_a_meaning() {
        let engine = tunnel::DropReason::ALL.map(tunnel::DropReason::name);
        let ports = port::DROP_REASONS.map(|(_, name)| name);
        let hand_over = crate::worker::ports::HandOver::default().drops().map(|(name, _)| name);
        let above = crate::worker::drop_names();
        for name in engine.into_iter().chain(ports).chain(hand_over).chain(above) {
            assert!(meaning(name).is_some(), "{name} is not explained");
        }
        for (i, (name, means)) in MEANINGS.iter().enumerate() {
            assert!(MEANINGS[..i].iter().all(|(other, _)| other != name), "{name} is there twice");
            assert!(means.len() <= 100, "{name}: {means}");
        }
    }
}
