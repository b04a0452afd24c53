//! Handshakes: one connection after the other, each closed once it has served.
//!
//! ```text
//!  (pace) ─► connect ─► [0-RTT: request in the first flight] ─► up ─► [answer] ─► done ─► [ticket] ─► closed
//!  before it: full handshakes, uncounted, until there are tickets for all that may be under way
//! ```
//! A connection stays open until the server has confirmed its handshake: closed before, it would be a failure there. One
//! that resumes uses a ticket up and brings one or more, so a run keeps itself in tickets: while they are few, it stays
//! open until one has come.

use super::{
    Figures, NO_ERROR, Target,
    figures::PathSeen,
    links::{HANDSHAKE_LIMIT, explain, no_answer, speaks_perf},
    load::Turned,
    schedule::{Pace, Schedule, Window},
};
use crate::worker::core::Core;
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};
use tunnel::{ConnId, Event, Read, StreamId, Write, tls};

/// What a handshake begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Handshake {
    /// Nothing: certificates and their signature
    Full,
    /// A ticket
    Resumed,
    /// A ticket, and a request in the first flight
    #[value(name = "0rtt")]
    Early,
}

/// A job.
#[derive(Clone, Debug)]
pub(crate) struct HandshakeSpec {
    pub(crate) kind: Handshake,
    pub(crate) pace: Pace,
    /// Bytes wanted back by a request on each connection; without it, only 0-RTT has one.
    pub(crate) size: Option<u64>,
    pub(crate) omit: Duration,
    pub(crate) time: Option<Duration>,
    pub(crate) count: Option<u64>,
}

/// Handshakes under way at most, whatever the clock says: what is due beyond them waits, and counts from its instant.
const UNDER_WAY_MAX: usize = 1024;
/// Handshakes begun in one turn: each costs some 100 us here.
const BEGUN_MAX: usize = 16;
/// Tickets in stock before the clock begins.
const STOCK: usize = 64;
/// How long a connection waits for its ticket.
const TICKET_LIMIT: Duration = Duration::from_secs(1);
/// Handshakes that may bring no ticket before the server is taken to give none.
const TICKETLESS_MAX: u64 = 8;

/// See the module.
pub(super) struct Handshakes {
    spec: HandshakeSpec,
    window: Window,
    schedule: Option<Schedule>,
    figures: Figures,
    begun: u64,
    open: HashMap<ConnId, Shaking>,
    /// Done on our side, until the server has said so too and tickets are enough: since when, and how many tickets had come
    /// by then.
    lingering: VecDeque<(ConnId, Instant, u64)>,
    /// Before the clock begins.
    priming: bool,
    ticketless: u64,
    /// Something is due, and there is no ticket for it.
    starved: bool,
    /// Of the state before the job, to tell what is its own.
    tickets_used: u64,
    certificates: u64,
    path: Option<PathSeen>,
    /// Nothing new begins, and what is under way has until then.
    draining: Option<Instant>,
}

struct Shaking {
    since: Instant,
    until: Instant,
    up: bool,
    /// The request: its stream, and what is still to come.
    request: Option<(StreamId, u64)>,
}

impl Handshakes {
    pub(super) fn begin(now: Instant, to: &Target, spec: HandshakeSpec) -> Self {
        let priming = spec.kind != Handshake::Full;
        let mut job = Self {
            window: Window::new(spec.omit, spec.time),
            schedule: None,
            figures: Figures::new("handshakes"),
            begun: 0,
            open: HashMap::new(),
            lingering: VecDeque::new(),
            priming,
            ticketless: 0,
            starved: false,
            tickets_used: to.tickets.used(),
            certificates: tls::certificates_judged(),
            path: None,
            draining: None,
            spec,
        };
        if !priming {
            job.begin_clock(now, to);
        }
        job
    }

