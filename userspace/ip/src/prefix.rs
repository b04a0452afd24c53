//! Prefixes of addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// `ADDRESS/LENGTH`. Invariant: the bits behind the length are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Neither `ADDRESS` nor `ADDRESS/LENGTH`.
    #[error("`{0}` is not ADDRESS/LENGTH (10.1.0.0/16, 2001:db8::/32)")]
    Form(String),
    /// Longer than the address.
    #[error("`{0}`: the length is at most {1}")]
    Length(String, u8),
    /// Bits behind the prefix are set.
    #[error("`{0}` has bits set behind its length; did you mean {1}?")]
    HostBits(String, Prefix),
}

impl Prefix {
    /// The prefix of an address; `None` where it has fewer bits than `length`.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let bits = bits_of(address);
        (length <= bits)
            .then(|| Self { address: from_number(address, number(address) & mask(bits, length)), length })
    }

    /// One address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { address, length: bits_of(address) }
    }

    /// Its first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.address
    }

    /// Its last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        let bits = bits_of(self.address);
        let all = mask(bits, bits);
        from_number(self.address, number(self.address) | (all & !mask(bits, self.length)))
    }

    /// Leading bits that are fixed.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether it is about IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether an address is in it.
    #[must_use]
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = bits_of(self.address);
        self.is_ipv4() == address.is_ipv4()
            && (number(address) ^ number(self.address)) & mask(bits, self.length) == 0
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.contains(other.address)
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Address number `offset` of it, counted from the first; `None` if it has fewer.
    #[must_use]
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        let address = from_number(self.address, number(self.address).checked_add(offset)?);
        self.contains(address).then_some(address)
    }

    /// Which address of it this is; `None` if it isn't one.
    #[must_use]
    pub fn offset_of(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - number(self.address))
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let form = || PrefixError::Form(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let bits = bits_of(address);
        let length = length.map_or(Ok(bits), |length| length.parse::<u8>().map_err(|_| form()))?;
        let prefix = Self::new(address, length).ok_or_else(|| PrefixError::Length(text.to_owned(), bits))?;
        if prefix.address != address {
            return Err(PrefixError::HostBits(text.to_owned(), prefix));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// `number` as an address of the family of `like`; more bits than it has are cut off.
fn from_number(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

/// The first `length` of `bits` bits.
fn mask(bits: u8, length: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(bits));
    all & !all.checked_shr(length.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    //! Goal: prefixes are read, printed and compared as everybody does.
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn text() {
        for text in ["10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32", "::/0", "198.18.64.7/32", "::1/128"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("10.0.0.1"), Prefix::host("10.0.0.1".parse().unwrap()));
        assert_eq!(
            "10.1.2.3/16".parse::<Prefix>(),
            Err(PrefixError::HostBits("10.1.2.3/16".into(), prefix("10.1.0.0/16")))
        );
        assert!(matches!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Length(_, 32))));
        for text in ["", "/", "10.0.0.0/", "10.0.0/8", "example.com/8", "10.0.0.0/-1"] {
            assert!(matches!(text.parse::<Prefix>(), Err(PrefixError::Form(_))), "{text}");
        }
    }

    #[test]
    fn membership() {
        let net = prefix("198.18.64.0/24");
        assert!(net.contains("198.18.64.255".parse().unwrap()));
        assert!(!net.contains("198.18.65.0".parse().unwrap()));
        assert!(!net.contains("::ffff:198.18.64.1".parse().unwrap()));
        assert!(prefix("0.0.0.0/0").contains("255.255.255.255".parse().unwrap()));
        assert!(!prefix("0.0.0.0/0").contains("::".parse().unwrap()));
        assert!(prefix("10.0.0.0/8").covers(&prefix("10.1.0.0/16")));
        assert!(prefix("10.1.0.0/16").overlaps(&prefix("10.0.0.0/8")));
        assert!(!prefix("10.1.0.0/16").overlaps(&prefix("10.2.0.0/16")));
        assert_eq!(net.nth(2), Some("198.18.64.2".parse().unwrap()));
        assert_eq!(net.nth(256), None);
        assert_eq!(net.offset_of("198.18.64.9".parse().unwrap()), Some(9));
        assert_eq!(
            prefix("::/0").last(),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse::<IpAddr>().unwrap()
        );
    }
}
