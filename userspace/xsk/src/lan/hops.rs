//! Ethernet headers by destination, cached by a worker.

use crate::{
    generation::Cache,
    mirror::{Miss, Tables, Used},
};
use std::net::{IpAddr, SocketAddr};
use wire::{
    datagram::Mac,
    headers::{
        ETHERNET_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IpVersion, VLAN_BYTES, VLAN_COUNT_MAX, mapped,
    },
    inner::is_forwardable,
};

const HEADER_BYTES_MAX: usize = ETHERNET_BYTES + VLAN_COUNT_MAX * VLAN_BYTES;

/// How to send to one destination.
pub(super) struct Hop {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    /// Largest IP packet.
    pub(super) mtu_bytes: usize,
    used: Used,
}

impl Hop {
    /// The Ethernet header, tags included.
    #[inline]
    pub(super) fn header(&self) -> &[u8] {
        &self.header[..self.header_bytes]
    }

    /// Marks the neighbour as used.
    #[inline]
    pub(super) fn mark_used(&self) {
        self.used.mark();
    }
}

/// The headers by destination.
pub(super) type Hops = Cache<IpAddr, Hop>;

/// How to send to `to`. Where several next hops share the load, `from` has a say in which of them it is.
#[cold]
pub(super) fn resolve(tables: &Tables, interface: u32, from: IpAddr, to: IpAddr) -> Result<Hop, Miss> {
    let may_be_forwarded = match to {
        IpAddr::V4(ip) => is_forwardable(IpVersion::V4, mapped(ip.octets())),
        IpAddr::V6(ip) => is_forwardable(IpVersion::V6, ip.octets()),
    };
    if !may_be_forwarded {
        return Err(Miss::NotThere);
    }
    let hop = tables.hop(interface, &SocketAddr::new(from, 0), &SocketAddr::new(to, 0))?;
    // The broadcast address of a subnet on the LAN: nobody far away has a say there (RFC 2644).
    if is_group(&hop.dst_mac) {
        return Err(Miss::NotThere);
    }
    let mut made =
        Hop { header: [0; HEADER_BYTES_MAX], header_bytes: 0, mtu_bytes: hop.mtu as usize, used: hop.used };
    let ethertype = if to.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    let tags = hop.vlans.as_slice().iter().map(|tag| [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()]);
    let parts = [hop.dst_mac.as_slice(), hop.src_mac.as_slice()].concat();
    let parts = parts.into_iter().chain(tags.flatten().flatten()).chain(ethertype.to_be_bytes());
    for (to, from) in made.header.iter_mut().zip(parts) {
        *to = from;
        made.header_bytes += 1;
    }
    Ok(made)
}

fn is_group(mac: &Mac) -> bool {
    mac[0] & 1 != 0
}
