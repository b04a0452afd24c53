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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: &str, end: &str, protocol: u8) -> IpRange {
        IpRange::new(start.parse().unwrap(), end.parse().unwrap(), protocol).unwrap()
    }

    fn malformed(ranges: &[IpRange]) -> bool {
        let mut out = Vec::new();
        ranges.iter().for_each(|range| range.encode(&mut out));
        let decoded = RouteAdvertisement::decode(&out);
        assert_eq!(decoded, RouteAdvertisement::new(ranges.to_vec()), "receiver and sender keep one rule");
        matches!(decoded, Err(CapsuleError::Malformed(_)))
    }

    /// The layout of RFC 9484 figure 12, byte by byte.
    #[test]
    fn the_layout() {
        let mut out = Vec::new();
        range("10.0.0.0", "10.0.0.9", 17).encode(&mut out);
        assert_eq!(out, [4, 10, 0, 0, 0, 10, 0, 0, 9, 17]);
        let routes = RouteAdvertisement::decode(&out).unwrap();
        assert_eq!(routes.ranges(), [range("10.0.0.0", "10.0.0.9", 17)]);
        assert_eq!(RouteAdvertisement::decode(&[]), Ok(RouteAdvertisement::default()));
        for (payload, what) in [
            (&[5, 10, 0, 0, 0, 10, 0, 0, 9, 17][..], "version 5"),
            (&[4, 10, 0, 0, 9, 10, 0, 0, 8, 17], "it ends before it starts"),
            (&[4, 10, 0, 0, 0, 10, 0, 0, 9], "no protocol"),
        ] {
            let decoded = RouteAdvertisement::decode(payload);
            assert!(matches!(decoded, Err(CapsuleError::Malformed(_))), "{what}: {decoded:?}");
        }
    }

    /// RFC 9484 section 4.7.3, for A before B: "The IP Version of A MUST be less than or equal to the IP Version of B";
    /// "the IP Protocol of A MUST be less than or equal to the IP Protocol of B"; "the End IP Address of A MUST be
    /// strictly less than the Start IP Address of B".
    #[test]
    fn each_rule_of_order_broken() {
        let a = range("10.0.0.0", "10.0.0.255", 6);
        assert!(!malformed(&[a, range("10.0.1.0", "10.0.1.0", 6)]));
        assert!(!malformed(&[a, range("9.0.0.0", "9.0.0.0", 17)]), "addresses count within a protocol only");
        assert!(!malformed(&[a, range("::", "::", 1)]), "protocols count within a version only");
        assert!(!malformed(&[a, range("10.0.0.0", "10.0.0.255", 17)]), "two protocols may share addresses");
        assert!(malformed(&[range("::", "::", 6), a]), "version");
        assert!(malformed(&[range("9.0.0.0", "9.0.0.0", 17), a]), "protocol");
        assert!(malformed(&[a, range("10.0.0.255", "10.0.1.0", 6)]), "they share an address");
        assert!(malformed(&[a, a]), "twice the same");
        assert!(malformed(&[range("10.0.1.0", "10.0.1.0", 6), a]), "addresses");
    }

    /// "Endpoints MUST NOT send a ROUTE_ADVERTISEMENT capsule with routes that overlap in such a way" (section 4.7.3): one
    /// for all protocols and one for a single one.
    #[test]
    fn a_route_inside_one_for_all_protocols() {
        let all = [range("10.0.0.0", "10.0.0.9", 0), range("10.0.0.20", "10.0.0.29", 0)];
        for (start, end, is_inside) in [
            ("9.0.0.0", "9.255.255.255", false),
            ("9.0.0.0", "10.0.0.0", true),
            ("10.0.0.9", "10.0.0.9", true),
            ("10.0.0.10", "10.0.0.19", false),
            ("10.0.0.10", "10.0.0.20", true),
            ("10.0.0.0", "10.0.0.255", true),
            ("10.0.0.30", "10.0.0.255", false),
        ] {
            assert_eq!(malformed(&[all[0], all[1], range(start, end, 6)]), is_inside, "{start} to {end}");
        }
        assert!(!malformed(&[all[0], range("::", "::1", 6)]), "the other family's do not matter");
        assert!(malformed(&[all[0], range("::", "::1", 0), range("::1", "::2", 6)]));
    }

    #[test]
    fn the_bound_on_ranges() {
        let hosts = |count: u32| (0..count).map(|i| IpPrefix::host(Ipv4Addr::from_bits(i * 2).into()));
        assert_eq!(RouteAdvertisement::covering(hosts(256)).unwrap().ranges().len(), 256);
        let error = RouteAdvertisement::covering(hosts(257)).unwrap_err();
        assert_eq!(error, CapsuleError::TooMany { kind: 3, limit_count: 256 });
        let encoded: Vec<u8> = (0..257u16)
            .flat_map(|i| {
                [
                    [4, 10, 0],
                    [i.to_be_bytes()[0], i.to_be_bytes()[1], 10],
                    [0, i.to_be_bytes()[0], i.to_be_bytes()[1]],
                ]
                .concat()
                .into_iter()
                .chain([0])
            })
            .collect();
        assert_eq!(RouteAdvertisement::decode(&encoded), Err(error));
    }

    #[test]
    fn covering_merges_what_overlaps_or_touches() {
        let prefixes = [
            "10.1.0.0/16",
            "10.0.0.0/16",
            "10.0.5.0/24",
            "198.18.0.0/15",
            "::/0",
            "2001:db8::/32",
            "0.0.0.0/8",
        ];
        let routes = RouteAdvertisement::covering(prefixes.iter().map(|text| text.parse().unwrap())).unwrap();
        let all: IpAddr = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        assert_eq!(
            routes.ranges(),
            [
                range("0.0.0.0", "0.255.255.255", 0),
                range("10.0.0.0", "10.1.255.255", 0),
                range("198.18.0.0", "198.19.255.255", 0),
                range("::", &all.to_string(), 0)
            ]
        );
        assert_eq!(routes.ranges()[3].prefixes(), ["::/0".parse().unwrap()]);
    }

    proptest! {
        /// The prefixes of a range follow each other without a gap from its start to its end, and no two neighbours
        /// would fit into one prefix.
        #[test]
        fn the_prefixes_of_a_range_are_the_fewest_that_make_it_up(
            a in any::<u128>(), b in any::<u128>(), shift in 0u32..128, v4 in any::<bool>()
        ) {
            let address = |raw: u128| -> IpAddr {
                if v4 { Ipv4Addr::from_bits(raw as u32).into() } else { Ipv6Addr::from_bits(raw).into() }
            };
            let (a, b) = (address(a >> shift), address(b >> shift));
            let range = IpRange::new(a.min(b), a.max(b), 0).unwrap();
            let prefixes = range.prefixes();
            prop_assert!(prefixes.len() <= 254);
            prop_assert_eq!(prefixes.first().map(|first| first.address()), Some(range.start));
            prop_assert_eq!(prefixes.last().map(|last| last.last()), Some(range.end));
            for pair in prefixes.windows(2) {
                prop_assert_eq!(number(pair[0].last()) + 1, number(pair[1].address()));
                let is_pair = pair[0].prefix_len() == pair[1].prefix_len();
                let parent = pair[0].prefix_len().checked_sub(1);
                let fits = parent.is_some_and(|len| {
                    IpPrefix::new(pair[0].address(), len).is_ok_and(|parent| parent.contains(pair[1].last()))
                });
                prop_assert!(!(is_pair && fits));
            }
        }

        #[test]
        fn covering_covers_those_addresses_and_no_others(
            raw in proptest::collection::vec((any::<u8>(), 24u8..=32), 0..12), probe in any::<u8>()
        ) {
            let prefixes: Vec<IpPrefix> = raw
                .iter()
                .map(|&(last, len)| {
                    let masked = u32::from(last) & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                    IpPrefix::new(Ipv4Addr::new(10, 0, 0, masked as u8).into(), len).unwrap()
                })
                .collect();
            let routes = RouteAdvertisement::covering(prefixes.clone()).unwrap();
            let probe: IpAddr = Ipv4Addr::new(10, 0, 0, probe).into();
            let is_in = prefixes.iter().any(|prefix| prefix.contains(probe));
            prop_assert_eq!(routes.ranges().iter().any(|range| range.contains(probe)), is_in);
            let from_ranges: Vec<_> = routes.ranges().iter().flat_map(IpRange::prefixes).collect();
            prop_assert_eq!(RouteAdvertisement::covering(from_ranges), Ok(routes));
        }
    }
}
