//! ROUTE_ADVERTISEMENT (RFC 9484 section 4.7.3).

use crate::{
    CapsuleError, IpPrefix, capsule,
    ip_prefix::{self, take_address, take_version, write_address},
};
use bytes::BufMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ranges in one capsule: 256 of IPv6 are 8,704 bytes.
pub const RANGE_COUNT_MAX: usize = 256;
/// The protocol of a range that is open to all of them.
pub const ANY_PROTOCOL: u8 = 0;

/// Addresses from one to another, both included. Invariant: of one family, the first not above the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpRange {
    start: IpAddr,
    end: IpAddr,
    protocol: u8,
}

impl IpRange {
    /// A range; `None` when it breaks the invariant.
    #[must_use]
    pub fn new(start: IpAddr, end: IpAddr, protocol: u8) -> Option<Self> {
        let is_range = start.is_ipv4() == end.is_ipv4() && start <= end;
        is_range.then_some(Self { start, end, protocol })
    }

    /// All of a prefix.
    #[must_use]
    pub fn of(prefix: IpPrefix, protocol: u8) -> Self {
        Self { start: prefix.address(), end: prefix.last(), protocol }
    }

    /// The first address.
    #[must_use]
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// The last address.
    #[must_use]
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// The IP protocol, [`ANY_PROTOCOL`] for all; ICMP is allowed in any case.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// True for an address inside; never for one of the other family.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && (self.start..=self.end).contains(&address)
    }

    /// The fewest prefixes that make up the range, in order: what a routing table takes. At most 254, for IPv6.
    #[must_use]
    pub fn prefixes(&self) -> Vec<IpPrefix> {
        let (mut at, last) = (number(self.start), number(self.end));
        let width = u32::from(ip_prefix::bits(self.start));
        let mut out = Vec::new();
        loop {
            // The largest block that starts here: its alignment, and what is left. All of IPv6 leaves 2^128.
            let left_bits = (last - at).checked_add(1).map_or(128, u128::ilog2);
            let free_bits = at.trailing_zeros().min(width).min(left_bits);
            let Ok(prefix) = IpPrefix::new(self.address(at), (width - free_bits) as u8) else { return out };
            out.push(prefix);
            let block_last = number(prefix.last());
            if block_last >= last {
                return out;
            }
            at = block_last + 1;
        }
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.start {
            IpAddr::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
        }
    }

    /// What the ranges of a capsule are ordered by, first.
    fn group(&self) -> (bool, u8) {
        (self.start.is_ipv6(), self.protocol)
    }

    fn encode(&self, out: &mut impl BufMut) {
        write_address(out, self.start);
        match self.end {
            IpAddr::V4(end) => out.put_slice(&end.octets()),
            IpAddr::V6(end) => out.put_slice(&end.octets()),
        }
        out.put_u8(self.protocol);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, &'static str> {
        let version = take_version(bytes)?;
        let start = take_address(bytes, version)?;
        let end = take_address(bytes, version)?;
        let (&protocol, rest) = bytes.split_first().ok_or("it ends before an IP protocol")?;
        *bytes = rest;
        Self::new(start, end, protocol).ok_or("a range that ends before it starts")
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// "The full list of address ranges" that the sender routes to; it replaces the one before. Invariant: at most
/// [`RANGE_COUNT_MAX`], ordered by version, protocol and address; ranges for one protocol do not overlap each other nor
/// those for all protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteAdvertisement {
    ranges: Vec<IpRange>,
}

impl RouteAdvertisement {
    /// Ranges that are in order.
    ///
    /// # Errors
    /// [`CapsuleError`], when the invariant does not hold.
    pub fn new(ranges: Vec<IpRange>) -> Result<Self, CapsuleError> {
        check_count(ranges.len())?;
        for pair in ranges.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            if a.group() > b.group() {
                return Err(CapsuleError::Malformed("routes that are not ordered by version and protocol"));
            }
            if a.group() == b.group() && a.end >= b.start {
                return Err(CapsuleError::Malformed("routes that overlap or are not ordered by address"));
            }
        }
        let routes = Self { ranges };
        if routes.ranges.iter().any(|range| routes.is_open_twice(range)) {
            return Err(CapsuleError::Malformed("a route for one protocol inside one for all protocols"));
        }
        Ok(routes)
    }

    /// The routes to all of these prefixes, for all protocols: sorted, with overlaps and neighbours merged.
    ///
    /// # Errors
    /// [`CapsuleError::TooMany`].
    pub fn covering(prefixes: impl IntoIterator<Item = IpPrefix>) -> Result<Self, CapsuleError> {
        let mut ranges: Vec<IpRange> =
            prefixes.into_iter().map(|prefix| IpRange::of(prefix, ANY_PROTOCOL)).collect();
        ranges.sort_unstable_by_key(|range| (range.group(), range.start, range.end));
        ranges.dedup_by(|next, kept| {
            let touches =
                kept.group() == next.group() && number(next.start) <= number(kept.end).saturating_add(1);
            if touches {
                kept.end = kept.end.max(next.end);
            }
            touches
        });
        Self::new(ranges)
    }

    /// The ranges, in order.
    #[must_use]
    pub fn ranges(&self) -> &[IpRange] {
        &self.ranges
    }

    /// A range for one protocol, some of which is open to all of them. Those for all come first and do not overlap, so
    /// the last that starts at or before the end of `range` decides.
    fn is_open_twice(&self, range: &IpRange) -> bool {
        let group = (range.start.is_ipv6(), ANY_PROTOCOL);
        if range.group() == group {
            return false;
        }
        let after = self.ranges.partition_point(|open| (open.group(), open.start) <= (group, range.end));
        let open = after.checked_sub(1).and_then(|at| self.ranges.get(at));
        open.is_some_and(|open| open.group() == group && open.end >= range.start)
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        self.ranges.iter().for_each(|range| range.encode(out));
    }

    pub(crate) fn decode(mut payload: &[u8]) -> Result<Self, CapsuleError> {
        let mut ranges = Vec::new();
        while !payload.is_empty() {
            check_count(ranges.len() + 1)?;
            ranges.push(IpRange::take(&mut payload).map_err(CapsuleError::Malformed)?);
        }
        Self::new(ranges)
    }
}

fn check_count(count: usize) -> Result<(), CapsuleError> {
    if count <= RANGE_COUNT_MAX {
        Ok(())
    } else {
        Err(CapsuleError::TooMany { kind: capsule::ROUTE_ADVERTISEMENT, limit_count: RANGE_COUNT_MAX })
    }
}
