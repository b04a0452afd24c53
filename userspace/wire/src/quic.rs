//! QUIC as every version looks (RFC 8999), and the packet types of versions 1 and 2 (RFC 9000, RFC 9369).
//!
//! This is what may be read before any key is known: whose connection a datagram belongs to.

/// Version 1 (RFC 9000).
pub const VERSION_1: u32 = 1;
/// Version 2 (RFC 9369).
pub const VERSION_2: u32 = 0x6b33_43cf;
/// The version field of a Version Negotiation packet.
pub const VERSION_NEGOTIATION: u32 = 0;
/// The longest connection ID in versions 1 and 2; other versions may have up to 255 bytes.
pub const CID_BYTES_MAX: usize = 20;

/// What every version's long header holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongHeader<'a> {
    /// The first byte; all but its first bit belong to the version.
    pub first: u8,
    /// The version; 0 is Version Negotiation.
    pub version: u32,
    /// Destination connection ID, 0 to 255 bytes.
    pub dcid: &'a [u8],
    /// Source connection ID, 0 to 255 bytes.
    pub scid: &'a [u8],
    /// What follows, up to the datagram's end: it belongs to the version, and may hold coalesced packets.
    pub rest: &'a [u8],
}

impl LongHeader<'_> {
    /// The packet's type, when the version is 1 or 2.
    #[must_use]
    pub fn packet_type(&self) -> Option<LongType> {
        long_type(self.first, self.version)
    }
}

/// Long packet types of versions 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LongType {
    /// The first flight, under keys that anybody can derive.
    Initial,
    /// Early data.
    ZeroRtt,
    /// The rest of the handshake.
    Handshake,
    /// A server's demand for address validation.
    Retry,
}

/// Whether a datagram that begins with this byte has a long header.
#[must_use]
#[inline]
pub const fn is_long_header(first: u8) -> bool {
    first & 0x80 != 0
}

/// Whether the fixed bit of versions 1 and 2 is set (RFC 9000 section 17). A datagram without it isn't QUIC v1 or
/// v2, unless the peer greases it (RFC 9287) or it is Version Negotiation.
#[must_use]
#[inline]
pub const fn has_fixed_bit(first: u8) -> bool {
    first & 0x40 != 0
}

/// The type of a long-header packet, when its version is 1 or 2: they number the types differently.
#[must_use]
pub const fn long_type(first: u8, version: u32) -> Option<LongType> {
    if !is_long_header(first) {
        return None;
    }
    match (version, (first >> 4) & 0b11) {
        (VERSION_1, 0) | (VERSION_2, 1) => Some(LongType::Initial),
        (VERSION_1, 1) | (VERSION_2, 2) => Some(LongType::ZeroRtt),
        (VERSION_1, 2) | (VERSION_2, 3) => Some(LongType::Handshake),
        (VERSION_1, 3) | (VERSION_2, 0) => Some(LongType::Retry),
        _ => None,
    }
}

/// The long header at the datagram's beginning; `None` when there is none or it is cut short.
#[must_use]
pub fn long_header(datagram: &[u8]) -> Option<LongHeader<'_>> {
    let (&[first, v0, v1, v2, v3], rest) = datagram.split_first_chunk()?;
    if !is_long_header(first) {
        return None;
    }
    let (dcid, rest) = connection_id(rest)?;
    let (scid, rest) = connection_id(rest)?;
    Some(LongHeader { first, version: u32::from_be_bytes([v0, v1, v2, v3]), dcid, scid, rest })
}

/// The destination connection ID of a short-header packet, whose length only its issuer knows; `None` when the
/// header is long or the datagram too short.
#[must_use]
#[inline]
pub fn short_dcid(datagram: &[u8], dcid_len: usize) -> Option<&[u8]> {
    let (&first, rest) = datagram.split_first()?;
    if is_long_header(first) {
        return None;
    }
    rest.get(..dcid_len)
}

/// A connection ID behind its length byte, and what follows.
fn connection_id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length))
}
