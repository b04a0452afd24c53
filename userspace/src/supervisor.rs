//! What keeps a daemon's workers: starts them pinned, answers the control socket, turns signals into commands, waits.

use crate::{
    ablation,
    alerts::{self, Alerts},
    allocator,
    capture::plane::Plane,
    cli::{DaemonArgs, Endpoint, Toggle},
    control::{self, Answer, Request},
    devices,
    drain::Drain,
    failure::Failure,
    interface::{Lane, LaneFacts},
    memory::MemoryLimit,
    metrics::{self, BatchStatus, LatencyStatus, ProcessStatus, Windows},
    notify, privileges,
    protection::ProtectionStatus,
    reload::Reloader,
    show::Cleared,
    status::{Conservation, FrameStatus, InterfaceStatus, Rates, SCHEMA, Status, Tunnels, WorkerStatus},
    worker::{
        Ended, Worker,
        mail::{Command, Mailbox},
        snapshot::WorkerSnapshot,
    },
};
use anyhow::anyhow;
use cache::CacheReport;
use confine::Room;
use crossbeam::channel;
use std::{
    collections::BTreeMap,
    io,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// How long a worker may take to answer the control plane.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Rates are measured over this long.
pub(crate) const RATES_OVER: Duration = Duration::from_millis(200);

/// What doesn't change while a daemon runs.
pub(crate) struct Identity {
    pub(crate) role: &'static str,
    pub(crate) address: String,
    /// The mode that its queues were asked to have.
    pub(crate) asked: alerts::Asked,
    /// The caches that all workers share.
    pub(crate) caches: Box<dyn Fn() -> Vec<CacheReport> + Send + Sync>,
    /// What a gateway reads again.
    pub(crate) gateway: Option<Arc<Reloader>>,
    /// What a gateway may have resident.
    pub(crate) memory: Option<Arc<MemoryLimit>>,
    /// What its connections' transport is made of.
    pub(crate) transport: tunnel::transport::TransportOptions,
}

/// One worker as the supervisor sees it.
pub(crate) struct Seat {
    pub(crate) mailbox: Mailbox,
    pub(crate) cpu: Option<u32>,
    pub(crate) lane: Mutex<LaneFacts>,
}

impl Seat {
    pub(crate) fn lane(&self) -> MutexGuard<'_, LaneFacts> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The daemon.
pub(crate) struct Supervisor {
    pub(crate) identity: Identity,
    pub(crate) seats: Vec<Seat>,
    pub(crate) interfaces: Vec<xsk::Interface>,
    /// `--lan`.
    pub(crate) lan: Option<xsk::LanInterface>,
    pub(crate) alerts: Alerts,
    started: Instant,
    started_at: SystemTime,
    /// What `beam status` tells quantiles of.
    windows: Mutex<Windows>,
    pub(crate) draining: AtomicBool,
    pub(crate) drain: Drain,
    /// What `beam clear counters` has set aside.
    pub(crate) cleared: Mutex<Cleared>,
    /// `beam capture`.
    pub(crate) captures: Plane,
}

/// The interfaces that a daemon keeps steered.
pub(crate) struct Interfaces {
    pub(crate) tunnel: Vec<xsk::Interface>,
    pub(crate) lan: Option<xsk::LanInterface>,
}

/// A worker ready to be started.
pub(crate) struct Crew {
    pub(crate) worker: Worker,
    pub(crate) seat: Seat,
}

/// One letter box a lane.
pub(crate) fn mailboxes(lanes: &[Lane]) -> Result<Vec<Mailbox>, Failure> {
    if lanes.len() > usize::from(u8::MAX) {
        return Err(Failure::Config(anyhow!(
            "{} queues, but 255 workers at most; choose with --queues",
            lanes.len()
        )));
    }
    lanes.iter().map(|_| Mailbox::new()).collect::<Result<_, _>>().map_err(Failure::runtime)
}

/// The CPU of each worker: those of `--cpus` in turn, else the ones that this process may run on.
pub(crate) fn cpus(asked: Option<&[u32]>, count: usize) -> Result<Vec<Option<u32>>, Failure> {
    let allowed: Vec<u32> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id as u32).collect();
    if let Some(asked) = asked {
        if let Some(missing) = asked.iter().find(|cpu| !allowed.contains(cpu)) {
            return Err(Failure::Config(anyhow!(
                "--cpus names CPU {missing}, but this process may use {allowed:?}; choose among those: --cpus LIST"
            )));
        }
        return Ok((0..count).map(|i| Some(asked[i % asked.len()])).collect());
    }
    Ok((0..count).map(|i| (!allowed.is_empty()).then(|| allowed[i % allowed.len()])).collect())
}

/// What others reach a daemon by while it runs, and may have of it.
pub(crate) struct Doors {
    pub(crate) control: Option<PathBuf>,
    pub(crate) metrics: Option<Endpoint>,
    /// TLS secrets, for captures.
    pub(crate) keylog: bool,
}

impl Doors {
    pub(crate) fn of(daemon: &DaemonArgs, control: Option<PathBuf>) -> Self {
        let keylog = daemon.capture_keylog == Toggle::On;
        Self { control, metrics: daemon.metrics.clone(), keylog }
    }
}

/// Runs the daemon until it ends; `drain_timeout` is what SIGTERM grants running flows.
pub(crate) fn run(
    identity: Identity,
    crew: Vec<Crew>,
    Interfaces { tunnel: interfaces, lan }: Interfaces,
    Doors { control, metrics: scraped, keylog }: Doors,
    alerts: alerts::Plan,
    drain_timeout: Duration,
) -> Result<(), Failure> {
    let alerts = alerts.start(identity.role, &identity.address)?;
    let bound = control.as_deref().map(control::bind).transpose().map_err(Failure::preflight)?;
    let scraped = scraped.as_ref().map(metrics::bind).transpose()?;
    let (ended_tx, ended_rx) = channel::bounded(crew.len());
    let (workers, seats): (Vec<_>, Vec<_>) = crew.into_iter().map(|crew| (crew.worker, crew.seat)).unzip();
    let supervisor = Arc::new(Supervisor {
        identity,
        seats,
        interfaces,
        lan,
        alerts,
        started: Instant::now(),
        started_at: SystemTime::now(),
        windows: Mutex::new(Windows::new(Instant::now())),
        draining: AtomicBool::new(false),
        drain: Drain::new(drain_timeout),
        cleared: Mutex::default(),
        captures: Plane::new(keylog),
    });
    devices::watch(&supervisor).map_err(Failure::Runtime)?;
    // What starts from here on is confined as this thread is.
    privileges::settle()?;
    supervisor.clone().watch_signals()?;
    alerts::watch(&supervisor).map_err(Failure::Runtime)?;
    if let Some(bound) = &bound {
        let (of_thread, of_capture) = (supervisor.clone(), supervisor.clone());
        control::serve(
            bound,
            Arc::new(move |request| of_thread.answer(&request)),
            Arc::new(move |asked, stream| of_capture.capture(asked, stream)),
        )
        .map_err(Failure::runtime)?;
    }
    if let Some(scraped) = scraped {
        tracing::info!("metrics on http://{}/metrics", scraped.address().map_err(Failure::runtime)?);
        metrics::serve(scraped, supervisor.clone()).map_err(Failure::runtime)?;
    }
    let (confined_tx, confined_rx) = channel::bounded::<()>(0);
    let mut threads = Vec::new();
    for (index, worker) in workers.into_iter().enumerate() {
        let cpu = supervisor.seats[index].cpu;
        let (ended, confined) = (ended_tx.clone(), confined_tx.clone());
        let thread = std::thread::Builder::new().name(format!("beam-worker-{index}")).spawn(move || {
            pin(cpu);
            if let Err(error) = confine::enter(Room::Worker) {
                let _ = ended.send(Ended::Broken(io::Error::other(error)));
                return;
            }
            drop(confined);
            // A panic must not leave a hole where a worker was: the daemon ends, and whoever supervises it starts it
            // again. The panic's own message is on standard error by then.
            let end = std::panic::catch_unwind(AssertUnwindSafe(|| worker.run()));
            let end =
                end.unwrap_or_else(|_| Ended::Broken(io::Error::other("it panicked: please report it")));
            // The supervisor waits for as many messages as there are workers.
            let _ = ended.send(end);
        });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // What runs already must be at rest before the tickets are written down.
                supervisor.tell_all(|| Command::Stop);
                threads.into_iter().for_each(|thread| drop(thread.join()));
                return Err(Failure::Runtime(anyhow!("can't start a worker thread: {error}")));
            }
        }
    }
    drop((ended_tx, confined_tx));
    // Until all workers have dropped their ends: they are confined, or have failed.
    confined_rx.iter().for_each(drop);
    if let Err(failure) = privileges::confirm() {
        supervisor.tell_all(|| Command::Stop);
        threads.into_iter().for_each(|thread| drop(thread.join()));
        return Err(failure);
    }
    notify::watch(&supervisor).map_err(Failure::runtime)?;
    release_start();
    // A client is ready once its tunnel is up.
    if supervisor.identity.role != "client" {
        let ready = format!("{} on {}", supervisor.identity.role, supervisor.identity.address);
        tracing::info!("ready: {ready}");
        notify::ready(&ready);
    }
    let outcome = supervisor.wait(&ended_rx);
    for thread in threads {
        if thread.join().is_err() {
            return Err(Failure::Runtime(anyhow!(
                "a worker thread panicked; the message is above: please report it"
            )));
        }
    }
    outcome
}

