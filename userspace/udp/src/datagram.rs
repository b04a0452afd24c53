//! A UDP socket for payloads that a tunnel carries: many datagrams a system call, either way.
//!
//! ```text
//!  kernel ──recvmmsg, GRO──► scratch (one a worker) ──► take(path, payload), datagram by datagram
//!  kernel ◄──sendmsg, GSO── run of payloads of one size ◄── the caller
//! ```
//!
//! Unlike [`UdpPort`](crate::UdpPort) it carries no QUIC: what it reads is copied out at once behind whatever header the
//! caller needs, so no frame leaves it. Payloads are never fragmented: "In IPv4, the DF bit MUST be set, if possible, to
//! prevent fragmentation on the path" (RFC 9298 section 5). ICMP errors are queued by the kernel and read with
//! [`DatagramSocket::next_trouble`].

use quinn_udp::{RecvMeta, Transmit, TransportErrorPayload, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

/// Largest message of the kernel, GRO or not.
const MESSAGE_BYTES_MAX: usize = 65_535;
/// Messages of one recvmmsg: up to 64 datagrams each.
const MESSAGES_MAX: usize = 8;
/// Wanted for each socket; the kernel gives `net.core.rmem_max` at most.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// Buffers for [`DatagramSocket::receive`], shared by the sockets of a worker: 512 KiB, of which only pages that were
/// needed are resident.
pub struct Scratch {
    bytes: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { bytes: vec![0; MESSAGES_MAX * MESSAGE_BYTES_MAX] }
    }
}

/// The two ends of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sent it, or is to get it.
    pub remote: SocketAddr,
    /// Which address of ours it was sent to, or is to come from; `None` leaves it to the kernel.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for Ends {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// What one [`DatagramSocket::receive`] brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many.
    pub datagrams: usize,
    /// There were no more; the next one makes the socket readable anew.
    pub drained: bool,
}

/// What the network said of a datagram that was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens on the port (ICMP port unreachable).
    Refused,
    /// The host or network can't be reached, or a filter forbids it; may pass.
    Unreachable,
    /// It exceeds the MTU of a link on the way.
    TooBig,
    /// Anything else.
    Other,
}

/// What became of a run of datagrams.
#[derive(Debug)]
pub enum Sent {
    /// The kernel took them.
    Taken,
    /// The socket's buffer is full: nothing was taken.
    Full,
    /// They exceed the MTU of the interface: none was taken.
    TooBig,
    /// None was taken.
    Failed(io::Error),
}

/// See the module.
pub struct DatagramSocket {
    socket: Socket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl DatagramSocket {
    /// A socket that exchanges datagrams with `remote` alone.
    ///
    /// # Errors
    /// What the kernel says, such as ENETUNREACH or EMFILE.
    pub fn connected(remote: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(remote), Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
        socket.connect(&remote.into())?;
        let this = Self::from_socket(socket)?;
        this.state.enable_transport_errors(UdpSockRef::from(&this.socket))?;
        Ok(this)
    }

    /// A socket on `local` that whoever reaches it may send to.
    ///
    /// # Errors
    /// What the kernel says, such as EADDRINUSE.
    pub fn bound(local: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
        if local.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&local.into())?;
        Self::from_socket(socket)
    }

    fn from_socket(socket: Socket) -> io::Result<Self> {
        // A larger buffer is better, and none is needed.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { socket, state, local })
    }