    fn begin_clock(&mut self, now: Instant, to: &Target) {
        self.priming = false;
        self.tickets_used = to.tickets.used();
        self.certificates = tls::certificates_judged();
        self.window.begin(now);
        if let Pace::PerSecond(rate) = self.spec.pace {
            self.schedule = Some(Schedule::new(now, rate));
        }
    }

    fn wants_tickets(&self) -> bool {
        self.spec.kind != Handshake::Full
    }

    pub(super) fn turn(&mut self, core: &mut Core, now: Instant, to: &Target) -> Turned {
        if self.open.values().any(|shaking| now >= shaking.until) {
            return Turned::Trouble(no_answer(to));
        }
        self.release(core, now, to);
        if self.priming {
            return self.prime(core, now, to);
        }
        if self.window.is_over(now) && self.draining.is_none() {
            self.draining = Some(now + HANDSHAKE_LIMIT);
            if let (Some(schedule), Some(until)) = (&mut self.schedule, self.window.until()) {
                let skipped = schedule.skip_until(until);
                self.figures.offered += skipped;
                self.figures.all_asked += skipped;
                self.figures.all_unanswered += skipped;
            }
        }
        let mut more = false;
        if self.draining.is_none() {
            match self.issue(core, now, to) {
                Ok(issued) => more = issued == BEGUN_MAX,
                Err(why) => return Turned::Trouble(why),
            }
        }
        let is_done = self.draining.is_some() || self.left() == 0;
        if is_done && self.open.is_empty() && self.lingering.is_empty() {
            Turned::Over
        } else {
            Turned::Goes { more }
        }
    }

    fn has_room(&self) -> bool {
        self.open.len() + self.lingering.len() < UNDER_WAY_MAX
    }

    fn left(&self) -> u64 {
        self.spec.count.map_or(u64::MAX, |count| count.saturating_sub(self.begun))
    }

    /// Full handshakes until there are tickets.
    fn prime(&mut self, core: &mut Core, now: Instant, to: &Target) -> Turned {
        if to.tickets.len() >= self.stock() && self.open.is_empty() {
            self.begin_clock(now, to);
            return Turned::Goes { more: true };
        }
        if self.ticketless >= TICKETLESS_MAX && to.tickets.len() == 0 {
            return Turned::Trouble(
                "the server gives no session tickets, and there is nothing to resume by; measure --handshake full"
                    .to_owned(),
            );
        }
        if self.open.is_empty() && self.lingering.is_empty() {
            match to.connect(core, now, &to.resumed, 0) {
                Ok(conn) => {
                    let until = now + HANDSHAKE_LIMIT;
                    self.open.insert(conn, Shaking { since: now, until, up: false, request: None });
                }
                Err(why) => return Turned::Trouble(why),
            }
        }
        Turned::Goes { more: false }
    }

    /// Tickets that must be in stock: those of all that may be under way.
    fn stock(&self) -> usize {
        let under_way = match self.spec.pace {
            Pace::Parallel(count) => count as usize,
            Pace::PerSecond(_) => STOCK,
        };
        let counted = usize::try_from(self.left()).unwrap_or(usize::MAX);
        under_way.min(UNDER_WAY_MAX).min(counted).max(1)
    }

    fn issue(&mut self, core: &mut Core, now: Instant, to: &Target) -> Result<usize, String> {
        let mut issued = 0;
        self.starved = false;
        while issued < BEGUN_MAX && self.left() > 0 && self.has_room() {
            let since = match self.spec.pace {
                Pace::Parallel(count) if self.open.len() < count as usize => now,
                Pace::Parallel(_) => break,
                Pace::PerSecond(_) => {
                    let until = self.window.until();
                    match self.schedule.and_then(|of| of.due(now, until)) {
                        Some(due) => due,
                        None => break,
                    }
                }
            };
            if self.wants_tickets() && to.tickets.len() == 0 {
                if self.open.is_empty() && self.lingering.is_empty() {
                    return Err("the server has stopped giving session tickets".to_owned());
                }
                self.starved = true;
                break;
            }
            self.connect(core, now, since, to)?;
            if let Some(schedule) = &mut self.schedule {
                schedule.take();
                self.figures.offered += u64::from(self.window.holds(since));
            }
            issued += 1;
        }
        Ok(issued)
    }

