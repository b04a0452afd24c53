//! The links of a client, and which of them a new stream goes to.
//!
//! Whoever opens streams to the gateway asks [`Pool::open`] for one: it chooses the tunnel with the fewest requests that
//! has credit for another. The stream then belongs to the caller by [`Pool::assign`], until [`Pool::release`]; when the
//! connection ends, its session and all slots of it are gone, and [`Client`](super::Client) tells those whom they
//! belonged to.

use super::{
    ClientConfig,
    early::{Established, Way},
    link::{Link, Up},
};
use crate::worker::{
    core::Core,
    session::{Session, Slot},
};
use masque::{Settings, TunnelId};
use std::{net::SocketAddr, time::Instant};
use tunnel::{CloseReason, ConnId, StreamId};
use upstream::resolver::ResolveError;

/// See the module. It has at least one link and at most 255.
pub(super) struct Pool {
    links: Vec<Link>,
}

/// All links have given up: why the last one did.
pub(super) type NothingLeft = Option<String>;

impl Pool {
    /// A link for each local address.
    pub(super) fn new(locals: &[SocketAddr], now: Instant, sleeps: bool) -> Self {
        let id = || sleeps.then(|| TunnelId::from_random(rand::random()));
        let links = locals.iter().zip(0..=u8::MAX).map(|(&local, index)| Link::new(index, local, now, id()));
        Self { links: links.collect() }
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    pub(super) fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut()
    }

    /// How many tunnels are up, or asleep, of how many.
    pub(super) fn up_count(&self) -> (usize, usize) {
        (self.links.iter().filter(|link| link.is_usable()).count(), self.links.len())
    }

    /// What the first link that is not up waits for.
    pub(super) fn waits_for(&self, config: &ClientConfig) -> Option<String> {
        self.links.iter().find_map(|link| link.waits_for(config))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.links.iter().filter_map(Link::next_deadline).min()
    }

    pub(super) fn resolved(
        &mut self,
        core: &mut Core,
        now: Instant,
        config: &ClientConfig,
        index: u8,
        outcome: Result<Vec<SocketAddr>, ResolveError>,
    ) -> NothingLeft {
        let link = self.links.get_mut(usize::from(index))?;
        link.resolved(core, now, config, outcome);
        self.settle(now, config, index.into())
    }

    /// When the handshake on this connection began, and whether with early data; `None` once it is done.
    pub(super) fn handshake_on(&self, conn: ConnId) -> Option<(Instant, bool)> {
        self.links.iter().find(|link| link.conn() == Some(conn))?.handshake()
    }

    /// Leaves what it has, and begins anew.
    pub(super) fn reopen(&mut self, now: Instant) {
        self.links.iter_mut().for_each(|link| link.reopen(now));
    }

    /// A handshake is done on our side.
    pub(super) fn connected(&mut self, core: &mut Core, conn: ConnId) -> Established {
        self.link_of(conn).map_or(Established::Nothing, |link| link.connected(core))
    }

    /// The gateway has spoken on a connection for the first time.
    pub(super) fn heard(&mut self, core: &mut Core, now: Instant, config: &ClientConfig, conn: ConnId) {
        if let Some(link) = self.link_of(conn) {
            let woke = link.heard(core, now, config);
            self.encourage(now, config);
            if !woke && let (up, of @ 2..) = self.up_count() {
                tracing::info!("{up} of {of} tunnels are up");
            }
        }
    }

    /// Notes that the gateway is draining. True if it hadn't said so on this connection.
    pub(super) fn going_away(&mut self, conn: ConnId) -> bool {
        self.link_of(conn).and_then(Link::up).is_some_and(|up| !std::mem::replace(&mut up.going_away, true))
    }

    /// A connection has ended. The caller has dealt with what ran on it.
    pub(super) fn closed(
        &mut self,
        core: &mut Core,
        now: Instant,
        config: &ClientConfig,
        conn: ConnId,
        reason: &CloseReason,
    ) -> NothingLeft {
        let index = self.links.iter().position(|link| link.conn() == Some(conn))?;
        self.links[index].closed(core, now, config, reason);
        self.settle(now, config, index)
    }

