//! `beam connect`: flags to a running client.

pub(crate) mod gateway;
mod neighbour;

use crate::{
    ablation::Ablation,
    alerts::{self, Asked},
    cli::{ConnectArgs, Destination, Endpoint, Protocol},
    config,
    early::{self, state::State},
    failure::Failure,
    identity, inner,
    interface::Datapath,
    logging, privileges, serve,
    supervisor::{self, Crew, Doors, Identity, Interfaces, Seat},
    worker::{Client, ClientConfig, Listen, Publication, Role, Worker},
};
use anyhow::{Context, anyhow};
use confine::{Capabilities, Files, Room};
use socket2::{Domain, Socket, Type};
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};
use tunnel::{Engine, EngineConfig, WorkerId};
use udp::DatagramSocket;

/// How long SIGTERM lets running flows finish at a client.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn run(args: ConnectArgs) -> Result<(), Failure> {
    logging::start(args.daemon.log);
    let alerts = alerts::Plan::of(&args.daemon.alerts)?;
    config::announce();
    must_carry(&args)?;
    let state_directory = early::state::of_client(args.state_dir.as_deref());
    let write = privileges::written(args.daemon.control.as_deref(), state_directory.as_deref());
    let read = config::file().into_iter().collect();
    privileges::prepare(args.daemon.sandbox, Files { read, write }, alerts.program())?;
    let protection = args.path.simd.protection()?;
    let ablation = Ablation::asked()?;
    let state = State::client(args.state_dir.as_deref());
    let (quic, early) = gateway::quic_client(&args.gateway, args.keepalive, args.habit(), args.pool, &state)?;
    let token =
        args.gateway.token_file.as_deref().map(identity::token).transpose().map_err(Failure::Config)?;
    let listens = listens(&args)?;
    let udp_forwards = udp_forwards(&args)?;
    let Datapath { mut lanes, interfaces, locals } =
        gateway::open_path(&args.gateway, &args.path, args.pool)?;
    let mailboxes = supervisor::mailboxes(&lanes)?;
    let cpus = supervisor::cpus(args.path.cpus.as_ref().map(|list| list.0.as_slice()), lanes.len())?;
    let (stdio, printer) = match &args.stdio {
        Some(to) => {
            let (socket, printer) = carry_stdio()?;
            (Some((socket, to.clone())), Some(printer))
        }
        None => (None, None),
    };
    if carries_ip(&args) {
        let kept = Capabilities::NET_ADMIN | Capabilities::BPF;
        privileges::broker::start(kept).map_err(Failure::runtime)?;
    }
    let inner::ClientNet { config: network, network: inner, lan } = inner::client(&args, &mailboxes)?;
    let resolver = Arc::new(serve::resolver()?);
    let client = Client::new(ClientConfig {
        host: args.gateway.url.host.clone(),
        port: args.gateway.url.port,
        locals,
        quic,
        early: early.clone(),
        token,
        listens,
        udp_forwards,
        publications: publications(&args)?,
        stdio,
        network,
        probe: None,
        sleep: args.habit(),
        once: args.once,
        retries_max: args.max_retries,
        pause_max: args.max_retry_interval,
        resolver: resolver.clone(),
    });
    // One worker owns every queue, so there is one lane.
    let Some(lane) = lanes.pop() else { return Err(Failure::Runtime(anyhow!("no lane was opened"))) };
    let seat = Seat { mailbox: mailboxes[0].clone(), cpu: cpus[0], lane: lane.facts.into() };
    let engine = Engine::new(EngineConfig {
        protection,
        extra_copy: !ablation.fused_copy,
        ..EngineConfig::new(WorkerId(0), state.secrets().clone(), None)
    });
    let role = Role::Client(Box::new(client));
    let mut worker = Worker::new(0, engine, lane.ports, mailboxes, role).map_err(Failure::runtime)?;
    if let Some(inner) = inner {
        worker.set_inner(inner).map_err(Failure::runtime)?;
    }
    worker.set_busy_poll(args.path.busy_poll > 0);
    worker.ablate(ablation);
    worker.set_udp_idle_timeout(args.udp_idle_timeout);
    let crew = vec![Crew { worker, seat }];
    let (caches, of_names) = (early.clone(), resolver.clone());
    let identity = Identity {
        role: "client",
        address: format!("https://{}:{}", args.gateway.url.host, args.gateway.url.port),
        asked: Asked::of(&args.path),
        caches: Box::new(move || {
            let mut reports = caches.report();
            reports.push(of_names.report());
            reports
        }),
        gateway: None,
        memory: None,
        transport: gateway::transport_options(&args.gateway, args.keepalive, args.habit()),
    };
    let interfaces = Interfaces { tunnel: interfaces, lan };
    let doors = Doors::of(&args.daemon, args.daemon.control.clone());
    let outcome = supervisor::run(identity, crew, interfaces, doors, alerts, DRAIN_TIMEOUT);
    early.keep();
    if let Some(printer) = printer {
        // The worker has closed its end: what is left are the last bytes for standard output.
        let _ = printer.join();
    }
    neighbour::explained(outcome, &args)
}

