//! The networks behind the two ends of a tunnel: TUN devices and LANs, made from flags before the workers start.

use crate::{
    cli::{ConnectArgs, PathArgs, ServeArgs},
    failure::Failure,
    interface,
    worker::{
        IpConfig,
        ip::{Granted, Ground, Lan, LanGround, Network, Realm, advertisement},
        mail::Mailbox,
    },
};
use anyhow::anyhow;
use ip::Prefix;
use masque::RANGE_COUNT_MAX;
use std::{fs, net::ToSocketAddrs as _, sync::Arc};
use tun::Device;
use xsk::LanInterface;

/// The gateway's device takes what the usual networks bring; what a client's tunnel has no room for, its session says.
const GATEWAY_MTU_BYTES: usize = 1500;
/// Packets that wait for a worker, in each queue of the gateway's device.
const GATEWAY_QUEUE_COUNT: usize = 1000;

/// IP at a gateway: what all workers share, and the way to the network for each, the first worker's last.
pub(crate) struct GatewayNet {
    pub(crate) realm: Arc<Realm>,
    pub(crate) networks: Vec<Box<dyn Network>>,
    /// What `--lan` keeps steered.
    pub(crate) lan: Option<LanInterface>,
}

/// The gateway's pool and the networks behind it, from flags alone.
pub(crate) fn realm(args: &ServeArgs) -> Result<Realm, Failure> {
    let realm = Realm::new(&args.ip_pool, &args.ip_route)
        .map_err(|error| Failure::Config(anyhow!("--ip-pool: {error}")))?;
    must_fit("--ip-route", &args.ip_route)?;
    Ok(realm)
}

/// Refuses a client's networks that no session could tell of, or that contain the gateway.
pub(crate) fn check_client(args: &ConnectArgs) -> Result<(), Failure> {
    must_fit("--announce", &args.announce)?;
    // A name is looked up when it is time to connect.
    match args.tun.is_some() && args.gateway.url.host.parse::<std::net::IpAddr>().is_ok() {
        true => refuse_loops(args),
        false => Ok(()),
    }
}

/// Makes the gateway's device or opens its LAN, if it has a pool.
pub(crate) fn gateway(args: &ServeArgs, mailboxes: &[Mailbox]) -> Result<Option<GatewayNet>, Failure> {
    if args.ip_pool.is_empty() {
        return Ok(None);
    }
    let realm = realm(args)?;
    realm.set_mailboxes(mailboxes);
    if !args.deny.is_empty() && !args.ip_route.is_empty() {
        tracing::warn!(
            "--deny doesn't judge IP packets: --ip-route and the users' allow= do; see that no --ip-route contains what --deny keeps away"
        );
    }
    if args.ip_route.is_empty() {
        tracing::warn!("no --ip-route: clients reach nothing by IP packets; give --ip-route CIDR");
    }
    let (networks, lan) = match &args.lan {
        Some(name) => {
            let (interface, networks) = gateway_lan(args, name, &realm, mailboxes)?;
            (networks, Some(interface))
        }
        None => (gateway_tun(args, &realm, mailboxes.len())?, None),
    };
    let pool = args.ip_pool.iter().map(Prefix::to_string).collect::<Vec<_>>().join(", ");
    tracing::info!("{}: lends {pool} to clients", args.lan.as_ref().unwrap_or(&args.tun));
    Ok(Some(GatewayNet { realm: Arc::new(realm), networks, lan }))
}

fn gateway_tun(
    args: &ServeArgs,
    realm: &Realm,
    worker_count: usize,
) -> Result<Vec<Box<dyn Network>>, Failure> {
    let Device { queues, mut network } = Device::create(&args.tun, worker_count)
        .map_err(|error| Failure::Preflight(anyhow!("--tun: {error}")))?;
    let set_up = |network: &mut tun::Network| {
        network.bring_up(GATEWAY_MTU_BYTES, GATEWAY_QUEUE_COUNT)?;
        realm
            .gateway_addresses()
            .iter()
            .try_for_each(|&(address, length)| network.add_address(address, length))
    };
    set_up(&mut network).map_err(|error| Failure::Preflight(anyhow!("--ip-pool: {error}")))?;
    for is_ipv4 in [true, false] {
        if args.ip_pool.iter().any(|prefix| prefix.is_ipv4() == is_ipv4) {
            let_through(&args.tun, is_ipv4);
        }
    }
    realm.set_network(Ground::Tun(network));
    Ok(queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Network>).collect())
}

/// The LAN's queues, shared out among the workers; what it steers are the pool and the networks behind clients.
fn gateway_lan(
    args: &ServeArgs,
    name: &str,
    realm: &Realm,
    mailboxes: &[Mailbox],
) -> Result<(LanInterface, Vec<Box<dyn Network>>), Failure> {
    let (interface, networks) = lan(&args.path, name, mailboxes)?;
    let mut ground = Ground::Lan(LanGround::new(&interface));
    for &prefix in &args.ip_pool {
        ground.add_route(prefix, None).map_err(|error| Failure::Preflight(anyhow!("--lan: {error}")))?;
    }
    realm.set_network(ground);
    Ok((interface, networks))
}

