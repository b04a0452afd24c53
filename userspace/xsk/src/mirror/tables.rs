//! Links, local addresses, routes and neighbours as plain tables, and the question that a worker asks of them:
//! how does a packet to this address leave by our interface?
//!
//! Each table is behind its own `Arc`: a snapshot is four reference counts, and a change copies one table.

use crate::Unmirrored;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use wire::datagram::{Mac, Vlan, Vlans};

/// Routes beyond this make the mirror unusable (all goes by the kernel), not wrong.
pub(crate) const ROUTE_COUNT_MAX: usize = 1 << 16;
/// Neighbours beyond this aren't mirrored: their packets go by the kernel.
pub(crate) const NEIGHBOUR_COUNT_MAX: usize = 1 << 14;
/// VLAN devices on top of each other that are looked through.
const VLAN_DEPTH_MAX: usize = 2;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    /// IFF_UP.
    pub(crate) up: bool,
    /// IFF_LOWER_UP.
    pub(crate) carrier: bool,
    /// For a VLAN device: the device below, and the tag.
    pub(crate) vlan: Option<(u32, Vlan)>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NextHop {
    pub(crate) link: u32,
    pub(crate) gateway: Option<IpAddr>,
    /// Dead, link down, or a tunnel encapsulation that isn't ours to make.
    pub(crate) usable: bool,
}

/// One route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) metric: u32,
    /// Empty: unreachable, blackhole and their like.
    pub(crate) hops: Vec<NextHop>,
}

/// Routes of the main table, by prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// Prefix length -> masked prefix -> routes, lowest metric first.
    v4: BTreeMap<u8, HashMap<u128, Vec<Route>>>,
    v6: BTreeMap<u8, HashMap<u128, Vec<Route>>>,
    count: usize,
    /// Why the main table alone, as far as it is here, doesn't say where packets go.
    pub(crate) beyond_mirror: Option<Unmirrored>,
}

impl Routes {
    /// Adds a route.
    pub(crate) fn insert(&mut self, prefix: IpAddr, prefix_len: u8, route: Route) {
        if self.count == ROUTE_COUNT_MAX {
            self.beyond_mirror.get_or_insert(Unmirrored::TooManyRoutes { max: ROUTE_COUNT_MAX });
            return;
        }
        self.count += 1;
        let (family, width) = match prefix {
            IpAddr::V4(_) => (&mut self.v4, 32),
            IpAddr::V6(_) => (&mut self.v6, 128),
        };
        let prefix_len = prefix_len.min(width);
        let routes = family.entry(prefix_len).or_default().entry(masked(prefix, prefix_len)).or_default();
        let at = routes.partition_point(|other| other.metric <= route.metric);
        routes.insert(at, route);
    }

    /// Every prefix with a route.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        let v4 = self.v4.iter().flat_map(|(&length, prefixes)| {
            prefixes.keys().map(move |&bits| (IpAddr::V4(Ipv4Addr::from_bits(bits as u32)), length))
        });
        let v6 = self.v6.iter().flat_map(|(&length, prefixes)| {
            prefixes.keys().map(move |&bits| (IpAddr::V6(Ipv6Addr::from_bits(bits)), length))
        });
        v4.chain(v6)
    }

    /// Routes of the longest prefix that covers `to`, lowest metric first.
    fn lookup(&self, to: IpAddr) -> &[Route] {
        let family = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        family
            .iter()
            .rev()
            .find_map(|(&prefix_len, prefixes)| prefixes.get(&masked(to, prefix_len)))
            .map_or(&[], Vec::as_slice)
    }
}

fn masked(address: IpAddr, prefix_len: u8) -> u128 {
    let (bits, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    match width - u32::from(prefix_len).min(width) {
        128 => 0,
        host_bits => bits >> host_bits << host_bits,
    }
}

/// Whether workers send to a neighbour: set by them, taken by the control thread that keeps it alive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used(Arc<AtomicBool>);

impl Used {
    /// Reads first: the line is shared with other workers.
    #[inline]
    pub(crate) fn mark(&self) {
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was since the last time.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// A neighbour whose MAC address the kernel holds valid.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    pub(crate) mac: Mac,
    pub(crate) used: Used,
}

/// How a packet leaves.
#[derive(Clone, Debug)]
pub(crate) struct Hop {
    pub(crate) dst_mac: Mac,
    pub(crate) src_mac: Mac,
    pub(crate) vlans: Vlans,
    /// Largest IP packet.
    pub(crate) mtu: u32,
    pub(crate) used: Used,
}

/// Why a packet doesn't leave by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// It is for many, for nobody, or for this host.
    NotThere,
    /// There is no route, it leads elsewhere, or only the kernel knows where.
    Elsewhere,
    /// The MAC address of this neighbour isn't known.
    Neighbour((u32, IpAddr)),
}

/// The mirror's contents at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    pub(crate) links: Arc<BTreeMap<u32, Link>>,
    pub(crate) addresses: Arc<BTreeSet<(u32, IpAddr)>>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) neighbours: Arc<HashMap<(u32, IpAddr), Neighbour>>,
}

