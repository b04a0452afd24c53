//! The client's end of CONNECT-IP: the TUN device and the session behind it.
//!
//! ```text
//!  Idle ─(a tunnel that takes extended CONNECT)─► Asked ─(2xx)─► Open ─(ended)─► Idle (the device stays)
//!                                                   └─(refused)─► Pause ─► Idle
//! ```
//! Addresses and routes are set when the gateway assigns and advertises them, and stay over reconnects: a session that
//! begins asks for the same addresses again.

use super::Client;
use crate::worker::{
    core::Core,
    datagrams::{DatagramStream, Framing},
    flow::{Broken, Reader},
    ip::{Granted, Heard, IpSession, Rules, Side, advertisement, prefix_of},
    poll::FlowKey,
    session::{Slot, abandon, quic_code, write_some},
};
use ::ip::{IPV6_MTU_MIN_BYTES, Prefix};
use bytes::{Bytes, BytesMut};
use masque::{
    Address, AddressAssign, AddressRequest, Capsule, CapsuleSet, Code, IpPrefix, IpScope, IpTarget, Item,
    MessageReader, Response, ResponseReader, ResponseTo, RouteAdvertisement, protocol::CONNECT_IP, status,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};
use tunnel::{ConnId, Read, StreamId, VarInt};

/// Between a refusal and the next request; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Packets in the device's queue: enough for a burst of small ones, and few enough that super-packets of 64 KiB don't
/// wait for long.
const DEVICE_QUEUE_COUNT: usize = 256;

/// What `--tun` or `--lan` asks for.
pub(crate) struct IpConfig {
    pub(crate) network: Granted,
    /// `--route`; none: whatever the gateway advertises.
    pub(crate) routes: Vec<Prefix>,
    /// `--announce`: networks on this side.
    pub(crate) announce: Vec<Prefix>,
}

/// See the module.
pub(super) struct IpClient {
    config: IpConfig,
    state: State,
    /// What the gateway assigned last, and the device has.
    addresses: Vec<IpAddr>,
    installed: Vec<Prefix>,
    /// The device's MTU, while it is up.
    mtu_bytes: Option<usize>,
    /// Requests in a row that led to no session that lasted.
    refusals: u32,
    opened_at: Instant,
}

enum State {
    Idle,
    Pause { until: Instant },
    Asked(Box<Asked>),
    Open { key: FlowKey },
}

struct Asked {
    on: (ConnId, StreamId),
    reader: ResponseReader,
    unsent: Bytes,
}

impl IpClient {
    pub(super) fn new(config: IpConfig) -> Self {
        Self {
            config,
            state: State::Idle,
            addresses: Vec::new(),
            installed: Vec::new(),
            mtu_bytes: None,
            refusals: 0,
            opened_at: Instant::now(),
        }
    }

    pub(super) fn next_deadline(&self, core: &Core) -> Option<Instant> {
        match self.state {
            State::Pause { until } => Some(until),
            State::Open { key } => core.ip.settles_at(key, core.now),
            _ => None,
        }
    }

    /// Addresses of this end, and networks behind it.
    fn own(&self) -> Arc<[Prefix]> {
        let hosts = self.addresses.iter().map(|&address| Prefix::host(address));
        hosts.chain(self.config.announce.iter().copied()).collect()
    }

    fn is_asked_on(&self, on: (ConnId, StreamId)) -> bool {
        matches!(&self.state, State::Asked(asked) if asked.on == on)
    }

    /// The request with what follows it at once: the addresses that are wanted, the networks that are brought.
    fn request(&self, authority: &str, fields: &[(&str, &str)]) -> Bytes {
        let path = masque::ip_path(&IpTarget { scope: IpScope::Any, protocol: None });
        let head = masque::RequestHead::capsule_tunnel(CONNECT_IP, authority, &path, fields);
        let mut bytes = BytesMut::from(&masque::encode_request(&head)[..]);
        let wish = |is_ipv4: bool| {
            let any: IpAddr =
                if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            self.addresses.iter().find(|address| address.is_ipv4() == is_ipv4).copied().unwrap_or(any)
        };
        let wishes = [(1, wish(true)), (2, wish(false))]
            .map(|(request_id, address)| Address { request_id, prefix: IpPrefix::host(address) });
        if let Ok(request) = AddressRequest::new(wishes.to_vec()) {
            bytes.extend_from_slice(&Capsule::AddressRequest(request).data_frame());
        }
        // That they fit was looked at when the client started.
        if !self.config.announce.is_empty()
            && let Some(routes) = advertisement(&self.config.announce)
        {
            bytes.extend_from_slice(&Capsule::RouteAdvertisement(routes).data_frame());
        }
        bytes.freeze()
    }

