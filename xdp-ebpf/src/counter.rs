//! One counter for each thing that can happen to a frame; together they count every frame exactly once.

use wire::headers::{Malformed, NotOurs};

/// An enum of counters: the index into its per-CPU array, and a name for each.
macro_rules! counters {
    ($(#[$enum_doc:meta])* $Counter:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $Counter {
            $($(#[$doc])* $variant,)*
        }

        impl $Counter {
            /// Every counter, in index order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// Every counter's name, in index order.
            pub const NAMES: &[&str] = &[$($name,)*];
            /// How many there are.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The counter's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The index into the counters' map.
            #[must_use]
            #[inline(always)]
            pub const fn index(self) -> u32 {
                self as u32
            }
        }
    };
}
pub(crate) use counters;

counters! {
/// What happened to a frame: the index into [`crate::maps::COUNTERS`]. By name, `ours_*` are ours, `pass_*` left to the
/// kernel, `drop_*` malformed and dropped.
Counter {
    /// Ours, and handed to the AF_XDP socket of its queue.
    Redirected = "ours_redirected",
    /// Ours, but its queue has no socket: passed to the kernel's UDP socket. The steering leak.
    NoSocket = "ours_no_socket",
    /// Ends before it says who it is for.
    PassShort = "pass_short",
    /// Not IP.
    PassNotIp = "pass_not_ip",
    /// More than two VLAN tags.
    PassVlanDepth = "pass_vlan_depth",
    /// An IP header that can't be read.
    PassIpHeader = "pass_ip_header",
    /// IPv4 options.
    PassIpv4Options = "pass_ipv4_options",
    /// IPv6 extension header.
    PassIpv6Extension = "pass_ipv6_extension",
    /// A fragment: the kernel reassembles it.
    PassFragment = "pass_fragment",
    /// Not UDP.
    PassNotUdp = "pass_not_udp",
    /// UDP to an address and port that aren't ours.
    PassOtherTarget = "pass_other_target",
    /// Ours, but the IP length is larger than the frame.
    DropIpLong = "drop_ip_long",
    /// Ours, but the IP length has no room for a UDP header.
    DropIpShort = "drop_ip_short",
    /// Ours, but the UDP length is larger than the IP payload.
    DropUdpLong = "drop_udp_long",
    /// Ours, but the UDP length is below eight.
    DropUdpShort = "drop_udp_short",
    /// Ours, but the IPv4 header checksum is wrong.
    DropIpChecksum = "drop_ip_checksum",
}
}

impl From<NotOurs> for Counter {
    #[inline(always)]
    fn from(reason: NotOurs) -> Self {
        match reason {
            NotOurs::Short => Self::PassShort,
            NotOurs::NotIp => Self::PassNotIp,
            NotOurs::VlanDepth => Self::PassVlanDepth,
            NotOurs::IpHeader => Self::PassIpHeader,
            NotOurs::Ipv4Options => Self::PassIpv4Options,
            NotOurs::Ipv6Extension => Self::PassIpv6Extension,
            NotOurs::Fragment => Self::PassFragment,
            NotOurs::NotUdp => Self::PassNotUdp,
        }
    }
}

impl From<Malformed> for Counter {
    #[inline(always)]
    fn from(reason: Malformed) -> Self {
        match reason {
            Malformed::IpLong => Self::DropIpLong,
            Malformed::IpShort => Self::DropIpShort,
            Malformed::UdpLong => Self::DropUdpLong,
            Malformed::UdpShort => Self::DropUdpShort,
            Malformed::IpChecksum => Self::DropIpChecksum,
        }
    }
}
