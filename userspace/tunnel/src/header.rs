//! What a datagram says in the clear, before any key is looked up.
//!
//! The engine uses it to route between workers and to name the reason when quinn keeps silent about
//! a datagram. Only the version-independent fields (RFC 8999) and the long packet type are read.

use crate::cid::CID_LEN_BYTES;

/// RFC 9000 14.1: a server drops Initials in smaller datagrams.
pub(crate) const MIN_INITIAL_DATAGRAM_BYTES: usize = 1200;
/// RFC 9000 7.2: a client-chosen destination CID is at least this long.
pub(crate) const MIN_INITIAL_DCID_BYTES: usize = 8;
/// RFC 9000 10.3: the shortest datagram that can be a stateless reset.
pub(crate) const MIN_RESET_DATAGRAM_BYTES: usize = 21;
/// The versions that the endpoint speaks.
pub(crate) const VERSIONS: &[u32] = &[1];

/// The first packet of a datagram, as far as it can be read without keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header<'a> {
    /// 1-RTT packet, or a stateless reset.
    Short { dcid: &'a [u8] },
    /// Initial of a version that we speak.
    Initial { dcid: &'a [u8] },
    /// 0-RTT of a version that we speak; like the Initial it may carry the client's own CID.
    ZeroRtt { dcid: &'a [u8] },
    /// Handshake, Retry or Version Negotiation: always addressed to a CID of ours.
    Other { dcid: &'a [u8] },
    /// Long header with a version that we don't speak.
    UnknownVersion { dcid: &'a [u8] },
    /// Not QUIC.
    Malformed,
}

impl<'a> Header<'a> {
    pub(crate) fn parse(datagram: &'a [u8]) -> Self {
        Self::read(datagram).unwrap_or(Header::Malformed)
    }

    fn read(datagram: &'a [u8]) -> Option<Self> {
        let (&first, rest) = datagram.split_first()?;
        if first & 0x80 == 0 {
            return Some(Header::Short { dcid: rest.get(..CID_LEN_BYTES)? });
        }
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let version = u32::from_be_bytes(*version);
        let (&dcid_len, rest) = rest.split_first()?;
        let dcid = rest.get(..usize::from(dcid_len))?;
        if version == 0 {
            return Some(Header::Other { dcid });
        }
        if !VERSIONS.contains(&version) {
            return Some(Header::UnknownVersion { dcid });
        }
        Some(match first >> 4 & 0b11 {
            0 => Header::Initial { dcid },
            1 => Header::ZeroRtt { dcid },
            _ => Header::Other { dcid },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: each form is told apart, and every cut of each is read without a panic.
    #[test]
    fn forms_and_truncations() {
        let long = |first: u8, version: u32| {
            let mut packet = vec![first];
            packet.extend(version.to_be_bytes());
            packet.extend([3, 1, 2, 3, 0]);
            packet
        };
        let dcid: &[u8] = &[1, 2, 3];
        assert_eq!(Header::parse(&long(0xc0, 1)), Header::Initial { dcid });
        assert_eq!(Header::parse(&long(0xd0, 1)), Header::ZeroRtt { dcid });
        assert_eq!(Header::parse(&long(0xe0, 1)), Header::Other { dcid });
        assert_eq!(Header::parse(&long(0xf0, 1)), Header::Other { dcid });
        assert_eq!(Header::parse(&long(0xc0, 0)), Header::Other { dcid });
        assert_eq!(Header::parse(&long(0xc0, 0x0a1a_2a3a)), Header::UnknownVersion { dcid });
        assert_eq!(Header::parse(&[0x40; 18]), Header::Short { dcid: &[0x40; 17] });
        assert_eq!(Header::parse(&[0x40; 17]), Header::Malformed);
        for cut in 0..9 {
            assert_eq!(Header::parse(&long(0xc0, 1)[..cut]), Header::Malformed);
        }
    }
}