/// Gives back what only the start has needed.
fn release_start() {
    allocator::give_back();
    match confine::release_program() {
        Ok(bytes) => tracing::debug!("{} KiB of the program were resident, and are given back", bytes >> 10),
        Err(error) => {
            tracing::debug!("/proc/self/smaps can't be read ({error}): what the start needed stays resident")
        }
    }
}

pub(crate) fn pin(cpu: Option<u32>) {
    if let Some(cpu) = cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id: cpu as usize })
    {
        tracing::warn!("can't pin a worker to CPU {cpu}; it runs wherever the kernel puts it");
    }
}

impl Supervisor {
    /// Waits for the workers; the first that ends takes the others with it.
    fn wait(&self, ended: &channel::Receiver<Ended>) -> Result<(), Failure> {
        let mut outcome = Ok(());
        for end in ended {
            let failed = match end {
                Ended::Stopped => None,
                Ended::TunnelLost(error) => Some(Failure::Runtime(anyhow!(error))),
                Ended::Broken(error) => Some(Failure::Runtime(anyhow!(error).context("a worker broke"))),
            };
            notify::stopping(Duration::ZERO, "stopping");
            self.tell_all(|| Command::Stop);
            if let (Ok(()), Some(failure)) = (&outcome, failed) {
                outcome = Err(failure);
            }
        }
        outcome
    }

