//! The sending half: sendmsg with GSO straight from the caller's bytes, and a bounded queue for when the socket is full.
//!
//! Conservation: datagrams given to `send` = `tx_datagrams` + tx drops + `queued()`, at every instant between calls.

use std::io;

use port::{Counters, Drop, Ecn, Sent};
use quinn_udp::{EcnCodepoint, Transmit, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use socket2::Socket;
use wire::Path;

use crate::{
    Stats,
    address::Route,
    bind::send_state,
    queue::{Batch, Queue},
};

/// Bytes of one GSO message: its IPv4 packet before segmentation must fit in 65,535 bytes with 28 of headers, its IPv6
/// packet's payload with 8. The smaller of the two.
const MESSAGE_BYTES_MAX: usize = 65_507;
/// Segments of one GSO message: UDP_MAX_SEGMENTS of every kernel that has GSO (newer ones take 128).
pub(crate) const SEGMENTS_MAX: usize = 64;
/// Messages between two rebuilds of the send state, so that nobody can make us spend our time on it.
const MESSAGES_BETWEEN_REBUILDS: u64 = 4096;

/// Owns the socket's send state and the queue.
pub(crate) struct Sender {
    state: UdpSocketState,
    queue: Queue,
    socket_is_v6: bool,
    /// GSO works as far as we know. Ours, not quinn-udp's: that one gives up on any EINVAL.
    gso: bool,
    /// What quinn-udp believed when `state` was built; it believes less after an EINVAL or EIO.
    segments_at_build: usize,
    messages_since_rebuild: u64,
}

/// The counters that sending touches.
pub(crate) struct Count<'a> {
    pub(crate) counters: &'a mut Counters,
    pub(crate) stats: &'a mut Stats,
}

impl Sender {
    pub(crate) fn new(state: UdpSocketState, queue_datagrams: usize, socket_is_v6: bool) -> Self {
        let segments_at_build = state.max_gso_segments();
        Self {
            queue: Queue::new(queue_datagrams.max(1)),
            socket_is_v6,
            gso: segments_at_build > 1,
            segments_at_build,
            messages_since_rebuild: MESSAGES_BETWEEN_REBUILDS,
            state,
        }
    }

    pub(crate) fn state(&self) -> &UdpSocketState {
        &self.state
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.datagrams()
    }

    /// All or nothing: whatever the caller sends after asking fits in the queue, should the socket take none of it.
    pub(crate) fn room(&self) -> usize {
        if self.queue.is_empty() { self.queue.capacity_datagrams() } else { 0 }
    }

    pub(crate) fn segments_max(&self) -> usize {
        if self.gso { SEGMENTS_MAX } else { 1 }
    }

    pub(crate) fn send(
        &mut self,
        socket: &Socket,
        path: &Path,
        ecn: Option<Ecn>,
        batch: Batch<'_>,
        count: &mut Count<'_>,
    ) -> Sent {
        let Some(route) = Route::new(path, self.socket_is_v6) else {
            count.counters.drops.add(Drop::TxError, batch.datagrams() as u64);
            return Sent::Dropped;
        };
        // Behind a waiting queue everything waits: order is kept.
        let taken =
            if self.queue.is_empty() { self.offer(socket, route, ecn, batch, count) } else { Taken::NONE };
        let Some(rest) = batch.after(taken.bytes).filter(|_| !taken.whole) else {
            return if taken.any_sent { Sent::Queued } else { Sent::Dropped };
        };
        let datagrams = rest.datagrams() as u64;
        if !self.queue.push(route, ecn, rest) {
            count.counters.drops.add(Drop::TxNoRoom, datagrams);
            return if taken.any_sent { Sent::Queued } else { Sent::Dropped };
        }
        count.stats.tx_queued += datagrams;
        Sent::Queued
    }

    /// Sends what waits, until the socket is full again.
    pub(crate) fn flush(&mut self, socket: &Socket, count: &mut Count<'_>) {
        // Taken out for the while, so that the queue's bytes and the send state can be borrowed at once.
        let mut queue = std::mem::take(&mut self.queue);
        while let Some((route, ecn, batch)) = queue.front() {
            let taken = self.offer(socket, route, ecn, batch, count);
            queue.consume(taken.bytes, taken.whole);
            if !taken.whole {
                break;
            }
        }
        self.queue = queue;
        self.rebuild_if_spoilt(socket, count.stats);
    }

    /// Offers the datagrams to the kernel message by message until done or until it takes no more.
    fn offer(
        &mut self,
        socket: &Socket,
        route: Route,
        ecn: Option<Ecn>,
        batch: Batch<'_>,
        count: &mut Count<'_>,
    ) -> Taken {
        let mut taken = Taken::NONE;
        while let Some(rest) = batch.after(taken.bytes).filter(|_| !taken.whole) {
            let segments_max = self.segments_max().min(MESSAGE_BYTES_MAX / rest.segment_bytes().max(1));
            let mut message = rest.first(segments_max);
            let mut outcome = self.message(socket, route, ecn, message, count);
            if let Outcome::GsoRefused(errno) = outcome {
                // Sending the first alone tells whether GSO was the trouble or the datagram itself.
                count.stats.tx_gso_fallbacks += 1;
                outcome = self.message(socket, route, ecn, message.first(1), count);
                if outcome == Outcome::Sent {
                    message = message.first(1);
                    self.give_gso_up(errno);
                } else {
                    // Same path, same length: the kernel would say the same of each but a shorter last one.
                    message = message.full_segments();
                }
            }
            match outcome {
                Outcome::Full => return taken,
                Outcome::Sent => taken.any_sent = true,
                Outcome::Refused(reason) => count.counters.drops.add(reason, message.datagrams() as u64),
                Outcome::GsoRefused(_) => count.counters.drops.add(Drop::TxError, message.datagrams() as u64),
            }
            taken.bytes += message.bytes().len();
            taken.whole = taken.bytes == batch.bytes().len();
        }
        taken
    }

