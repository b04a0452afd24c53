//! Transport checksums of inner packets: verified, computed, and completed where the kernel left them to hardware that
//! never came (CHECKSUM_PARTIAL). Shared by the TUN device and the LAN port.

use crate::{
    packet::{Fragment, View, protocol},
    vnet::Vnet,
};
use simd::Level;
use std::{net::IpAddr, sync::OnceLock};
use wire::checksum::Sum;

/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM_OFFSET: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM_OFFSET: usize = 6;
/// Offset of the checksum in an ICMP header.
const ICMP_CHECKSUM_OFFSET: usize = 2;

/// The sum of some bytes, by the best vector unit of this CPU.
#[must_use]
#[inline]
pub fn sum(bytes: &[u8]) -> Sum {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    simd::validate::sum(*LEVEL.get_or_init(Level::best), bytes)
}

/// The sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, transport_bytes: usize) -> Sum {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Sum::of(&source.octets()) + Sum::of(&destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Sum::of(&source.octets()) + Sum::of(&destination.octets())
        }
        // A packet's addresses are of one kind.
        _ => Sum::default(),
    };
    addresses + Sum::of(&(transport_bytes as u32).to_be_bytes()) + Sum::of(&[0, protocol])
}

/// What a packet's transport checksum turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// It covers the packet (or UDP over IPv4 says that there is none).
    Good,
    /// It holds the pseudo-header's sum only.
    Partial,
    /// Neither.
    Bad,
    /// No checksum that could be judged: another protocol, a fragment, or cut off.
    Unknown,
}

/// Judges the TCP or UDP checksum of a packet.
#[must_use]
pub fn judge(packet: &[u8], view: &View) -> Transport {
    let Some((transport, offset)) = checksum_of(packet, view) else { return Transport::Unknown };
    let Some(&[c0, c1]) = transport.get(offset..offset + 2) else { return Transport::Unknown };
    if view.protocol == protocol::UDP && [c0, c1] == [0, 0] {
        return if view.source.is_ipv4() { Transport::Good } else { Transport::Bad };
    }
    let pseudo = pseudo_header(view.source, view.destination, view.protocol, transport.len());
    if (pseudo + sum(transport)).folded() == [0xff, 0xff] {
        Transport::Good
    } else if [c0, c1] == pseudo.folded() {
        Transport::Partial
    } else {
        Transport::Bad
    }
}

/// What is left to do to a packet that came without a vnet header: its TCP or UDP checksum, where the field holds the
/// pseudo-header's sum only. A right checksum that happens to be the same (one in 65,536) is computed once more.
#[must_use]
pub fn left_undone(packet: &[u8], view: &View) -> Vnet {
    let Some((transport, offset)) = checksum_of(packet, view) else { return Vnet::NONE };
    let pseudo = pseudo_header(view.source, view.destination, view.protocol, transport.len());
    if transport.get(offset..offset + 2) != Some(&pseudo.folded()) {
        return Vnet::NONE;
    }
    Vnet {
        needs_checksum: true,
        checksum_start: view.transport_offset as u16,
        checksum_offset: offset as u16,
        ..Vnet::NONE
    }
}

/// Completes a TCP or UDP checksum that holds the pseudo-header's sum only. Says what it was before.
pub fn complete(packet: &mut [u8], view: &View) -> Transport {
    let was = judge(packet, view);
    if was == Transport::Partial {
        fill(packet, view);
    }
    was
}

/// Computes the TCP or UDP checksum of a packet, whatever is in its field now. False: there is no such field.
pub fn fill(packet: &mut [u8], view: &View) -> bool {
    let Some(offset) = checksum_of(packet, view).map(|(_, offset)| offset) else { return false };
    let Some(transport) = packet.get_mut(view.transport_offset..view.total_bytes) else { return false };
    fill_transport(transport, offset, view.source, view.destination, view.protocol)
}

/// Computes the checksum at `offset` of a transport header with its payload.
pub(crate) fn fill_transport(
    transport: &mut [u8],
    offset: usize,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
) -> bool {
    let Some(field) = transport.get_mut(offset..offset + 2) else { return false };
    field.copy_from_slice(&[0, 0]);
    let sum = pseudo_header(source, destination, protocol, transport.len()) + sum(transport);
    let checksum = if protocol == protocol::UDP { wire::checksum::sent_udp(sum) } else { sum.checksum() };
    if let Some(field) = transport.get_mut(offset..offset + 2) {
        field.copy_from_slice(&checksum);
    }
    true
}

/// Computes what the kernel left undone by the words of its header: the sum from `start` on goes to `start + offset`,
/// where the pseudo-header's sum is already. False: they point outside the packet.
pub fn complete_at(packet: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(rest) = packet.get_mut(start..) else { return false };
    if rest.get(offset..offset + 2).is_none() {
        return false;
    }
    let checksum = wire::checksum::sent_udp(sum(rest));
    if let Some(field) = rest.get_mut(offset..offset + 2) {
        field.copy_from_slice(&checksum);
    }
    true
}

/// Writes the IPv4 header checksum over the header's own bytes.
pub(crate) fn fill_ipv4_header(header: &mut [u8]) {
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&[0, 0]);
    }
    let checksum = Sum::of(header).checksum();
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&checksum);
    }
}

/// Transport header and payload, and where in it the checksum is.
fn checksum_of<'a>(packet: &'a [u8], view: &View) -> Option<(&'a [u8], usize)> {
    if view.fragment != Fragment::Whole {
        return None;
    }
    let offset = match view.protocol {
        protocol::TCP => TCP_CHECKSUM_OFFSET,
        protocol::UDP => UDP_CHECKSUM_OFFSET,
        _ => return None,
    };
    let transport = packet.get(view.transport_offset..view.total_bytes)?;
    (transport.len() >= offset + 2).then_some((transport, offset))
}

/// Writes the checksum of an ICMP (no pseudo-header) or ICMPv6 message.
pub(crate) fn fill_icmp(message: &mut [u8], source: IpAddr, destination: IpAddr) {
    if let Some(field) = message.get_mut(ICMP_CHECKSUM_OFFSET..ICMP_CHECKSUM_OFFSET + 2) {
        field.copy_from_slice(&[0, 0]);
    }
    let pseudo = match source {
        IpAddr::V4(_) => Sum::default(),
        IpAddr::V6(_) => pseudo_header(source, destination, protocol::ICMPV6, message.len()),
    };
    let checksum = (pseudo + sum(message)).checksum();
    if let Some(field) = message.get_mut(ICMP_CHECKSUM_OFFSET..ICMP_CHECKSUM_OFFSET + 2) {
        field.copy_from_slice(&checksum);
    }
}
