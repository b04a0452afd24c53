//! One entry for fuzzers: arbitrary bytes become a batch, which every level has to treat as ring does. Shared by the
//! seeded runner (`fuzz.rs`) and the libFuzzer target (`fuzz/`).
//!
//! Sixteen bytes make a packet: key, forgery, length (two bytes), three alignments, header length, content, a position
//! (three bytes) and a packet number (four). What is left over is ignored.

use crate::oracle::{Key, Mask};
use crate::packet::{Align, Packet, equal_ring, open};
use beam_simd::{Cipher, Level, MaskJob, SAMPLE_BYTES, TAG_BYTES, mask_batch};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::LazyLock;

/// Bytes of input a packet.
pub(crate) const RECORD_BYTES: usize = 16;
/// Packets a batch; the rest of the input is ignored.
pub(crate) const BATCH_LEN_MAX: usize = 64;
const KEY_COUNT: usize = 24;

static KEYS: LazyLock<Vec<(Key, Mask)>> = LazyLock::new(|| {
    let mut rng = StdRng::seed_from_u64(1);
    let cipher = |index: usize| Cipher::ALL[index % Cipher::ALL.len()];
    (0..KEY_COUNT).map(|at| (Key::random(cipher(at), &mut rng), Mask::random(cipher(at), &mut rng))).collect()
});

/// One packet's bytes of input.
type Record = [u8; RECORD_BYTES];

/// Checks the batch that `input` describes, at each of `levels`.
///
/// # Panics
/// When a level's bytes or verdicts aren't ring's. That is the finding.
pub(crate) fn one_input(levels: &[Level], input: &[u8]) {
    let (records, _) = input.as_chunks::<RECORD_BYTES>();
    let records = &records[..records.len().min(BATCH_LEN_MAX)];
    let mut packets: Vec<Packet<'_>> = records.iter().map(packet).collect();
    levels.iter().for_each(|level| equal_ring(*level, &packets));
    for (packet, record) in packets.iter_mut().zip(records) {
        forge(packet, record);
    }
    let verdicts: Vec<Option<Vec<u8>>> =
        packets.iter().map(|packet| packet.key.open(packet.number, &packet.header, &packet.sealed)).collect();
    for level in levels {
        assert!(open(*level, &packets) == verdicts, "open at {level}: a verdict or a payload isn't ring's");
        check_masks(*level, records, &packets);
    }
}

fn key(record: &Record) -> &'static (Key, Mask) {
    &KEYS[usize::from(record[0]) % KEY_COUNT]
}

fn packet(record: &Record) -> Packet<'static> {
    let [_, _, low, high, header_at, source_at, destination_at, header_len, ..] = record.map(usize::from);
    // Half of the packets are short, where the tails are.
    let length = match high & 0x80 {
        0 => (low | high << 8) % 600,
        _ => (low | high << 8) % 9101,
    };
    let number = u64::from_le_bytes([record[12], record[13], record[14], record[15], 0, 0, 0, record[11]]);
    let key = &key(record).0;
    let mut rng = StdRng::seed_from_u64(u64::from(record[8]));
    let mut header = [0; 96];
    rng.fill_bytes(&mut header);
    let header = &header[..header_len % 97];
    let mut plaintext = vec![0; length];
    match record[8] {
        0 => {}
        1 => plaintext.fill(0xff),
        // Ciphertext of all ones, through the key stream that sealing zeros shows.
        2 => plaintext = key.seal(number, &[], &plaintext)[..length].iter().map(|byte| !byte).collect(),
        // Ciphertext of zeros.
        3 => plaintext = key.seal(number, &[], &plaintext)[..length].to_vec(),
        _ => rng.fill_bytes(&mut plaintext),
    }
    let align = Align { header: header_at % 64, source: source_at % 64, destination: destination_at % 64 };
    Packet::new(key, number, header, &plaintext).at(align)
}

/// Half of the packets stay as they are; ring says what became of the others.
fn forge(packet: &mut Packet<'static>, record: &Record) {
    let position = usize::from(record[9]) | usize::from(record[10]) << 8;
    let bit = 1 << (record[11] % 8);
    let len = packet.sealed.len();
    match record[1] % 16 {
        0 => packet.sealed[len - 1 - position % TAG_BYTES] ^= bit,
        1 => packet.sealed[position % len] ^= bit,
        2 if !packet.header.is_empty() => {
            let at = position % packet.header.len();
            packet.header[at] ^= bit;
        }
        3 => packet.number ^= 1 << (position % 64),
        4 => packet.sealed.truncate(TAG_BYTES + position % (len - TAG_BYTES + 1)),
        5 => packet.sealed.push(record[11]),
        6 => packet.key = &KEYS[position % KEY_COUNT].0,
        7 => packet.header.push(record[11]),
        _ => {}
    }
}

fn check_masks(level: Level, records: &[Record], packets: &[Packet<'_>]) {
    let samples =
        packets.iter().map(|packet| packet.sealed[..SAMPLE_BYTES].try_into().expect("a tag at least"));
    let mut jobs: Vec<MaskJob<'_>> = records
        .iter()
        .zip(samples)
        .map(|(record, sample)| MaskJob { key: &key(record).1.header, sample, mask: [0; 5] })
        .collect();
    mask_batch(level, &mut jobs);
    for (job, record) in jobs.iter().zip(records) {
        assert_eq!(job.mask, key(record).1.mask(&job.sample), "{:?} at {level}", job.key);
    }
}
