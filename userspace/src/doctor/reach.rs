//! The ways in and out: the port, ssh beside it, the route and the neighbour towards a peer.

use super::{
    finding::Finding,
    host::{Host, Nic},
    sockets::{self, State},
};
use crate::serve::unspecified;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};
use udp::{BindError, UdpPort};
use xsk::look;

const SSH_PORT: u16 = 22;
/// ARP and neighbour discovery ask three times, a second apart.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_millis(3500);
const NEIGHBOUR_INTERVAL: Duration = Duration::from_millis(20);

pub(super) fn listen(host: &Host) -> Finding {
    let Some(endpoint) = &host.plan.listen else {
        return Finding::not_asked("--listen [ADDR]:PORT");
    };
    let needed = "a UDP port that is free, on an address of this host";
    let address = match endpoint.resolve(unspecified()) {
        Ok(address) => address,
        Err(error) => return Finding::fail(error.to_string(), needed).command("ip -brief address"),
    };
    let options = udp::Options { reuse_port: false, ..udp::Options::default() };
    let error = match UdpPort::bind(address, options) {
        Ok(_) => return Finding::pass(format!("UDP {address} is free"), needed),
        Err(error) => error,
    };
    match &error {
        BindError::InUse { .. } => in_use(host, address, needed),
        BindError::Permission { .. } => {
            let port = address.port();
            Finding::fail(format!("UDP port {port} needs CAP_NET_BIND_SERVICE"), needed)
                .command("setcap cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock,cap_net_bind_service+ep $(command -v beam)")
        }
        BindError::NotLocal { .. } => {
            Finding::fail(format!("{} is not an address of this host", address.ip()), needed)
                .command("ip -brief address")
        }
        _ => {
            let seen = error.to_string();
            let seen = seen.lines().next().unwrap_or_default();
            Finding::fail(seen, needed).command(format!("beam serve --listen 0.0.0.0:{} ...", address.port()))
        }
    }
}

fn in_use(host: &Host, address: SocketAddr, needed: &str) -> Finding {
    let taken = |socket: &sockets::Socket| {
        socket.port == address.port()
            && (socket.address == address.ip()
                || socket.address.is_unspecified()
                || address.ip().is_unspecified())
    };
    let found = sockets::of(&host.files, "udp").into_iter().find(taken);
    match found.and_then(|socket| sockets::holder(&host.files, socket.inode)) {
        Some(holder) if holder.name == "beam" => {
            Finding::pass(format!("UDP {address} is served by {holder}"), needed)
        }
        Some(holder) => Finding::fail(format!("UDP {address} is taken by {holder}"), needed)
            .command(format!("kill {}", holder.pid)),
        None => Finding::not_seen(format!("UDP {address} is taken; by whom is not seen: needs root"), needed)
            .command(format!("sudo ss -ulpn 'sport = :{}'", address.port())),
    }
}

/// ssh is TCP, and steering takes UDP to the listener's port only: what is told here is that it stays so.
pub(super) fn ssh(host: &Host, nic: &Nic) -> Finding {
    let needed = "ssh's port another than the one that is steered";
    let tcp = sockets::of(&host.files, "tcp");
    let mut ports: Vec<u16> = tcp
        .iter()
        .filter(|socket| socket.state == State::Listening)
        .filter(|socket| {
            sockets::holder(&host.files, socket.inode)
                .map_or(socket.port == SSH_PORT, |holder| holder.name.starts_with("sshd"))
        })
        .map(|socket| socket.port)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let addresses = look::addresses(nic.link.index).unwrap_or_default();
    let here = |socket: &&sockets::Socket| {
        socket.state == State::Established
            && ports.contains(&socket.port)
            && addresses.contains(&socket.address)
    };
    let count = tcp.iter().filter(here).count();
    let listed: Vec<String> = ports.iter().map(u16::to_string).collect();
    let listed = if listed.is_empty() {
        "no sshd listens".to_owned()
    } else {
        format!("sshd listens on {}", listed.join(", "))
    };
    let seen = format!("{listed}; {count} ssh connection(s) over {}", nic.name());
    let steered = host.plan.listen_port();
    match steered.filter(|port| ports.contains(port) || (*port == SSH_PORT)) {
        Some(port) => {
            let seen = format!(
                "{seen}; UDP {port} would be steered, ssh's own number: TCP stays with the kernel, but a \
                                firewall's rule for the one easily means the other"
            );
            Finding::warn(seen, needed).command("beam serve --listen :443 ...")
        }
        None => {
            let what =
                steered.map_or("UDP to the listener's port".to_owned(), |port| format!("UDP to port {port}"));
            Finding::pass(format!("{seen}: it stays with the kernel, for only {what} is steered"), needed)
        }
    }
}

