//! A gateway's silence that begins at this host's own link: nobody there has the address.

use crate::{cli::ConnectArgs, failure::Failure};
use anyhow::anyhow;
use std::net::{IpAddr, ToSocketAddrs};
use xsk::look;

/// What `worker::client` says of a gateway that doesn't answer.
const SILENCE: &str = "no answer within";

/// Adds to a failure by silence that the next hop is unknown, if it is. Route netlink alone is asked, which a confined
/// process may do.
pub(super) fn explained(outcome: Result<(), Failure>, args: &ConnectArgs) -> Result<(), Failure> {
    let Err(Failure::Runtime(error)) = outcome else { return outcome };
    let is_silence = error.to_string().contains(SILENCE);
    let unknown = is_silence.then(|| unknown_hop(args)).flatten();
    Err(Failure::Runtime(match unknown {
        None => error,
        Some(hop) => anyhow!(
            "{error}\n  no neighbour has {hop}: a host on the link must answer for it (ARP, neighbour discovery); see: \
             ip neighbour show {hop}"
        ),
    }))
}

/// The next hop, where the kernel has no link-layer address of it.
fn unknown_hop(args: &ConnectArgs) -> Option<IpAddr> {
    let url = &args.gateway.url;
    let gateway = (url.host.as_str(), url.port).to_socket_addrs().ok()?.next()?.ip();
    let way = look::way(gateway).ok().filter(|way| !way.is_local)?;
    let hop = way.gateway.unwrap_or(gateway);
    let is_unknown = match look::neighbour(way.link, hop).ok()? {
        Some(known) => !known,
        // It is asking just now; or it is a link without neighbours, which AF_XDP has no use for.
        None => !args.path.interfaces.is_empty(),
    };
    is_unknown.then_some(hop)
}
