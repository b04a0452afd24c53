//! Addresses and prefixes, as RFC 9484 counts them.

use bytes::BufMut;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An address and how many of its bits count. Invariant: the length is at most 32 or 128, and the other bits are 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpPrefix {
    address: IpAddr,
    len: u8,
}

/// Why a prefix was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpPrefixError {
    /// Not `address` or `address/length`.
    #[error("not a prefix; write an address, or address/length such as 10.1.0.0/16 or 2001:db8::/32")]
    Syntax,
    /// More than 32 or 128.
    #[error("a prefix length of {len}, the most is {max}")]
    TooLong {
        /// What was given.
        len: u32,
        /// What this family has.
        max: u8,
    },
    /// A bit behind the prefix is set.
    #[error("bits are set behind the prefix length; write {0}")]
    HostBits(IpPrefix),
}

impl IpPrefix {
    /// A prefix whose other bits are 0.
    ///
    /// # Errors
    /// [`IpPrefixError`].
    pub fn new(address: IpAddr, len: u8) -> Result<Self, IpPrefixError> {
        let max = bits(address);
        if len > max {
            return Err(IpPrefixError::TooLong { len: len.into(), max });
        }
        let masked = Self { address: first_of(address, len), len };
        if masked.address == address { Ok(masked) } else { Err(IpPrefixError::HostBits(masked)) }
    }

    /// One address alone.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { address, len: bits(address) }
    }

    /// The first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits count.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.len
    }

    /// The last address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        let free = !mask(self.address, self.len);
        match self.address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | free as u32).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | free).into(),
        }
    }

    /// True for one address alone.
    #[must_use]
    pub fn is_host(self) -> bool {
        self.len == bits(self.address)
    }

    /// True for an address inside; never for one of the other family.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && first_of(address, self.len) == self.address
    }

    /// Version, address, length: the tail of RFC 9484's Assigned and Requested Address.
    pub(crate) fn encode(self, out: &mut impl BufMut) {
        write_address(out, self.address);
        out.put_u8(self.len);
    }

    pub(crate) fn take(bytes: &mut &[u8]) -> Result<Self, &'static str> {
        let version = take_version(bytes)?;
        let address = take_address(bytes, version)?;
        let (&len, rest) = bytes.split_first().ok_or("it ends before a prefix length")?;
        *bytes = rest;
        Self::new(address, len).map_err(|error| match error {
            IpPrefixError::HostBits(_) => "bits are set behind a prefix length",
            _ => "a prefix length above that of the address",
        })
    }
}

/// 32 or 128.
pub(crate) fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits that count, at the low end for IPv4.
fn mask(address: IpAddr, len: u8) -> u128 {
    let free_bits = u32::from(bits(address).saturating_sub(len));
    u128::MAX.checked_shl(free_bits).unwrap_or(0)
}

fn first_of(address: IpAddr, len: u8) -> IpAddr {
    let mask = mask(address, len);
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & mask as u32).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & mask).into(),
    }
}

/// The IP Version field and the address.
pub(crate) fn write_address(out: &mut impl BufMut, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            out.put_u8(4);
            out.put_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.put_u8(6);
            out.put_slice(&v6.octets());
        }
    }
}

/// "It MUST be either 4 or 6."
pub(crate) fn take_version(bytes: &mut &[u8]) -> Result<u8, &'static str> {
    let (&version, rest) = bytes.split_first().ok_or("it ends before an IP version")?;
    *bytes = rest;
    if matches!(version, 4 | 6) { Ok(version) } else { Err("an IP version other than 4 and 6") }
}

pub(crate) fn take_address(bytes: &mut &[u8], version: u8) -> Result<IpAddr, &'static str> {
    const CUT: &str = "it ends in the middle of an address";
    if version == 4 {
        let (octets, rest) = bytes.split_first_chunk::<4>().ok_or(CUT)?;
        *bytes = rest;
        Ok(IpAddr::from(*octets))
    } else {
        let (octets, rest) = bytes.split_first_chunk::<16>().ok_or(CUT)?;
        *bytes = rest;
        Ok(IpAddr::from(*octets))
    }
}

impl FromStr for IpPrefix {
    type Err = IpPrefixError;

    fn from_str(text: &str) -> Result<Self, IpPrefixError> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| IpPrefixError::Syntax)?;
        let Some(len) = len else { return Ok(Self::host(address)) };
        let is_number = (1..=3).contains(&len.len()) && len.bytes().all(|byte| byte.is_ascii_digit());
        let len: u32 = len.parse().ok().filter(|_| is_number).ok_or(IpPrefixError::Syntax)?;
        let too_long = IpPrefixError::TooLong { len, max: bits(address) };
        Self::new(address, u8::try_from(len).map_err(|_| too_long)?)
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl fmt::Debug for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_a_prefix_and_what_is_not() {
        for (text, printed) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("198.18.0.1", "198.18.0.1/32"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::1/128", "::1/128"),
        ] {
            assert_eq!(text.parse::<IpPrefix>().unwrap().to_string(), printed);
        }
        let syntax = IpPrefixError::Syntax;
        for (text, error) in [
            ("", syntax),
            ("10.1/16", syntax),
            ("10.1.0.0/", syntax),
            ("10.1.0.0/+8", syntax),
            ("10.1.0.0/0016", syntax),
            ("10.1.0.0/16/1", syntax),
            ("fe80::%eth0/64", syntax),
            ("example.com/8", syntax),
            ("10.1.0.0/33", IpPrefixError::TooLong { len: 33, max: 32 }),
            ("::/129", IpPrefixError::TooLong { len: 129, max: 128 }),
            ("::/999", IpPrefixError::TooLong { len: 999, max: 128 }),
            ("10.1.0.1/16", IpPrefixError::HostBits("10.1.0.0/16".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<IpPrefix>(), Err(error), "{text}");
        }
    }

    proptest! {
        /// Against bits compared one by one.
        #[test]
        fn an_address_is_inside_when_the_bits_that_count_agree(
            raw in any::<u128>(), other in any::<u128>(), flip in 0u32..128, len in 0u8..=128, v4 in any::<bool>()
        ) {
            let address = |raw: u128| -> IpAddr {
                if v4 { Ipv4Addr::from_bits(raw as u32).into() } else { Ipv6Addr::from_bits(raw).into() }
            };
            let width = if v4 { 32 } else { 128 };
            let len = len % (width + 1);
            let prefix = IpPrefix { address: first_of(address(raw), len), len };
            prop_assert_eq!(IpPrefix::new(prefix.address, len), Ok(prefix));
            prop_assert!(prefix.contains(address(raw)) && prefix.contains(prefix.last()));
            for candidate in [other, raw ^ (1 << (flip % u32::from(width)))] {
                let agree = (0..len).all(|bit| (raw ^ candidate) >> (width - 1 - bit) & 1 == 0);
                prop_assert_eq!(prefix.contains(address(candidate)), agree);
                prop_assert!(!agree || (prefix.address..=prefix.last()).contains(&address(candidate)));
            }
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }
}
