//! The table of metrics: the only place where one gets its name, type, labels and meaning. README's table is this one.

use super::{Kind, Spec};

/// Bounds of times, in microseconds: 10 us to 30 s.
const TIMES: &[u64] = &[
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];
/// Bounds of numbers of packets.
const SIZES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 1024];

macro_rules! kind {
    (counter) => {
        Kind::Counter
    };
    (gauge) => {
        Kind::Gauge
    };
    (times) => {
        Kind::Histogram(TIMES)
    };
    (sizes) => {
        Kind::Histogram(SIZES)
    };
}

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub(crate) static $id: Spec =
                Spec { name: $name, kind: kind!($kind), labels: &[$($label),*], help: $help };
        )*
        /// All, in the order of the table.
        #[cfg(test)]
        pub(crate) static ALL: &[&Spec] = &[$(&$id),*];
    };
}

metrics! {
    // The daemon.
    BUILD_INFO = gauge "beam_build_info" ["version" "role" "simd"] "Always 1; the version, the role (gateway, client or bench) and the vector level of packet protection are in the labels";
    READY = gauge "beam_ready" [] "1 while /readyz says 200";
    DRAINING = gauge "beam_draining" [] "1 while the daemon drains: running flows finish, new ones are refused";
    CERTIFICATE_NOT_AFTER = gauge "beam_certificate_not_after_timestamp_seconds" [] "When the gateway's certificate expires, in seconds since 1970";
    WORKERS = gauge "beam_workers" ["state"] "Workers that answered this scrape in time, and those that did not";
    ALERT_FIRING = gauge "beam_alert_firing" ["alert"] "1 while the alert of this rule fires; one series a rule of --alert and the defaults";
    ALERT_NOTICES = counter "beam_alert_notices_total" ["fate"] "What became of notices of alerts that webhooks and programs were given";
    // Tunnels.
    TUNNELS = gauge "beam_tunnels" ["state"] "QUIC connections that a client keeps to its gateway (--pool): up or down";
    TUNNELS_ASLEEP = gauge "beam_tunnels_asleep" [] "Tunnels without a connection, which their next flow wakes; at a client they count as up";
    TUNNEL_SLEEP = counter "beam_tunnel_sleep_total" ["event"] "Tunnels that fell asleep and were woken; at a gateway also records that made room for others, or were too old";
    CONNECTIONS = gauge "beam_connections" ["worker"] "QUIC connections alive, those that are closing included";
    HANDSHAKES = counter "beam_handshakes_total" ["event"] "QUIC handshakes; those that timed out are among the failed";
    HANDSHAKE_SECONDS = times "beam_handshake_seconds" [] "How long completed handshakes took";
    HANDSHAKES_UNVALIDATED = gauge "beam_handshakes_unvalidated" [] "Handshakes in progress from addresses that have not proved themselves";
    RETRY_ACTIVE = gauge "beam_retry_active" ["worker"] "1 while the worker answers unproven addresses with Retry";
    TUNNEL_RTT_SECONDS = times "beam_tunnel_rtt_seconds" [] "Smoothed round trip of connections that are in use, looked at about once a second";
    RECONNECTS = counter "beam_reconnects_total" [] "Times that a client's tunnel came up again";
    ADDRESS_CHANGES = counter "beam_address_changes_total" [] "Times that a client's tunnel moved to another local address";
    CONNECTIONS_CUT = counter "beam_connections_cut_total" ["reason"] "Connections that the gateway closed for a reason of its own";
    EARLY_DATA = counter "beam_early_data_total" ["event"] "Connections that began with early data (0-RTT), and requests in it that were refused";
    QUIC_EVENTS = counter "beam_quic_events_total" ["event"] "What else happened in the QUIC engines";
    QUIC_DATAGRAMS = counter "beam_quic_datagrams_total" ["direction"] "Datagrams that the QUIC engines took in and sent";
    QUIC_BYTES = counter "beam_quic_bytes_total" ["direction"] "Bytes of those datagrams";
    // Requests and flows.
    REQUESTS = counter "beam_requests_total" [] "Requests of clients that the gateway read, or that this client made";
    REQUESTS_PENDING = gauge "beam_requests_pending" [] "Requests that are neither refused nor flows yet";
    REFUSED = counter "beam_refused_total" ["reason"] "Requests refused; limit also counts local connections that a client could not take";
    FIRST_BYTE_SECONDS = times "beam_first_byte_seconds" [] "From the request for a TCP flow to the first byte back: at a gateway since the request came, at a client since its local connection came";
    FLOWS = gauge "beam_flows" ["worker"] "TCP and UDP flows that there are";
    FLOWS_OPENED = counter "beam_flows_opened_total" ["worker"] "TCP and UDP flows opened";
    FLOWS_ENDED = counter "beam_flows_ended_total" ["how"] "TCP flows that ended";
    UDP_FLOWS = counter "beam_udp_flows_total" ["event"] "UDP flows opened and ended";
    UDP_ICMP = counter "beam_udp_icmp_total" ["event"] "ICMP errors about UDP flows that were sent, or ended nothing";
    UDP_DATAGRAMS = counter "beam_udp_datagrams_total" ["direction"] "Datagrams of UDP flows";
    PAYLOAD_BYTES = counter "beam_payload_bytes_total" ["kind" "direction"] "Payload carried, without headers; of a TCP flow counted when it ends";
    CAPSULES_SENT = counter "beam_capsules_sent_total" [] "HTTP datagrams sent as capsules, for peers that take no QUIC datagrams";
    IP_SESSIONS = counter "beam_ip_sessions_total" ["event"] "IP sessions opened and ended";
    IP_PACKETS = counter "beam_ip_packets_total" ["direction"] "Inner IP packets to and from tunnels";
    IP_EVENTS = counter "beam_ip_events_total" ["event"] "What else happened to inner IP packets and sessions";
    INNER_PACKETS = counter "beam_inner_packets_total" ["port" "direction"] "IP packets (of TUN, reads and writes of several) at the port to the network behind this end";
    INNER_BYTES = counter "beam_inner_bytes_total" ["port" "direction"] "Bytes of those packets";
    INNER_EVENTS = counter "beam_inner_events_total" ["event"] "What else happened at that port";
    LISTENS = counter "beam_listens_total" ["event"] "Ports that clients asked the gateway to listen on (-R)";
    REVERSE = counter "beam_reverse_total" ["event"] "Connections and datagrams that came in by such ports";
    BENCH = counter "beam_bench_total" ["event"] "What beam bench serve has served and cut";
    BENCH_BYTES = counter "beam_bench_bytes_total" ["direction"] "Payload of measuring streams";
    // Packets.
    PACKETS = counter "beam_packets_total" ["path" "direction" "worker"] "Datagrams that passed through AF_XDP sockets (xsk) and kernel UDP sockets (kernel)";
    BYTES = counter "beam_bytes_total" ["path" "direction" "worker"] "UDP payload of those datagrams";
    SLOW_PATH_RATIO = gauge "beam_slow_path_ratio" [] "Share of all datagrams since the start that took kernel sockets: 1 without AF_XDP";
    DROPS = counter "beam_drops_total" ["reason"] "Packets dropped, each under one reason; beam show errors says what a reason means";
    HANDED_OVER = counter "beam_handed_over_packets_total" ["worker" "direction"] "Datagrams that landed on another worker's queue, as that worker (out) and the owner (in) count them";
    PORT_EVENTS = counter "beam_port_events_total" ["path" "event"] "What else happened at the sockets";
    RECEIVE_BURST_PACKETS = sizes "beam_receive_burst_packets" [] "Packets that one look at a socket found, where it found any; batches that GRO made count as one";
    SEAL_BATCH_PACKETS = sizes "beam_seal_batch_packets" [] "Datagrams protected together";
    OPEN_BATCH_PACKETS = sizes "beam_open_batch_packets" [] "Packets opened together";
    PROTECTED_PACKETS = counter "beam_protected_packets_total" ["operation"] "Packets sealed and opened in batches";
    PROTECTION_BATCHES = counter "beam_protection_batches_total" [] "Batches of either kind";
    CANARY_PACKETS = counter "beam_canary_packets_total" ["outcome"] "Packets that ring did once more to compare, and those that differed";
    // Workers.
    LOOP_LAG_SECONDS = times "beam_loop_lag_seconds" [] "How long a turn of a worker's loop took: what arrives meanwhile waits so long";
    TIMER_LAG_SECONDS = times "beam_timer_lag_seconds" [] "How late a sleeping worker woke for a timer";
    WORKER_LOOPS = counter "beam_worker_loops_total" ["worker"] "Turns of a worker's loop";
    WORKER_SLEEPS = counter "beam_worker_sleeps_total" ["worker"] "Times that a worker slept";
    // Interfaces and queues.
    INTERFACE_UP = gauge "beam_interface_up" ["interface"] "1 while the link is up and has a carrier";
    INTERFACE_QUEUES = gauge "beam_interface_queues" ["interface" "state"] "Queues that the NIC receives on now, and those that have an AF_XDP socket";
    QUEUE_INFO = gauge "beam_queue_info" ["interface" "queue" "mode"] "Always 1; mode is native-zerocopy, native-copy or skb-copy, or off for a worker on kernel sockets alone";
    STEERING = counter "beam_steering_total" ["interface" "verdict"] "Verdicts of the XDP program";
    NIC_DROPS = counter "beam_nic_drops_total" ["interface" "counter"] "Packets that the NIC and its driver lost, as the kernel counts them (ip -s link)";
    XDP_STATISTICS = counter "beam_xdp_statistics_total" ["interface" "queue" "field"] "The kernel's counts of each AF_XDP socket (XDP_STATISTICS)";
    UMEM_FRAMES = gauge "beam_umem_frames" ["interface" "queue" "holder"] "Frames of each AF_XDP socket, by who holds them";
    // Caches.
    CACHE_HITS = counter "beam_cache_hits_total" ["cache" "level"] "Lookups that found a value";
    CACHE_NEGATIVE = counter "beam_cache_negative_hits_total" ["cache" "level"] "Lookups that found that there is none";
    CACHE_MISSES = counter "beam_cache_misses_total" ["cache" "level"] "Lookups that found nothing";
    CACHE_EVICTIONS = counter "beam_cache_evictions_total" ["cache" "level"] "Entries that made room for others";
    CACHE_EXPIRED = counter "beam_cache_expired_total" ["cache" "level"] "Entries met after their time";
    CACHE_LOST = counter "beam_cache_lost_total" ["cache" "level"] "Writes that were lost";
    CACHE_ENTRIES = gauge "beam_cache_entries" ["cache" "level"] "Entries held";
    CACHE_BYTES = gauge "beam_cache_bytes" ["cache" "level"] "Bytes held";
    OTHER = counter "beam_other_total" ["counter"] "Counters of beam status -j that have no metric of their own yet";
    // The process, under the names that every Prometheus client uses.
    PROCESS_CPU = counter "process_cpu_seconds_total" [] "CPU time of the process";
    PROCESS_RESIDENT = gauge "process_resident_memory_bytes" [] "Resident memory";
    PROCESS_VIRTUAL = gauge "process_virtual_memory_bytes" [] "Virtual memory";
    PROCESS_FDS = gauge "process_open_fds" [] "Open file descriptors";
    PROCESS_FDS_MAX = gauge "process_max_fds" [] "Descriptors that it may open";
    PROCESS_START = gauge "process_start_time_seconds" [] "When the daemon started, in seconds since 1970";
}

impl Spec {
    /// In the words of Prometheus; empty for plain numbers.
    #[cfg(test)]
    pub(crate) fn unit(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        let last = name.rsplit('_').next().unwrap_or_default();
        ["seconds", "bytes", "packets", "ratio"].into_iter().find(|&unit| unit == last).unwrap_or_default()
    }
}
