//! One queue of the LAN: inner packets in, proved and with their checksums accounted for; inner packets out, addressed.
//!
//! Rings and frames are [`Queue`]'s. A received packet goes to the worker as a slice of its frame, and the frame is free
//! again when the worker has taken what it wants: the one copy between this UMEM and QUIC's buffers. A packet to send is
//! copied into a frame, once.

use super::{
    addressed::Addressed,
    hops::{self, Hops},
    waiting::{Wait, Waiting},
};
use crate::{
    QueueReport,
    mirror::{Miss, Tables},
    queue::Queue,
};
use bytes::Bytes;
use ip::{InnerPort, InnerSink, Malformed, View, Vnet, checksum, icmp::Trouble};
use port::{Census, Counters, DROP_REASONS, Drop as Reason, Flushed, Frame};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};
use wire::{datagram::is_martian_address, inner::Inner};

/// Packets taken from the ring at once: no more bytes than one super-packet, which a sink that wants more has room for.
const BATCH: usize = 16;
/// Batches in one call of `receive`, so that the other work of a worker gets its turn.
const BATCH_COUNT_MAX: usize = 16;
/// Packets that the LAN refused, kept for the error that their senders are owed.
const REFUSED_COUNT_MAX: usize = 64;

/// The AF_XDP port of one queue of a LAN.
///
/// Dropping it takes the queue out of the steering map, so that the kernel gets the queue's packets again.
pub struct LanPort {
    queue: Queue,
    hops: Hops,
    waiting: Waiting,
    refused: VecDeque<(Bytes, Trouble)>,
    /// Frames between ring and sink; empty between calls.
    scratch: Vec<Frame>,
    /// When the TX ring, or a packet that waits, wants a flush.
    again_at: Option<Instant>,
}

impl LanPort {
    pub(super) fn new(queue: Queue, hops: Hops) -> Self {
        Self {
            queue,
            hops,
            waiting: Waiting::default(),
            refused: VecDeque::new(),
            scratch: Vec::with_capacity(BATCH),
            again_at: None,
        }
    }

