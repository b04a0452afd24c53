//! The control thread's own copy of the tables: what events change, and what has to be asked for anew.

use super::{
    parse::{self, NeighbourEvent},
    tables::{NEIGHBOUR_COUNT_MAX, Neighbour, Routes, Tables},
};
use crate::{Unmirrored, netlink::Requests};
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::LinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
    route::RouteMessage,
    rule::RuleMessage,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// A stale neighbour in use is brought to the kernel's attention at most this often; the kernel's own probing takes
/// `delay_first_probe_time` (5 s) and three solicitations a second apart.
const NEIGHBOUR_USE_INTERVAL: Duration = Duration::from_secs(10);

/// What changed since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Readers would decide otherwise.
    pub(super) publish: bool,
    /// Local addresses or routes came or went.
    pub(super) addresses: bool,
    /// Some link is another than before.
    pub(super) links: bool,
    /// Routes may have: they are asked for anew, because the kernel doesn't announce the IPv4 routes that go with a
    /// link or an address, and says of an IPv6 route only that some next hop was appended.
    pub(super) routes: bool,
}

/// Tables in the making.
#[derive(Default)]
pub(super) struct Working {
    pub(super) tables: Tables,
    /// Stale neighbours, and when the kernel was last told that one is in use.
    stale: HashMap<(u32, IpAddr), Option<Instant>>,
    /// Neighbours that didn't fit.
    neighbours_left_out: u64,
}

