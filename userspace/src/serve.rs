//! `beam serve`: flags to a running gateway.

use crate::{
    ablation::Ablation,
    alerts::{self, Asked},
    cli::{CertificateArgs, Congestion, EarlyData, Retry, ServeArgs},
    config, control,
    early::{AtGateway, state::State},
    failure::Failure,
    identity::{self, Credentials},
    inner,
    interface::{self, Sharing},
    logging,
    memory::MemoryLimit,
    privileges,
    reload::{Loaded, Reloader},
    supervisor::{self, Crew, Doors, Identity, Interfaces, Seat},
    worker::{
        Authorities, Claims, Gateway, GatewayConfig, Limits, Role, Rules, Worker, account::Accounts,
        sleepers::Sleepers,
    },
};
use anyhow::{Context, anyhow};
use confine::{Capabilities, Files, Room};
use std::{
    collections::HashSet,
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
    logging::start(args.daemon.log);
    let alerts = alerts::Plan::of(&args.daemon.alerts)?;
    config::announce();
    let control = args.daemon.control.clone().unwrap_or_else(|| PathBuf::from(control::DEFAULT_PATH));
    privileges::prepare(args.daemon.sandbox, files(&args, &control), alerts.program())?;
    let state = State::gateway(&args.state_dir);
    let early = AtGateway::new(&state, args.early_data);
    let secrets = state.secrets().clone();
    let reloader = Arc::new(Reloader::start(args, secrets.clone(), early.clone())?);
    let Loaded { args, config, server, fingerprint, leaf: _ } = reloader.current();
    let args = &*args;
    tracing::info!("certificate fingerprint {fingerprint}");
    let claims = Arc::new(Claims::default());
    let bind = args.listen.resolve(unspecified()).map_err(Failure::Config)?;
    let kernel_lanes = args.path.cpus.as_ref().map_or_else(available_cpus, |list| list.0.len());
    let protection = args.path.simd.protection()?;
    let ablation = Ablation::asked()?;
    let datapath = interface::open(&args.path, bind, Sharing::QueueEach { kernel_lanes })?;
    let mailboxes = supervisor::mailboxes(&datapath.lanes)?;
    let cpus = supervisor::cpus(args.path.cpus.as_ref().map(|list| list.0.as_slice()), datapath.lanes.len())?;
    privileges::broker::start(broker_keeps(args)).map_err(Failure::runtime)?;
    let mut net = inner::gateway(args, &mailboxes)?;
    let memory = Arc::new(MemoryLimit::new(args.memory_limit, datapath.lanes.len(), args.path.frame_size));
    let mut crew = Vec::new();
    for (index, lane) in datapath.lanes.into_iter().enumerate() {
        let seat = Seat { mailbox: mailboxes[index].clone(), cpu: cpus[index], lane: lane.facts.into() };
        let mut engine = EngineConfig::new(WorkerId(index as u8), secrets.clone(), Some(server.clone()));
        engine.protection = protection;
        engine.extra_copy = !ablation.fused_copy;
        // More only once a client has shown who it is.
        engine.remote_streams_max = tunnel::transport::STRANGER_STREAMS_MAX;
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
        worker.ablate(ablation);
        worker.set_limits(limits(args));
        worker.set_memory(memory.clone());
        crew.push(Crew { worker, seat });
    }
    // Before the first packet; and after the last one, also when the start fails from here on.
    early.load();
    let (caches, of_names) = (early.clone(), reloader.clone());
    let identity = Identity {
        role: "gateway",
        address: datapath.locals[0].to_string(),
        asked: Asked::of(&args.path),
        gateway: Some(reloader.clone()),
        memory: Some(memory),
        transport: gateway_transport(args.cc),
        caches: Box::new(move || {
            let mut reports = caches.report();
            reports.push(of_names.current().config.resolver.report());
            reports
        }),
    };
    let interfaces = Interfaces { tunnel: datapath.interfaces, lan: net.and_then(|net| net.lan) };
    let doors = Doors::of(&args.daemon, Some(control));
    let outcome = supervisor::run(identity, crew, interfaces, doors, alerts, args.drain_timeout);
    early.keep();
    outcome
}

