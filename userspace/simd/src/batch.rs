//! The three batch operations: checks the jobs, then gives each run of one cipher to the implementation of the level.

use crate::{Cipher, Level, MaskJob, OpenJob, SealJob, TAG_BYTES, chacha, gcm};

/// Seals every job. Jobs of one cipher, and of one key, are best kept side by side.
///
/// # Panics
/// If a job's `dst` isn't [`TAG_BYTES`] longer than its plaintext.
pub fn seal_batch(level: Level, jobs: &mut [SealJob<'_>]) {
    jobs.iter().for_each(SealJob::check);
    for run in jobs.chunk_by_mut(|a, b| a.key.cipher() == b.key.cipher()) {
        let done = match run[0].key.cipher() {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => gcm::seal(level, run),
            Cipher::ChaCha20Poly1305 => chacha::seal(level, run),
        };
        if !done {
            run.iter_mut().for_each(seal_by_ring);
        }
    }
}

/// Opens every job and leaves its verdict in `authentic`.
///
/// # Panics
/// If a job's `dst` isn't [`TAG_BYTES`] shorter than its ciphertext.
pub fn open_batch(level: Level, jobs: &mut [OpenJob<'_>]) {
    jobs.iter().for_each(OpenJob::check);
    for run in jobs.chunk_by_mut(|a, b| a.key.cipher() == b.key.cipher()) {
        let done = match run[0].key.cipher() {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => gcm::open(level, run),
            Cipher::ChaCha20Poly1305 => chacha::open(level, run),
        };
        if !done {
            run.iter_mut().for_each(open_by_ring);
        }
    }
}

/// Computes every job's mask.
pub fn mask_batch(level: Level, jobs: &mut [MaskJob<'_>]) {
    for run in jobs.chunk_by_mut(|a, b| a.key.cipher() == b.key.cipher()) {
        let done = match run[0].key.cipher() {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => gcm::mask(level, run),
            Cipher::ChaCha20Poly1305 => chacha::mask(level, run),
        };
        if !done {
            run.iter_mut().for_each(|job| job.mask = job.key.mask(&job.sample));
        }
    }
}

fn seal_by_ring(job: &mut SealJob<'_>) {
    let (payload, tag) = job.dst.split_at_mut(job.plaintext.len());
    payload.copy_from_slice(job.plaintext);
    // ring's only refusal is a packet of 64 GiB.
    let Some(sealed) = job.key.seal_in_place(job.packet_number, job.header, payload) else {
        unreachable!("a packet shorter than the AEAD's limit")
    };
    tag.copy_from_slice(&sealed);
}

fn open_by_ring(job: &mut OpenJob<'_>) {
    let (ciphertext, tag) = job.ciphertext.split_at(job.dst.len());
    job.dst.copy_from_slice(ciphertext);
    let Ok(tag) = <[u8; TAG_BYTES]>::try_from(tag) else { unreachable!("checked by the batch") };
    job.authentic = job.key.open_separate_tag(job.packet_number, job.header, job.dst, tag);
}