    pub(crate) fn tell_all(&self, command: impl Fn() -> Command) {
        for seat in &self.seats {
            // A full queue empties in the worker's next turn; a worker that takes no turns is lost anyway.
            let until = Instant::now() + ANSWER_WITHIN;
            while !seat.mailbox.command(command()) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// TERM and INT drain, a second one stops; HUP reloads.
    fn watch_signals(self: Arc<Self>) -> Result<(), Failure> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals =
            signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(Failure::runtime)?;
        let watch = move || {
            for signal in signals.forever() {
                if signal == SIGHUP {
                    // The outcome is in the log.
                    let _ = self.reload();
                } else if !self.begin_drain() {
                    tracing::info!("second signal: stopping now");
                    notify::stopping(Duration::ZERO, "stopping now");
                    self.tell_all(|| Command::Stop);
                }
            }
        };
        std::thread::Builder::new().name("beam-signals".into()).spawn(watch).map_err(Failure::runtime)?;
        Ok(())
    }

    pub(crate) fn snapshots(&self) -> Vec<WorkerSnapshot> {
        let mut snapshots: Vec<_> = self.ask_all(Command::Snapshot).into_iter().map(|boxed| *boxed).collect();
        snapshots.sort_by_key(|snapshot| snapshot.id);
        snapshots
    }

    /// Asks every worker; the answers of those that answer in time, in any order.
    pub(crate) fn ask_all<T>(&self, command: impl Fn(channel::Sender<T>) -> Command) -> Vec<T> {
        self.ask_each(&self.seats, command)
    }

    /// As [`Self::ask_all`], of these workers.
    pub(crate) fn ask_each<'a, T>(
        &self,
        seats: impl IntoIterator<Item = &'a Seat>,
        command: impl Fn(channel::Sender<T>) -> Command,
    ) -> Vec<T> {
        let (reply, answers) = channel::bounded(self.seats.len());
        for seat in seats {
            seat.mailbox.command(command(reply.clone()));
        }
        drop(reply);
        let until = Instant::now() + ANSWER_WITHIN;
        std::iter::from_fn(|| answers.recv_deadline(until).ok()).collect()
    }

