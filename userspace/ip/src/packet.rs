//! One inner packet, read and proved once: lengths, IPv4 header checksum, and where its transport header is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{
    Bytes,
    checksum::Sum,
    headers::{IPV4_BYTES, IPV6_BYTES, IpVersion},
};

/// IP protocol numbers that are looked at here.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
}

/// Why bytes are no IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Not even a version.
    #[error("empty")]
    Empty,
    /// Neither IPv4 nor IPv6.
    #[error("IP version {0}")]
    Version(u8),
    /// It ends before its header does.
    #[error("header cut off")]
    HeaderShort,
    /// An IPv4 header length below five words.
    #[error("IPv4 header length below 20 bytes")]
    HeaderLength,
    /// The IP length is larger than what is there, or smaller than the header.
    #[error("IP length doesn't fit")]
    TotalLength,
    /// The IPv4 header checksum is wrong.
    #[error("IPv4 header checksum wrong")]
    HeaderChecksum,
    /// More IPv6 extension headers than anybody sends, or cut off ones.
    #[error("IPv6 extension headers cut off, or too many")]
    Extensions,
}

/// Extension headers that are looked through.
const EXTENSIONS_MAX: usize = 8;

/// Which part of a fragmented packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// It is whole.
    Whole,
    /// The one with the transport header.
    First,
    /// One of those that follow.
    Later,
}

/// An IP packet's header, proved.
///
/// Invariant: the slice it was read from holds `total_bytes`, and `transport_offset <= total_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// From whom.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// What is behind the IP header and its extension headers.
    pub protocol: u8,
    /// Where that begins.
    pub transport_offset: usize,
    /// Bytes of the packet; what follows in the slice isn't part of it.
    pub total_bytes: usize,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Nobody may fragment it on the way (always so for IPv6).
    pub dont_fragment: bool,
}

impl View {
    /// Reads the header of a packet.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn read(packet: &[u8]) -> Result<Self, Malformed> {
        let view = Self::read_unsummed(packet)?;
        if view.version() == IpVersion::V4 {
            let header = packet.get(..view.transport_offset).unwrap_or_default();
            if Sum::of(header).folded() != [0xff, 0xff] {
                return Err(Malformed::HeaderChecksum);
            }
        }
        Ok(view)
    }

    /// The same, but an IPv4 header checksum is taken for right: for packets that our own kernel made.
    ///
    /// # Errors
    /// As [`Self::read`].
    #[inline]
    pub fn read_unsummed(packet: &[u8]) -> Result<Self, Malformed> {
        match packet.first().ok_or(Malformed::Empty)? >> 4 {
            4 => read_v4(packet),
            6 => read_v6(packet),
            version => Err(Malformed::Version(version)),
        }
    }

    /// Which IP it is.
    #[must_use]
    #[inline]
    pub fn version(&self) -> IpVersion {
        match self.source {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        }
    }

    /// Whether its destination is one that no packet may be carried to: unspecified, loopback, multicast, broadcast.
    #[must_use]
    pub fn is_destination_special(&self) -> bool {
        match self.destination {
            IpAddr::V4(to) => {
                to.is_unspecified() || to.is_loopback() || to.is_multicast() || to.is_broadcast()
            }
            IpAddr::V6(to) => to.is_unspecified() || to.is_loopback() || to.is_multicast(),
        }
    }

    /// Whether the address is one that no answer can be sent to.
    pub(crate) fn is_source_special(&self) -> bool {
        match self.source {
            IpAddr::V4(from) => {
                from.is_unspecified() || from.is_loopback() || from.is_multicast() || from.is_broadcast()
            }
            IpAddr::V6(from) => from.is_unspecified() || from.is_loopback() || from.is_multicast(),
        }
    }
}

fn read_v4(packet: &[u8]) -> Result<View, Malformed> {
    let header: [u8; IPV4_BYTES] = packet.array(0).ok_or(Malformed::HeaderShort)?;
    let header_bytes = usize::from(header[0] & 0xf) * 4;
    if header_bytes < IPV4_BYTES {
        return Err(Malformed::HeaderLength);
    }
    let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total_bytes > packet.len() || total_bytes < header_bytes {
        return Err(Malformed::TotalLength);
    }
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let fragment = match (flags & 0x1fff, flags & 0x2000 != 0) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    Ok(View {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        hop_limit: header[8],
        protocol: header[9],
        transport_offset: header_bytes,
        total_bytes,
        fragment,
        dont_fragment: flags & 0x4000 != 0,
    })
}

fn read_v6(packet: &[u8]) -> Result<View, Malformed> {
    let header: [u8; IPV6_BYTES] = packet.array(0).ok_or(Malformed::HeaderShort)?;
    let total_bytes = IPV6_BYTES + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = packet.get(..total_bytes).ok_or(Malformed::TotalLength)?;
    let source: [u8; 16] = packet.array(8).ok_or(Malformed::HeaderShort)?;
    let destination: [u8; 16] = packet.array(24).ok_or(Malformed::HeaderShort)?;
    let mut view = View {
        source: Ipv6Addr::from(source).into(),
        destination: Ipv6Addr::from(destination).into(),
        hop_limit: header[7],
        protocol: header[6],
        transport_offset: IPV6_BYTES,
        total_bytes,
        fragment: Fragment::Whole,
        dont_fragment: true,
    };
    skip_extensions(packet, &mut view)?;
    Ok(view)
}

/// Moves `protocol` and `transport_offset` behind the extension headers (RFC 8200 section 4).
fn skip_extensions(packet: &[u8], view: &mut View) -> Result<(), Malformed> {
    for _ in 0..EXTENSIONS_MAX {
        let unit_bytes = match view.protocol {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => 8,
            protocol::AUTHENTICATION => 4,
            protocol::FRAGMENT => 0,
            _ => return Ok(()),
        };
        let [next, length, o0, o1]: [u8; 4] =
            packet.array(view.transport_offset).ok_or(Malformed::Extensions)?;
        let extension_bytes = match unit_bytes {
            0 => 8,
            4 => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if view.protocol == protocol::FRAGMENT {
            let offset_and_more = u16::from_be_bytes([o0, o1]);
            view.fragment = match (offset_and_more & 0xfff8, offset_and_more & 1) {
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
        }
        view.protocol = next;
        view.transport_offset += extension_bytes;
        if view.transport_offset > packet.len() {
            return Err(Malformed::Extensions);
        }
        if view.fragment == Fragment::Later {
            // What follows is payload, not a header.
            return Ok(());
        }
    }
    Err(Malformed::Extensions)
}

/// Takes one hop off a packet whose view has been read; false, and nothing done, where none is left for it
/// (a hop limit of 0 or 1).
pub fn decrement_hop_limit(packet: &mut [u8], view: &View) -> bool {
    if view.hop_limit <= 1 {
        return false;
    }
    match view.version() {
        IpVersion::V4 => {
            if let Some(ttl) = packet.get_mut(8) {
                *ttl = view.hop_limit - 1;
            }
            if let Some([c0, c1]) = packet.get_mut(10..12) {
                // RFC 1141: a word of the header became smaller by 0x0100, so its complement grows by that.
                let sum = u32::from(u16::from_be_bytes([*c0, *c1])) + 0x100;
                [*c0, *c1] = ((sum + (sum >> 16)) as u16).to_be_bytes();
            }
        }
        IpVersion::V6 => {
            if let Some(hops) = packet.get_mut(7) {
                *hops = view.hop_limit - 1;
            }
        }
    }
    true
}
