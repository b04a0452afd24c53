//! quinn's endpoints of one engine. An endpoint's tables grow with the connections that it has had at once, some 1.1 KB for
//! each, and never shrink. So an engine has several, each twice as large as the one before; a connection begins in the
//! first with room, and one that nobody is in any longer goes, tables and all.
//!
//! ```text
//!  tier 0: places 0 ..1024    stays
//!  tier 1: places 1024 ..3072    made when tier 0 is full, dropped when it is empty
//!  tier 2: places 3072 ..7168    …
//! ```
//! A datagram finds its tier by the connection ID, in whose encrypted part the tier stands. The ID in a client's first
//! flight is the client's own; where such a one went is remembered for a while, so that the rest of the flight, and what is
//! sent of it again, goes there, too.

use super::Inbound;
use crate::cid::{CidCodec, Tier};
use crate::config::EngineConfig;
use crate::header::Header;
use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, ConnectError, Connection, ConnectionEvent, ConnectionHandle, DatagramEvent, Endpoint,
    EndpointEvent, Incoming, ServerConfig,
};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Places of the first tier; each further one has twice as many.
const FIRST_PLACES: usize = 1024;
/// There are never more; 20 have places for a billion connections.
const TIERS_MAX: usize = 20;
/// A first flight is remembered for so long at least: as long as a handshake may take.
const FLIGHTS_INTERVAL: Duration = Duration::from_secs(10);

/// One endpoint, and its first Initials that wait for their handshake.
struct Part {
    endpoint: Endpoint,
    waiting: usize,
}

impl Part {
    fn count(&self) -> usize {
        self.endpoint.open_connections() + self.waiting
    }
}

/// What became of a datagram.
pub(crate) struct Handled {
    pub(crate) tier: Tier,
    /// Handles in it are the engine's.
    pub(crate) event: Option<DatagramEvent>,
    /// It is kept for an Initial that waits.
    pub(crate) buffered: bool,
}

/// See the module.
pub(crate) struct Tiers {
    config: EngineConfig,
    codec: CidCodec,
    /// The first and the last are there.
    parts: Vec<Option<Part>>,
    /// Where first flights went, by a keyed hash of the connection ID that the client chose: those since the last turn, and
    /// those before.
    flights: [HashMap<u64, Tier>; 2],
    turned: Option<Instant>,
    waited: Option<Instant>,
    hasher: RandomState,
}

impl Tiers {
    pub(crate) fn new(config: EngineConfig, codec: CidCodec) -> Self {
        let mut tiers = Self {
            config,
            codec,
            parts: Vec::new(),
            flights: Default::default(),
            turned: None,
            waited: None,
            hasher: RandomState::new(),
        };
        tiers.parts.push(Some(tiers.part(0)));
        tiers
    }

    fn part(&self, tier: Tier) -> Part {
        let config = Arc::new(self.config.endpoint(&self.codec, tier));
        Part { endpoint: Endpoint::new(config, self.config.server.clone(), true, None), waiting: 0 }
    }

    fn get(&mut self, tier: Tier) -> Option<&mut Part> {
        self.parts.get_mut(usize::from(tier))?.as_mut()
    }

    /// The tier that a new connection begins in. An eighth of its places is left to those whom a Retry has sent back to
    /// it.
    fn open(&mut self) -> Tier {
        let has_room = |(tier, part): (usize, &Option<Part>)| {
            part.as_ref().is_none_or(|part| part.count() < places(tier) / 8 * 7)
        };
        let found = self.parts.iter().enumerate().position(has_room).unwrap_or(self.parts.len());
        let tier = found.min(TIERS_MAX - 1);
        if self.parts.len() <= tier {
            self.parts.resize_with(tier + 1, || None);
        }
        if self.parts[tier].is_none() {
            self.parts[tier] = Some(self.part(tier as Tier));
        }
        tier as Tier
    }

