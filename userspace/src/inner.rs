//! The networks behind the two ends of a tunnel: TUN devices, made from flags before the workers start.

use crate::{
    cli::{ConnectArgs, ServeArgs},
    failure::Failure,
    worker::{TunConfig, ip::Realm},
};
use anyhow::anyhow;
use ip::Prefix;
use std::{fs, net::ToSocketAddrs as _, sync::Arc};
use tun::{Device, Network, Queue};

/// The gateway's device takes what the usual networks bring; what a client's tunnel has no room for, its session says.
const GATEWAY_MTU_BYTES: usize = 1500;
/// Packets that wait for a worker, in each queue of the gateway's device.
const GATEWAY_QUEUE_COUNT: usize = 1000;

/// IP at a gateway: what all workers share, and a queue of the device for each.
pub(crate) struct GatewayNet {
    pub(crate) realm: Arc<Realm>,
    pub(crate) queues: Vec<Queue>,
}

/// Makes the gateway's device, if it has a pool.
pub(crate) fn gateway(args: &ServeArgs, worker_count: usize) -> Result<Option<GatewayNet>, Failure> {
    if args.ip_pool.is_empty() {
        return Ok(None);
    }
    let realm = Realm::new(&args.ip_pool, &args.ip_route)
        .map_err(|error| Failure::Config(anyhow!("--ip-pool: {error}")))?;
    if args.ip_route.is_empty() {
        tracing::warn!("no --ip-route: clients reach nothing by IP packets; give --ip-route CIDR");
    }
    let Device { queues, mut network } = Device::create(&args.tun, worker_count)
        .map_err(|error| Failure::Preflight(anyhow!("--tun: {error}")))?;
    let set_up = |network: &mut Network| {
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
    let pool = args.ip_pool.iter().map(Prefix::to_string).collect::<Vec<_>>().join(", ");
    tracing::info!("{}: lends {pool} to clients", args.tun);
    realm.set_network(network);
    Ok(Some(GatewayNet { realm: Arc::new(realm), queues }))
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

/// Makes the client's device, if `--tun` asks for one.
pub(crate) fn client(args: &ConnectArgs) -> Result<Option<(TunConfig, Queue)>, Failure> {
    let Some(name) = &args.tun else { return Ok(None) };
    refuse_loops(args)?;
    let Device { mut queues, network } =
        Device::create(name, 1).map_err(|error| Failure::Preflight(anyhow!("--tun: {error}")))?;
    let Some(queue) = queues.pop() else { return Ok(None) };
    let config = TunConfig { network, routes: args.route.clone(), announce: args.announce.clone() };
    Ok(Some((config, queue)))
}

/// A route that the tunnel's own packets would take leads nowhere.
fn refuse_loops(args: &ConnectArgs) -> Result<(), Failure> {
    // A name that doesn't resolve yet is looked at again when routes are set.
    let gateway = (args.url.host.as_str(), args.url.port).to_socket_addrs();
    for address in gateway.into_iter().flatten().map(|address| address.ip()) {
        if let Some(route) = args.route.iter().find(|route| route.contains(address)) {
            return Err(Failure::Config(anyhow!(
                "--route {route} contains the gateway's own address {address}: the tunnel's packets would go into the tunnel; give routes that leave it out"
            )));
        }
    }
    Ok(())
}
