//! Streams: bulk transfers, requests, and both at once.
//!
//! ```text
//!  load ─(pace)─► stream: count wanted back · upload · FIN ─► answer · FIN ─► done: latency, bytes
//! ```
//! A load keeps so many streams under way on each connection, or begins them by the clock on one connection after the
//! other. Several loads share the connections: that is how latency under load is measured.

use super::{
    Figures, STEPS_MAX, Target, UNLIMITED,
    figures::PathSeen,
    flow::{Flow, Step, read, write},
    links::Links,
    load::Turned,
    schedule::{Pace, Schedule, Window},
};
use crate::worker::core::Core;
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};
use tunnel::{ConnId, Event, StreamId, VarInt};

/// How long what is under way at the end is waited for.
const GRACE: Duration = Duration::from_secs(5);

/// A job.
#[derive(Clone, Debug)]
pub(crate) struct StreamSpec {
    pub(crate) connections: u16,
    pub(crate) loads: Vec<LoadSpec>,
    pub(crate) omit: Duration,
    /// `None`: until `count` streams of each load are done.
    pub(crate) time: Option<Duration>,
    pub(crate) count: Option<u64>,
}

/// Streams of one kind.
#[derive(Clone, Debug)]
pub(crate) struct LoadSpec {
    pub(crate) name: &'static str,
    pub(crate) pace: Pace,
    /// Bytes to send after the count, and bytes wanted back, each stream; [`UNLIMITED`]: until the end.
    pub(crate) up: u64,
    pub(crate) down: u64,
}

/// See the module.
pub(super) struct Streams {
    spec: StreamSpec,
    links: Links,
    window: Window,
    loads: Vec<Load>,
    flows: HashMap<(ConnId, StreamId), Flow>,
    ready: VecDeque<(ConnId, StreamId)>,
    /// Chunks just read; empty between steps.
    chunks: Vec<Bytes>,
    /// Nothing new begins, and what is under way has until then.
    draining: Option<Instant>,
}

struct Load {
    figures: Figures,
    schedule: Option<Schedule>,
    /// Streams under way, by connection.
    open: Vec<u32>,
    /// Streams may be missing, and the server may permit them.
    refill: bool,
    /// The connection that the next one by the clock goes to.
    next: usize,
}

impl Streams {
    pub(super) fn begin(
        core: &mut Core,
        now: Instant,
        to: &Target,
        spec: StreamSpec,
    ) -> Result<Self, String> {
        let links = Links::open(core, now, to, spec.connections)?;
        let load = |of: &LoadSpec| Load {
            figures: Figures::new(of.name),
            schedule: None,
            open: vec![0; links.conns().len()],
            refill: true,
            next: 0,
        };
        Ok(Self {
            window: Window::new(spec.omit, spec.time),
            loads: spec.loads.iter().map(load).collect(),
            spec,
            links,
            flows: HashMap::new(),
            ready: VecDeque::new(),
            chunks: Vec::new(),
            draining: None,
        })
    }

    /// An error says why the job is over.
    pub(super) fn on_event(
        &mut self,
        core: &mut Core,
        now: Instant,
        conn: ConnId,
        event: &Event,
    ) -> Result<(), String> {
        if self.links.all_up_by(core, conn, event)? {
            self.begin_clock(now);
        }
        match *event {
            Event::StreamReadable { id } | Event::StreamWritable { id } | Event::StreamStopped { id, .. } => {
                self.queue((conn, id));
            }
            Event::StreamsAvailable { .. } => self.loads.iter_mut().for_each(|load| load.refill = true),
            _ => {}
        }
        Ok(())
    }

    fn begin_clock(&mut self, now: Instant) {
        self.window.begin(now);
        for (load, of) in self.loads.iter_mut().zip(&self.spec.loads) {
            if let Pace::PerSecond(rate) = of.pace {
                load.schedule = Some(Schedule::new(now, rate));
            }
        }
    }

    fn queue(&mut self, key: (ConnId, StreamId)) {
        if let Some(flow) = self.flows.get_mut(&key)
            && !std::mem::replace(&mut flow.queued, true)
        {
            self.ready.push_back(key);
        }
    }

    pub(super) fn turn(&mut self, core: &mut Core, now: Instant, to: &Target) -> Turned {
        if let Some(why) = self.links.overdue(now, to) {
            return Turned::Trouble(why);
        }
        if self.window.begun().is_none() {
            return Turned::Goes { more: false };
        }
        if self.draining.is_none() {
            (0..self.loads.len()).for_each(|load| self.issue(core, now, load));
            if self.window.is_over(now) {
                self.drain(core, now);
            }
        }
        for _ in 0..self.ready.len().min(STEPS_MAX) {
            let Some(key) = self.ready.pop_front() else { break };
            self.step(core, now, key);
        }
        let is_over = match self.draining {
            Some(until) => self.flows.is_empty() || now >= until,
            None => self.flows.is_empty() && self.all_counted(),
        };
        if is_over { Turned::Over } else { Turned::Goes { more: !self.ready.is_empty() } }
    }

    /// As many as there were to be have been asked, of each load.
    fn all_counted(&self) -> bool {
        let count = self.spec.count;
        count.is_some_and(|count| self.loads.iter().all(|load| load.figures.all_asked >= count))
    }

