//! The datagram in a frame as etherparse reads it: the oracle of our parser.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LinkExtSlice, LinkSlice, NetSlice, SlicedPacket, TransportSlice, UdpSlice};
use wire::{
    Path,
    datagram::{Datagram, Vlan, Vlans},
};

/// What `wire::datagram::parse` must return, or `None` where it must refuse.
pub(crate) fn read(frame: &[u8]) -> Option<Datagram> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { return None };
    let vlans = vlans(ethernet.ether_type().0, &packet)?;
    let (source, destination, traffic_class, hop_limit) = ip(packet.net.as_ref()?)?;
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
    // etherparse takes a zero length for a jumbogram.
    if udp.length() == 0 {
        return None;
    }
    let start = offset(frame, udp) + 8;
    Some(Datagram {
        path: Path {
            local: SocketAddr::new(destination, udp.destination_port()),
            remote: SocketAddr::new(source, udp.source_port()),
        },
        ecn_bits: traffic_class & 0b11,
        hop_limit,
        payload: start..start + udp.payload().len(),
        vlans,
        src_mac: ethernet.source(),
        dst_mac: ethernet.destination(),
        udp_checksum: udp.checksum(),
    })
}

fn offset(frame: &[u8], udp: &UdpSlice<'_>) -> usize {
    udp.slice().as_ptr() as usize - frame.as_ptr() as usize
}

/// 0x9100 and MACsec are etherparse's to read, not ours.
fn vlans(mut tpid: u16, packet: &SlicedPacket<'_>) -> Option<Vlans> {
    let mut tags = Vec::new();
    for extension in &packet.link_exts {
        let LinkExtSlice::Vlan(tag) = extension else { return None };
        if !matches!(tpid, 0x8100 | 0x88a8) {
            return None;
        }
        let [high, low, ..] = tag.header_slice() else { return None };
        tags.push(Vlan { tpid, tci: u16::from_be_bytes([*high, *low]) });
        tpid = tag.ether_type().0;
    }
    Vlans::new(&tags)
}

/// Source, destination, traffic class and hop limit of what isn't a fragment and has neither options nor extension
/// headers, and whose header checksum is right.
fn ip(net: &NetSlice<'_>) -> Option<(IpAddr, IpAddr, u8, u8)> {
    match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let bad = header.ihl() != 5
                || ip.is_payload_fragmented()
                || header.protocol().0 != 17
                // Not etherparse's checksum: its header forgets the reserved flag.
                || super::reference(header.slice()) != 0xffff;
            let class = header.slice()[1];
            (!bad)
                .then(|| (header.source_addr().into(), header.destination_addr().into(), class, header.ttl()))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            // As for UDP: zero isn't a jumbogram here.
            let bad = header.next_header().0 != 17 || header.payload_length() == 0;
            let (source, destination) = (header.source_addr().into(), header.destination_addr().into());
            (!bad).then(|| (source, destination, header.traffic_class(), header.hop_limit()))
        }
        _ => None,
    }
}
