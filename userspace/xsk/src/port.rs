//! The [`Port`] of one queue: parses and verifies what arrives, addresses and sums what leaves, counts all of it.
//!
//! Who holds a frame, and how many at most (`R` is the ring size, `T = min(R, total / 2)`):
//!
//! ```text
//!   receive budget: total - T frames             transmit budget: T frames
//!     idle          rest of the budget             idle          T
//!     fill ring     2 R                            reserved      ┐
//!     kernel        (counted with fill or tx)      staged        │
//!     RX ring       R                              TX ring       ├ T in sum, so that no ring can overflow
//!     worker        rest: bursts, hand-over rings  completion    ┘
//! ```
//!
//! The budgets never mix: a worker that sits on received frames can't stop this port from sending, nor the reverse.
//! When the worker holds all receive frames, the NIC finds the fill ring empty and drops, counted by the kernel.

use crate::{
    QueueReport, SocketStatistics,
    attach::Sockets,
    kick::{self, Kick},
    rings::Rings,
    templates::Templates,
};
use port::{
    Census, Counters, Drop as Reason, Ecn, Flushed, Frame, Port, Received, Region, Reserved, Sealed, Sent,
    Transmit,
};
use rustix::io::Errno;
use simd::{
    Level,
    validate::{self, Verdict},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};
use wire::{checksum::Checksum, datagram::Reject, encap::Template, headers::Malformed};

/// Datagrams that one `send` gains from: above it, the ring's room is asked for too coarsely.
const SEGMENT_COUNT_MAX: usize = 64;
/// Kicks in one flush: at 32 descriptors a kick they empty the largest default ring.
const KICK_COUNT_MAX: usize = 64;
/// How soon to flush again while the kernel works on the TX ring.
const AGAIN_SOON: Duration = Duration::from_micros(50);
/// How soon while sent frames are slow to come back.
const AGAIN_STARVED: Duration = Duration::from_micros(200);
/// How soon at the latest, and while the link is down.
const AGAIN_AT_LAST: Duration = Duration::from_millis(20);

/// The AF_XDP port of one queue.
///
/// Dropping it takes the queue out of the steering map, so that the kernel gets the queue's packets again. The queue
/// itself is free for another socket only when the last frame is gone too.
pub struct XskPort {
    report: QueueReport,
    sockets: Arc<Sockets>,
    rings: Rings,
    templates: Templates,
    region: Arc<Region>,
    /// Receive frames that found no room on the fill ring yet.
    idle_rx: Vec<Frame>,
    /// Transmit frames free to send.
    idle_tx: Vec<Frame>,
    /// Received frames between ring and burst; empty between calls.
    scratch: Vec<Frame>,
    /// What the frames of `scratch` are.
    verdicts: Vec<Verdict>,
    /// Which vectors judge and sum.
    level: Level,
    /// Delivered and not yet recycled.
    out: usize,
    /// Transmit frames that the worker is sealing into.
    reserved: usize,
    tx_budget: usize,
    stall: Stall,
    verify_checksums: bool,
    busy_poll: bool,
    gone: Option<Errno>,
    counters: Counters,
}

/// How long nothing has moved on the transmit side.
///
/// In zero-copy mode `send` says yes and leaves the work to the driver, which doesn't touch the TX ring while there is
/// no carrier (`igb_xmit_zc` and its like), nor completes what the NIC holds: without this, one datagram would have the
/// worker look 20,000 times a second for as long as a cable is out.
#[derive(Default)]
struct Stall {
    /// How many datagrams were sent, completed and waiting, when it was looked at last.
    seen: (u64, u64, usize),
    look_count: u32,
    /// When the pause that was last asked for is over. Looks before that say nothing: a worker that receives looks often.
    due: Option<Instant>,
}

impl Stall {
    /// When to look again: soon after anything has moved, then twice as late with every pause in vain. So nothing waits
    /// longer than twice as long as it had waited anyway.
    fn pause(&mut self, soon: Duration, moved: (u64, u64, usize), now: Instant) -> Duration {
        if moved != self.seen {
            (self.seen, self.look_count) = (moved, 0);
        } else if self.due.is_some_and(|due| due <= now) {
            self.look_count = self.look_count.saturating_add(1);
        }
        let pause = soon.saturating_mul(1 << self.look_count.min(16)).min(AGAIN_AT_LAST);
        if self.due.is_none_or(|due| due <= now) || self.look_count == 0 {
            self.due = Some(now + pause);
        }
        pause
    }
}

