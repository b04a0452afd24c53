//! `beam bench run URL`: what the flags ask, as jobs of one worker (`worker/bench/`), one after the other; then the report.

use super::{
    plan::{bulk, loaded, must_fit, plan, quickened, streams},
    report::{Run, Test, Told},
};
use crate::{
    cli::{BenchRunArgs, LoadShare},
    connect::gateway,
    control::{self, Answer, Request},
    failure::Failure,
    interface::{Datapath, LaneFacts},
    logging,
    metrics::ProcessStatus,
    progress::Progress,
    supervisor,
    worker::{
        Ended, Role, Worker,
        bench::{self, ALPN_PERF, Bench, Figures, JobSpec, Load, Order, Outcome, Report, Target, Tickets},
        mail::{Command, Mailbox},
    },
};
use anyhow::anyhow;
use crossbeam::channel::{self, Receiver, Sender};
use std::{
    net::ToSocketAddrs as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tunnel::{Engine, EngineConfig, Secrets, WorkerId, tls, transport};

/// Local ports at most, which connections take in turn: a server spreads connections over its workers by them.
const PORTS_MAX: u16 = 16;
/// A server that has gone without a word is missed after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn run(args: &BenchRunArgs) -> Result<(), Failure> {
    logging::start_quietly(args.verbose);
    let args = &quickened(args);
    if args.gateway.token_file.is_some() {
        tracing::info!("the protocol perf has no place for a token: none is sent");
    }
    must_fit(args)?;
    let (reports, heard) = channel::bounded(bench::REPORTS_MAX);
    let Loader { worker, mailbox, interfaces, cpu, lane, remote } = loader(args, reports)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    watch_signals(mailbox.clone(), interrupted.clone())?;
    let thread = std::thread::Builder::new().name("beam-worker-0".into()).spawn(move || {
        supervisor::pin(cpu);
        worker.run()
    });
    let thread = thread.map_err(Failure::runtime)?;
    let mut session = Session { args, mailbox: &mailbox, heard: &heard, interrupted: &interrupted };
    let (tests, trouble) = session.measure();
    mailbox.command(Command::Stop);
    let ended = thread.join().map_err(|_| anyhow!("the worker panicked: please report it"))?;
    // Its interfaces were steered until here.
    drop(interfaces);
    let told = Told {
        args,
        lane: &lane,
        remote,
        interrupted: interrupted.load(SeqCst),
        trouble: trouble.as_deref(),
    };
    if args.json {
        say!("{}", told.json(&tests));
    } else {
        say_text!("{}", told.text(&tests));
    }
    match (trouble, ended) {
        (Some(why), _) => Err(Failure::Runtime(anyhow!(why))),
        (None, Ended::Broken(error)) => Err(Failure::Runtime(anyhow!(error).context("the worker broke"))),
        (None, _) => Ok(()),
    }
}

struct Loader {
    worker: Worker,
    mailbox: Mailbox,
    interfaces: Vec<xsk::Interface>,
    cpu: Option<u32>,
    lane: LaneFacts,
    remote: std::net::SocketAddr,
}

/// The worker, and what its sockets stand on.
fn loader(args: &BenchRunArgs, reports: Sender<Report>) -> Result<Loader, Failure> {
    let protection = args.path.simd.protection()?;
    let (mut tls, _) = gateway::client_tls(&args.gateway)?;
    tls.alpn_protocols = vec![ALPN_PERF.to_vec()];
    let ports = if args.hps.is_some() { PORTS_MAX } else { args.connections.min(PORTS_MAX) };
    let Datapath { mut lanes, interfaces, locals } =
        gateway::open_path(&args.gateway, &args.path, ports as u8)?;
    let mailboxes = supervisor::mailboxes(&lanes)?;
    let cpus = supervisor::cpus(args.path.cpus.as_ref().map(|list| list.0.as_slice()), lanes.len())?;
    let Some(lane) = lanes.pop() else { return Err(Failure::Runtime(anyhow!("no lane was opened"))) };
    let url = &args.gateway.url;
    let found = (url.host.as_str(), url.port).to_socket_addrs().map_err(|error| {
        Failure::Runtime(anyhow!("server name {0}: {error}; see: getent hosts {0}", url.host))
    })?;
    let fits =
        |address: &std::net::SocketAddr| locals.iter().any(|local| local.is_ipv4() == address.is_ipv4());
    let remote = found.into_iter().find(fits);
    let remote = remote.ok_or_else(|| anyhow!("{} has no address in the family of our own", url.host))?;
    let tickets = Arc::new(Tickets::default());
    let transport = Arc::new(transport_options(args).build());
    let full = tls::quic_client(tls.clone()).map_err(Failure::config)?;
    let resumed =
        tls::resuming_client_without_early_data(tls.clone(), tickets.clone()).map_err(Failure::config)?;
    let early = tls::resuming_client(tls, tickets.clone()).map_err(Failure::config)?;
    let target = Target {
        remote,
        name: url.host.clone(),
        locals,
        full: transport::client_config(full, transport.clone()),
        resumed: transport::client_config(resumed, transport.clone()),
        early: transport::client_config(early, transport),
        tickets,
    };
    let engine =
        Engine::new(EngineConfig { protection, ..EngineConfig::new(WorkerId(0), Secrets::random(), None) });
    let (mailbox, facts) = (mailboxes[0].clone(), lane.facts);
    let role = Role::Bench(Box::new(Bench::Run(Load::new(target, reports))));
    let mut worker = Worker::new(0, engine, lane.ports, mailboxes, role).map_err(Failure::runtime)?;
    worker.set_busy_poll(args.path.busy_poll > 0);
    Ok(Loader { worker, mailbox, interfaces, cpu: cpus[0], lane: facts, remote })
}

