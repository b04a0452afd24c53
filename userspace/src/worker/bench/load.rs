//! `beam bench run`: does one job after the other, as it is ordered, and reports.

use super::{
    Outcome,
    datagrams::{DatagramSpec, Datagrams},
    handshakes::{HandshakeSpec, Handshakes},
    streams::{StreamSpec, Streams},
};
use crate::worker::core::Core;
use crossbeam::channel::Sender;
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tunnel::{
    ConnId, Event,
    resume::{Ticket, Vault},
};

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) enum JobSpec {
    Streams(StreamSpec),
    Handshakes(HandshakeSpec),
    Datagrams(DatagramSpec),
}

/// What the main thread asks of the worker.
pub(crate) enum Order {
    /// Do this; the answer is [`Report::Done`].
    Begin(Box<JobSpec>),
    /// End what is under way, and report it.
    Finish,
}

/// What the main thread hears.
#[derive(Debug)]
pub(crate) enum Report {
    /// How far it is: things done, payload moved.
    Step {
        done: u64,
        bytes: u64,
    },
    Done(Box<Outcome>),
}

/// How often it is said how far a job is.
const STEP_EACH: Duration = Duration::from_millis(200);

/// Whom it measures, and by what.
pub(crate) struct Target {
    pub(crate) remote: SocketAddr,
    pub(crate) name: String,
    /// Our addresses, which connections take in turn.
    pub(crate) locals: Vec<SocketAddr>,
    /// Without tickets.
    pub(crate) full: quinn_proto::ClientConfig,
    /// With tickets, and no early data.
    pub(crate) resumed: quinn_proto::ClientConfig,
    /// With both.
    pub(crate) early: quinn_proto::ClientConfig,
    pub(crate) tickets: Arc<Tickets>,
}

impl Target {
    /// Begins the handshake of connection number `index`.
    pub(super) fn connect(
        &self,
        core: &mut Core,
        now: Instant,
        config: &quinn_proto::ClientConfig,
        index: usize,
    ) -> Result<ConnId, String> {
        let local = self.locals.get(index % self.locals.len().max(1)).ok_or("no local address")?;
        let begun = core.engine.connect(now, config.clone(), self.remote, *local, &self.name);
        begun.map_err(|error| format!("{}: {error}", self.remote))
    }
}

/// Tickets of the one server: as many as handshakes may be under way.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    held: Mutex<VecDeque<Ticket>>,
    /// How many have come, and how many were used.
    come: AtomicU64,
    used: AtomicU64,
}

const TICKETS_MAX: usize = 4096;

impl Tickets {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Ticket>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn come(&self) -> u64 {
        self.come.load(Relaxed)
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

impl Vault for Tickets {
    fn take(&self) -> Option<Ticket> {
        let ticket = self.lock().pop_front()?;
        self.used.fetch_add(1, Relaxed);
        Some(ticket)
    }

    fn put(&self, ticket: Ticket) {
        self.come.fetch_add(1, Relaxed);
        let mut held = self.lock();
        if held.len() < TICKETS_MAX {
            held.push_back(ticket);
        }
    }
}

/// A job under way.
enum Job {
    Streams(Box<Streams>),
    Handshakes(Box<Handshakes>),
    Datagrams(Box<Datagrams>),
}

/// See the module.
pub(crate) struct Load {
    to: Target,
    reports: Sender<Report>,
    job: Option<Job>,
    step_at: Option<Instant>,
}

impl Load {
    pub(crate) fn new(to: Target, reports: Sender<Report>) -> Self {
        Self { to, reports, job: None, step_at: None }
    }

    pub(super) fn obey(&mut self, core: &mut Core, now: Instant, order: Order) {
        match order {
            Order::Begin(spec) => self.begin(core, now, *spec),
            Order::Finish => {
                if let Some(job) = self.job.take() {
                    let mut outcome = job.finish(core, now, &self.to, None);
                    outcome.interrupted = true;
                    self.done(outcome);
                }
            }
        }
    }