fn carries_ip(args: &ConnectArgs) -> bool {
    args.tun.is_some() || args.lan.is_some()
}

/// A tunnel that nothing goes through is a mistake.
pub(crate) fn must_carry(args: &ConnectArgs) -> Result<(), Failure> {
    let forwards = args.local_forwards.len() + args.remote_forwards.len() + args.socks.len();
    if forwards == 0 && args.stdio.is_none() && !carries_ip(args) {
        return Err(Failure::Config(anyhow!(
            "nothing to carry: give -L or -R [BIND:]PORT:HOST:HOSTPORT, -D [BIND:]PORT, -W HOST:PORT, --tun or --lan IF"
        )));
    }
    Ok(())
}

fn listens(args: &ConnectArgs) -> Result<Vec<Listen>, Failure> {
    let mut listens = Vec::new();
    for forward in args.local_forwards.iter().filter(|forward| forward.protocol == Protocol::Tcp) {
        listens.push(Listen::Forward(listen(&forward.listen, "-L")?, forward.to.clone()));
    }
    for socks in &args.socks {
        listens.push(Listen::Socks(listen(socks, "-D")?));
    }
    Ok(listens)
}

/// What `-R` publishes: on the gateway's loopback unless its user names an address.
pub(crate) fn publications(args: &ConnectArgs) -> Result<Vec<Publication>, Failure> {
    args.remote_forwards
        .iter()
        .map(|forward| Publication::new(forward).map_err(|error| Failure::Config(anyhow!("-R: {error}"))))
        .collect()
}

/// The sockets of `-L .../udp`, on loopback unless their user names an address.
fn udp_forwards(args: &ConnectArgs) -> Result<Vec<(DatagramSocket, Destination)>, Failure> {
    let of_udp = args.local_forwards.iter().filter(|forward| forward.protocol == Protocol::Udp);
    of_udp.map(|forward| Ok((listen_udp(&forward.listen)?, forward.to.clone()))).collect()
}

fn listen_udp(endpoint: &Endpoint) -> Result<DatagramSocket, Failure> {
    let address = endpoint.resolve(IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(Failure::Config)?;
    let socket = DatagramSocket::bound(address).map_err(|error| {
        Failure::Preflight(anyhow!(
            "can't listen on UDP {address} for -L: {error}; see who does: ss -lnup 'sport = :{}', or choose another port",
            address.port()
        ))
    })?;
    let bound = socket.local();
    if !bound.ip().is_loopback() {
        tracing::warn!("-L listens on UDP {bound}: whoever reaches it uses the tunnel as you");
    }
    tracing::info!("-L listens on UDP {bound}");
    Ok(socket)
}

/// A listener on loopback unless its user names an address.
fn listen(endpoint: &Endpoint, flag: &str) -> Result<TcpListener, Failure> {
    let address = endpoint.resolve(IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(Failure::Config)?;
    let listener = TcpListener::bind(address).map_err(|error| {
        Failure::Preflight(anyhow!(
            "can't listen on {address} for {flag}: {error}; see who does: ss -ltnp 'sport = :{}', or choose another port",
            address.port()
        ))
    })?;
    let bound = listener.local_addr().map_err(Failure::runtime)?;
    if !bound.ip().is_loopback() {
        tracing::warn!("{flag} listens on {bound}: whoever reaches it uses the tunnel as you");
    }
    tracing::info!("{flag} listens on {bound}");
    Ok(listener)
}

/// A socket whose other end is copied from standard input and to standard output, and the thread that prints.
fn carry_stdio() -> anyhow::Result<(Socket, JoinHandle<()>)> {
    let (ours, theirs) =
        Socket::pair(Domain::UNIX, Type::STREAM, None).context("can't make a socket pair for -W")?;
    let input = theirs.try_clone()?;
    std::thread::Builder::new().name("beam-stdin".into()).spawn(move || {
        if !confine::enter_or_note(Room::Control) {
            return;
        }
        let _ = copy(io::stdin().lock(), &input);
        let _ = input.shutdown(std::net::Shutdown::Write);
    })?;
    let printer = std::thread::Builder::new().name("beam-stdout".into()).spawn(move || {
        if !confine::enter_or_note(Room::Control) {
            return;
        }
        let _ = copy(&theirs, io::stdout().lock());
        // Whoever reads our output learns of its end now, while the other direction may go on.
        if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(null);
        }
    })?;
    Ok((ours, printer))
}

/// Like `io::copy`, but each piece is flushed at once: a terminal waits behind it.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                to.write_all(&buffer[..length])?;
                to.flush()?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
