//! CONNECT-IP (RFC 9484): from the request to an IP session with addresses, and its end.
//!
//! A client may say which addresses it would like (ADDRESS_REQUEST) right behind its request; what doesn't ask is lent one
//! of each family. What clients may reach is `--ip-route`, narrowed by
//! their `allow=`, advertised to each and checked for each packet.

use super::{Gateway, Refusal, extended::Extended};
use crate::worker::{
    core::Core,
    datagrams::{DatagramStream, Framing},
    flow::{Broken, Reader},
    ip::{Heard, IpSession, Owner, Realm, Rules, Side, Tools, advertisement, prefix_of},
    mail::Command,
    poll::FlowKey,
    session::{Slot, abandon, quic_code},
};
use ::ip::{Prefix, pool::NoAddress};
use ::upstream::{
    policy::{Denied, Net, Reason},
    users::ClientPolicy,
};
use masque::{
    Address, AddressAssign, AddressRequest, CAPSULE_PROTOCOL, Capsule, CapsuleSet, Code, IpPrefix, IpScope,
    RouteAdvertisement,
};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

/// IP sessions of one worker.
const SESSIONS_MAX: usize = 65_536;
/// Networks behind one client.
const NETWORKS_MAX: usize = 256;
/// What `allow=` leaves of `--ip-route` has more ranges than a ROUTE_ADVERTISEMENT holds.
const TOO_MANY_NETWORKS: &str =
    "beam; error=proxy_configuration_error; details=\"allow= and --ip-route meet in more than 256 networks\"";

impl Gateway {
    /// Takes a request for an IP session.
    pub(super) fn connect_ip(&mut self, core: &mut Core, request: Extended<'_>) -> Result<(), Refusal> {
        let Side::Gateway(realm) = &core.ip.side else {
            core.totals.refused_not_found += 1;
            return Err(Refusal::new(501));
        };
        let realm = realm.clone();
        let target = masque::ip_target(request.path).map_err(|error| {
            core.totals.refused_bad_request += 1;
            Refusal::new(error.status())
        })?;
        let scope = match &target.scope {
            IpScope::Any => None,
            IpScope::Prefix(prefix) => prefix_of(*prefix),
            IpScope::Name(_) => {
                core.totals.refused_not_found += 1;
                return Err(Refusal::new(501));
            }
        };
        if core.ip.len() >= SESSIONS_MAX {
            core.totals.refused_limit += 1;
            return Err(Refusal { status: 503, fields: vec![("retry-after", "1".to_owned())] });
        }
        let destinations = reachable_for(&realm, &request.asker.policy);
        if advertisement(&destinations).is_none() {
            core.totals.refused_limit += 1;
            tracing::warn!("{}: {TOO_MANY_NETWORKS}", request.asker);
            return Err(Refusal {
                status: 503,
                fields: vec![("proxy-status", TOO_MANY_NETWORKS.to_owned())],
            });
        }
        if destinations.is_empty() && !realm.reachable().is_empty() {
            core.totals.refused_denied += 1;
            let denied = Denied { reason: Reason::NotForClient };
            return Err(Refusal::because(&denied.into()));
        }
        let rules = Rules { sources: Some(Vec::new()), destinations, scope, protocol: target.protocol };
        self.open_ip(core, &realm, request, rules)
    }