/// What [`XskPort::new`] puts together.
pub(crate) struct Parts {
    pub(crate) report: QueueReport,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) rings: Rings,
    pub(crate) templates: Templates,
    /// Every frame of the UMEM; at least two.
    pub(crate) frames: Vec<Frame>,
    pub(crate) ring_size: usize,
    pub(crate) verify_checksums: bool,
    pub(crate) busy_poll: bool,
    pub(crate) level: Level,
}

impl XskPort {
    /// Splits the frames into the two budgets and fills the fill ring.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            report,
            sockets,
            rings,
            templates,
            mut frames,
            ring_size,
            verify_checksums,
            busy_poll,
            level,
        } = parts;
        let region = frames[0].region().clone();
        let tx_budget = ring_size.min(frames.len() / 2);
        let idle_tx = frames.split_off(frames.len() - tx_budget);
        let mut port = Self {
            report,
            sockets,
            rings,
            templates,
            region,
            idle_rx: frames,
            idle_tx,
            scratch: Vec::with_capacity(ring_size),
            verdicts: Vec::with_capacity(ring_size),
            level,
            out: 0,
            reserved: 0,
            tx_budget,
            stall: Stall::default(),
            verify_checksums,
            busy_poll,
            gone: None,
            counters: Counters::default(),
        };
        port.refill();
        port
    }

    /// The queue it serves.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.report.queue
    }

    /// How the queue runs.
    #[must_use]
    pub fn report(&self) -> &QueueReport {
        &self.report
    }

    /// Whether `frame` came from this port, which is then the one to recycle it.
    #[must_use]
    pub fn owns(&self, frame: &Frame) -> bool {
        Arc::ptr_eq(frame.region(), &self.region)
    }

    /// The kernel's counts for the socket.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn statistics(&self) -> io::Result<SocketStatistics> {
        self.rings.statistics()
    }

    /// Tops the fill ring up, and wakes a driver that has run dry.
    ///
    /// A driver may run dry just after this has looked. It is then woken by poll(2)'s half in the kernel (`xsk_poll`),
    /// which epoll asks when a socket is added to it and again before each sleep that follows an event of the socket:
    /// so the flag is looked at by the kernel after every burst, and once after the first fill.
    fn refill(&mut self) {
        self.rings.fill(&mut self.idle_rx);
        if self.rings.fill_needs_wakeup() {
            self.counters.syscalls += 1;
            if let Err(error) = self.rings.wake_fill() {
                // poll(2) with a timeout of zero fails only for want of memory: the next burst asks again.
                tracing::debug!(%error, "fill ring wake-up failed");
            }
        }
    }

    /// Takes over news about routes and links. Fails once the interface is gone.
    fn follow(&mut self) -> io::Result<()> {
        if self.templates.refresh() && !self.templates.interface_exists() {
            self.gone = Some(Errno::NODEV);
        }
        self.gone.map_or(Ok(()), |errno| Err(kick::gone(errno)))
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
            Some(Checksum::PartialPseudo) => self.counters.rx_checksum_partial += 1,
            Some(Checksum::Bad) => return Err((Reason::RxChecksum, frame)),
        }
        frame.narrow(payload);
        let (segment_bytes, ecn) = (frame.len(), Ecn::from_bits(found.ecn_bits));
        Ok(Received { path, ecn, frame, segment_bytes })
    }

    fn reap(&mut self) {
        let before = self.idle_tx.len();
        let bogus = self.rings.reap(&mut self.idle_tx);
        self.counters.tx_completed += (self.idle_tx.len() - before) as u64;
        // Not RxBadAddress: that one is part of the sum over received datagrams.
        self.counters.drops.add(Reason::TxError, bogus);
    }

    /// Writes the headers of one sealed datagram and stages it. False if there are none, or none that fit in front of
    /// it: the route has changed since the frame was reserved.
    fn stage(&mut self, template: Option<&Template>, ecn_bits: u8, sealed: Sealed<Frame>) -> bool {
        let (payload_bytes, sum) = (sealed.as_ref().len(), validate::sum(self.level, sealed.as_ref()));
        let refused = self.rings.stage(sealed, |frame, room_bytes| {
            let template = template.filter(|template| template.header_len() == room_bytes)?;
            template.write_summed(frame, payload_bytes, ecn_bits, sum)
        });
        let staged = refused.is_none();
        self.idle_tx.extend(refused);
        staged
    }
}

