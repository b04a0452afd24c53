//! The addresses that a gateway lends to its clients.
//!
//! A pool is some networks of each family. Of each network the first address behind the network's own is the gateway's;
//! the others are lent one at a time. A client gets the address that it had last, by its name, as long as nobody else
//! has it: addresses that somebody is known to come back to are lent last.

use crate::prefix::Prefix;
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    net::IpAddr,
};

/// Addresses of one network that are lent at most; a larger network is used from its beginning.
const LENT_MAX: u128 = 1 << 18;
/// Clients of one network whose last address is remembered; the one that left first is forgotten.
const REMEMBERED_MAX: usize = 1 << 14;
/// Offset of the gateway's own address.
const GATEWAY: u128 = 1;
/// Offset of the first address that is lent.
const FIRST: u128 = 2;

/// Why prefixes make no pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Not enough addresses for the gateway and one client.
    #[error("{0} has no address to lend: a pool needs a /30 (IPv4), a /126 (IPv6) or more")]
    Small(Prefix),
    /// Two networks share addresses.
    #[error("{0} and {1} overlap: each pool needs a network of its own")]
    Overlap(Prefix, Prefix),
}

/// Why there is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// The pool has no network of this family.
    #[error("the pool has no addresses of this family")]
    NoFamily,
    /// All are lent.
    #[error("all addresses of the pool are lent")]
    Exhausted,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Pool {
    networks: Vec<Network>,
}

#[derive(Debug)]
struct Network {
    prefix: Prefix,
    /// One more than the last offset that is lent.
    end: u128,
    lent: HashSet<u128>,
    /// Given back and remembered by nobody.
    free: BTreeSet<u128>,
    /// The first that was never lent nor asked for.
    untouched: u128,
    remembered: HashMap<String, u128>,
    /// The same by offset.
    owners: HashMap<u128, String>,
    /// Names in the order in which they were remembered.
    order: VecDeque<String>,
}

impl Pool {
    /// # Errors
    /// If a prefix is too small, or overlaps another.
    pub fn new(prefixes: &[Prefix]) -> Result<Self, PoolError> {
        for (index, prefix) in prefixes.iter().enumerate() {
            if let Some(other) = prefixes.iter().take(index).find(|other| other.overlaps(prefix)) {
                return Err(PoolError::Overlap(*other, *prefix));
            }
        }
        let networks = prefixes.iter().map(|&prefix| Network::new(prefix)).collect::<Result<_, _>>()?;
        Ok(Self { networks })
    }

    /// Its networks.
    pub fn networks(&self) -> impl Iterator<Item = Prefix> {
        self.networks.iter().map(|network| network.prefix)
    }

    /// The gateway's own addresses, one in each network, with the network's length.
    pub fn gateway_addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        self.networks
            .iter()
            .filter_map(|network| Some((network.prefix.nth(GATEWAY)?, network.prefix.length())))
    }

    /// Lends an address of a family to the client `name`: the one it wishes for if that may be had, else the one it had
    /// last, else any.
    ///
    /// # Errors
    /// If there is none.
    pub fn lend(&mut self, name: &str, is_ipv4: bool, wish: Option<IpAddr>) -> Result<IpAddr, NoAddress> {
        let mut failure = NoAddress::NoFamily;
        // First what fits, in whichever network; then anything.
        for choice in [Choice::Wished, Choice::Last, Choice::Any] {
            for network in self.networks.iter_mut().filter(|network| network.prefix.is_ipv4() == is_ipv4) {
                failure = NoAddress::Exhausted;
                if let Some(address) = network.lend(name, wish, choice) {
                    return Ok(address);
                }
            }
        }
        Err(failure)
    }

    /// Takes an address back. False: it wasn't lent.
    pub fn give_back(&mut self, address: IpAddr) -> bool {
        self.networks.iter_mut().any(|network| network.give_back(address))
    }

    /// Whether an address of any family is free.
    #[must_use]
    pub fn has_free(&self) -> bool {
        self.networks.iter().any(|network| (network.lent.len() as u128) < network.end - FIRST)
    }

    /// How many addresses are lent.
    #[must_use]
    pub fn lent_count(&self) -> usize {
        self.networks.iter().map(|network| network.lent.len()).sum()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Wished,
    Last,
    Any,
}

