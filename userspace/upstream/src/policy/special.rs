//! Ranges that no general rule opens: the IANA special-purpose registries, multicast, and where clouds serve metadata.
//!
//! Left out are the registry's globally reachable service prefixes (AS112, AMT): they are ordinary destinations.
//! 2001::/23 is taken whole, its few global assignments included; a rule can name them.

use std::{fmt, net::IpAddr};

use super::net::Net;

/// What a special-purpose range is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// This very host.
    Loopback,
    /// The unspecified address and "this network".
    Unspecified,
    /// Private networks (RFC 1918) and unique local addresses (RFC 4193).
    Private,
    /// Shared address space behind carrier-grade NAT (RFC 6598).
    Shared,
    /// Link-local, and the site-local addresses that preceded ULA.
    LinkLocal,
    /// Where a cloud serves its machines' credentials.
    Metadata,
    /// Documentation prefixes.
    Documentation,
    /// Benchmarking (RFC 2544).
    Benchmarking,
    /// Multicast.
    Multicast,
    /// Limited broadcast.
    Broadcast,
    /// Reserved, or for the protocols' own use.
    Reserved,
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::Unspecified => "unspecified",
            Self::Private => "private",
            Self::Shared => "shared (carrier-grade NAT)",
            Self::LinkLocal => "link-local",
            Self::Metadata => "cloud metadata",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
        })
    }
}

/// A range inside another comes first: the narrowest one decides, so that `--allow 169.254.0.0/16` does not open the
/// metadata service, only `--allow 169.254.169.254` does.
const RANGES: [(Net, Special); 42] = [
    // AWS, Azure, GCP, Oracle, DigitalOcean, Hetzner and more; the second is AWS's ECS agent.
    (Net::v4([169, 254, 169, 254], 32), Special::Metadata),
    (Net::v4([169, 254, 170, 2], 32), Special::Metadata),
    // Alibaba.
    (Net::v4([100, 100, 100, 200], 32), Special::Metadata),
    // Oracle's classic.
    (Net::v4([192, 0, 0, 192], 32), Special::Metadata),
    // Azure's WireServer: a public address in name only.
    (Net::v4([168, 63, 129, 16], 32), Special::Metadata),
    (Net::v4([255, 255, 255, 255], 32), Special::Broadcast),
    (Net::v4([0, 0, 0, 0], 8), Special::Unspecified),
    (Net::v4([10, 0, 0, 0], 8), Special::Private),
    (Net::v4([100, 64, 0, 0], 10), Special::Shared),
    (Net::v4([127, 0, 0, 0], 8), Special::Loopback),
    (Net::v4([169, 254, 0, 0], 16), Special::LinkLocal),
    (Net::v4([172, 16, 0, 0], 12), Special::Private),
    (Net::v4([192, 0, 0, 0], 24), Special::Reserved),
    (Net::v4([192, 0, 2, 0], 24), Special::Documentation),
    (Net::v4([192, 88, 99, 0], 24), Special::Reserved),
    (Net::v4([192, 168, 0, 0], 16), Special::Private),
    (Net::v4([198, 18, 0, 0], 15), Special::Benchmarking),
    (Net::v4([198, 51, 100, 0], 24), Special::Documentation),
    (Net::v4([203, 0, 113, 0], 24), Special::Documentation),
    (Net::v4([224, 0, 0, 0], 4), Special::Multicast),
    (Net::v4([240, 0, 0, 0], 4), Special::Reserved),
    // AWS's and GCP's metadata over IPv6: whole /64s, as nothing else lives there.
    (Net::v6([0xfd00, 0x0ec2, 0, 0], 64), Special::Metadata),
    (Net::v6([0xfd20, 0x00ce, 0, 0], 64), Special::Metadata),
    (Net::loopback_v6(), Special::Loopback),
    (Net::v6([0, 0, 0, 0], 128), Special::Unspecified),
    // What is left of ::/8: mapped, compatible and translated forms are judged by the IPv4 address inside first.
    (Net::v6([0, 0, 0, 0], 8), Special::Reserved),
    (Net::v6([0x100, 0, 0, 0], 64), Special::Reserved),
    (Net::v6([0x100, 0, 0, 1], 64), Special::Reserved),
    (Net::v6([0x2001, 0xdb8, 0, 0], 32), Special::Documentation),
    (Net::v6([0x2001, 2, 0, 0], 48), Special::Benchmarking),
    (Net::v6([0x2001, 0, 0, 0], 23), Special::Reserved),
    (Net::v6([0x3fff, 0, 0, 0], 20), Special::Documentation),
    (Net::v6([0x3ffe, 0, 0, 0], 16), Special::Reserved),
    (Net::v6([0x5f00, 0, 0, 0], 16), Special::Reserved),
    (Net::v6([0xfc00, 0, 0, 0], 7), Special::Private),
    (Net::v6([0xfe80, 0, 0, 0], 10), Special::LinkLocal),
    (Net::v6([0xfec0, 0, 0, 0], 10), Special::LinkLocal),
    (Net::v6([0xff00, 0, 0, 0], 8), Special::Multicast),
    // Outside 2000::/3 nothing is allocated: neither end of the space is a destination.
    (Net::v6([0x4000, 0, 0, 0], 2), Special::Reserved),
    (Net::v6([0x8000, 0, 0, 0], 2), Special::Reserved),
    (Net::v6([0xc000, 0, 0, 0], 2), Special::Reserved),
    (Net::v6([0, 0, 0, 0], 3), Special::Reserved),
];

