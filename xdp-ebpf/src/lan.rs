//! The LAN's verdict: which frames of a second interface belong into the tunnel, by their destination.
//!
//! ```text
//!  frame ──► verdict ──┬── Tunnel ────► XSKS[rx queue] ──► the LAN port, or the kernel when the queue has none
//!                      ├── Kernel ────► XDP_PASS: ARP, neighbour discovery, ssh, routing protocols, other hosts, ...
//!                      └── Malformed ─► XDP_DROP                       each under exactly one Counter
//! ```
//!
//! The longest prefix decides, as in any router: a prefix is the tunnel's ([`TUNNEL`]) or the kernel's ([`KERNEL`]:
//! this host's own addresses, and subnets that the host knows a better route to). What else the packet carries doesn't
//! matter. A packet whose hop limit is over is the tunnel's too: who forwards it answers it, and the kernel would only
//! if it forwarded such packets itself.

use crate::{counter::counters, maps::PrefixKey};
use wire::{
    Bytes,
    datagram::Mac,
    headers::{Malformed, NotOurs},
    inner::Inner,
};

/// Name of the program in the object.
pub const PROGRAM: &str = "beam_lan";

/// Value of a prefix whose packets go into the tunnel.
pub const TUNNEL: u32 = 1;
/// Value of a prefix whose packets are left to the kernel, within a prefix of the tunnel.
pub const KERNEL: u32 = 0;

counters! {
/// What happened to a frame of the LAN: the index into [`crate::maps::LAN_COUNTERS`]. By name, `lan_tunnel*` belong into
/// the tunnel, `lan_pass_*` are left to the kernel, `lan_drop_*` are malformed and dropped.
Counter {
    /// Handed to the AF_XDP socket of its queue.
    Tunnel = "lan_tunnel",
    /// Belongs into the tunnel, but its queue has no socket: passed to the kernel, which routes it or not.
    NoSocket = "lan_tunnel_no_socket",
    /// Ends before it says who it is for.
    PassShort = "lan_pass_short",
    /// Not IP: ARP above all.
    PassNotIp = "lan_pass_not_ip",
    /// More than two VLAN tags.
    PassVlanDepth = "lan_pass_vlan_depth",
    /// An IP header that can't be read.
    PassIpHeader = "lan_pass_ip_header",
    /// Not to this interface's own MAC address: broadcast, multicast, or a neighbour's.
    PassOtherMac = "lan_pass_other_mac",
    /// To an address that no router forwards to.
    PassScope = "lan_pass_scope",
    /// To an address outside of the tunnel's prefixes.
    PassNotTunnel = "lan_pass_not_tunnel",
    /// To this host itself, or to a subnet that it has a better route to.
    PassKernel = "lan_pass_kernel",
    /// Belongs into the tunnel, but the IP length is larger than the frame.
    DropIpLong = "lan_drop_ip_long",
    /// Belongs into the tunnel, but the IP length has no room for the IP header.
    DropIpShort = "lan_drop_ip_short",
}
}

/// The decision about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Redirect it to the socket of its queue.
    Tunnel,
    /// Pass it to the kernel, untouched, and count it so.
    Kernel(Counter),
    /// Drop it, and count it so.
    Malformed(Counter),
}

/// Decides about a frame. `is_our_mac` says whether a MAC address is the interface's; `lookup` returns the value of the
/// longest prefix that covers an address. Each is asked at most once.
#[inline(always)]
pub fn verdict<B: Bytes + ?Sized>(
    frame: &B,
    is_our_mac: impl FnOnce(&Mac) -> bool,
    lookup: impl FnOnce(&PrefixKey) -> Option<u32>,
) -> Verdict {
    let inner = match Inner::read(frame) {
        Ok(inner) => inner,
        Err(reason) => return Verdict::Kernel(reason.into()),
    };
    if !is_our_mac(&inner.dst_mac) {
        return Verdict::Kernel(Counter::PassOtherMac);
    }
    if !inner.is_forwardable() {
        return Verdict::Kernel(Counter::PassScope);
    }
    match lookup(&PrefixKey::of_packet(inner.version, inner.destination)) {
        Some(TUNNEL) => {}
        Some(_) => return Verdict::Kernel(Counter::PassKernel),
        None => return Verdict::Kernel(Counter::PassNotTunnel),
    }
    match inner.check(frame) {
        Ok(_) => Verdict::Tunnel,
        Err(Malformed::IpLong) => Verdict::Malformed(Counter::DropIpLong),
        Err(_) => Verdict::Malformed(Counter::DropIpShort),
    }
}

impl From<NotOurs> for Counter {
    #[inline(always)]
    fn from(reason: NotOurs) -> Self {
        match reason {
            NotOurs::Short => Self::PassShort,
            NotOurs::NotIp => Self::PassNotIp,
            NotOurs::VlanDepth => Self::PassVlanDepth,
            // What remains is about UDP, and `Inner::read` doesn't say it.
            _ => Self::PassIpHeader,
        }
    }
}
