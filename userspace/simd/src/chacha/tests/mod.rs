//! Goal: the batch is ChaCha20-Poly1305, on every vector that can be tried here.
//!
//! Method: each test runs on every [`Machine`]: the levels that this CPU has, and always, given AVX2, the 16-lane
//! algorithm over two 8-lane halves. The entry points are called below the threshold that hands small batches to ring,
//! so that a batch of one is ours too.

mod poly;
mod ring;
mod vectors;

use super::{
    avx2::{Avx2, Eight},
    avx512::{Avx512, Sixteen},
    block::{self, DOUBLE_ROUNDS, KEY_BYTES},
    engine, entry,
    job::Job,
    lanes::{BLOCK_BYTES, LANES_MAX, Lanes, ROW_BYTES, Twice},
    mask,
};
use crate::{Cipher, Level, MaskJob, OpenJob, PacketKey, SealJob, level::Kind};
use std::fmt;

/// Something that runs the algorithm.
#[derive(Clone, Copy)]
enum Machine {
    Level(Level),
    /// Sixteen lanes as two halves of eight.
    Twice,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => level.fmt(f),
            Self::Twice => f.write_str("2 x 8 lanes"),
        }
    }
}

fn machines() -> Vec<Machine> {
    let ours = |level: &&Level| matches!(level.kind(), Kind::Avx2 | Kind::Avx512) && entry::has_bmi2();
    let mut machines: Vec<_> =
        Level::available().iter().filter(ours).map(|&level| Machine::Level(level)).collect();
    if machines.is_empty() {
        println!("SKIPPED: this CPU has no level with ChaCha20-Poly1305 of ours");
    } else {
        machines.push(Machine::Twice);
    }
    machines
}