    /// Gives the device the addresses that were assigned, and takes away those that were not.
    fn set_addresses(&mut self, assigned: Vec<IpAddr>) {
        let network = &self.config.network;
        for &gone in self.addresses.iter().filter(|address| !assigned.contains(address)) {
            network.order(move |network| network.remove_address(gone, host_bits(gone)));
        }
        for &new in assigned.iter().filter(|address| !self.addresses.contains(address)) {
            network.order(move |network| network.add_address(new, host_bits(new)));
        }
        self.addresses = assigned;
    }

    fn set_mtu(&mut self, mtu_bytes: usize) {
        let network = &self.config.network;
        match self.mtu_bytes {
            Some(before) if before == mtu_bytes => return,
            Some(_) => network.order(move |network| network.set_mtu(mtu_bytes)),
            None => network.order(move |network| network.bring_up(mtu_bytes, DEVICE_QUEUE_COUNT)),
        }
        tracing::debug!("{}: MTU {mtu_bytes}", network.name());
        self.mtu_bytes = Some(mtu_bytes);
    }

    /// Installs the wanted routes that the gateway advertises, and takes away those that it doesn't any more.
    fn set_routes(&mut self, advertised: &RouteAdvertisement, gateway: IpAddr) {
        let offered: Vec<Prefix> =
            advertised.ranges().iter().flat_map(|range| range.prefixes()).filter_map(prefix_of).collect();
        let name = self.config.network.name().to_owned();
        let may_loop = self.config.network.may_loop();
        let mut wanted = Vec::new();
        if self.config.routes.is_empty() {
            for prefix in &offered {
                if may_loop && prefix.contains(gateway) {
                    tracing::warn!(
                        "{name}: {prefix}, which the gateway advertises, contains the gateway's own address {gateway} and is not routed; name what you want by --route"
                    );
                } else {
                    wanted.push(*prefix);
                }
            }
        }
        for route in &self.config.routes {
            let covered = advertised.ranges().iter().any(|range| {
                range.contains(route.first()) && range.contains(route.last()) && range.protocol() == 0
            });
            if covered {
                wanted.push(*route);
            } else {
                let offers = offered.iter().map(Prefix::to_string).collect::<Vec<_>>().join(", ");
                let offers = if offers.is_empty() { "nothing".to_owned() } else { offers };
                tracing::warn!(
                    "{name}: --route {route} is not set: the gateway carries {offers} (its --ip-route); packets to it go where they went before"
                );
            }
        }
        let network = &self.config.network;
        for &gone in self.installed.iter().filter(|route| !wanted.contains(route)) {
            network.order(move |network| network.remove_route(gone));
        }
        for &new in wanted.iter().filter(|route| !self.installed.contains(route)) {
            let source = self.addresses.iter().find(|address| address.is_ipv4() == new.is_ipv4()).copied();
            match source {
                Some(_) => network.order(move |network| network.add_route(new, source)),
                // The LAN's hosts have addresses of their own.
                None if !may_loop => network.order(move |network| network.add_route(new, None)),
                None => {
                    tracing::warn!("{name}: no address of the family of {new} was assigned: it is not routed")
                }
            }
        }
        self.installed = wanted;
        let to = if self.installed.is_empty() { "nothing".to_owned() } else { join(&self.installed) };
        let said = format!("{name}: {} to {to}", join(&self.addresses));
        // Once it is so.
        network.order(move |_| {
            tracing::info!("{said}");
            Ok(())
        });
    }
}

impl Client {
    /// Asks for an IP session, if one is wanted, none is there, and a tunnel can take the request.
    pub(super) fn ask_ip(&mut self, core: &mut Core) {
        let Some(ip) = self.ip.as_mut().filter(|ip| matches!(ip.state, State::Idle)) else { return };
        let Some((conn, stream)) = self.pool.open_extended(core) else { return };
        let authority = authority(&self.config.host, self.config.port);
        let fields: Vec<(&str, &str)> =
            self.bearer.iter().map(|bearer| ("proxy-authorization", bearer.as_str())).collect();
        let unsent = ip.request(&authority, &fields);
        let reader = MessageReader::response(masque::Limits::default(), ResponseTo::Connect);
        ip.state = State::Asked(Box::new(Asked { on: (conn, stream), reader, unsent }));
        core.totals.requests += 1;
        self.pool.assign(conn, stream, Slot::IpAsked);
        self.hear_ip_answer(core, conn, stream);
    }