    fn open_ip(
        &mut self,
        core: &mut Core,
        realm: &Realm,
        request: Extended<'_>,
        rules: Rules,
    ) -> Result<(), Refusal> {
        let Extended { conn, stream, reader, asker, permit, .. } = request;
        let name = &asker.identity.name;
        // Said at once, by the status, rather than by an assignment of nothing.
        if !realm.may_lend(name) {
            core.ip.totals.pool_exhausted += 1;
            tracing::warn!("{asker} asked for an IP session: all addresses of --ip-pool are lent");
            let status = "beam; error=connection_limit_reached; details=\"no address left\"".to_owned();
            return Err(Refusal { status: 503, fields: vec![("proxy-status", status)] });
        }
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
        let mtu_max_bytes = core.mtu_max_bytes();
        let Some(mut quic) = core.engine.connection(conn) else { return Ok(()) };
        let takes_frames = session.peer_settings().is_some_and(masque::Settings::h3_datagram);
        let framing = if takes_frames { Framing::Frames } else { Framing::Capsules };
        let answer = masque::encode_response(200, &[CAPSULE_PROTOCOL]);
        let reader = Reader::Request(reader);
        let tunnel = DatagramStream::accepted(stream, reader, CapsuleSet::Ip, framing, answer);
        let mut ip = IpSession::new(&mut quic, stream, tunnel, core.now, mtu_max_bytes);
        ip.name = name.clone();
        ip.account = permit.owner();
        ip.permit = Some(permit);
        ip.rules = rules;
        let key = core.ip.insert(ip);
        realm.session_opened();
        let early = session.datagrams.take_early(stream);
        session.slots.insert(stream, Slot::Ip(key));
        // What it asks for may be there already.
        self.advance_ip(core, key);
        self.address_unasked(core, key);
        if let Some(mut quic) = core.engine.connection(conn) {
            for datagram in early {
                let mut tools = Tools {
                    quic: &mut quic,
                    arena: &mut core.arena,
                    drops: &mut core.datagrams,
                    ledger: &mut core.ledger,
                    captures: &mut core.captures,
                    now: core.now,
                };
                core.ip.receive_frame(key, datagram, &mut tools);
            }
        }
        Ok(())
    }

    /// One step of a session whose stream has something to say.
    pub(in crate::worker) fn advance_ip(&mut self, core: &mut Core, key: FlowKey) {
        loop {
            match core.hear_ip(key) {
                Heard::Capsule(Capsule::AddressRequest(request)) => self.addresses_asked(core, key, &request),
                Heard::Capsule(Capsule::RouteAdvertisement(routes)) => {
                    self.routes_offered(core, key, &routes)
                }
                // What a client assigns to a gateway is nothing that the gateway asked for.
                Heard::Capsule(_) => {}
                Heard::Ended(broken) => return self.end_ip(core, key, broken.as_ref()),
                Heard::Nothing => return,
            }
        }
    }

    /// A client that doesn't say what it wants gets what there is.
    fn address_unasked(&mut self, core: &mut Core, key: FlowKey) {
        let Side::Gateway(realm) = &core.ip.side else { return };
        let realm = realm.clone();
        let owner = Owner { worker: core.id, key };
        let Some(session) = core.ip.get_mut(key).filter(|session| !session.is_addressed) else { return };
        let lend = |is_ipv4| realm.lend(&session.name, owner, is_ipv4, None).map(|lent| lent.address);
        let lent: Vec<_> = [lend(true), lend(false)].into_iter().filter_map(Result::ok).collect();
        if lent.is_empty() {
            // An older session of the client has its address, and this one doesn't ask for it.
            core.ip.totals.pool_exhausted += 1;
            return self.end_ip(core, key, Some(&NO_ADDRESS));
        }
        let assigned =
            lent.iter().map(|&address| Address { request_id: 0, prefix: IpPrefix::host(address) }).collect();
        session.addresses = lent;
        self.assign(core, key, assigned);
    }

