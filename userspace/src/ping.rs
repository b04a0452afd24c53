//! `beam ping URL`: opens a tunnel as `beam connect` does, and measures it from the inside. What is asked, and why that,
//! is in `worker/client/probe.rs`; this file starts that client and tells what it reports.

mod tally;

use self::tally::{Tally, milliseconds};
use crate::{
    cli::PingArgs,
    connect::gateway,
    early::state::State,
    failure::Failure,
    identity,
    interface::Datapath,
    logging,
    progress::Progress,
    supervisor,
    worker::{
        Client, ClientConfig, Early, Ended, ProbeConfig, Report, Role, Worker,
        mail::{Command, Mailbox},
    },
};
use anyhow::anyhow;
use crossbeam::channel::{self, Receiver, Sender};
use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};
use tunnel::{Engine, EngineConfig, WorkerId};
use upstream::resolver::Resolver;

/// Reports on their way to the screen.
const REPORTS_MAX: usize = 256;

pub(crate) fn run(args: &PingArgs) -> Result<(), Failure> {
    logging::start_quietly(args.verbose);
    let (reports, heard) = channel::bounded(REPORTS_MAX);
    let (worker, stop, interfaces) = prober(args, reports)?;
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
            .map_err(Failure::runtime)?;
    let of_thread = stop.clone();
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            of_thread.command(Command::Stop);
        }
    });
    let thread = std::thread::Builder::new()
        .name("beam-worker-0".into())
        .spawn(move || worker.run())
        .map_err(Failure::runtime)?;
    let mut tally = Tally::new(&args.gateway.url);
    let told = tell(args, &heard, &mut tally);
    // Whatever ended the telling ends the worker: nobody would hear it.
    stop.command(Command::Stop);
    let ended = thread.join().map_err(|_| anyhow!("the worker panicked: please report it"))?;
    // Its interfaces were steered until here.
    drop(interfaces);
    told?;
    print(&if args.json { tally.json() } else { tally.summary() })?;
    match ended {
        Ended::TunnelLost(why) => Err(Failure::Runtime(anyhow!(why))),
        Ended::Broken(error) => Err(Failure::Runtime(anyhow!(error).context("the worker broke"))),
        Ended::Stopped if tally.answered() == 0 => Err(Failure::Runtime(anyhow!("no probe was answered"))),
        Ended::Stopped => Ok(()),
    }
}

/// The client whose one tunnel is measured, and what its sockets stand on. It keeps nothing of this gateway, and knows
/// nothing of before: its first tunnel is a stranger's.
fn prober(
    args: &PingArgs,
    reports: Sender<Report>,
) -> Result<(Worker, Mailbox, Vec<xsk::Interface>), Failure> {
    let protection = args.path.simd.protection()?;
    let state = State::memory();
    let (quic, early) = gateway::quic_client(&args.gateway, Duration::ZERO, None, 1, &state)?;
    let token = args.gateway.token_file.as_deref().map(identity::token).transpose();
    let Datapath { mut lanes, interfaces, locals } = gateway::open_path(&args.gateway, &args.path, 1)?;
    let mailboxes = supervisor::mailboxes(&lanes)?;
    let mailbox = mailboxes[0].clone();
    let client = Client::new(ClientConfig {
        host: args.gateway.url.host.clone(),
        port: args.gateway.url.port,
        locals,
        quic,
        early,
        token: token.map_err(Failure::Config)?,
        listens: Vec::new(),
        udp_forwards: Vec::new(),
        publications: Vec::new(),
        stdio: None,
        network: None,
        probe: Some(ProbeConfig { count: args.count, interval: args.interval, reports }),
        sleep: None,
        once: false,
        // One that doesn't answer at all is out of reach; a tunnel that is lost is opened again.
        retries_max: Some(0),
        pause_max: Duration::from_secs(1),
        resolver: Arc::new(Resolver::new(Default::default()).map_err(Failure::runtime)?),
    });
    let Some(lane) = lanes.pop() else { return Err(Failure::Runtime(anyhow!("no lane was opened"))) };
    let engine = Engine::new(EngineConfig {
        protection,
        ..EngineConfig::new(WorkerId(0), state.secrets().clone(), None)
    });
    let role = Role::Client(Box::new(client));
    let mut worker = Worker::new(0, engine, lane.ports, mailboxes, role).map_err(Failure::runtime)?;
    worker.set_busy_poll(args.path.busy_poll > 0);
    Ok((worker, mailbox, interfaces))
}

/// Prints what comes until the worker ends.
fn tell(args: &PingArgs, heard: &Receiver<Report>, tally: &mut Tally) -> Result<(), Failure> {
    let url = &args.gateway.url;
    let waiting = Progress::begin(format!("opening a tunnel to https://{}:{}", url.host, url.port));
    let mut waiting = Some(waiting);
    let shows_who = args.gateway.token_file.is_some() || args.gateway.cert.is_some();
    for report in heard {
        drop(waiting.take());
        tally.add(&report);
        if !args.json {
            print(&line(tally, &report))?;
        }
        if let Report::Up { opening, .. } = report
            && shows_who
            && let Some(why) = refused(opening.status)
        {
            return Err(Failure::Runtime(anyhow!("the gateway refuses us: {} {why}", opening.status)));
        }
    }
    Ok(())
}

/// One report for a person.
fn line(tally: &Tally, report: &Report) -> String {
    match *report {
        Report::Up { remote, opening, .. } => {
            let head = if opening.early.is_none() {
                format!("PING {} ({remote}): OPTIONS * over HTTP/3, in the tunnel\n", tally.gateway())
            } else {
                String::new()
            };
            let early = opening
                .early
                .map_or("certificate handshake".to_owned(), |early| format!("0-RTT: {}", words(early)));
            format!(
                "{head}tunnel up: handshake {}, first answer after {} ({early})\n",
                milliseconds(opening.handshake),
                milliseconds(opening.first_answer)
            )
        }
        Report::Answer { number, rtt, status, .. } => {
            format!("answer {number}: {} (status {status})\n", milliseconds(rtt))
        }
        Report::Silent { number } => format!("no answer to {number}\n"),
    }
}

/// What became of early data, for a person.
fn words(early: Early) -> &'static str {
    match early {
        Early::Accepted => "accepted",
        Early::Refused => "refused",
        Early::NotOffered => "not offered by the gateway's ticket",
        Early::NoTicket => "no ticket",
    }
}

/// What a user who has shown who they are can do about that status.
fn refused(status: u16) -> Option<&'static str> {
    match status {
        401 | 407 => Some("(it doesn't know the identity; see --token-file or --cert, and its users file)"),
        403 => Some("(its users file has this client disabled)"),
        429 => Some("(the client has as many connections as its users file allows)"),
        _ => None,
    }
}

/// To standard output at once: whoever reads a pipe wants each line when it is there.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::runtime)
}
