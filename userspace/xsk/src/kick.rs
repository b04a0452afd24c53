//! What the kernel's answer to a wake-up means. The one place where the errno of a data-path call is judged.

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use std::{io, os::fd::BorrowedFd};

/// What a call on an AF_XDP socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kick {
    /// Done, or as much as one call does (copy mode moves at most 32 descriptors, then says EAGAIN).
    Moved,
    /// Out of something that comes back by itself: socket buffer, driver, completion ring.
    Busy,
    /// The link is down, or the driver has its queues torn down to set them up anew: it may come up again. Whether
    /// the interface is gone for good is for rtnetlink to say.
    Down,
    /// The socket itself is broken.
    Gone(Errno),
}

/// Judges an errno.
pub(crate) fn classify(result: Result<(), Errno>) -> Kick {
    match result {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Kick::Moved,
        // EBUSY: the driver's queue, or a qdisc that dropped; ENOBUFS, ENOMEM: no memory for an skb just now;
        // EMSGSIZE, EOVERFLOW, EINVAL: the descriptor at hand was refused and skipped (its frame is completed).
        Err(
            Errno::BUSY
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::MSGSIZE
            | Errno::OVERFLOW
            | Errno::INVAL
            | Errno::IO,
        ) => Kick::Busy,
        // ENETDOWN: not up (net/xdp/xsk.c, xsk_check_common), or a driver that resets (igb_xsk_wakeup and its like).
        // ENXIO and ENODEV: not bound (xsk_check_common), which is for good only after an NETDEV_UNREGISTER; but before
        // Linux 5.19 drivers also said ENXIO of a queue whose XDP was off or whose pool was away for the time of a
        // reset. They say EINVAL now, above.
        Err(Errno::NETDOWN | Errno::NXIO | Errno::NODEV) => Kick::Down,
        Err(errno) => Kick::Gone(errno),
    }
}

/// Tells the kernel of TX descriptors.
pub(crate) fn transmit(socket: BorrowedFd<'_>) -> Kick {
    classify(send(socket, &[], SendFlags::DONTWAIT).map(drop))
}

/// Runs the NIC's receive path from here (busy polling).
pub(crate) fn busy_poll(socket: BorrowedFd<'_>) -> Kick {
    let mut nothing = [0u8; 0];
    classify(recv(socket, &mut nothing, RecvFlags::DONTWAIT).map(drop))
}

/// The error that a port returns once it is broken for good.
pub(crate) fn gone(interface: &str, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    let text = format!(
        "the AF_XDP socket on {interface} is gone for good ({error}): the interface was removed, or its driver was. Once \
         `ip link show {interface}` shows it again, start beam again"
    );
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    //! Goal: only a broken socket breaks a port; a device that resets, or is gone, doesn't.
    use super::*;

    #[test]
    fn errnos() {
        assert_eq!(classify(Ok(())), Kick::Moved);
        assert_eq!(classify(Err(Errno::AGAIN)), Kick::Moved);
        for errno in [Errno::BUSY, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(classify(Err(errno)), Kick::Busy);
        }
        for errno in [Errno::NETDOWN, Errno::NXIO, Errno::NODEV] {
            assert_eq!(classify(Err(errno)), Kick::Down);
        }
        assert_eq!(classify(Err(Errno::BADF)), Kick::Gone(Errno::BADF));
    }
}
