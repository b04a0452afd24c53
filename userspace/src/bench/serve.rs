//! `beam bench serve`: flags to a running server. What it answers, and what a stranger can cost, is in
//! `worker/bench/server.rs`.

use crate::{
    alerts::{self, Asked},
    cli::{AlertArgs, BenchServeArgs, CertificateArgs, EarlyData},
    early::{AtGateway, state::State},
    failure::Failure,
    identity,
    interface::{self, Sharing},
    logging, privileges, serve,
    supervisor::{self, Crew, Doors, Identity, Interfaces, Seat},
    worker::{
        Limits, Role, Worker,
        bench::{ALPN_PERF, Bench, Server},
    },
};
use anyhow::Context as _;
use confine::Files;
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use tunnel::{Engine, EngineConfig, RetryPolicy, WorkerId, tls, transport};

pub(super) fn run(args: BenchServeArgs) -> Result<(), Failure> {
    logging::start(args.log);
    let alerts = alerts::Plan::of(&none())?;
    let CertificateArgs { tls_cert, tls_key } = &args.certificate;
    let read = [tls_cert, tls_key, &args.client_ca].into_iter().flatten().cloned().collect();
    let files = Files { read, write: privileges::written(args.control.as_deref(), None) };
    privileges::prepare(args.sandbox, files, None)?;
    // Tickets and secrets are those of this run: a measurement begins from nothing.
    let state = State::memory();
    let early = AtGateway::new(&state, args.early_data);
    let secrets = state.secrets().clone();
    let server = quic_server(&args, &state, &early)?;
    let bind = args.listen.resolve(Ipv4Addr::LOCALHOST.into()).map_err(Failure::Config)?;
    say_open(&args, bind.ip());
    let kernel_lanes = args.path.cpus.as_ref().map_or_else(serve::available_cpus, |list| list.0.len());
    let protection = args.path.simd.protection()?;
    let datapath = interface::open(&args.path, bind, Sharing::QueueEach { kernel_lanes })?;
    let mailboxes = supervisor::mailboxes(&datapath.lanes)?;
    let cpus = supervisor::cpus(args.path.cpus.as_ref().map(|list| list.0.as_slice()), datapath.lanes.len())?;
    let mut crew = Vec::new();
    for (index, lane) in datapath.lanes.into_iter().enumerate() {
        let seat = Seat { mailbox: mailboxes[index].clone(), cpu: cpus[index], lane: lane.facts.into() };
        let mut engine = EngineConfig::new(WorkerId(index as u8), secrets.clone(), Some(server.clone()));
        engine.protection = protection;
        let role = Role::Bench(Box::new(Bench::Serve(Server::new(args.datagrams))));
        let mut worker = Worker::new(index as u8, Engine::new(engine), lane.ports, mailboxes.clone(), role)
            .map_err(Failure::runtime)?;
        worker.set_busy_poll(args.path.busy_poll > 0);
        worker.set_limits(limits(&args));
        crew.push(Crew { worker, seat });
    }
    let identity = Identity {
        role: "bench",
        address: datapath.locals[0].to_string(),
        asked: Asked::of(&args.path),
        gateway: None,
        memory: None,
        transport: serve::gateway_transport(args.cc),
        caches: Box::new(move || early.report()),
    };
    let interfaces = Interfaces { tunnel: datapath.interfaces, lan: None };
    let doors = Doors { control: args.control.clone(), metrics: args.metrics.clone(), keylog: true };
    supervisor::run(identity, crew, interfaces, doors, alerts, args.drain_timeout)
}

/// A measurement raises no alert.
fn none() -> AlertArgs {
    AlertArgs { rules: vec!["none".to_owned()], webhook: None, program: None }
}

/// Of UDP flows there are none, so their bound doesn't matter.
fn limits(args: &BenchServeArgs) -> Limits {
    Limits {
        connections_max: args.max_connections,
        retry: RetryPolicy::default(),
        udp_idle_timeout: Duration::from_secs(120),
    }
}

/// TLS and transport for ALPN perf, with tickets and early data as a gateway has them.
fn quic_server(
    args: &BenchServeArgs,
    state: &State,
    early: &AtGateway,
) -> Result<Arc<quinn_proto::ServerConfig>, Failure> {
    let credentials = match args.self_signed {
        true => identity::passing().map_err(Failure::Config)?,
        false => identity::of_files(&args.certificate)?,
    };
    let leaf = tls::Fingerprint::of(&credentials.chain[0]);
    tracing::info!("certificate fingerprint {leaf}");
    let roots = args.client_ca.as_deref().map(identity::authorities).transpose().map_err(Failure::Config)?;
    let client_auth = roots.map_or(tls::ClientAuth::None, tls::ClientAuth::Required);
    let mut server = tls::server_tls(credentials.chain, credentials.key, client_auth)
        .with_context(|| identity::whence(&args.certificate, None))
        .map_err(Failure::Config)?;
    server.alpn_protocols = vec![ALPN_PERF.to_vec()];
    server.key_log = Arc::new(crate::capture::keylog::Tee);
    let tickets = early.tickets(&[&leaf.0, ALPN_PERF]);
    let server = tls::with_tickets(server, tickets, args.early_data != EarlyData::Off);
    let quic = tls::quic_server(server).map_err(Failure::config)?;
    let options = Arc::new(serve::gateway_transport(args.cc).build());
    let server = transport::server_config(quic, options, state.secrets());
    Ok(Arc::new(transport::with_new_tokens(server, early.tokens.clone())))
}

/// Whoever starts an open server is to know it.
fn say_open(args: &BenchServeArgs, bound: IpAddr) {
    if args.client_ca.is_none() && !bound.is_loopback() {
        tracing::warn!(
            "an open server: whoever reaches {bound} may have it send and receive as fast as the path goes; let a \
             firewall or --client-ca keep strangers out, and stop it after the measurement"
        );
    } else if args.client_ca.is_none() {
        tracing::info!("open to every user of this host; give -l ADDR:PORT to be measured from others");
    }
}