    fn answer(self: &Arc<Self>, request: &Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Sample => Answer::Sample(Box::new(self.sample())),
            Request::Show(question) => {
                self.show(question).map_or_else(Answer::Error, |shown| Answer::Show(Box::new(shown)))
            }
            Request::Log => Answer::Log(Box::new(crate::log_ring::recent())),
            Request::Capture(_) => Answer::Error("a capture takes its connection with it".to_owned()),
            Request::Clear => Answer::Done(self.clear_counters()),
            Request::Enrolment => {
                self.enrolment().map_or_else(Answer::Error, |gateway| Answer::Enrolment(Box::new(gateway)))
            }
            Request::Reload => self.reload().map_or_else(Answer::Error, Answer::Done),
            Request::Drain { wait } => Answer::Drain(self.drained(*wait)),
            Request::Kick { client } => self.kick(client).map_or_else(Answer::Error, Answer::Done),
        }
    }

    /// How long it has been running.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn status(&self) -> Status {
        let (before, from) = (self.snapshots(), Instant::now());
        std::thread::sleep(RATES_OVER);
        let (after, over) = (self.snapshots(), from.elapsed());
        self.status_of(&after, rates(&before, &after, over))
    }

    pub(crate) fn status_of(&self, after: &[WorkerSnapshot], rates: Rates) -> Status {
        let xsk = |field: fn(&port::Counters) -> u64| -> u64 { after.iter().flat_map(fast).map(field).sum() };
        let kernel_packets = |snapshot: &WorkerSnapshot| -> u64 {
            slow(snapshot).map(|port| port.rx_datagrams + port.tx_datagrams).sum()
        };
        let readiness = self.readiness(after);
        let (latency, batches) = self.recent(after);
        Status {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: self.identity.role.to_owned(),
            ready: readiness.is_ok(),
            tunnels: after.iter().find_map(|s| s.tunnels).map(|(up, of)| Tunnels { up, of }),
            asleep: self.asleep(after),
            why_not_ready: readiness.err(),
            draining: self.is_draining(),
            uptime_s: self.started.elapsed().as_secs(),
            address: self.identity.address.clone(),
            connections: after.iter().map(|s| s.connections).sum(),
            flows: after.iter().map(|s| s.flows).sum(),
            flows_opened: after.iter().map(|s| s.flows_opened).sum(),
            rates,
            workers: after.iter().filter_map(|s| self.worker_status(s)).collect(),
            interfaces: self.interface_statuses(),
            xsk_rx_frames: xsk(|port| port.rx_datagrams),
            xsk_tx_frames: xsk(|port| port.tx_datagrams),
            kernel_udp_packets: after.iter().map(kernel_packets).sum(),
            drops: drops(after),
            counters: merge(after.iter().flat_map(|s| s.counters.iter().copied())),
            conservation: conservation(after),
            protection: protection(after),
            captures: self.captures.status(),
            alerts: self.alerts.status(Instant::now()),
            ablation: ablation::words(),
            privileges: privileges::status(),
            latency,
            batches,
            process: ProcessStatus::now(),
            memory: self.identity.memory.as_ref().and_then(|memory| memory.status()),
        }
    }

    /// When the daemon started.
    pub(crate) fn started_at(&self) -> SystemTime {
        self.started_at
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Quantiles and sizes of the recent past.
    fn recent(&self, snapshots: &[WorkerSnapshot]) -> (LatencyStatus, BatchStatus) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.recent(Instant::now(), &metrics::merged(snapshots))
    }

    /// Tunnels that sleep: a gateway's clients', or this client's own.
    pub(crate) fn asleep(&self, snapshots: &[WorkerSnapshot]) -> u64 {
        match &self.identity.gateway {
            Some(gateway) => gateway.current().config.sleepers.report(Instant::now()).asleep,
            None => snapshots.iter().map(|snapshot| snapshot.asleep).sum(),
        }
    }

    /// Every worker takes its turns, or what doesn't.
    pub(crate) fn all_answer(&self, snapshots: &[WorkerSnapshot]) -> Result<(), String> {
        match self.seats.len() - snapshots.len().min(self.seats.len()) {
            0 => Ok(()),
            1 => Err("a worker does not answer".to_owned()),
            n => Err(format!("{n} workers do not answer")),
        }
    }

    /// New tunnels and flows are served, or why not.
    pub(crate) fn readiness(&self, snapshots: &[WorkerSnapshot]) -> Result<(), String> {
        self.all_answer(snapshots)?;
        if self.is_draining() {
            return Err("draining".to_owned());
        }
        match snapshots.iter().find(|snapshot| !snapshot.up) {
            None => Ok(()),
            Some(snapshot) => Err(snapshot.waits_for.clone().unwrap_or_else(|| "no tunnel is up".to_owned())),
        }
    }

    pub(crate) fn worker_status(&self, snapshot: &WorkerSnapshot) -> Option<WorkerStatus> {
        let seat = self.seats.get(usize::from(snapshot.id))?;
        let lane = seat.lane();
        let xsk = |field: fn(&port::Counters) -> u64| fast(snapshot).map(field).sum();
        let kernel = |field: fn(&port::Counters) -> u64| slow(snapshot).map(field).sum();
        let all_ports =
            |field: fn(&port::Counters) -> u64| snapshot.ports.iter().map(|port| field(&port.counters)).sum();
        Some(WorkerStatus {
            id: snapshot.id,
            cpu: seat.cpu,
            interface: lane.interface.clone(),
            queues: lane.queues.clone(),
            xdp_mode: lane.mode.clone(),
            xdp_why: lane.why.clone(),
            connections: snapshot.connections,
            flows: snapshot.flows,
            xsk_rx_frames: xsk(|port| port.rx_datagrams),
            xsk_rx_bytes: xsk(|port| port.rx_bytes),
            xsk_tx_frames: xsk(|port| port.tx_datagrams),
            xsk_tx_bytes: xsk(|port| port.tx_bytes),
            kernel_rx_packets: kernel(|port| port.rx_datagrams),
            kernel_rx_bytes: kernel(|port| port.rx_bytes),
            kernel_tx_packets: kernel(|port| port.tx_datagrams),
            kernel_tx_bytes: kernel(|port| port.tx_bytes),
            handed_out: snapshot.hand_over.handed_out,
            handed_in: snapshot.hand_over.delivered_handed,
            rx_delivered: all_ports(|port| port.rx_delivered),
            rx_bursts: all_ports(|port| port.rx_bursts),
            drops: drops(std::slice::from_ref(snapshot)).values().sum(),
            loops: snapshot.loops,
            sleeps: snapshot.sleeps,
            frames: snapshot
                .ports
                .iter()
                .filter_map(|port| port.frames)
                .chain(snapshot.inner_frames.iter().copied())
                .map(|census| self.frames(&census))
                .collect(),
        })
    }

    fn frames(&self, census: &port::Census) -> FrameStatus {
        let interface = self.devices().find(|interface| interface.index() == census.interface);
        FrameStatus::new(interface.map_or("?", |interface| interface.name()), census)
    }

    fn interface_statuses(&self) -> Vec<InterfaceStatus> {
        let of_tunnel = self.interfaces.iter().map(|interface| devices::status(interface));
        of_tunnel.chain(self.lan.as_deref().map(devices::lan_status)).collect()
    }

    /// Every interface with a program of ours.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &xsk::Device> {
        self.interfaces.iter().map(|interface| &**interface).chain(self.lan.as_deref())
    }
}

