//! Packet protection in batches under an unmodified quinn-proto.
//!
//! quinn seals and opens packets one by one, in place, through keys that rustls makes. [`suites`] gives rustls our own
//! keys ([`keys`]), which do the same by ring, eagerly, unless the engine has told the thread otherwise ([`context`]):
//!
//! ```text
//!  out  engine: sealing { poll_transmit ─► keys: note the packet, leave it plain } ─► many transmits
//!       ─► Guard::protect, once for all of them, from quinn's buffers into the slots that the port gave
//!
//!  in   engine: burst ─► Mirror: whose keys? ─► masks, packet numbers, Guard::open into the buffers that quinn keeps
//!       ─► reading { handle_event ─► keys: quinn asks, the verdict is there }
//! ```
//!
//! What is deferred or run ahead: packets with a short header. Everything else is eager and always correct: long
//! headers, the first packet of a connection or of a key phase, whatever the mirror doesn't know, and a packet whose
//! number quinn decodes otherwise than we did (its ciphertext is put back first).
//!
//! What this relies on, all of quinn-proto 0.11.19 and asserted or refused at run time: a packet's `encrypt` is directly
//! followed by its header's; packets tile the transmit; nobody reads the ciphertext in between; a datagram that begins
//! with a short header is one packet.

mod ahead;
mod context;
mod directory;
mod keys;
mod mirror;
mod phases;
mod suites;

pub(crate) use ahead::{Ahead, Burst, short_cid};
pub(crate) use context::{Noted, Notes, Reading, Verdict, sealing};
pub use directory::Directory;
pub(crate) use mirror::{Cid, Mirror};
pub(crate) use phases::Phases;
pub(crate) use suites::suites;

use simd::Level;

#[cfg(test)]
mod tests;

/// How an engine protects its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Packet by packet with ring, in place, when quinn asks.
    Eager,
    /// In batches at this level.
    Batched(Level),
}

impl Protection {
    /// In batches at this level; ring's is no level to batch for.
    #[must_use]
    pub fn at(level: Level) -> Self {
        if level == Level::RING { Self::Eager } else { Self::Batched(level) }
    }
}

impl Default for Protection {
    /// In batches, at the best level that this CPU has.
    fn default() -> Self {
        Self::at(Level::best())
    }
}