/// The narrowest special range that `ip` (canonical) lies in.
pub(crate) fn range_of(ip: IpAddr) -> Option<(Net, Special)> {
    RANGES.iter().find(|(net, _)| net.contains(ip)).copied()
}

#[cfg(test)]
mod tests {
    //! Goal: the table is well-formed and complete. Method: check its order, and the edges of every range.
    use super::*;

    #[test]
    fn an_inner_range_precedes_the_outer_one() {
        for (i, (outer, _)) in RANGES.iter().enumerate() {
            assert_eq!(range_of(outer.address()).map(|(net, _)| net.is_inside(outer)), Some(true), "{outer}");
            for (inner, _) in &RANGES[i + 1..] {
                assert!(!inner.is_inside(outer), "{inner} is hidden by {outer}");
            }
        }
    }

    #[test]
    fn addresses_just_inside_and_just_outside() {
        for (ip, wanted) in [
            ("0.0.0.0", Some(Special::Unspecified)),
            ("0.255.255.255", Some(Special::Unspecified)),
            ("1.0.0.0", None),
            ("9.255.255.255", None),
            ("10.0.0.0", Some(Special::Private)),
            ("10.255.255.255", Some(Special::Private)),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.64.0.0", Some(Special::Shared)),
            ("100.100.100.200", Some(Special::Metadata)),
            ("100.127.255.255", Some(Special::Shared)),
            ("100.128.0.0", None),
            ("126.255.255.255", None),
            ("127.255.255.255", Some(Special::Loopback)),
            ("128.0.0.0", None),
            ("168.63.129.16", Some(Special::Metadata)),
            ("168.63.129.17", None),
            ("169.253.255.255", None),
            ("169.254.169.254", Some(Special::Metadata)),
            ("169.254.169.253", Some(Special::LinkLocal)),
            ("169.255.0.0", None),
            ("172.15.255.255", None),
            ("172.31.255.255", Some(Special::Private)),
            ("172.32.0.0", None),
            ("192.0.0.1", Some(Special::Reserved)),
            ("192.0.1.0", None),
            ("192.0.2.255", Some(Special::Documentation)),
            ("192.88.99.1", Some(Special::Reserved)),
            ("192.167.255.255", None),
            ("192.168.255.255", Some(Special::Private)),
            ("192.169.0.0", None),
            ("198.17.255.255", None),
            ("198.19.255.255", Some(Special::Benchmarking)),
            ("198.20.0.0", None),
            ("198.51.100.1", Some(Special::Documentation)),
            ("203.0.113.1", Some(Special::Documentation)),
            ("223.255.255.255", None),
            ("239.255.255.255", Some(Special::Multicast)),
            ("240.0.0.0", Some(Special::Reserved)),
            ("255.255.255.254", Some(Special::Reserved)),
            ("255.255.255.255", Some(Special::Broadcast)),
            ("::", Some(Special::Unspecified)),
            ("::1", Some(Special::Loopback)),
            ("64:ff9b:1::1", Some(Special::Reserved)),
            ("100::1", Some(Special::Reserved)),
            ("2001::1", Some(Special::Reserved)),
            ("2001:1ff:ffff::", Some(Special::Reserved)),
            ("2001:200::", None),
            ("2001:2::1", Some(Special::Benchmarking)),
            ("2001:db8::1", Some(Special::Documentation)),
            ("2001:db9::", None),
            ("2606:4700::1111", None),
            ("3fff::1", Some(Special::Documentation)),
            ("4000::1", Some(Special::Reserved)),
            ("5f00::1", Some(Special::Reserved)),
            ("fc00::1", Some(Special::Private)),
            ("fd00:ec2::254", Some(Special::Metadata)),
            ("fd20:ce::254", Some(Special::Metadata)),
            ("fdff:ffff::1", Some(Special::Private)),
            ("fe80::1", Some(Special::LinkLocal)),
            ("fec0::1", Some(Special::LinkLocal)),
            ("ff02::1", Some(Special::Multicast)),
        ] {
            assert_eq!(range_of(ip.parse().unwrap()).map(|(_, special)| special), wanted, "{ip}");
        }
    }
}