    /// The client has said which addresses it would like.
    fn addresses_asked(&mut self, core: &mut Core, key: FlowKey, request: &AddressRequest) {
        let Side::Gateway(realm) = &core.ip.side else { return };
        let realm = realm.clone();
        let owner = Owner { worker: core.id, key };
        let mut moved = Vec::new();
        let Some(session) = core.ip.get_mut(key) else { return };
        let mut assigned = Vec::new();
        for asked in request.addresses() {
            let (lent, taken_from) = lend_asked(&realm, session, owner, asked);
            moved.extend(lent.zip(taken_from));
            assigned.push(match lent {
                Some(address) => Address { request_id: asked.request_id, prefix: IpPrefix::host(address) },
                None => Address::refusal(asked),
            });
        }
        // "The full list": also what was lent before and isn't asked about now.
        for &address in &session.addresses {
            if !assigned.iter().any(|answer| answer.prefix == IpPrefix::host(address)) {
                assigned.push(Address { request_id: 0, prefix: IpPrefix::host(address) });
            }
        }
        let empty_handed = session.addresses.is_empty() && session.networks.is_empty();
        core.ip.totals.addresses_moved += moved.len() as u64;
        self.assign(core, key, assigned);
        if empty_handed {
            // An older session of the client has its address. Without one nothing could come of this one.
            core.ip.totals.pool_exhausted += 1;
            return self.end_ip(core, key, Some(&NO_ADDRESS));
        }
        for (address, before) in moved {
            match realm.mailbox(before.worker) {
                Some(mailbox) if before.worker != core.id => {
                    // A full mailbox: the session learns of it when its packets are found to have another's address.
                    let _ = mailbox.command(Command::AddressMoved { key: before.key, address });
                }
                _ => self.address_moved(core, before.key, address),
            }
        }
    }

    /// Tells a client its addresses, and where they lead.
    fn assign(&mut self, core: &mut Core, key: FlowKey, assigned: Vec<Address>) {
        let Some(session) = core.ip.get_mut(key) else { return };
        let first = !std::mem::replace(&mut session.is_addressed, true);
        session.rules.sources = Some(
            session
                .addresses
                .iter()
                .map(|&address| Prefix::host(address))
                .chain(session.networks.clone())
                .collect(),
        );
        if first {
            tracing::info!("{}: IP session with {}", session.name, list(&session.addresses));
        }
        let assign = AddressAssign::new(assigned).map(Capsule::AddressAssign);
        let routes =
            advertisement(&session.rules.destinations).filter(|_| first).map(Capsule::RouteAdvertisement);
        let Some(mut quic) = core.engine.connection(session.on.0) else { return };
        // It asks for so much that the answer has no room for what it has already.
        let mut sent = assign.is_ok();
        for capsule in assign.into_iter().chain(routes) {
            sent &= session.tunnel.send_control(&mut quic, &capsule);
        }
        if !sent {
            // It asks and doesn't read the answers.
            let broken = Broken::Protocol { code: Code::H3_EXCESSIVE_LOAD, connection: false };
            self.end_ip(core, key, Some(&broken));
        }
    }

    /// A younger session of the same client has this address now.
    pub(in crate::worker) fn address_moved(&mut self, core: &mut Core, key: FlowKey, address: IpAddr) {
        let Some(session) = core.ip.get_mut(key) else { return };
        session.addresses.retain(|&had| had != address);
        if session.addresses.is_empty() {
            return self.end_ip(core, key, None);
        }
        let left: Vec<_> = session.addresses.iter().map(|&left| IpPrefix::host(left)).collect();
        let assigned = left.into_iter().map(|prefix| Address { request_id: 0, prefix }).collect();
        self.assign(core, key, assigned);
    }

