//! Making a device: one descriptor for each queue.

use crate::{
    error::TunError,
    network::Network,
    queue::Queue,
    sys::{self, NAME_BYTES},
};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{io, os::fd::AsFd};

/// Queues of one device (the kernel's MAX_TAP_QUEUES).
const QUEUES_MAX: usize = 256;

/// A TUN device that was just made: it is down and has no address.
#[derive(Debug)]
pub struct Device {
    /// Its queues, as many as were asked for. The device lives until the last of them is dropped.
    pub queues: Vec<Queue>,
    /// For MTU, addresses and routes.
    pub network: Network,
}

impl Device {
    /// Makes the device `name`, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// With what to do next.
    pub fn create(name: &str, queue_count: usize) -> Result<Self, TunError> {
        let bytes = name_bytes(name)?;
        let mut queues = Vec::new();
        for index in 0..queue_count.clamp(1, QUEUES_MAX) {
            queues.push(open_queue(name, &bytes, index == 0)?);
        }
        let network = Network::of(name).map_err(|error| refused(name, "rtnetlink", error))?;
        if let Some(first) = queues.first_mut() {
            first.speak_for(network.index());
        }
        Ok(Self { queues, network })
    }
}

fn open_queue(name: &str, bytes: &[u8; NAME_BYTES], first: bool) -> Result<Queue, TunError> {
    let open =
        rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let fd = open.map_err(|errno| match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => TunError::NoDriver,
        other => TunError::Permission { name: name.into(), error: other.into() },
    })?;
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    if first {
        // Else an existing device would be joined, whoever's it is.
        flags |= libc::IFF_TUN_EXCL;
    }
    sys::attach(fd.as_fd(), bytes, flags as u16).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => TunError::Permission { name: name.into(), error },
        Some(Errno::BUSY | Errno::EXIST) => TunError::NameTaken { name: name.into() },
        // The name belongs to an interface of another kind.
        Some(Errno::INVAL) if first => TunError::NameTaken { name: name.into() },
        _ => refused(name, "TUNSETIFF", error),
    })?;
    let base = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // UDP segmentation came with Linux 6.2, in both directions.
    let takes_udp = sys::set_offloads(fd.as_fd(), base | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_ok();
    if !takes_udp {
        sys::set_offloads(fd.as_fd(), base).map_err(|error| refused(name, "TUNSETOFFLOAD", error))?;
    }
    Ok(Queue::new(fd, name, takes_udp))
}

fn refused(name: &str, what: &'static str, error: io::Error) -> TunError {
    TunError::Refused { name: name.into(), what, error }
}

/// A name as the kernel takes it. (`%` is a pattern to the kernel: it would choose a number.)
fn name_bytes(name: &str) -> Result<[u8; NAME_BYTES], TunError> {
    let bad = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b':' | b'%' | 0);
    if name.is_empty()
        || name.len() >= NAME_BYTES
        || name.as_bytes().iter().any(bad)
        || matches!(name, "." | "..")
    {
        return Err(TunError::NameInvalid { name: name.into() });
    }
    let mut bytes = [0; NAME_BYTES];
    for (to, from) in bytes.iter_mut().zip(name.as_bytes()) {
        *to = *from;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    //! Goal: only names that the kernel takes as they are get to it.
    use super::*;

    #[test]
    fn names() {
        assert_eq!(&name_bytes("beam0").unwrap()[..6], b"beam0\0");
        assert!(name_bytes("fifteen-letters").is_ok());
        for bad in ["", "sixteen-letters!", "a b", "a/b", ".", "..", "tun%d", "a:b", "nul\0"] {
            assert!(matches!(name_bytes(bad), Err(TunError::NameInvalid { .. })), "{bad}");
        }
    }
}
