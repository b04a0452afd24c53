//! A quick comparison of a level with ring, for `beam doctor`: a few batches of every cipher, not a proof.

use crate::{Cipher, HeaderKey, Level, MaskJob, OpenJob, PacketKey, SealJob, TAG_BYTES, batch};

/// Payload lengths around the block and vector sizes.
const LENGTHS: [usize; 12] = [0, 1, 15, 16, 17, 63, 64, 255, 256, 1200, 1452, 8972];

const HEADER: [u8; 21] = [0x41; 21];

/// The names of the ciphers for which `level` and ring disagree on this CPU.
#[must_use]
pub fn ciphers_that_differ_from_ring(level: Level) -> Vec<&'static str> {
    Cipher::ALL.into_iter().filter(|&cipher| !agrees(level, cipher)).map(Cipher::name).collect()
}

/// Packets of one length: enough that no level leaves them to ring.
const PACKETS: u64 = 16;

fn agrees(level: Level, cipher: Cipher) -> bool {
    let bytes: Vec<u8> = (0..cipher.key_bytes()).map(|i| (i * 37 + 11) as u8).collect();
    let key = PacketKey::new(cipher, &bytes, [0x5a; 12]);
    LENGTHS.iter().all(|&length| {
        let plaintext: Vec<u8> = (0..length).map(|i| (i * 131) as u8).collect();
        let sealed = sealed(level, &key, &plaintext);
        sealed == self::sealed(Level::RING, &key, &plaintext) && opens(level, &key, sealed, &plaintext)
    }) && masks(level, cipher, &bytes)
}

fn sealed(level: Level, key: &PacketKey, plaintext: &[u8]) -> Vec<Vec<u8>> {
    let mut sealed = vec![vec![0; plaintext.len() + TAG_BYTES]; PACKETS as usize];
    let mut jobs: Vec<SealJob<'_>> = (sealed.iter_mut().zip(7..))
        .map(|(dst, packet_number)| SealJob { key, packet_number, header: &HEADER, plaintext, dst })
        .collect();
    batch::seal_batch(level, &mut jobs);
    sealed
}

/// Every other packet is forged.
fn opens(level: Level, key: &PacketKey, mut packets: Vec<Vec<u8>>, plaintext: &[u8]) -> bool {
    for (n, packet) in packets.iter_mut().enumerate().filter(|(n, _)| n % 2 == 1) {
        let at = n * 7 % packet.len();
        packet[at] ^= 1;
    }
    let mut opened = vec![vec![0; plaintext.len()]; packets.len()];
    let mut jobs: Vec<OpenJob<'_>> = (opened.iter_mut().zip(&packets).zip(7..))
        .map(|((dst, ciphertext), packet_number)| OpenJob {
            key,
            packet_number,
            header: &HEADER,
            ciphertext,
            dst,
            authentic: false,
        })
        .collect();
    batch::open_batch(level, &mut jobs);
    jobs.iter().enumerate().all(|(n, job)| match n % 2 {
        0 => job.authentic && *job.dst == *plaintext,
        _ => !job.authentic,
    })
}

fn masks(level: Level, cipher: Cipher, bytes: &[u8]) -> bool {
    let key = HeaderKey::new(cipher, bytes);
    let mut jobs: Vec<MaskJob<'_>> =
        (0..17).map(|n| MaskJob { key: &key, sample: [n * 15; 16], mask: [0; 5] }).collect();
    batch::mask_batch(level, &mut jobs);
    jobs.iter().all(|job| job.mask == key.mask(&job.sample))
}

#[cfg(test)]
mod tests {
    // Goal: no level of this CPU differs from ring.
    #[test]
    fn every_level_agrees() {
        for &level in crate::Level::available() {
            assert_eq!(super::ciphers_that_differ_from_ring(level), Vec::<&str>::new(), "{level}");
        }
    }
}