/// Counters of a worker's AF_XDP sockets.
pub(crate) fn fast(snapshot: &WorkerSnapshot) -> impl Iterator<Item = &port::Counters> {
    snapshot.ports.iter().filter(|port| port.frames.is_some()).map(|port| &port.counters)
}

/// Counters of its kernel socket.
pub(crate) fn slow(snapshot: &WorkerSnapshot) -> impl Iterator<Item = &port::Counters> {
    snapshot.ports.iter().filter(|port| port.frames.is_none()).map(|port| &port.counters)
}

pub(crate) fn merge<'a>(counters: impl Iterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    let mut merged = BTreeMap::new();
    for (name, n) in counters.filter(|&(_, n)| n > 0) {
        *merged.entry(name.to_owned()).or_default() += n;
    }
    merged
}

/// Every drop counter above zero, of ports, hand-over and engines.
pub(crate) fn drops(snapshots: &[WorkerSnapshot]) -> BTreeMap<String, u64> {
    let ports = snapshots.iter().flat_map(|s| &s.ports).flat_map(|port| port.counters.drops.iter());
    let hand_over = snapshots.iter().flat_map(|s| s.hand_over.drops());
    let engines = snapshots.iter().flat_map(|s| s.drops.iter().copied());
    merge(ports.chain(hand_over).chain(engines))
}