    /// The queue it serves.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue.number()
    }

    /// How the queue runs.
    #[must_use]
    pub fn report(&self) -> &QueueReport {
        &self.queue.report
    }

    /// Where the frames are.
    pub fn census(&mut self) -> Census {
        self.queue.census()
    }

    /// What was moved and dropped. Conservation: received = given to the sink + drops, between calls.
    #[must_use]
    pub fn port_counters(&self) -> &Counters {
        &self.queue.counters
    }

    /// Takes over news about routes and links. Fails once the interface is gone.
    fn follow(&mut self) -> io::Result<()> {
        self.refresh();
        self.queue.follow(self.hops.interface_exists())
    }

    /// Takes over news about routes, neighbours and links.
    fn refresh(&mut self) {
        if self.hops.refresh() && !self.waiting.is_empty() {
            // What waited goes before what comes now.
            self.again_at = None;
        }
    }

    /// Queues a packet, or says why not.
    fn put(&mut self, packet: &[u8]) -> Result<(), Refusal> {
        let (from, to) = ends(packet).ok_or(Refusal::Drop(Reason::TxError))?;
        let resolve = |tables: &Tables, interface| hops::resolve(tables, interface, from, to);
        let hop = self.hops.get(&to, resolve).map_err(|miss| match miss {
            Miss::NotThere => Refusal::Answer(Reason::TxNotThere, Trouble::Prohibited),
            Miss::Elsewhere => Refusal::Answer(Reason::TxUnroutable, Trouble::NoRoute),
            Miss::Neighbour(neighbour) => Refusal::Wait(Wait { neighbour, from }),
        })?;
        hop.mark_used();
        if packet.len() > hop.mtu_bytes {
            let trouble = Trouble::TooBig { mtu_bytes: hop.mtu_bytes };
            return Err(Refusal::Answer(Reason::TxTooBig, trouble));
        }
        if self.queue.send_room() == 0 {
            return Err(Refusal::Drop(Reason::TxNoRoom));
        }
        let frame = self.queue.reserve().ok_or(Refusal::Drop(Reason::TxNoRoom))?;
        self.queue.unreserve(1);
        match Addressed::new(frame, hop, packet) {
            Ok(addressed) => {
                self.queue.rings.stage_addressed(addressed);
                self.queue.counters.tx_datagrams += 1;
                self.queue.counters.tx_bytes += packet.len() as u64;
                Ok(())
            }
            Err(frame) => {
                self.queue.unused(frame);
                Err(Refusal::Drop(Reason::TxError))
            }
        }
    }

    /// Queues a packet; what can't be sent waits, or is counted and kept for the error that its sender is owed.
    fn send_or_park(&mut self, packet: Bytes, since: Option<Instant>) {
        match self.put(&packet) {
            Ok(()) => {}
            Err(Refusal::Drop(reason)) => self.queue.counters.drops.add(reason, 1),
            Err(Refusal::Answer(reason, trouble)) => self.refuse(packet, reason, trouble),
            Err(Refusal::Wait(wait)) => {
                if !self.waiting.park(wait, packet, since) {
                    self.queue.counters.drops.add(Reason::TxNoNeighbour, 1);
                }
            }
        }
    }

    fn refuse(&mut self, packet: Bytes, reason: Reason, trouble: Trouble) {
        self.queue.counters.drops.add(reason, 1);
        if self.refused.len() < REFUSED_COUNT_MAX {
            self.refused.push_back((packet, trouble));
        }
    }

    /// Sends what waited for a neighbour that is known now; gives up what waited for too long.
    fn retry(&mut self, now: Instant) {
        let (kept, late) = self.waiting.take(now);
        for parked in late {
            self.refuse(parked.packet, Reason::TxNoNeighbour, Trouble::NoRoute);
        }
        for parked in kept {
            let (packet, since) = parked.into_parts();
            self.send_or_park(packet, since);
        }
    }
}

/// Why a packet isn't queued.
enum Refusal {
    Drop(Reason),
    /// Its sender is owed an ICMP error.
    Answer(Reason, Trouble),
    Wait(Wait),
}

impl InnerPort for LanPort {
    fn receive(&mut self, _now: Instant, sink: &mut dyn InnerSink) -> io::Result<bool> {
        self.follow()?;
        for _ in 0..BATCH_COUNT_MAX {
            if !sink.wants_more() {
                self.queue.refill();
                return Ok(false);
            }
            self.queue.receive(BATCH, &mut self.scratch);
            let count = self.scratch.len();
            for frame in self.scratch.drain(..) {
                match open(&frame) {
                    Ok((vnet, packet)) => {
                        sink.packet(vnet, packet);
                        self.queue.counters.rx_checksum_partial += u64::from(vnet.needs_checksum);
                        let packet_bytes = packet.len();
                        self.queue.consumed(frame, packet_bytes);
                    }
                    Err(reason) => self.queue.dropped(frame, reason),
                }
            }
            self.queue.counters.rx_bursts += u64::from(count > 0);
            if count < BATCH {
                self.queue.refill();
                return Ok(false);
            }
        }
        self.queue.refill();
        Ok(true)
    }

    fn send(&mut self, packet: Bytes) {
        // A port that was idle for long has heard nothing for as long.
        self.refresh();
        self.send_or_park(packet, None);
    }

    fn next_refused(&mut self) -> Option<(Bytes, Trouble)> {
        self.refused.pop_front()
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        self.follow()?;
        if self.again_at.is_none_or(|at| at <= now) && !self.waiting.is_empty() {
            self.retry(now);
        }
        for neighbour in self.waiting.neighbours_to_ask(now) {
            // One that isn't taken is asked for in a second, if packets still come for it.
            self.hops.reader().ask_for(neighbour);
        }
        let again = match self.queue.flush()? {
            Flushed::Idle => None,
            Flushed::Again(within) => Some(now + within),
        };
        self.again_at = [again, self.waiting.next_look(now)].into_iter().flatten().min();
        Ok(())
    }

