//! The one question to landlock that its crate doesn't ask for others.
#![expect(unsafe_code, reason = "landlock_create_ruleset")]

use std::io;

/// linux/landlock.h: tells the version, makes nothing.
const CREATE_RULESET_VERSION: u32 = 1;

/// The ABI that the kernel has.
pub(crate) fn landlock_abi() -> io::Result<i32> {
    let (no_attributes, no_bytes) = (std::ptr::null::<u8>(), 0_usize);
    // SAFETY: with this flag no memory is read, and no descriptor is made.
    let abi = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, no_attributes, no_bytes, CREATE_RULESET_VERSION)
    };
    if abi < 0 { Err(io::Error::last_os_error()) } else { Ok(abi as i32) }
}
