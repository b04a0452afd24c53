//! A gateway's silence that begins at this host's own link: nobody there has the address.

use crate::{cli::GatewayUrl, failure::Failure};
use anyhow::anyhow;
use std::net::{IpAddr, ToSocketAddrs};
use xsk::look;

/// What `worker::client` says of a gateway that doesn't answer.
const SILENCE: &str = "no answer within";

/// Adds to a failure by silence that the next hop is unknown, if it is.
pub(super) fn explained(outcome: Result<(), Failure>, url: &GatewayUrl) -> Result<(), Failure> {
    let Err(Failure::Runtime(error)) = outcome else { return outcome };
    let is_silence = error.to_string().contains(SILENCE);
    let unknown = is_silence.then(|| unknown_hop(url)).flatten();
    Err(Failure::Runtime(match unknown {
        None => error,
        Some((hop, link)) => anyhow!(
            "{error}\n  no neighbour on {link} has {hop}: a host there must answer for it (ARP, neighbour discovery); see: \
             ip neighbour show {hop}"
        ),
    }))
}

/// Address and interface of the next hop, where the kernel has no link-layer address of it.
fn unknown_hop(url: &GatewayUrl) -> Option<(IpAddr, String)> {
    let gateway = (url.host.as_str(), url.port).to_socket_addrs().ok()?.next()?.ip();
    let way = look::way(gateway).ok().filter(|way| !way.is_local)?;
    let hop = way.gateway.unwrap_or(gateway);
    // On other links there is nothing to know.
    let link = look::links().ok()?.into_iter().find(|link| link.index == way.link && link.is_ethernet)?;
    let is_known = look::neighbour(way.link, hop).ok()? == Some(true);
    (!is_known).then_some((hop, link.name))
}
