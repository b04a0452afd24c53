//! The four rings of one socket, and which frames the kernel holds. The one file that handles xsk-rs's descriptors.
//!
//! ```text
//!   fill(frames) ──► fill ring ──► kernel ──► RX ring ──► receive() ──► frames
//!   stage(sealed) ──► submit() ──► TX ring ──► kernel ──► completion ring ──► reap() ──► frames
//! ```
//!
//! xsk-rs's descriptors are `Copy` and its rings unsafe to misuse. Here a frame is an owned token: giving it to a ring
//! moves it into `held`, under its chunk's number, and only an address that names a chunk held for that very ring
//! gives it back. So an address that the kernel never had, or one that comes twice, is found out and named.

use crate::{SocketStatistics, held::Held, lan::Addressed, raw::Made};
use port::{Frame, Sealed};
use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem};

/// Descriptors moved by one ring operation.
pub(crate) const BATCH: usize = 64;

/// Frames per holder, as far as the rings know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RingCensus {
    pub(crate) fill: usize,
    pub(crate) rx: usize,
    pub(crate) tx: usize,
    pub(crate) completion: usize,
}

/// The rings of one socket.
pub(crate) struct Rings {
    // The socket lives until its last queue is dropped, and the mapping until the last frame is (they hold the UMEM).
    fill: FillQueue,
    rx: RxQueue,
    tx: TxQueue,
    completion: CompQueue,
    umem: Umem,
    /// One descriptor for each chunk, as xsk-rs made it; addresses point behind the XDP headroom.
    descriptors: Box<[FrameDesc]>,
    held: Held,
    staged: Vec<FrameDesc>,
    chunk_bytes: usize,
    tx_size: u32,
}

/// What [`Rings::new`] puts together.
pub(crate) struct Parts {
    pub(crate) fill: FillQueue,
    pub(crate) rx: RxQueue,
    pub(crate) tx: TxQueue,
    pub(crate) completion: CompQueue,
    pub(crate) umem: Umem,
    pub(crate) descriptors: Vec<FrameDesc>,
    pub(crate) chunk_bytes: usize,
    pub(crate) tx_size: u32,
}

