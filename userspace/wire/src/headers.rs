//! The one parser of Ethernet, VLAN, IP and UDP headers, compiled into the kernel program and into userspace.
//!
//! It works in two steps, because a packet may be called malformed only once it is known to be ours:
//!
//! 1. [`Headers::read`] finds addresses and ports, or says why the packet can't be ours ([`NotOurs`]);
//! 2. [`Headers::check`] proves the lengths and the IPv4 header checksum, or says what is wrong ([`Malformed`]).
//!
//! Every offset is a compile-time constant (`IP`, the offset of the IP header, is a const parameter): the verifier
//! then needs no pointer arithmetic with variables, which it refuses to programs loaded without CAP_PERFMON.

use crate::Bytes;
use core::ops::Range;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_BYTES: usize = 14;
/// Bytes of one VLAN tag.
pub const VLAN_BYTES: usize = 4;
/// VLAN tags that are looked through; a third makes the packet not ours.
pub const VLAN_COUNT_MAX: usize = 2;
/// Bytes of an IPv4 header without options.
pub const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_BYTES: usize = 40;
/// Bytes of a UDP header.
pub const UDP_BYTES: usize = 8;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of a customer VLAN tag (802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag (802.1ad).
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

const IP_UNTAGGED: usize = ETHERNET_BYTES;
const IP_ONE_TAG: usize = ETHERNET_BYTES + VLAN_BYTES;
const IP_TWO_TAGS: usize = ETHERNET_BYTES + 2 * VLAN_BYTES;

/// Why a frame can't be one of ours, whatever the configured addresses: it belongs to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotOurs {
    /// The frame ends before it says who it is for.
    Short,
    /// Neither IPv4 nor IPv6 (ARP, LLDP, ...).
    NotIp,
    /// More than two VLAN tags.
    VlanDepth,
    /// An IP header whose version isn't the EtherType's, or an IPv4 header length below five words.
    IpHeader,
    /// An IPv4 header with options.
    Ipv4Options,
    /// An IPv6 extension header other than the fragment header.
    Ipv6Extension,
    /// A first or later fragment.
    Fragment,
    /// IP, but another protocol than UDP.
    NotUdp,
}

/// What is wrong with a packet whose destination could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// The IP length is larger than the frame.
    IpLong,
    /// The IP length has no room for a UDP header.
    IpShort,
    /// The UDP length is larger than the IP payload.
    UdpLong,
    /// The UDP length is below eight.
    UdpShort,
    /// The IPv4 header checksum is wrong.
    IpChecksum,
}

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The headers of a UDP packet, read but not yet checked.
///
/// Invariant: the frame holds everything up to and including the UDP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Which IP it is.
    pub version: IpVersion,
    /// Offset of the IP header in the frame: 14, 18 or 22.
    pub ip_offset: usize,
    /// Source address; IPv4 in its IPv4-mapped form.
    pub source: [u8; 16],
    /// Destination address; IPv4 in its IPv4-mapped form.
    pub destination: [u8; 16],
    /// Source port, network order.
    pub source_port: [u8; 2],
    /// Destination port, network order.
    pub destination_port: [u8; 2],
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Bytes from the IP header's first to the IP payload's last, as the IP header says.
    ip_bytes: u32,
    /// The UDP header's length field; 0, which is malformed too, when the frame ends before it.
    udp_bytes: u16,
    /// Whether the IPv4 header checksum holds. True for IPv6.
    ip_checksum_good: bool,
}

