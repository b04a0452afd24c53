//! Ours, not ours, or malformed: what XDP decides about a frame.

use crate::{Counter, TargetKey};
use wire::{Bytes, headers::Headers};

/// The decision about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Redirect it to the socket of its queue; the kernel's UDP socket gets it when there is none.
    Ours,
    /// Pass it to the kernel, untouched, and count it so.
    NotOurs(Counter),
    /// It names us as its destination but can't be read: drop it, and count it so.
    Malformed(Counter),
}

/// Decides about a frame. `is_target` says whether an address and port are ours; it is asked at most once, and only
/// about UDP packets that aren't fragments.
///
/// A frame that ends before its destination port is not ours, whatever it might have become.
#[inline(always)]
pub fn verdict<B: Bytes + ?Sized>(frame: &B, is_target: impl FnOnce(&TargetKey) -> bool) -> Verdict {
    let headers = match Headers::read(frame) {
        Ok(headers) => headers,
        Err(reason) => return Verdict::NotOurs(reason.into()),
    };
    if !is_target(&TargetKey::from_headers(&headers)) {
        return Verdict::NotOurs(Counter::PassOtherTarget);
    }
    match headers.check(frame) {
        Ok(_) => Verdict::Ours,
        Err(reason) => Verdict::Malformed(reason.into()),
    }
}
