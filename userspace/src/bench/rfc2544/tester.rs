//! The real [`Tester`]: sends by one AF_XDP socket, has the [`Receiver`] count, waits in between.

use super::{
    count::{Expected, Tally},
    plan::{self, Flow},
    procedure::{Ask, Tester, Trial},
    receiver::Receiver,
    report::Receiving,
    search::Next,
    size,
    stamp::Stamped,
};
use crate::{
    cli::{FrameSize, Rfc2544Args},
    failure::Failure,
    generate::host,
    progress::Progress,
    supervisor,
};
use anyhow::anyhow;
use pktgen::{Outcome, Plan, Wall};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use wire::encap::Template;
use xsk::RawSocket;

/// What Linux sends with.
const HOP_LIMIT: u8 = 64;
/// Learning frames of one size (RFC 2544 section 23 leaves the number open), and how long each is waited for: a router
/// asks its neighbour within that, a bridge learns.
pub(super) const LEARN_COUNT: u32 = 20;
const LEARN_WAIT: Duration = Duration::from_millis(100);
/// Learning frames in a row that don't even leave: the interface is down or gone, and each of them is waited for.
const UNSENT_MAX: u64 = 3;
/// A signal is noticed after at most this long.
const STEP: Duration = Duration::from_millis(20);
/// A sender that is late may make it up for this part of a trial.
const GRACE: f64 = 0.02;
/// More frames a second than one AF_XDP socket in copy mode sends anywhere. Bounds what a trial without a rate counts.
const RATE_MAX: f64 = 3e7;

/// See the module.
pub(super) struct Live {
    socket: RawSocket,
    interface: String,
    receiver: Receiver,
    template: Template,
    ipv6: bool,
    /// The interface whose MAC address a bridge is to learn.
    taught: Option<String>,
    time: Duration,
    settle: Duration,
    magic: u32,
    trial: u16,
    epoch: Instant,
    stop: Arc<AtomicBool>,
    progress: Progress,
}

impl Live {
    pub(super) fn open(args: &Rfc2544Args, flow: &Flow, stop: Arc<AtomicBool>) -> Result<Self, Failure> {
        let template = Template::new(&flow.link, &flow.path, HOP_LIMIT)
            .ok_or_else(|| anyhow!("source and destination are of different IP versions"))?;
        let epoch = Instant::now();
        // The sender first: it fails sooner, and touches nothing.
        let socket = RawSocket::open(&args.interface, args.queue)
            .map_err(|error| host::refused(error, &args.interface))?;
        let receiver = Receiver::open(args, flow, epoch)?;
        supervisor::pin(args.send_cpu);
        let progress = Progress::begin("rfc2544");
        let (time, settle, interface) = (args.time, args.settle, args.interface.clone());
        let (magic, ipv6) = (rand::random(), args.ipv6);
        let taught = flow.is_bridged.then(|| args.receive.clone());
        Ok(Self {
            socket,
            interface,
            receiver,
            template,
            ipv6,
            taught,
            time,
            settle,
            magic,
            trial: 0,
            epoch,
            stop,
            progress,
        })
    }

    pub(super) fn receiving(&self) -> Receiving {
        let Receiver { mode, queues, why, .. } = &self.receiver;
        Receiving { mode: mode.clone(), queues: queues.clone(), why: why.clone() }
    }

    /// Frames of a trial that is the next one, and what the receiver is to expect of them.
    fn begin(&mut self, size: FrameSize, count_max: u32, wants_latency: bool) -> Result<Stamped, Failure> {
        self.trial = self.trial.wrapping_add(1);
        let (sizes, magic, trial) = (size::sizes(size, self.ipv6), self.magic, self.trial);
        let headers_bytes = self.template.header_len();
        self.receiver.begin(Expected { magic, trial, sizes, headers_bytes, count_max, wants_latency })?;
        let (template, epoch) = (self.template, self.epoch);
        Ok(Stamped { template, sizes, magic, trial, sequence: 0, epoch, exact: wants_latency })
    }

    fn send(&mut self, frames: &mut Stamped, plan: &Plan, deadline: Instant) -> Result<Outcome, Failure> {
        let stop = || self.stop.load(Ordering::Relaxed) || Instant::now() >= deadline;
        pktgen::run(&mut self.socket, frames, plan, &mut Wall, &stop).map_err(Failure::runtime)
    }

