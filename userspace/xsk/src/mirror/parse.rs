//! rtnetlink messages to the mirror's tables. Pure functions; what they don't understand they leave out.

use super::tables::{Link, NextHop, Route};
use crate::Unmirrored;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType,
        RouteVia,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::datagram::{Mac, Vlan};

const TABLE_DEFAULT: u32 = 253;
const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;

/// Index and contents of a link.
pub(crate) fn link(message: &LinkMessage) -> (u32, Link) {
    let flags = message.header.flags;
    let mut link = Link {
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        vlan: None,
    };
    let (mut below, mut tag, mut elsewhere) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = Mac::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => below = Some(*index),
            // The device below lives in another namespace, where its index means another device.
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => tag = vlan_tag(infos).or(tag),
            _ => {}
        }
    }
    if !elsewhere {
        link.vlan = below.zip(tag);
    }
    (message.header.index, link)
}

fn vlan_tag(infos: &[LinkInfo]) -> Option<Vlan> {
    let vlan = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(vlan)) => Some(vlan),
        _ => None,
    })?;
    let mut tag = Vlan { tpid: 0x8100, tci: 0 };
    for attribute in vlan {
        match attribute {
            InfoVlan::Id(id) => tag.tci = *id,
            InfoVlan::Protocol(protocol) => tag.tpid = (*protocol).into(),
            _ => {}
        }
    }
    Some(tag)
}

/// Link and address of a local address.
pub(crate) fn address(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // On point-to-point links IFA_ADDRESS is the peer's and IFA_LOCAL ours; IPv6 has only the former.
            AddressAttribute::Local(ip) => return Some((message.header.index, *ip)),
            AddressAttribute::Address(ip) => found = Some((message.header.index, *ip)),
            _ => {}
        }
    }
    found
}

/// What a neighbour message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeighbourEvent {
    pub(crate) key: (u32, IpAddr),
    /// `None` while the kernel holds no valid address.
    pub(crate) mac: Option<Mac>,
    /// Known, but not confirmed for a while.
    pub(crate) stale: bool,
}

/// A neighbour entry, as announced by RTM_NEWNEIGH or withdrawn by RTM_DELNEIGH.
pub(crate) fn neighbour(message: &NeighbourMessage) -> Option<NeighbourEvent> {
    let (mut to, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => to = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => to = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    let state = message.header.state;
    let valid = !matches!(state, NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None);
    Some(NeighbourEvent {
        key: (message.header.ifindex, to?),
        mac: mac.filter(|_| valid),
        stale: state == NeighbourState::Stale,
    })
}

/// A route of the main table: prefix, its length, contents. `Err` when it makes routing depend on more than the
/// destination (source prefixes), so that the mirror can't tell where packets go.
pub(crate) fn route(message: &RouteMessage) -> Result<Option<(IpAddr, u8, Route)>, SourceRouted> {
    let header = &message.header;
    let (mut table, mut metric, mut prefix) = (u32::from(header.table), 0, None);
    let (mut link, mut gateway, mut multipath, mut encapsulated) = (None, None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Destination(to) => prefix = address_of(to),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(by) => gateway = address_of(by),
            RouteAttribute::Via(by) => gateway = via(by),
            RouteAttribute::MultiPath(hops) => multipath = Some(hops),
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => encapsulated = true,
            _ => {}
        }
    }
    // A route for one type of service is none for QUIC, which leaves DSCP at zero; cached clones aren't routes.
    if table != TABLE_MAIN || header.tos != 0 || header.flags.contains(RouteFlags::Cloned) {
        return Ok(None);
    }
    if header.source_prefix_length != 0 {
        return Err(SourceRouted);
    }
    let prefix = match header.address_family {
        AddressFamily::Inet => prefix.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => prefix.unwrap_or(Ipv6Addr::UNSPECIFIED.into()),
        _ => return Ok(None),
    };
    let usable = !encapsulated && !header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
    let hops = match (header.kind, multipath, link) {
        (RouteType::Unicast, Some(hops), _) => hops.iter().map(next_hop).collect(),
        (RouteType::Unicast, None, Some(link)) => vec![NextHop { link, gateway, usable }],
        // Unreachable, blackhole, prohibit, throw: the kernel answers these, by not sending.
        _ => Vec::new(),
    };
    Ok(Some((prefix, header.destination_prefix_length, Route { metric, hops })))
}

/// Marks a route that looks at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceRouted;

fn next_hop(hop: &RouteNextHop) -> NextHop {
    let (mut gateway, mut encapsulated) = (None, false);
    for attribute in &hop.attributes {
        match attribute {
            RouteAttribute::Gateway(by) => gateway = address_of(by),
            RouteAttribute::Via(by) => gateway = via(by),
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => encapsulated = true,
            _ => {}
        }
    }
    let broken = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown | RouteNextHopFlags::Unresolved;
    NextHop { link: hop.interface_index, gateway, usable: !encapsulated && !hop.flags.intersects(broken) }
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn via(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteVia::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// A rule, unless it is one of the three that every host has: look into `local`, `main`, `default`, for every packet.
pub(crate) fn odd_rule(message: &RuleMessage) -> Option<Unmirrored> {
    let header = &message.header;
    let (mut table, mut priority, mut odd) = (u32::from(header.table), 0, false);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(id) => table = *id,
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::Protocol(_) => {}
            // iproute2's default; -1 means "nothing suppressed".
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            _ => odd = true,
        }
    }
    let is_ordinary = !odd
        && header.action == RuleAction::ToTable
        && (header.src_len, header.dst_len, header.tos) == (0, 0, 0)
        && matches!(table, TABLE_LOCAL | TABLE_MAIN | TABLE_DEFAULT);
    (!is_ordinary).then_some(Unmirrored::Rule { is_ipv6: header.family == AddressFamily::Inet6, priority })
}
