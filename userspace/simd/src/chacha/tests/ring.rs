//! Goal: the batch gives ring's bytes and ring's verdicts, byte for byte.
//!
//! Method: packets from a seed, sealed by ring one by one and by the batch; every length to 600, then strides to 9100,
//! with every header length to 64 and every batch size to 64 among them, sources and targets at every alignment.

use super::*;
use crate::HeaderKey;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

const TAG: usize = 16;

/// A packet, what ring makes of it, and where in their memory source and target begin.
struct Packet {
    key: usize,
    number: u64,
    header: Vec<u8>,
    source: Vec<u8>,
    source_at: usize,
    sealed: Vec<u8>,
    sealed_at: usize,
}

impl Packet {
    fn new(rng: &mut StdRng, keys: &[PacketKey], text_bytes: usize, header_bytes: usize) -> Self {
        let (key, number) = (rng.random_range(0..keys.len()), rng.random_range(0..1 << 62));
        let (source_at, sealed_at) = (rng.random_range(0..64), rng.random_range(0..64));
        let (mut header, mut source) = (vec![0; header_bytes], vec![0; source_at + text_bytes]);
        rng.fill_bytes(&mut header);
        rng.fill_bytes(&mut source);
        let mut sealed = vec![0; sealed_at + text_bytes + TAG];
        let (text, tag) = sealed[sealed_at..].split_at_mut(text_bytes);
        text.copy_from_slice(&source[source_at..]);
        tag.copy_from_slice(&keys[key].seal_in_place(number, &header, text).unwrap());
        Self { key, number, header, source, source_at, sealed, sealed_at }
    }

    fn text(&self) -> &[u8] {
        &self.source[self.source_at..]
    }

    fn ciphertext(&self) -> &[u8] {
        &self.sealed[self.sealed_at..]
    }
}

fn keys(rng: &mut StdRng, count: usize) -> Vec<PacketKey> {
    (0..count).map(|_| packet_key(&rng.random::<[u8; 32]>(), rng.random())).collect()
}

fn seal(machine: Machine, keys: &[PacketKey], packets: &[Packet]) {
    let mut targets: Vec<_> = packets.iter().map(|packet| vec![0xaa; packet.sealed.len() + 64]).collect();
    let mut jobs: Vec<_> = packets
        .iter()
        .zip(&mut targets)
        .map(|(packet, target)| SealJob {
            key: &keys[packet.key],
            packet_number: packet.number,
            header: &packet.header,
            plaintext: packet.text(),
            dst: &mut target[packet.sealed_at..packet.sealed.len()],
        })
        .collect();
    machine.seal(&mut jobs);
    for (packet, target) in packets.iter().zip(&targets) {
        let (before, sealed) = target[..packet.sealed.len()].split_at(packet.sealed_at);
        let case = format!("{machine}: {} B, header {} B", packet.text().len(), packet.header.len());
        assert!(sealed == packet.ciphertext(), "{case}");
        assert!(
            before.iter().chain(&target[packet.sealed.len()..]).all(|&b| b == 0xaa),
            "{case}: beside the target"
        );
    }
}

/// Opens, and returns the verdicts; where one is true, the text is compared.
fn open(machine: Machine, keys: &[PacketKey], packets: &[Packet]) -> Vec<bool> {
    let mut targets: Vec<_> = packets.iter().map(|packet| vec![0xaa; packet.source.len() + 64]).collect();
    let mut jobs: Vec<_> = packets
        .iter()
        .zip(&mut targets)
        .map(|(packet, target)| OpenJob {
            key: &keys[packet.key],
            packet_number: packet.number,
            header: &packet.header,
            ciphertext: packet.ciphertext(),
            dst: &mut target[packet.source_at..packet.source.len()],
            authentic: false,
        })
        .collect();
    machine.open(&mut jobs);
    let verdicts: Vec<_> = jobs.iter().map(|job| job.authentic).collect();
    for ((packet, target), authentic) in packets.iter().zip(&targets).zip(&verdicts) {
        let (before, text) = target[..packet.source.len()].split_at(packet.source_at);
        let case = format!("{machine}: {} B, header {} B", packet.text().len(), packet.header.len());
        assert!(!authentic || text == packet.text(), "{case}");
        assert!(
            before.iter().chain(&target[packet.source.len()..]).all(|&b| b == 0xaa),
            "{case}: beside the target"
        );
    }
    verdicts
}

fn seal_and_open(machine: Machine, keys: &[PacketKey], packets: &[Packet]) {
    seal(machine, keys, packets);
    let verdicts = open(machine, keys, packets);
    assert_eq!(verdicts.iter().filter(|&&authentic| authentic).count(), packets.len(), "{machine}");
}

/// Every length alone, and in batches of mixed lengths, keys, headers and alignments.
#[test]
fn every_length() {
    let seed = 0x8439;
    println!("seed {seed:#x}");
    let mut rng = StdRng::seed_from_u64(seed);
    let keys = keys(&mut rng, 5);
    let lengths: Vec<_> = (0..=600).chain((601..=9100).step_by(83)).chain([9100]).collect();
    let packets: Vec<_> =
        lengths.iter().enumerate().map(|(i, &bytes)| Packet::new(&mut rng, &keys, bytes, i % 65)).collect();
    for machine in machines() {
        packets.iter().for_each(|packet| seal_and_open(machine, &keys, std::slice::from_ref(packet)));
        // Neighbours in length, then a long one beside short ones.
        packets.chunks(37).for_each(|batch| seal_and_open(machine, &keys, batch));
    }
}

