//! What this port counts beyond [`Counters`](::port::Counters): plain integers, read at housekeeping.

/// Events of a kernel UDP port that are not the fate of one datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Times `receive` left datagrams in the socket because every frame was with the worker.
    pub rx_no_frame: u64,
    /// Errors of recvmmsg other than "nothing there"; no datagram is lost by one.
    pub rx_errors: u64,
    /// Messages that carried several datagrams (GRO).
    pub rx_gro_batches: u64,
    /// Frames given to `recycle` that this port never delivered.
    pub rx_foreign_frames: u64,
    /// Times the kernel answered EAGAIN to a send.
    pub tx_would_block: u64,
    /// Datagrams copied into the queue since the socket took no more.
    pub tx_queued: u64,
    /// Messages that carried several datagrams (GSO) and were taken whole.
    pub tx_gso_batches: u64,
    /// GSO messages that the kernel refused and that were sent one datagram at a time.
    pub tx_gso_fallbacks: u64,
    /// Datagrams refused with ECONNREFUSED, ENETUNREACH, EHOSTUNREACH or ENETDOWN (also in `drops.tx_error`).
    pub tx_unreachable: u64,
    /// Datagrams refused with EPERM or EACCES, usually by a firewall (also in `drops.tx_error`).
    pub tx_forbidden: u64,
    /// Datagrams refused with ENOBUFS or ENOMEM (also in `drops.tx_error`).
    pub tx_no_buffers: u64,
    /// Times the send state was rebuilt after the kernel had refused a message's options.
    pub tx_state_rebuilt: u64,
}
