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
    block,
    engine::{self, Scratch},
    entry,
    job::Job,
    lanes::{BLOCK_BYTES, KEY_BYTES, LANES_MAX, Lane, Lanes, ROW_BYTES, Twice},
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
        let lanes: AllLanes<'_> = std::array::from_fn(|i| Lane { key: &keys[lane(i)], row: &rows[lane(i)] });
        let mut blocks = match self {
            // SAFETY: a machine exists, so the CPU has AVX2.
            Self::Level(level) if level.kind() == Kind::Avx2 => unsafe { blocks_avx2(&lanes) },
            // SAFETY: the level says that the CPU has AVX-512F.
            Self::Level(_) => unsafe { blocks_avx512(&lanes) },
            // SAFETY: a machine exists, so the CPU has AVX2.
            Self::Twice => unsafe { blocks_twice(&lanes) },
        };
        blocks.truncate(self.lanes());
        blocks
    }

    /// As [`Self::blocks`], for consecutive blocks of one key and nonce.
    fn consecutive_blocks(self, key: &[u8; KEY_BYTES], row: &[u8; ROW_BYTES]) -> Vec<[u8; BLOCK_BYTES]> {
        let mut blocks = match self {
            // SAFETY: a machine exists, so the CPU has AVX2.
            Self::Level(level) if level.kind() == Kind::Avx2 => unsafe { uniform_avx2(Lane { key, row }) },
            // SAFETY: the level says that the CPU has AVX-512F.
            Self::Level(_) => unsafe { uniform_avx512(Lane { key, row }) },
            // SAFETY: a machine exists, so the CPU has AVX2.
            Self::Twice => unsafe { uniform_twice(Lane { key, row }) },
        };
        blocks.truncate(self.lanes());
        blocks
    }
}

type Blocks = Vec<[u8; BLOCK_BYTES]>;
type AllLanes<'a> = [Lane<'a>; LANES_MAX];

#[target_feature(enable = "avx2,bmi2")]
fn run_twice<J: Job>(jobs: &mut [J]) {
    engine::run::<Twice<Eight>, J, 2>(Avx2::new(), jobs, &mut Scratch::new());
}

#[target_feature(enable = "avx2")]
fn mask_twice(jobs: &mut [MaskJob<'_>]) {
    mask::run::<Twice<Eight>>(Avx2::new(), jobs);
}

#[target_feature(enable = "avx2")]
fn blocks_avx2(lanes: &AllLanes<'_>) -> Blocks {
    finish::<Eight>(block::mixed(Avx2::new(), lanes))
}

#[target_feature(enable = "avx512f")]
fn blocks_avx512(lanes: &AllLanes<'_>) -> Blocks {
    finish::<Sixteen>(block::mixed(Avx512::new(), lanes))
}

#[target_feature(enable = "avx2")]
fn blocks_twice(lanes: &AllLanes<'_>) -> Blocks {
    finish::<Twice<Eight>>(block::mixed(Avx2::new(), lanes))
}

#[target_feature(enable = "avx2")]
fn uniform_avx2(first: Lane<'_>) -> Blocks {
    finish::<Eight>(uniform(Avx2::new(), first))
}

#[target_feature(enable = "avx512f")]
fn uniform_avx512(first: Lane<'_>) -> Blocks {
    finish::<Sixteen>(uniform(Avx512::new(), first))
}

#[target_feature(enable = "avx2")]
fn uniform_twice(first: Lane<'_>) -> Blocks {
    finish::<Twice<Eight>>(uniform(Avx2::new(), first))
}

/// Consecutive blocks, by the way that is only for them.
#[inline(always)]
fn uniform<L: Lanes>(proof: L::Proof, lane: Lane<'_>) -> block::State<L> {
    let counter = u32::from_le_bytes(*lane.row.first_chunk().unwrap());
    block::uniform(proof, lane, L::index(proof).add(L::splat(proof, counter)))
}

#[inline(always)]
fn finish<L: Lanes>(first: block::State<L>) -> Blocks {
    let mut blocks = vec![[0; BLOCK_BYTES]; LANES_MAX];
    L::store_blocks(&block::rounds(&first), &mut blocks);
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