impl Network {
    fn new(prefix: Prefix) -> Result<Self, PoolError> {
        let last = prefix.offset_of(prefix.last()).unwrap_or(0);
        // The last one of an IPv4 network is its broadcast address.
        let end = if prefix.is_ipv4() { last } else { last.saturating_add(1) };
        if end <= FIRST {
            return Err(PoolError::Small(prefix));
        }
        Ok(Self {
            prefix,
            end: end.min(FIRST + LENT_MAX),
            lent: HashSet::new(),
            free: BTreeSet::new(),
            untouched: FIRST,
            remembered: HashMap::new(),
            owners: HashMap::new(),
            order: VecDeque::new(),
        })
    }

    fn lend(&mut self, name: &str, wish: Option<IpAddr>, choice: Choice) -> Option<IpAddr> {
        let offset = match choice {
            Choice::Wished => wish.and_then(|address| self.wished(name, address))?,
            Choice::Last => *self.remembered.get(name).filter(|offset| !self.lent.contains(offset))?,
            Choice::Any => self.any()?,
        };
        let address = self.prefix.nth(offset)?;
        self.free.remove(&offset);
        self.lent.insert(offset);
        self.remember(name, offset);
        Some(address)
    }

    /// The offset of an address, if it may be lent to `name`.
    fn wished(&self, name: &str, address: IpAddr) -> Option<u128> {
        let offset = self.prefix.offset_of(address).filter(|offset| (FIRST..self.end).contains(offset))?;
        let others = self.owners.get(&offset).is_some_and(|owner| owner != name);
        (!others && !self.lent.contains(&offset)).then_some(offset)
    }

    fn any(&mut self) -> Option<u128> {
        if let Some(&offset) = self.free.first() {
            return Some(offset);
        }
        // A wish may have taken some ahead of their turn.
        while self.untouched < self.end {
            let offset = self.untouched;
            self.untouched += 1;
            if !self.lent.contains(&offset) && !self.owners.contains_key(&offset) {
                return Some(offset);
            }
        }
        // Only those are left that somebody may come back to.
        let idle =
            |name: &&String| self.remembered.get(*name).is_some_and(|offset| !self.lent.contains(offset));
        self.order.iter().find(idle).and_then(|name| self.remembered.get(name)).copied()
    }

    fn give_back(&mut self, address: IpAddr) -> bool {
        let Some(offset) = self.prefix.offset_of(address) else { return false };
        let was_lent = self.lent.remove(&offset);
        if was_lent && !self.owners.contains_key(&offset) {
            self.free.insert(offset);
        }
        was_lent
    }

