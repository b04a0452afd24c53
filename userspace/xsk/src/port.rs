//! The [`Port`] of one queue: parses and verifies what arrives, addresses and sums what leaves, counts all of it.
//!
//! Rings and frames are [`Queue`]'s.

use crate::{
    QueueReport, SocketStatistics,
    mirror::Tables,
    queue::Queue,
    templates::{self, Entry, Templates},
};
use port::{
    Census, Counters, Drop as Reason, Ecn, Flushed, Frame, Kept, KnownWays, Path, Place, Port, Received,
    Reserved, Sealed, Sent, Transmit, Watch,
};
use simd::{
    Level,
    validate::{self, Verdict},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};
use wire::{checksum::Checksum, datagram::Reject, encap::Template, headers::Malformed};

/// Datagrams that one `send` gains from: above it, the ring's room is asked for too coarsely.
const SEGMENT_COUNT_MAX: usize = 64;

/// The AF_XDP port of one queue.
///
/// Dropping it takes the queue out of the steering map, so that the kernel gets the queue's packets again. The queue
/// itself is free for another socket only when the last frame is gone too.
pub struct XskPort {
    queue: Queue,
    templates: Templates,
    /// Received frames between ring and burst; empty between calls.
    scratch: Vec<Frame>,
    /// What the frames of `scratch` are.
    verdicts: Vec<Verdict>,
    /// Which vectors judge and sum.
    level: Level,
    verify_checksums: bool,
}

impl XskPort {
    pub(crate) fn new(queue: Queue, templates: Templates, level: Level, verify_checksums: bool) -> Self {
        let burst_max = queue.burst_max();
        Self {
            queue,
            templates,
            scratch: Vec::with_capacity(burst_max),
            verdicts: Vec::with_capacity(burst_max),
            level,
            verify_checksums,
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

    /// Whether `frame` came from this port, which is then the one to recycle it.
    #[must_use]
    pub fn owns(&self, frame: &Frame) -> bool {
        self.queue.owns(frame)
    }

    /// The kernel's counts for the socket.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn statistics(&self) -> io::Result<SocketStatistics> {
        self.queue.statistics()
    }

    /// Takes over news about routes and links. Fails once the interface is gone.
    fn follow(&mut self) -> io::Result<()> {
        self.templates.refresh();
        self.queue.follow(self.templates.interface_exists())
    }

    /// Takes a received frame by its verdict: its window is narrowed to the payload.
    fn open(&mut self, verdict: &Verdict, mut frame: Frame) -> Result<Received, (Reason, Frame)> {
        let found = match verdict {
            Verdict::Datagram(found) => found,
            Verdict::Reject(Reject::NotOurs(_)) => return Err((Reason::RxNotOurs, frame)),
            Verdict::Reject(Reject::Malformed(Malformed::IpChecksum)) => {
                return Err((Reason::RxChecksum, frame));
            }
            Verdict::Reject(Reject::Malformed(_)) => return Err((Reason::RxMalformed, frame)),
        };
        let payload = found.payload();
        let (false, false, Some(path)) = (found.is_martian, payload.is_empty(), found.path(&frame)) else {
            return Err((Reason::RxMalformed, frame));
        };
        match found.checksum {
            None | Some(Checksum::Good | Checksum::Absent) => {}
            Some(Checksum::PartialPseudo) => self.queue.counters.rx_checksum_partial += 1,
            Some(Checksum::Bad) => return Err((Reason::RxChecksum, frame)),
        }
        frame.narrow(payload);
        let (segment_bytes, ecn) = (frame.len(), Ecn::from_bits(found.ecn_bits));
        Ok(Received { path, ecn, frame, segment_bytes })
    }

    /// Writes the headers of one sealed datagram and stages it. False if there are none, or none that fit in front of
    /// it: the route has changed since the frame was reserved.
    fn stage(&mut self, template: Option<&Template>, ecn_bits: u8, sealed: Sealed<Frame>) -> bool {
        let (payload_bytes, sum) = (sealed.as_ref().len(), validate::sum(self.level, sealed.as_ref()));
        let refused = self.queue.rings.stage(sealed, |frame, room_bytes| {
            let template = template.filter(|template| template.header_len() == room_bytes)?;
            template.write_summed(frame, payload_bytes, ecn_bits, sum)
        });
        let staged = refused.is_none();
        if let Some(frame) = refused {
            self.queue.unused(frame);
        }
        staged
    }
}

/// How to send on `path`; `None` when the kernel has to.
#[inline]
fn entry<'a>(templates: &'a mut Templates, path: &Path) -> Option<&'a Entry> {
    let resolve = |tables: &Tables, interface| templates::resolve(tables, interface, path).ok_or(());
    templates.get(path, resolve).ok()
}

impl Port for XskPort {
    fn receive(&mut self, burst: &mut Vec<Received>, max: usize) -> io::Result<usize> {
        self.follow()?;
        let mut scratch = std::mem::take(&mut self.scratch);
        self.queue.receive(max, &mut scratch);
        let before = burst.len();
        let mut verdicts = std::mem::take(&mut self.verdicts);
        validate::classify_burst(self.level, &scratch, self.verify_checksums, &mut verdicts);
        for (frame, verdict) in scratch.drain(..).zip(&verdicts) {
            match self.open(verdict, frame) {
                Ok(received) => {
                    self.queue.counters.rx_bytes += received.segment_bytes as u64;
                    burst.push(received);
                }
                Err((reason, frame)) => self.queue.dropped(frame, reason),
            }
        }
        self.verdicts = verdicts;
        self.scratch = scratch;
        let delivered = burst.len() - before;
        self.queue.delivered(delivered);
        self.queue.refill();
        Ok(delivered)
    }

