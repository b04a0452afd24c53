//! A UDP datagram in an Ethernet frame, as an AF_XDP socket sees it. Called by `xsk` for each received frame.
//!
//! The kernel's UDP stack isn't in the way of these frames, so what it would have refused is refused here: lengths,
//! fragments and the IPv4 header checksum by [`parse`], the UDP checksum by [`Datagram::checksum`], senders that
//! can't be by [`is_martian`].

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use crate::{
    Bytes, Path,
    checksum::{self, Checksum},
    headers::{
        ETHERNET_BYTES, Headers, IpVersion, Malformed, NotOurs, UDP_BYTES, VLAN_BYTES, VLAN_COUNT_MAX,
    },
};

/// A MAC address.
pub type Mac = [u8; 6];

/// A UDP datagram found in a frame.
///
/// Invariant: `payload` lies inside the frame that was parsed, behind a whole UDP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Local is the destination, remote the source.
    pub path: Path,
    /// The ECN codepoint: the two low bits of the traffic class.
    pub ecn_bits: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// The UDP payload's place in the frame, without Ethernet padding.
    pub payload: Range<usize>,
    /// VLAN tags, outermost first.
    pub vlans: Vlans,
    /// Source MAC address.
    pub src_mac: Mac,
    /// Destination MAC address.
    pub dst_mac: Mac,
    /// The UDP checksum field.
    pub udp_checksum: u16,
}

impl Datagram {
    /// Judges the UDP checksum. `frame` is the frame that was parsed.
    #[must_use]
    pub fn checksum(&self, frame: &[u8]) -> Checksum {
        let udp = self.payload.start.saturating_sub(UDP_BYTES)..self.payload.end;
        let udp = frame.get(udp).unwrap_or_default();
        checksum::verify_udp(&self.path.remote, &self.path.local, udp)
    }
}

/// Why a frame isn't a UDP datagram that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// Something that the kernel deals with; steering never redirects it.
    NotOurs(NotOurs),
    /// UDP with a damaged header.
    Malformed(Malformed),
}

/// Finds the UDP datagram in an Ethernet frame: zero to two VLAN tags, IPv4 without options or IPv6 without
/// extension headers, no fragment.
///
/// # Errors
/// What else the frame is.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Datagram, Reject> {
    let headers = Headers::read(frame).map_err(Reject::NotOurs)?;
    let payload = headers.check(frame).map_err(Reject::Malformed)?;
    // `read` and `check` have proved that the frame holds these; the errors can't occur.
    const SHORT: Reject = Reject::NotOurs(NotOurs::Short);
    let dst_mac = frame.array(0).ok_or(SHORT)?;
    let src_mac = frame.array(6).ok_or(SHORT)?;
    let udp_checksum = frame.array(headers.udp_offset() + 6).ok_or(SHORT)?;
    let endpoint = |address, port| socket_address(headers.version, address, u16::from_be_bytes(port));
    Ok(Datagram {
        path: Path {
            local: endpoint(headers.destination, headers.destination_port),
            remote: endpoint(headers.source, headers.source_port),
        },
        ecn_bits: headers.traffic_class & 0b11,
        hop_limit: headers.hop_limit,
        payload,
        vlans: Vlans::read(frame, headers.ip_offset),
        src_mac,
        dst_mac,
        udp_checksum: u16::from_be_bytes(udp_checksum),
    })
}

/// One VLAN tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vlan {
    /// Tag protocol identifier: 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority, drop eligibility and the VLAN's number.
    pub tci: u16,
}

/// Zero to two VLAN tags, outermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vlans {
    tags: [Vlan; VLAN_COUNT_MAX],
    count: u8,
}

impl Vlans {
    /// These tags, outermost first; `None` when there are more than two.
    #[must_use]
    pub fn new(tags: &[Vlan]) -> Option<Self> {
        let mut vlans = Self { count: u8::try_from(tags.len()).ok()?, ..Self::default() };
        vlans.tags.get_mut(..tags.len())?.copy_from_slice(tags);
        Some(vlans)
    }

    /// The tags, outermost first.
    #[must_use]
    pub fn as_slice(&self) -> &[Vlan] {
        self.tags.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// The tags between the MAC addresses and the IP header at `ip_offset`.
    fn read(frame: &[u8], ip_offset: usize) -> Self {
        let mut vlans = Self::default();
        let count = ip_offset.saturating_sub(ETHERNET_BYTES) / VLAN_BYTES;
        for (index, tag) in vlans.tags.iter_mut().take(count).enumerate() {
            let [p0, p1, c0, c1] = frame.array(12 + index * VLAN_BYTES).unwrap_or_default();
            *tag = Vlan { tpid: u16::from_be_bytes([p0, p1]), tci: u16::from_be_bytes([c0, c1]) };
            vlans.count += 1;
        }
        vlans
    }
}

/// Whether no honest packet from another host has this source: the kernel would have dropped it as a martian, or
/// could not have been answered (port 0).
///
/// Loopback sources are martians here, because XDP is never attached to `lo`.
#[must_use]
pub fn is_martian(source: &SocketAddr) -> bool {
    is_martian_address(source.ip()) || source.port() == 0
}

/// Whether no honest packet from another host has this source address.
#[must_use]
pub fn is_martian_address(source: IpAddr) -> bool {
    match source {
        // 0.0.0.0/8, 127.0.0.0/8, multicast, and 240.0.0.0/4 with the broadcast address.
        IpAddr::V4(ip) => matches!(ip.octets(), [0 | 127 | 224.., ..]),
        IpAddr::V6(ip) => {
            ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.to_ipv4_mapped().is_some()
        }
    }
}

fn socket_address(version: IpVersion, address: [u8; 16], port: u16) -> SocketAddr {
    let [.., a, b, c, d] = address;
    let ip = match version {
        IpVersion::V4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        IpVersion::V6 => IpAddr::V6(Ipv6Addr::from(address)),
    };
    SocketAddr::new(ip, port)
}