    fn begin(&mut self, core: &mut Core, now: Instant, spec: JobSpec) {
        let to = &self.to;
        let job = match spec {
            JobSpec::Streams(spec) => {
                Streams::begin(core, now, to, spec).map(|job| Job::Streams(Box::new(job)))
            }
            JobSpec::Handshakes(spec) => Ok(Job::Handshakes(Box::new(Handshakes::begin(now, to, spec)))),
            JobSpec::Datagrams(spec) => {
                Datagrams::begin(core, now, to, spec).map(|job| Job::Datagrams(Box::new(job)))
            }
        };
        match job {
            Ok(job) => {
                self.job = Some(job);
                self.step_at = Some(now + STEP_EACH);
            }
            Err(why) => {
                self.done(Outcome { figures: Vec::new(), path: None, trouble: Some(why), interrupted: false })
            }
        }
    }

    pub(super) fn on_event(&mut self, core: &mut Core, now: Instant, conn: ConnId, event: &Event) {
        let trouble = match &mut self.job {
            None => None,
            Some(Job::Streams(job)) => job.on_event(core, now, conn, event).err(),
            Some(Job::Handshakes(job)) => job.on_event(core, now, &self.to, conn, event),
            Some(Job::Datagrams(job)) => job.on_event(core, now, conn, event).err(),
        };
        self.end_over(core, now, trouble);
    }

    pub(super) fn turn(&mut self, core: &mut Core, now: Instant) -> bool {
        let turned = match &mut self.job {
            None => return false,
            Some(Job::Streams(job)) => job.turn(core, now, &self.to),
            Some(Job::Handshakes(job)) => job.turn(core, now, &self.to),
            Some(Job::Datagrams(job)) => job.turn(core, now, &self.to),
        };
        match turned {
            Turned::Goes { more } => {
                self.say_step(now);
                return more;
            }
            Turned::Over => {
                if let Some(job) = self.job.take() {
                    let outcome = job.finish(core, now, &self.to, None);
                    self.done(outcome);
                }
            }
            Turned::Trouble(why) => self.end_over(core, now, Some(why)),
        }
        false
    }

    /// Ends a job over what has happened to it.
    fn end_over(&mut self, core: &mut Core, now: Instant, trouble: Option<String>) {
        let Some(why) = trouble else { return };
        if let Some(job) = self.job.take() {
            let outcome = job.finish(core, now, &self.to, Some(why));
            self.done(outcome);
        }
    }

    fn done(&mut self, outcome: Outcome) {
        self.step_at = None;
        // Whoever doesn't listen any more ends the worker.
        let _ = self.reports.try_send(Report::Done(Box::new(outcome)));
    }

    fn say_step(&mut self, now: Instant) {
        if self.step_at.is_none_or(|at| now < at) {
            return;
        }
        self.step_at = Some(now + STEP_EACH);
        let figures: &mut dyn Iterator<Item = _> = match &self.job {
            None => return,
            Some(Job::Streams(job)) => &mut job.figures(),
            Some(Job::Handshakes(job)) => &mut std::iter::once(job.figures()),
            Some(Job::Datagrams(job)) => &mut std::iter::once(job.figures()),
        };
        let sum = |(done, bytes), figures: &super::Figures| {
            (done + figures.all_done, bytes + figures.all_bytes_up + figures.all_bytes_down)
        };
        let (done, bytes) = figures.fold((0, 0), sum);
        // One that finds no room is followed by another, and leaves room for the end.
        if self.reports.len() < REPORTS_MAX / 2 {
            let _ = self.reports.try_send(Report::Step { done, bytes });
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let job = match &self.job {
            None => None,
            Some(Job::Streams(job)) => job.next_deadline(),
            Some(Job::Handshakes(job)) => job.next_deadline(),
            Some(Job::Datagrams(job)) => job.next_deadline(),
        };
        [job, self.step_at].into_iter().flatten().min()
    }
}

/// Reports on their way; jobs come one after the other, so that the end of one always finds room.
pub(crate) const REPORTS_MAX: usize = 64;

/// What a turn of a job has led to.
pub(super) enum Turned {
    Goes { more: bool },
    Over,
    Trouble(String),
}

impl Job {
    fn finish(self, core: &mut Core, now: Instant, to: &Target, trouble: Option<String>) -> Outcome {
        let (figures, path) = match self {
            Self::Streams(job) => job.finish(core, now),
            Self::Handshakes(job) => job.finish(core, now, to),
            Self::Datagrams(job) => job.finish(core, now),
        };
        Outcome { figures, path, trouble, interrupted: false }
    }
}