    fn connect(&mut self, core: &mut Core, now: Instant, since: Instant, to: &Target) -> Result<(), String> {
        let config = match self.spec.kind {
            Handshake::Full => &to.full,
            Handshake::Resumed => &to.resumed,
            Handshake::Early => &to.early,
        };
        let index = usize::try_from(self.begun).unwrap_or(0);
        let conn = to.connect(core, now, config, index)?;
        let mut shaking = Shaking { since, until: now + HANDSHAKE_LIMIT, up: false, request: None };
        self.begun += 1;
        self.figures.all_asked += 1;
        if self.spec.kind == Handshake::Early
            && core.engine.connection(conn).is_some_and(|quic| quic.has_early_data())
        {
            shaking.request = self.ask(core, conn);
        }
        self.open.insert(conn, shaking);
        Ok(())
    }

    /// Asks for the answer of the connection's request.
    fn ask(&mut self, core: &mut Core, conn: ConnId) -> Option<(StreamId, u64)> {
        let size = self.spec.size.unwrap_or(1);
        let mut quic = core.engine.connection(conn)?;
        let stream = quic.open_bi()?;
        let mut head = [Bytes::copy_from_slice(&size.to_be_bytes())];
        // A server whose window is below eight bytes serves nobody.
        if !matches!(quic.write_chunks(stream, &mut head), Write::Written { bytes: 8, .. }) {
            return None;
        }
        quic.finish(stream);
        self.figures.all_bytes_asked += size;
        Some((stream, size))
    }

    pub(super) fn on_event(
        &mut self,
        core: &mut Core,
        now: Instant,
        to: &Target,
        conn: ConnId,
        event: &Event,
    ) -> Option<String> {
        match event {
            Event::Connected { .. } => return self.connected(core, now, to, conn),
            Event::StreamReadable { .. } => return self.answered(core, now, to, conn),
            Event::HandshakeFailed { reason } | Event::Closed { reason } => {
                self.lingering.retain(|&(lingering, ..)| lingering != conn);
                // Once it has served, its end is ours.
                self.open.remove(&conn)?;
                self.figures.all_failed += u64::from(!self.priming);
                return Some(explain(reason));
            }
            _ => {}
        }
        None
    }

    fn connected(&mut self, core: &mut Core, now: Instant, to: &Target, conn: ConnId) -> Option<String> {
        let asks = !self.priming && (self.spec.kind == Handshake::Early || self.spec.size.is_some());
        let shaking = self.open.get_mut(&conn)?;
        shaking.up = true;
        let took = now.saturating_duration_since(shaking.since);
        let (since, asked) = (shaking.since, shaking.request.is_some());
        if let Err(why) = speaks_perf(core, conn) {
            return Some(why);
        }
        if !self.priming && self.counts(now, since) {
            self.figures.handshake.record_time(took);
        }
        if !asks {
            self.served(core, now, to, conn);
            return None;
        }
        let accepted = asked && core.engine.connection(conn).is_some_and(|quic| quic.early_data_accepted());
        self.figures.all_early += u64::from(accepted);
        if !accepted {
            // What was sent early, if anything, is gone: nobody has read it.
            let request = self.ask(core, conn);
            if request.is_none() {
                return Some("the server permits no stream".to_owned());
            }
            if let Some(shaking) = self.open.get_mut(&conn) {
                shaking.request = request;
            }
        }
        self.answered(core, now, to, conn)
    }

    fn counts(&self, now: Instant, since: Instant) -> bool {
        self.window.holds(if self.schedule.is_some() { since } else { now })
    }

