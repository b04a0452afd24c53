//! Counters of one engine: plain integers, one writer, copied out at housekeeping.
//!
//! Every datagram that the engine drops is counted under exactly one [`DropReason`]. So, over any
//! span, `datagrams_in = datagrams_routed + initials_queued + initials_buffered + retries_sent +
//! answers (refusals, version negotiations, resets, closes) + drops of received datagrams`.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one engine since it was made, and a few gauges.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Datagrams dropped, by [`DropReason`].
            pub drops: [u64; DropReason::COUNT],
        }

        impl Stats {
            /// Calls `f` with each counter's name and value, then with each drop reason's.
            pub fn each(&self, f: &mut dyn FnMut(&'static str, u64)) {
                $(f(stringify!($name), self.$name);)*
                for reason in DropReason::ALL {
                    f(reason.name(), self.dropped(reason));
                }
            }

            /// Adds another engine's numbers to these.
            pub fn add(&mut self, other: &Stats) {
                $(self.$name += other.$name;)*
                for (sum, more) in self.drops.iter_mut().zip(other.drops) {
                    *sum += more;
                }
            }
        }
    };
}

counters! {
    /// Datagrams given to `receive`.
    datagrams_in,
    /// Bytes given to `receive`.
    bytes_in,
    /// Datagrams that the sink took.
    datagrams_out,
    /// Bytes that the sink took.
    bytes_out,
    /// Received datagrams that went to a connection.
    datagrams_routed,
    /// First Initials put in the queue for the handshake budget.
    initials_queued,
    /// Datagrams that quinn keeps for an Initial that still waits in the queue.
    initials_buffered,
    /// Handshakes that began: Initials accepted, and connections opened from here.
    handshakes_started,
    /// Handshakes that completed.
    handshakes_completed,
    /// Handshakes that ended without a connection, timeouts included.
    handshakes_failed,
    /// Handshakes dropped because they took longer than the limit.
    handshakes_timed_out,
    /// Connections that ended after their handshake.
    connections_closed,
    /// Connection attempts answered with CONNECTION_REFUSED (too many connections, or draining).
    refused,
    /// Connection attempts answered so because memory is short (see `Engine::set_room`).
    refused_memory,
    /// Stateless Retry packets sent.
    retries_sent,
    /// Times that the automatic Retry policy turned on.
    retry_engaged,
    /// Times that it turned off again.
    retry_disengaged,
    /// Version Negotiation packets sent.
    version_negotiations_sent,
    /// Stateless resets sent.
    stateless_resets_sent,
    /// Stateless CONNECTION_CLOSE answers sent (bad token, failed first packet).
    stateless_closes_sent,
    /// Datagrams that `owner_of` found to belong to another worker.
    handovers,
    /// Datagrams held back by the three-times limit.
    amplification_held,
    /// Held datagrams that were sent after more bytes had arrived.
    amplification_released,
    /// Connections whose peer moved to another address.
    migrations,
    /// New addresses of migrated peers that were validated.
    paths_validated,
    /// Timers that fired.
    timers_fired,
    /// Transmits that the sink refused and that were kept for the next call.
    transmits_parked,
    /// Packets sealed in batches; the others were sealed one by one.
    packets_sealed_in_batches,
    /// Packets opened in batches, before quinn asked; the others were opened one by one.
    packets_opened_in_batches,
    /// Batches of either kind.
    protection_batches,
    /// Packets opened in a batch under another key or number than quinn wanted, and opened again.
    packets_restored,
    /// Batched packets that ring has opened once more, to compare.
    canary_checked,
    /// Packets on which ring and the vector path differed; the first stops the vector path.
    canary_failed,
    /// Gauge: connections now alive, closing ones included.
    connections,
    /// Gauge: handshakes in progress from addresses that were not validated.
    unvalidated_handshakes,
    /// Gauge: 1 while the engine answers unvalidated Initials with Retry.
    retry_active,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Why a datagram was dropped. Each dropped datagram counts under exactly one reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// All reasons, in the order of `Stats::drops`.
            pub const ALL: [DropReason; DropReason::COUNT] = [$(DropReason::$variant,)*];
            /// How many reasons there are.
            pub const COUNT: usize = [$($name,)*].len();

            /// The counter's name.
            pub fn name(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// Received: too short or inconsistent to be QUIC.
    Malformed => "drop_malformed",
    /// Received: an Initial in a datagram below 1200 bytes (RFC 9000 14.1).
    InitialTooShort => "drop_initial_too_short",
    /// Received: an Initial whose client-chosen destination CID is below 8 bytes (RFC 9000 7.2).
    InitialShortCid => "drop_initial_short_cid",
    /// Received: an Initial that quinn would not take (header, reserved bits, saturation).
    InitialInvalid => "drop_initial_invalid",
    /// Received: a first Initial that failed authentication when its turn came.
    InitialUnauthenticated => "drop_initial_unauthenticated",
    /// Received: a first Initial, with the queue of waiting handshakes full.
    InitialQueueFull => "drop_initial_queue_full",
    /// Received: a connection attempt at an engine that is only a client.
    NoServer => "drop_no_server",
    /// Received: an unknown version in a datagram that is too short to answer (RFC 9000 5.2.2).
    VersionTooShort => "drop_version_too_short",
    /// Received: an unknown version at an engine that is only a client.
    VersionNoServer => "drop_version_no_server",
    /// Received: Handshake, 0-RTT, Retry or Version Negotiation for no connection of ours.
    LongUnknown => "drop_long_unknown",
    /// Received: a short header whose CID this node did not make.
    CidUnknown => "drop_cid_unknown",
    /// Received: a CID of another worker, given to `receive` nevertheless.
    OtherWorker => "drop_other_worker",
    /// Received: a dead CID of ours; a stateless reset was not due (rate limit, size).
    ResetSuppressed => "drop_reset_suppressed",
    /// Received: the answer would have exceeded three times the datagram.
    AnswerTooLarge => "drop_answer_too_large",
    /// Received: its connection vanished between `receive` and `run`.
    ConnectionGone => "drop_connection_gone",
    /// Received: opened with the keys of another connection than quinn found.
    Misdirected => "drop_misdirected",
    /// Received: the queue of stateless answers was full.
    AnswerQueueFull => "drop_answer_queue_full",
    /// To send: over the three-times limit, and no more could be held for that address.
    AmplificationLimit => "drop_amplification_limit",
    /// To send: quinn called the packet keys in an order that batches can't follow.
    NotSealed => "drop_not_sealed",
    /// To send: held by the three-times limit until the address was forgotten.
    AmplificationExpired => "drop_amplification_expired",
}

impl Stats {
    /// Datagrams dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    pub(crate) fn drop_many(&mut self, reason: DropReason, count: usize) {
        self.drops[reason as usize] += count as u64;
    }
}
