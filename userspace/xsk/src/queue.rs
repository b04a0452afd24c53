//! One queue of an interface, whatever travels through it: its socket's rings, its frames and who holds them.
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
//! The budgets never mix: a worker that sits on received frames can't stop this queue from sending, nor the reverse.
//! When the worker holds all receive frames, the NIC finds the fill ring empty and drops, counted by the kernel.
//!
//! The two ports build on it: `XskPort` (a tunnel's datagrams) and `LanPort` (its inner packets).

use crate::{
    QueueReport, SocketStatistics,
    attach::Sockets,
    kick::{self, Kick},
    rings::Rings,
    stall::{AGAIN_AT_LAST, AGAIN_SOON, AGAIN_STARVED, Stall},
};
use port::{Census, Counters, Drop as Reason, Flushed, Frame, Kept, Region};
use rustix::io::Errno;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Instant,
};

/// Kicks in one flush: at 32 descriptors a kick they empty the largest default ring.
const KICK_COUNT_MAX: usize = 64;

/// See the module.
///
/// Dropping it takes the queue out of the steering map, so that the kernel gets the queue's packets again. The queue
/// itself is free for another socket only when the last frame is gone too.
pub(crate) struct Queue {
    pub(crate) report: QueueReport,
    pub(crate) counters: Counters,
    pub(crate) rings: Rings,
    /// Index of the interface.
    interface: u32,
    /// Its name when this was opened.
    name: String,
    sockets: Arc<Sockets>,
    region: Arc<Region>,
    /// Receive frames that found no room on the fill ring yet.
    idle_rx: Vec<Frame>,
    /// Transmit frames free to send.
    idle_tx: Vec<Frame>,
    /// Delivered and not yet recycled.
    out: usize,
    /// Transmit frames that are being written.
    reserved: usize,
    tx_budget: usize,
    stall: Stall,
    busy_poll: bool,
    gone: Option<Errno>,
    /// Copies of what was dropped, while a capture wants them.
    pub(crate) kept: Option<Vec<Kept>>,
}

/// What [`Queue::new`] puts together.
pub(crate) struct Parts {
    pub(crate) report: QueueReport,
    pub(crate) interface: u32,
    pub(crate) name: String,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) rings: Rings,
    /// Every frame of the UMEM; at least two.
    pub(crate) frames: Vec<Frame>,
    pub(crate) ring_size: usize,
    pub(crate) busy_poll: bool,
}

