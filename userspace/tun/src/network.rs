//! What the kernel is told about a device: up, MTU, addresses, routes. All of it goes with the device.

use crate::{error::NetworkError, netlink::Requests};
use ip::Prefix;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use std::{fmt, io, net::IpAddr};

/// One device, by its index.
pub struct Network {
    name: String,
    index: u32,
    requests: Requests,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("name", &self.name)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// The interface `name`, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If there is none, or no netlink.
    pub fn of(name: &str) -> io::Result<Self> {
        // Any socket serves as the handle of the question.
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
        let index = rustix::net::netdevice::name_to_index(&socket, name)?;
        Ok(Self { name: name.into(), index, requests: Requests::open()? })
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets the MTU and brings the interface up, with room for `queue_count` packets on their way to the worker.
    /// No link-local address is made: nothing in a tunnel could answer to it.
    ///
    /// # Errors
    /// With the command that does the same.
    pub fn bring_up(&mut self, mtu_bytes: usize, queue_count: usize) -> Result<(), NetworkError> {
        let mut quiet = self.link();
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        quiet.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        // A host without IPv6 says no, and needs none of it.
        let _ = self.requests.act(RouteNetlinkMessage::SetLink(quiet), 0);
        let mut link = self.link();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.push(LinkAttribute::Mtu(mtu_bytes as u32));
        link.attributes.push(LinkAttribute::TxQueueLen(queue_count as u32));
        let command = format!("ip link set {} up mtu {mtu_bytes} txqueuelen {queue_count}", self.name);
        self.act(RouteNetlinkMessage::SetLink(link), 0, "can't bring the TUN device up", command)
    }

    /// For the counters that the kernel keeps of the device.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Changes the MTU.
    ///
    /// # Errors
    /// As [`Self::bring_up`].
    pub fn set_mtu(&mut self, mtu_bytes: usize) -> Result<(), NetworkError> {
        let mut link = self.link();
        link.attributes.push(LinkAttribute::Mtu(mtu_bytes as u32));
        let command = format!("ip link set {} mtu {mtu_bytes}", self.name);
        self.act(RouteNetlinkMessage::SetLink(link), 0, "can't set the MTU", command)
    }

    /// Gives the interface an address; `length` says which of its neighbours are behind it, too.
    ///
    /// # Errors
    /// As [`Self::bring_up`].
    pub fn add_address(&mut self, address: IpAddr, length: u8) -> Result<(), NetworkError> {
        let command = format!("ip address replace {address}/{length} dev {}", self.name);
        let message = RouteNetlinkMessage::NewAddress(self.address(address, length));
        self.act(message, NLM_F_CREATE | NLM_F_REPLACE, "can't set the address", command)
    }

    /// Takes an address away. One that isn't there is no error.
    ///
    /// # Errors
    /// As [`Self::bring_up`].
    pub fn remove_address(&mut self, address: IpAddr, length: u8) -> Result<(), NetworkError> {
        let command = format!("ip address del {address}/{length} dev {}", self.name);
        let message = RouteNetlinkMessage::DelAddress(self.address(address, length));
        gone_is_fine(self.act(message, 0, "can't remove the address", command), libc::EADDRNOTAVAIL)
    }

    /// Routes a prefix into the interface, from the address `source` where there is one.
    ///
    /// # Errors
    /// As [`Self::bring_up`]; also if somebody else's route to that prefix is there.
    pub fn add_route(&mut self, prefix: Prefix, source: Option<IpAddr>) -> Result<(), NetworkError> {
        let command = format!("ip route add {prefix} dev {}; see: ip route show {prefix}", self.name);
        let message = RouteNetlinkMessage::NewRoute(self.route(prefix, source));
        let what = format!("can't set the route to {prefix}");
        self.act(message, NLM_F_CREATE | NLM_F_EXCL, &what, command)
    }

    /// Takes a route away. One that isn't there is no error.
    ///
    /// # Errors
    /// As [`Self::bring_up`].
    pub fn remove_route(&mut self, prefix: Prefix) -> Result<(), NetworkError> {
        let command = format!("ip route del {prefix} dev {}", self.name);
        let message = RouteNetlinkMessage::DelRoute(self.route(prefix, None));
        gone_is_fine(self.act(message, 0, "can't remove the route", command), libc::ESRCH)
    }

    fn link(&self) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = self.index;
        link
    }

    fn address(&self, address: IpAddr, length: u8) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = length;
        message.header.index = self.index;
        if address.is_ipv6() {
            // Nobody else can have it: an address that waits for proof can't be used for its first second.
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        message
    }

    fn route(&self, prefix: Prefix, source: Option<IpAddr>) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(prefix.first());
        header.destination_prefix_length = prefix.length();
        header.table = 254; // main
        header.protocol = RouteProtocol::Static;
        header.scope = if prefix.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
        header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Destination(prefix.first().into()));
        message.attributes.push(RouteAttribute::Oif(self.index));
        message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
        message
    }

    fn act(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &str,
        command: String,
    ) -> Result<(), NetworkError> {
        self.requests.act(message, flags).map_err(|error| NetworkError {
            what: format!("{}: {what}", self.name),
            error,
            command,
        })
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn gone_is_fine(result: Result<(), NetworkError>, gone: i32) -> Result<(), NetworkError> {
    match result {
        Err(failure) if failure.error.raw_os_error() == Some(gone) => Ok(()),
        other => other,
    }
}

/// Packets on their way to the workers that found the device's queue full; 0 where the kernel doesn't say.
pub(crate) fn queue_full(index: u32) -> u64 {
    let link = Requests::open().and_then(|mut requests| requests.link(index));
    let found = link.ok().and_then(|link| {
        link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(stats.tx_dropped),
            _ => None,
        })
    });
    found.unwrap_or(0)
}
