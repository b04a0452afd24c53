//! The family `ethtool` (linux/ethtool_netlink.h): news of settings that change. The settings themselves are read by
//! [`crate::ethtool`].

use super::{BUFFER_BYTES, Questions};
use netlink_sys::{Socket, protocols::NETLINK_GENERIC};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// Hears when anybody changes an interface's settings by ethtool: rtnetlink says nothing of a change of the channels.
pub(crate) struct SettingsEvents {
    socket: Socket,
    buffer: Vec<u8>,
}

impl SettingsEvents {
    /// In the network namespace of the calling thread. Fails where the kernel has no ethtool netlink.
    pub(crate) fn open() -> io::Result<Self> {
        let family = Questions::open()?.family("ethtool")?;
        let monitor = family.groups.iter().find(|(name, _)| name == b"monitor");
        let &(_, group) = monitor.ok_or_else(|| io::Error::other("ethtool netlink has no group monitor"))?;
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.add_membership(group)?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Takes all events. True if there were any; which ones doesn't matter, for they are rare and what they are about
    /// is read anew.
    pub(crate) fn drain(&mut self) -> io::Result<bool> {
        let mut any = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Events were lost: so there were some.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for SettingsEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the group that the events come by is found.
    use super::*;

    #[test]
    fn the_kernel_knows_ethtools_monitor_group() {
        let family = Questions::open().unwrap().family("ethtool").unwrap();
        assert!(family.id > 16);
        assert!(family.groups.iter().any(|(name, id)| name == b"monitor" && *id > 0), "{:?}", family.groups);
        assert!(!SettingsEvents::open().unwrap().drain().unwrap());
    }
}