    /// Writes what is left of the request and reads the answer.
    pub(super) fn hear_ip_answer(&mut self, core: &mut Core, conn: ConnId, stream: StreamId) {
        let Some(ip) = self.ip.as_mut().filter(|ip| ip.is_asked_on((conn, stream))) else { return };
        let State::Asked(asked) = &mut ip.state else { return };
        let Some(mut quic) = core.engine.connection(conn) else { return };
        write_some(&mut quic, stream, &mut asked.unsent);
        let response = loop {
            match asked.reader.next() {
                Ok(Some(Item::Headers(response))) if status::is_interim(response.status) => {}
                Ok(Some(Item::Headers(response))) => break response,
                Ok(Some(_)) => {}
                Ok(None) => match quic.read(stream, usize::MAX) {
                    Read::Chunk(bytes) => asked.reader.push(bytes),
                    Read::Fin => asked.reader.finish(),
                    Read::Blocked => return,
                    // A session that ends at once may overtake its own beginning.
                    Read::Reset(code) => return self.ip_refused(core, &reset_reason(code)),
                    Read::Gone => return self.ip_refused(core, "the stream is gone"),
                },
                Err(error) => {
                    abandon(&mut quic, stream, error.code());
                    return self.ip_refused(core, &format!("its answer breaks HTTP/3: {error}"));
                }
            }
        };
        self.ip_answered(core, &response);
    }

    fn ip_answered(&mut self, core: &mut Core, response: &Response) {
        if !(200..300).contains(&response.status) {
            return self.ip_refused(core, &refusal(response));
        }
        let Some(ip) = &mut self.ip else { return };
        let State::Asked(asked) = std::mem::replace(&mut ip.state, State::Idle) else { return };
        let (conn, stream) = asked.on;
        let mtu_max_bytes = core.mtu_max_bytes();
        let Some(mut quic) = core.engine.connection(conn) else { return };
        let takes_frames = self
            .pool
            .session_on(conn)
            .and_then(|session| session.peer_settings())
            .is_some_and(masque::Settings::h3_datagram);
        let framing = if takes_frames { Framing::Frames } else { Framing::Capsules };
        let tunnel = DatagramStream::opened(stream, Reader::Response(asked.reader), CapsuleSet::Ip, framing);
        let mut session = IpSession::new(&mut quic, stream, tunnel, core.now, mtu_max_bytes);
        session.rules = Rules::default();
        let key = core.ip.insert(session);
        ip.state = State::Open { key };
        ip.opened_at = core.now;
        self.pool.assign(conn, stream, Slot::Ip(key));
        self.share_ip(core);
        self.advance_ip(core, key);
    }

    /// One step of the session.
    pub(in crate::worker) fn advance_ip(&mut self, core: &mut Core, key: FlowKey) {
        loop {
            match core.hear_ip(key) {
                Heard::Capsule(Capsule::AddressAssign(assign)) => self.ip_assigned(core, key, &assign),
                Heard::Capsule(Capsule::RouteAdvertisement(routes)) => self.ip_routes(core, key, &routes),
                Heard::Capsule(_) => {}
                Heard::Ended(broken) => return self.ip_ended(core, key, broken.as_ref()),
                Heard::Nothing => break,
            }
        }
        self.follow_mtu(core);
    }

    fn ip_assigned(&mut self, core: &mut Core, key: FlowKey, assign: &AddressAssign) {
        let assigned: Vec<IpAddr> = assign
            .addresses()
            .iter()
            .filter(|address| !address.is_refusal() && address.prefix.is_host())
            .map(|address| address.prefix.address())
            .collect();
        if assigned.is_empty() {
            tracing::error!("the gateway assigned no address: nothing goes through the tunnel");
        }
        // The device has to be up before it takes routes, and to have its MTU before its first packet.
        self.follow_mtu(core);
        let Some(ip) = &mut self.ip else { return };
        ip.set_addresses(assigned);
        if let Some(session) = core.ip.get_mut(key) {
            session.rules.destinations = ip.own();
        }
        self.share_ip(core);
    }

    fn ip_routes(&mut self, core: &mut Core, key: FlowKey, routes: &RouteAdvertisement) {
        let Some(session) = core.ip.get_mut(key) else { return };
        let Some(quic) = core.engine.connection(session.on.0) else { return };
        let gateway = quic.remote_address().ip().to_canonical();
        if let Some(ip) = &mut self.ip {
            ip.set_routes(routes, gateway);
        }
    }

    /// Tells the worker's IP side what the kernel may send from, and where it goes.
    fn share_ip(&mut self, core: &mut Core) {
        let Some(ip) = &self.ip else { return };
        let session = match ip.state {
            State::Open { key } => Some(key),
            _ => None,
        };
        core.ip.side = Side::Client { session, own: ip.own() };
    }

