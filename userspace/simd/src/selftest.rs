//! A quick comparison of a level with ring, for `beam doctor`: a few batches of every cipher, not a proof.

use crate::{Cipher, HeaderKey, Level, MaskJob, OpenJob, PacketKey, SealJob, TAG_BYTES, batch};

/// Payload lengths around the block and vector sizes.
const LENGTHS: [usize; 12] = [0, 1, 15, 16, 17, 63, 64, 255, 256, 1200, 1452, 8972];

/// The names of the ciphers for which `level` and ring disagree on this CPU.
#[must_use]
pub fn ciphers_that_differ_from_ring(level: Level) -> Vec<&'static str> {
    Cipher::ALL.into_iter().filter(|&cipher| !agrees(level, cipher)).map(Cipher::name).collect()
}

fn agrees(level: Level, cipher: Cipher) -> bool {
    let bytes: Vec<u8> = (0..cipher.key_bytes()).map(|i| (i * 37 + 11) as u8).collect();
    let key = PacketKey::new(cipher, &bytes, [0x5a; 12]);
    let header = [0x41; 21];
    let plaintext: Vec<u8> = (0..LENGTHS[LENGTHS.len() - 1]).map(|i| (i * 131) as u8).collect();
    let seal = |level| {
        let mut sealed: Vec<Vec<u8>> = LENGTHS.iter().map(|length| vec![0; length + TAG_BYTES]).collect();
        let mut jobs: Vec<SealJob<'_>> = (sealed.iter_mut().zip(LENGTHS).zip(7..))
            .map(|((dst, length), packet_number)| SealJob {
                key: &key,
                packet_number,
                header: &header,
                plaintext: &plaintext[..length],
                dst,
            })
            .collect();
        batch::seal_batch(level, &mut jobs);
        sealed
    };
    let sealed = seal(level);
    sealed == seal(Level::RING)
        && opens(level, &key, &header, &sealed, &plaintext)
        && masks(level, cipher, &bytes)
}

fn opens(level: Level, key: &PacketKey, header: &[u8], sealed: &[Vec<u8>], plaintext: &[u8]) -> bool {
    let mut forged = sealed.to_vec();
    for (n, packet) in forged.iter_mut().enumerate().filter(|(n, _)| n % 2 == 1) {
        let at = n * 7 % packet.len();
        packet[at] ^= 1;
    }
    let mut opened: Vec<Vec<u8>> = LENGTHS.iter().map(|&length| vec![0; length]).collect();
    let mut jobs: Vec<OpenJob<'_>> = (opened.iter_mut().zip(&forged).zip(7..))
        .map(|((dst, ciphertext), packet_number)| OpenJob {
            key,
            packet_number,
            header,
            ciphertext,
            dst,
            authentic: false,
        })
        .collect();
    batch::open_batch(level, &mut jobs);
    let right = |(n, job): (usize, &OpenJob<'_>)| match n % 2 {
        0 => job.authentic && *job.dst == plaintext[..job.dst.len()],
        _ => !job.authentic,
    };
    jobs.iter().enumerate().all(right)
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