    /// The client offers networks behind it: each that it is permitted and that is nobody else's is taken.
    fn routes_offered(&mut self, core: &mut Core, key: FlowKey, routes: &RouteAdvertisement) {
        let Side::Gateway(realm) = &core.ip.side else { return };
        let realm = realm.clone();
        let owner = Owner { worker: core.id, key };
        let Some(session) = core.ip.get_mut(key) else { return };
        // Each is a route of the kernel's, and looked through for each packet.
        let count: usize = routes.ranges().iter().map(|range| range.prefixes().len()).sum();
        if count > NETWORKS_MAX {
            tracing::warn!("{} offers {count} networks, and may {NETWORKS_MAX}", session.name);
            core.ip.totals.routes_refused += 1;
            return self.end_ip(core, key, Some(&ROUTE_REFUSED));
        }
        // "The full list": what isn't in it any more is taken away, what is new is added, the others are left alone.
        let offered: BTreeSet<Prefix> =
            routes.ranges().iter().flat_map(|range| range.prefixes()).filter_map(prefix_of).collect();
        let gone = session.networks.extract_if(.., |had| !offered.contains(had));
        gone.for_each(|prefix| realm.remove_route(&prefix));
        let had: BTreeSet<Prefix> = session.networks.iter().copied().collect();
        for prefix in offered.into_iter().filter(|prefix| !had.contains(prefix)) {
            let refused = if !self.may_announce(&session.name, prefix) {
                Some("its routes= in the users file doesn't cover it".to_owned())
            } else {
                realm.add_route(prefix, owner).err().map(|error| error.to_string())
            };
            match refused {
                None => {
                    tracing::info!("{} brings the network {prefix}", session.name);
                    session.networks.push(prefix);
                }
                Some(why) => {
                    tracing::warn!("{} offers the network {prefix}, which is refused: {why}", session.name);
                    core.ip.totals.routes_refused += 1;
                    return self.end_ip(core, key, Some(&ROUTE_REFUSED));
                }
            }
        }
        let Some(session) = core.ip.get_mut(key) else { return };
        let hosts = session.addresses.iter().map(|&address| Prefix::host(address));
        session.rules.sources = Some(hosts.chain(session.networks.clone()).collect());
    }

    /// Whether the users file lets a client bring a network.
    fn may_announce(&self, name: &str, prefix: Prefix) -> bool {
        let Some(net) = Net::covering(prefix.first(), prefix.length()) else { return false };
        self.config.client_policy(name).may_announce(&net)
    }

    /// Ends the sessions of clients that may not bring a network any more. How many.
    pub(super) fn cut_networks(&mut self, core: &mut Core) -> u64 {
        let forbidden = core.ip.select(|session| {
            session.networks.iter().any(|&prefix| !self.may_announce(&session.name, prefix))
        });
        let count = forbidden.len() as u64;
        forbidden.into_iter().for_each(|key| self.end_ip(core, key, Some(&ROUTE_REFUSED)));
        count
    }

    /// Another users file: each session may send to what is left for its client, and is told so. How many ended, since
    /// nothing is.
    pub(super) fn narrow_networks(&mut self, core: &mut Core) -> u64 {
        let Side::Gateway(realm) = &core.ip.side else { return 0 };
        let realm = realm.clone();
        let mut ended = 0;
        for key in core.ip.select(|_| true) {
            let Some(session) = core.ip.get_mut(key) else { continue };
            let destinations = reachable_for(&realm, &self.config.client_policy(&session.name));
            if destinations == session.rules.destinations {
                continue;
            }
            session.rules.destinations = destinations;
            let told =
                match (advertisement(&session.rules.destinations), core.engine.connection(session.on.0)) {
                    // The first assignment brings the routes along.
                    (Some(_), _) if !session.is_addressed => true,
                    (Some(routes), Some(mut quic)) => {
                        session.tunnel.send_control(&mut quic, &Capsule::RouteAdvertisement(routes))
                    }
                    // It asks again, and hears why not.
                    (None, _) => false,
                    (_, None) => true,
                };
            if session.rules.destinations.is_empty() || !told {
                ended += 1;
                self.end_ip(core, key, Some(&Broken::Stream));
            }
        }
        ended
    }