    /// Gives the device the MTU that the tunnel has now.
    pub(super) fn follow_mtu(&mut self, core: &mut Core) {
        let Some(ip) = &mut self.ip else { return };
        let State::Open { key } = ip.state else { return };
        let Some(session) = core.ip.get_mut(key) else { return };
        let Some(mut quic) = core.engine.connection(session.on.0) else { return };
        let mtu_bytes = session.mtu_bytes(&mut quic, core.now);
        ip.set_mtu(mtu_bytes.max(IPV6_MTU_MIN_BYTES));
    }

    fn ip_refused(&mut self, core: &mut Core, why: &str) {
        let Some(ip) = &mut self.ip else { return };
        let State::Asked(asked) = std::mem::replace(&mut ip.state, State::Idle) else { return };
        let (conn, stream) = asked.on;
        if let Some(mut quic) = core.engine.connection(conn) {
            quic.finish(stream);
            quic.stop(stream, quic_code(Code::H3_NO_ERROR));
        }
        self.pool.release(conn, stream);
        self.pause_ip(core, &format!("the gateway refused an IP session: {why}"));
    }

    fn ip_ended(&mut self, core: &mut Core, key: FlowKey, broken: Option<&Broken>) {
        let Some(session) = core.ip.remove(key) else { return };
        let (conn, stream) = session.on;
        if let Some(mut quic) = core.engine.connection(conn) {
            abandon(&mut quic, stream, Code::H3_REQUEST_CANCELLED);
        }
        self.pool.release(conn, stream);
        let why = match broken {
            Some(Broken::Reset(code)) => reset_reason(*code),
            Some(Broken::Protocol { .. }) => "it broke the protocol".to_owned(),
            _ => "no reason given".to_owned(),
        };
        if let Some(ip) = self.ip.as_mut().filter(|ip| core.now > ip.opened_at + PAUSE_MAX) {
            ip.refusals = 0;
        }
        self.pause_ip(core, &format!("the gateway ended the IP session: {why}"));
    }

    fn pause_ip(&mut self, core: &mut Core, why: &str) {
        let Some(ip) = &mut self.ip else { return };
        let pause = PAUSE_FIRST.saturating_mul(1 << ip.refusals.min(16)).min(PAUSE_MAX);
        ip.refusals += 1;
        tracing::error!("{why}; next request in {:.0} s", pause.as_secs_f64());
        ip.state = State::Pause { until: core.now + pause };
        self.share_ip(core);
    }

    /// A connection is gone, and a session on it with it. The device stays as it is.
    pub(super) fn ip_closed(&mut self, core: &mut Core, conn: ConnId) {
        let Some(ip) = &mut self.ip else { return };
        match &ip.state {
            State::Asked(asked) if asked.on.0 == conn => {}
            State::Open { key } if core.ip.keys_on(conn).contains(key) => {
                core.ip.remove(*key);
            }
            _ => return,
        }
        ip.state = State::Idle;
        self.share_ip(core);
        // Another tunnel may be up.
        self.ask_ip(core);
    }

    pub(super) fn ip_timers(&mut self, core: &mut Core, now: Instant) {
        let Some(ip) = &mut self.ip else { return };
        match ip.state {
            State::Pause { until } if until <= now => {
                ip.state = State::Idle;
                self.ask_ip(core);
            }
            State::Open { .. } => self.follow_mtu(core),
            _ => {}
        }
    }
}

/// What the gateway means by resetting the stream.
fn reset_reason(code: VarInt) -> String {
    if code == quic_code(Code::H3_REQUEST_REJECTED) {
        return "a network of --announce isn't permitted by routes= in its users file, or is somebody else's"
            .to_owned();
    }
    if code == quic_code(Code::H3_EXCESSIVE_LOAD) {
        return "it has no address left".to_owned();
    }
    format!("stream reset with code {code}")
}

/// A refusal in words, and what a user can do about it.
fn refusal(response: &Response) -> String {
    let details = response.fields.get("proxy-status").map_or(String::new(), |text| format!(" ({text})"));
    let advice = match response.status {
        401 | 407 => ": no valid identity; give --token-file FILE or --cert/--key that the gateway knows",
        403 => ": not permitted",
        404 | 501 => ": it carries no IP; start it with --ip-pool CIDR",
        503 => ": it has no address left, is draining or at its limit",
        _ => "",
    };
    format!("{}{details}{advice}", response.status)
}

/// The gateway, as `:authority` wants it.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn host_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