    fn issue(&mut self, core: &mut Core, now: Instant, index: usize) {
        let count = self.spec.count;
        let left = |load: &Load| count.is_none_or(|count| load.figures.all_asked < count);
        match self.spec.loads[index].pace {
            Pace::Parallel(streams) => {
                if !std::mem::take(&mut self.loads[index].refill) {
                    return;
                }
                for link in 0..self.links.conns().len() {
                    while self.loads[index].open[link] < streams
                        && left(&self.loads[index])
                        && self.open(core, index, link, now)
                    {}
                }
            }
            Pace::PerSecond(_) => {
                if !self.loads[index].refill {
                    return;
                }
                let until = self.window.until();
                while let Some(due) = self.loads[index].schedule.and_then(|of| of.due(now, until))
                    && left(&self.loads[index])
                {
                    // Where no connection has room it stays due, and counts from its instant.
                    let links = self.links.conns().len();
                    let first = self.loads[index].next;
                    let tried = (0..links).map(|n| (first + n) % links);
                    let Some(link) = tried.into_iter().find(|&link| self.open(core, index, link, due)) else {
                        self.loads[index].refill = false;
                        return;
                    };
                    let load = &mut self.loads[index];
                    load.next = (link + 1) % links;
                    if let Some(schedule) = &mut load.schedule {
                        schedule.take();
                    }
                    load.figures.offered += u64::from(self.window.holds(due));
                }
            }
        }
    }

    /// Opens a stream; `false` if the server permits none at the moment.
    fn open(&mut self, core: &mut Core, index: usize, link: usize, since: Instant) -> bool {
        let (conn, of) = (self.links.conns()[link], &self.spec.loads[index]);
        let Some(stream) = core.engine.connection(conn).and_then(|mut quic| quic.open_bi()) else {
            return false;
        };
        let flow = Flow {
            load: index,
            link,
            head: Bytes::copy_from_slice(&of.down.to_be_bytes()),
            up_left: of.up,
            finished: false,
            answered: false,
            wanted: of.down,
            got: 0,
            since,
            queued: true,
        };
        self.flows.insert((conn, stream), flow);
        self.ready.push_back((conn, stream));
        let load = &mut self.loads[index];
        load.open[link] += 1;
        load.figures.all_asked += 1;
        if of.down != UNLIMITED {
            load.figures.all_bytes_asked += of.down;
        }
        true
    }

    fn step(&mut self, core: &mut Core, now: Instant, key: (ConnId, StreamId)) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.queued = false;
        let figures = &mut self.loads[flow.load].figures;
        let counts = self.window.holds(now);
        let step = match core.engine.connection(key.0) {
            Some(mut quic) => {
                let written = write(&mut quic, key.1, flow, figures, counts);
                let read = read(&mut quic, key.1, flow, figures, counts, &mut self.chunks);
                match (read, written) {
                    (Step::Waits, true) => Step::More,
                    (read, _) => read,
                }
            }
            None => Step::Failed,
        };
        match step {
            Step::Waits => {}
            Step::More => self.queue(key),
            Step::Done => self.end(key, now, true),
            Step::Failed => {
                if let Some(mut quic) = core.engine.connection(key.0) {
                    quic.reset(key.1, VarInt::from_u32(0));
                    quic.stop(key.1, VarInt::from_u32(0));
                }
                self.end(key, now, false);
            }
        }
    }

    fn end(&mut self, key: (ConnId, StreamId), now: Instant, done: bool) {
        let Some(flow) = self.flows.remove(&key) else { return };
        let load = &mut self.loads[flow.load];
        load.open[flow.link] -= 1;
        load.refill = true;
        if !done {
            load.figures.all_failed += 1;
            return;
        }
        load.figures.all_done += 1;
        // By the clock, those that were due in the window count, whenever they end; else those that end in it.
        let counts = match load.schedule {
            Some(_) => self.window.holds(flow.since),
            None => self.window.holds(now),
        };
        if counts {
            load.figures.done += 1;
            load.figures.latency.record_time(now.saturating_duration_since(flow.since));
        }
    }

    /// The time is over: what has no end of its own is ended.
    fn drain(&mut self, core: &mut Core, now: Instant) {
        self.draining = Some(now + GRACE);
        if let Some(until) = self.window.until() {
            for load in &mut self.loads {
                let skipped = load.schedule.as_mut().map_or(0, |schedule| schedule.skip_until(until));
                // They were due, and nobody could be asked.
                load.figures.offered += skipped;
                load.figures.all_asked += skipped;
                load.figures.all_unanswered += skipped;
            }
        }
        let endless: Vec<_> = self
            .flows
            .iter_mut()
            .filter_map(|(&key, flow)| {
                if flow.up_left == UNLIMITED {
                    flow.up_left = 0;
                }
                (flow.wanted == UNLIMITED).then_some(key)
            })
            .collect();
        for key in endless {
            if let Some(mut quic) = core.engine.connection(key.0) {
                quic.stop(key.1, VarInt::from_u32(0));
            }
            self.end(key, now, true);
        }
        let keys: Vec<_> = self.flows.keys().copied().collect();
        keys.into_iter().for_each(|key| self.queue(key));
    }

    pub(super) fn figures(&self) -> impl Iterator<Item = &Figures> {
        self.loads.iter().map(|load| &load.figures)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let ready = self.loads.iter().filter(|load| load.refill);
        let due = ready.filter_map(|load| load.schedule?.next()).min();
        match self.draining {
            Some(until) => Some(until),
            None => [self.links.next_deadline(), self.window.until(), due].into_iter().flatten().min(),
        }
    }

    pub(super) fn finish(mut self, core: &mut Core, now: Instant) -> (Vec<Figures>, Option<PathSeen>) {
        for flow in self.flows.values() {
            self.loads[flow.load].figures.all_unanswered += 1;
        }
        let window = self.window.passed(now);
        let path = self.links.close(core);
        let figures = self.loads.into_iter().map(|load| Figures { window, ..load.figures });
        (figures.collect(), path)
    }
}
