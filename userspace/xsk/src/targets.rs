//! Which local addresses are ours: what the operator listens on, wildcards replaced by the host's addresses, written to
//! the TARGETS map. Followed live: an address that comes or goes moves its entries.

use crate::{TargetsError, attach::chain, device::Steering, mirror::Mirror};
use aya::maps::{HashMap, MapData};
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};
use steer::{TargetKey, maps::TARGET_COUNT_MAX};

/// The TARGETS map.
type TargetMap = HashMap<MapData, Key, u32>;

type Key = [u8; steer::maps::TARGET_KEY_BYTES];

/// The map and what it should hold.
pub(crate) struct Targets {
    mirror: Arc<Mirror>,
    inner: Mutex<Inner>,
}

struct Inner {
    map: TargetMap,
    wanted: Vec<SocketAddr>,
    installed: BTreeSet<Key>,
}

impl Targets {
    pub(crate) fn new(map: TargetMap, mirror: Arc<Mirror>) -> Self {
        Self { mirror, inner: Mutex::new(Inner { map, wanted: Vec::new(), installed: BTreeSet::new() }) }
    }

    /// Steers these and nothing else. On error, what was steered before still is.
    pub(crate) fn set(&self, wanted: &[SocketAddr]) -> Result<(), TargetsError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.install(self.keys(wanted)?)?;
        inner.wanted = wanted.to_vec();
        Ok(())
    }

    /// Called under the lock: addresses read before it could be older than those that `follow` has installed.
    fn keys(&self, wanted: &[SocketAddr]) -> Result<BTreeSet<Key>, TargetsError> {
        expand(wanted, self.mirror.tables().addresses.iter().map(|(_, address)| address))
    }
}

impl Steering for Targets {
    fn follow(&self) -> Result<(), TargetsError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys(&inner.wanted)?;
        inner.install(keys)
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Targets")
    }
}

impl Inner {
    /// New ones first, so that no packet of an address that stays is ever missed.
    fn install(&mut self, keys: BTreeSet<Key>) -> Result<(), TargetsError> {
        let stale: Vec<Key> = self.installed.difference(&keys).copied().collect();
        // Only a full map makes room first.
        if self.installed.union(&keys).count() > TARGET_COUNT_MAX as usize {
            self.remove(&stale)?;
        }
        for key in &keys {
            if self.installed.insert(*key)
                && let Err(error) = self.map.insert(key, 0, 0)
            {
                self.installed.remove(key);
                return Err(TargetsError::Map(chain(&error)));
            }
        }
        self.remove(&stale)
    }

    fn remove(&mut self, keys: &[Key]) -> Result<(), TargetsError> {
        for key in keys {
            if self.installed.remove(key) {
                self.map.remove(key).map_err(|error| TargetsError::Map(chain(&error)))?;
            }
        }
        Ok(())
    }
}

/// The keys of `wanted`. `0.0.0.0` stands for all IPv4 addresses of the host, `[::]` for all IPv6 addresses; loopback
/// is left out, because XDP is never attached to it.
fn expand<'a>(
    wanted: &[SocketAddr],
    addresses: impl Iterator<Item = &'a IpAddr>,
) -> Result<BTreeSet<Key>, TargetsError> {
    let addresses: Vec<IpAddr> = addresses.copied().filter(|ip| !ip.is_loopback()).collect();
    let mut keys = BTreeSet::new();
    for target in wanted {
        if !target.ip().is_unspecified() {
            keys.insert(TargetKey::from_socket_addr(target).to_bytes());
            continue;
        }
        let family = addresses.iter().filter(|ip| ip.is_ipv4() == target.is_ipv4());
        keys.extend(
            family.map(|ip| TargetKey::from_socket_addr(&SocketAddr::new(*ip, target.port())).to_bytes()),
        );
    }
    let (seen, max) = (keys.len(), TARGET_COUNT_MAX as usize);
    if seen > max { Err(TargetsError::TooMany { seen, max }) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    //! Goal: wildcards become the host's addresses of their family, once each, and the map's limit is kept.
    use super::*;

    fn keys(wanted: &[&str], addresses: &[&str]) -> Result<usize, TargetsError> {
        let wanted: Vec<SocketAddr> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        expand(&wanted, addresses.iter()).map(|keys| keys.len())
    }

    #[test]
    fn wildcards_stand_for_their_family() {
        let host = ["127.0.0.1", "::1", "198.18.0.1", "198.18.0.9", "2001:db8::1"];
        assert_eq!(keys(&["0.0.0.0:443"], &host).unwrap(), 2);
        assert_eq!(keys(&["[::]:443"], &host).unwrap(), 1);
        assert_eq!(keys(&["0.0.0.0:443", "198.18.0.1:443"], &host).unwrap(), 2);
        assert_eq!(keys(&["203.0.113.1:443"], &host).unwrap(), 1);
        assert_eq!(keys(&["0.0.0.0:443"], &[]).unwrap(), 0);
    }

    #[test]
    fn the_map_has_an_end() {
        let wanted: Vec<String> =
            (0..=TARGET_COUNT_MAX).map(|port| format!("198.18.0.1:{}", port + 1)).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        assert!(matches!(keys(&wanted, &[]), Err(TargetsError::TooMany { seen: 1025, max: 1024 })));
        assert_eq!(keys(&wanted[1..], &[]).unwrap(), 1024);
    }
}