impl Port for XskPort {
    fn receive(&mut self, burst: &mut Vec<Received>, max: usize) -> io::Result<usize> {
        self.follow()?;
        self.rings.fill(&mut self.idle_rx);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut bogus = self.rings.receive(max, &mut scratch);
        if scratch.is_empty() && self.busy_poll {
            self.counters.syscalls += 1;
            if let Kick::Gone(errno) = kick::busy_poll(self.rings.as_fd()) {
                self.gone = Some(errno);
            }
            bogus += self.rings.receive(max, &mut scratch);
        }
        self.counters.rx_datagrams += scratch.len() as u64 + bogus;
        self.counters.drops.add(Reason::RxBadAddress, bogus);
        let before = burst.len();
        let mut verdicts = std::mem::take(&mut self.verdicts);
        validate::classify_burst(self.level, &scratch, self.verify_checksums, &mut verdicts);
        for (frame, verdict) in scratch.drain(..).zip(&verdicts) {
            match self.open(verdict, frame) {
                Ok(received) => {
                    self.counters.rx_bytes += received.segment_bytes as u64;
                    burst.push(received);
                }
                Err((reason, frame)) => {
                    self.counters.drops.add(reason, 1);
                    self.idle_rx.push(frame);
                }
            }
        }
        self.verdicts = verdicts;
        self.scratch = scratch;
        let delivered = burst.len() - before;
        self.out += delivered;
        self.counters.rx_delivered += delivered as u64;
        self.counters.rx_bursts += u64::from(delivered > 0);
        self.refill();
        Ok(delivered)
    }

    fn recycle(&mut self, frame: Frame) {
        assert!(self.owns(&frame), "a frame goes back to the port that it came from");
        self.out -= 1;
        self.idle_rx.push(frame);
    }

    fn send_room(&mut self) -> usize {
        // Cheap while frames abound; completions are reaped before they run short.
        if self.idle_tx.len() < self.tx_budget / 2 + 1 {
            self.reap();
        }
        self.idle_tx.len().min(self.rings.stage_room().saturating_sub(self.reserved))
    }

    fn reserve(&mut self, transmit: &Transmit, frames: &mut Vec<Frame>) -> Reserved {
        self.templates.refresh();
        let datagram_count = transmit.datagram_count();
        let chunk_bytes = self.rings.tx_window(0).len();
        let Some(entry) = self.templates.get(&transmit.path) else {
            self.counters.tx_no_route += datagram_count as u64;
            return Reserved::NoRoute;
        };
        entry.mark_used();
        let header_bytes = entry.template.header_len();
        if transmit.segment_bytes > entry.payload_bytes_max.min(chunk_bytes - header_bytes) {
            self.counters.drops.add(Reason::TxTooBig, datagram_count as u64);
            return Reserved::Dropped;
        }
        if self.send_room() < datagram_count {
            return Reserved::Full;
        }
        let idle_from = self.idle_tx.len() - datagram_count;
        for (mut frame, payload_bytes) in self.idle_tx.drain(idle_from..).zip(transmit.datagrams()) {
            let start = self.rings.tx_window(frame.chunk()).start + header_bytes;
            frame.set_window(start..start + payload_bytes);
            frames.push(frame);
        }
        self.reserved += datagram_count;
        Reserved::Frames
    }

    fn submit(&mut self, transmit: &Transmit, frames: &mut Vec<Sealed<Frame>>) -> Sent {
        self.reserved -= frames.len();
        let template = self.templates.get(&transmit.path).map(|entry| entry.template);
        let ecn_bits = transmit.ecn.map_or(0, |ecn| ecn as u8);
        let mut sent = Sent::Dropped;
        for sealed in frames.drain(..) {
            let payload_bytes = sealed.as_ref().len();
            if self.stage(template.as_ref(), ecn_bits, sealed) {
                self.counters.tx_datagrams += 1;
                self.counters.tx_bytes += payload_bytes as u64;
                sent = Sent::Queued;
            } else {
                self.counters.drops.add(Reason::TxError, 1);
            }
        }
        sent
    }

