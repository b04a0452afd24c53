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
    /// The destination connection ID, which whoever sent it has chosen.
    pub(crate) fn dcid(self) -> &'a [u8] {
        match self {
            Header::Short { dcid }
            | Header::Initial { dcid }
            | Header::ZeroRtt { dcid }
            | Header::Other { dcid }
            | Header::UnknownVersion { dcid } => dcid,
            Header::Malformed => &[],
        }
    }

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

/// Whether every packet in the datagram that can be opened without 1-RTT keys is a Handshake packet.
///
/// If such a datagram brings frames, its sender has read the keys that went to its address, which
/// proves the address (RFC 9000 8.1). An Initial beside them would prove nothing: anyone can seal
/// one.
pub(crate) fn is_handshake_only(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    // Each round takes a packet of at least seven bytes off.
    while rest.first().is_some_and(|first| first & 0x80 != 0) {
        match handshake_packet_len(rest) {
            Some(len) if len <= rest.len() => rest = &rest[len..],
            _ => return false,
        }
    }
    rest.len() < datagram.len()
}

/// The length of the Handshake packet that `packet` starts with.
fn handshake_packet_len(packet: &[u8]) -> Option<usize> {
    let (&first, rest) = packet.split_first()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    if first >> 4 & 0b11 != 2 || !VERSIONS.contains(&u32::from_be_bytes(*version)) {
        return None;
    }
    let (&dcid_len, rest) = rest.split_first()?;
    let (&scid_len, rest) = rest.get(usize::from(dcid_len)..)?.split_first()?;
    let rest = rest.get(usize::from(scid_len)..)?;
    let length_len = 1 << (rest.first()? >> 6);
    let length = rest.get(..length_len)?.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let length = length & (u64::MAX >> (64 - 8 * length_len + 2));
    Some(packet.len() - rest.len() + length_len + usize::try_from(length).ok()?)
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
    // Goal: an Initial anywhere in the datagram spoils it; so does a length that doesn't fit.
    #[test]
    fn handshake_only_datagrams() {
        let packet = |first: u8, payload: u8| {
            let mut packet = vec![first, 0, 0, 0, 1, 2, 9, 9, 1, 7];
            if first & 0x30 == 0 {
                packet.push(0);
            }
            packet.extend([0x40, payload]);
            packet.extend(vec![0x5a; payload.into()]);
            packet
        };
        let handshake = packet(0xe0, 30);
        let initial = packet(0xc0, 30);
        assert!(is_handshake_only(&handshake));
        assert!(is_handshake_only(&[handshake.clone(), packet(0xe1, 5)].concat()));
        assert!(is_handshake_only(&[handshake.clone(), vec![0x40; 30]].concat()));
        assert!(!is_handshake_only(&[handshake.clone(), initial.clone()].concat()));
        assert!(!is_handshake_only(&[initial, handshake.clone()].concat()));
        assert!(!is_handshake_only(&handshake[..handshake.len() - 1]));
        assert!(!is_handshake_only(&[0x40; 60]));
        assert!(!is_handshake_only(&[]));
        for cut in 0..handshake.len() {
            assert!(!is_handshake_only(&handshake[..cut]));
        }
    }
}
