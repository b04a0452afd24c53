//! What the kernel knows about the way to the gateway: which source address it leads from, and that something about it
//! may have changed.
//!
//! A laptop changes its network, a DHCP lease ends, a route moves: QUIC carries a connection over to the new path, if only
//! a packet is sent there. A client that waits for its next keep-alive would be deaf meanwhile.

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
        socket_with,
    },
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// rtnetlink multicast groups, as bits (linux/rtnetlink.h): links, IPv4 and IPv6 addresses and routes.
const GROUPS: u32 = 1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Events taken at once; what is left wakes the worker again.
const DRAIN_MAX: usize = 256;

/// Tells of changes of this host's links, addresses and routes; of which ones, it doesn't say.
pub(super) struct Changes(OwnedFd);

impl Changes {
    /// In the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is protocol 0: NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// Takes what has come. True if something has.
    pub(super) fn drain(&self) -> bool {
        let mut any = false;
        for _ in 0..DRAIN_MAX {
            // A datagram is cut to one byte: that it came says it all. Events that found no room (ENOBUFS) are events.
            match recv(&self.0, &mut [0; 1], RecvFlags::empty()) {
                Ok(_) | Err(Errno::NOBUFS) => any = true,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        any
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The source address of packets to `remote`, by the kernel's routes.
pub(crate) fn source_towards(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Sends nothing: the kernel looks up the route and the source address.
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    //! Goal: the kernel's answer for a destination that every host has. The rest needs a namespace: `tests/living.rs`.
    use super::*;

    #[test]
    fn loopback_is_reached_from_loopback() {
        let source = source_towards("127.0.0.1:9".parse().unwrap()).unwrap();
        assert_eq!(source, IpAddr::from(Ipv4Addr::LOCALHOST));
    }
}
