//! Which destinations the LAN's program takes: the tunnel's prefixes, less what this host itself is or routes better,
//! written to the PREFIXES map, and the interface's MAC address. Followed live.

use crate::{TargetsError, attach::chain, device::Steering, mirror::Mirror};
use aya::maps::{
    Array, MapData,
    lpm_trie::{Key, LpmTrie},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use steer::{
    lan::{KERNEL, TUNNEL},
    maps::{PREFIX_COUNT_MAX, PREFIX_DATA_BYTES, PrefixKey},
};
use wire::datagram::Mac;

type PrefixMap = LpmTrie<MapData, [u8; PREFIX_DATA_BYTES], u32>;
type MacMap = Array<MapData, [u8; 8]>;
/// What the map holds, or should.
type Values = BTreeMap<PrefixKey, u32>;

/// The maps and what they should hold.
pub struct LanPrefixes {
    mirror: Arc<Mirror>,
    interface: u32,
    inner: Mutex<Inner>,
}

struct Inner {
    map: PrefixMap,
    mac_map: MacMap,
    mac: Option<Mac>,
    wanted: Vec<(IpAddr, u8)>,
    installed: Values,
}

impl LanPrefixes {
    pub(super) fn new(map: PrefixMap, mac_map: MacMap, mirror: Arc<Mirror>, interface: u32) -> Self {
        let inner = Inner { map, mac_map, mac: None, wanted: Vec::new(), installed: Values::new() };
        Self { mirror, interface, inner: Mutex::new(inner) }
    }

    /// Steers packets to these prefixes into the sockets, and nothing else. Left to the kernel all the same: this host's
    /// own addresses, and the prefixes of its main routing table that are longer than the one they lie in.
    ///
    /// Any thread may call it, also while packets flow.
    ///
    /// # Errors
    /// More prefixes than the map holds; what was steered before still is.
    pub fn set(&self, wanted: &[(IpAddr, u8)]) -> Result<(), TargetsError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let values = self.values(wanted)?;
        inner.install_mac(self.mac())?;
        inner.install(values)?;
        inner.wanted = wanted.to_vec();
        Ok(())
    }

    /// Called under the lock: tables read before it could be older than those that `follow` has installed.
    fn values(&self, wanted: &[(IpAddr, u8)]) -> Result<Values, TargetsError> {
        let tables = self.mirror.tables();
        let own = tables.addresses.iter().map(|&(_, address)| (address, 128));
        expand(wanted, own, tables.routes.prefixes())
    }

    fn mac(&self) -> Option<Mac> {
        self.mirror.tables().links.get(&self.interface).and_then(|link| link.mac)
    }
}

impl Steering for LanPrefixes {
    fn follow(&self) -> Result<(), TargetsError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let values = self.values(&inner.wanted)?;
        inner.install_mac(self.mac())?;
        inner.install(values)
    }
}

impl fmt::Debug for LanPrefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LanPrefixes")
    }
}

impl Inner {
    /// An interface without a MAC address takes nothing into the tunnel.
    fn install_mac(&mut self, mac: Option<Mac>) -> Result<(), TargetsError> {
        if mac == self.mac && mac.is_some() {
            return Ok(());
        }
        // All ones is no unicast address, so no frame to one has it.
        let [a, b, c, d, e, f] = mac.unwrap_or([0xff; 6]);
        self.mac_map.set(0, [a, b, c, d, e, f, 0, 0], 0).map_err(|error| failed(&error))?;
        self.mac = mac;
        Ok(())
    }

    /// The kernel's exceptions first, so that nothing of this host's own is ever steered; then the rest.
    fn install(&mut self, values: Values) -> Result<(), TargetsError> {
        let stale: Vec<PrefixKey> =
            self.installed.keys().filter(|key| !values.contains_key(key)).copied().collect();
        // Only a full map makes room first.
        if self.installed.len() + values.len() > PREFIX_COUNT_MAX as usize {
            self.remove(&stale)?;
        }
        for turn in [KERNEL, TUNNEL] {
            for (key, value) in values.iter().filter(|&(_, &value)| value == turn) {
                if self.installed.get(key) != Some(value) {
                    self.map.insert(&trie_key(key), value, 0).map_err(|error| failed(&error))?;
                    self.installed.insert(*key, *value);
                }
            }
        }
        self.remove(&stale)
    }

