//! [`UdpPort`]: the two halves behind the [`Port`] trait.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use port::{Counters, Ecn, Flushed, Frame, Port, Received, Sent};
use quinn_udp::BATCH_SIZE;
use rustix::net::sockopt;
use socket2::Socket;
use wire::Path;

use crate::{
    BindError, Options, Stats,
    bind::open,
    drops,
    queue::Batch,
    rx::Receiver,
    tx::{Count, Sender},
};

/// How soon `flush` is worth another try even if nobody watched the socket for writability.
const FLUSH_AGAIN: Duration = Duration::from_millis(10);

/// One kernel UDP socket as a [`Port`].
///
/// Invariant: frames free here + frames the worker holds = [`Options::frame_count`].
pub struct UdpPort {
    socket: Socket,
    local: SocketAddr,
    rx: Receiver,
    tx: Sender,
    counters: Counters,
    stats: Stats,
}

impl UdpPort {
    /// Binds a UDP socket and readies it for QUIC.
    ///
    /// # Errors
    /// [`BindError`], which says what to do.
    pub fn bind(address: SocketAddr, options: Options) -> Result<Self, BindError> {
        let (socket, state, local) = open(address, &options)?;
        let is_v6 = local.is_ipv6();
        Ok(Self {
            socket,
            local,
            rx: Receiver::new(options.frame_count).map_err(|source| BindError::Other {
                address,
                step: "map memory for received datagrams",
                source,
            })?,
            tx: Sender::new(state, options.tx_queue_datagrams, is_v6),
            counters: Counters::default(),
            stats: Stats::default(),
        })
    }

    /// The address the socket is bound to; the IP may be unspecified.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Counters beyond those of every port.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Datagrams that wait inside the port for the socket to take them.
    #[must_use]
    pub fn tx_queued(&self) -> usize {
        self.tx.queued()
    }

    /// Frames that could receive now.
    #[must_use]
    pub fn free_frames(&self) -> usize {
        self.rx.free_frames()
    }

    /// Datagrams that the kernel dropped because the socket's buffer was full. For housekeeping: reads a table in
    /// `/proc`. Call it from a thread in the network namespace that the socket was opened in.
    ///
    /// # Errors
    /// If `/proc` is not readable or does not list the socket.
    pub fn kernel_drops(&self) -> io::Result<u64> {
        drops::of_socket(self.socket.as_fd(), self.local.is_ipv6())
    }

    /// The kernel's receive and send buffer in bytes, as it accounts them (twice what was granted).
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn kernel_buffer_bytes(&self) -> io::Result<(usize, usize)> {
        Ok((sockopt::socket_recv_buffer_size(&self.socket)?, sockopt::socket_send_buffer_size(&self.socket)?))
    }
}

impl AsFd for UdpPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Port for UdpPort {
    fn receive(&mut self, burst: &mut Vec<Received>, max: usize) -> io::Result<usize> {
        let mut delivered = 0;
        // One round more than full batches need, for those that hold discards: a flood of them cannot keep us here.
        for _ in 0..=max.div_ceil(BATCH_SIZE) {
            if delivered == max {
                break;
            }
            let batch = self.rx.receive_once(
                (&self.socket, self.tx.state()),
                self.local,
                burst,
                max - delivered,
                &mut Count { counters: &mut self.counters, stats: &mut self.stats },
            )?;
            delivered += batch.delivered;
            if !batch.more {
                break;
            }
        }
        self.counters.rx_bursts += u64::from(delivered > 0);
        Ok(delivered)
    }

    fn recycle(&mut self, frame: Frame) {
        self.rx.recycle(frame, &mut self.stats);
    }

    fn send_room(&mut self) -> usize {
        self.tx.room()
    }

    fn send(&mut self, path: &Path, ecn: Option<Ecn>, bytes: &[u8], segment_bytes: Option<usize>) -> Sent {
        let count = &mut Count { counters: &mut self.counters, stats: &mut self.stats };
        self.tx.send(&self.socket, path, ecn, Batch::new(bytes, segment_bytes), count)
    }

    /// `Again` while datagrams wait for the socket: [`Port::wants_writable`] is true too, and whichever comes first is
    /// the time to flush.
    fn flush(&mut self) -> io::Result<Flushed> {
        let count = &mut Count { counters: &mut self.counters, stats: &mut self.stats };
        self.tx.flush(&self.socket, count);
        Ok(if self.tx.queued() == 0 { Flushed::Idle } else { Flushed::Again(FLUSH_AGAIN) })
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn wants_writable(&self) -> bool {
        self.tx.queued() > 0
    }

    fn segments_max(&self) -> usize {
        self.tx.segments_max()
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn kernel_drops(&self, each: &mut dyn FnMut(&'static str, u64)) {
        // Where /proc isn't to be read there is nothing to tell.
        each("udp_rx_buffer_full", UdpPort::kernel_drops(self).unwrap_or(0));
    }
}
