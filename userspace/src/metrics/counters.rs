//! Which metric each counter of a worker goes to. One that is missing here isn't lost: it goes to `beam_other_total`.

use super::{Collected, Spec, table::*};
use std::borrow::Cow;

/// A counter's name as in `beam status -j`, and its labels. More than one label: separated by a space.
type Row = (&'static str, &'static str);

/// By metric. Gauges are among them: workers report both in one list.
static ROWS: &[(&Spec, &[Row])] = &[
    (
        &HANDSHAKES,
        &[
            ("handshakes_started", "started"),
            ("handshakes_completed", "completed"),
            ("handshakes_failed", "failed"),
            ("handshakes_timed_out", "timed_out"),
        ],
    ),
    (&QUIC_DATAGRAMS, &[("datagrams_in", "in"), ("datagrams_out", "out")]),
    (&QUIC_BYTES, &[("bytes_in", "in"), ("bytes_out", "out")]),
    (
        &QUIC_EVENTS,
        &[
            ("datagrams_routed", "datagrams_routed"),
            ("initials_queued", "initials_queued"),
            ("initials_buffered", "initials_buffered"),
            ("connections_closed", "connections_closed"),
            ("retries_sent", "retries_sent"),
            ("retry_engaged", "retry_engaged"),
            ("retry_disengaged", "retry_disengaged"),
            ("version_negotiations_sent", "version_negotiations_sent"),
            ("stateless_resets_sent", "stateless_resets_sent"),
            ("stateless_closes_sent", "stateless_closes_sent"),
            ("handovers", "handovers"),
            ("amplification_held", "amplification_held"),
            ("amplification_released", "amplification_released"),
            ("migrations", "migrations"),
            ("paths_validated", "paths_validated"),
            ("timers_fired", "timers_fired"),
            ("transmits_parked", "transmits_parked"),
            ("packets_restored", "packets_restored"),
            ("ecn_marked", "ecn_marked"),
        ],
    ),
    (&PROTECTED_PACKETS, &[("packets_sealed_in_batches", "seal"), ("packets_opened_in_batches", "open")]),
    (&PROTECTION_BATCHES, &[("protection_batches", "")]),
    (&CANARY_PACKETS, &[("canary_checked", "checked"), ("canary_failed", "differed")]),
    (&HANDSHAKES_UNVALIDATED, &[("unvalidated_handshakes", "")]),
    (
        &CONNECTIONS_CUT,
        &[("closed_unproven", "unproven"), ("closed_revoked", "revoked"), ("closed_kicked", "kicked")],
    ),
    (&REQUESTS, &[("requests", "")]),
    (
        &REFUSED,
        &[
            ("refused", "connection"),
            ("refused_memory", "memory"),
            ("refused_unauthenticated", "unauthenticated"),
            ("refused_denied", "denied"),
            ("refused_bad_request", "bad_request"),
            ("refused_not_found", "not_found"),
            ("refused_upstream", "upstream"),
            ("refused_draining", "draining"),
            ("refused_limit", "limit"),
            ("refused_other_client", "other_client"),
            ("socks_refused", "socks"),
        ],
    ),
    (&RECONNECTS, &[("reconnects", "")]),
    (&TUNNEL_SLEEP, &[("tunnel_lapses", "lapses"), ("tunnel_wakes", "wakes")]),
    (&ADDRESS_CHANGES, &[("address_changes", "")]),
    (&EARLY_DATA, &[("early_connections", "connections"), ("early_refused", "refused")]),
    (
        &FLOWS_ENDED,
        &[
            ("flows_finished", "finished"),
            ("flows_reset_by_stream", "reset_by_stream"),
            ("flows_reset_by_socket", "reset_by_socket"),
            ("flows_protocol_error", "protocol_error"),
            ("flows_revoked", "revoked"),
        ],
    ),
    (
        &PAYLOAD_BYTES,
        &[
            ("bytes_to_sockets", "tcp to_socket"),
            ("bytes_from_sockets", "tcp from_socket"),
            ("udp_bytes_to_sockets", "udp to_socket"),
            ("udp_bytes_from_sockets", "udp from_socket"),
            ("ip_bytes_to_tunnel", "ip to_tunnel"),
            ("ip_bytes_from_tunnel", "ip from_tunnel"),
        ],
    ),
    (&CAPSULES_SENT, &[("datagrams_sent_as_capsules", "")]),
    (
        &UDP_FLOWS,
        &[
            ("udp_flows_opened", "opened"),
            ("udp_flows_finished", "finished"),
            ("udp_flows_idle", "idle"),
            ("udp_flows_unreachable", "unreachable"),
            ("udp_flows_reset", "reset"),
            ("udp_flows_protocol_error", "protocol_error"),
            ("udp_flows_evicted", "evicted"),
            ("udp_flows_refused", "refused"),
        ],
    ),
    (
        &UDP_DATAGRAMS,
        &[("udp_datagrams_to_sockets", "to_socket"), ("udp_datagrams_from_sockets", "from_socket")],
    ),
    (&UDP_ICMP, &[("udp_icmp_ignored", "ignored"), ("udp_icmp_sent", "sent")]),
    (&IP_SESSIONS, &[("ip_sessions_opened", "opened"), ("ip_sessions_ended", "ended")]),
    (&IP_PACKETS, &[("ip_packets_to_tunnel", "to_tunnel"), ("ip_packets_from_tunnel", "from_tunnel")]),
    (
        &IP_EVENTS,
        &[
            ("ip_handed_over", "handed_over"),
            ("ip_fragmented", "fragmented"),
            ("ip_icmp_sent", "icmp_sent"),
            ("ip_pool_exhausted", "pool_exhausted"),
            ("ip_routes_refused", "routes_refused"),
            ("ip_addresses_moved", "addresses_moved"),
        ],
    ),
    (
        &INNER_PACKETS,
        &[
            ("lan_rx_packets", "lan rx"),
            ("lan_tx_packets", "lan tx"),
            ("tun_reads", "tun rx"),
            ("tun_writes", "tun tx"),
        ],
    ),
    (
        &INNER_BYTES,
        &[
            ("lan_rx_bytes", "lan rx"),
            ("lan_tx_bytes", "lan tx"),
            ("tun_read_bytes", "tun rx"),
            ("tun_write_bytes", "tun tx"),
        ],
    ),
    (
        &INNER_EVENTS,
        &[
            ("lan_rx_delivered", "lan_rx_delivered"),
            ("lan_rx_checksum_partial", "lan_rx_checksum_partial"),
            ("lan_tx_completed", "lan_tx_completed"),
            ("lan_handed_over", "lan_handed_over"),
            ("tun_write_packets", "tun_write_packets"),
        ],
    ),
    (
        &LISTENS,
        &[
            ("listens_opened", "opened"),
            ("listens_taken_over", "taken_over"),
            ("listens_denied", "denied"),
            ("listens_port_taken", "port_taken"),
            ("listens_failed", "failed"),
        ],
    ),
    (
        &REVERSE,
        &[
            ("reverse_arrived", "arrived"),
            ("reverse_opened", "opened"),
            ("reverse_expired", "expired"),
            ("reverse_declined", "declined"),
            ("reverse_abandoned", "abandoned"),
            ("reverse_overflowed", "overflowed"),
            ("reverse_peers_opened", "peers_opened"),
            ("reverse_peers_idle", "peers_idle"),
            ("reverse_peers_closed", "peers_closed"),
            ("reverse_peers_evicted", "peers_evicted"),
            ("reverse_datagrams_to_sockets", "datagrams_to_sockets"),
            ("reverse_datagrams_from_sockets", "datagrams_from_sockets"),
        ],
    ),
    (&BENCH_BYTES, &[("perf_bytes_received", "received"), ("perf_bytes_sent", "sent")]),
    (
        &BENCH,
        &[
            ("perf_streams", "stream"),
            ("perf_early_connections", "early_connection"),
            ("perf_datagrams_received", "datagram_received"),
            ("perf_datagrams_echoed", "datagram_echoed"),
            ("perf_streams_cut", "stream_cut"),
            ("perf_streams_headless", "stream_headless"),
            ("perf_streams_refused", "stream_refused"),
            ("perf_datagrams_not_echoed", "datagram_not_echoed"),
        ],
    ),
];