impl Headers {
    /// Who a frame is from and for.
    ///
    /// # Errors
    /// The reason why it can't be ours.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(frame: &B) -> Result<Self, NotOurs> {
        behind_tags(frame)
    }

    /// Where the UDP payload is: inside the frame, free of Ethernet padding and of bytes behind the UDP length.
    ///
    /// # Errors
    /// The first thing that is wrong with the lengths or the IPv4 header checksum.
    #[inline(always)]
    pub fn check<B: Bytes + ?Sized>(&self, frame: &B) -> Result<Range<usize>, Malformed> {
        let header_bytes = self.ip_header_bytes() as u32;
        if !frame.holds(self.ip_offset + self.ip_bytes as usize) {
            return Err(Malformed::IpLong);
        }
        if self.ip_bytes < header_bytes + UDP_BYTES as u32 {
            return Err(Malformed::IpShort);
        }
        if u32::from(self.udp_bytes) > self.ip_bytes - header_bytes {
            return Err(Malformed::UdpLong);
        }
        if usize::from(self.udp_bytes) < UDP_BYTES {
            return Err(Malformed::UdpShort);
        }
        if !self.ip_checksum_good {
            return Err(Malformed::IpChecksum);
        }
        let udp_offset = self.udp_offset();
        Ok(udp_offset + UDP_BYTES..udp_offset + usize::from(self.udp_bytes))
    }

    /// Offset of the UDP header in the frame.
    #[must_use]
    #[inline(always)]
    pub fn udp_offset(&self) -> usize {
        self.ip_offset + self.ip_header_bytes()
    }

    #[inline(always)]
    fn ip_header_bytes(&self) -> usize {
        match self.version {
            IpVersion::V4 => IPV4_BYTES,
            IpVersion::V6 => IPV6_BYTES,
        }
    }
}

/// The IPv4-mapped form of an IPv4 address.
#[must_use]
#[inline(always)]
pub const fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// What is read from an IP header on. `IP`, the header's offset, is a const parameter: see the module.
pub(crate) trait AtIp: Sized {
    /// Reads what stands at `IP`, announced by `ethertype`.
    fn read_at<const IP: usize, B: Bytes + ?Sized>(frame: &B, ethertype: u16) -> Result<Self, NotOurs>;
}

/// Looks through zero to two VLAN tags.
#[inline(always)]
pub(crate) fn behind_tags<R: AtIp, B: Bytes + ?Sized>(frame: &B) -> Result<R, NotOurs> {
    let Some(first) = ethertype(frame, 12) else { return Err(NotOurs::Short) };
    if !is_vlan(first) {
        return R::read_at::<IP_UNTAGGED, B>(frame, first);
    }
    let Some(second) = ethertype(frame, 16) else { return Err(NotOurs::Short) };
    if !is_vlan(second) {
        return R::read_at::<IP_ONE_TAG, B>(frame, second);
    }
    let Some(third) = ethertype(frame, 20) else { return Err(NotOurs::Short) };
    if !is_vlan(third) {
        return R::read_at::<IP_TWO_TAGS, B>(frame, third);
    }
    Err(NotOurs::VlanDepth)
}

impl AtIp for Headers {
    #[inline(always)]
    fn read_at<const IP: usize, B: Bytes + ?Sized>(frame: &B, ethertype: u16) -> Result<Self, NotOurs> {
        match ethertype {
            ETHERTYPE_IPV4 => read_ipv4::<IP, B>(frame),
            ETHERTYPE_IPV6 => read_ipv6::<IP, B>(frame),
            _ => Err(NotOurs::NotIp),
        }
    }
}

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ
}

#[inline(always)]
fn ethertype<B: Bytes + ?Sized>(frame: &B, offset: usize) -> Option<u16> {
    frame.array(offset).map(u16::from_be_bytes)
}

