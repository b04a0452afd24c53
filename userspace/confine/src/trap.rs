//! What a forbidden call ends with: a message that names the call and the thread, then death by SIGSYS.
//!
//! The filters answer a forbidden call with SIGSYS (`SECCOMP_RET_TRAP`); the call isn't made. The handler does only what is
//! safe in a signal handler: it formats into a buffer on its stack, writes to standard error and raises the signal again,
//! which isn't handled then.
#![expect(unsafe_code, reason = "sigaction, siginfo's part for SIGSYS, tgkill")]

use crate::names;
use std::{
    ffi::{c_int, c_long, c_void},
    io, mem, ptr,
};

/// Installs the handler for this process.
pub(crate) fn explain_forbidden_calls() -> io::Result<()> {
    // SAFETY: all fields of a `sigaction` may be zero: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = forbidden;
    action.sa_sigaction = handler as libc::sighandler_t;
    // Back to the default first: what is raised in the handler then ends the process, and so would a second such call.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_NODEFER;
    // SAFETY: `action` is initialized and outlives the call; the handler has SA_SIGINFO's signature.
    let result = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `siginfo_t` as SIGSYS fills it (siginfo_layout.h); libc has no names for its last three fields.
#[repr(C)]
struct OfSigsys {
    signal: c_int,
    errno: c_int,
    code: c_int,
    // The union begins at the alignment of a pointer.
    address: *mut c_void,
    call: c_int,
    arch: u32,
}

const _: () = assert!(size_of::<OfSigsys>() <= size_of::<libc::siginfo_t>());
const _: () = assert!(mem::offset_of!(OfSigsys, address) == 16);

extern "C" fn forbidden(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a siginfo of SIGSYS, which has this layout, for as long as the handler runs.
    let call = unsafe { (*info.cast::<OfSigsys>()).call };
    let mut line = Line::default();
    line.add(b"beam: thread ");
    // TASK_COMM_LEN: 15 bytes and a zero.
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes 16 bytes at most.
    let _ = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    line.add(&name[..length]);
    line.add(b" made the system call ");
    line.add(names::name(c_long::from(call)).unwrap_or("(unknown)").as_bytes());
    line.add(b" (");
    line.add_number(call.unsigned_abs());
    line.add(
        b"), which its seccomp filter forbids, and so the process ends here. Either beam has a bug (please report this \
          line; --sandbox off runs without the filter meanwhile), or somebody has taken the thread over\n",
    );
    // SAFETY: the buffer is as long as is said.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length) };
    // SAFETY: no memory is passed.
    let pid = unsafe { libc::getpid() };
    // SAFETY: no memory is passed.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    // SAFETY: no memory is passed; the signal has its default action again, which ends the process.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGSYS) };
}

/// Text in a fixed buffer; what doesn't fit is cut.
struct Line {
    bytes: [u8; 512],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 512], length: 0 }
    }
}

impl Line {
    fn add(&mut self, text: &[u8]) {
        for &byte in text {
            let Some(place) = self.bytes.get_mut(self.length) else { return };
            *place = byte;
            self.length += 1;
        }
    }

    fn add_number(&mut self, mut number: u32) {
        let mut digits = [0; 10];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.add(&digits[first..]);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the line is what it should be, and is cut where it is too long. That the handler writes it: `tests/`.
    use super::*;

    #[test]
    fn lines() {
        let mut line = Line::default();
        line.add(b"call ");
        line.add_number(0);
        line.add(b" ");
        line.add_number(u32::MAX);
        assert_eq!(&line.bytes[..line.length], b"call 0 4294967295");
        line.add(&[b'x'; 1000]);
        assert_eq!(line.length, 512);
    }
}
