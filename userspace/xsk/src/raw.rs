//! [`RawSocket`]: whole frames out of one queue, for packet generators.
//!
//! It only sends. It takes part in no steering map, so no packet can reach it, and it asks for copy mode, so the driver goes
//! on as before: the kernel wraps each frame in an skb and gives it to the driver past the qdisc. Zero-copy is not for
//! it: drivers set up the queues that send without copies together with an XDP program, which this doesn't load.
//!
//! A queue has one AF_XDP socket. Where a running beam holds it, this one is refused; where this one is first, beam is.
//!
//! ```text
//!   room() ──► put(write) ──► flush() ──► kernel ──► completion ring ──► room()
//! ```

use crate::{Config, OpenError, bind, ethtool, kick, preflight, rings::Rings};
use port::Frame;
use rustix::{
    io::Errno,
    net::{SendFlags, send},
};
use std::{io, os::fd::AsFd};

/// Descriptors of the ring; as many frames.
const RING_SIZE: u32 = 2048;
/// Bytes of a chunk. A frame of 3,840 bytes fits.
const CHUNK_BYTES: u32 = 4096;
/// Frames that one call hands to the kernel in copy mode, at most (net/xdp/xsk.c, TX_BATCH_SIZE).
const CALL_COUNT_MAX: usize = (RING_SIZE / 32) as usize + 1;

/// A frame that a generator wrote from its first byte on, and how many bytes of it there are.
pub(crate) struct Made {
    frame: Frame,
    length: usize,
}

impl Made {
    pub(crate) fn into_parts(self) -> (Frame, usize) {
        (self.frame, self.length)
    }
}

/// What became of the frames that were put. All of them, once the socket [is idle](RawSocket::is_idle).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawTally {
    /// Given to the kernel.
    pub put: u64,
    /// Done with: sent, or refused.
    pub done: u64,
    /// Of these the ones that the device refused: its queue is full, or its link is down.
    pub refused: u64,
}

/// What a flush came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// The kernel took all there was.
    Done,
    /// Some wait: the kernel is short of something that comes back, or the link is down.
    Waiting,
}

/// See the module. Dropping it frees the queue.
pub struct RawSocket {
    rings: Rings,
    interface: String,
    idle: Vec<Frame>,
    frame_count: usize,
    tally: RawTally,
}

/// Queues that an interface sends on; 1 where its driver can't say.
#[must_use]
pub fn tx_queue_count(interface: &str) -> u32 {
    ethtool::channels(interface).map_or(1, |channels| channels.combined + channels.tx).max(1)
}

impl RawSocket {
    /// A socket on one queue of an interface, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// What is missing, and the command that mends it.
    pub fn open(interface: &str, queue: u32) -> Result<Self, OpenError> {
        let config = Config {
            ring_size: RING_SIZE,
            frame_bytes: CHUNK_BYTES,
            umem_bytes: RING_SIZE as usize * CHUNK_BYTES as usize,
            ..Config::new(interface)
        };
        if interface.is_empty() || interface.len() >= libc::IFNAMSIZ {
            let (seen, needed) = (interface.to_owned(), "a name of 1 to 15 characters".to_owned());
            return Err(OpenError::Config { knob: "--interface", seen, needed });
        }
        preflight::find(interface)?.check_link()?;
        let count = tx_queue_count(interface);
        if queue >= count {
            let more = format!("See how many it could have: ethtool -l {interface}");
            return Err(OpenError::NoSuchTxQueue { interface: interface.to_owned(), queue, count, more });
        }
        preflight::check_raw_capability()?;
        let (rings, mut idle) = bind::bind_to_send(&config, queue)?;
        for frame in &mut idle {
            frame.set_window(rings.tx_window(frame.chunk()));
        }
        let frame_count = idle.len();
        Ok(Self { rings, interface: interface.to_owned(), idle, frame_count, tally: RawTally::default() })
    }

    /// Bytes of the largest frame.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        self.rings.tx_window(0).len()
    }

    /// Frames that may be put now.
    pub fn room(&mut self) -> usize {
        if self.idle.len() < self.frame_count / 2 {
            self.reap();
        }
        self.idle.len().min(self.rings.stage_room())
    }

    /// Has `write` write a frame into the slice, from its first byte on, and say how long it is. False where there is no room,
    /// or `write` says that there is no frame.
    pub fn put(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        if self.rings.stage_room() == 0 {
            return false;
        }
        let Some(mut frame) = self.idle.pop() else { return false };
        match write(&mut frame) {
            Some(length) if length > 0 && length <= frame.len() => {
                self.rings.stage_made(Made { frame, length });
                self.tally.put += 1;
                true
            }
            _ => {
                self.idle.push(frame);
                false
            }
        }
    }

    /// Hands what was put to the kernel. Never blocks.
    ///
    /// # Errors
    /// The socket is broken for good: its interface is gone.
    pub fn flush(&mut self) -> io::Result<Flush> {
        self.rings.submit();
        let mut waiting = self.rings.tx_waiting();
        // One call more for each frame that the device refuses.
        let mut calls_left = CALL_COUNT_MAX + waiting;
        while waiting > 0 && calls_left > 0 {
            calls_left -= 1;
            let outcome = send(self.rings.as_fd(), &[], SendFlags::DONTWAIT);
            let left = self.rings.tx_waiting();
            match outcome {
                // In copy mode this one errno stands for one frame that the device dropped (net/xdp/xsk.c, "SKB completed
                // but not sent").
                Err(Errno::BUSY) if left < waiting => self.tally.refused += 1,
                Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::BUSY | Errno::NOBUFS | Errno::NOMEM) => {}
                Err(Errno::NETDOWN | Errno::NXIO) => break,
                Err(errno) => return Err(kick::gone(&self.interface, errno)),
            }
            if left == waiting {
                break;
            }
            waiting = left;
        }
        self.reap();
        Ok(if waiting == 0 { Flush::Done } else { Flush::Waiting })
    }

    /// Whether the kernel is done with all that was put.
    pub fn is_idle(&mut self) -> bool {
        self.reap();
        self.tally.done == self.tally.put
    }

    /// The counts so far.
    #[must_use]
    pub fn tally(&self) -> RawTally {
        self.tally
    }

    fn reap(&mut self) {
        let before = self.idle.len();
        // An address that the kernel made up stands for no frame, which then never comes back: it stays "not done".
        let _bogus = self.rings.reap(&mut self.idle);
        for frame in &mut self.idle[before..] {
            frame.set_window(self.rings.tx_window(frame.chunk()));
        }
        self.tally.done += (self.idle.len() - before) as u64;
    }
}