    /// Takes what has come of the answer. It may be there before the handshake is done.
    fn answered(&mut self, core: &mut Core, now: Instant, to: &Target, conn: ConnId) -> Option<String> {
        let shaking = self.open.get_mut(&conn).filter(|shaking| shaking.up)?;
        let (stream, left) = shaking.request.as_mut()?;
        let mut quic = core.engine.connection(conn)?;
        loop {
            match quic.read(*stream, super::STEP_BYTES) {
                Read::Chunk(chunk) => {
                    let bytes = chunk.len() as u64;
                    self.figures.moved_down(bytes, self.window.holds(now));
                    *left = left.checked_sub(bytes).unwrap_or(u64::MAX);
                }
                Read::Blocked => return None,
                Read::Fin if *left == 0 => break,
                Read::Fin | Read::Reset(_) | Read::Gone => {
                    return Some("the server's answer isn't the one asked for".to_owned());
                }
            }
        }
        self.served(core, now, to, conn);
        None
    }

    /// A connection has done all that it is for.
    fn served(&mut self, core: &mut Core, now: Instant, to: &Target, conn: ConnId) {
        let Some(shaking) = self.open.remove(&conn) else { return };
        if !self.priming {
            self.figures.all_done += 1;
            if self.counts(now, shaking.since) {
                self.figures.done += 1;
                self.figures.latency.record_time(now.saturating_duration_since(shaking.since));
            }
        }
        if self.path.is_none()
            && let Some(quic) = core.engine.connection(conn)
        {
            let path = quic.stats().path;
            self.path = Some(PathSeen { mtu_bytes: path.current_mtu, rtt: path.rtt, ..PathSeen::default() });
        }
        self.lingering.push_back((conn, now, to.tickets.come()));
        self.release(core, now, to);
    }

    /// Closes those that the server has confirmed and that have their ticket, or wait in vain.
    fn release(&mut self, core: &mut Core, now: Instant, to: &Target) {
        while let Some(&(conn, since, come)) = self.lingering.front() {
            let has_come = to.tickets.come() > come;
            let is_late = now >= since + TICKET_LIMIT;
            let stocked = !self.wants_tickets() || to.tickets.len() >= self.stock();
            let confirmed = core
                .engine
                .connection(conn)
                .is_none_or(|quic| quic.is_closed() || quic.stats().frame_rx.handshake_done > 0);
            if !is_late && !(confirmed && (has_come || stocked)) {
                break;
            }
            self.ticketless += u64::from(!has_come && is_late);
            self.lingering.pop_front();
            close(core, conn);
        }
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let limit = self.open.values().map(|shaking| shaking.until).min();
        let linger = self.lingering.front().map(|&(_, since, _)| since + TICKET_LIMIT);
        let can_begin = !self.starved && self.draining.is_none() && self.has_room() && self.left() > 0;
        let due = self.schedule.filter(|_| can_begin).and_then(|schedule| schedule.next());
        let end = self.window.until().filter(|_| self.draining.is_none());
        [limit, linger, due, end, self.draining].into_iter().flatten().min()
    }

    pub(super) fn finish(
        mut self,
        core: &mut Core,
        now: Instant,
        to: &Target,
    ) -> (Vec<Figures>, Option<PathSeen>) {
        if !self.priming {
            self.figures.all_tickets = to.tickets.used() - self.tickets_used;
            self.figures.all_certificates = tls::certificates_judged() - self.certificates;
            self.figures.all_unanswered += self.open.len() as u64;
        }
        let lingering = self.lingering.iter().map(|&(conn, ..)| conn);
        self.open.keys().copied().chain(lingering).for_each(|conn| close(core, conn));
        self.figures.window = self.window.passed(now);
        (vec![self.figures], self.path)
    }
}

fn close(core: &mut Core, conn: ConnId) {
    if let Some(mut quic) = core.engine.connection(conn).filter(|quic| !quic.is_closed()) {
        quic.close(NO_ERROR, b"");
    }
}
