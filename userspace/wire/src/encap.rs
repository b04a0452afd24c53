//! Headers in front of a payload. `xsk` keeps one [`Template`] per path and writes it before each sealed packet.

use core::net::IpAddr;

use crate::{
    Path,
    checksum::{self, Sum},
    datagram::{Mac, Vlans},
    headers::{
        ETHERNET_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_BYTES, IPV6_BYTES, PROTOCOL_UDP, UDP_BYTES,
        VLAN_BYTES, VLAN_COUNT_MAX,
    },
};

/// The longest header: Ethernet, two VLAN tags, IPv6, UDP.
pub const HEADER_BYTES_MAX: usize = ETHERNET_BYTES + VLAN_COUNT_MAX * VLAN_BYTES + IPV6_BYTES + UDP_BYTES;

/// The longest UDP payload, over IPv4 and IPv6 alike: 65,535 less an IPv4 and a UDP header.
pub const PAYLOAD_BYTES_MAX: usize = u16::MAX as usize - IPV4_BYTES - UDP_BYTES;

/// Ethernet's part of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Our MAC address.
    pub src_mac: Mac,
    /// The next hop's MAC address.
    pub dst_mac: Mac,
    /// VLAN tags, outermost first.
    pub vlans: Vlans,
}

/// The headers of every packet on one path, computed once.
///
/// Invariant: `header[..header_bytes]` is a whole header whose lengths, ECN bits and checksums are zero, and the
/// sums are what its constant part adds to the two checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    ip_offset: usize,
    is_ipv4: bool,
    ipv4_sum: Sum,
    udp_sum: Sum,
}

