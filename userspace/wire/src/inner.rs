//! An IP packet in an Ethernet frame, whatever it carries: what a router reads before it sends the packet on.
//!
//! Called by the LAN's XDP program and, for the same frames again, by the LAN port in userspace. In two steps, as in
//! [`crate::headers`]: [`Inner::read`] finds out who the packet is for, [`Inner::check`] proves its lengths. Options,
//! extension headers and fragments don't matter: only the destination does.

use crate::{
    Bytes,
    datagram::Mac,
    headers::{
        AtIp, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_BYTES, IPV6_BYTES, IpVersion, Malformed, NotOurs,
        behind_tags, mapped,
    },
};
use core::ops::Range;

/// The packet's addressing, read but not yet checked.
///
/// Invariant: the frame holds the IP header up to and including the destination address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Which IP it is.
    pub version: IpVersion,
    /// The frame's destination MAC address.
    pub dst_mac: Mac,
    /// Offset of the IP header in the frame: 14, 18 or 22.
    pub ip_offset: usize,
    /// Destination address; IPv4 in its IPv4-mapped form.
    pub destination: [u8; 16],
    /// Bytes of the IP header; for IPv6 without extension headers.
    header_bytes: u32,
    /// Bytes from the IP header's first to the IP payload's last, as the IP header says.
    ip_bytes: u32,
}

impl Inner {
    /// Who a frame is for.
    ///
    /// # Errors
    /// The reason why nobody can say: [`NotOurs::Short`], [`NotOurs::NotIp`], [`NotOurs::VlanDepth`] or
    /// [`NotOurs::IpHeader`].
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(frame: &B) -> Result<Self, NotOurs> {
        behind_tags(frame)
    }

    /// Where the packet is in the frame, free of Ethernet padding.
    ///
    /// # Errors
    /// [`Malformed::IpLong`] or [`Malformed::IpShort`].
    #[inline(always)]
    pub fn check<B: Bytes + ?Sized>(&self, frame: &B) -> Result<Range<usize>, Malformed> {
        let end = self.ip_offset + self.ip_bytes as usize;
        if !frame.holds(end) {
            return Err(Malformed::IpLong);
        }
        if self.ip_bytes < self.header_bytes {
            return Err(Malformed::IpShort);
        }
        Ok(self.ip_offset..end)
    }

    /// Whether a router may send the packet on at all: see [`is_forwardable`].
    #[must_use]
    #[inline(always)]
    pub fn is_forwardable(&self) -> bool {
        is_forwardable(self.version, self.destination)
    }
}

/// Whether a router may send a packet on at all: multicast, broadcast, loopback, link-local and "this network" stay where
/// they are, whatever the routes (RFC 1812 section 5.3.7, RFC 4291 sections 2.5.2 to 2.7). IPv4 is IPv4-mapped.
#[must_use]
#[inline(always)]
pub fn is_forwardable(version: IpVersion, destination: [u8; 16]) -> bool {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = destination;
    match version {
        // 240.0.0.0/4 with the limited broadcast.
        IpVersion::V4 => !(m == 0 || m == 127 || m >= 224 || (m == 169 && n == 254)),
        IpVersion::V6 => {
            let high = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            let low = u64::from_be_bytes([i, j, k, l, m, n, o, p]);
            // Unspecified, loopback, IPv4-mapped.
            let is_special = high == 0 && (low <= 1 || low >> 32 == 0xffff);
            !(a == 0xff || (a == 0xfe && b & 0xc0 == 0x80) || is_special)
        }
    }
}

impl AtIp for Inner {
    #[inline(always)]
    fn read_at<const IP: usize, B: Bytes + ?Sized>(frame: &B, ethertype: u16) -> Result<Self, NotOurs> {
        let Some(dst_mac) = frame.array(0) else { return Err(NotOurs::Short) };
        match ethertype {
            ETHERTYPE_IPV4 => read_ipv4::<IP, B>(frame, dst_mac),
            ETHERTYPE_IPV6 => read_ipv6::<IP, B>(frame, dst_mac),
            _ => Err(NotOurs::NotIp),
        }
    }
}

#[inline(always)]
fn read_ipv4<const IP: usize, B: Bytes + ?Sized>(frame: &B, dst_mac: Mac) -> Result<Inner, NotOurs> {
    let Some(header) = frame.array::<IPV4_BYTES>(IP) else { return Err(NotOurs::Short) };
    let [version_length, _, length0, length1, ..] = header;
    let [.., d0, d1, d2, d3] = header;
    let words = version_length & 0xf;
    if version_length >> 4 != 4 || words < 5 {
        return Err(NotOurs::IpHeader);
    }
    Ok(Inner {
        version: IpVersion::V4,
        dst_mac,
        ip_offset: IP,
        destination: mapped([d0, d1, d2, d3]),
        header_bytes: words as u32 * 4,
        ip_bytes: u16::from_be_bytes([length0, length1]) as u32,
    })
}

#[inline(always)]
fn read_ipv6<const IP: usize, B: Bytes + ?Sized>(frame: &B, dst_mac: Mac) -> Result<Inner, NotOurs> {
    let Some([class0, _, _, _, length0, length1]) = frame.array::<6>(IP) else { return Err(NotOurs::Short) };
    if class0 >> 4 != 6 {
        return Err(NotOurs::IpHeader);
    }
    let Some(destination) = frame.array::<16>(IP + 24) else { return Err(NotOurs::Short) };
    Ok(Inner {
        version: IpVersion::V6,
        dst_mac,
        ip_offset: IP,
        destination,
        header_bytes: IPV6_BYTES as u32,
        ip_bytes: u16::from_be_bytes([length0, length1]) as u32 + IPV6_BYTES as u32,
    })
}