    pub(super) fn timers(&mut self, core: &mut Core, now: Instant, config: &ClientConfig) -> NothingLeft {
        let mut nothing_left = None;
        for index in 0..self.links.len() {
            self.links[index].drowse(core, now);
            if self.links[index].next_deadline().is_some_and(|at| at <= now) {
                self.links[index].timers(core, now, config);
                nothing_left = self.settle(now, config, index).or(nothing_left);
            }
        }
        nothing_left
    }

    /// The way to the gateway may be another than before.
    pub(super) fn follow_paths(&mut self, core: &mut Core, now: Instant, config: &ClientConfig) {
        self.links.iter_mut().for_each(|link| link.follow_path(core, now, config));
    }

    /// After something happened to a link: whether that was the end of the last one.
    fn settle(&mut self, now: Instant, config: &ClientConfig, index: usize) -> NothingLeft {
        self.encourage(now, config);
        self.links.iter().all(Link::is_over).then(|| self.links[index].last_error())
    }

    /// While one link is up, no other gives up: what keeps it off may be over some day.
    fn encourage(&mut self, now: Instant, config: &ClientConfig) {
        if self.up_count().0 > 0 {
            self.links.iter_mut().for_each(|link| link.encourage(now, config));
        }
    }

    /// The session on a connection, while it is up or in early data.
    pub(super) fn session_on(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.link_of(conn).and_then(Link::way).map(|way| way.session)
    }

    /// Opens a request stream on the least loaded tunnel that has credit for one; in early data, or on one that is going
    /// away, only where there is no other. `None`: no tunnel is up, or none has credit; both come with an event.
    ///
    /// Whoever asks must be ready to ask again: see [`Client::ask_again`](super::Client::ask_again).
    pub(super) fn open(&mut self, core: &mut Core) -> Option<(ConnId, StreamId)> {
        self.open_least_loaded(core, |_| true)
    }

    /// As [`Self::open`], on a tunnel whose gateway has offered extended CONNECT, now or when it gave the ticket.
    pub(super) fn open_extended_early(&mut self, core: &mut Core) -> Option<(ConnId, StreamId)> {
        self.open_least_loaded(core, |way| way.offers(Settings::enable_connect_protocol))
    }

    fn open_least_loaded(
        &mut self,
        core: &mut Core,
        fits: impl Fn(&Way<'_>) -> bool,
    ) -> Option<(ConnId, StreamId)> {
        let mut ways: Vec<Way<'_>> = self.links.iter_mut().filter_map(Link::way).filter(fits).collect();
        ways.sort_by_key(|way| (way.early, way.going_away, way.session.slots.len()));
        ways.into_iter().find_map(|way| {
            let stream = core.engine.connection(way.conn).and_then(|mut quic| quic.open_bi())?;
            Some((way.conn, stream))
        })
    }

    /// The same for those who would not ask again: never in early data.
    pub(super) fn open_extended(&mut self, core: &mut Core) -> Option<(ConnId, StreamId)> {
        self.open_where(core, Settings::enable_connect_protocol)
    }

    /// As [`Self::open`], on a tunnel whose gateway has offered something; never in early data.
    pub(super) fn open_where(
        &mut self,
        core: &mut Core,
        offers: fn(&Settings) -> bool,
    ) -> Option<(ConnId, StreamId)> {
        self.open_least_loaded(core, |way| !way.early && way.offers(offers))
    }

    /// A gateway has spoken, and offered no extended CONNECT.
    pub(super) fn lacks_extended(&mut self) -> bool {
        self.lacks(Settings::enable_connect_protocol)
    }

    /// A gateway has spoken, and has not offered something.
    pub(super) fn lacks(&mut self, offers: fn(&Settings) -> bool) -> bool {
        let lacks = |up: &mut Up| up.session.peer_settings().is_some_and(|settings| !offers(settings));
        self.links.iter_mut().filter_map(Link::up).any(lacks)
    }

    /// This stream of this connection belongs to `slot`'s owner from now on.
    pub(super) fn assign(&mut self, conn: ConnId, stream: StreamId, slot: Slot) {
        if let Some(session) = self.session_on(conn) {
            session.slots.insert(stream, slot);
        }
    }

    /// The stream's owner has no more to do with it.
    pub(super) fn release(&mut self, conn: ConnId, stream: StreamId) {
        if let Some(session) = self.session_on(conn) {
            session.slots.remove(&stream);
        }
    }

    fn link_of(&mut self, conn: ConnId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.conn() == Some(conn))
    }
}
