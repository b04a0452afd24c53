//! [`UdpPort`]: the two halves behind the [`Port`] trait.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use port::{
    Counters, Drop as Reason, Flushed, Frame, Place, Port, Received, Region, Reserved, Sealed, Sent, Transmit,
};
use quinn_udp::BATCH_SIZE;
use rustix::net::sockopt;
use socket2::Socket;

use crate::{
    BindError, Options, Stats,
    bind::open,
    drops,
    queue::Batch,
    rx::{FRAME_BYTES, Receiver},
    tx::{Count, Sender},
};

/// How soon `flush` is worth another try even if nobody watched the socket for writability.
const FLUSH_AGAIN: Duration = Duration::from_millis(10);

/// Frames that are sealed into at once: one for each transmit of a batch, or more where it is longer than a frame; what
/// finds none is kept for the next turn. Untouched pages cost nothing.
const TX_FRAME_COUNT: usize = 64;

/// One kernel UDP socket as a [`Port`].
///
/// Invariant: frames free here + frames the worker holds = [`Options::frame_count`].
pub struct UdpPort {
    socket: Socket,
    local: SocketAddr,
    rx: Receiver,
    tx: Sender,
    /// Frames to seal into; the kernel copies what is sent.
    tx_free: Vec<Frame>,
    /// Where the kernel counts what it drops.
    kernel: io::Result<drops::Table>,
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
            kernel: drops::Table::open(&socket, is_v6),
            socket,
            local,
            rx: Receiver::new(options.frame_count).map_err(|source| BindError::Other {
                address,
                step: "map memory for received datagrams",
                source,
            })?,
            tx: Sender::new(state, options.tx_queue_datagrams, is_v6),
            tx_free: Region::anonymous(FRAME_BYTES, TX_FRAME_COUNT).map_err(|source| BindError::Other {
                address,
                step: "map memory for datagrams to send",
                source,
            })?,
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

    /// Datagrams that the kernel dropped because the socket's buffer was full. For housekeeping: reads a table of
    /// `/proc` that was opened with the socket.
    ///
    /// # Errors
    /// If `/proc` was not readable or does not list the socket.
    pub fn kernel_drops(&self) -> io::Result<u64> {
        match &self.kernel {
            Ok(table) => table.drops(),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
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

    /// `NoRoute` for packets of another port: a worker may have several sockets.
    fn reserve(&mut self, transmit: &Transmit, frames: &mut Vec<Frame>) -> Reserved {
        if transmit.path.local.port() != self.local.port() {
            return Reserved::NoRoute;
        }
        if transmit.segment_bytes > FRAME_BYTES {
            self.counters.drops.add(Reason::TxTooBig, transmit.datagram_count() as u64);
            return Reserved::Dropped;
        }
        // As many whole datagrams in each as it holds.
        let frame_bytes = FRAME_BYTES / transmit.segment_bytes.max(1) * transmit.segment_bytes.max(1);
        let frame_count = transmit.size_bytes.div_ceil(frame_bytes).max(1);
        let Some(first) = self.tx_free.len().checked_sub(frame_count) else { return Reserved::Full };
        for (n, mut frame) in self.tx_free.drain(first..).enumerate() {
            frame.set_window(0..frame_bytes.min(transmit.size_bytes - n * frame_bytes));
            frames.push(frame);
        }
        Reserved::Frames
    }

    fn submit(&mut self, transmit: &Transmit, frames: &mut Vec<Sealed<Frame>>) -> Sent {
        let mut sent = Sent::Dropped;
        for frame in frames.drain(..) {
            let frame = frame.into_inner();
            let count = &mut Count { counters: &mut self.counters, stats: &mut self.stats };
            let batch = Batch::new(&frame, Some(transmit.segment_bytes));
            if self.tx.send(&self.socket, &transmit.path, transmit.ecn, batch, count) == Sent::Queued {
                sent = Sent::Queued;
            }
            self.release(frame);
        }
        sent
    }

    fn count_drop(&mut self, reason: Reason, datagram_count: usize) {
        self.counters.drops.add(reason, datagram_count as u64);
    }

    fn release(&mut self, frame: Frame) {
        self.tx_free.push(frame);
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

    fn place(&self) -> Place {
        Place::Socket { local: self.local }
    }

    fn kernel_drops(&self, each: &mut dyn FnMut(&'static str, u64)) {
        // Where /proc isn't to be read there is nothing to tell.
        each("udp_rx_buffer_full", UdpPort::kernel_drops(self).unwrap_or(0));
    }
}
