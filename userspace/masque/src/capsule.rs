//! The capsule protocol (RFC 9297 section 3): what a tunnel's stream carries between the ends of a MASQUE request.
//!
//! ```text
//!  Item::Data (Bytes) ─► Capsules::push ─► next ─► Datagram(slice of the chunk) · AddressAssign · ... · Accept · Close
//!                                            └─ other types and too long datagrams: skipped as they arrive, counted
//!
//!  Capsule::data_frame ──► one DATA frame with one capsule, for control
//!  write_datagram_capsule_before ──► DATA, capsule and context right in front of a payload: one chunk for QUIC
//! ```

mod reader;
#[cfg(test)]
mod tests;
mod write;

pub use reader::Capsules;
pub use write::{
    CAPSULE_PREFIX_BYTES_MAX, datagram_capsule_frame, write_datagram_capsule_before,
    write_datagram_capsule_header,
};

use crate::{
    Code, Scope,
    addresses::{AddressAssign, AddressRequest},
    listen::{Accept, Close},
    routes::RouteAdvertisement,
};
use bytes::Bytes;

pub(crate) const DATAGRAM: u64 = 0x00;
pub(crate) const ADDRESS_ASSIGN: u64 = 0x01;
pub(crate) const ADDRESS_REQUEST: u64 = 0x02;
pub(crate) const ROUTE_ADVERTISEMENT: u64 = 0x03;
/// Ours, see [`crate::listen`]. No registered type, and none of those that peers send only to be ignored.
pub(crate) const BEAM_ACCEPT: u64 = 0x1bea_0001;
/// Ours, see [`crate::listen`].
pub(crate) const BEAM_CLOSE: u64 = 0x1bea_0002;

/// "Capsule types of the form 0x29 * N + 0x17 for integer values of N are reserved" (RFC 9297 section 5.4).
const fn is_reserved(kind: u64) -> bool {
    kind >= 0x17 && (kind - 0x17).is_multiple_of(0x29)
}

const _: () = assert!(!is_reserved(BEAM_ACCEPT) && !is_reserved(BEAM_CLOSE));

/// What the capsules of a stream mean depends on its `:protocol`; those of another one are unknown to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapsuleSet {
    /// `connect-udp`: datagrams alone.
    Udp,
    /// `connect-ip`: datagrams, addresses and routes.
    Ip,
    /// `beam-listen`: datagrams, accept and close.
    Listen,
}

impl CapsuleSet {
    fn has_control(self, kind: u64) -> bool {
        match self {
            Self::Udp => false,
            Self::Ip => matches!(kind, ADDRESS_ASSIGN | ADDRESS_REQUEST | ROUTE_ADVERTISEMENT),
            Self::Listen => matches!(kind, BEAM_ACCEPT | BEAM_CLOSE),
        }
    }
}

/// Bounds of a [`Capsules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapsuleLimits {
    /// The longest payload of a DATAGRAM capsule, context id included. A longer one is skipped and counted: "the
    /// receiver SHOULD discard that capsule without buffering the capsule contents"; in context 0 of `connect-udp` it
    /// ends the stream (RFC 9298 section 5).
    pub datagram_bytes_max: usize,
    /// The longest payload of any other capsule that is known; a longer one ends the stream.
    pub control_bytes_max: usize,
}

impl Default for CapsuleLimits {
    /// The largest IP packet and context id; and 16 KiB, which is twice 256 ranges of IPv6.
    fn default() -> Self {
        Self { datagram_bytes_max: 65_535 + 8, control_bytes_max: 16 * 1024 }
    }
}

/// One capsule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capsule {
    /// An HTTP datagram: a context id ([`crate::context_id`]) and what it carries.
    Datagram(Bytes),
    /// The addresses that the receiver may send from.
    AddressAssign(AddressAssign),
    /// The addresses that the sender would like to have.
    AddressRequest(AddressRequest),
    /// The destinations that the receiver may send to.
    RouteAdvertisement(RouteAdvertisement),
    /// Somebody connected to the listener.
    Accept(Accept),
    /// One of those went away.
    Close(Close),
}

impl Capsule {
    /// Parses a whole payload of a known type.
    fn parse(kind: u64, payload: Bytes) -> Result<Self, CapsuleError> {
        match kind {
            ADDRESS_ASSIGN => AddressAssign::decode(&payload).map(Self::AddressAssign),
            ADDRESS_REQUEST => AddressRequest::decode(&payload).map(Self::AddressRequest),
            ROUTE_ADVERTISEMENT => RouteAdvertisement::decode(&payload).map(Self::RouteAdvertisement),
            BEAM_ACCEPT => Accept::decode(&payload).map(Self::Accept),
            BEAM_CLOSE => Close::decode(&payload).map(Self::Close),
            _ => Ok(Self::Datagram(payload)),
        }
    }
}

/// What a [`Capsules`] saw. Every capsule whose type and length arrived is counted under exactly one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapsuleCounts {
    /// DATAGRAM capsules that were taken.
    pub datagrams: u64,
    /// Known capsules of other types.
    pub control: u64,
    /// Skipped, because their type means nothing on this stream.
    pub unknown: u64,
    /// DATAGRAM capsules that are longer than the limit: skipped, or the end of their stream.
    pub oversize_datagrams: u64,
}

/// Why a stream's capsules or datagrams cannot be read on: the stream has to be reset, the connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// "A malformed or incomplete message" (RFC 9297 section 3.3).
    #[error("malformed capsule: {0}")]
    Malformed(&'static str),
    /// "The last capsule on the stream was truncated" (RFC 9297 section 3.3).
    #[error("the stream ended in the middle of a capsule")]
    Truncated,
    /// A control capsule that nobody who means well sends.
    #[error("a capsule of type {kind:#x} takes {seen_bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// Its type.
        kind: u64,
        /// What its header says.
        seen_bytes: u64,
        /// [`CapsuleLimits::control_bytes_max`].
        limit_bytes: u64,
    },
    /// More addresses or ranges than we keep.
    #[error("a capsule of type {kind:#x} has more than {limit_count} entries")]
    TooMany {
        /// Its type.
        kind: u64,
        /// How many there may be.
        limit_count: usize,
    },
}

impl CapsuleError {
    /// Always the stream alone.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope::Stream
    }

    /// The code to reset with.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) | Self::Truncated => Code::H3_MESSAGE_ERROR,
            Self::TooLarge { .. } | Self::TooMany { .. } => Code::H3_EXCESSIVE_LOAD,
        }
    }
}