    fn poll_fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.queue.as_fd()]
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.again_at
    }

    fn is_behind_router(&self) -> bool {
        false
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let counters = &self.queue.counters;
        each("lan_rx_packets", counters.rx_datagrams);
        each("lan_rx_bytes", counters.rx_bytes);
        each("lan_rx_delivered", counters.rx_delivered);
        each("lan_rx_checksum_partial", counters.rx_checksum_partial);
        each("lan_tx_packets", counters.tx_datagrams);
        each("lan_tx_bytes", counters.tx_bytes);
        each("lan_tx_completed", counters.tx_completed);
    }

    fn drops(&self, each: &mut dyn FnMut(&'static str, u64)) {
        for (reason, name) in LAN_DROPS {
            each(name, self.queue.counters.drops.get(reason));
        }
        for (name, count) in self.queue.kernel_drops() {
            each(if name == "xsk_rx_dropped" { "lan_xsk_rx_dropped" } else { "lan_xsk_rx_ring_full" }, count);
        }
    }
}

/// The drops of a LAN by name: none is taken for the tunnel's own.
const LAN_DROPS: [(Reason, &str); DROP_REASONS.len()] = [
    (Reason::RxMalformed, "lan_rx_malformed"),
    (Reason::RxNotOurs, "lan_rx_not_ours"),
    (Reason::RxChecksum, "lan_rx_checksum"),
    (Reason::RxBadAddress, "lan_rx_bad_address"),
    (Reason::RxTruncated, "lan_rx_truncated"),
    (Reason::RxMartian, "lan_rx_martian"),
    (Reason::TxTooBig, "lan_tx_too_big"),
    (Reason::TxNoRoom, "lan_tx_no_room"),
    (Reason::TxError, "lan_tx_error"),
    (Reason::TxNotThere, "lan_tx_not_there"),
    (Reason::TxUnroutable, "lan_tx_unroutable"),
    (Reason::TxNoNeighbour, "lan_tx_no_neighbour"),
];

/// Finds the packet in a frame and proves it: lengths, IPv4 header checksum, a sender that can be. Says whether its
/// transport checksum is still to be computed.
fn open(frame: &[u8]) -> Result<(Vnet, &[u8]), Reason> {
    let inner = Inner::read(frame).map_err(|_| Reason::RxNotOurs)?;
    let packet = inner.check(frame).map_err(|_| Reason::RxMalformed)?;
    let packet = frame.get(packet).ok_or(Reason::RxMalformed)?;
    let view = View::read(packet).map_err(|error| match error {
        Malformed::HeaderChecksum => Reason::RxChecksum,
        _ => Reason::RxMalformed,
    })?;
    if is_martian_address(view.source) {
        return Err(Reason::RxMartian);
    }
    Ok((checksum::left_undone(packet, &view), packet))
}

/// Source and destination of an IP packet.
fn ends(packet: &[u8]) -> Option<(std::net::IpAddr, std::net::IpAddr)> {
    use wire::Bytes;
    match packet.first()? >> 4 {
        4 => {
            let [a, b, c, d, e, f, g, h] = packet.array(12)?;
            Some(([a, b, c, d].into(), [e, f, g, h].into()))
        }
        6 => {
            let (from, to): ([u8; 16], [u8; 16]) = (packet.array(8)?, packet.array(24)?);
            Some((from.into(), to.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_has_a_name_of_the_lan_s() {
        for ((reason, name), (expected, port_name)) in LAN_DROPS.into_iter().zip(DROP_REASONS) {
            assert_eq!((reason, name), (expected, format!("lan_{port_name}").as_str()));
        }
    }
}