impl Machine {
    fn seal(self, jobs: &mut [SealJob<'_>]) {
        self.run(jobs);
    }

    fn open(self, jobs: &mut [OpenJob<'_>]) {
        self.run(jobs);
    }

    fn run<J: Job>(self, jobs: &mut [J]) {
        match self {
            Self::Level(level) => assert!(entry::seal_or_open(level, jobs)),
            // SAFETY: a machine exists, so the CPU has AVX2 and BMI2.
            Self::Twice => unsafe { run_twice(jobs) },
        }
    }

    fn mask(self, jobs: &mut [MaskJob<'_>]) {
        match self {
            Self::Level(level) => assert!(entry::masks(level, jobs)),
            // SAFETY: a machine exists, so the CPU has AVX2.
            Self::Twice => unsafe { mask_twice(jobs) },
        }
    }

    fn lanes(self) -> usize {
        match self {
            Self::Level(level) if level.kind() == Kind::Avx2 => Eight::COUNT,
            Self::Level(_) | Self::Twice => LANES_MAX,
        }
    }

    /// The blocks of any keys and last rows, one a lane; the rest of a short list repeats the first.
    fn blocks(self, keys: &[[u8; KEY_BYTES]], rows: &[[u8; ROW_BYTES]]) -> Vec<[u8; BLOCK_BYTES]> {
        let lane = |lane: usize| if lane < keys.len() { lane } else { 0 };
        let keys: [&[u8; KEY_BYTES]; LANES_MAX] = std::array::from_fn(|i| &keys[lane(i)]);
        let rows: [[u8; ROW_BYTES]; LANES_MAX] = std::array::from_fn(|i| rows[lane(i)]);
        let mut blocks = match self {
            // SAFETY: a machine exists, so the CPU has AVX2.
            Self::Level(level) if level.kind() == Kind::Avx2 => unsafe { blocks_avx2(&keys, &rows) },
            // SAFETY: the level says that the CPU has AVX-512F.
            Self::Level(_) => unsafe { blocks_avx512(&keys, &rows) },
            // SAFETY: a machine exists, so the CPU has AVX2.
            Self::Twice => unsafe { blocks_twice(&keys, &rows) },
        };
        blocks.truncate(self.lanes());
        blocks
    }

    /// As [`Self::blocks`], for consecutive blocks of one key and nonce.
    fn consecutive_blocks(self, key: &[u8; KEY_BYTES], row: &[u8; ROW_BYTES]) -> Vec<[u8; BLOCK_BYTES]> {
        let mut blocks = match self {
            // SAFETY: a machine exists, so the CPU has AVX2.
            Self::Level(level) if level.kind() == Kind::Avx2 => unsafe { uniform_avx2(key, row) },
            // SAFETY: the level says that the CPU has AVX-512F.
            Self::Level(_) => unsafe { uniform_avx512(key, row) },
            // SAFETY: a machine exists, so the CPU has AVX2.
            Self::Twice => unsafe { uniform_twice(key, row) },
        };
        blocks.truncate(self.lanes());
        blocks
    }
}

type Blocks = Vec<[u8; BLOCK_BYTES]>;
type Keys<'a> = [&'a [u8; KEY_BYTES]; LANES_MAX];
type Rows = [[u8; ROW_BYTES]; LANES_MAX];

#[target_feature(enable = "avx2,bmi2")]
fn run_twice<J: Job>(jobs: &mut [J]) {
    engine::run::<Twice<Eight>, J>(Avx2::new(), jobs);
}

#[target_feature(enable = "avx2")]
fn mask_twice(jobs: &mut [MaskJob<'_>]) {
    mask::run::<Twice<Eight>>(Avx2::new(), jobs);
}

#[target_feature(enable = "avx2")]
fn blocks_avx2(keys: &Keys<'_>, rows: &Rows) -> Blocks {
    finish::<Eight>(Avx2::new(), block::mixed(Avx2::new(), keys, rows))
}

#[target_feature(enable = "avx512f")]
fn blocks_avx512(keys: &Keys<'_>, rows: &Rows) -> Blocks {
    finish::<Sixteen>(Avx512::new(), block::mixed(Avx512::new(), keys, rows))
}

#[target_feature(enable = "avx2")]
fn blocks_twice(keys: &Keys<'_>, rows: &Rows) -> Blocks {
    finish::<Twice<Eight>>(Avx2::new(), block::mixed(Avx2::new(), keys, rows))
}

#[target_feature(enable = "avx2")]
fn uniform_avx2(key: &[u8; KEY_BYTES], row: &[u8; ROW_BYTES]) -> Blocks {
    finish::<Eight>(Avx2::new(), block::uniform(Avx2::new(), key, row))
}

#[target_feature(enable = "avx512f")]
fn uniform_avx512(key: &[u8; KEY_BYTES], row: &[u8; ROW_BYTES]) -> Blocks {
    finish::<Sixteen>(Avx512::new(), block::uniform(Avx512::new(), key, row))
}

#[target_feature(enable = "avx2")]
fn uniform_twice(key: &[u8; KEY_BYTES], row: &[u8; ROW_BYTES]) -> Blocks {
    finish::<Twice<Eight>>(Avx2::new(), block::uniform(Avx2::new(), key, row))
}

#[inline(always)]
fn finish<L: Lanes>(proof: L::Proof, first: block::State<L>) -> Blocks {
    let mut state = first;
    for _ in 0..DOUBLE_ROUNDS {
        block::columns(proof, &mut state);
        block::diagonals(proof, &mut state);
    }
    block::add_all(&mut state, &first);
    let mut blocks = vec![[0; BLOCK_BYTES]; LANES_MAX];
    L::store_blocks(&state, &mut blocks);
    blocks
}

fn packet_key(key: &[u8], nonce: [u8; 12]) -> PacketKey {
    PacketKey::new(Cipher::ChaCha20Poly1305, key, nonce)
}

/// Bytes of hexadecimal text; blanks don't count.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "an even number of digits");
    pairs.iter().map(|[high, low]| high << 4 | low).collect()
}

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}
