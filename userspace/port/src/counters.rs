//! Plain per-port counters. Conservation: `rx_frames = rx_delivered + rx drops` at every instant between calls.

/// Why a port dropped a datagram. Each packet is counted under exactly one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Drop {
    /// Ethernet, IP or UDP header inconsistent with the frame's length.
    RxMalformed,
    /// Not UDP to one of our addresses, although steering sent it here.
    RxNotOurs,
    /// IPv4 header or UDP checksum wrong.
    RxChecksum,
    /// A ring returned an address that names no frame of ours in the kernel's hands.
    RxBadAddress,
    /// The kernel reported a truncated datagram.
    RxTruncated,
    /// From an address that no honest packet of a LAN comes from.
    RxMartian,
    /// Datagram larger than the frame or the path's MTU.
    TxTooBig,
    /// No free frame or ring slot although room had been asked for.
    TxNoRoom,
    /// The kernel refused the datagram (errno is in the debug log, once a second).
    TxError,
    /// To many, to nobody, or to this host itself: not for a LAN.
    TxNotThere,
    /// The routes don't lead to the LAN.
    TxUnroutable,
    /// The neighbour on the LAN didn't answer, or too many packets waited for such answers.
    TxNoNeighbour,
}

/// Every reason with its metric name, in `repr` order.
pub const DROP_REASONS: [(Drop, &str); 12] = [
    (Drop::RxMalformed, "rx_malformed"),
    (Drop::RxNotOurs, "rx_not_ours"),
    (Drop::RxChecksum, "rx_checksum"),
    (Drop::RxBadAddress, "rx_bad_address"),
    (Drop::RxTruncated, "rx_truncated"),
    (Drop::RxMartian, "rx_martian"),
    (Drop::TxTooBig, "tx_too_big"),
    (Drop::TxNoRoom, "tx_no_room"),
    (Drop::TxError, "tx_error"),
    (Drop::TxNotThere, "tx_not_there"),
    (Drop::TxUnroutable, "tx_unroutable"),
    (Drop::TxNoNeighbour, "tx_no_neighbour"),
];

impl Drop {
    /// Its metric name.
    #[must_use]
    pub fn name(self) -> &'static str {
        DROP_REASONS[self as usize].1
    }
}

/// Datagrams dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; DROP_REASONS.len()]);

impl Drops {
    /// Counts `n` datagrams under `reason`.
    #[inline]
    pub fn add(&mut self, reason: Drop, n: u64) {
        self.0[reason as usize] += n;
    }

    /// Datagrams dropped for `reason`.
    #[must_use]
    pub fn get(&self, reason: Drop) -> u64 {
        self.0[reason as usize]
    }

    /// Name and count of every reason.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DROP_REASONS.iter().map(|&(reason, name)| (name, self.get(reason)))
    }

    /// Sum of the receive-side reasons.
    #[must_use]
    pub fn rx_total(&self) -> u64 {
        self.iter().filter(|(name, _)| name.starts_with("rx_")).map(|(_, n)| n).sum()
    }
}

/// What one port has moved since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams taken from the ring or the socket (segments counted one by one).
    pub rx_datagrams: u64,
    /// UDP payload bytes delivered.
    pub rx_bytes: u64,
    /// Datagrams delivered to the worker.
    pub rx_delivered: u64,
    /// Datagrams whose UDP checksum field held only the pseudo-header sum (CHECKSUM_PARTIAL from veth or virtio);
    /// delivered, not dropped.
    pub rx_checksum_partial: u64,
    /// Calls to `receive` that delivered at least one datagram.
    pub rx_bursts: u64,
    /// Datagrams put on the ring or taken by the kernel.
    pub tx_datagrams: u64,
    /// UDP payload bytes sent.
    pub tx_bytes: u64,
    /// Datagrams that were given back to the caller for want of a route or neighbour.
    pub tx_no_route: u64,
    /// Descriptors or messages handed to the kernel and confirmed (AF_XDP completions).
    pub tx_completed: u64,
    /// System calls made to wake the kernel up (sendto kicks, recvmsg, sendmsg).
    pub syscalls: u64,
    /// Datagrams dropped, by reason.
    pub drops: Drops,
}

/// A port's table of ways out, by where packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownWays {
    /// Ways known now, those included that the kernel has changed since.
    pub entries: u64,
    /// Packets (or bursts to one peer) whose way was known.
    pub hits: u64,
    /// Those whose way had to be worked out, or wasn't to be had.
    pub misses: u64,
    /// Ways worked out.
    pub inserts: u64,
    /// Ways that made room for others.
    pub evictions: u64,
    /// Ways met after the kernel had changed its routes or neighbours.
    pub expired: u64,
}
