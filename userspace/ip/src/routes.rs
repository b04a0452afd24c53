//! Which client a destination belongs to: prefixes, each with its owner.
//!
//! Two clients never own overlapping prefixes (the second is refused), so the longest match is the only match, and a
//! sorted map of ranges answers in one look-up.

use crate::prefix::{Prefix, number};
use std::{collections::BTreeMap, net::IpAddr};

/// Prefixes in one table: a gateway's clients with some sites behind them.
pub const ROUTES_MAX: usize = 1 << 18;

/// Why a route was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Some of its addresses belong to somebody already.
    #[error("{wanted} overlaps {existing}, which is taken")]
    Overlap {
        /// The route that was asked for.
        wanted: Prefix,
        /// The one that is there.
        existing: Prefix,
    },
    /// The table is full.
    #[error("the table holds {ROUTES_MAX} routes already")]
    Full,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Table<T> {
    v4: BTreeMap<u128, (Prefix, T)>,
    v6: BTreeMap<u128, (Prefix, T)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { v4: BTreeMap::new(), v6: BTreeMap::new() }
    }
}

impl<T> Table<T> {
    /// Adds a route.
    ///
    /// # Errors
    /// If it overlaps another, or the table is full. The table is then as before.
    pub fn insert(&mut self, prefix: Prefix, owner: T) -> Result<(), RouteError> {
        if let Some(existing) = self.overlapping(&prefix) {
            return Err(RouteError::Overlap { wanted: prefix, existing });
        }
        if self.len() >= ROUTES_MAX {
            return Err(RouteError::Full);
        }
        self.family_mut(prefix.is_ipv4()).insert(number(prefix.first()), (prefix, owner));
        Ok(())
    }

    /// Takes a route out.
    pub fn remove(&mut self, prefix: &Prefix) -> Option<T> {
        let family = self.family_mut(prefix.is_ipv4());
        let key = number(prefix.first());
        if family.get(&key).is_none_or(|(existing, _)| existing != prefix) {
            return None;
        }
        family.remove(&key).map(|(_, owner)| owner)
    }

    /// Who owns an address.
    #[must_use]
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<&T> {
        let (_, (prefix, owner)) = self.family(address.is_ipv4()).range(..=number(address)).next_back()?;
        prefix.contains(address).then_some(owner)
    }

    /// A route that shares addresses with `prefix`.
    #[must_use]
    pub fn overlapping(&self, prefix: &Prefix) -> Option<Prefix> {
        let family = self.family(prefix.is_ipv4());
        // The last that begins in it or before it: if that one doesn't reach into it, none does.
        let (_, (candidate, _)) = family.range(..=number(prefix.last())).next_back()?;
        candidate.overlaps(prefix).then_some(*candidate)
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every route, IPv4 first, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&Prefix, &T)> {
        self.v4.values().chain(self.v6.values()).map(|(prefix, owner)| (prefix, owner))
    }

    fn family(&self, is_ipv4: bool) -> &BTreeMap<u128, (Prefix, T)> {
        if is_ipv4 { &self.v4 } else { &self.v6 }
    }

    fn family_mut(&mut self, is_ipv4: bool) -> &mut BTreeMap<u128, (Prefix, T)> {
        if is_ipv4 { &mut self.v4 } else { &mut self.v6 }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what was added is found, and nothing else; overlaps are refused from either side. Oracle: a list.
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn overlaps_are_refused() {
        let mut table = Table::default();
        table.insert(prefix("10.1.0.0/16"), 'a').unwrap();
        table.insert(prefix("10.2.0.0/16"), 'b').unwrap();
        table.insert(prefix("::/0"), 'c').unwrap();
        for (wanted, existing) in
            [("10.1.2.0/24", "10.1.0.0/16"), ("10.0.0.0/8", "10.2.0.0/16"), ("2001:db8::/32", "::/0")]
        {
            let (wanted, existing) = (prefix(wanted), prefix(existing));
            assert_eq!(table.insert(wanted, 'x'), Err(RouteError::Overlap { wanted, existing }));
        }
        assert_eq!(table.remove(&prefix("10.1.0.0/17")), None);
        assert_eq!(table.remove(&prefix("10.1.0.0/16")), Some('a'));
        table.insert(prefix("10.1.2.0/24"), 'd').unwrap();
        assert_eq!(table.lookup("10.1.2.3".parse().unwrap()), Some(&'d'));
        assert_eq!(table.lookup("10.1.3.3".parse().unwrap()), None);
        assert_eq!(table.lookup("ff::".parse().unwrap()), Some(&'c'));
    }

    proptest! {
        #[test]
        fn as_a_list_would_say(adds in prop::collection::vec((0_u32..256, 24_u8..=32), 1..60), probe in 0_u32..256) {
            let mut table = Table::default();
            let mut list: Vec<Prefix> = Vec::new();
            for (low, length) in adds {
                let prefix = Prefix::new(std::net::Ipv4Addr::from_bits(low << 3).into(), length).unwrap();
                let clash = list.iter().any(|other| other.overlaps(&prefix));
                prop_assert_eq!(table.insert(prefix, prefix).is_err(), clash);
                if !clash {
                    list.push(prefix);
                }
            }
            let address = std::net::Ipv4Addr::from_bits(probe << 3 | 1).into();
            let wanted = list.iter().find(|prefix| prefix.contains(address));
            prop_assert_eq!(table.lookup(address), wanted);
        }
    }
}
