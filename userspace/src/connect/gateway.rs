//! Towards the gateway: whom we trust and who we are, the source address, the sockets. For `connect` and `ping`.

use crate::{
    cli::{GatewayArgs, PathArgs},
    early::{self, AtClient, Circumstances, state::State},
    failure::Failure,
    identity::{self, Credentials},
    interface::{self, Datapath, Sharing},
    serve, worker,
};
use anyhow::{Context, anyhow};
use rustls::RootCertStore;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};
use tunnel::{tls, transport};

/// TLS and transport, and what is kept of the gateway for `pool` connections.
pub(crate) fn quic_client(
    args: &GatewayArgs,
    keepalive: Duration,
    sleep: Option<worker::Habit>,
    pool: u8,
    state: &State,
) -> Result<(quinn_proto::ClientConfig, Arc<AtClient>), Failure> {
    let (mut tls, of) = client_tls(args)?;
    tls.key_log = Arc::new(crate::capture::keylog::Tee);
    let early = AtClient::open(state, of, pool);
    let quic = tls::resuming_client(tls, early.tickets.clone()).map_err(Failure::config)?;
    let transport = Arc::new(transport_options(args, keepalive, sleep).build());
    Ok((transport::client_config_with_tokens(quic, transport, early.tokens.clone()), early))
}

/// What the transport of the client's connections is made of.
pub(crate) fn transport_options(
    args: &GatewayArgs,
    keepalive: Duration,
    sleep: Option<worker::Habit>,
) -> transport::TransportOptions {
    let live = transport::TransportOptions::client();
    transport::TransportOptions {
        congestion: serve::congestion(args.cc),
        // Of one that may sleep, the worker keeps alive what is in use.
        keep_alive: (sleep.is_none() && !keepalive.is_zero()).then_some(keepalive),
        idle_timeout: sleep.map_or(live.idle_timeout, |habit| habit.silence_max()),
        ..live
    }
}

/// The client's side of TLS: how the gateway is trusted, and who we are.
pub(crate) fn client_tls(args: &GatewayArgs) -> Result<(rustls::ClientConfig, Circumstances), Failure> {
    let verify = if args.insecure {
        tracing::warn!("--insecure: the gateway's certificate is not verified");
        tls::Verify::Insecure
    } else if let Some(pin) = &args.pin {
        tls::Verify::Pin(
            pin.parse().map_err(|e: tls::FingerprintError| Failure::config(anyhow!(e).context("--pin")))?,
        )
    } else if let Some(ca) = &args.ca {
        tls::Verify::Roots(identity::authorities(ca).map_err(Failure::Config)?)
    } else {
        tls::Verify::Roots(system_roots())
    };
    let credentials = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some(Credentials::load(cert, key).map_err(Failure::Config)?),
        (None, Some(key)) => Some(Credentials::of_key(key).map_err(Failure::Config)?),
        _ => None,
    };
    let of = circumstances(args, &verify, credentials.as_ref());
    let tls = tls::client_tls(verify, credentials.map(|c| (c.chain, c.key)));
    let tls = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => tls
            .with_context(|| identity::pair_of_files("--cert", cert, "--key", key))
            .map_err(Failure::Config)?,
        _ => tls.map_err(Failure::config)?,
    };
    Ok((tls, of))
}

/// What a ticket is bound to: the gateway, how it is trusted, and whom it knows us as.
fn circumstances(
    args: &GatewayArgs,
    verify: &tls::Verify,
    credentials: Option<&Credentials>,
) -> Circumstances {
    let gateway = format!("{}:{}", args.url.host, args.url.port);
    let (kind, trust): (&[u8], Vec<u8>) = match verify {
        tls::Verify::Roots(_) if args.ca.is_none() => (b"system", Vec::new()),
        tls::Verify::Roots(roots) => {
            let keys = roots.roots.iter().flat_map(|root| root.subject_public_key_info.to_vec());
            (b"roots", keys.collect())
        }
        tls::Verify::Pin(pin) => (b"pin", pin.0.to_vec()),
        tls::Verify::Insecure => (b"insecure", Vec::new()),
    };
    // Of a key alone the certificate is another each time.
    let us = credentials.and_then(|credentials| match &args.cert {
        Some(_) => Some(tls::Fingerprint::of(&credentials.chain[0])),
        None => tls::Fingerprint::of_key(&credentials.chain[0]),
    });
    let us = us.map_or(Vec::new(), |us| us.0.to_vec());
    early::circumstances(&[gateway.as_bytes(), kind, &trust, &us])
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!("system certificates: {error}");
    }
    roots.add_parsable_certificates(loaded.certs);
    roots
}

/// The sockets of `pool` connections; one lane has them all. Their addresses are what packets to the gateway come from.
pub(crate) fn open_path(args: &GatewayArgs, path: &PathArgs, pool: u8) -> Result<Datapath, Failure> {
    let source = source_address(args, path)?;
    let bind = SocketAddr::new(unspecified(source), 0);
    let mut datapath = interface::open(path, bind, Sharing::AllInOne { ports: pool.into() })?;
    for local in &mut datapath.locals {
        local.set_ip(source);
    }
    find_gateway(&datapath.interfaces, &datapath.locals[0], args);
    Ok(datapath)
}

fn unspecified(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The source address of the tunnel's packets: AF_XDP needs the one that the route to the gateway says, a kernel socket
/// finds it by itself. The sockets are bound to all addresses, so that they outlive a change of it.
fn source_address(args: &GatewayArgs, path: &PathArgs) -> Result<IpAddr, Failure> {
    let gateway = (args.url.host.as_str(), args.url.port);
    let remote = gateway.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let family = remote.map_or(Ipv4Addr::UNSPECIFIED.into(), |remote| remote.ip());
    let Some(remote) = remote.filter(|_| !path.interfaces.is_empty()) else {
        return Ok(unspecified(family));
    };
    worker::source_towards(remote).map_err(|e| {
        Failure::Preflight(anyhow!(
            "no route to the gateway {remote}: {e}; it needs one, such as a default route; see \
             `ip route get {}`",
            remote.ip()
        ))
    })
}

/// Has the kernel find the neighbour towards the gateway, so that the first packet leaves by AF_XDP already: sent by the
/// kernel, it might reach another queue of the gateway than those that follow.
fn find_gateway(interfaces: &[xsk::Interface], local: &SocketAddr, args: &GatewayArgs) {
    const WITHIN: Duration = Duration::from_secs(1);
    let gateway = (args.url.host.as_str(), args.url.port).to_socket_addrs();
    let fits = |address: &SocketAddr| address.is_ipv4() == local.is_ipv4();
    let Some(remote) = gateway.ok().and_then(|mut addresses| addresses.find(fits)) else { return };
    let found = |interface: &xsk::Interface| interface.find_neighbour(local, &remote, WITHIN);
    if !interfaces.is_empty() && !interfaces.iter().any(found) {
        tracing::info!("no neighbour towards {remote} by AF_XDP yet: packets start on the kernel's path");
    }
}