    /// Notes whose address this is from now on.
    fn remember(&mut self, name: &str, offset: u128) {
        if let Some(owner) = self.owners.remove(&offset) {
            self.remembered.remove(&owner);
        }
        self.forget(name);
        self.order.retain(|known| self.remembered.contains_key(known));
        if self.order.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.forget(&oldest);
        }
        self.remembered.insert(name.to_owned(), offset);
        self.owners.insert(offset, name.to_owned());
        self.order.push_back(name.to_owned());
    }

    fn forget(&mut self, name: &str) {
        if let Some(offset) = self.remembered.remove(name) {
            self.owners.remove(&offset);
            if !self.lent.contains(&offset) {
                self.free.insert(offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: no address is lent twice; a client that comes back gets its own; an exhausted pool says so.
    use super::*;
    use proptest::prelude::*;

    fn pool(prefixes: &[&str]) -> Pool {
        let prefixes: Vec<Prefix> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        Pool::new(&prefixes).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_proved() {
        let net = |text: &str| text.parse::<Prefix>().unwrap();
        assert_eq!(Pool::new(&[net("10.0.0.0/31")]).unwrap_err(), PoolError::Small(net("10.0.0.0/31")));
        assert_eq!(Pool::new(&[net("2001:db8::/127")]).unwrap_err(), PoolError::Small(net("2001:db8::/127")));
        let overlap = Pool::new(&[net("10.0.0.0/24"), net("10.0.0.0/8")]).unwrap_err();
        assert_eq!(overlap, PoolError::Overlap(net("10.0.0.0/24"), net("10.0.0.0/8")));
        let gateway: Vec<_> = pool(&["198.18.64.0/24", "2001:db8:64::/64"]).gateway_addresses().collect();
        assert_eq!(gateway, [(address("198.18.64.1"), 24), (address("2001:db8:64::1"), 64)]);
    }

    #[test]
    fn a_small_network_is_exhausted() {
        let mut pool = pool(&["10.0.0.0/29"]);
        let lent: Vec<_> = (0..5).map(|n| pool.lend(&format!("c{n}"), true, None).unwrap()).collect();
        assert_eq!(lent.first(), Some(&address("10.0.0.2")));
        assert_eq!(lent.last(), Some(&address("10.0.0.6")), "the broadcast address is not lent");
        assert_eq!(pool.lend("late", true, None), Err(NoAddress::Exhausted));
        assert_eq!(pool.lend("late", false, None), Err(NoAddress::NoFamily));
        assert!(pool.give_back(lent[3]));
        assert!(!pool.give_back(lent[3]));
        assert_eq!(pool.lend("late", true, None), Ok(lent[3]));
    }

    #[test]
    fn who_comes_back_gets_the_same() {
        let mut pool = pool(&["10.0.0.0/29", "2001:db8::/64"]);
        let alice = pool.lend("alice", true, None).unwrap();
        let bob = pool.lend("bob", true, None).unwrap();
        pool.give_back(alice);
        let carol = pool.lend("carol", true, None).unwrap();
        assert_ne!(carol, alice, "an address that somebody may come back to is lent last");
        assert_eq!(pool.lend("carol", true, Some(alice)).unwrap(), address("10.0.0.5"), "it is alice's");
        assert_eq!(pool.lend("alice", true, None), Ok(alice));
        pool.give_back(bob);
        assert_eq!(pool.lend("bob", true, Some(bob)), Ok(bob));
        assert_eq!(pool.lend("dave", true, None), Ok(address("10.0.0.6")));
        pool.give_back(alice);
        assert_eq!(pool.lend("erin", true, None), Ok(alice), "but it is lent when nothing else is left");
        assert_eq!(pool.lend("alice", true, None), Err(NoAddress::Exhausted));
        assert_eq!(pool.lend("alice", false, Some(address("2001:db8::77"))), Ok(address("2001:db8::77")));
    }

    proptest! {
        #[test]
        fn nothing_is_lent_twice(steps in prop::collection::vec((0_u8..12, any::<bool>(), 0_u8..16), 1..200)) {
            let mut pool = pool(&["10.0.0.0/28"]);
            let mut held: Vec<IpAddr> = Vec::new();
            for (name, lend, wish) in steps {
                if lend {
                    let wish = IpAddr::from([10, 0, 0, wish]);
                    match pool.lend(&name.to_string(), true, Some(wish)) {
                        Ok(address) => {
                            prop_assert!(!held.contains(&address), "{} twice", address);
                            held.push(address);
                        }
                        Err(_) => prop_assert_eq!(held.len(), 13),
                    }
                } else if !held.is_empty() {
                    let address = held.swap_remove(usize::from(wish) % held.len());
                    prop_assert!(pool.give_back(address));
                }
                prop_assert_eq!(pool.lent_count(), held.len());
            }
        }
    }
}
