//! The `ioctl`s of a TUN device (linux/if_tun.h), which no crate here wraps. Each is one `unsafe` block with its reason.
#![expect(unsafe_code, reason = "TUNSETIFF, TUNSETOFFLOAD")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Bytes of an interface's name, with the zero behind it.
pub(crate) const NAME_BYTES: usize = libc::IFNAMSIZ;

/// `struct ifreq` of linux/if.h as TUNSETIFF uses it: the name, the flags, and the rest of the union (24 bytes in all).
#[repr(C)]
struct Request {
    name: [u8; NAME_BYTES],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// Makes a descriptor of `/dev/net/tun` a queue of the device `name`.
pub(crate) fn attach(fd: BorrowedFd<'_>, name: &[u8; NAME_BYTES], flags: u16) -> io::Result<()> {
    let mut request = Request { name: *name, flags, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`; `request` has its size and layout, and outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Says what the reader of this device can do by itself: checksums, segmentation.
pub(crate) fn set_offloads(fd: BorrowedFd<'_>, offloads: u32) -> io::Result<()> {
    let argument: libc::c_ulong = offloads.into();
    // SAFETY: TUNSETOFFLOAD takes its flags by value and touches no memory of ours.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