/// Where the peer's address is, or why not.
fn peer(host: &Host, needed: &str) -> Result<SocketAddr, Box<Finding>> {
    let Some(peer) = &host.plan.peer else { return Err(Box::new(Finding::not_asked("--peer ADDRESS"))) };
    peer.resolve().map_err(|error| {
        let finding = Finding::fail(error.to_string(), needed);
        Box::new(finding.command(format!("getent hosts {}", peer.host)))
    })
}

pub(super) fn route(host: &Host) -> Finding {
    let needed = "a route to the peer, by an interface that beam serves";
    let peer = match peer(host, needed) {
        Ok(peer) => peer.ip(),
        Err(finding) => return *finding,
    };
    let flag = if peer.is_ipv6() { "-6 " } else { "" };
    let by = host.plan.interfaces.first().map_or("IF", String::as_str);
    let way = match look::way(peer) {
        Ok(way) => way,
        Err(error) => {
            return Finding::fail(format!("no route to {peer}: {error}"), needed)
                .command(format!("ip {flag}route add {peer} via ROUTER dev {by}"));
        }
    };
    let name =
        host.link(way.link).map_or_else(|| format!("interface {}", way.link), |link| link.name.clone());
    let via = way.gateway.map_or("directly".to_owned(), |gateway| format!("via {gateway}"));
    let seen = format!("{peer}: {via}, by {name}");
    if way.is_local {
        return Finding::pass(format!("{peer} is this host"), needed);
    }
    if host.plan.interfaces.is_empty() || serves(host, way.link) {
        return Finding::pass(seen, needed);
    }
    let seen = format!("{seen}, which beam doesn't serve: packets to it are sent by the kernel");
    Finding::warn(seen, needed).command(format!("beam serve -i {name} ..."))
}

/// Whether the interface, or the one that it stands on, was named.
fn serves(host: &Host, index: u32) -> bool {
    /// A VLAN in a VLAN.
    const DEPTH_MAX: usize = 3;
    let mut link = host.link(index);
    for _ in 0..DEPTH_MAX {
        let Some(known) = link else { return false };
        if host.plan.interfaces.contains(&known.name) {
            return true;
        }
        link = known.below.and_then(|below| host.link(below));
    }
    false
}

pub(super) fn neighbour(host: &Host) -> Finding {
    let needed = "a neighbour that answers: the peer, or the router towards it";
    let peer = match peer(host, needed) {
        Ok(peer) => peer,
        Err(finding) => return *finding,
    };
    let Ok(way) = look::way(peer.ip()) else { return Finding::skip("not asked: see route", needed) };
    let link = host.link(way.link);
    if way.is_local || link.is_none_or(|link| !link.is_ethernet) {
        return Finding::not_applicable("the way to the peer has no neighbours");
    }
    let hop = way.gateway.unwrap_or(peer.ip());
    let name = link.map_or("?", |link| link.name.as_str());
    match asked(way.link, hop, peer) {
        Ok(Some(true)) => Finding::pass(format!("{hop} is known on {name}"), needed),
        Ok(answer) => {
            let how = if answer.is_some() { "doesn't answer" } else { "hasn't answered yet" };
            let kind = if hop.is_ipv6() { "neighbour discovery" } else { "ARP" };
            Finding::fail(format!("{hop} {how} to {kind} on {name}"), needed)
                .command(format!("ping -c 3 -I {name} {hop}   # is it there?"))
                .command(format!(
                    "ip neigh replace {hop} lladdr MAC dev {name}   # if it is, and keeps silent"
                ))
        }
        Err(error) => Finding::not_seen(error, needed),
    }
}

/// What the kernel knows of the neighbour; where nothing, it is made to ask, by an empty datagram to the peer.
fn asked(link: u32, hop: IpAddr, peer: SocketAddr) -> std::io::Result<Option<bool>> {
    if let Some(true) = look::neighbour(link, hop)? {
        return Ok(Some(true));
    }
    let any: IpAddr =
        if peer.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    // A neighbour that just failed is told here, too; its state says so anyway.
    let _ = socket.send_to(&[], peer);
    let began = Instant::now();
    while began.elapsed() < NEIGHBOUR_PATIENCE {
        thread::sleep(NEIGHBOUR_INTERVAL);
        match look::neighbour(link, hop)? {
            None => {}
            answer => return Ok(answer),
        }
    }
    Ok(None)
}
