//! A running hash of what happened on the wire.

use std::net::SocketAddr;
use std::time::Duration;

/// What the network did with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// On its way.
    Sent,
    /// Lost by dice.
    Lost,
    /// Sent a second time.
    Duplicated,
    /// Sent with a flipped bit.
    Corrupted,
    /// Larger than the path's MTU.
    TooLarge,
    /// For an address that leads nowhere: an expired NAT mapping.
    Unroutable,
    /// Reached an engine.
    Delivered,
    /// Handed to another worker by its CID.
    HandedOver,
}

impl Fate {
    /// How many fates there are.
    pub const COUNT: usize = 8;
}

/// Hash and counts of a run. Two runs of one seed have equal traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    hash: u64,
    counts: [u64; Fate::COUNT],
}

impl Default for Trace {
    fn default() -> Self {
        // FNV-1a, 64 bits: stable over platforms and releases, which std's hasher is not.
        Self { hash: 0xcbf2_9ce4_8422_2325, counts: [0; Fate::COUNT] }
    }
}

impl Trace {
    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many datagrams met this fate.
    pub fn count(&self, fate: Fate) -> u64 {
        self.counts[fate as usize]
    }

    /// Records one datagram's fate: when, to whom, how long, and its unprotected header bits.
    pub fn record(&mut self, at: Duration, fate: Fate, to: SocketAddr, datagram: &[u8]) {
        self.counts[fate as usize] += 1;
        // The low bits of the first byte are header-protected, so they depend on ciphertext.
        let form = match datagram.first() {
            Some(first) if first & 0x80 != 0 => first & 0xf0,
            _ => 0,
        };
        self.mix(&(at.as_nanos() as u64).to_le_bytes());
        self.mix(&to.port().to_le_bytes());
        self.mix(&(datagram.len() as u32).to_le_bytes());
        self.mix(&[fate as u8, form]);
    }

    fn mix(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
