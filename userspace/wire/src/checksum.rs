//! The internet checksum (RFC 1071): over IPv4 headers and over UDP with its pseudo-header.
//!
//! The sum is taken in the host's byte order, 32 bits at a time into 64-bit lanes, and folded once: ones' complement
//! addition doesn't care for word size or byte order (RFC 1071 section 2).

use core::net::{IpAddr, SocketAddr};

use crate::headers::PROTOCOL_UDP;

/// A ones' complement sum in the making, in the host's byte order.
///
/// Invariant: the 64 bits can't overflow: no caller adds more than 2^32 words of 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of `bytes`, as if they began at an even offset; an odd last byte is padded with zero.
    #[must_use]
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        let mut lanes = [0u64; 8];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let (words, tail) = rest.as_chunks::<4>();
        let mut sum: u64 = lanes.iter().sum();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        Self(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// A sum that somebody else took: of 32-bit words in the host's byte order, an odd end padded with zeros, or of
    /// anything congruent to it modulo 65,535 (RFC 1071 section 2: wider words, halves added up apart) that is zero
    /// only where every byte is. Less than 2^63, so that it can be added to.
    #[must_use]
    #[inline]
    pub const fn from_words(words: u64) -> Self {
        Self(words)
    }

    /// The sum of the pseudo-header of RFC 768 (IPv4) or RFC 8200 section 8.1 (IPv6), from one end to the other.
    /// `udp_bytes` counts the UDP header and its payload.
    #[must_use]
    #[inline]
    pub fn pseudo_header(source: &SocketAddr, destination: &SocketAddr, udp_bytes: u16) -> Self {
        address(source.ip()) + address(destination.ip()) + word(u16::from(PROTOCOL_UDP)) + word(udp_bytes)
    }

    /// Folded to 16 bits and not complemented, in wire order.
    #[must_use]
    #[inline]
    pub fn folded(self) -> [u8; 2] {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        (sum as u16).to_ne_bytes()
    }

    /// The checksum: folded and complemented, in wire order.
    #[must_use]
    #[inline]
    pub fn checksum(self) -> [u8; 2] {
        (!u16::from_ne_bytes(self.folded())).to_ne_bytes()
    }
}

impl core::ops::Add for Sum {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

/// What a received UDP checksum field turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// It covers the datagram.
    Good,
    /// Zero over IPv4: the sender computed none. Zero over IPv6 is [`Checksum::Bad`] (RFC 8200 section 8.1).
    Absent,
    /// It holds the pseudo-header's sum only: Linux's CHECKSUM_PARTIAL, left by a sender on the same host (veth,
    /// virtio) for hardware that never came. Says nothing about the payload.
    PartialPseudo,
    /// None of these: the datagram was damaged.
    Bad,
}

/// Judges the UDP checksum of `udp`, the UDP header and its payload, sent from one end to the other.
///
/// Less than a UDP header is [`Checksum::Bad`].
#[must_use]
pub fn verify_udp(source: &SocketAddr, destination: &SocketAddr, udp: &[u8]) -> Checksum {
    let (Ok(udp_bytes), Some(&[_, _, _, _, _, _, c0, c1])) =
        (u16::try_from(udp.len()), udp.first_chunk::<8>())
    else {
        return Checksum::Bad;
    };
    let field = [c0, c1];
    if field == [0, 0] {
        return if source.is_ipv4() { Checksum::Absent } else { Checksum::Bad };
    }
    let pseudo_header = Sum::pseudo_header(source, destination, udp_bytes);
    if (pseudo_header + Sum::of(udp)).folded() == [0xff, 0xff] {
        Checksum::Good
    } else if field == pseudo_header.folded() {
        Checksum::PartialPseudo
    } else {
        Checksum::Bad
    }
}

/// The checksum field of a UDP datagram whose own checksum field is zero, sent from one end to the other. `udp` is
/// the UDP header and its payload; `None` when that is more than UDP can carry.
#[must_use]
pub fn udp(source: &SocketAddr, destination: &SocketAddr, udp: &[u8]) -> Option<[u8; 2]> {
    let udp_bytes = u16::try_from(udp.len()).ok()?;
    Some(sent_udp(Sum::pseudo_header(source, destination, udp_bytes) + Sum::of(udp)))
}

/// The checksum field for a sum over pseudo-header, header and payload: what comes out as zero is sent as 0xffff,
/// because zero says "none" (RFC 768).
#[must_use]
#[inline]
pub fn sent_udp(sum: Sum) -> [u8; 2] {
    match sum.checksum() {
        [0, 0] => [0xff, 0xff],
        checksum => checksum,
    }
}

/// The checksum field of an IPv4 header whose own checksum field is zero.
#[must_use]
#[inline]
pub fn ipv4_header(header: &[u8; 20]) -> [u8; 2] {
    Sum::of(header).checksum()
}

/// Whether an IPv4 header's checksum is right.
#[must_use]
#[inline]
pub fn verify_ipv4_header(header: &[u8; 20]) -> bool {
    Sum::of(header).folded() == [0xff, 0xff]
}

#[inline]
fn address(ip: IpAddr) -> Sum {
    match ip {
        IpAddr::V4(ip) => Sum::of(&ip.octets()),
        IpAddr::V6(ip) => Sum::of(&ip.octets()),
    }
}

#[inline]
fn word(value: u16) -> Sum {
    Sum::of(&value.to_be_bytes())
}
