//! `beam ping`: requests on the client's one tunnel, and the time until each is answered.
//!
//! ```text
//!  first tunnel ─ greeting ─ answer, ticket ─► closed ─► second tunnel (0-RTT) ─ greeting ─ answer ─► one probe each interval
//! ```
//! The request is `OPTIONS *`: "a ping or no-op type of method", by RFC 9110 section 9.3.7, which every HTTP server
//! answers somehow; any final answer will do. It takes the way of every request of a flow: QUIC, HTTP/3, the gateway's
//! worker, and it shows who we are.
//!
//! The greeting is the same request, in early data where a ticket permits it: how soon a new tunnel is of use. Whoever
//! listens ([`Report`]) may be slow: while its queue is full, nothing is asked.

mod report;

pub(crate) use report::{Early, Opening, PathFacts, ProbeConfig, Report};

use super::{Client, early::Established};
use crate::worker::{
    Ended,
    core::Core,
    session::{Slot, abandon, quic_code, write_some},
};
use bytes::Bytes;
use masque::{Code, Item, MessageReader, RequestHead, ResponseReader, ResponseTo, Scope, status};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tunnel::{ConnId, Read, StreamId};

/// Probes under way at once: where answers take longer than the interval.
const UNDER_WAY_MAX: usize = 64;
/// An answer that takes longer is none.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long the first tunnel waits for a ticket after its answer. A gateway sends it with the handshake's end.
const TICKET_LIMIT: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Probing {
    config: ProbeConfig,
    stage: Stage,
    under_way: Vec<Probe>,
    /// Number of the next probe, and when it is due; that is so from the first greeting of the second tunnel on.
    next: u64,
    due: Option<Instant>,
    /// The handshake of the tunnel that is coming up.
    handshake: Handshake,
    /// The last tunnel left a ticket.
    had_ticket: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A tunnel is coming up, or has not answered its greeting.
    Opening {
        is_first: bool,
    },
    /// The first tunnel has answered, and stays for its ticket.
    Ticket {
        on: ConnId,
        until: Instant,
    },
    Running {
        on: ConnId,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Handshake {
    began: Option<Instant>,
    took: Duration,
    early: Option<Early>,
}

struct Probe {
    on: (ConnId, StreamId),
    /// `None`: the greeting.
    number: Option<u64>,
    asked: Instant,
    unsent: Bytes,
    reader: ResponseReader,
}

/// What a stream has said.
enum Heard {
    Nothing,
    Status(u16),
    /// It was reset, or makes no sense.
    Broken,
}

impl Probing {
    pub(super) fn new(config: ProbeConfig) -> Self {
        Self {
            config,
            stage: Stage::Opening { is_first: true },
            under_way: Vec::new(),
            next: 1,
            due: None,
            handshake: Handshake::default(),
            had_ticket: false,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let ticket = match self.stage {
            Stage::Ticket { until, .. } => Some(until),
            _ => None,
        };
        let silent = self.under_way.iter().map(|probe| probe.asked + ANSWER_LIMIT).min();
        [self.due, ticket, silent].into_iter().flatten().min()
    }

    /// Every probe was asked and has its end.
    fn is_done(&self) -> bool {
        self.under_way.is_empty() && self.config.count.is_some_and(|count| self.next > count)
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < UNDER_WAY_MAX.min(self.config.reports.capacity().unwrap_or(usize::MAX))
            && !self.config.reports.is_full()
    }

    fn report(&self, report: Report) {
        // Nothing is asked unless there is room for its answer; where nobody listens any more, the end is near.
        let _ = self.config.reports.try_send(report);
    }

    /// Takes out the probes that are `gone`. Those with a number had no answer.
    fn give_up(&mut self, gone: impl Fn(&Probe) -> bool) -> Vec<Probe> {
        let gone: Vec<Probe> = self.under_way.extract_if(.., |probe| gone(probe)).collect();
        for number in gone.iter().filter_map(|probe| probe.number) {
            self.report(Report::Silent { number });
        }
        gone
    }

    fn is_greeting(&self) -> bool {
        self.under_way.iter().any(|probe| probe.number.is_none())
    }

    /// The number of the next probe; the one behind it is due an interval later.
    fn advance(&mut self, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        let more = self.config.count.is_none_or(|count| self.next <= count);
        // Where the last one was late, the next one isn't sooner for it.
        self.due = self.due.filter(|_| more).map(|due| (due + self.config.interval).max(now));
        number
    }
}

impl Probe {
    /// Writes what is left of the request, and reads the answer's header section.
    fn hear(&mut self, quic: &mut tunnel::ConnMut<'_>) -> Heard {
        let stream = self.on.1;
        if !self.unsent.is_empty() {
            write_some(quic, stream, &mut self.unsent);
            if self.unsent.is_empty() {
                quic.finish(stream);
            }
        }
        loop {
            match self.reader.next() {
                Ok(Some(Item::Headers(response))) if status::is_interim(response.status) => {}
                Ok(Some(Item::Headers(response))) => return Heard::Status(response.status),
                Ok(Some(_)) => {}
                Ok(None) => match quic.read(stream, usize::MAX) {
                    Read::Chunk(bytes) => self.reader.push(bytes),
                    Read::Fin => self.reader.finish(),
                    Read::Blocked => return Heard::Nothing,
                    Read::Reset(_) | Read::Gone => return Heard::Broken,
                },
                Err(error) => {
                    if error.scope() == Scope::Connection {
                        quic.close(quic_code(error.code()), error.to_string().as_bytes());
                    }
                    return Heard::Broken;
                }
            }
        }
    }
}

impl Client {
    /// Greets, once there is somewhere to ask.
    pub(super) fn greet(&mut self, core: &mut Core) {
        let Some(probing) = &self.probing else { return };
        if matches!(probing.stage, Stage::Opening { .. })
            && !probing.is_greeting()
            && let Some(on) = self.pool.open(core)
        {
            self.probe(core, on, None);
        }
    }

    /// Sends one request.
    fn probe(&mut self, core: &mut Core, on: (ConnId, StreamId), number: Option<u64>) {
        let Some(probing) = &mut self.probing else { return };
        let fields: Vec<(&str, &str)> =
            self.bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let head = RequestHead::other("OPTIONS", &self.authority, "*", &fields);
        let reader = MessageReader::response(masque::Limits::default(), ResponseTo::Other);
        let unsent = masque::encode_request(&head);
        probing.under_way.push(Probe { on, number, asked: core.now, unsent, reader });
        core.totals.requests += 1;
        self.pool.assign(on.0, on.1, Slot::Probe);
        self.hear_probe(core, on);
    }

    /// A probe's stream has something to say, or takes more.
    pub(super) fn hear_probe(&mut self, core: &mut Core, on: (ConnId, StreamId)) {
        let Some(probing) = &mut self.probing else { return };
        let Some(index) = probing.under_way.iter().position(|probe| probe.on == on) else { return };
        let Some(mut quic) = core.engine.connection(on.0) else { return };
        let status = match probing.under_way[index].hear(&mut quic) {
            Heard::Nothing => return,
            Heard::Status(status) => Some(status),
            Heard::Broken => None,
        };
        let facts = PathFacts::of(&quic);
        let remote = quic.remote_address();
        abandon(&mut quic, on.1, Code::H3_NO_ERROR);
        self.pool.release(on.0, on.1);
        let probe = probing.under_way.swap_remove(index);
        match (probe.number, status) {
            (Some(number), Some(status)) => {
                let rtt = core.now.saturating_duration_since(probe.asked);
                probing.report(Report::Answer { number, rtt, status, facts });
            }
            (Some(number), None) => probing.report(Report::Silent { number }),
            (None, Some(status)) => probing.greeted(core.now, on.0, remote, status, facts),
            (None, None) => self.no_greeting("reset it"),
        }
    }

    /// The handshake of a tunnel is done: how long it took, and what became of early data.
    pub(super) fn probe_connected(
        &mut self,
        now: Instant,
        begun: Option<(Instant, bool)>,
        established: Established,
    ) {
        let (Some(probing), Some((began, asked_early))) = (&mut self.probing, begun) else { return };
        let early = match (probing.stage, asked_early, established) {
            (Stage::Opening { is_first: true }, ..) => None,
            (_, true, Established::UpAnew) => Some(Early::Refused),
            (_, true, _) => Some(Early::Accepted),
            (_, false, _) if probing.had_ticket => Some(Early::NotOffered),
            (_, false, _) => Some(Early::NoTicket),
        };
        let took = now.saturating_duration_since(began);
        probing.handshake = Handshake { began: Some(began), took, early };
    }

    /// What was asked in early data came to nothing.
    pub(super) fn probe_again(&mut self, conn: ConnId) {
        if let Some(probing) = &mut self.probing {
            probing.give_up(|probe| probe.on.0 == conn);
        }
    }

    /// A connection has ended.
    pub(super) fn probe_closed(&mut self, conn: ConnId) {
        let Some(probing) = &mut self.probing else { return };
        probing.give_up(|probe| probe.on.0 == conn);
        if matches!(probing.stage, Stage::Ticket { on, .. } | Stage::Running { on } if on == conn) {
            probing.stage = Stage::Opening { is_first: false };
            probing.had_ticket = !self.config.early.tickets.is_empty();
        }
    }

    pub(super) fn probe_timers(&mut self, core: &mut Core, now: Instant) {
        let Some(probing) = &mut self.probing else { return };
        for probe in probing.give_up(|probe| probe.asked + ANSWER_LIMIT <= now) {
            if let Some(mut quic) = core.engine.connection(probe.on.0) {
                abandon(&mut quic, probe.on.1, Code::H3_REQUEST_CANCELLED);
            }
            self.pool.release(probe.on.0, probe.on.1);
            if probe.number.is_none() {
                self.ended.get_or_insert(no_greeting("has not answered it"));
            }
        }
        let has_ticket = !self.config.early.tickets.is_empty();
        if let Stage::Ticket { on, until } = probing.stage
            && (has_ticket || until <= now)
        {
            if let Some(mut quic) = core.engine.connection(on) {
                quic.close(quic_code(Code::H3_NO_ERROR), b"");
            }
            self.pool.reopen(now);
            probing.stage = Stage::Opening { is_first: false };
            probing.had_ticket = has_ticket;
        }
        self.probe_due(core, now);
        if self.probing.as_ref().is_some_and(Probing::is_done) {
            self.ended.get_or_insert(Ended::Stopped);
        }
    }

    /// Asks the next probe, if it is time. Without a tunnel it has no answer.
    fn probe_due(&mut self, core: &mut Core, now: Instant) {
        let Some(probing) = &mut self.probing else { return };
        if probing.due.is_none_or(|due| due > now) {
            return;
        }
        if !probing.has_room() {
            probing.due = Some(now + probing.config.interval);
            return;
        }
        let number = probing.advance(now);
        let is_running = matches!(probing.stage, Stage::Running { .. });
        match is_running.then(|| self.pool.open(core)).flatten() {
            Some(on) => self.probe(core, on, Some(number)),
            None => probing.report(Report::Silent { number }),
        }
    }

    fn no_greeting(&mut self, what: &str) {
        self.ended.get_or_insert(no_greeting(what));
    }
}

impl Probing {
    /// The greeting was answered.
    fn greeted(&mut self, now: Instant, on: ConnId, remote: SocketAddr, status: u16, facts: PathFacts) {
        let Stage::Opening { is_first } = self.stage else { return };
        let Handshake { began, took, early } = self.handshake;
        let first_answer = began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        let opening = Opening { handshake: took, first_answer, status, early };
        self.report(Report::Up { remote, opening, facts });
        if is_first {
            self.stage = Stage::Ticket { on, until: now + TICKET_LIMIT };
        } else {
            self.stage = Stage::Running { on };
            let more = self.config.count.is_none_or(|count| self.next <= count);
            self.due = self.due.or(more.then_some(now));
        }
    }
}

fn no_greeting(what: &str) -> Ended {
    Ended::TunnelLost(format!(
        "the tunnel is up, but the gateway {what} (OPTIONS *, within {} s); is an HTTP/3 proxy behind that address?",
        ANSWER_LIMIT.as_secs()
    ))
}
