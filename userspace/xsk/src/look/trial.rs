//! Trials: does the kernel take what beam is about to ask for? Nothing stays.
//!
//! A socket is bound without any XDP program, so no packet can be redirected into it, and its queue goes on serving the
//! kernel. In copy mode the driver isn't even told (`xp_assign_dev` returns before it asks). Zero-copy hands the driver
//! a buffer pool: whether it touches its queue for that while no program runs is the driver's own affair, so the caller
//! decides ([`crate::look`] doesn't) and never tries where a program or a socket already is.

use crate::{Config, OpenError, attach::Program, bind::TrialSocket};
use std::io;

/// What came of a trial.
#[derive(Debug)]
pub enum Trial {
    /// It bound; XDP_OPTIONS says whether without copies.
    Bound {
        /// As read back.
        zero_copy: bool,
    },
    /// The queue has a socket already.
    Taken,
    /// The kernel refused.
    Refused(io::Error),
}

/// Binds a small socket to one queue and closes it again.
///
/// # Errors
/// The UMEM can't be made: capability, locked memory, or no XDP sockets in this kernel.
pub fn trial(interface: &str, queue: u32, zero_copy: bool) -> Result<Trial, OpenError> {
    const RING_SIZE: u32 = 64;
    let frame_bytes = Config::new(interface).frame_bytes;
    let config = Config {
        ring_size: RING_SIZE,
        umem_bytes: (RING_SIZE * frame_bytes) as usize,
        ..Config::new(interface)
    };
    config.check()?;
    Ok(match TrialSocket::bind(&config, queue, zero_copy)? {
        Ok(socket) => match socket.is_zero_copy() {
            Ok(zero_copy) => Trial::Bound { zero_copy },
            Err(error) => Trial::Refused(error),
        },
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Trial::Taken,
        Err(error) => Trial::Refused(error),
    })
}

/// Has the kernel's verifier look at the steering program, and unloads it again: whether it was compiled to machine code.
///
/// # Errors
/// What the verifier or the loader said.
pub fn program_loads() -> Result<bool, OpenError> {
    Program::load(steer::PROGRAM)?.is_jitted()
}