/// Reported elsewhere, worker by worker.
const ELSEWHERE: [&str; 2] = ["connections", "retry_active"];

/// Adds a worker's counter to its metric.
pub(super) fn collect(name: &'static str, n: u64, to: &mut Collected) {
    if ELSEWHERE.contains(&name) {
        return;
    }
    let found = ROWS.iter().find_map(|(spec, rows)| {
        let (_, labels) = rows.iter().find(|(counter, _)| *counter == name)?;
        Some((*spec, *labels))
    });
    match found {
        Some((spec, labels)) => {
            let labels: Vec<Cow<'static, str>> =
                labels.split(' ').filter(|label| !label.is_empty()).map(Cow::Borrowed).collect();
            to.add_labels(spec, labels, n);
        }
        None => to.add(&OTHER, [name], n),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every counter that a worker reports has its metric, none has two, and the labels are as many as there are names.
    use super::*;
    use crate::worker;
    use std::collections::BTreeSet;

    #[test]
    fn every_counter_has_one_metric() {
        let drops = tunnel::DropReason::ALL.map(tunnel::DropReason::name);
        let mut names = worker::counter_names();
        tunnel::Stats::default().each(&mut |name, _| {
            if !drops.contains(&name) {
                names.push(name);
            }
        });
        for name in names {
            let mut collected = Collected::default();
            collect(name, 3, &mut collected);
            assert!(collected.family(&OTHER).is_none(), "{name} has no metric");
        }
        let mut seen = BTreeSet::new();
        for (spec, rows) in ROWS {
            for (counter, labels) in *rows {
                assert!(seen.insert(*counter), "{counter} is there twice");
                let count = labels.split(' ').filter(|label| !label.is_empty()).count();
                assert_eq!(count, spec.labels.len(), "{counter}");
            }
        }
    }
}
