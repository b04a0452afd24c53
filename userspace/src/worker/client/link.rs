//! One QUIC connection to the gateway, and its life: from a name to a session, through losses, to its end.
//!
//! ```text
//!  Resolving ─► Connecting ─► Up ─(lost)─► Pause ─► Resolving …      Over: nothing more is tried
//!                   ▲         └─(idle)─► Asleep
//!                   └──────(a flow)────────┘
//! ```
//! With a ticket of an earlier connection it has a session while it is connecting, and requests go out before the gateway
//! has said a word (early data). If the gateway refuses them, nobody has read them: they are asked again, see
//! [`Established`].
//!
//! [`Pool`](super::pool::Pool) owns links and calls them; a link knows nothing of the others.

use super::{
    ClientConfig,
    early::{Established, Way, early_session},
    paths::source_towards,
    sleep::{Drowse, Due},
    trouble::{explain, is_handshake_failure, is_verification_failure, no_answer},
};
use crate::worker::{
    core::Core,
    mail::Command,
    session::{Session, client_h3_config, close, quic_code},
    sleepers::Moved,
};
use masque::{Code, TunnelId};
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};
use tunnel::{CloseReason, ConnId};
use upstream::resolver::ResolveError;

/// First pause before a reconnect; it doubles up to the maximum that the user sets.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// A gateway that has not finished the handshake by then is taken for absent.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// The same where it was at an address before: its name may lead elsewhere by now.
const WAKE_LIMIT: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Link {
    /// Its place in the pool: answers of other threads find it by that.
    index: u8,
    /// Where its packets come from. The IP is unspecified where the kernel chooses it, packet by packet.
    local: SocketAddr,
    /// The gateway's address that was last tried, and the source address that led to it; `None` if none did.
    last_remote: Option<SocketAddr>,
    source: Option<IpAddr>,
    pub(super) state: State,
    /// Attempts since it was last up.
    attempts: u32,
    last_error: Option<String>,
    was_up: bool,
    /// Which tunnel it is, over all of its connections, if it may sleep.
    id: Option<TunnelId>,
    /// It was woken, and the gateway has not answered yet.
    waking: bool,
    /// What its connections before this one have moved.
    moved: Moved,
}

/// What a link is doing.
pub(super) enum State {
    Resolving,
    Connecting {
        conn: ConnId,
        remote: SocketAddr,
        since: Instant,
        until: Instant,
        rest: VecDeque<SocketAddr>,
        /// With a ticket: what was opened in early data.
        early: Option<Box<Session>>,
    },
    Up(Up),
    Pause {
        until: Instant,
    },
    /// It has no connection, and needs none until the next flow.
    Asleep {
        since: Instant,
    },
    /// Nothing more is tried.
    Over,
}

/// A connection whose handshake is done.
pub(super) struct Up {
    pub(super) conn: ConnId,
    pub(super) session: Box<Session>,
    remote: SocketAddr,
    /// The gateway has spoken. Only then is it sure that it has taken us: with TLS 1.3 a client's handshake is complete
    /// before its certificate is judged.
    pub(super) accepted: bool,
    pub(super) going_away: bool,
    /// Of one that may sleep, since the gateway has spoken.
    drowse: Option<Drowse>,
}

impl Link {
    /// One that is about to make its first attempt.
    pub(super) fn new(index: u8, local: SocketAddr, now: Instant, id: Option<TunnelId>) -> Self {
        let state = State::Pause { until: now };
        Self {
            index,
            local,
            last_remote: None,
            source: None,
            state,
            attempts: 0,
            last_error: None,
            was_up: false,
            id,
            waking: false,
            moved: Moved::default(),
        }
    }