    fn count_drop(&mut self, reason: Reason, datagram_count: usize) {
        self.counters.drops.add(reason, datagram_count as u64);
    }

    fn release(&mut self, frame: Frame) {
        assert!(self.owns(&frame), "a frame goes back to the port that it came from");
        self.reserved -= 1;
        self.idle_tx.push(frame);
    }

    fn flush(&mut self) -> io::Result<Flushed> {
        self.follow()?;
        self.rings.submit();
        let mut waiting = self.rings.tx_waiting();
        let mut pause = AGAIN_SOON;
        for _ in 0..KICK_COUNT_MAX {
            if waiting == 0 || !(self.rings.tx_needs_wakeup() || self.busy_poll) {
                break;
            }
            self.counters.syscalls += 1;
            let outcome = kick::transmit(self.rings.as_fd());
            let left = self.rings.tx_waiting();
            let moved = left < waiting;
            waiting = left;
            match outcome {
                Kick::Moved if moved => {}
                // The kernel is short of something that completions give back.
                Kick::Moved | Kick::Busy if moved => self.reap(),
                Kick::Moved | Kick::Busy => {
                    self.reap();
                    break;
                }
                Kick::Down => {
                    pause = AGAIN_AT_LAST;
                    break;
                }
                Kick::Gone(errno) => {
                    self.gone = Some(errno);
                    return Err(kick::gone(errno));
                }
            }
        }
        self.reap();
        // Completions raise no poll event: a sender that ran out of frames has to come back for them.
        let starved = self.idle_tx.len() < self.tx_budget / 4;
        let soon = match (waiting, starved) {
            (0, false) => {
                self.stall = Stall::default();
                return Ok(Flushed::Idle);
            }
            (0, true) => AGAIN_STARVED,
            _ => pause,
        };
        let moved = (self.counters.tx_datagrams, self.counters.tx_completed, waiting);
        Ok(Flushed::Again(self.stall.pause(soon, moved, Instant::now())))
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.rings.as_fd()
    }

    fn segments_max(&self) -> usize {
        SEGMENT_COUNT_MAX
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn kernel_drops(&self, each: &mut dyn FnMut(&'static str, u64)) {
        // A socket that is gone drops nothing any more. Every datagram that finds the fill ring empty counts as dropped.
        let statistics = self.statistics().unwrap_or_default();
        each("xsk_rx_dropped", statistics.rx_dropped);
        each("xsk_rx_ring_full", statistics.rx_ring_full);
    }

    fn census(&mut self) -> Option<Census> {
        let rings = self.rings.census();
        Some(Census {
            interface: self.templates.interface(),
            queue: self.report.queue,
            free: self.idle_rx.len() + self.idle_tx.len(),
            fill: rings.fill,
            rx: rings.rx,
            tx: rings.tx,
            completion: rings.completion,
            out: self.out + self.reserved,
            total: self.region.chunk_count(),
        })
    }
}

impl Drop for XskPort {
    fn drop(&mut self) {
        // Before the rings go: from here on the kernel's own socket gets this queue's packets.
        self.sockets.remove(self.report.queue);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a transmit side where nothing moves is looked at ever less often, and soon again once something moves.
    use super::*;

    #[test]
    fn looks_in_vain_become_rare() {
        let (mut stall, mut now) = (Stall::default(), Instant::now());
        let stuck = (7, 4, 3);
        let pauses: Vec<Duration> = (0..12)
            .map(|_| {
                let pause = stall.pause(AGAIN_SOON, stuck, now);
                now += pause;
                pause
            })
            .collect();
        assert_eq!(pauses[0], AGAIN_SOON);
        assert!(pauses.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(AGAIN_AT_LAST)), "{pauses:?}");
        assert_eq!(pauses[11], AGAIN_AT_LAST);
        for moved in [(8, 4, 3), (8, 5, 3), (8, 5, 2)] {
            assert_eq!(stall.pause(AGAIN_SOON, moved, now), AGAIN_SOON, "{moved:?}");
        }
    }

    // A worker whose receiving side is busy flushes at every turn: that is no reason to wait longer.
    #[test]
    fn looks_ahead_of_time_do_not_count() {
        let (mut stall, now) = (Stall::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(stall.pause(AGAIN_SOON, (7, 4, 3), now), AGAIN_SOON);
        }
    }
}