fn transport_options(args: &BenchRunArgs) -> transport::TransportOptions {
    transport::TransportOptions {
        idle_timeout: IDLE_TIMEOUT,
        ..gateway::transport_options(&args.gateway, Duration::from_secs(1), None)
    }
}

/// The first signal ends the measurement and reports, the second one ends the process's worker.
fn watch_signals(mailbox: Mailbox, interrupted: Arc<AtomicBool>) -> Result<(), Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(Failure::runtime)?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let again = interrupted.swap(true, SeqCst);
            mailbox.command(if again { Command::Stop } else { Command::Bench(Order::Finish) });
        }
    });
    Ok(())
}

/// The measurements under way.
struct Session<'a> {
    args: &'a BenchRunArgs,
    mailbox: &'a Mailbox,
    heard: &'a Receiver<Report>,
    interrupted: &'a AtomicBool,
}

impl Session<'_> {
    /// All tests, and why they ended too soon, if they did.
    fn measure(&mut self) -> (Vec<Test>, Option<String>) {
        let mut tests = Vec::new();
        for (name, spec) in plan(self.args) {
            if let Some(why) = self.test(&mut tests, name, &spec, self.args.runs) {
                return (tests, Some(why));
            }
        }
        if let Some(load) = self.args.load {
            let rate = match load {
                LoadShare::BitsPerSecond(rate) => rate,
                LoadShare::Share(share) => {
                    let loads = bulk(self.args);
                    let trouble = self.test(&mut tests, "throughput", &streams(self.args, loads), 1);
                    if trouble.is_some() {
                        return (tests, trouble);
                    }
                    share * tests.last().map_or(0.0, Test::bits_per_s)
                }
            };
            if self.interrupted.load(SeqCst) {
                return (tests, None);
            }
            if rate <= 0.0 {
                return (tests, Some("no throughput was found to take a part of".to_owned()));
            }
            let spec = streams(self.args, loaded(self.args, rate));
            let trouble = self.test(&mut tests, "latency under load", &spec, self.args.runs);
            return (tests, trouble);
        }
        (tests, None)
    }

    /// So many runs of a job. Says why it is no use to go on, if it isn't.
    fn test(
        &mut self,
        tests: &mut Vec<Test>,
        name: &'static str,
        spec: &JobSpec,
        runs: u32,
    ) -> Option<String> {
        let mut test = Test { name, runs: Vec::new() };
        let mut trouble = None;
        for number in 1..=runs {
            if self.interrupted.load(SeqCst) {
                break;
            }
            let what = format!("{name}, run {number} of {runs}");
            match self.job(&what, spec) {
                Ok(run) => {
                    trouble = run.outcome.trouble.clone();
                    if !run.outcome.figures.is_empty() {
                        test.runs.push(run);
                    }
                }
                Err(why) => trouble = Some(why),
            }
            if trouble.is_some() {
                break;
            }
        }
        if !test.runs.is_empty() {
            tests.push(test);
        }
        trouble
    }

    fn job(&mut self, what: &str, spec: &JobSpec) -> Result<Run, String> {
        let progress = Progress::begin(what.to_owned());
        let server_before = self.server_cpu();
        let (before, begun) = (ProcessStatus::now().cpu_seconds, Instant::now());
        self.mailbox.command(Command::Bench(Order::Begin(Box::new(spec.clone()))));
        // A signal that came just before had nothing to end.
        if self.interrupted.load(SeqCst) {
            self.mailbox.command(Command::Bench(Order::Finish));
        }
        let outcome = loop {
            match self.heard.recv() {
                Ok(Report::Step { done, bytes }) => {
                    progress.step(format!("{done} done, {} MB", bytes / 1_000_000));
                }
                Ok(Report::Done(outcome)) => break *outcome,
                Err(_) => return Err("the worker has ended".to_owned()),
            }
        };
        let cpu_s = ProcessStatus::now().cpu_seconds - before;
        let took = begun.elapsed();
        let server_cpu_s = server_before.and_then(|before| Some(self.server_cpu()? - before));
        Ok(Run { outcome, took, cpu_s, server_cpu_s })
    }

    /// CPU time of the server, where its control socket is known.
    fn server_cpu(&self) -> Option<f64> {
        let path = self.args.server_control.as_deref()?;
        match control::ask(path, &Request::Status) {
            Ok(Answer::Status(status)) => Some(status.process.cpu_seconds),
            Ok(_) => None,
            Err(failure) => {
                tracing::warn!("--server-control: {failure}");
                None
            }
        }
    }
}

/// Figures of a run that moved bytes, in bits a second.
pub(super) fn bits_per_s(figures: &Figures) -> f64 {
    let seconds = figures.window.as_secs_f64();
    if seconds > 0.0 { (figures.bytes_up + figures.bytes_down) as f64 * 8.0 / seconds } else { 0.0 }
}

/// Of a run, whatever became of it.
pub(super) fn ended_well(outcome: &Outcome) -> bool {
    outcome.trouble.is_none() && !outcome.interrupted
}
