//! Headers per path, cached by a worker.

use crate::{
    generation::Cache,
    mirror::{Tables, Used},
};
use port::Path;
use std::net::IpAddr;
use wire::encap::{Link, Template};

/// What Linux sends with (`net.ipv4.ip_default_ttl`, `hop_limit`).
const HOP_LIMIT: u8 = 64;
/// The length of an IP header without options.
const fn ip_header_bytes(ip: IpAddr) -> usize {
    match ip {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// The headers by path.
pub(crate) type Templates = Cache<Path, Entry>;

/// How to send on one path.
pub(crate) struct Entry {
    pub(crate) template: Template,
    /// Largest UDP payload that the link's MTU lets through.
    pub(crate) payload_bytes_max: usize,
    used: Used,
}

impl Entry {
    /// Marks the neighbour as used.
    #[inline]
    pub(crate) fn mark_used(&self) {
        self.used.mark();
    }
}

/// How to send on one path; none where the kernel has to.
#[cold]
pub(crate) fn resolve(tables: &Tables, interface: u32, path: &Path) -> Option<Entry> {
    let hop = tables.resolve(interface, &path.local, &path.remote)?;
    let link = Link { src_mac: hop.src_mac, dst_mac: hop.dst_mac, vlans: hop.vlans };
    let headers_bytes = ip_header_bytes(path.remote.ip()) + 8;
    Some(Entry {
        template: Template::new(&link, path, HOP_LIMIT)?,
        payload_bytes_max: (hop.mtu as usize).saturating_sub(headers_bytes),
        used: hop.used,
    })
}