impl Template {
    /// Headers from `path.local` to `path.remote`: don't-fragment set, identification and flow label zero, DSCP zero.
    ///
    /// `None` when the path's ends are of different IP versions.
    #[must_use]
    pub fn new(link: &Link, path: &Path, hop_limit: u8) -> Option<Self> {
        let mut header = Writer { bytes: [0; HEADER_BYTES_MAX], used: 0 };
        header.put(&link.dst_mac)?;
        header.put(&link.src_mac)?;
        for tag in link.vlans.as_slice() {
            header.put(&tag.tpid.to_be_bytes())?;
            header.put(&tag.tci.to_be_bytes())?;
        }
        let ethertype_offset = header.used;
        let mut ipv4_sum = Sum::default();
        match (path.local.ip(), path.remote.ip()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let ip = ipv4_header(local.octets(), remote.octets(), hop_limit);
                ipv4_sum = Sum::of(&ip);
                header.put(&ETHERTYPE_IPV4.to_be_bytes())?;
                header.put(&ip)?;
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                header.put(&ETHERTYPE_IPV6.to_be_bytes())?;
                header.put(&[0x60, 0, 0, 0, 0, 0, PROTOCOL_UDP, hop_limit])?;
                header.put(&local.octets())?;
                header.put(&remote.octets())?;
            }
            _ => return None,
        }
        let [s0, s1] = path.local.port().to_be_bytes();
        let [d0, d1] = path.remote.port().to_be_bytes();
        let udp = [s0, s1, d0, d1, 0, 0, 0, 0];
        header.put(&udp)?;
        Some(Self {
            header: header.bytes,
            header_bytes: header.used,
            ip_offset: ethertype_offset + 2,
            is_ipv4: path.local.is_ipv4(),
            ipv4_sum,
            udp_sum: Sum::pseudo_header(&path.local, &path.remote, 0) + Sum::of(&udp),
        })
    }

    /// Bytes in front of the payload.
    #[must_use]
    #[inline]
    pub fn header_len(&self) -> usize {
        self.header_bytes
    }

    /// Writes the headers in front of the payload that is already in `buffer`, at `header_len()`, and returns the
    /// frame's length. Only the two low bits of `ecn_bits` count.
    ///
    /// `None`, and nothing written, when `buffer` can't hold headers and payload or UDP can't hold the payload.
    #[must_use]
    #[inline]
    pub fn write(&self, buffer: &mut [u8], payload_len: usize, ecn_bits: u8) -> Option<usize> {
        let payload = buffer.get(self.header_bytes..self.header_bytes.checked_add(payload_len)?)?;
        let sum = Sum::of(payload);
        self.write_summed(buffer, payload_len, ecn_bits, sum)
    }

    /// As [`Template::write`], for a caller that has summed the payload already (or lets the NIC do it).
    #[must_use]
    #[inline]
    pub fn write_summed(
        &self,
        buffer: &mut [u8],
        payload_len: usize,
        ecn_bits: u8,
        payload: Sum,
    ) -> Option<usize> {
        let frame_bytes = self.header_bytes.checked_add(payload_len)?;
        if payload_len > PAYLOAD_BYTES_MAX || frame_bytes > buffer.len() {
            return None;
        }
        let (udp_bytes, ecn) = ((payload_len + UDP_BYTES) as u16, ecn_bits & 0b11);
        let header = buffer.get_mut(..self.header_bytes)?;
        header.copy_from_slice(self.header.get(..self.header_bytes)?);
        let (link_and_ip, udp) = header.split_last_chunk_mut::<UDP_BYTES>()?;
        if self.is_ipv4 {
            self.finish_ipv4(link_and_ip.last_chunk_mut()?, udp_bytes, ecn);
        } else {
            finish_ipv6(link_and_ip.last_chunk_mut()?, udp_bytes, ecn);
        }
        self.finish_udp(udp, udp_bytes, payload);
        Some(frame_bytes)
    }

    #[inline]
    fn finish_ipv4(&self, ip: &mut [u8; IPV4_BYTES], udp_bytes: u16, ecn: u8) {
        // No overflow: PAYLOAD_BYTES_MAX leaves room for both headers.
        let [length0, length1] = udp_bytes.wrapping_add(IPV4_BYTES as u16).to_be_bytes();
        let [checksum0, checksum1] = (self.ipv4_sum + Sum::of(&[0, ecn, length0, length1])).checksum();
        ip[1] = ecn;
        (ip[2], ip[3]) = (length0, length1);
        (ip[10], ip[11]) = (checksum0, checksum1);
    }

    #[inline]
    fn finish_udp(&self, udp: &mut [u8; UDP_BYTES], udp_bytes: u16, payload: Sum) {
        let [length0, length1] = udp_bytes.to_be_bytes();
        // The length counts twice: in the pseudo-header and in the header.
        let lengths = Sum::of(&[length0, length1, length0, length1]);
        let [checksum0, checksum1] = checksum::sent_udp(self.udp_sum + lengths + payload);
        (udp[4], udp[5]) = (length0, length1);
        (udp[6], udp[7]) = (checksum0, checksum1);
    }
}

fn ipv4_header(local: [u8; 4], remote: [u8; 4], hop_limit: u8) -> [u8; IPV4_BYTES] {
    const DONT_FRAGMENT: u8 = 0x40;
    let ([a, b, c, d], [e, f, g, h]) = (local, remote);
    [0x45, 0, 0, 0, 0, 0, DONT_FRAGMENT, 0, hop_limit, PROTOCOL_UDP, 0, 0, a, b, c, d, e, f, g, h]
}

/// The traffic class straddles the first two bytes; its ECN bits are bits 5 and 4 of the second.
#[inline]
fn finish_ipv6(ip: &mut [u8; IPV6_BYTES], udp_bytes: u16, ecn: u8) {
    let [length0, length1] = udp_bytes.to_be_bytes();
    ip[1] = ecn << 4;
    (ip[4], ip[5]) = (length0, length1);
}

/// Appends to a header under construction.
struct Writer {
    bytes: [u8; HEADER_BYTES_MAX],
    used: usize,
}

impl Writer {
    /// `None` never happens: HEADER_BYTES_MAX is the sum of the largest parts.
    fn put(&mut self, part: &[u8]) -> Option<()> {
        let end = self.used + part.len();
        self.bytes.get_mut(self.used..end)?.copy_from_slice(part);
        self.used = end;
        Some(())
    }
}
