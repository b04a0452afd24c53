//! Goal: no batch, however odd, is treated otherwise than by ring. Method: seeded random bytes, with lengths drawn to the
//! borders of blocks and vectors and runs of like records, through the entry that libFuzzer uses too (scripts/fuzz).
//! BEAM_FUZZ_SEED and BEAM_FUZZ_ITERATIONS choose another run, BEAM_FUZZ_SECONDS goes on for so long; a failure prints
//! the seed, the iteration and the input.

use crate::input::{BATCH_LEN_MAX, RECORD_BYTES, one_input};
use crate::{from_environment, is_short, levels};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::{
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant},
};

const SEED: u64 = 0x6265_616d;
const ITERATION_COUNT: u64 = 2_000;
const ITERATION_COUNT_SHORT: u64 = 200;

/// Bytes of a batch: 1 to 64 records, and a few bytes over.
fn input(rng: &mut StdRng) -> Vec<u8> {
    let record_count = rng.random_range(1..=BATCH_LEN_MAX);
    let mut input = vec![0; record_count * RECORD_BYTES + rng.random_range(0..3)];
    rng.fill_bytes(&mut input);
    let (records, _) = input.as_chunks_mut::<RECORD_BYTES>();
    let is_alike = rng.random_range(0..4) == 0;
    let first = records[0];
    for record in records {
        if is_alike {
            // One key, one length: what a burst of one connection looks like.
            record[0] = first[0];
            record[2..4].copy_from_slice(&first[2..4]);
        } else if rng.random_range(0..3) == 0 {
            let border = 16 << rng.random_range(0..6);
            let length: u16 = border * rng.random_range(0..3) + rng.random_range(0..3);
            record[2..4].copy_from_slice(&length.saturating_sub(1).to_le_bytes());
        }
        record[8] %= 16;
    }
    input
}

#[test]
fn no_batch_differs_from_ring() {
    let seed = from_environment("BEAM_FUZZ_SEED", SEED);
    let default = if is_short() { ITERATION_COUNT_SHORT } else { ITERATION_COUNT };
    let iteration_count = from_environment("BEAM_FUZZ_ITERATIONS", default);
    let least = Duration::from_secs(from_environment("BEAM_FUZZ_SECONDS", 0));
    println!("seed {seed}, {iteration_count} iterations, {least:?} at least");
    let levels = levels();
    let mut rng = StdRng::seed_from_u64(seed);
    let start = Instant::now();
    let mut iteration = 0;
    while iteration < iteration_count || start.elapsed() < least {
        let input = input(&mut rng);
        if let Err(panicked) = panic::catch_unwind(AssertUnwindSafe(|| one_input(&levels, &input))) {
            eprintln!("seed {seed}, iteration {iteration}, input {}", input.escape_ascii());
            panic::resume_unwind(panicked);
        }
        iteration += 1;
    }
    println!("{iteration} batches took {:?}", start.elapsed());
}