/// Every batch size, with lengths that lie together and lengths that don't.
#[test]
fn every_batch_size() {
    let seed = 0x9001;
    println!("seed {seed:#x}");
    let mut rng = StdRng::seed_from_u64(seed);
    for count in 1..=64 {
        let keys = keys(&mut rng, 1 + count / 2);
        let max = [1500, 200, 64, 20][count % 4];
        let packets: Vec<_> = (0..count)
            .map(|_| {
                let (text, header) = (rng.random_range(0..=max), rng.random_range(0..=64));
                Packet::new(&mut rng, &keys, text, header)
            })
            .collect();
        machines().into_iter().for_each(|machine| seal_and_open(machine, &keys, &packets));
    }
}

/// One bit of one packet, in each place of the batch: that one is refused and no other.
#[test]
fn a_forgery_is_refused_alone() {
    let seed = 0xf0f0;
    println!("seed {seed:#x}");
    let mut rng = StdRng::seed_from_u64(seed);
    let keys = keys(&mut rng, 3);
    for machine in machines() {
        let bytes: Vec<_> = (0..40).map(|_| rng.random_range(0..300)).collect();
        let mut packets: Vec<_> =
            bytes.iter().map(|&bytes| Packet::new(&mut rng, &keys, bytes, 25)).collect();
        for forged in 0..packets.len() {
            for place in 0..3 {
                let flip = 1 << rng.random_range(0..8);
                let packet = &mut packets[forged];
                let text = packet.source.len() - packet.source_at;
                // The text (or the tag where there is none), the tag, the header.
                let at = match place {
                    0 => packet.sealed_at + rng.random_range(0..text.max(1)),
                    _ => packet.sealed_at + text + rng.random_range(0..TAG),
                };
                let header_at = rng.random_range(0..packet.header.len());
                let byte = |packet: &mut Packet| match place {
                    2 => packet.header[header_at] ^= flip,
                    _ => packet.sealed[at] ^= flip,
                };
                byte(packet);
                let verdicts = open(machine, &keys, &packets);
                let refused: Vec<_> = (0..verdicts.len()).filter(|&i| !verdicts[i]).collect();
                assert_eq!(refused, [forged], "{machine}");
                byte(&mut packets[forged]);
            }
        }
    }
}

/// Every number of masks, mixed keys.
#[test]
fn masks_equal_rings() {
    let seed = 0x5044;
    println!("seed {seed:#x}");
    let mut rng = StdRng::seed_from_u64(seed);
    let keys: Vec<_> =
        (0..5).map(|_| HeaderKey::new(Cipher::ChaCha20Poly1305, &rng.random::<[u8; 32]>())).collect();
    for machine in machines() {
        for count in 0..=64 {
            let mut jobs: Vec<_> = (0..count)
                .map(|_| MaskJob { key: &keys[rng.random_range(0..5)], sample: rng.random(), mask: [0; 5] })
                .collect();
            machine.mask(&mut jobs);
            assert!(jobs.iter().all(|job| job.mask == job.key.mask(&job.sample)), "{machine}, {count}");
        }
    }
}

/// A packet alone, or one that is most of its batch, goes to ring; batches whose packets can go side by side don't.
#[test]
fn small_batches_are_rings() {
    let seed = 0x51;
    println!("seed {seed:#x}");
    let mut rng = StdRng::seed_from_u64(seed);
    let keys = keys(&mut rng, 2);
    let long_ones = |count: usize| [vec![9000; count], vec![40; 5]].concat();
    let cases = [
        (vec![0], false),
        (vec![9100], false),
        (vec![1200; 2], false),
        (vec![1200; 3], true),
        (vec![1201; 5], false),
        (vec![4000; 6], true),
        (vec![9000; 11], false),
        (vec![9000; 12], true),
        (long_ones(1), false),
        (long_ones(12), true),
        ([vec![1200; 2], vec![40; 30]].concat(), true),
    ];
    for (lengths, ours) in cases {
        let packets: Vec<_> = lengths.iter().map(|&bytes| Packet::new(&mut rng, &keys, bytes, 25)).collect();
        let mut targets: Vec<_> = lengths.iter().map(|bytes| vec![0; bytes + TAG]).collect();
        let mut jobs: Vec<_> = packets
            .iter()
            .zip(&mut targets)
            .map(|(packet, dst)| SealJob {
                key: &keys[packet.key],
                packet_number: packet.number,
                header: &packet.header,
                plaintext: packet.text(),
                dst,
            })
            .collect();
        assert_eq!(super::super::is_worth_it(&jobs), ours, "{lengths:?}");
        crate::seal_batch(Level::best(), &mut jobs);
        assert!(packets.iter().zip(&targets).all(|(packet, target)| packet.ciphertext() == target));
    }
}