impl Rings {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { fill, rx, tx, completion, umem, descriptors, chunk_bytes, tx_size } = parts;
        Self {
            fill,
            rx,
            tx,
            completion,
            umem,
            held: Held::new(descriptors.len(), chunk_bytes),
            descriptors: descriptors.into_boxed_slice(),
            staged: Vec::with_capacity(tx_size as usize),
            chunk_bytes,
            tx_size,
        }
    }

    /// Where a frame's bytes begin when it is sent, as offsets in its chunk.
    pub(crate) fn tx_window(&self, chunk: usize) -> Range<usize> {
        self.descriptors[chunk].addr() % self.chunk_bytes..self.chunk_bytes
    }

    /// Moves frames from the end of `frames` to the fill ring, as many as fit.
    pub(crate) fn fill(&mut self, frames: &mut Vec<Frame>) {
        while !frames.is_empty() {
            let wanted = frames.len().min(BATCH);
            let room = (self.fill.nb_free(wanted as u32) as usize).min(wanted);
            if room == 0 {
                return;
            }
            let mut batch = [FrameDesc::default(); BATCH];
            for (slot, frame) in batch.iter_mut().zip(frames.drain(frames.len() - room..)) {
                *slot = self.descriptors[frame.chunk()];
                self.held.put_receive(frame);
            }
            // SAFETY: the descriptors are this UMEM's own, and their frames were consumed into `held` just now, so
            // nobody else touches these chunks until the kernel gives them back.
            let moved = unsafe { self.fill.produce(&batch[..room]) };
            assert_eq!(moved, room, "the fill ring had said it has room");
        }
    }

    /// Takes at most `max` received frames, windows on their packets; returns how many addresses were bogus.
    pub(crate) fn receive(&mut self, max: usize, frames: &mut Vec<Frame>) -> u64 {
        let mut bogus = 0;
        let mut left = max;
        while left > 0 {
            let mut batch = [FrameDesc::default(); BATCH];
            let wanted = left.min(BATCH);
            // SAFETY: the ring is this UMEM's; what the kernel wrote there is checked below before use.
            let taken = unsafe { self.rx.consume(&mut batch[..wanted]) };
            for descriptor in &batch[..taken] {
                match self.held.take_received(descriptor.addr(), descriptor.lengths().data()) {
                    Some(frame) => frames.push(frame),
                    None => bogus += 1,
                }
            }
            left -= taken;
            if taken < wanted {
                break;
            }
        }
        bogus
    }

    /// Frames that [`Self::stage`] takes before [`Self::submit`].
    pub(crate) fn stage_room(&mut self) -> usize {
        (self.tx.nb_free(self.tx_size) as usize).saturating_sub(self.staged.len())
    }

    /// Queues a frame whose window holds what was sealed. `headers` gets the whole [`Self::tx_window`] and how many bytes
    /// there are in front of the payload, fills those, and says how long the packet is. `None` from it gives the frame
    /// back.
    ///
    /// TX descriptors are made of sealed frames here, of the LAN's own [`Addressed`] packets below, and of what a generator
    /// makes ([`Made`]), which has no tunnel: nothing else can be sent, by its type.
    pub(crate) fn stage(
        &mut self,
        sealed: Sealed<Frame>,
        headers: impl FnOnce(&mut Frame, usize) -> Option<usize>,
    ) -> Option<Frame> {
        let mut frame = sealed.into_inner();
        let window = self.tx_window(frame.chunk());
        let room_bytes = frame.window().start - window.start;
        frame.set_window(window);
        let Some(length) = headers(&mut frame, room_bytes) else { return Some(frame) };
        self.put(frame, length);
        None
    }

    /// Queues an inner packet that goes to the LAN.
    pub(crate) fn stage_addressed(&mut self, packet: Addressed) {
        let (mut frame, length) = packet.into_parts();
        frame.set_window(self.tx_window(frame.chunk()));
        self.put(frame, length);
    }

    /// Queues a frame of a packet generator.
    pub(crate) fn stage_made(&mut self, made: Made) {
        let (frame, length) = made.into_parts();
        self.put(frame, length);
    }

    /// Queues the first bytes of a frame's whole [`Self::tx_window`].
    fn put(&mut self, frame: Frame, length: usize) {
        let mut descriptor = self.descriptors[frame.chunk()];
        // SAFETY: the descriptor is of a chunk whose frame this function owns; the slices that this makes are gone
        // before the frame is touched again.
        let mut data = unsafe { self.umem.data_mut(&mut descriptor) };
        data.cursor().set_pos(length);
        self.held.put_transmit(frame);
        self.staged.push(descriptor);
    }

    /// Moves everything staged to the TX ring.
    pub(crate) fn submit(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        // SAFETY: the descriptors are this UMEM's own and their frames are in `held`.
        let moved = unsafe { self.tx.produce(&self.staged) };
        assert_eq!(moved, self.staged.len(), "stage_room had been asked");
        self.staged.clear();
    }

    /// Takes frames whose packets are sent; returns how many addresses were bogus.
    pub(crate) fn reap(&mut self, frames: &mut Vec<Frame>) -> u64 {
        let mut bogus = 0;
        // At most one round of the ring, which can't hold more frames than are out.
        for _ in 0..self.held.transmit_count().div_ceil(BATCH) {
            let mut batch = [FrameDesc::default(); BATCH];
            // SAFETY: as in `receive`.
            let taken = unsafe { self.completion.consume(&mut batch) };
            for descriptor in &batch[..taken] {
                match self.held.take_sent(descriptor.addr()) {
                    Some(frame) => frames.push(frame),
                    None => bogus += 1,
                }
            }
            if taken < BATCH {
                break;
            }
        }
        bogus
    }

    /// Descriptors on the TX ring that the kernel hasn't taken.
    pub(crate) fn tx_waiting(&mut self) -> usize {
        self.tx_size.saturating_sub(self.tx.nb_free_exact()) as usize
    }

    /// Whether the kernel wants to be told of TX descriptors.
    pub(crate) fn tx_needs_wakeup(&self) -> bool {
        self.tx.needs_wakeup()
    }

    /// Whether the driver stopped for want of fill descriptors and wants to be told of new ones.
    pub(crate) fn fill_needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Tells the driver of new fill descriptors.
    pub(crate) fn wake_fill(&mut self) -> io::Result<()> {
        self.fill.wakeup(self.rx.fd_mut(), 0)
    }

    pub(crate) fn statistics(&self) -> io::Result<SocketStatistics> {
        let raw = self.rx.fd().xdp_statistics()?;
        Ok(SocketStatistics {
            rx_dropped: raw.rx_dropped(),
            rx_invalid_descriptors: raw.rx_invalid_descs(),
            rx_ring_full: raw.rx_ring_full(),
            rx_fill_ring_empty: raw.rx_fill_ring_empty_descs(),
            tx_invalid_descriptors: raw.tx_invalid_descs(),
            tx_ring_empty: raw.tx_ring_empty_descs(),
        })
    }

    pub(crate) fn census(&mut self) -> RingCensus {
        let rx = (self.rx.nb_avail_exact() as usize).min(self.held.receive_count());
        let completion = (self.completion.nb_avail_exact() as usize).min(self.held.transmit_count());
        RingCensus {
            fill: self.held.receive_count() - rx,
            rx,
            tx: self.held.transmit_count() - completion,
            completion,
        }
    }
}

impl AsFd for Rings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as its queues live, and they live in `self`.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }
}