    /// The connection that it has, whatever its state.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match &self.state {
            State::Connecting { conn, .. } | State::Up(Up { conn, .. }) => Some(*conn),
            State::Resolving | State::Pause { .. } | State::Asleep { .. } | State::Over => None,
        }
    }

    /// The tunnel, while there is one.
    pub(super) fn up(&mut self) -> Option<&mut Up> {
        match &mut self.state {
            State::Up(up) => Some(up),
            _ => None,
        }
    }

    /// Where it takes streams, if it does.
    pub(super) fn way(&mut self) -> Option<Way<'_>> {
        match &mut self.state {
            State::Up(Up { conn, session, going_away, .. }) => {
                Some(Way { conn: *conn, session, early: false, going_away: *going_away })
            }
            State::Connecting { conn, early: Some(session), .. } => {
                Some(Way { conn: *conn, session, early: true, going_away: false })
            }
            _ => None,
        }
    }

    /// The gateway has taken us, or had and will again once there is a flow.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self.state, State::Up(Up { accepted: true, .. }) | State::Asleep { .. }) || self.waking
    }

    /// It will be up soon, or say why not, and takes no streams yet.
    pub(super) fn is_on_its_way(&self) -> bool {
        matches!(self.state, State::Resolving | State::Connecting { early: None, .. })
    }

    pub(super) fn asleep_since(&self) -> Option<Instant> {
        match self.state {
            State::Asleep { since } => Some(since),
            _ => None,
        }
    }

    /// If it may sleep: which tunnel it is, and what it had moved before this connection.
    pub(super) fn dozer(&self) -> Option<(TunnelId, Moved)> {
        self.id.map(|id| (id, self.moved))
    }

    /// Falls asleep if it is time to, without a word.
    pub(super) fn drowse(&mut self, core: &mut Core, now: Instant) {
        let State::Up(Up { conn, session, drowse: Some(drowse), .. }) = &mut self.state else { return };
        let conn = *conn;
        match drowse.look(now, session.request_count() > 0) {
            Due::Nothing => {}
            Due::Ping => {
                if let Some(mut quic) = core.engine.connection(conn) {
                    quic.ping();
                }
            }
            Due::Sleep => {
                self.note_moved(core, conn);
                self.state = State::Asleep { since: now };
                core.engine.forget(conn);
                core.totals.tunnel_lapses += 1;
                tracing::debug!("the tunnel sleeps until there is a flow");
            }
        }
    }

    fn note_moved(&mut self, core: &mut Core, conn: ConnId) {
        let (tx_bytes, rx_bytes) = core.engine.moved_by(conn).unwrap_or_default();
        self.moved = self.moved.and(Moved { tx_bytes, rx_bytes, flows_opened: core.flows_opened_on(conn) });
    }

    /// A flow waits: comes back to where it was, with the flow's request in the first flight if there is a ticket.
    pub(super) fn wake(&mut self, core: &mut Core, config: &ClientConfig) {
        let now = core.now;
        self.waking = true;
        core.totals.tunnel_wakes += 1;
        match self.last_remote {
            Some(remote) => self.connect(core, now, config, VecDeque::from([remote])),
            None => self.resolve(core, now, config),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// What it waits for, unless it is up.
    pub(super) fn waits_for(&self, config: &ClientConfig) -> Option<String> {
        let waits = match &self.state {
            State::Up(Up { accepted: true, .. }) => return None,
            State::Up(Up { remote, .. }) => format!("a word from {remote}"),
            State::Asleep { .. } => return None,
            State::Over => "the end".to_owned(),
            State::Resolving => format!("resolving {}", config.host),
            State::Connecting { remote, .. } => format!("handshake with {remote}"),
            State::Pause { .. } => "pause before the next attempt".to_owned(),
        };
        let why = self.last_error.as_ref().map_or(String::new(), |error| format!("; last error: {error}"));
        Some(format!("{waits}{why}"))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Connecting { until, .. } | State::Pause { until } => Some(until),
            State::Up(Up { drowse: Some(ref drowse), .. }) => drowse.next(),
            State::Resolving | State::Up(_) | State::Asleep { .. } | State::Over => None,
        }
    }

    /// Makes the next attempt: finds the gateway's addresses.
    fn resolve(&mut self, core: &mut Core, now: Instant, config: &ClientConfig) {
        self.state = State::Resolving;
        self.attempts += 1;
        let (mailbox, link) = (core.mailbox.clone(), self.index);
        let done = Box::new(move |outcome| {
            mailbox.command(Command::GatewayResolved { link, outcome });
        });
        let (resolver, host, port) = (&config.resolver, &config.host, config.port);
        // An address that was tried in vain is no better for being remembered.
        let asked = match self.attempts {
            1 => resolver.resolve(host, port, done),
            _ => resolver.resolve_afresh(host, port, done),
        };
        if asked.is_err() {
            self.lost(now, config, "the resolver is busy".to_owned(), false);
        }
    }

    pub(super) fn resolved(
        &mut self,
        core: &mut Core,
        now: Instant,
        config: &ClientConfig,
        outcome: Result<Vec<SocketAddr>, ResolveError>,
    ) {
        if !matches!(self.state, State::Resolving) {
            return;
        }
        match outcome {
            Ok(addresses) => {
                let fits = |address: &SocketAddr| address.is_ipv4() == self.local.is_ipv4();
                let candidates: VecDeque<_> = addresses.into_iter().filter(fits).collect();
                self.connect(core, now, config, candidates);
            }
            Err(error) => {
                let host = &config.host;
                let error = format!("gateway name {host}: {error}; see: getent hosts {host}");
                self.lost(now, config, error, false);
            }
        }
    }

    /// Begins a handshake with the first candidate that takes one.
    fn connect(
        &mut self,
        core: &mut Core,
        now: Instant,
        config: &ClientConfig,
        mut candidates: VecDeque<SocketAddr>,
    ) {
        let mut last = format!("{} has no address in the family of {}", config.host, self.local.ip());
        while let Some(remote) = candidates.pop_front() {
            self.look_up_source(remote);
            if self.source.is_none() {
                last = format!(
                    "gateway {} ({remote}): no route; see: ip route get {}",
                    config.host,
                    remote.ip()
                );
                continue;
            }
            match core.engine.connect(now, config.quic.clone(), remote, self.local, &config.host) {
                Ok(conn) => {
                    tracing::debug!("handshake with {remote}");
                    let until = now + if self.waking { WAKE_LIMIT } else { HANDSHAKE_LIMIT };
                    let early = early_session(core, config, conn, self.id);
                    self.state =
                        State::Connecting { conn, remote, since: now, until, rest: candidates, early };
                    return;
                }
                Err(error) => last = format!("{remote}: {error}"),
            }
        }
        self.lost(now, config, last, false);
    }

    /// Asks the kernel where packets to `remote` come from. True if that is another address than before.
    fn look_up_source(&mut self, remote: SocketAddr) -> bool {
        self.last_remote = Some(remote);
        let source = source_towards(remote).ok();
        if let Some(source) = source
            && !self.local.ip().is_unspecified()
        {
            self.local.set_ip(source);
        }
        std::mem::replace(&mut self.source, source) != source
    }

    /// The way to the gateway may be another than before. A connection is moved to the new address and speaks at once,
    /// so that the gateway hears of it, and we of a path that is dead; a pause ends once there is a way again.
    pub(super) fn follow_path(&mut self, core: &mut Core, now: Instant, config: &ClientConfig) {
        let Some(remote) = self.last_remote else { return };
        let changed = self.look_up_source(remote);
        // Without a way nothing can be sent. An event comes when there is one again.
        let Some(source) = self.source else { return };
        if changed && let State::Pause { until } = &mut self.state {
            tracing::info!("packets to {} come from {source} now: trying again", config.host);
            *until = now;
        }
        let Some(mut quic) = self.conn().and_then(|conn| core.engine.connection(conn)) else { return };
        if changed {
            tracing::info!("packets to {} come from {source} now: the tunnel moves", config.host);
            core.totals.address_changes += 1;
            quic.set_local_address(self.local);
        } else {
            quic.ping();
        }
    }

    /// When the handshake began that is under way, and whether with early data.
    pub(super) fn handshake(&self) -> Option<(Instant, bool)> {
        match &self.state {
            State::Connecting { since, early, .. } => Some((*since, early.is_some())),
            _ => None,
        }
    }

    /// Leaves the connection that it has to the caller, and makes a first attempt again.
    pub(super) fn reopen(&mut self, now: Instant) {
        self.attempts = 0;
        self.state = State::Pause { until: now };
    }

    /// The handshake is done on our side.
    pub(super) fn connected(&mut self, core: &mut Core) -> Established {
        let State::Connecting { conn, remote, early, .. } = &mut self.state else {
            return Established::Nothing;
        };
        let (conn, remote, early) = (*conn, *remote, early.take());
        let Some(mut quic) = core.engine.connection(conn) else { return Established::Nothing };
        let refused = early.is_some() && !quic.early_data_accepted();
        let session = match early.filter(|_| !refused) {
            Some(session) => Ok(session),
            None => {
                Session::open(masque::Connection::client(client_h3_config(self.id)), &mut quic).map(Box::new)
            }
        };
        match session {
            Ok(session) => {
                let up = Up { conn, session, remote, accepted: false, going_away: false, drowse: None };
                self.state = State::Up(up);
                if refused { Established::UpAnew } else { Established::Up }
            }
            Err(error) => {
                close(&mut quic, &error);
                Established::Nothing
            }
        }
    }

    /// The gateway's first word: counts and says that the tunnel is up. True if it has only slept.
    pub(super) fn heard(&mut self, core: &mut Core, now: Instant, config: &ClientConfig) -> bool {
        let State::Up(up) = &mut self.state else { return false };
        up.accepted = true;
        up.drowse = config.sleep.map(|habit| Drowse::new(habit, now));
        if std::mem::take(&mut self.waking) {
            tracing::debug!("the tunnel is awake");
            self.attempts = 0;
            self.last_error = None;
            return true;
        }
        core.totals.reconnects += u64::from(self.was_up);
        self.was_up = true;
        self.attempts = 0;
        self.last_error = None;
        let is_up = format!("tunnel to {} ({}) is up", config.host, up.remote);
        tracing::info!("ready: {is_up}");
        crate::notify::ready(&is_up);
        false
    }

    /// Its connection has ended.
    pub(super) fn closed(
        &mut self,
        core: &mut Core,
        now: Instant,
        config: &ClientConfig,
        reason: &CloseReason,
    ) {
        let fatal = is_verification_failure(reason);
        if let Some(conn) = self.conn() {
            self.note_moved(core, conn);
        }
        let host = &config.host;
        match &mut self.state {
            State::Connecting { rest, remote, early: Some(_), .. } if is_handshake_failure(reason) => {
                // A ticket that the gateway can't stand: no other of them is tried, and the same address at once.
                tracing::info!(
                    "the gateway refused a session ticket ({}): once more without",
                    explain(reason)
                );
                config.early.tickets.forget();
                let mut rest = std::mem::take(rest);
                rest.push_front(*remote);
                self.connect(core, now, config, rest);
            }
            State::Connecting { rest, remote, .. } => {
                let error = format!("gateway {host} ({remote}): {}", explain(reason));
                let rest = std::mem::take(rest);
                self.not_reached(core, now, config, error, rest, fatal);
            }
            State::Up(Up { accepted, remote, .. }) => {
                let error = if *accepted {
                    format!("tunnel to {host} ended: {}", explain(reason))
                } else {
                    format!("gateway {host} ({remote}): {}", explain(reason))
                };
                self.lost(now, config, error, fatal);
            }
            State::Resolving | State::Pause { .. } | State::Asleep { .. } | State::Over => {}
        }
    }

    /// One address did not lead to a tunnel.
    fn not_reached(
        &mut self,
        core: &mut Core,
        now: Instant,
        config: &ClientConfig,
        error: String,
        rest: VecDeque<SocketAddr>,
        fatal: bool,
    ) {
        if rest.is_empty() && !fatal && std::mem::take(&mut self.waking) {
            // Where it was before it slept. Its name may lead elsewhere.
            tracing::info!("{error}; looking up the gateway's name again");
            self.attempts = self.attempts.max(1);
            return self.resolve(core, now, config);
        }
        if rest.is_empty() || fatal {
            self.lost(now, config, error, fatal);
        } else {
            tracing::warn!("{error}; trying the next address");
            self.connect(core, now, config, rest);
        }
    }

    /// Gives up on a handshake that takes too long.
    fn handshake_expired(&mut self, core: &mut Core, now: Instant, config: &ClientConfig) {
        let State::Connecting { conn, remote, rest, .. } = &mut self.state else { return };
        let limit = if self.waking { WAKE_LIMIT } else { HANDSHAKE_LIMIT };
        let error = no_answer(&config.host, *remote, limit);
        let (conn, rest) = (*conn, std::mem::take(rest));
        if let Some(mut quic) = core.engine.connection(conn) {
            quic.close(quic_code(Code::H3_NO_ERROR), b"");
        }
        self.not_reached(core, now, config, error, rest, false);
    }

    /// Pauses before the next attempt, or gives up.
    fn lost(&mut self, now: Instant, config: &ClientConfig, error: String, fatal: bool) {
        self.waking = false;
        let exhausted = config.retries_max.is_some_and(|max| self.attempts > max);
        if fatal || config.once || exhausted {
            self.state = State::Over;
        } else {
            let pause = pause(self.attempts, config.pause_max, rand::random());
            tracing::warn!("{error}; next attempt in {:.1} s", pause.as_secs_f64());
            self.state = State::Pause { until: now + pause };
        }
        self.last_error = Some(error);
    }

    /// The error that it was lost by.
    pub(super) fn last_error(&self) -> String {
        self.last_error.clone().unwrap_or_default()
    }

    /// Another link is up: what made this one give up may pass.
    pub(super) fn encourage(&mut self, now: Instant, config: &ClientConfig) {
        if self.is_over() && !config.once {
            tracing::warn!("{}; next attempt in {:.1} s", self.last_error(), config.pause_max.as_secs_f64());
            self.attempts = 0;
            self.state = State::Pause { until: now + config.pause_max };
        }
    }

    /// What is due by now.
    pub(super) fn timers(&mut self, core: &mut Core, now: Instant, config: &ClientConfig) {
        match self.state {
            State::Pause { until } if until <= now => self.resolve(core, now, config),
            State::Connecting { until, .. } if until <= now => self.handshake_expired(core, now, config),
            _ => {}
        }
    }
}

/// The pause after so many attempts: doubled each time, and shortened by up to a half at random (`draw`), so that the
/// clients of a gateway that was away don't come back in one wave.
fn pause(attempts: u32, max: Duration, draw: u16) -> Duration {
    let whole = PAUSE_FIRST.saturating_mul(1 << attempts.min(16)).min(max);
    whole - whole.mul_f64(f64::from(draw) / f64::from(u16::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    //! Goal: pauses double up to the user's limit, and no draw leaves the upper half of that.
    use super::*;

    #[test]
    fn a_pause_doubles_and_is_shortened_by_half_at_most() {
        let max = Duration::from_secs(300);
        let bounds =
            |attempts| (pause(attempts, max, u16::MAX).as_millis(), pause(attempts, max, 0).as_millis());
        assert_eq!([1, 2, 3].map(bounds), [(500, 1_000), (1_000, 2_000), (2_000, 4_000)]);
        assert_eq!([16, u32::MAX].map(bounds), [(150_000, 300_000); 2]);
        assert_eq!(pause(9, Duration::ZERO, 7), Duration::ZERO);
    }
}
