//! What became of the request: which mode each queue runs in, and every step down with its reason.

use std::fmt;

/// How a queue's packets travel, as the kernel says (never as was asked).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueMode {
    /// XDP in the driver; the NIC uses the UMEM itself.
    NativeZeroCopy,
    /// XDP in the driver; the kernel copies.
    NativeCopy,
    /// XDP in the generic hook; the kernel copies.
    SkbCopy,
}

impl fmt::Display for QueueMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NativeZeroCopy => "native-zerocopy",
            Self::NativeCopy => "native-copy",
            Self::SkbCopy => "skb-copy",
        })
    }
}

/// One step down the ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What didn't work.
    pub tried: &'static str,
    /// What the kernel said about it.
    pub why: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tried, self.why)
    }
}

/// One queue's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueReport {
    /// Index of the queue.
    pub queue: u32,
    /// How it runs.
    pub mode: QueueMode,
    /// What was tried before, in order.
    pub steps: Vec<Step>,
}

/// What the kernel says about the interface's link, live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Up, with carrier.
    Up,
    /// Up, without carrier.
    NoCarrier,
    /// Administratively down.
    Down,
    /// The interface is gone: its ports won't work again.
    Removed,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::NoCarrier => "no-carrier",
            Self::Down => "down",
            Self::Removed => "removed",
        })
    }
}

/// The kernel's own counts for one socket (XDP_STATISTICS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketStatistics {
    /// Dropped for other reasons than those below (too long for a chunk, for one).
    pub rx_dropped: u64,
    /// Fill descriptors that the kernel refused.
    pub rx_invalid_descriptors: u64,
    /// Dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Dropped because the fill ring was empty.
    pub rx_fill_ring_empty: u64,
    /// TX descriptors that the kernel refused.
    pub tx_invalid_descriptors: u64,
    /// Times the kernel looked for TX descriptors and found none.
    pub tx_ring_empty: u64,
}

/// What a host routes by that isn't in its main table, or more than can be mirrored of that: where packets go, only the
/// kernel can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmirrored {
    /// A policy rule; VRFs make one, too.
    Rule {
        /// Or of IPv4.
        is_ipv6: bool,
        /// Its priority, by which `ip rule` knows it.
        priority: u32,
    },
    /// An IPv6 route for packets from some addresses only.
    SourceRoute,
    /// More routes than the mirror holds.
    TooManyRoutes {
        /// So many it holds.
        max: usize,
    },
}

impl Unmirrored {
    /// What an operator can do about it: a sentence with a command.
    #[must_use]
    pub fn mend(&self) -> String {
        match self {
            Self::Rule { is_ipv6, priority } => {
                format!("If nothing needs the rule: ip {}rule del pref {priority}.", family_flag(*is_ipv6))
            }
            Self::SourceRoute => "If nothing needs it, remove it with: ip -6 route del.".to_owned(),
            Self::TooManyRoutes { max } => format!("Have {max} at most; see: ip route show table main."),
        }
    }
}

impl fmt::Display for Unmirrored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { is_ipv6, priority } => {
                write!(f, "policy rule {priority} (see: ip {}rule)", family_flag(*is_ipv6))
            }
            Self::SourceRoute => f.write_str("a route by source address (see: ip -6 route, with `from`)"),
            Self::TooManyRoutes { max } => write!(f, "a main routing table of more than {max} routes"),
        }
    }
}

fn family_flag(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "-6 " } else { "" }
}
