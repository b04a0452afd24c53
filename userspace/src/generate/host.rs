//! What whoever sends made-up frames asks this host: an interface, an address of it. Also for `beam bench rfc2544`.

use crate::failure::Failure;
use anyhow::anyhow;
use std::net::IpAddr;
use wire::datagram::Mac;
use xsk::{
    OpenError,
    look::{self, Link},
};

/// An Ethernet interface that is up, by its name; `flag` is the one that named it.
pub(crate) fn link(flag: &str, interface: &str) -> Result<Link, Failure> {
    let links =
        look::links().map_err(|error| Failure::Preflight(anyhow!("asking for interfaces: {error}")))?;
    let names: Vec<String> = links.iter().map(|link| link.name.clone()).collect();
    let link = links.into_iter().find(|link| link.name == interface).ok_or_else(|| {
        Failure::Preflight(anyhow!(
            "{flag} {interface}: there is no such interface; there are: {}",
            names.join(", ")
        ))
    })?;
    if !link.is_ethernet {
        return Err(Failure::Preflight(anyhow!(
            "{flag} {interface}: not Ethernet; choose another interface"
        )));
    }
    if !link.up {
        return Err(Failure::Preflight(anyhow!(
            "{flag} {interface}: it is down, and has to be up: ip link set dev {interface} up"
        )));
    }
    Ok(link)
}

/// An address of the interface that others can answer to; `flag` is the one that would name another.
pub(crate) fn own_address(flag: &str, link: &Link, ipv6: bool) -> Result<IpAddr, Failure> {
    let addresses = look::addresses(link.index)
        .map_err(|error| Failure::Preflight(anyhow!("asking for addresses: {error}")))?;
    let fits = |address: &IpAddr| match address {
        IpAddr::V4(_) => !ipv6,
        IpAddr::V6(ip) => ipv6 && !ip.is_unicast_link_local(),
    };
    addresses.into_iter().find(fits).ok_or_else(|| {
        let (name, version) = (&link.name, if ipv6 { 6 } else { 4 });
        Failure::Preflight(anyhow!("{name} has no IPv{version} address; give one with {flag}"))
    })
}

pub(crate) fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Why a queue can't be sent on.
pub(crate) fn refused(error: OpenError, interface: &str) -> Failure {
    match error {
        OpenError::QueueBusy { queue, waited_ms, .. } => Failure::Preflight(anyhow!(
            "queue {queue} of {interface} is still in use by another AF_XDP socket after {waited_ms} ms, as a running beam's are: \
             a queue has one. Send from another interface or another queue, or stop that program (who: ss --xdp -p)"
        )),
        OpenError::Config { .. } => Failure::config(error),
        error => Failure::preflight(error),
    }
}