impl Queue {
    /// Splits the frames into the two budgets and fills the fill ring.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { report, interface, name, sockets, rings, mut frames, ring_size, busy_poll } = parts;
        let region = frames[0].region().clone();
        let tx_budget = ring_size.min(frames.len() / 2);
        let idle_tx = frames.split_off(frames.len() - tx_budget);
        let mut queue = Self {
            report,
            counters: Counters::default(),
            rings,
            interface,
            name,
            sockets,
            region,
            idle_rx: frames,
            idle_tx,
            out: 0,
            reserved: 0,
            tx_budget,
            stall: Stall::default(),
            busy_poll,
            gone: None,
            kept: None,
        };
        queue.refill();
        queue
    }

    /// Its number on the NIC.
    pub(crate) fn number(&self) -> u32 {
        self.report.queue
    }

    /// Whether `frame` came from here.
    pub(crate) fn owns(&self, frame: &Frame) -> bool {
        Arc::ptr_eq(frame.region(), &self.region)
    }

    pub(crate) fn statistics(&self) -> io::Result<SocketStatistics> {
        self.rings.statistics()
    }

    /// The kernel's drops on the way to this socket, by name.
    pub(crate) fn kernel_drops(&self) -> [(&'static str, u64); 2] {
        // A socket that is gone drops nothing any more. Every packet that finds the fill ring empty counts as dropped.
        let statistics = self.statistics().unwrap_or_default();
        [("xsk_rx_dropped", statistics.rx_dropped), ("xsk_rx_ring_full", statistics.rx_ring_full)]
    }

    /// Frames that a burst can have at most.
    pub(crate) fn burst_max(&self) -> usize {
        self.tx_budget
    }

    /// Fails once the interface is gone; the caller says when it is.
    pub(crate) fn follow(&mut self, interface_exists: bool) -> io::Result<()> {
        if !interface_exists {
            self.gone = Some(Errno::NODEV);
        }
        self.gone.map_or(Ok(()), |errno| Err(kick::gone(&self.name, errno)))
    }

    /// Tops the fill ring up, and wakes a driver that has run dry.
    ///
    /// A driver may run dry just after this has looked. It is then woken by poll(2)'s half in the kernel (`xsk_poll`),
    /// which epoll asks when a socket is added to it and again before each sleep that follows an event of the socket:
    /// so the flag is looked at by the kernel after every burst, and once after the first fill.
    pub(crate) fn refill(&mut self) {
        self.rings.fill(&mut self.idle_rx);
        if self.rings.fill_needs_wakeup() {
            self.counters.syscalls += 1;
            if let Err(error) = self.rings.wake_fill() {
                // poll(2) with a timeout of zero fails only for want of memory: the next burst asks again.
                tracing::debug!(%error, "fill ring wake-up failed");
            }
        }
    }

    /// Takes at most `max` received frames. Each goes on by [`Self::delivered`] or [`Self::dropped`], and then the
    /// caller asks for a [`Self::refill`].
    pub(crate) fn receive(&mut self, max: usize, frames: &mut Vec<Frame>) {
        self.rings.fill(&mut self.idle_rx);
        let before = frames.len();
        let mut bogus = self.rings.receive(max, frames);
        if frames.len() == before && self.busy_poll {
            self.counters.syscalls += 1;
            if let Kick::Gone(errno) = kick::busy_poll(self.rings.as_fd()) {
                self.gone = Some(errno);
            }
            bogus += self.rings.receive(max, frames);
        }
        self.counters.rx_datagrams += (frames.len() - before) as u64 + bogus;
        self.counters.drops.add(Reason::RxBadAddress, bogus);
    }

    /// So many frames have gone to the worker.
    pub(crate) fn delivered(&mut self, count: usize) {
        self.out += count;
        self.counters.rx_delivered += count as u64;
        self.counters.rx_bursts += u64::from(count > 0);
    }

    /// Takes back a frame whose packet the worker has taken over as a copy.
    pub(crate) fn consumed(&mut self, frame: Frame, packet_bytes: usize) {
        self.counters.rx_delivered += 1;
        self.counters.rx_bytes += packet_bytes as u64;
        self.idle_rx.push(frame);
    }

    /// Takes back a frame whose packet goes nowhere.
    pub(crate) fn dropped(&mut self, frame: Frame, reason: Reason) {
        self.counters.drops.add(reason, 1);
        if let Some(kept) = &mut self.kept {
            kept.push(Kept { reason, frame: frame.with_front().to_vec() });
        }
        self.idle_rx.push(frame);
    }

    /// The interface's index.
    pub(crate) fn interface(&self) -> u32 {
        self.interface
    }

    /// Takes back a frame that was delivered.
    pub(crate) fn recycle(&mut self, frame: Frame) {
        assert!(self.owns(&frame), "a frame goes back to the port that it came from");
        self.out -= 1;
        self.idle_rx.push(frame);
    }

    /// How many frames may be reserved now. Cheap while frames abound; completions are reaped before they run short.
    pub(crate) fn send_room(&mut self) -> usize {
        if self.idle_tx.len() < self.tx_budget / 2 + 1 {
            self.reap();
        }
        self.idle_tx.len().min(self.rings.stage_room().saturating_sub(self.reserved))
    }

    /// A frame to write a packet into, its window on all that may be sent. [`Self::send_room`] has been asked.
    pub(crate) fn reserve(&mut self) -> Option<Frame> {
        let mut frame = self.idle_tx.pop()?;
        frame.set_window(self.rings.tx_window(frame.chunk()));
        self.reserved += 1;
        Some(frame)
    }

    /// So many reserved frames have been staged, or come back by [`Self::unused`].
    pub(crate) fn unreserve(&mut self, count: usize) {
        self.reserved -= count;
    }

    /// Takes back a transmit frame that isn't reserved any more.
    pub(crate) fn unused(&mut self, frame: Frame) {
        assert!(self.owns(&frame), "a frame goes back to the port that it came from");
        self.idle_tx.push(frame);
    }

    fn reap(&mut self) {
        let before = self.idle_tx.len();
        let bogus = self.rings.reap(&mut self.idle_tx);
        self.counters.tx_completed += (self.idle_tx.len() - before) as u64;
        // Not RxBadAddress: that one is part of the sum over received datagrams.
        self.counters.drops.add(Reason::TxError, bogus);
    }

    /// Hands what was staged to the kernel and reaps what is done.
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
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
                    return Err(kick::gone(&self.name, errno));
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

    pub(crate) fn census(&mut self) -> Census {
        let rings = self.rings.census();
        Census {
            interface: self.interface,
            queue: self.report.queue,
            free: self.idle_rx.len() + self.idle_tx.len(),
            fill: rings.fill,
            rx: rings.rx,
            tx: rings.tx,
            completion: rings.completion,
            out: self.out + self.reserved,
            total: self.region.chunk_count(),
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.as_fd()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Before the rings go: from here on the kernel's own socket gets this queue's packets.
        self.sockets.remove(self.report.queue);
    }
}
