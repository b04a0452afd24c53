//! `beam serve`: flags to a running gateway.

use crate::{
    cli::{Congestion, EarlyData, Retry, ServeArgs},
    control,
    early::{AtGateway, state::State},
    failure::Failure,
    identity::{self, Credentials},
    inner,
    interface::{self, Sharing},
    logging, privileges,
    reload::{Loaded, Reloader},
    supervisor::{self, Crew, Identity, Interfaces, Seat},
    worker::{Claims, Gateway, GatewayConfig, Role, Worker, account::Accounts},
};
use anyhow::{Context, anyhow};
use confine::{Capabilities, Files, Room};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};
use tunnel::{Engine, EngineConfig, RetryPolicy, Secrets, WorkerId, tls, transport};
use upstream::{
    policy::Policy,
    resolver::Resolver,
    users::{ClientPolicy, Users},
};

pub(crate) fn run(args: ServeArgs) -> Result<(), Failure> {
    logging::start(args.daemon.log_format, args.daemon.verbose);
    let control = args.daemon.control.clone().unwrap_or_else(|| PathBuf::from(control::DEFAULT_PATH));
    privileges::prepare(args.daemon.sandbox, files(&args, &control), None)?;
    let state = State::gateway(&args.state_dir);
    let early = AtGateway::new(&state, args.early_data);
    let secrets = state.secrets().clone();
    let reloader = Arc::new(Reloader::start(args, secrets.clone(), early.clone())?);
    let (args, Loaded { config, server, fingerprint, leaf: _ }) = (reloader.args(), reloader.current());
    tracing::info!("certificate fingerprint {fingerprint}");
    let claims = Arc::new(Claims::default());
    let bind = args.listen.resolve(unspecified()).map_err(Failure::Config)?;
    let kernel_lanes = args.path.cpus.as_ref().map_or_else(available_cpus, |list| list.0.len());
    let protection = args.path.simd.protection()?;
    let datapath = interface::open(&args.path, bind, Sharing::QueueEach { kernel_lanes })?;
    let mailboxes = supervisor::mailboxes(&datapath.lanes)?;
    let cpus = supervisor::cpus(args.path.cpus.as_ref().map(|list| list.0.as_slice()), datapath.lanes.len())?;
    privileges::broker::start(broker_keeps(args)).map_err(Failure::runtime)?;
    let mut net = inner::gateway(args, &mailboxes)?;
    let mut crew = Vec::new();
    for (index, lane) in datapath.lanes.into_iter().enumerate() {
        let seat = Seat { mailbox: mailboxes[index].clone(), cpu: cpus[index], lane: lane.facts.into() };
        let mut engine = EngineConfig::new(WorkerId(index as u8), secrets.clone(), Some(server.clone()));
        engine.connections_max = args.max_connections;
        engine.protection = protection;
        // More only once a client has shown who it is.
        engine.remote_streams_max = tunnel::transport::TransportOptions::gateway().bidi_streams;
        engine.retry = match args.retry {
            Retry::Auto => RetryPolicy::default(),
            Retry::Always => RetryPolicy::Always,
            Retry::Off => RetryPolicy::Off,
        };
        let role = Role::Gateway(Box::new(Gateway::new(config.clone(), claims.clone())));
        let mut worker = Worker::new(index as u8, Engine::new(engine), lane.ports, mailboxes.clone(), role)
            .map_err(Failure::runtime)?;
        if let Some(net) = &mut net {
            worker.set_realm(net.realm.clone());
            if let Some(network) = net.networks.pop() {
                worker.set_inner(network).map_err(Failure::runtime)?;
            }
        }
        worker.set_busy_poll(args.path.busy_poll > 0);
        worker.set_udp_idle_timeout(args.udp_idle_timeout);
        crew.push(Crew { worker, seat });
    }
    // Before the first packet; and after the last one, also when the start fails from here on.
    early.load();
    let (caches, of_names) = (early.clone(), reloader.clone());
    let identity = Identity {
        role: "gateway",
        address: datapath.locals[0].to_string(),
        gateway: Some(reloader.clone()),
        caches: Box::new(move || {
            let mut reports = caches.report();
            reports.push(of_names.current().config.resolver.report());
            reports
        }),
    };
    let interfaces = Interfaces { tunnel: datapath.interfaces, lan: net.and_then(|net| net.lan) };
    let outcome =
        supervisor::run(identity, crew, interfaces, &args.daemon, Some(control), args.drain_timeout);
    early.keep();
    outcome
}

/// What stays within reach: what a reload reads, and what is written.
fn files(args: &ServeArgs, control: &Path) -> Files {
    let read = [&args.tls_cert, &args.tls_key, &args.client_ca, &args.users];
    Files {
        read: read.into_iter().flatten().cloned().collect(),
        write: privileges::written(Some(control), Some(&args.state_dir)),
    }
}

