//! The interfaces of this network namespace.

use crate::{mirror::parse, netlink::Requests, sys};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};
use std::{io, net::IpAddr};
use wire::datagram::Mac;

/// A network interface, as rtnetlink tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its driver, where it has one to tell.
    pub driver: Option<String>,
    /// The largest IP packet.
    pub mtu: u32,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Whether frames on it are Ethernet's, and it isn't the loopback.
    pub is_ethernet: bool,
    /// Administratively up.
    pub up: bool,
    /// Something is at the other end.
    pub has_carrier: bool,
    /// What made it: `veth`, `bridge`, `vlan`, `macvlan`, `bond` ...; `None` for a NIC.
    pub kind: Option<String>,
    /// The interface that this one stands on (a VLAN's, a macvlan's), in this namespace.
    pub below: Option<u32>,
    /// The interface that this one belongs to (a bridge, a bond).
    pub master: Option<u32>,
}

/// All of them.
///
/// # Errors
/// The kernel can't be asked.
pub fn links() -> io::Result<Vec<Link>> {
    let answer = Requests::open()?.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let links = answer.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(message) => Some(link(message)),
        _ => None,
    });
    Ok(links.map(|link| Link { driver: sys::driver(&link.name), ..link }).collect())
}

/// The addresses of one of them.
///
/// # Errors
/// The kernel can't be asked.
pub fn addresses(interface: u32) -> io::Result<Vec<IpAddr>> {
    let answer = Requests::open()?.dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let addresses = answer.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(message) => parse::address(message),
        _ => None,
    });
    Ok(addresses.filter(|(index, _)| *index == interface).map(|(_, address)| address).collect())
}

fn link(message: &LinkMessage) -> Link {
    let header = &message.header;
    let mut link = Link {
        index: header.index,
        is_ethernet: matches!(header.link_layer_type, LinkLayerType::Ether),
        up: header.flags.contains(LinkFlags::Up),
        has_carrier: header.flags.contains(LinkFlags::LowerUp),
        ..Link::default()
    };
    let mut elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = Mac::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Controller(master) => link.master = (*master != 0).then_some(*master),
            LinkAttribute::Link(below) => link.below = Some(*below),
            // A veth's peer, or a device below, that lives in another namespace.
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => link.kind = infos.iter().find_map(kind).or(link.kind.take()),
            _ => {}
        }
    }
    // A veth's "link" is its other end: it stands on nothing.
    if elsewhere || link.kind.as_deref() == Some("veth") {
        link.below = None;
    }
    link
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what a link belongs to and stands on is read; a veth's peer is no device below.
    use super::*;
    use netlink_packet_route::link::InfoKind;

    fn message(kind: Option<InfoKind>, more: &[LinkAttribute]) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = vec![LinkAttribute::IfName("x0".into()), LinkAttribute::Mtu(1500)];
        message.attributes.extend(kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])));
        message.attributes.extend_from_slice(more);
        message
    }

    #[test]
    fn masters_and_devices_below() {
        let nic =
            Link { index: 7, name: "x0".into(), mtu: 1500, is_ethernet: true, up: true, ..Link::default() };
        assert_eq!(link(&message(None, &[])), nic);
        let member = link(&message(None, &[LinkAttribute::Controller(3)]));
        assert_eq!(member, Link { master: Some(3), ..nic.clone() });
        let vlan = link(&message(Some(InfoKind::Vlan), &[LinkAttribute::Link(2)]));
        assert_eq!(vlan, Link { kind: Some("vlan".into()), below: Some(2), ..nic.clone() });
        let veth = link(&message(Some(InfoKind::Veth), &[LinkAttribute::Link(2)]));
        assert_eq!(veth, Link { kind: Some("veth".into()), ..nic });
    }

    #[test]
    fn the_loopback_is_no_ethernet() {
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(!lo.is_ethernet && lo.master.is_none());
    }
}
