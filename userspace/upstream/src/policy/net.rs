//! An IP network, and the IPv4 address that some IPv6 addresses carry inside.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A network in CIDR form. Invariant: no bit beyond `prefix_len` is set; no v4-mapped network (those are IPv4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Net {
    address: IpAddr,
    prefix_len: u8,
}

/// The bits of an address, at the top of 128, and how many there are.
fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

/// `bits` with everything beyond the first `prefix_len` cleared.
fn masked(bits: u128, prefix_len: u8) -> u128 {
    let shift = 128 - u32::from(prefix_len);
    bits.checked_shr(shift).and_then(|high| high.checked_shl(shift)).unwrap_or(0)
}

impl Net {
    /// The network of the first `prefix_len` bits of `address`; `None` if it has fewer bits.
    #[must_use]
    pub fn covering(address: IpAddr, prefix_len: u8) -> Option<Self> {
        let (bits, width) = bits(address);
        let kept = (prefix_len <= width).then(|| masked(bits, prefix_len))?;
        let base = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((kept >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(kept)),
        };
        Some(Self { address: base, prefix_len }.unmapped())
    }

    /// A single address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix_len: bits(address).1 }
    }

    /// For tables written in the source.
    pub(crate) const fn v4(octets: [u8; 4], prefix_len: u8) -> Self {
        let [a, b, c, d] = octets;
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix_len }
    }

    /// For tables written in the source: the first four groups.
    pub(crate) const fn v6(groups: [u16; 4], prefix_len: u8) -> Self {
        let [a, b, c, d] = groups;
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), prefix_len }
    }

    /// For tables written in the source: `::1/128`.
    pub(crate) const fn loopback_v6() -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_len: 128 }
    }

    /// `::ffff:a.b.c.d/n` is the IPv4 network `a.b.c.d/(n-96)`.
    fn unmapped(self) -> Self {
        match self.address {
            IpAddr::V6(v6) if self.prefix_len >= 96 => match v6.to_ipv4_mapped() {
                Some(v4) => Self { address: v4.into(), prefix_len: self.prefix_len - 96 },
                None => self,
            },
            _ => self,
        }
    }

    /// The first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits of it are fixed.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Is `ip` (canonical: not v4-mapped) in this network?
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (wanted, width) = bits(self.address);
        let (seen, seen_width) = bits(ip);
        width == seen_width && masked(seen, self.prefix_len) == wanted
    }

    /// Does this network lie inside `other`, or equal it?
    #[must_use]
    pub fn is_inside(&self, other: &Self) -> bool {
        self.prefix_len >= other.prefix_len && other.contains(self.address)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// 64:ff9b::/96, the well-known NAT64 prefix (RFC 6052).
const NAT64: Net = Net::v6([0x64, 0xff9b, 0, 0], 96);
/// 2002::/16, 6to4 (RFC 3056): the IPv4 address follows the prefix.
const SIX_TO_FOUR: Net = Net::v6([0x2002, 0, 0, 0], 16);
/// ::/96, IPv4-compatible (RFC 4291 section 2.5.5.1, deprecated).
const COMPATIBLE: Net = Net::v6([0, 0, 0, 0], 96);
/// ::ffff:0:0:0/96, IPv4-translated (RFC 2765, obsolete).
const TRANSLATED: Net =
    Net { address: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0)), prefix_len: 96 };

/// The IPv4 host that a packet to this IPv6 address may end up at. v4-mapped addresses are IPv4 already by the time
/// anyone asks. `::` and `::1` are not IPv4-compatible addresses but themselves.
pub(crate) fn embedded_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = ip else { return None };
    let bits = v6.to_bits();
    if SIX_TO_FOUR.contains(ip) {
        return Some(Ipv4Addr::from_bits((bits >> 80) as u32));
    }
    let low_32 = NAT64.contains(ip) || TRANSLATED.contains(ip) || (COMPATIBLE.contains(ip) && bits > 1);
    low_32.then(|| Ipv4Addr::from_bits(bits as u32))
}

#[cfg(test)]
mod tests {
    //! Goal: membership is arithmetic on bits. Method: an oracle that compares bit strings.
    use proptest::prelude::*;

    use super::*;

    fn bit_string(ip: IpAddr) -> String {
        match ip {
            IpAddr::V4(v4) => format!("{:032b}", v4.to_bits()),
            IpAddr::V6(v6) => format!("{:0128b}", v6.to_bits()),
        }
    }

    fn any_ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
            any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits)).to_canonical()),
        ]
    }

    proptest! {
        #[test]
        fn contains_agrees_with_bit_strings(a in any_ip(), b in any_ip(), near in any::<u8>(), len in 0u8..=128) {
            // A neighbour of `a` that differs in one bit, so that matches are not rare.
            let b = match (a, near % 2) {
                (IpAddr::V4(v4), 0) => Ipv4Addr::from_bits(v4.to_bits() ^ (1 << (near % 32))).into(),
                (IpAddr::V6(v6), 0) => Ipv6Addr::from_bits(v6.to_bits() ^ (1 << (near % 128))).into(),
                _ => b,
            };
            let (text_a, text_b) = (bit_string(a), bit_string(b));
            match Net::covering(a, len) {
                None => prop_assert!(a.is_ipv4() && len > 32),
                Some(net) => {
                    let length = usize::from(len);
                    let wanted = text_a.len() == text_b.len() && text_a[..length] == text_b[..length];
                    prop_assert_eq!(net.contains(b), wanted);
                    prop_assert!(net.contains(a) && net.is_inside(&net));
                    prop_assert!(Net::host(a).is_inside(&net));
                }
            }
        }
    }

    #[test]
    fn mapped_networks_are_ipv4() {
        let net = Net::covering("::ffff:10.1.2.3".parse().unwrap(), 104).unwrap();
        assert_eq!(net.to_string(), "10.0.0.0/8");
        assert_eq!(Net::host("::ffff:10.1.2.3".parse().unwrap()).to_string(), "10.1.2.3/32");
    }

    #[test]
    fn embedded_addresses_are_found() {
        let inside = |text: &str| embedded_v4(text.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(inside("64:ff9b::10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(inside("2002:a9fe:a9fe::1").as_deref(), Some("169.254.169.254"));
        assert_eq!(inside("::127.0.0.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(inside("::ffff:0:127.0.0.1").as_deref(), Some("127.0.0.1"));
        for plain in ["::", "::1", "2001:db8::1", "64:ff9b:1::1", "10.0.0.1"] {
            assert_eq!(inside(plain), None, "{plain}");
        }
    }
}
