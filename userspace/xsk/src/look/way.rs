//! How a packet to an address leaves this host, by the kernel's own decision (policy rules and all).

use crate::netlink::Requests;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use std::{io, net::IpAddr};
use wire::datagram::Mac;

/// The kernel's choice for one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface that it leaves by.
    pub link: u32,
    /// The router, if there is one between.
    pub gateway: Option<IpAddr>,
    /// The address that it leaves with.
    pub source: Option<IpAddr>,
    /// The destination is this host.
    pub is_local: bool,
}

/// Asks which way a packet `to` an address takes.
///
/// # Errors
/// ENETUNREACH and its like where there is none.
pub fn way(to: IpAddr) -> io::Result<Way> {
    let mut question = RouteMessage::default();
    let (family, length, address) = match to {
        IpAddr::V4(ip) => (AddressFamily::Inet, 32, RouteAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(ip)),
    };
    question.header.address_family = family;
    question.header.destination_prefix_length = length;
    question.attributes.push(RouteAttribute::Destination(address));
    match Requests::open()?.get(RouteNetlinkMessage::GetRoute(question))? {
        RouteNetlinkMessage::NewRoute(answer) => read(&answer),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn read(answer: &RouteMessage) -> io::Result<Way> {
    let (mut link, mut gateway, mut source) = (None, None, None);
    for attribute in &answer.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(by) => gateway = ip(by),
            RouteAttribute::PrefSource(from) => source = ip(from),
            _ => {}
        }
    }
    // IPv6 answers a destination without a route by one that rejects.
    match (answer.header.kind, link) {
        (RouteType::Unicast, Some(link)) => Ok(Way { link, gateway, source, is_local: false }),
        (RouteType::Local, Some(link)) => Ok(Way { link, gateway, source, is_local: true }),
        _ => Err(io::Error::from_raw_os_error(libc::ENETUNREACH)),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// Whether the kernel knows the link-layer address of `ip` on an interface: `Some(true)` if it does, `Some(false)` if it
/// asked in vain, `None` if it has not asked, or has no answer yet.
///
/// # Errors
/// The kernel can't be asked.
pub fn neighbour(link: u32, ip: IpAddr) -> io::Result<Option<bool>> {
    let messages = Requests::open()?.dump(&RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?;
    let found = messages.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewNeighbour(message) if is_of(message, link, ip) => Some(message.header.state),
        _ => None,
    });
    Ok(found.and_then(|state| match state {
        NeighbourState::Failed => Some(false),
        NeighbourState::Incomplete | NeighbourState::None => None,
        _ => Some(true),
    }))
}

/// The link-layer address that the kernel has for `ip` on an interface; `None` where it has none that is an Ethernet
/// station's own.
///
/// # Errors
/// The kernel can't be asked.
pub fn neighbour_mac(link: u32, ip: IpAddr) -> io::Result<Option<Mac>> {
    let messages = Requests::open()?.dump(&RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?;
    Ok(messages
        .iter()
        .find_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) if is_of(message, link, ip) => {
                message.attributes.iter().find_map(|attribute| match attribute {
                    NeighbourAttribute::LinkLayerAddress(bytes) => Mac::try_from(bytes.as_slice()).ok(),
                    _ => None,
                })
            }
            _ => None,
        })
        .filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]))
}

fn is_of(message: &NeighbourMessage, link: u32, ip: IpAddr) -> bool {
    let address = match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    };
    message.header.ifindex == link
        && message
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, NeighbourAttribute::Destination(to) if *to == address))
}

#[cfg(test)]
mod tests {
    //! Goal: the way to this host itself is found; an answer that rejects is no way.
    use super::*;

    #[test]
    fn loopback_is_local() {
        let way = way(IpAddr::from([127, 0, 0, 1])).unwrap();
        assert!(way.is_local && way.gateway.is_none(), "{way:?}");
        assert_eq!(neighbour(u32::MAX >> 1, IpAddr::from([127, 0, 0, 1])).unwrap(), None);
    }

    #[test]
    fn a_route_that_rejects_is_none() {
        let mut answer = RouteMessage::default();
        answer.header.kind = RouteType::Unreachable;
        answer.attributes.push(RouteAttribute::Oif(1));
        assert_eq!(read(&answer).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
        answer.header.kind = RouteType::Unicast;
        assert_eq!(read(&answer).unwrap(), Way { link: 1, gateway: None, source: None, is_local: false });
    }
}
