//! Frames and the way datagrams enter and leave a worker.
//!
//! ```text
//!  Region (one mapping, cut into chunks)
//!    └─ Frame: the only handle on one chunk; whoever owns it owns the bytes
//!
//!  wire ──► Port::receive ──► Received{path, ecn, frame} ──► worker ──► Port::recycle(frame)
//!  wire ◄── Port::submit(Sealed<Frame>) ◄── sealed by the worker ◄── Port::reserve(transmit) ─► empty Frames
//! ```
//!
//! A frame to send is reserved, filled by sealing, and submitted: there is no other way to make a [`Sealed`] one.
//!
//! A [`Port`] is either an AF_XDP socket (`xsk`) or a kernel UDP socket (`udp`); the worker's loop does not know
//! which. Frames may be carried to another worker and come back: [`Port::recycle`] puts them on the ring they
//! came from.
#![expect(unsafe_code, reason = "a Frame is a bounds-checked view into a mapping shared with the kernel")]

mod census;
mod counters;
mod frame;
mod ledger;
mod watch;

pub use census::Census;
pub use counters::{Counters, DROP_REASONS, Drop, Drops, KnownWays};
pub use frame::{Frame, Region};
pub use ledger::Ledger;
pub use simd::Sealed;
pub use watch::{Kept, Place, Watch};
pub use wire::Path;

use std::{io, os::fd::BorrowedFd, time::Duration};

/// ECN codepoint of an IP packet (RFC 3168 section 5); `None` of this type means Not-ECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// ECT(1), bits 01.
    Ect1 = 0b01,
    /// ECT(0), bits 10.
    Ect0 = 0b10,
    /// Congestion experienced, bits 11.
    Ce = 0b11,
}

impl Ecn {
    /// From the two low bits of the traffic class octet.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits & 0b11 {
            0b01 => Some(Self::Ect1),
            0b10 => Some(Self::Ect0),
            0b11 => Some(Self::Ce),
            _ => None,
        }
    }
}

/// One or more UDP payloads that arrived from one peer, all in one frame.
///
/// Invariant: the frame's bytes are the payloads back to back; each is `segment_bytes` long but the last, which may
/// be shorter. An AF_XDP port always delivers exactly one.
#[derive(Debug)]
pub struct Received {
    /// Where it came from and which local address it was sent to.
    pub path: Path,
    /// ECN bits of the outer IP header.
    pub ecn: Option<Ecn>,
    /// The owned bytes.
    pub frame: Frame,
    /// Length of each payload but the last, in bytes; never 0.
    pub segment_bytes: usize,
}

impl Received {
    /// The UDP payloads in order of arrival.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.frame.chunks(self.segment_bytes)
    }
}

/// Datagrams to one address, back to back.
///
/// Invariant: `segment_bytes` is above 0 unless `size_bytes` is 0, which is one empty datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From where to where.
    pub path: Path,
    /// ECN codepoint to send with.
    pub ecn: Option<Ecn>,
    /// Bytes of all datagrams.
    pub size_bytes: usize,
    /// Bytes of each datagram but the last, which may be shorter.
    pub segment_bytes: usize,
}

impl Transmit {
    /// With ECN as the two bits of the IP header, as QUIC's engine has it.
    #[inline]
    #[must_use]
    pub fn new(path: Path, ecn_bits: Option<u8>, size_bytes: usize, segment_bytes: usize) -> Self {
        Self { path, ecn: ecn_bits.and_then(Ecn::from_bits), size_bytes, segment_bytes }
    }

    /// How many datagrams it is.
    #[must_use]
    pub fn datagram_count(&self) -> usize {
        self.size_bytes.div_ceil(self.segment_bytes.max(1)).max(1)
    }

    /// The lengths of its datagrams.
    pub fn datagrams(&self) -> impl Iterator<Item = usize> {
        let Self { size_bytes, segment_bytes, .. } = *self;
        (0..self.datagram_count()).map(move |n| segment_bytes.min(size_bytes - n * segment_bytes))
    }
}

/// What [`Port::reserve`] has for a transmit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Frames, whose windows are filled exactly by the datagrams in their order: one or more whole ones each.
    Frames,
    /// No room now.
    Full,
    /// As [`Sent::NoRoute`].
    NoRoute,
    /// As [`Sent::Dropped`].
    Dropped,
}

/// What became of the datagrams given to [`Port::submit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// On the ring or in the kernel (or queued inside the port, bounded, until the socket takes it).
    Queued,
    /// This port has no route or no neighbour entry for the destination: the caller uses the slow path, whose kernel
    /// socket also makes the kernel resolve the neighbour.
    NoRoute,
    /// Dropped and counted by the port (too big, send error).
    Dropped,
}

