//! Addresses and ports to draw from.

use rand::{RngExt as _, rngs::SmallRng};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The shortest prefix: what is drawn from is no accident.
const LENGTH_MIN: u8 = 8;

/// One address, or a prefix to take random ones from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    address: IpAddr,
    length: u8,
}

impl Net {
    /// The address, or the one that the prefix was written with.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether it is IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether there is one address only.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.host_bits() == 0
    }

    /// An address of it. Of IPv4 prefixes shorter than /31 neither the first nor the last, which are no host's.
    pub fn draw(&self, rng: &mut SmallRng) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let hosts = (1u64 << self.host_bits()) as u32;
                let base =
                    if self.host_bits() == 32 { 0 } else { address.to_bits() & !hosts.wrapping_sub(1) };
                let host = match self.host_bits() {
                    0 => 0,
                    1 => rng.random_range(0..2),
                    _ => rng.random_range(1..hosts - 1),
                };
                IpAddr::V4(Ipv4Addr::from_bits(base | host))
            }
            IpAddr::V6(address) => {
                let mask = 1u128.checked_shl(self.host_bits()).unwrap_or(0).wrapping_sub(1);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !mask | rng.random::<u128>() & mask))
            }
        }
    }

    fn host_bits(&self) -> u32 {
        u32::from(width(self.address) - self.length)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

impl From<IpAddr> for Net {
    fn from(address: IpAddr) -> Self {
        Self { address, length: width(address) }
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| {
            format!("`{text}` is neither an address such as 198.18.0.1 nor a prefix such as 198.18.0.0/24")
        })?;
        let Some(length) = length else { return Ok(address.into()) };
        let most = width(address);
        match length.parse() {
            Ok(length) if (LENGTH_MIN..=most).contains(&length) => Ok(Self { address, length }),
            _ => Err(format!("`{text}`: the prefix length has to be from {LENGTH_MIN} to {most}")),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_single() {
            true => write!(f, "{}", self.address),
            false => write!(f, "{}/{}", self.address, self.length),
        }
    }
}

/// One UDP port, or a range to take random ones from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    low: u16,
    high: u16,
}

impl Ports {
    /// This port only.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { low: port, high: port }
    }

    /// Whether there is one port only.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.low == self.high
    }

    /// A port of it.
    pub fn draw(&self, rng: &mut SmallRng) -> u16 {
        if self.is_single() { self.low } else { rng.random_range(self.low..=self.high) }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        match (low.parse(), high.parse()) {
            (Ok(low), Ok(high)) if 0 < low && low <= high => Ok(Self { low, high }),
            _ => Err(format!("`{text}` is neither a port such as 443 nor a range such as 1024-65534")),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_single() {
            true => write!(f, "{}", self.low),
            false => write!(f, "{}-{}", self.low, self.high),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what is drawn lies inside, reaches both ends, and is no network's own address; nonsense is refused.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use rand::SeedableRng as _;
    use std::collections::BTreeSet;

    fn drawn(text: &str) -> BTreeSet<IpAddr> {
        let net: Net = text.parse().unwrap();
        let mut rng = SmallRng::seed_from_u64(7);
        (0..2000).map(|_| net.draw(&mut rng)).collect()
    }

    fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_are_of_the_prefix() {
        assert_eq!(drawn("198.18.0.9"), addresses(&["198.18.0.9"]));
        assert_eq!(drawn("198.18.0.6/31"), addresses(&["198.18.0.6", "198.18.0.7"]));
        assert_eq!(drawn("198.18.0.9/30"), addresses(&["198.18.0.9", "198.18.0.10"]));
        let all = drawn("198.18.0.9/24");
        assert_eq!(
            (all.len(), all.first(), all.last()),
            (254, Some(&"198.18.0.1".parse().unwrap()), Some(&"198.18.0.254".parse().unwrap()))
        );
        assert_eq!(drawn("2001:db8::99/127"), addresses(&["2001:db8::98", "2001:db8::99"]));
        let prefix = u128::from_be_bytes(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\0");
        assert!(drawn("2001:db8::/32").iter().all(|ip| match ip {
            IpAddr::V6(ip) => ip.to_bits() >> 96 == prefix >> 96,
            IpAddr::V4(_) => false,
        }));
        assert_eq!("198.18.0.9/24".parse::<Net>().unwrap().to_string(), "198.18.0.9/24");
    }

    #[test]
    fn ports_are_of_the_range() {
        let ports: Ports = "9-11".parse().unwrap();
        let mut rng = SmallRng::seed_from_u64(7);
        let all: BTreeSet<u16> = (0..200).map(|_| ports.draw(&mut rng)).collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [9, 10, 11]);
        assert_eq!("443".parse(), Ok(Ports::one(443)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "198.18.0", "198.18.0.0/7", "198.18.0.0/33", "2001:db8::/129", "a/8", "198.18.0.1/"]
        {
            assert!(text.parse::<Net>().is_err(), "{text}");
        }
        for text in ["", "0", "65536", "9-8", "1-", "-"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }
}
