//! What packet protection alone costs: ring, aws-lc-rs and each level of ours, on the same packets.
//!
//! A [`Case`] is 32 packets to seal, to open, or to protect (seal, then mask the header). ring and aws-lc-rs do it as a
//! QUIC stack has them do it, in place and packet by packet. Ours goes out of place, in batches: from a buffer of
//! plaintext into another one, the header copied as well where the header is protected. `ring-copy` is ring out of
//! place, the copy included: what a batch does where the CPU has no vectors for it.
//!
//! Each way's output is compared with ring's, byte for byte, before it is timed.

mod in_place;
mod ours;

use crate::clock;
use simd::{Cipher, Level, NONCE_BYTES, TAG_BYTES};
use std::fmt;

/// Packets of one pass: a receive burst.
pub const PACKETS: usize = 32;
/// Short header with a CID of 20 bytes and a packet number of four, at its end.
pub const HEADER_BYTES: usize = 25;
/// Payload sizes that are measured.
pub const SIZES_BYTES: [usize; 7] = [64, 128, 256, 1200, 1400, 4000, 9000];
/// Keys that the packets of a pass are spread over.
pub const KEYS: [usize; 2] = [1, 32];
/// Where the packet number starts.
const NUMBER_AT: usize = HEADER_BYTES - 4;

/// What is done to each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Seal.
    Seal,
    /// Open.
    Open,
    /// Seal, then protect the header.
    Protect,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Seal, Self::Open, Self::Protect];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Open => "open",
            Self::Protect => "protect",
        }
    }
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// ring, in place: the reference.
    Ring,
    /// aws-lc-rs, in place.
    #[cfg(feature = "aws-lc")]
    AwsLc,
    /// Ours, out of place.
    Ours(Level),
}

impl Way {
    /// Those that this build has and this CPU can run, ring first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut ways = vec![Self::Ring];
        #[cfg(feature = "aws-lc")]
        ways.push(Self::AwsLc);
        ways.extend(Level::available().iter().map(|&level| Self::Ours(level)));
        ways
    }

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            #[cfg(feature = "aws-lc")]
            Self::AwsLc => "aws-lc-rs",
            Self::Ours(Level::RING) => "ring-copy",
            Self::Ours(level) => level.name(),
        }
    }
}

/// What is measured, the way apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The AEAD.
    pub cipher: Cipher,
    /// What is done to each packet.
    pub op: Op,
    /// Bytes of payload, header and tag apart.
    pub size_bytes: usize,
    /// Keys that the 32 packets are spread over, each key's packets side by side.
    pub keys: usize,
    /// Packets that one call of ours gets; ring and aws-lc-rs always get one.
    pub batch: usize,
}

impl Case {
    /// Every case: both numbers of keys in batches of 32, and one key one by one.
    pub fn all() -> impl Iterator<Item = Self> {
        let shapes = [(KEYS[0], PACKETS), (KEYS[1], PACKETS), (KEYS[0], 1)];
        Cipher::ALL.into_iter().flat_map(move |cipher| {
            Op::ALL.into_iter().flat_map(move |op| {
                shapes.into_iter().flat_map(move |(keys, batch)| {
                    SIZES_BYTES.map(|size_bytes| Self { cipher, op, size_bytes, keys, batch })
                })
            })
        })
    }

    /// Prepares the packets, checks the result against ring's, and hands `measure` one pass over all [`PACKETS`], which
    /// returns its ticks. Whatever a pass needs anew is prepared outside of the time.
    ///
    /// # Panics
    /// If a way's bytes differ from ring's, or a packet that is genuine doesn't open.
    pub fn with_pass(&self, way: Way, measure: &mut dyn FnMut(&mut dyn FnMut() -> u64)) {
        match way {
            Way::Ring => in_place::with_pass::<in_place::Ring>(self, measure),
            #[cfg(feature = "aws-lc")]
            Way::AwsLc => in_place::with_pass::<in_place::AwsLc>(self, measure),
            Way::Ours(level) => ours::with_pass(self, level, measure),
        }
    }

    /// Key material of packet `index`; packet numbers go up, so no nonce comes twice.
    fn material(&self, index: usize) -> Material {
        let key = index / (PACKETS / self.keys);
        let bytes = |seed: u8, len: usize| (0..len).map(|at| seed ^ (at as u8).wrapping_mul(37)).collect();
        let seed = (key as u8).wrapping_mul(59) ^ 0x5a;
        let iv = std::array::from_fn(|at| seed.wrapping_add(at as u8));
        Material {
            key: bytes(seed, self.cipher.key_bytes()),
            header_key: bytes(!seed, self.cipher.key_bytes()),
            iv,
        }
    }

    /// One set of key material for each key.
    fn materials(&self) -> impl Iterator<Item = Material> {
        (0..self.keys).map(|key| self.material(key * (PACKETS / self.keys)))
    }

    fn key_of(&self, packet: usize) -> usize {
        packet / (PACKETS / self.keys)
    }

    /// Header, payload and room for the tag.
    fn plain(&self, packet: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..HEADER_BYTES + self.size_bytes)
            .map(|at| (at as u8).wrapping_mul(31).wrapping_add(packet as u8) ^ (at >> 8) as u8)
            .collect();
        bytes[0] = 0x43;
        bytes[NUMBER_AT..HEADER_BYTES].copy_from_slice(&(number(packet) as u32).to_be_bytes());
        bytes.resize(HEADER_BYTES + self.size_bytes + TAG_BYTES, 0);
        bytes
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cipher, op, size_bytes, keys, batch } = self;
        write!(f, "{}/{}/{size_bytes}/{keys}", cipher.name(), op.name())?;
        if *batch == PACKETS { Ok(()) } else { write!(f, "/batch{batch}") }
    }
}

struct Material {
    key: Vec<u8>,
    header_key: Vec<u8>,
    iv: [u8; NONCE_BYTES],
}

/// The packet number of a packet.
fn number(packet: usize) -> u64 {
    0x0102_0304 + packet as u64
}

/// Applies a mask to a short header whose packet number has four bytes (RFC 9001 section 5.4.1).
fn apply_mask(header: &mut [u8], mask: [u8; simd::MASK_BYTES]) {
    header[0] ^= mask[0] & 0x1f;
    for (byte, mask) in header[NUMBER_AT..HEADER_BYTES].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
}

/// Ticks of `work`.
#[inline]
fn timed(work: impl FnOnce()) -> u64 {
    let begin = clock::ticks();
    work();
    clock::ticks() - begin
}
