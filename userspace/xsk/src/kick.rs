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
    /// The link is down: it may come up again.
    LinkDown,
    /// The socket isn't bound any more, because its interface is gone.
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
        Err(Errno::NETDOWN) => Kick::LinkDown,
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
pub(crate) fn gone(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    //! Goal: only an unbound socket breaks a port.
    use super::*;

    #[test]
    fn errnos() {
        assert_eq!(classify(Ok(())), Kick::Moved);
        assert_eq!(classify(Err(Errno::AGAIN)), Kick::Moved);
        for errno in [Errno::BUSY, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(classify(Err(errno)), Kick::Busy);
        }
        assert_eq!(classify(Err(Errno::NETDOWN)), Kick::LinkDown);
        for errno in [Errno::NXIO, Errno::NODEV, Errno::BADF] {
            assert_eq!(classify(Err(errno)), Kick::Gone(errno));
        }
    }
}