/// For ports below 1024 that clients listen on; for networks behind clients.
fn broker_keeps(args: &ServeArgs) -> Capabilities {
    let network = Capabilities::NET_ADMIN | Capabilities::BPF;
    let network = if args.ip_pool.is_empty() { Capabilities::empty() } else { network };
    Capabilities::NET_BIND_SERVICE | network
}

/// `[::]` where the host has IPv6 (it takes IPv4 too), else `0.0.0.0`.
fn unspecified() -> IpAddr {
    match std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) fn quic_server(
    args: &ServeArgs,
    credentials: Credentials,
    secrets: &Secrets,
    early: &AtGateway,
) -> Result<Arc<quinn_proto::ServerConfig>, Failure> {
    let leaf = tls::Fingerprint::of(&credentials.chain[0]);
    let authorities =
        args.client_ca.as_deref().map(identity::authorities).transpose().map_err(Failure::Config)?;
    // Whoever changes the authorities doesn't want those that the old ones let in.
    let tickets = early.tickets(&[&leaf.0, &authorities_file(args)?]);
    let client_auth = match authorities {
        None => tls::ClientAuth::None,
        // With a users file beside it, a client may come with a token instead.
        Some(roots) if args.users.is_some() => tls::ClientAuth::Optional(roots),
        Some(roots) => tls::ClientAuth::Required(roots),
    };
    let tls = tls::server_tls(credentials.chain, credentials.key, client_auth)
        .with_context(|| match (&args.tls_cert, &args.tls_key) {
            (Some(cert), Some(key)) => identity::pair_of_files("--tls-cert", cert, "--tls-key", key),
            _ => format!("the self-signed certificate in {}", args.state_dir.display()),
        })
        .map_err(Failure::Config)?;
    let mut options = transport::TransportOptions::gateway();
    options.congestion = congestion(args.cc);
    let tls = tls::with_tickets(tls, tickets, args.early_data != EarlyData::Off);
    let quic = tls::quic_server(tls).map_err(Failure::config)?;
    let server = transport::server_config(quic, Arc::new(options.build()), secrets);
    Ok(Arc::new(transport::with_new_tokens(server, early.tokens.clone())))
}

pub(crate) fn congestion(cc: Congestion) -> transport::Congestion {
    match cc {
        Congestion::Cubic => transport::Congestion::Cubic,
        Congestion::Bbr => transport::Congestion::Bbr,
        Congestion::Newreno => transport::Congestion::NewReno,
    }
}

pub(crate) fn users(args: &ServeArgs) -> Result<Option<Users>, Failure> {
    args.users.as_deref().map(Users::load).transpose().map_err(Failure::config)
}

/// The bytes of `--client-ca`, which tell one set of authorities from another.
pub(crate) fn authorities_file(args: &ServeArgs) -> Result<Arc<[u8]>, Failure> {
    let file = args.client_ca.as_deref().map(std::fs::read).transpose();
    let file = file.context("--client-ca, read again").map_err(Failure::Config)?;
    Ok(file.unwrap_or_default().into())
}

pub(crate) fn gateway_config(args: &ServeArgs) -> Result<GatewayConfig, Failure> {
    let users = users(args)?;
    if users.is_none() && args.client_ca.is_none() {
        return Err(Failure::Config(anyhow!(
            "nobody could use this gateway: give --users FILE (make one with `beam user add NAME --users FILE`) or --client-ca FILE"
        )));
    }
    if args.allow.is_empty() {
        tracing::warn!(
            "no --allow: every destination is denied; give --allow CIDR[:PORTS] or --allow NAME[:PORTS]"
        );
    }
    Ok(GatewayConfig {
        users,
        listen: listen_policy(&args.allow_listen)?,
        accounts: Arc::new(Accounts::new(std::time::Instant::now())),
        policy: Policy::parse(&args.allow, &args.deny).map_err(Failure::config)?,
        resolver: Arc::new(resolver()?),
        certificate_name: identity::certificate_name,
        authorities: authorities_file(args)?,
    })
}

/// Its threads are confined from their start.
pub(crate) fn resolver() -> Result<Resolver, Failure> {
    let started = confine::within(Room::Control, || Resolver::new(Default::default()));
    started.and_then(|resolver| resolver).map_err(Failure::runtime)
}

/// Where every client may listen: `[ADDR:]PORTS` as in the users file, whose parser it is.
fn listen_policy(rules: &[String]) -> Result<ClientPolicy, Failure> {
    let words: Vec<String> = rules.iter().map(|rule| format!("listen={rule}")).collect();
    ClientPolicy::parse(words.iter().map(String::as_str))
        .map_err(|error| Failure::Config(anyhow!("--allow-listen: {error}")))
}