    /// Ends a session; what it was lent goes back.
    pub(super) fn end_ip(&mut self, core: &mut Core, key: FlowKey, broken: Option<&Broken>) {
        let Some(session) = core.ip.remove(key) else { return };
        let (conn, stream) = session.on;
        if let Side::Gateway(realm) = &core.ip.side {
            realm.session_ended();
            let owner = Owner { worker: core.id, key };
            session.addresses.iter().for_each(|&address| realm.give_back(address, owner));
            session.networks.iter().for_each(|prefix| realm.remove_route(prefix));
        }
        self.forget_stream(conn, stream);
        let Some(mut quic) = core.engine.connection(conn) else { return };
        match broken {
            None => {
                quic.finish(stream);
                quic.stop(stream, quic_code(Code::H3_NO_ERROR));
            }
            Some(Broken::Protocol { code, connection: true }) => quic.close(quic_code(*code), b""),
            Some(Broken::Protocol { code, connection: false }) => abandon(&mut quic, stream, *code),
            Some(_) => abandon(&mut quic, stream, Code::H3_REQUEST_CANCELLED),
        }
    }
}

/// What a client hears whose network is refused.
const ROUTE_REFUSED: Broken = Broken::Protocol { code: Code::H3_REQUEST_REJECTED, connection: false };

/// What a client hears for which nothing is left.
const NO_ADDRESS: Broken = Broken::Protocol { code: Code::H3_EXCESSIVE_LOAD, connection: false };

/// The address that answers one request, and whom it was taken from. A session has one of each family.
fn lend_asked(
    realm: &Realm,
    session: &mut IpSession,
    owner: Owner,
    asked: &Address,
) -> (Option<IpAddr>, Option<Owner>) {
    let wish = Some(asked.prefix.address()).filter(|_| !asked.is_any());
    let is_ipv4 = asked.prefix.address().is_ipv4();
    if let Some(&had) = session.addresses.iter().find(|address| address.is_ipv4() == is_ipv4) {
        return (Some(had), None);
    }
    match realm.lend(&session.name, owner, is_ipv4, wish) {
        Ok(lent) => {
            session.addresses.push(lent.address);
            (Some(lent.address), lent.taken_from)
        }
        Err(NoAddress::NoFamily) => (None, None),
        Err(NoAddress::Exhausted) => {
            tracing::warn!("{}: no address left of those that it asks for", session.name);
            (None, None)
        }
    }
}

/// What of `--ip-route` a client may send to: all of it, or what its `allow=` leaves.
fn reachable_for(realm: &Realm, policy: &ClientPolicy) -> Arc<[Prefix]> {
    let reachable = realm.reachable();
    let Some(networks) = policy.networks() else { return reachable };
    let own: Vec<Prefix> =
        networks.iter().filter_map(|net| Prefix::new(net.address(), net.prefix_len())).collect();
    let inside = |outer: &Prefix, inner: &Prefix| outer.covers(inner).then_some(*inner);
    let both = |open: &Prefix, own: &Prefix| inside(open, own).or_else(|| inside(own, open));
    reachable.iter().flat_map(|open| own.iter().filter_map(|own| both(open, own))).collect()
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    //! Goal: a client reaches what lies in `--ip-route` and in a rule of its `allow=` that names neither name nor port.
    use super::*;

    #[test]
    fn allow_narrows_what_packets_reach() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let routes = [prefix("198.19.0.0/24"), prefix("10.0.0.0/8"), prefix("2001:db8:2::/64")];
        let realm = Realm::new(&[prefix("198.18.64.0/29")], &routes).unwrap();
        for (words, want) in [
            (&[][..], &["198.19.0.0/24", "10.0.0.0/8", "2001:db8:2::/64"][..]),
            (&["allow=198.19.0.2"], &["198.19.0.2/32"]),
            (&["allow=198.18.0.0/15"], &["198.19.0.0/24"]),
            (&["allow=10.1.0.0/16", "allow=2001:db8::/32"], &["10.1.0.0/16", "2001:db8:2::/64"]),
            (&["allow=198.19.0.2:443", "allow=*"], &[]),
            (&["allow=203.0.113.0/24"], &[]),
        ] {
            let policy = ClientPolicy::parse(words.iter().copied()).unwrap();
            let want: Vec<Prefix> = want.iter().map(|text| prefix(text)).collect();
            assert_eq!(*reachable_for(&realm, &policy), *want, "{words:?}");
        }
    }
}
