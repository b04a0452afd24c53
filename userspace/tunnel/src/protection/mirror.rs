//! Whose keys open a datagram, by its destination CID: the engine's own view, because quinn's can't be read.
//!
//! It fills itself. The first 1-RTT packet under a CID or in a key phase goes the eager way, and teaches which key
//! worked. It never says more than "try this key": quinn asks for the packet by key and number, and gets the verdict
//! only if both are the same.

use super::context::Authenticated;
use crate::cid::CID_LEN_BYTES;
use simd::{HeaderKey, PacketKey};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// A connection ID that one of our engines has made.
pub(crate) type Cid = [u8; CID_LEN_BYTES];

/// CIDs remembered for one connection. quinn gives its peer up to eight at a time; of an older one, packets go the
/// eager way and teach it again.
const CIDS_MAX: usize = 8;

/// Room for so many CIDs of all connections stays.
const CIDS_KEPT: usize = 512;

/// How to open the 1-RTT packets of one connection.
#[derive(Debug)]
pub(crate) struct RxKeys {
    pub(crate) header: Arc<HeaderKey>,
    pub(crate) packet: Arc<PacketKey>,
    /// The key phase bit that goes with `packet`.
    pub(crate) phase: bool,
    /// The largest packet number that was authentic.
    pub(crate) largest: u64,
    /// The one in use; few peers ever use a second.
    cid: Option<Cid>,
    /// Those before it, oldest first.
    older: Vec<Cid>,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<RxKeys>() <= 72);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    by_cid: HashMap<Cid, u32, BuildHasherDefault<CidHasher>>,
    /// By the connection's index. Boxed: most connections of an idle gateway have none.
    connections: Vec<Option<Box<RxKeys>>>,
}

impl Mirror {
    /// The connection that a CID names, and its keys.
    pub(crate) fn find(&self, cid: &Cid) -> Option<(u32, &RxKeys)> {
        let index = *self.by_cid.get(cid)?;
        Some((index, self.connections.get(index as usize)?.as_deref()?))
    }

    /// Takes over what a datagram for connection `index` has shown. `cid` is its destination, if it had a short header
    /// and was opened eagerly.
    pub(crate) fn learn(&mut self, index: u32, cid: Option<&Cid>, shown: Authenticated) {
        let Some(number) = shown.packet_number else { return };
        if self.connections.len() <= index as usize {
            self.connections.resize_with(index as usize + 1, || None);
        }
        let place = &mut self.connections[index as usize];
        match (place.as_deref_mut(), shown.eager, shown.header) {
            (Some(known), None, _) => known.largest = known.largest.max(number),
            // A late packet of the phase before doesn't turn the phase back.
            (Some(known), Some((packet, phase)), _) => {
                if number > known.largest {
                    (known.packet, known.phase, known.largest) = (packet, phase, number);
                }
            }
            (None, Some((packet, phase)), Some(header)) => {
                *place = Some(Box::new(RxKeys {
                    header,
                    packet,
                    phase,
                    largest: number,
                    cid: None,
                    older: Vec::new(),
                }));
            }
            (None, ..) => return,
        }
        if let (Some(cid), Some(known)) = (cid, place)
            && known.cid != Some(*cid)
            && !known.older.contains(cid)
        {
            known.older.extend(known.cid.replace(*cid));
            if known.older.len() == CIDS_MAX {
                self.by_cid.remove(&known.older.remove(0));
            }
            self.by_cid.insert(*cid, index);
        }
    }

    /// Forgets a connection that has ended: its index may be another's next.
    pub(crate) fn forget(&mut self, index: u32) {
        let Some(known) = self.connections.get_mut(index as usize).and_then(Option::take) else { return };
        for cid in known.cid.iter().chain(&known.older) {
            self.by_cid.remove(cid);
        }
    }

    /// Gives back room that a crowd has left.
    pub(crate) fn tidy(&mut self) {
        while self.connections.last().is_some_and(Option::is_none) {
            self.connections.pop();
        }
        self.connections.shrink_to(2 * self.connections.len().max(CIDS_KEPT));
        let used = self.by_cid.len();
        if self.by_cid.capacity() > 4 * used.max(CIDS_KEPT) {
            self.by_cid.shrink_to(2 * used.max(CIDS_KEPT));
        }
    }

    /// Bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        let known = self.connections.iter().flatten().map(|known| known.older.capacity() * CID_LEN_BYTES);
        known.map(|cids| cids + size_of::<RxKeys>()).sum::<usize>()
            + self.connections.capacity() * size_of::<Option<Box<RxKeys>>>()
            + self.by_cid.capacity() * size_of::<(Cid, u32)>()
    }
}

/// Our CIDs are an AES block under a secret key, so eight bytes of one are as good as a hash of it.
#[derive(Debug, Default)]
pub(crate) struct CidHasher(u64);

impl Hasher for CidHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(word) = bytes.last_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*word);
        }
    }

    /// The length prefix, always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    //! Goal: phases only move forward, CIDs are bounded and die with their connection.
    use super::*;
    use simd::Cipher;

    fn shown(packet_number: u64, eager: Option<bool>) -> Authenticated {
        let key = || Arc::new(PacketKey::new(Cipher::Aes128Gcm, &[1; 16], [2; 12]));
        Authenticated {
            packet_number: Some(packet_number),
            eager: eager.map(|phase| (key(), phase)),
            header: Some(Arc::new(HeaderKey::new(Cipher::Aes128Gcm, &[3; 16]))),
            ..Authenticated::default()
        }
    }

    #[test]
    fn phases_move_forward_only() {
        let mut mirror = Mirror::default();
        let cid = [1; CID_LEN_BYTES];
        mirror.learn(5, Some(&cid), Authenticated::default());
        assert!(mirror.find(&cid).is_none(), "nothing was authentic");
        mirror.learn(5, Some(&cid), shown(10, Some(false)));
        mirror.learn(5, Some(&cid), shown(12, Some(true)));
        mirror.learn(5, Some(&cid), shown(11, Some(false)));
        mirror.learn(5, None, shown(9, None));
        let (index, keys) = mirror.find(&cid).unwrap();
        assert_eq!((index, keys.phase, keys.largest), (5, true, 12));
        mirror.learn(5, None, shown(30, None));
        assert_eq!(mirror.find(&cid).unwrap().1.largest, 30);
    }

    #[test]
    fn cids_are_bounded_and_forgotten() {
        let mut mirror = Mirror::default();
        for n in 0..20 {
            mirror.learn(0, Some(&[n; CID_LEN_BYTES]), shown(n.into(), Some(false)));
            mirror.learn(1, Some(&[n + 100; CID_LEN_BYTES]), shown(n.into(), Some(false)));
        }
        assert_eq!(mirror.by_cid.len(), 2 * CIDS_MAX);
        assert!(mirror.find(&[11; CID_LEN_BYTES]).is_none());
        assert_eq!(mirror.find(&[12; CID_LEN_BYTES]).unwrap().0, 0);
        mirror.forget(0);
        mirror.forget(7);
        assert!(mirror.find(&[12; CID_LEN_BYTES]).is_none());
        assert_eq!(mirror.find(&[112; CID_LEN_BYTES]).unwrap().0, 1);
        assert_eq!(mirror.by_cid.len(), CIDS_MAX);
    }
}
