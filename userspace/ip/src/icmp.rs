//! The errors that a router owes the sender of a packet that it can't forward (RFC 792, RFC 1191, RFC 4443), and the
//! bucket that limits them.

use crate::{
    checksum,
    packet::{Fragment, View, protocol},
};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};
use wire::{
    Bytes,
    headers::{IPV4_BYTES, IPV6_BYTES},
};

/// An error of IPv4 quotes so much that it stays within what every host takes (RFC 1812 section 4.3.2.3).
const ERROR_V4_BYTES_MAX: usize = 576;
/// The same for IPv6 (RFC 4443 section 2.4 c).
const ERROR_V6_BYTES_MAX: usize = crate::IPV6_MTU_MIN_BYTES;
const ICMP_BYTES: usize = 8;
/// What a router gives its own packets.
const HOP_LIMIT: u8 = 64;

/// What is wrong with a packet that is well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is larger than the link behind takes, and may not be fragmented.
    TooBig {
        /// What the link takes.
        mtu_bytes: usize,
    },
    /// Its hop limit ran out.
    TimeExceeded,
    /// Nobody has this address.
    NoRoute,
    /// The address may not be reached, or not from this source.
    Prohibited,
}

impl Trouble {
    /// Type, code, and the four bytes behind the checksum, for IPv4.
    fn v4(self) -> (u8, u8, u32) {
        match self {
            Self::TooBig { mtu_bytes } => (3, 4, mtu_bytes.min(usize::from(u16::MAX)) as u32),
            Self::TimeExceeded => (11, 0, 0),
            Self::NoRoute => (3, 1, 0),
            Self::Prohibited => (3, 13, 0),
        }
    }

    /// The same for IPv6.
    fn v6(self) -> (u8, u8, u32) {
        match self {
            // A link of IPv6 carries that much in any case.
            Self::TooBig { mtu_bytes } => (2, 0, mtu_bytes.max(crate::IPV6_MTU_MIN_BYTES) as u32),
            Self::TimeExceeded => (3, 0, 0),
            Self::NoRoute => (1, 0, 0),
            Self::Prohibited => (1, 1, 0),
        }
    }
}

/// The error for `packet`, as a whole IP packet from `from`. `None` where the sender must not get one: the packet is an
/// ICMP error itself, a later fragment, or its source is no single host (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e).
#[must_use]
pub fn error(packet: &[u8], view: &View, from: IpAddr, trouble: Trouble) -> Option<Vec<u8>> {
    if view.fragment == Fragment::Later || view.is_source_special() || is_error(packet, view) {
        return None;
    }
    if view.is_destination_special() {
        return None;
    }
    let packet = packet.get(..view.total_bytes)?;
    match (from, view.source) {
        (IpAddr::V4(_), IpAddr::V4(_)) => Some(error_v4(packet, from, view.source, trouble)),
        (IpAddr::V6(_), IpAddr::V6(_)) => Some(error_v6(packet, from, view.source, trouble)),
        _ => None,
    }
}

/// Whether a packet is an ICMP error, or so cut off that it might be one.
fn is_error(packet: &[u8], view: &View) -> bool {
    let kind: Option<[u8; 1]> = packet.array(view.transport_offset);
    match (view.protocol, kind) {
        (protocol::ICMP, Some([kind])) => !matches!(kind, 0 | 8 | 9 | 10 | 13..=18),
        (protocol::ICMPV6, Some([kind])) => kind < 128,
        (protocol::ICMP | protocol::ICMPV6, None) => true,
        _ => false,
    }
}

fn error_v4(packet: &[u8], from: IpAddr, to: IpAddr, trouble: Trouble) -> Vec<u8> {
    let quoted = packet.len().min(ERROR_V4_BYTES_MAX - IPV4_BYTES - ICMP_BYTES);
    let total_bytes = IPV4_BYTES + ICMP_BYTES + quoted;
    let mut out = Vec::with_capacity(total_bytes);
    // Precedence 6, internetwork control (RFC 1812 section 4.3.2.5).
    out.extend([0x45, 0xc0]);
    out.extend((total_bytes as u16).to_be_bytes());
    out.extend([0, 0, 0x40, 0, HOP_LIMIT, protocol::ICMP, 0, 0]);
    push_address(&mut out, from);
    push_address(&mut out, to);
    checksum::fill_ipv4_header(&mut out);
    push_message(&mut out, trouble.v4(), packet.get(..quoted).unwrap_or_default(), from, to);
    out
}

fn error_v6(packet: &[u8], from: IpAddr, to: IpAddr, trouble: Trouble) -> Vec<u8> {
    let quoted = packet.len().min(ERROR_V6_BYTES_MAX - IPV6_BYTES - ICMP_BYTES);
    let mut out = Vec::with_capacity(IPV6_BYTES + ICMP_BYTES + quoted);
    out.extend([0x60, 0, 0, 0]);
    out.extend(((ICMP_BYTES + quoted) as u16).to_be_bytes());
    out.extend([protocol::ICMPV6, HOP_LIMIT]);
    push_address(&mut out, from);
    push_address(&mut out, to);
    push_message(&mut out, trouble.v6(), packet.get(..quoted).unwrap_or_default(), from, to);
    out
}

fn push_message(
    out: &mut Vec<u8>,
    (kind, code, word): (u8, u8, u32),
    quoted: &[u8],
    from: IpAddr,
    to: IpAddr,
) {
    let start = out.len();
    out.extend([kind, code, 0, 0]);
    out.extend(word.to_be_bytes());
    out.extend_from_slice(quoted);
    if let Some(message) = out.get_mut(start..) {
        checksum::fill_icmp(message, from, to);
    }
}

fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend(address.octets()),
        IpAddr::V6(address) => out.extend(address.octets()),
    }
}

/// How many errors may be sent (RFC 4443 section 2.4 f). "Too big" has a bucket of its own: path MTU discovery must not
/// starve because somebody sends to where nobody is.
#[derive(Clone, Debug)]
pub struct Budget {
    too_big: Tokens,
    others: Tokens,
}

impl Budget {
    /// Each bucket: one each `each`, and `burst_count` at once.
    #[must_use]
    pub fn new(each: Duration, burst_count: u32) -> Self {
        let tokens = Tokens::new(each, burst_count);
        Self { too_big: tokens.clone(), others: tokens }
    }

    /// Takes a token for an error about `trouble`; false if none is there.
    pub fn take(&mut self, trouble: Trouble, now: Instant) -> bool {
        match trouble {
            Trouble::TooBig { .. } => self.too_big.take(now),
            _ => self.others.take(now),
        }
    }
}

/// A token bucket.
#[derive(Clone, Debug)]
pub struct Tokens {
    each: Duration,
    burst_count: u32,
    /// When the bucket will be full.
    full_at: Option<Instant>,
}

impl Tokens {
    /// One each `each`, and `burst_count` at once.
    #[must_use]
    pub fn new(each: Duration, burst_count: u32) -> Self {
        Self { each, burst_count: burst_count.max(1), full_at: None }
    }

    /// When there is one, `now` at the earliest.
    #[must_use]
    pub fn due(&self, now: Instant) -> Instant {
        let lead = self.each.saturating_mul(self.burst_count - 1);
        self.full_at.and_then(|at| at.checked_sub(lead)).map_or(now, |due| due.max(now))
    }

    /// Takes one; false if none is there.
    pub fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.each;
        if full_at > now + self.each.saturating_mul(self.burst_count) {
            return false;
        }
        self.full_at = Some(full_at);
        true
    }
}