    fn remove(&mut self, keys: &[PrefixKey]) -> Result<(), TargetsError> {
        for key in keys {
            if self.installed.remove(key).is_some() {
                self.map.remove(&trie_key(key)).map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }
}

fn failed(error: &dyn std::error::Error) -> TargetsError {
    TargetsError::Map(chain(error))
}

fn trie_key(key: &PrefixKey) -> Key<[u8; PREFIX_DATA_BYTES]> {
    Key::new(key.bits, key.data)
}

/// What the map has to hold: `wanted` is the tunnel's. The kernel keeps its `own` addresses, and of its `routes` those that
/// are longer than the wanted prefix that they lie in.
fn expand(
    wanted: &[(IpAddr, u8)],
    own: impl Iterator<Item = (IpAddr, u8)>,
    routes: impl Iterator<Item = (IpAddr, u8)>,
) -> Result<Values, TargetsError> {
    let wanted: Values =
        wanted.iter().map(|&(address, length)| (PrefixKey::of_prefix(address, length), TUNNEL)).collect();
    let lengths: BTreeSet<u32> = wanted.keys().map(|key| key.bits).collect();
    let is_inside =
        |key: &PrefixKey| lengths.range(..=key.bits).any(|&bits| wanted.contains_key(&key.cut(bits)));
    let key = |(address, length)| PrefixKey::of_prefix(address, length);
    let mut values = wanted.clone();
    // The same prefix as one of those wanted is the tunnel's.
    for key in routes.map(key).filter(is_inside) {
        values.entry(key).or_insert(KERNEL);
    }
    values.extend(own.map(key).filter(is_inside).map(|key| (key, KERNEL)));
    let (seen, max) = (values.len(), PREFIX_COUNT_MAX as usize);
    if seen > max { Err(TargetsError::TooManyPrefixes { seen, max }) } else { Ok(values) }
}

#[cfg(test)]
mod tests {
    //! Goal: the longest prefix wins between tunnel and host; the host keeps its own addresses; the map's limit is kept.
    use super::*;

    fn prefix(text: &str) -> (IpAddr, u8) {
        let (address, length) = text.split_once('/').unwrap();
        (address.parse().unwrap(), length.parse().unwrap())
    }

    fn expanded(wanted: &[&str], own: &[&str], routes: &[&str]) -> Values {
        let [wanted, own, routes] =
            [wanted, own, routes].map(|list| list.iter().map(|text| prefix(text)).collect::<Vec<_>>());
        expand(&wanted, own.into_iter(), routes.into_iter()).unwrap()
    }

    fn values(entries: &[(&str, u32)]) -> Values {
        let key = |text: &str| PrefixKey::of_prefix(prefix(text).0, prefix(text).1);
        entries.iter().map(|&(text, value)| (key(text), value)).collect()
    }

    #[test]
    fn the_host_keeps_what_is_its_own() {
        assert_eq!(
            expanded(
                &["198.18.0.0/16", "2001:db8::/32"],
                &["198.18.0.1/32", "2001:db8::1/128", "203.0.113.1/32", "127.0.0.1/32"],
                &["0.0.0.0/0", "198.18.0.0/15", "198.18.7.0/24", "198.18.0.0/16", "2001:db8:7::/48", "::/0"],
            ),
            values(&[
                ("198.18.0.0/16", TUNNEL),
                ("2001:db8::/32", TUNNEL),
                ("198.18.0.1/32", KERNEL),
                ("2001:db8::1/128", KERNEL),
                ("198.18.7.0/24", KERNEL),
                ("2001:db8:7::/48", KERNEL),
            ])
        );
    }

    #[test]
    fn a_default_route_into_the_tunnel_leaves_the_host_its_networks() {
        assert_eq!(
            expanded(&["0.0.0.0/0"], &["198.18.0.1/32"], &["0.0.0.0/0", "198.18.0.0/24", "2001:db8::/64"]),
            values(&[("0.0.0.0/0", TUNNEL), ("198.18.0.1/32", KERNEL), ("198.18.0.0/24", KERNEL)])
        );
    }

    #[test]
    fn an_own_address_is_never_the_tunnel_s() {
        assert_eq!(
            expanded(&["198.18.0.1/32"], &["198.18.0.1/32"], &[]),
            values(&[("198.18.0.1/32", KERNEL)])
        );
    }

    #[test]
    fn the_map_has_an_end() {
        let wanted: Vec<(IpAddr, u8)> =
            (0..=PREFIX_COUNT_MAX).map(|n| (std::net::Ipv4Addr::from_bits(n << 8).into(), 24)).collect();
        let none = std::iter::empty::<(IpAddr, u8)>;
        assert!(matches!(
            expand(&wanted, none(), none()),
            Err(TargetsError::TooManyPrefixes { seen: 4097, max: 4096 })
        ));
        assert_eq!(expand(&wanted[1..], none(), none()).unwrap().len(), 4096);
    }
}