    /// One sendmsg. Success is counted here; a refusal by the caller, who knows how many datagrams it concerns.
    fn message(
        &mut self,
        socket: &Socket,
        route: Route,
        ecn: Option<Ecn>,
        message: Batch<'_>,
        count: &mut Count<'_>,
    ) -> Outcome {
        let datagrams = message.datagrams();
        let transmit = Transmit {
            destination: route.destination,
            ecn: ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            contents: message.bytes(),
            segment_size: (datagrams > 1).then(|| message.segment_bytes()),
            src_ip: route.source,
        };
        count.counters.syscalls += 1;
        self.messages_since_rebuild += 1;
        match self.state.try_send(UdpSockRef::from(socket), &transmit) {
            Ok(()) => {
                count.counters.tx_datagrams += datagrams as u64;
                count.counters.tx_bytes += message.bytes().len() as u64;
                count.stats.tx_gso_batches += u64::from(datagrams > 1);
                Outcome::Sent
            }
            Err(error) => classify(&error, datagrams as u64, count.stats),
        }
    }

    /// A single datagram went through where the batch did not.
    fn give_gso_up(&mut self, errno: Errno) {
        // EMSGSIZE is about this path's MTU, not about the device.
        if matches!(errno, Errno::IO | Errno::INVAL | Errno::OPNOTSUPP) && self.gso {
            self.gso = false;
            tracing::warn!(
                "UDP segmentation offload is off: the kernel answered {errno} to a batch; single datagrams work"
            );
        }
    }

    /// quinn-udp leaves the ECN bits out of IPv4 messages for ever after one EINVAL or EIO, for which an IPv6 address
    /// that left the host is enough. A fresh state forgets that.
    fn rebuild_if_spoilt(&mut self, socket: &Socket, stats: &mut Stats) {
        let spoilt = self.state.max_gso_segments() < self.segments_at_build;
        if !spoilt || self.messages_since_rebuild < MESSAGES_BETWEEN_REBUILDS {
            return;
        }
        self.messages_since_rebuild = 0;
        match send_state(socket) {
            Ok(state) => {
                self.segments_at_build = state.max_gso_segments();
                self.state = state;
                stats.tx_state_rebuilt += 1;
            }
            Err(error) => {
                tracing::warn!("UDP send state could not be rebuilt ({error}); ECN stays off for IPv4")
            }
        }
    }
}

/// How far an offer got.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// Bytes that were sent or dropped; the rest waits for the socket.
    bytes: usize,
    /// Nothing is left (says more than `bytes` for an empty datagram).
    whole: bool,
    /// At least one datagram was sent.
    any_sent: bool,
}

impl Taken {
    const NONE: Self = Self { bytes: 0, whole: false, any_sent: false };
}

/// What the kernel did with one message.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Sent,
    /// The socket's buffer is full.
    Full,
    Refused(Drop),
    /// A message of several segments was refused for a reason that may lie in the batching.
    GsoRefused(Errno),
}

/// The one place where an errno of sendmsg gets its meaning. None is fatal: QUIC retransmits, routes come back.
fn classify(error: &io::Error, datagrams: u64, stats: &mut Stats) -> Outcome {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    match errno {
        Errno::AGAIN => {
            stats.tx_would_block += 1;
            return Outcome::Full;
        }
        Errno::IO | Errno::INVAL | Errno::OPNOTSUPP | Errno::MSGSIZE if datagrams > 1 => {
            return Outcome::GsoRefused(errno);
        }
        Errno::MSGSIZE => return Outcome::Refused(Drop::TxTooBig),
        Errno::CONNREFUSED | Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN => {
            stats.tx_unreachable += datagrams;
        }
        Errno::PERM | Errno::ACCESS => stats.tx_forbidden += datagrams,
        Errno::NOBUFS | Errno::NOMEM => stats.tx_no_buffers += datagrams,
        _ => tracing::debug!("sendmsg: {errno}"),
    }
    Outcome::Refused(Drop::TxError)
}

#[cfg(test)]
mod tests {
    //! Goal: each errno of sendmsg has one meaning, and none is fatal.
    use super::*;

    #[test]
    fn an_errno_is_classified_once() {
        let mut stats = Stats::default();
        let mut says = |errno: Errno, datagrams| classify(&errno.into(), datagrams, &mut stats);
        assert_eq!(says(Errno::AGAIN, 3), Outcome::Full);
        assert_eq!(says(Errno::MSGSIZE, 1), Outcome::Refused(Drop::TxTooBig));
        for gso in [Errno::MSGSIZE, Errno::IO, Errno::INVAL, Errno::OPNOTSUPP] {
            assert_eq!(says(gso, 2), Outcome::GsoRefused(gso));
        }
        for plain in [Errno::CONNREFUSED, Errno::NETUNREACH, Errno::PERM, Errno::NOBUFS, Errno::INVAL] {
            assert_eq!(says(plain, 1), Outcome::Refused(Drop::TxError));
        }
        assert_eq!(says(Errno::HOSTUNREACH, 5), Outcome::Refused(Drop::TxError));
        assert_eq!((stats.tx_would_block, stats.tx_unreachable), (1, 7));
        assert_eq!((stats.tx_forbidden, stats.tx_no_buffers), (1, 1));
    }
}
