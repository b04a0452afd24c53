//! Connection IDs that name their worker, in the QUIC-LB layout.
//!
//! A CID is 17 bytes: one octet with the configuration rotation and the length, then one AES block
//! (draft-ietf-quic-load-balancers, single-pass encryption):
//!
//! ```text
//!  octet 0       octets 1..17, AES-128-ECB under the fleet's CID key
//! +----------+  +-----------+-----------+---------------+------------------+
//! | 000 10000|  | node (2)  | worker (1)| zero check (5)|     nonce (8)    |
//! +----------+  +-----------+-----------+---------------+------------------+
//! ```
//!
//! The nonce is the engine's tier (1), a part of its connections, and random bytes (7).
//!
//! The server ID is node and worker. The five zero bytes authenticate: a block that nobody with the
//! key made decrypts to a zero check and our node with probability 2^-56, so garbage is recognised
//! and never draws a stateless reset. The output is uniform, which quinn's weak index hash needs.
//! Every worker shares the key; a load balancer with the key can route by the same bytes.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Length of every CID that this host issues.
pub const CID_LEN_BYTES: usize = 17;

/// Configuration rotation 0 in the top three bits; the length after this octet in the lower five.
const FIRST_OCTET: u8 = (CID_LEN_BYTES - 1) as u8;
const NONCE_LEN_BYTES: usize = 8;

/// A part of a worker's connections; a CID carries it. See `engine/tiers.rs`.
pub(crate) type Tier = u8;

/// Index of a worker on this node; a CID carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

/// The AES-128 key shared by all workers of a node, and by a QUIC-LB load balancer before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CidKey(pub [u8; 16]);

impl fmt::Debug for CidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CidKey(..)")
    }
}

/// Seals and opens CIDs for one node.
#[derive(Clone)]
pub struct CidCodec {
    aes: Aes128,
    node: u16,
}

impl CidCodec {
    /// A codec for `node` under the shared key.
    pub fn new(key: CidKey, node: u16) -> Self {
        Self { aes: Aes128::new(&Array::from(key.0)), node }
    }

    /// The CID that names `worker`, made unique by `nonce`, which must be unpredictable.
    pub fn encode(&self, worker: WorkerId, nonce: [u8; NONCE_LEN_BYTES]) -> [u8; CID_LEN_BYTES] {
        let mut block = [0; 16];
        block[..2].copy_from_slice(&self.node.to_be_bytes());
        block[2] = worker.0;
        block[8..].copy_from_slice(&nonce);
        let mut block = Array::from(block);
        self.aes.encrypt_block(&mut block);
        let mut cid = [FIRST_OCTET; CID_LEN_BYTES];
        cid[1..].copy_from_slice(&block);
        cid
    }

    /// The worker that `cid` names, or `None` when this node did not make it.
    pub fn decode(&self, cid: &[u8]) -> Option<WorkerId> {
        Some(WorkerId(self.open(cid)?[2]))
    }

    /// The tier of its worker that `cid` names, or `None` when this node did not make it.
    pub(crate) fn decode_tier(&self, cid: &[u8]) -> Option<Tier> {
        Some(self.open(cid)?[8])
    }

    fn open(&self, cid: &[u8]) -> Option<[u8; 16]> {
        let cid: &[u8; CID_LEN_BYTES] = cid.try_into().ok()?;
        if cid[0] != FIRST_OCTET {
            return None;
        }
        let mut block = [0; 16];
        block.copy_from_slice(&cid[1..]);
        let mut block = Array::from(block);
        self.aes.decrypt_block(&mut block);
        let ours = block[..2] == self.node.to_be_bytes() && block[3..8] == [0; 5];
        ours.then_some(block.into())
    }
}

/// quinn's hook: makes the CIDs of one of this worker's tiers, and recognises the worker's.
pub(crate) struct Generator {
    codec: CidCodec,
    worker: WorkerId,
    tier: Tier,
    rng: StdRng,
}

