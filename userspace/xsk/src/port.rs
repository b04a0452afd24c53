//! One queue. (API first; bodies follow.)
use crate::{Census, SocketStatistics};
use port::{Counters, Ecn, Flushed, Frame, Path, Port, Received, Sent};
use std::{io, os::fd::BorrowedFd};

/// The AF_XDP port of one queue.
pub struct XskPort {
    _private: (),
}

impl XskPort {
    /// The queue it serves.
    #[must_use]
    pub fn queue(&self) -> u32 {
        0
    }
    /// Whether `frame` came from this port.
    #[must_use]
    pub fn owns(&self, _frame: &Frame) -> bool {
        false
    }
    /// The kernel's counts for the socket.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn statistics(&self) -> io::Result<SocketStatistics> {
        Ok(SocketStatistics::default())
    }
    /// Where the frames are.
    pub fn census(&mut self) -> Census {
        Census::default()
    }
}

impl Port for XskPort {
    fn receive(&mut self, _burst: &mut Vec<Received>, _max: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn recycle(&mut self, _frame: Frame) {}
    fn send_room(&mut self) -> usize {
        0
    }
    fn send(
        &mut self,
        _path: &Path,
        _ecn: Option<Ecn>,
        _bytes: &[u8],
        _segment_bytes: Option<usize>,
    ) -> Sent {
        Sent::NoRoute
    }
    fn flush(&mut self) -> io::Result<Flushed> {
        Ok(Flushed::Idle)
    }
    fn poll_fd(&self) -> BorrowedFd<'_> {
        unreachable!("no port can be made yet")
    }
    fn segments_max(&self) -> usize {
        64
    }
    fn counters(&self) -> &Counters {
        unreachable!("no port can be made yet")
    }
}