/// What stays within reach: what a reload reads, and what is written.
fn files(args: &ServeArgs, control: &Path) -> Files {
    let CertificateArgs { tls_cert, tls_key } = &args.certificate;
    let read = [tls_cert, tls_key, &args.client_ca, &args.users];
    Files {
        read: read.into_iter().flatten().cloned().chain(config::file()).collect(),
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
pub(crate) fn unspecified() -> IpAddr {
    match std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

pub(crate) fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) fn quic_server(
    args: &ServeArgs,
    credentials: Credentials,
    secrets: &Secrets,
    early: &AtGateway,
    users: Option<&Users>,
) -> Result<Arc<quinn_proto::ServerConfig>, Failure> {
    let leaf = tls::Fingerprint::of(&credentials.chain[0]);
    // Whoever changes the authorities doesn't want those that the old ones let in. A client that wasn't asked for its key
    // when it got its ticket shows none when it comes back with that.
    let asks_for_keys = users.is_some_and(|users| users.keys().next().is_some());
    let tickets = early.tickets(&[&leaf.0, &authorities_file(args)?, &[u8::from(asks_for_keys)]]);
    let mut tls = server_tls(args, credentials, users)?;
    tls.key_log = Arc::new(crate::capture::keylog::Tee);
    let options = gateway_transport(args.cc);
    // A client uses one and gets one with each connection; a second one would lie here for a day and never be used.
    tls.send_tls13_tickets = 1;
    let tls = tls::with_tickets(tls, tickets, args.early_data != EarlyData::Off);
    let quic = tls::quic_server(tls).map_err(Failure::config)?;
    let server = transport::server_config(quic, Arc::new(options.build()), secrets);
    Ok(Arc::new(transport::with_new_tokens(server, early.tokens.clone())))
}

/// The gateway's side of TLS: its certificate must belong to its key, the authorities must be some.
pub(crate) fn server_tls(
    args: &ServeArgs,
    credentials: Credentials,
    users: Option<&Users>,
) -> Result<rustls::ServerConfig, Failure> {
    let authorities =
        args.client_ca.as_deref().map(identity::authorities).transpose().map_err(Failure::Config)?;
    let keys: HashSet<_> =
        users.iter().flat_map(|users| users.keys()).map(|key| tls::Fingerprint(key.0)).collect();
    let client_auth = match authorities {
        authorities if !keys.is_empty() => tls::ClientAuth::Known { keys, authorities },
        None => tls::ClientAuth::None,
        // With a users file beside it, a client may come with a token instead.
        Some(roots) if args.users.is_some() => tls::ClientAuth::Optional(roots),
        Some(roots) => tls::ClientAuth::Required(roots),
    };
    tls::server_tls(credentials.chain, credentials.key, client_auth)
        .with_context(|| identity::whence(&args.certificate, Some(&args.state_dir)))
        .map_err(Failure::Config)
}

/// What the transport of a gateway's connections is made of, and of any server's whose streams and windows are to be alike.
pub(crate) fn gateway_transport(cc: Congestion) -> transport::TransportOptions {
    transport::TransportOptions { congestion: congestion(cc), ..transport::TransportOptions::gateway() }
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

/// Who verifies client certificates.
fn authorities(args: &ServeArgs) -> Result<Authorities, Failure> {
    let roots = args.client_ca.as_deref().map(identity::authorities).transpose().map_err(Failure::Config)?;
    let judge = roots.map(tls::Authorities::new).transpose().map_err(Failure::config)?;
    Ok(Authorities { file: authorities_file(args)?, judge })
}

/// Who may use the gateway, and what they may reach: read from flags and files.
pub(crate) fn rules(args: &ServeArgs) -> Result<Rules, Failure> {
    must_admit(args)?;
    Ok(Rules {
        users: users(args)?,
        policy: policy(args)?,
        listen: listen_policy(&args.allow_listen)?,
        authorities: authorities(args)?,
    })
}

/// A gateway that nobody could use is a mistake.
pub(crate) fn must_admit(args: &ServeArgs) -> Result<(), Failure> {
    if args.users.is_none() && args.client_ca.is_none() {
        return Err(Failure::Config(anyhow!(
            "nobody could use this gateway: give --users FILE (make one with `beam user add NAME --users FILE`) or --client-ca FILE"
        )));
    }
    Ok(())
}

/// What clients may reach.
pub(crate) fn policy(args: &ServeArgs) -> Result<Policy, Failure> {
    if args.allow.is_empty() {
        tracing::warn!(
            "no --allow: every destination is denied; give --allow CIDR[:PORTS] or --allow NAME[:PORTS]"
        );
    }
    Policy::parse(&args.allow, &args.deny).map_err(Failure::config)
}

pub(crate) fn gateway_config(args: &ServeArgs, rules: Rules) -> Result<GatewayConfig, Failure> {
    let now = std::time::Instant::now();
    let Rules { users, policy, listen, authorities } = rules;
    Ok(GatewayConfig {
        users,
        policy,
        listen,
        authorities,
        accounts: Arc::new(Accounts::new(now)),
        sleepers: Arc::new(Sleepers::new(now, args.max_sleeping)),
        resolver: Arc::new(resolver()?),
        certificate_name: identity::certificate_name,
    })
}

/// What a worker may be told while it runs.
pub(crate) fn limits(args: &ServeArgs) -> Limits {
    Limits {
        connections_max: args.max_connections,
        retry: match args.retry {
            Retry::Auto => RetryPolicy::default(),
            Retry::Always => RetryPolicy::Always,
            Retry::Off => RetryPolicy::Off,
        },
        udp_idle_timeout: args.udp_idle_timeout,
    }
}

/// Its threads are confined from their start.
pub(crate) fn resolver() -> Result<Resolver, Failure> {
    let started = confine::within(Room::Control, || Resolver::new(Default::default()));
    started.and_then(|resolver| resolver).map_err(Failure::runtime)
}

/// Where every client may listen: `[ADDR:]PORTS` as in the users file, whose parser it is.
pub(crate) fn listen_policy(rules: &[String]) -> Result<ClientPolicy, Failure> {
    let words: Vec<String> = rules.iter().map(|rule| format!("listen={rule}")).collect();
    ClientPolicy::parse(words.iter().map(String::as_str))
        .map_err(|error| Failure::Config(anyhow!("--allow-listen: {error}")))
}