impl Generator {
    /// `seed` makes the nonces repeatable, for simulation only.
    pub(crate) fn new(codec: CidCodec, worker: WorkerId, tier: Tier, seed: Option<[u8; 32]>) -> Self {
        let rng = match seed {
            // Not quinn's own stream of numbers, which starts from the same seed.
            Some(mut seed) => {
                seed[0] ^= 0xc1;
                StdRng::from_seed(seed)
            }
            None => StdRng::try_from_rng(&mut SysRng).unwrap_or_else(|e| {
                // Predictable CIDs would be worse than not starting.
                panic!("the system's random source failed: {e}")
            }),
        };
        Self { codec, worker, tier, rng }
    }

    /// The factory that `EndpointConfig::cid_generator` wants.
    pub(crate) fn factory(
        codec: CidCodec,
        worker: WorkerId,
        tier: Tier,
        seed: Option<[u8; 32]>,
    ) -> impl Fn() -> Box<dyn ConnectionIdGenerator> + Send + Sync + 'static {
        let codec = Arc::new(codec);
        move || Box::new(Self::new((*codec).clone(), worker, tier, seed))
    }
}

impl ConnectionIdGenerator for Generator {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut nonce = [0; NONCE_LEN_BYTES];
        self.rng.fill_bytes(&mut nonce[1..]);
        nonce[0] = self.tier;
        ConnectionId::new(&self.codec.encode(self.worker, nonce))
    }

    /// Only this worker's own CIDs pass: quinn answers an unknown valid CID with a stateless reset,
    /// and a live CID of another worker must never draw one.
    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        match self.codec.decode(cid) {
            Some(worker) if worker == self.worker => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        CID_LEN_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a CID names its worker to every holder of the key, and to nobody else.
    // Method: encode every worker, decode under the same key, another key and another node.
    #[test]
    fn names_the_worker_under_the_shared_key_only() {
        let codec = CidCodec::new(CidKey([7; 16]), 0x1234);
        let other_key = CidCodec::new(CidKey([8; 16]), 0x1234);
        let other_node = CidCodec::new(CidKey([7; 16]), 0x1235);
        for worker in 0..=255 {
            let cid = codec.encode(WorkerId(worker), [worker; 8]);
            assert_eq!(codec.decode(&cid), Some(WorkerId(worker)));
            assert_eq!((codec.decode_tier(&cid), other_key.decode_tier(&cid)), (Some(worker), None));
            assert_eq!(other_key.decode(&cid), None);
            assert_eq!(other_node.decode(&cid), None);
            assert_eq!(codec.decode(&cid[..16]), None);
        }
    }

    // Goal: garbage and tampered CIDs are recognised. Method: 100,000 seeded random blocks with the
    // right first octet, and every one-bit flip of a real CID.
    #[test]
    fn garbage_is_not_ours() {
        let codec = CidCodec::new(CidKey([7; 16]), 0);
        let mut rng = StdRng::from_seed([3; 32]);
        for _ in 0..100_000 {
            let mut cid = [0; CID_LEN_BYTES];
            rng.fill_bytes(&mut cid);
            cid[0] = FIRST_OCTET;
            assert_eq!(codec.decode(&cid), None);
        }
        let cid = codec.encode(WorkerId(1), [5; 8]);
        for bit in 0..CID_LEN_BYTES * 8 {
            let mut flipped = cid;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(codec.decode(&flipped), None, "bit {bit}");
        }
    }

    // draft-ietf-quic-load-balancers 5.3: single-pass encryption is plain AES-ECB of the block that
    // follows the first octet. Method: seal with the codec, open with a bare AES, read the fields.
    #[test]
    fn layout_is_first_octet_then_one_aes_block() {
        let codec = CidCodec::new(CidKey([9; 16]), 0xabcd);
        let cid = codec.encode(WorkerId(0xef), *b"nonce678");
        assert_eq!(cid[0], 0b000_10000);
        let mut block = Array::from(<[u8; 16]>::try_from(&cid[1..]).unwrap());
        Aes128::new(&Array::from([9; 16])).decrypt_block(&mut block);
        assert_eq!(block[..], *b"\xab\xcd\xef\0\0\0\0\0nonce678");
    }
}