fn protection(snapshots: &[WorkerSnapshot]) -> ProtectionStatus {
    let mut sum = ProtectionStatus::default();
    snapshots.iter().for_each(|worker| sum.add(&worker.protection));
    sum
}

fn conservation(snapshots: &[WorkerSnapshot]) -> Conservation {
    let mut sum = Conservation { holds: true, ..Conservation::default() };
    let (mut handed_out, mut handed_in) = (0_u64, 0);
    for worker in snapshots {
        let hand = worker.hand_over;
        let taken_in: u64 = worker.ports.iter().map(|port| port.counters.rx_datagrams).sum();
        let dropped = worker.ports.iter().map(|port| port.counters.drops.rx_total()).sum::<u64>()
            + hand.drops().iter().map(|(_, n)| n).sum::<u64>();
        // Judged worker by worker: the snapshots of two workers are not of the same instant.
        sum.holds &= taken_in == hand.delivered + dropped + hand.handed_out;
        sum.frames_in += taken_in;
        sum.delivered += hand.delivered + hand.delivered_handed;
        sum.dropped += dropped;
        handed_out += hand.handed_out;
        handed_in += hand.delivered_handed;
    }
    sum.in_flight = handed_out.saturating_sub(handed_in);
    sum
}

fn rates(before: &[WorkerSnapshot], after: &[WorkerSnapshot], over: Duration) -> Rates {
    let sum = |snapshots: &[WorkerSnapshot], field: fn(&port::Counters) -> u64| -> u64 {
        snapshots.iter().flat_map(|s| &s.ports).map(|port| field(&port.counters)).sum()
    };
    let per_second = |field: fn(&port::Counters) -> u64| {
        let moved = sum(after, field).saturating_sub(sum(before, field));
        (moved as f64 / over.as_secs_f64().max(1e-3)) as u64
    };
    Rates {
        over_ms: over.as_millis() as u64,
        rx_bits_per_s: per_second(|port| port.rx_bytes) * 8,
        tx_bits_per_s: per_second(|port| port.tx_bytes) * 8,
        rx_packets_per_s: per_second(|port| port.rx_datagrams),
        tx_packets_per_s: per_second(|port| port.tx_datagrams),
    }
}