fn lan(
    path: &PathArgs,
    name: &str,
    mailboxes: &[Mailbox],
) -> Result<(LanInterface, Vec<Box<dyn Network>>), Failure> {
    let (interface, queues) = interface::open_lan(path, name)?;
    let lans = Lan::share(queues, mailboxes);
    // They are taken from the end, the first worker's first.
    Ok((interface, lans.into_iter().rev().map(|lan| Box::new(lan) as Box<dyn Network>).collect()))
}

/// Lets the kernel forward what comes out of the device, and says so where it won't forward what is to go in. ICMP errors
/// that a worker makes come out of it from the gateway's own address, which needs `accept_local` for IPv4.
fn let_through(name: &str, is_ipv4: bool) {
    let (family, switch) = match is_ipv4 {
        true => ("ipv4", "net.ipv4.ip_forward"),
        false => ("ipv6", "net.ipv6.conf.all.forwarding"),
    };
    let own: &[&str] = if is_ipv4 { &["forwarding", "accept_local"] } else { &["forwarding"] };
    for key in own {
        // It is gone with the device.
        if let Err(error) = fs::write(format!("/proc/sys/net/{family}/conf/{name}/{key}"), "1") {
            tracing::warn!(
                "can't set net.{family}.conf.{name}.{key}: {error}; sysctl -w net.{family}.conf.{name}.{key}=1"
            );
        }
    }
    let all = fs::read_to_string(format!("/proc/sys/{}", switch.replace('.', "/")));
    if all.is_ok_and(|value| value.trim() == "0") {
        tracing::warn!("the kernel doesn't forward packets to {name}: sysctl -w {switch}=1");
    }
}

/// IP at a client; nothing without `--tun` or `--lan`.
#[derive(Default)]
pub(crate) struct ClientNet {
    pub(crate) config: Option<IpConfig>,
    pub(crate) network: Option<Box<dyn Network>>,
    /// What `--lan` keeps steered.
    pub(crate) lan: Option<LanInterface>,
}

/// Makes the client's device or opens its LAN, if it is asked for.
pub(crate) fn client(args: &ConnectArgs, mailboxes: &[Mailbox]) -> Result<ClientNet, Failure> {
    let config =
        |network| Some(IpConfig { network, routes: args.route.clone(), announce: args.announce.clone() });
    must_fit("--announce", &args.announce)?;
    if let Some(name) = &args.lan {
        let (interface, mut networks) = lan(&args.path, name, mailboxes)?;
        let config = config(granted(Ground::Lan(LanGround::new(&interface))));
        return Ok(ClientNet { config, network: networks.pop(), lan: Some(interface) });
    }
    let Some(name) = &args.tun else { return Ok(ClientNet::default()) };
    refuse_loops(args)?;
    let Device { mut queues, network } =
        Device::create(name, 1).map_err(|error| Failure::Preflight(anyhow!("--tun: {error}")))?;
    let queue = queues.pop().map(|queue| Box::new(queue) as Box<dyn Network>);
    Ok(ClientNet { config: config(granted(Ground::Tun(network))), network: queue, lan: None })
}

fn granted(ground: Ground) -> Granted {
    Granted::new(ground, |error| tracing::error!("{error:#}"))
}

/// The other end hears of all networks at once, in one capsule (RFC 9484 section 4.7.3).
fn must_fit(flag: &str, networks: &[Prefix]) -> Result<(), Failure> {
    if advertisement(networks).is_some() {
        return Ok(());
    }
    Err(Failure::Config(anyhow!(
        "{flag}: {} networks, which lie apart in more than {RANGE_COUNT_MAX} ranges; a session advertises at most so many: give larger networks that contain them",
        networks.len()
    )))
}

/// A route that the tunnel's own packets would take leads nowhere.
fn refuse_loops(args: &ConnectArgs) -> Result<(), Failure> {
    // A name that doesn't resolve yet is looked at again when routes are set.
    let gateway = (args.gateway.url.host.as_str(), args.gateway.url.port).to_socket_addrs();
    for address in gateway.into_iter().flatten().map(|address| address.ip()) {
        if let Some(route) = args.route.iter().find(|route| route.contains(address)) {
            return Err(Failure::Config(anyhow!(
                "--route {route} contains the gateway's own address {address}: the tunnel's packets would go into the tunnel; give routes that leave it out"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Goal: networks that no capsule could tell of are refused at start, by their flag, count and limit.
    use super::*;

    #[test]
    fn networks_must_fit_one_capsule() {
        // Every other /24: none touches its neighbour.
        let apart = |count: u32| -> Vec<Prefix> {
            (0..count).map(|n| format!("10.{}.{}.0/24", n / 128, n % 128 * 2).parse().unwrap()).collect()
        };
        assert!(must_fit("--ip-route", &apart(256)).is_ok());
        let refused = must_fit("--ip-route", &apart(257)).unwrap_err().to_string();
        assert!(refused.contains("--ip-route: 257 networks") && refused.contains("256 ranges"), "{refused}");
        let together: Vec<Prefix> = (0..=255).map(|n| format!("10.0.{n}.0/24").parse().unwrap()).collect();
        assert!(must_fit("--announce", &[&together[..], &apart(0)].concat()).is_ok());
    }
}