    /// The address that it is bound to.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Reads one batch, and hands each datagram and its ends to `take`.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; else what the kernel says, after which the socket can be read again.
    pub fn receive(&self, scratch: &mut Scratch, take: &mut dyn FnMut(Ends, &[u8])) -> io::Result<Received> {
        let mut metas = [RecvMeta::default(); MESSAGES_MAX];
        let mut chunks = scratch.bytes.chunks_exact_mut(MESSAGE_BYTES_MAX);
        let mut buffers: [IoSliceMut<'_>; MESSAGES_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let messages = self.state.recv(UdpSockRef::from(&self.socket), &mut buffers, &mut metas)?;
        let mut datagrams = 0;
        for (meta, buffer) in metas.iter().zip(&buffers).take(messages) {
            let message = &buffer[..meta.len.min(buffer.len())];
            let ends = Ends { remote: meta.addr, local: meta.dst_ip };
            // A datagram of no bytes is one, too.
            if message.is_empty() {
                take(ends, message);
                datagrams += 1;
            }
            for datagram in message.chunks(meta.stride.max(1)) {
                take(ends, datagram);
                datagrams += 1;
            }
        }
        Ok(Received { datagrams, drained: messages < MESSAGES_MAX })
    }

    /// Datagrams that one [`Self::send`] may carry, if each has `size_bytes`.
    #[must_use]
    pub fn run_len_max(&self, size_bytes: usize) -> usize {
        match size_bytes {
            0 => 1,
            size => self.state.max_gso_segments().min(MESSAGE_BYTES_MAX / size).max(1),
        }
    }

    /// Sends `contents` between `ends`, cut into datagrams of `segment_bytes`, of which the last may be shorter.
    pub fn send(&self, ends: impl Into<Ends>, contents: &[u8], segment_bytes: usize) -> Sent {
        let Ends { remote: destination, local: src_ip } = ends.into();
        let segment_size = (segment_bytes < contents.len()).then_some(segment_bytes);
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            Ok(()) => Sent::Taken,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => Sent::Full,
                Some(Errno::MSGSIZE) => Sent::TooBig,
                _ => Sent::Failed(error),
            },
        }
    }

    /// The next ICMP error about a datagram that a [connected](Self::connected) socket sent.
    pub fn next_trouble(&self) -> Option<Trouble> {
        let error = self.state.recv_transport_error(UdpSockRef::from(&self.socket)).ok()??;
        Some(match (error.payload, Errno::from_raw_os_error(error.raw_errno)) {
            (_, Errno::CONNREFUSED) => Trouble::Refused,
            (TransportErrorPayload::TooBig { .. }, _) | (_, Errno::MSGSIZE) => Trouble::TooBig,
            (TransportErrorPayload::Unreachable, _) | (_, Errno::HOSTUNREACH | Errno::NETUNREACH) => {
                Trouble::Unreachable
            }
            _ => Trouble::Other,
        })
    }

    /// Takes the error that the socket holds, if any, so that it does not fail the next call.
    pub fn clear_error(&self) {
        let _ = self.socket.take_error();
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each datagram arrives once, as it was sent, whatever the kernel joined on its way; and a closed port is told.
    //! Method: real sockets on loopback; GRO is on at the receiver, GSO at the sender.
    use super::*;

    const LOCAL: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

    fn receive_all(socket: &DatagramSocket, want: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut scratch = Scratch::default();
        let mut all = Vec::new();
        while all.len() < want {
            rustix::event::poll(
                &mut [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)],
                Some(&rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 }),
            )
            .unwrap();
            socket
                .receive(&mut scratch, &mut |ends, payload| all.push((ends.remote, payload.to_vec())))
                .unwrap();
        }
        all
    }

    #[test]
    fn runs_and_single_datagrams_arrive_as_they_were() {
        for local in LOCAL {
            let at = DatagramSocket::bound(local.parse().unwrap()).unwrap();
            let from = DatagramSocket::connected(at.local()).unwrap();
            let run: Vec<u8> = (0..10 * 1200 + 7).map(|i| (i / 1200) as u8).collect();
            assert!(from.run_len_max(1200) >= 11, "this kernel has no UDP GSO");
            assert!(matches!(from.send(at.local(), &run, 1200), Sent::Taken));
            for single in [&[][..], b"x", &[7; 9000]] {
                assert!(matches!(from.send(at.local(), single, single.len()), Sent::Taken));
            }
            let mut want: Vec<Vec<u8>> = run.chunks(1200).map(<[u8]>::to_vec).collect();
            want.extend([Vec::new(), b"x".to_vec(), vec![7; 9000]]);
            let got = receive_all(&at, want.len());
            assert!(got.iter().all(|(sender, _)| *sender == from.local()), "{local}");
            assert_eq!(got.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), want, "{local}");
        }
    }

    #[test]
    fn a_closed_port_is_told_and_the_socket_lives_on() {
        for local in LOCAL {
            let closed = DatagramSocket::bound(local.parse().unwrap()).unwrap().local();
            let from = DatagramSocket::connected(closed).unwrap();
            assert!(matches!(from.send(closed, b"x", 1), Sent::Taken));
            assert_eq!(from.next_trouble(), Some(Trouble::Refused), "{local}");
            assert_eq!(from.next_trouble(), None);
            from.clear_error();
            let at = DatagramSocket::bound(closed).unwrap();
            assert!(matches!(from.send(closed, b"y", 1), Sent::Taken));
            assert_eq!(receive_all(&at, 1), [(from.local(), b"y".to_vec())]);
        }
    }

    #[test]
    fn what_exceeds_the_interface_is_refused_and_not_fragmented() {
        let at = DatagramSocket::bound(LOCAL[0].parse().unwrap()).unwrap();
        let from = DatagramSocket::connected(at.local()).unwrap();
        // Loopback has an MTU of 65,536 and so takes the longest payload there is.
        assert!(matches!(from.send(at.local(), &[0; 65_507], 65_507), Sent::Taken));
        assert!(matches!(from.send(at.local(), &[0; 65_508], 65_508), Sent::TooBig));
    }
}
