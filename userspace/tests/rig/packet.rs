//! A socket for whole Ethernet frames of one interface. The tests of `xsk` include this file too.

use std::{
    ffi::CStr,
    fs::File,
    io::Error,
    os::fd::{AsRawFd as _, FromRawFd as _},
};

/// One that only sends, in the network namespace of the calling thread.
pub(crate) fn socket(interface: &CStr) -> File {
    bound(interface, 0)
}

/// One that also gets what comes in of a protocol, by its EtherType.
#[allow(unsafe_code, reason = "no safe crate binds a packet socket to an interface")]
pub(crate) fn bound(interface: &CStr, ethertype: u16) -> File {
    // SAFETY: the name is a C string.
    let index = unsafe { libc::if_nametoindex(interface.as_ptr()) };
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
    assert!(fd >= 0, "a packet socket: {}", Error::last_os_error());
    // SAFETY: the descriptor was made just now and is nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    // SAFETY: zeroes are a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index as i32;
    let length = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the address is a local of that length.
    let bound = unsafe { libc::bind(file.as_raw_fd(), (&raw const address).cast(), length) };
    assert_eq!(bound, 0, "bind to {interface:?}: {}", Error::last_os_error());
    file
}