    /// The sending interface took none of so many frames.
    fn nothing_left(&self, count: u64) -> Failure {
        let interface = &self.interface;
        Failure::Runtime(anyhow!(
            "nothing leaves {interface}: {count} frames were refused or still wait. Its link may be down, or the interface gone: ip -s \
             link show dev {interface}"
        ))
    }

    /// Late frames may come. False where it was interrupted.
    fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_interrupted() {
                return left.is_zero();
            }
            std::thread::sleep(left.min(STEP));
        }
    }

    /// A frame from behind the bridge shows it where the receiving interface is, so that it needn't flood the test's.
    fn teach(&self) {
        let Some(interface) = &self.taught else { return };
        let sent = plan::send_to_all(interface, self.ipv6);
        if let Err(error) = sent {
            tracing::warn!(
                "the bridge isn't shown where {interface} is, and floods at first: sending a frame from it: {error}"
            );
        }
    }

    /// Whether a frame of this size comes through. Ends with the first that does.
    fn comes_through(&mut self, size: FrameSize) -> Result<bool, Failure> {
        self.teach();
        let mut frames = self.begin(size, LEARN_COUNT, false)?;
        let plan = Plan { count: 1, burst: 1, gap_ns: 0.0 };
        let mut unsent = 0;
        for _ in 0..LEARN_COUNT {
            if self.is_interrupted() {
                break;
            }
            let sent = self.send(&mut frames, &plan, Instant::now() + LEARN_WAIT)?.sent;
            unsent = if sent == 0 { unsent + 1 } else { 0 };
            if unsent == UNSENT_MAX {
                return Err(self.nothing_left(UNSENT_MAX));
            }
            if self.receiver.has_come(LEARN_WAIT)? {
                return self.receiver.end().map(|_| true);
            }
        }
        // One that came just now counts, too.
        self.receiver.end().map(|Tally { received, .. }| received > 0)
    }
}

impl Tester for Live {
    fn learn(&mut self, size: FrameSize) -> Result<Option<FrameSize>, Failure> {
        self.say(format!("{}: learning frames", size.label()));
        for part in size::parts(size, self.ipv6) {
            if !self.comes_through(part)? {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }

    fn trial(&mut self, ask: &Ask) -> Result<Option<Trial>, Failure> {
        let seconds = self.time.as_secs_f64();
        // Neighbours and bridges forget within minutes: a frame before each trial keeps them in mind.
        let Some(&part) = size::parts(ask.size, self.ipv6).first() else { return Ok(None) };
        self.comes_through(part)?;
        if self.is_interrupted() {
            return Ok(None);
        }
        let (per_s, gap_ns, grace) = match ask.rate {
            Next::AsFastAsItGoes => (RATE_MAX, 0.0, 0.0),
            Next::PerSecond(rate) => (rate.min(RATE_MAX), 1e9 / rate, GRACE),
        };
        let count = (per_s * seconds).ceil().max(1.0) as u32;
        let mut frames = self.begin(ask.size, count, ask.wants_latency)?;
        let deadline = Instant::now() + self.time.mul_f64(1.0 + grace);
        let plan = Plan { count: count.into(), burst: 1, gap_ns };
        let outcome = self.send(&mut frames, &plan, deadline)?;
        let settled = self.wait(self.settle);
        let tally = self.receiver.end()?;
        if !settled || self.is_interrupted() {
            return Ok(None);
        }
        let (sent, refused) = (outcome.sent, outcome.failed);
        if sent == 0 {
            return Err(self.nothing_left(refused));
        }
        // Between the first and the last of so many frames is a gap less, which few frames would show.
        let took = outcome.elapsed.max(Duration::from_nanos((gap_ns * sent as f64) as u64));
        let trial = Trial { rate: ask.rate, sent, refused, took, tally };
        tracing::info!(
            "{}: {:.0} frames/s offered: {sent} sent, {refused} refused by the interface, {} received, {} lost",
            ask.size.label(),
            trial.offered_per_s(),
            trial.tally.received,
            trial.lost()
        );
        Ok(Some(trial))
    }

    fn is_interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn say(&mut self, what: String) {
        self.progress.step(what);
    }
}