#[inline(always)]
fn read_ipv4<const IP: usize, B: Bytes + ?Sized>(frame: &B) -> Result<Headers, NotOurs> {
    let Some(header) = frame.array::<IPV4_BYTES>(IP) else { return Err(NotOurs::Short) };
    let [version_length, traffic_class, length0, length1, ..] = header;
    let [_, _, _, _, _, _, fragment0, fragment1, hop_limit, protocol, ..] = header;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    if version_length >> 4 != 4 || version_length & 0xf < 5 {
        return Err(NotOurs::IpHeader);
    }
    if version_length != 0x45 {
        return Err(NotOurs::Ipv4Options);
    }
    // More-fragments, or any offset. The reserved and the don't-fragment bit don't matter.
    if fragment0 & 0x3f != 0 || fragment1 != 0 {
        return Err(NotOurs::Fragment);
    }
    if protocol != PROTOCOL_UDP {
        return Err(NotOurs::NotUdp);
    }
    let Some([sp0, sp1, dp0, dp1]) = frame.array::<4>(IP + IPV4_BYTES) else { return Err(NotOurs::Short) };
    Ok(Headers {
        version: IpVersion::V4,
        ip_offset: IP,
        source: mapped([s0, s1, s2, s3]),
        destination: mapped([d0, d1, d2, d3]),
        source_port: [sp0, sp1],
        destination_port: [dp0, dp1],
        traffic_class,
        hop_limit,
        ip_bytes: u16::from_be_bytes([length0, length1]) as u32,
        udp_bytes: udp_length(frame, IP + IPV4_BYTES),
        ip_checksum_good: ipv4_header_sum(&header) == 0xffff,
    })
}

#[inline(always)]
fn read_ipv6<const IP: usize, B: Bytes + ?Sized>(frame: &B) -> Result<Headers, NotOurs> {
    let Some([class0, class1, _, _, length0, length1, next_header, hop_limit]) = frame.array::<8>(IP) else {
        return Err(NotOurs::Short);
    };
    if class0 >> 4 != 6 {
        return Err(NotOurs::IpHeader);
    }
    if next_header != PROTOCOL_UDP {
        return Err(not_udp_over_ipv6(next_header));
    }
    let Some(source) = frame.array::<16>(IP + 8) else { return Err(NotOurs::Short) };
    let Some(destination) = frame.array::<16>(IP + 24) else { return Err(NotOurs::Short) };
    let Some([sp0, sp1, dp0, dp1]) = frame.array::<4>(IP + IPV6_BYTES) else { return Err(NotOurs::Short) };
    Ok(Headers {
        version: IpVersion::V6,
        ip_offset: IP,
        source,
        destination,
        source_port: [sp0, sp1],
        destination_port: [dp0, dp1],
        traffic_class: (class0 << 4) | (class1 >> 4),
        hop_limit,
        ip_bytes: u16::from_be_bytes([length0, length1]) as u32 + IPV6_BYTES as u32,
        udp_bytes: udp_length(frame, IP + IPV6_BYTES),
        ip_checksum_good: true,
    })
}

/// IANA's list of IPv6 extension header types; everything else is a payload.
#[inline(always)]
const fn not_udp_over_ipv6(next_header: u8) -> NotOurs {
    match next_header {
        44 => NotOurs::Fragment,
        // Hop-by-hop, routing, ESP, AH, destination options, mobility, HIP, shim6, two for experiments.
        0 | 43 | 50 | 51 | 60 | 135 | 139 | 140 | 253 | 254 => NotOurs::Ipv6Extension,
        _ => NotOurs::NotUdp,
    }
}

#[inline(always)]
fn udp_length<B: Bytes + ?Sized>(frame: &B, udp_offset: usize) -> u16 {
    match frame.array::<2>(udp_offset + 4) {
        Some(bytes) => u16::from_be_bytes(bytes),
        None => 0,
    }
}

/// The folded ones' complement sum of an IPv4 header: 0xffff when its checksum is right. Five words instead of
/// [`crate::checksum`]'s loop, because this also runs in the kernel.
#[inline(always)]
fn ipv4_header_sum(header: &[u8; IPV4_BYTES]) -> u16 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = *header;
    let sum = u32::from_ne_bytes([a, b, c, d]) as u64
        + u32::from_ne_bytes([e, f, g, h]) as u64
        + u32::from_ne_bytes([i, j, k, l]) as u64
        + u32::from_ne_bytes([m, n, o, p]) as u64
        + u32::from_ne_bytes([q, r, s, t]) as u64;
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}