impl Working {
    /// Asks for everything.
    pub(super) fn reload(&mut self, requests: &mut Requests) -> io::Result<()> {
        let mut links = BTreeMap::new();
        for message in requests.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
            if let RouteNetlinkMessage::NewLink(message) = message {
                let (index, link) = parse::link(&message);
                links.insert(index, link);
            }
        }
        let mut addresses = BTreeSet::new();
        for message in requests.dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                addresses.extend(parse::address(&message));
            }
        }
        self.tables.links = Arc::new(links);
        self.tables.addresses = Arc::new(addresses);
        self.reload_routes(requests)?;
        // Kept: the `used` marks, which workers hold.
        let known = std::mem::take(&mut self.tables.neighbours);
        self.stale.clear();
        for message in requests.dump(&RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))? {
            if let RouteNetlinkMessage::NewNeighbour(message) = message
                && let Some(event) = parse::neighbour(&message)
            {
                self.neighbour(event);
            }
        }
        for (key, neighbour) in Arc::make_mut(&mut self.tables.neighbours) {
            if let Some(old) = known.get(key) {
                neighbour.used = old.used.clone();
            }
        }
        Ok(())
    }

    /// Asks for routes and rules. True when they are others than before.
    pub(super) fn reload_routes(&mut self, requests: &mut Requests) -> io::Result<bool> {
        let mut routes = Routes::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            for message in dump_or_nothing(requests, &RouteNetlinkMessage::GetRoute(question))? {
                let RouteNetlinkMessage::NewRoute(message) = message else { continue };
                match parse::route(&message) {
                    Ok(Some((prefix, prefix_len, route))) => routes.insert(prefix, prefix_len, route),
                    Ok(None) => {}
                    Err(parse::SourceRouted) => {
                        routes.beyond_mirror.get_or_insert(Unmirrored::SourceRoute);
                    }
                }
            }
            let mut question = RuleMessage::default();
            question.header.family = family;
            for message in dump_or_nothing(requests, &RouteNetlinkMessage::GetRule(question))? {
                if let RouteNetlinkMessage::NewRule(message) = message {
                    routes.beyond_mirror = routes.beyond_mirror.or_else(|| parse::odd_rule(&message));
                }
            }
        }
        let changed = *self.tables.routes != routes;
        if changed {
            self.tables.routes = Arc::new(routes);
        }
        Ok(changed)
    }

    /// Applies one event.
    pub(super) fn apply(&mut self, message: RouteNetlinkMessage, changes: &mut Changes) {
        match message {
            RouteNetlinkMessage::NewLink(message) => {
                let (index, link) = parse::link(&message);
                // Bridge ports are announced a second time, in their bridge's words.
                if message.header.interface_family == AddressFamily::Unspec
                    && self.tables.links.get(&index) != Some(&link)
                {
                    Arc::make_mut(&mut self.tables.links).insert(index, link);
                    (changes.publish, changes.routes, changes.links) = (true, true, true);
                }
            }
            RouteNetlinkMessage::DelLink(message)
                if message.header.interface_family == AddressFamily::Unspec =>
            {
                Arc::make_mut(&mut self.tables.links).remove(&message.header.index);
                (changes.publish, changes.routes, changes.links) = (true, true, true);
            }
            RouteNetlinkMessage::NewAddress(message) => self.address(parse::address(&message), true, changes),
            RouteNetlinkMessage::DelAddress(message) => {
                self.address(parse::address(&message), false, changes)
            }
            RouteNetlinkMessage::NewNeighbour(message) => {
                if let Some(event) = parse::neighbour(&message) {
                    changes.publish |= self.neighbour(event);
                }
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                if let Some(event) = parse::neighbour(&message) {
                    changes.publish |= self.neighbour(NeighbourEvent { mac: None, stale: false, ..event });
                }
            }
            RouteNetlinkMessage::NewRoute(_)
            | RouteNetlinkMessage::DelRoute(_)
            | RouteNetlinkMessage::NewRule(_)
            | RouteNetlinkMessage::DelRule(_) => changes.routes = true,
            _ => {}
        }
    }

    fn address(&mut self, address: Option<(u32, IpAddr)>, present: bool, changes: &mut Changes) {
        let Some(address) = address else { return };
        if self.tables.addresses.contains(&address) == present {
            return;
        }
        let addresses = Arc::make_mut(&mut self.tables.addresses);
        if present {
            addresses.insert(address);
        } else {
            addresses.remove(&address);
        }
        (changes.publish, changes.addresses, changes.routes) = (true, true, true);
    }

    /// True when workers have to know.
    fn neighbour(&mut self, event: NeighbourEvent) -> bool {
        if event.stale && event.mac.is_some() {
            self.stale.entry(event.key).or_default();
        } else {
            self.stale.remove(&event.key);
        }
        let known = self.tables.neighbours.get(&event.key).map(|neighbour| neighbour.mac);
        if known == event.mac {
            return false;
        }
        if known.is_none() && self.tables.neighbours.len() >= NEIGHBOUR_COUNT_MAX {
            self.neighbours_left_out += 1;
            self.stale.remove(&event.key);
            return false;
        }
        let neighbours = Arc::make_mut(&mut self.tables.neighbours);
        match event.mac {
            Some(mac) => {
                let used = neighbours.get(&event.key).map(|old| old.used.clone()).unwrap_or_default();
                neighbours.insert(event.key, Neighbour { mac, used });
            }
            None => drop(neighbours.remove(&event.key)),
        }
        true
    }

    /// Whether some neighbour may need [`Self::keep_alive`] soon.
    pub(super) fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Tells the kernel of stale neighbours that workers used since the last time: it then confirms them, and hears
    /// if they moved. XSK traffic itself never does.
    pub(super) fn keep_alive(&mut self, requests: &mut Requests, now: Instant) {
        for (key, told) in &mut self.stale {
            let Some(neighbour) = self.tables.neighbours.get(key) else { continue };
            let due = told.is_none_or(|at| now.duration_since(at) >= NEIGHBOUR_USE_INTERVAL);
            if due && neighbour.used.take() {
                *told = Some(now);
                if let Err(error) = requests.act(neighbour_use(*key), NLM_F_CREATE) {
                    tracing::debug!(%error, neighbour = %key.1, "the kernel refused NTF_USE");
                }
            }
        }
    }
}

/// The request that makes the kernel confirm a neighbour, or look for one that it doesn't know.
pub(crate) fn neighbour_use((link, address): (u32, IpAddr)) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = link;
    message.header.flags = NeighbourFlags::Use;
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::from(address))];
    RouteNetlinkMessage::NewNeighbour(message)
}

/// A kernel built without policy routing or IPv6 has no such table.
fn dump_or_nothing(
    requests: &mut Requests,
    question: &RouteNetlinkMessage,
) -> io::Result<Vec<RouteNetlinkMessage>> {
    match requests.dump(question) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => {
            Ok(Vec::new())
        }
        result => result,
    }
}