    /// Where a datagram belongs; `None`: nothing in it tells.
    fn tier_of(&mut self, header: Header<'_>, opened: Option<u32>) -> Option<Tier> {
        if let Some(index) = opened {
            return Some(tier_at(index as usize).0);
        }
        match header {
            Header::Short { .. } | Header::Other { .. } if self.parts.len() == 1 => Some(0),
            Header::Short { dcid } => self.codec.decode_tier(dcid),
            Header::Other { dcid } => self.codec.decode_tier(dcid).or(Some(0)),
            Header::Initial { dcid } | Header::ZeroRtt { dcid } => {
                let flight = self.hasher.hash_one(dcid);
                let known = self.flights.iter().find_map(|some| some.get(&flight).copied());
                let known = known.or_else(|| self.codec.decode_tier(dcid));
                match known.filter(|&tier| self.get(tier).is_some()) {
                    Some(tier) => Some(tier),
                    None => Some(self.open()),
                }
            }
            Header::UnknownVersion { .. } | Header::Malformed => Some(0),
        }
    }

    /// Hands a datagram to quinn. `opened`: the connection whose keys have opened it already. `data` is what quinn shall have
    /// of it; answers are written to `out`.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        inbound: &Inbound<'_>,
        header: Header<'_>,
        opened: Option<u32>,
        data: BytesMut,
        out: &mut Vec<u8>,
    ) -> Handled {
        let Some(tier) = self.tier_of(header, opened) else {
            return self.handle_anyone(now, inbound, data, out);
        };
        // One that has gone has left its CIDs to the first, which answers for them by a stateless reset, as it would have.
        let tier = if self.get(tier).is_some() { tier } else { 0 };
        self.handle_at(tier, now, inbound, data, out)
    }

    /// A short header under a CID that isn't ours may be a stateless reset for a connection of any tier. Strangers can send
    /// such ones, too: each costs a look at every tier, of which a hundred thousand connections have seven.
    fn handle_anyone(
        &mut self,
        now: Instant,
        inbound: &Inbound<'_>,
        data: BytesMut,
        out: &mut Vec<u8>,
    ) -> Handled {
        for tier in 1..self.parts.len() as Tier {
            let handled = self.handle_at(tier, now, inbound, data.clone(), out);
            if handled.event.is_some() {
                return handled;
            }
        }
        self.handle_at(0, now, inbound, data, out)
    }

    fn handle_at(
        &mut self,
        tier: Tier,
        now: Instant,
        inbound: &Inbound<'_>,
        data: BytesMut,
        out: &mut Vec<u8>,
    ) -> Handled {
        let Some(part) = self.get(tier) else { return Handled { tier, event: None, buffered: false } };
        let &Inbound { path, ecn, .. } = inbound;
        let before = part.endpoint.incoming_buffer_bytes();
        let event = part.endpoint.handle(now, path.remote, Some(path.local.ip()), ecn, data, out);
        let buffered = part.endpoint.incoming_buffer_bytes() > before;
        let event = event.map(|event| match event {
            DatagramEvent::ConnectionEvent(handle, event) => {
                DatagramEvent::ConnectionEvent(whole(tier, handle), event)
            }
            other => other,
        });
        Handled { tier, event, buffered }
    }

    /// A first Initial is taken, to wait for its handshake; what follows it under that connection ID belongs where it went.
    /// False: its tier has no room, which only happens to one that a Retry has sent back. Only who waits is remembered:
    /// the queue and the handshakes in budget bound how many that are.
    pub(crate) fn wait(&mut self, now: Instant, tier: Tier, dcid: &[u8]) -> bool {
        let Some(part) = self.get(tier) else { return false };
        if part.count() >= places(usize::from(tier)) {
            return false;
        }
        part.waiting += 1;
        self.flights[0].insert(self.hasher.hash_one(dcid), tier);
        self.waited = Some(now);
        true
    }

    /// The endpoint of one that is refused, or sent back: it has not waited.
    pub(crate) fn of(&mut self, tier: Tier) -> &mut Endpoint {
        let tier = if self.get(tier).is_some() { tier } else { 0 };
        &mut self.parts[usize::from(tier)].as_mut().expect("the first is always there").endpoint
    }

    /// Begins the handshake of one that has waited.
    #[expect(clippy::result_large_err, reason = "quinn's own")]
    pub(crate) fn accept(
        &mut self,
        tier: Tier,
        incoming: Incoming,
        now: Instant,
        out: &mut Vec<u8>,
        config: Option<Arc<ServerConfig>>,
    ) -> Result<(ConnectionHandle, Connection), quinn_proto::AcceptError> {
        if let Some(part) = self.get(tier) {
            part.waiting -= 1;
        }
        let (handle, quic) = self.of(tier).accept(incoming, now, out, config)?;
        Ok((whole(tier, handle), quic))
    }

    pub(crate) fn connect(
        &mut self,
        now: Instant,
        config: ClientConfig,
        remote: std::net::SocketAddr,
        server_name: &str,
    ) -> Result<(ConnectionHandle, Connection), ConnectError> {
        let tier = self.open();
        let (handle, quic) = self.of(tier).connect(now, config, remote, server_name)?;
        Ok((whole(tier, handle), quic))
    }

    /// A connection's news for its endpoint.
    pub(crate) fn handle_event(&mut self, index: u32, event: EndpointEvent) -> Option<ConnectionEvent> {
        let (tier, handle) = tier_at(index as usize);
        self.get(tier)?.endpoint.handle_event(handle, event)
    }

    pub(crate) fn set_server_config(&mut self, server: Option<Arc<ServerConfig>>) {
        self.config.server = server.clone();
        for part in self.parts.iter_mut().flatten() {
            part.endpoint.set_server_config(server.clone());
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.parts.iter().flatten().count()
    }

    /// Datagrams behind Initials that wait.
    pub(crate) fn incoming_buffer_bytes(&self) -> usize {
        self.parts.iter().flatten().map(|part| part.endpoint.incoming_buffer_bytes() as usize).sum()
    }

    /// Gives back the tiers that nobody is in any longer.
    pub(crate) fn tidy(&mut self, now: Instant) {
        for (tier, part) in self.parts.iter_mut().enumerate().skip(1) {
            if part.take_if(|part| part.count() == 0).is_some() {
                tracing::debug!("tables for {} connections are given back", places(tier));
            }
        }
        while self.parts.last().is_some_and(Option::is_none) {
            self.parts.pop();
        }
        let is_past = |since: Option<Instant>| since.is_none_or(|since| now >= since + FLIGHTS_INTERVAL);
        if is_past(self.waited) {
            self.flights = Default::default();
        } else if is_past(self.turned) {
            self.turned = Some(now);
            self.flights.swap(0, 1);
            self.flights[0] = HashMap::new();
        }
    }
}

fn places(tier: usize) -> usize {
    FIRST_PLACES << tier
}

/// Places of all tiers before this one.
fn base(tier: usize) -> usize {
    places(tier) - FIRST_PLACES
}

/// The engine's handle for one of a tier's endpoint.
fn whole(tier: Tier, handle: ConnectionHandle) -> ConnectionHandle {
    ConnectionHandle(base(usize::from(tier)) + handle.0)
}

/// And back.
fn tier_at(index: usize) -> (Tier, ConnectionHandle) {
    let tier = (index / FIRST_PLACES + 1).ilog2() as usize;
    (tier as Tier, ConnectionHandle(index - base(tier)))
}

#[cfg(test)]
mod tests {
    //! Goal: each handle of the engine is one of one tier, without a gap.
    use super::*;

    #[test]
    fn handles_there_and_back() {
        let mut next = 0;
        for tier in 0..6 {
            for local in 0..places(tier) {
                let whole = whole(tier as Tier, ConnectionHandle(local));
                assert_eq!(whole.0, next);
                assert_eq!(tier_at(whole.0), (tier as Tier, ConnectionHandle(local)));
                next += 1;
            }
        }
        assert_eq!(next, 1024 * 63);
    }
}