/// What [`Port::flush`] left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing waits for the port any more.
    Idle,
    /// Descriptors are still on their way out and no file descriptor will say when they are done: call `flush` again
    /// after at most this long.
    Again(Duration),
}

/// Moves UDP datagrams between a worker and the wire. Owned by exactly one worker; never blocks.
pub trait Port: Send {
    /// Appends at most `max` received entries to `burst`, oldest first, and tops the fill ring up.
    ///
    /// # Errors
    /// Only for a port that is broken for good (interface gone); transient errors are counted.
    fn receive(&mut self, burst: &mut Vec<Received>, max: usize) -> io::Result<usize>;

    /// Takes back a frame that this port delivered.
    fn recycle(&mut self, frame: Frame);

    /// For how many datagrams [`Self::reserve`] is sure to have room now. Reaps completions first where that helps.
    fn send_room(&mut self) -> usize;

    /// Appends frames for a transmit's datagrams. They come back sealed by [`Self::submit`], or by [`Self::release`].
    fn reserve(&mut self, transmit: &Transmit, frames: &mut Vec<Frame>) -> Reserved;

    /// Sends what was reserved for a transmit, and empties `frames`. Transmits come in the order of their reservation.
    fn submit(&mut self, transmit: &Transmit, frames: &mut Vec<Sealed<Frame>>) -> Sent;

    /// Takes back a frame that was reserved and is not to be sent.
    fn release(&mut self, frame: Frame);

    /// Counts datagrams that the caller gave up on, for want of room.
    fn count_drop(&mut self, reason: Drop, datagram_count: usize);

    /// Sends bytes that are already as the wire may see them: one datagram, or several of `segment_bytes`. Workers seal
    /// into reserved frames instead; this is for tools and tests.
    fn send(&mut self, path: &Path, ecn: Option<Ecn>, wire: &[u8], segment_bytes: Option<usize>) -> Sent {
        let segment_bytes = segment_bytes.filter(|&n| n > 0).unwrap_or(wire.len()).min(wire.len());
        let transmit = Transmit { path: *path, ecn, size_bytes: wire.len(), segment_bytes };
        let mut frames = Vec::new();
        match self.reserve(&transmit, &mut frames) {
            Reserved::Frames => {}
            Reserved::NoRoute => return Sent::NoRoute,
            Reserved::Dropped => return Sent::Dropped,
            Reserved::Full => {
                self.count_drop(Drop::TxNoRoom, transmit.datagram_count());
                return Sent::Dropped;
            }
        }
        let datagrams = wire.chunks(segment_bytes.max(1)).map(|bytes| simd::Packet::Protected { bytes });
        match simd::Guard::new(simd::Level::RING).protect(frames, &datagrams.collect::<Vec<_>>()) {
            Ok(mut sealed) => self.submit(&transmit, &mut sealed),
            Err(simd::NotTiled(frames)) => {
                frames.into_iter().for_each(|frame| self.release(frame));
                self.count_drop(Drop::TxError, transmit.datagram_count());
                Sent::Dropped
            }
        }
    }

    /// Hands what `send` queued to the kernel and reaps what is done.
    ///
    /// # Errors
    /// As [`Self::receive`].
    fn flush(&mut self) -> io::Result<Flushed>;

    /// File descriptor that becomes readable when datagrams wait (level-triggered).
    fn poll_fd(&self) -> BorrowedFd<'_>;

    /// True while the port waits for `poll_fd` to become writable (kernel UDP under EAGAIN).
    fn wants_writable(&self) -> bool {
        false
    }

    /// The largest number of datagrams that one transmit gains from (GSO segments; a batch for AF_XDP).
    fn segments_max(&self) -> usize;

    /// Plain counters, read at housekeeping.
    fn counters(&self) -> &Counters;

    /// Names and counts of datagrams that the kernel dropped on their way to this port, for want of room here; they are
    /// not among those received. Asks the kernel: for housekeeping only.
    fn kernel_drops(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let _ = each;
    }

    /// The kernel's own counts of an AF_XDP socket (XDP_STATISTICS), by the names of its fields; `None` for others. Asks the
    /// kernel: for housekeeping only.
    fn socket_statistics(&self) -> Option<[(&'static str, u64); 6]> {
        None
    }

    /// How often the way out (route and neighbour) of a datagram was known. `None` for a port that leaves it to the kernel.
    fn known_ways(&self) -> Option<KnownWays> {
        None
    }

    /// Where its packets travel, for a capture.
    fn place(&self) -> Place {
        Place::default()
    }

    /// What a capture sees of the inside of this port. `None` for a port that a capture learns nothing more from.
    fn watch(&mut self) -> Option<&mut dyn Watch> {
        None
    }

    /// Where the frames are, for a port whose frames the kernel holds too: an AF_XDP socket. `None` for others.
    fn census(&mut self) -> Option<Census> {
        None
    }
}
