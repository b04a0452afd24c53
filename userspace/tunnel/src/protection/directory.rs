//! For benches: the table from a datagram to its connection's keys, filled without connections.

use super::context::Authenticated;
use super::{Mirror, short_cid};
use crate::cid::{CID_LEN_BYTES, CidCodec, CidKey, WorkerId};
use simd::{Cipher, HeaderKey, PacketKey};
use std::sync::Arc;

/// What an engine with so many live connections knows of their CIDs, one each. All of them have the same keys.
pub struct Directory {
    codec: CidCodec,
    worker: WorkerId,
    mirror: Mirror,
}

impl Directory {
    /// As of connections `0..count` of `worker`.
    pub fn new(worker: WorkerId, count: u32) -> Self {
        let codec = CidCodec::new(CidKey([7; 16]), 1);
        let mut directory = Self { codec, worker, mirror: Mirror::default() };
        let packet = Arc::new(PacketKey::new(Cipher::Aes128Gcm, &[1; 16], [2; 12]));
        let header = Arc::new(HeaderKey::new(Cipher::Aes128Gcm, &[3; 16]));
        for index in 0..count {
            let shown = Authenticated {
                packet_number: Some(0),
                eager: Some((packet.clone(), false)),
                header: Some(header.clone()),
                restored: false,
            };
            directory.mirror.learn(index, Some(&directory.cid(index)), shown);
        }
        directory
    }

    fn cid(&self, index: u32) -> [u8; CID_LEN_BYTES] {
        self.codec.encode(self.worker, u64::from(index).to_be_bytes())
    }

    /// A datagram with a short header for connection `index`.
    pub fn datagram(&self, index: u32, bytes: usize) -> Vec<u8> {
        let mut datagram = vec![0x43];
        datagram.extend(self.cid(index));
        datagram.resize(bytes, 0);
        datagram
    }

    /// The worker that a datagram is for: none if nobody with the key made its CID.
    pub fn worker(&self, datagram: &[u8]) -> Option<WorkerId> {
        self.codec.decode(short_cid(datagram)?)
    }

    /// The connection whose keys open a datagram.
    pub fn find(&self, datagram: &[u8]) -> Option<u32> {
        Some(self.mirror.find(short_cid(datagram)?)?.0)
    }
}
