//! The addresses that tunnels come from.

use anyhow::{Context, Result, bail, ensure};
use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

/// An IPv4 prefix, all of whose addresses are this host's: of 127.0.0.0/8, or by `ip route add local PREFIX dev lo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    first: u32,
    count: u32,
}

impl Sources {
    /// The address of tunnel `number`; beyond the prefix they begin anew.
    #[must_use]
    pub fn of(&self, number: u32) -> IpAddr {
        Ipv4Addr::from_bits(self.first + number % self.count).into()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }
}

impl FromStr for Sources {
    type Err = anyhow::Error;

    /// `ADDRESS/LENGTH`. The first and the last address of the prefix are left out, as a network's are.
    fn from_str(text: &str) -> Result<Self> {
        let (address, length) =
            text.split_once('/').context("wanted ADDRESS/LENGTH, such as 127.64.0.0/15")?;
        let address: Ipv4Addr = address.parse().with_context(|| format!("`{address}` is no IPv4 address"))?;
        let length: u32 = length.parse().with_context(|| format!("`{length}` is no prefix length"))?;
        ensure!(length <= 32, "/{length}: a prefix length is at most 32");
        let size = 1_u64 << (32 - length);
        if u64::from(address.to_bits()) % size != 0 {
            bail!("{text}: the address has bits behind the prefix");
        }
        match size {
            1 => Ok(Self { first: address.to_bits(), count: 1 }),
            2 => Ok(Self { first: address.to_bits(), count: 2 }),
            _ => Ok(Self { first: address.to_bits() + 1, count: u32::try_from(size - 2)? }),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every address is in the prefix, and each comes once before one comes twice.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn addresses_fill_the_prefix() {
        let sources: Sources = "198.18.4.0/29".parse().unwrap();
        let all: Vec<String> = (0..7).map(|number| sources.of(number).to_string()).collect();
        assert_eq!(all[..2], ["198.18.4.1", "198.18.4.2"]);
        assert_eq!((sources.count(), &*all[5], &*all[6]), (6, "198.18.4.6", "198.18.4.1"));
        let one: Sources = "198.18.0.9/32".parse().unwrap();
        assert_eq!((one.of(0), one.of(7)), (one.of(3), "198.18.0.9".parse().unwrap()));
        for wrong in ["127.0.0.1", "127.0.0.1/8", "::/64", "10.0.0.0/33", "x/8"] {
            assert!(wrong.parse::<Sources>().is_err(), "{wrong}");
        }
    }
}