impl Tables {
    /// How a packet from one end to the other leaves by `interface`; `None` when the kernel would send it elsewhere,
    /// or would have to ask for the neighbour first.
    pub(crate) fn resolve(&self, interface: u32, local: &SocketAddr, remote: &SocketAddr) -> Option<Hop> {
        self.hop(interface, local, remote).ok()
    }

    /// The device and the address of the neighbour that packets to `remote` go to, if that is by `interface` and its MAC
    /// address is missing.
    pub(crate) fn neighbour_towards(
        &self,
        interface: u32,
        local: &SocketAddr,
        remote: &SocketAddr,
    ) -> Option<(u32, IpAddr)> {
        match self.hop(interface, local, remote) {
            Err(Miss::Neighbour(neighbour)) => Some(neighbour),
            _ => None,
        }
    }

    /// How a packet from one end to the other leaves by `interface`.
    pub(crate) fn hop(&self, interface: u32, local: &SocketAddr, remote: &SocketAddr) -> Result<Hop, Miss> {
        let to = remote.ip();
        if to.is_multicast() || to.is_unspecified() || self.is_local(to) {
            return Err(Miss::NotThere);
        }
        if self.routes.beyond_mirror.is_some() {
            return Err(Miss::Elsewhere);
        }
        let (link, next) = self.next_hop(interface, local, remote).ok_or(Miss::Elsewhere)?;
        let device = self.links.get(&link).ok_or(Miss::Elsewhere)?;
        let vlans = self.tags(interface, link).ok_or(Miss::Elsewhere)?;
        let neighbour = self.neighbours.get(&(link, next)).ok_or(Miss::Neighbour((link, next)))?;
        Ok(Hop {
            dst_mac: neighbour.mac,
            src_mac: device.mac.ok_or(Miss::Elsewhere)?,
            vlans,
            mtu: device.mtu,
            used: neighbour.used.clone(),
        })
    }

    fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|&(_, local)| local == address)
    }

    /// The device and the neighbour on it.
    fn next_hop(&self, interface: u32, local: &SocketAddr, remote: &SocketAddr) -> Option<(u32, IpAddr)> {
        let to = remote.ip();
        let routes = self.routes.lookup(to);
        // Every device has its own fe80::/64; the packet stays on the one that it came by.
        let link_local = matches!(to, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let route = if link_local {
            routes
                .iter()
                .find(|route| route.hops.iter().any(|hop| self.tags(interface, hop.link).is_some()))?
        } else {
            routes.first()?
        };
        let usable: Vec<&NextHop> = route.hops.iter().filter(|hop| hop.usable).collect();
        let hop = match usable.as_slice() {
            [] => return None,
            [only] => only,
            // Multipath: one flow stays on one path. The kernel's hash may choose another, which is as good.
            several => several.get(flow_hash(local, remote) % several.len())?,
        };
        Some((hop.link, hop.gateway.unwrap_or(to)))
    }

    /// The VLAN tags, outermost first, that a packet of device `link` carries on `interface` below it; `None` when
    /// `link` isn't `interface` nor a VLAN on it, or when one of them is down.
    fn tags(&self, interface: u32, link: u32) -> Option<Vlans> {
        let mut tags = [Vlan::default(); VLAN_DEPTH_MAX];
        let (mut at, mut count) = (link, 0);
        loop {
            let device = self.links.get(&at)?;
            if !device.up || !device.carrier {
                return None;
            }
            if at == interface {
                break;
            }
            let (below, tag) = device.vlan?;
            *tags.get_mut(count)? = tag;
            count += 1;
            at = below;
        }
        let tags = tags.get_mut(..count)?;
        tags.reverse();
        Vlans::new(tags)
    }
}

fn flow_hash(local: &SocketAddr, remote: &SocketAddr) -> usize {
    let mut hasher = DefaultHasher::new();
    (local, remote).hash(&mut hasher);
    hasher.finish() as usize
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
