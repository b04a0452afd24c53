//! Where inner packets come from and go to: a queue of a TUN device, or the LAN port. The worker doesn't know which.

use crate::{icmp::Trouble, vnet::Vnet};
use bytes::Bytes;
use std::{io, os::fd::BorrowedFd, time::Instant};

/// One worker's way to the network behind its end of the tunnel. Owned by that worker; never blocks.
pub trait InnerPort: Send {
    /// Gives waiting packets to `sink`, oldest first, until it wants no more, none waits, or a quota of this port's own
    /// is used up. True if more may wait. A packet that the sink doesn't want stays where the network queues it.
    ///
    /// # Errors
    /// Only for a port that is broken for good (device gone); transient errors are counted.
    fn receive(&mut self, now: Instant, sink: &mut dyn InnerSink) -> io::Result<bool>;

    /// Queues one valid IP packet, in full and without anything behind it, for [`Self::flush`]. The order of the packets
    /// of one flow is kept. What the network doesn't take is dropped and counted.
    fn send(&mut self, packet: Bytes);

    /// The next packet that the network refused, and why: its sender is owed the ICMP error. A bounded number is kept. A
    /// port in front of a router has none, for the router answers.
    fn next_refused(&mut self) -> Option<(Bytes, Trouble)> {
        None
    }

    /// Hands what was queued to the network.
    ///
    /// # Errors
    /// As [`Self::receive`].
    fn flush(&mut self, now: Instant) -> io::Result<()>;

    /// Descriptors that become readable when packets wait (level-triggered).
    fn poll_fds(&self) -> Vec<BorrowedFd<'_>>;

    /// When [`Self::flush`] wants to be called again, though nothing was sent.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Whether a router with a hop of its own stands behind this port: the kernel behind a TUN device does, and has
    /// decremented the hop limit of what it forwards. Where none does (LAN port), the worker decrements
    /// (RFC 9484 section 7: right before a packet enters the tunnel).
    fn is_behind_router(&self) -> bool;

    /// Plain counters by name, read at housekeeping.
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64));

    /// Plain counters of what was dropped, by name.
    fn drops(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let _ = each;
    }
}

/// Takes what an [`InnerPort`] receives.
pub trait InnerSink {
    /// Whether it has room for one more super-packet (64 KiB). Asked before each packet.
    fn wants_more(&mut self) -> bool;

    /// Takes one packet, or a super-packet that `vnet` says how to split. A plain packet comes with [`Vnet::NONE`].
    /// Not checked in any way yet.
    fn packet(&mut self, vnet: Vnet, packet: &[u8]);
}