    fn recycle(&mut self, frame: Frame) {
        self.queue.recycle(frame);
    }

    fn send_room(&mut self) -> usize {
        self.queue.send_room()
    }

    fn reserve(&mut self, transmit: &Transmit, frames: &mut Vec<Frame>) -> Reserved {
        self.templates.refresh();
        let datagram_count = transmit.datagram_count();
        let chunk_bytes = self.queue.rings.tx_window(0).len();
        let Some(entry) = entry(&mut self.templates, &transmit.path) else {
            self.queue.counters.tx_no_route += datagram_count as u64;
            return Reserved::NoRoute;
        };
        entry.mark_used();
        let header_bytes = entry.template.header_len();
        if transmit.segment_bytes > entry.payload_bytes_max.min(chunk_bytes - header_bytes) {
            self.queue.counters.drops.add(Reason::TxTooBig, datagram_count as u64);
            return Reserved::Dropped;
        }
        if self.queue.send_room() < datagram_count {
            return Reserved::Full;
        }
        for payload_bytes in transmit.datagrams() {
            let Some(mut frame) = self.queue.reserve() else { break };
            frame.narrow(header_bytes..header_bytes + payload_bytes);
            frames.push(frame);
        }
        Reserved::Frames
    }

    fn submit(&mut self, transmit: &Transmit, frames: &mut Vec<Sealed<Frame>>) -> Sent {
        self.queue.unreserve(frames.len());
        let template = entry(&mut self.templates, &transmit.path).map(|entry| entry.template);
        let ecn_bits = transmit.ecn.map_or(0, |ecn| ecn as u8);
        let mut sent = Sent::Dropped;
        for sealed in frames.drain(..) {
            let payload_bytes = sealed.as_ref().len();
            if self.stage(template.as_ref(), ecn_bits, sealed) {
                self.queue.counters.tx_datagrams += 1;
                self.queue.counters.tx_bytes += payload_bytes as u64;
                sent = Sent::Queued;
            } else {
                self.queue.counters.drops.add(Reason::TxError, 1);
            }
        }
        sent
    }

    fn count_drop(&mut self, reason: Reason, datagram_count: usize) {
        self.queue.counters.drops.add(reason, datagram_count as u64);
    }

    fn release(&mut self, frame: Frame) {
        self.queue.unused(frame);
        self.queue.unreserve(1);
    }

    fn flush(&mut self) -> io::Result<Flushed> {
        self.follow()?;
        self.queue.flush()
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    fn segments_max(&self) -> usize {
        SEGMENT_COUNT_MAX
    }

    fn known_ways(&self) -> Option<KnownWays> {
        Some(self.templates.counts())
    }

    fn counters(&self) -> &Counters {
        &self.queue.counters
    }

    fn kernel_drops(&self, each: &mut dyn FnMut(&'static str, u64)) {
        for (name, count) in self.queue.kernel_drops() {
            each(name, count);
        }
    }

    fn socket_statistics(&self) -> Option<[(&'static str, u64); 6]> {
        // A socket that is gone counts no more.
        let SocketStatistics {
            rx_dropped,
            rx_invalid_descriptors,
            rx_ring_full,
            rx_fill_ring_empty,
            tx_invalid_descriptors,
            tx_ring_empty,
        } = self.statistics().ok()?;
        Some([
            ("rx_dropped", rx_dropped),
            ("rx_invalid_descs", rx_invalid_descriptors),
            ("tx_invalid_descs", tx_invalid_descriptors),
            ("rx_ring_full", rx_ring_full),
            ("rx_fill_ring_empty_descs", rx_fill_ring_empty),
            ("tx_ring_empty_descs", tx_ring_empty),
        ])
    }

    fn census(&mut self) -> Option<Census> {
        Some(self.queue.census())
    }

    fn place(&self) -> Place {
        Place::Queue { interface: self.queue.interface(), queue: self.queue.number() }
    }

    fn watch(&mut self) -> Option<&mut dyn Watch> {
        Some(self)
    }
}

impl Watch for XskPort {
    fn keep_dropped(&mut self, keep: bool) {
        self.queue.kept = keep.then(Vec::new);
    }

    fn take_dropped(&mut self) -> Vec<Kept> {
        self.queue.kept.as_mut().map_or_else(Vec::new, std::mem::take)
    }

    fn headers(&mut self, transmit: &Transmit, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(Entry { template, .. }) = entry(&mut self.templates, &transmit.path) else { return false };
        let ecn_bits = transmit.ecn.map_or(0, |ecn| ecn as u8);
        let mut frame = vec![0; template.header_len() + payload.len()];
        let sum = validate::sum(self.level, payload);
        let written = template.write_summed(&mut frame, payload.len(), ecn_bits, sum).is_some();
        if written {
            out.extend_from_slice(&frame[..template.header_len()]);
        }
        written
    }
}
