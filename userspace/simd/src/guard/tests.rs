//! Goal: the canary finds a faulty vector path, what leaves is right all the same, and from then on ring does the work.
//! Method: guards over operations that damage one kind of result, enough packets for the canary to look once; and
//! protected packets taken apart again by ring.
use super::*;
use crate::{Cipher, HeaderKey, Packet, PacketKey};
use std::sync::Mutex;

const HEADER: [u8; 21] = [0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 0xaa, 0xbb, 0xcc];

/// A guard that can be stopped without stopping those of other tests.
fn guard(operations: Operations) -> Guard {
    let level = Level::best();
    // Kept reachable, for the leak checker.
    static SWITCHES: Mutex<Vec<&AtomicBool>> = Mutex::new(Vec::new());
    let stopped: &AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    SWITCHES.lock().unwrap().push(stopped);
    Guard { operations, stopped, ..Guard::new(level) }
}

fn keys(cipher: Cipher) -> (PacketKey, HeaderKey) {
    let bytes = [7; 32];
    let bytes = &bytes[..cipher.key_bytes()];
    (PacketKey::new(cipher, bytes, [9; 12]), HeaderKey::new(cipher, bytes))
}

/// Protects a packet of one slot, and takes it apart with ring.
fn there_and_back(guard: &mut Guard, cipher: Cipher, number: u64) {
    let (key, header_key) = keys(cipher);
    let payload: Vec<u8> = (0..100).map(|i| (i + number) as u8).collect();
    let bytes = [&HEADER[..], &payload, &[0; TAG_BYTES]].concat();
    let packet = Packet::Plain {
        key: &key,
        header_key: &header_key,
        packet_number: number,
        bytes: &bytes,
        header_bytes: HEADER.len(),
        packet_number_bytes: 3,
    };
    let sealed = guard.protect(vec![vec![0; bytes.len()]], &[packet]).unwrap().remove(0);
    let mut wire = sealed.into_inner();
    let sample = wire[HEADER.len() + 1..HEADER.len() + 17].try_into().unwrap();
    let mask = header_key.mask(&sample);
    wire[0] ^= mask[0] & 0x1f;
    (0..3).for_each(|i| wire[18 + i] ^= mask[1 + i]);
    let (header, body) = wire.split_at_mut(HEADER.len());
    assert_eq!(header, HEADER);
    assert_eq!(key.open_in_place(number, header, body), Some(payload.len()));
    assert_eq!(body[..payload.len()], payload);
}

/// Protects packets one by one until the canary has looked twice at seals and at masks. All but those that it looks at
/// may be damaged by the fault, so only these, and all after a failure, are checked.
fn works_and_counts(operations: Operations, failures: u64) {
    if Level::best() == Level::RING {
        println!("SKIPPED: this CPU has no vector path to watch");
        return;
    }
    for cipher in Cipher::ALL {
        let mut guard = guard(operations);
        for number in 0..2 * u64::from(CANARY_INTERVAL_PACKETS) {
            if failures == 0 || guard.countdowns.seal == 1 || guard.is_stopped() {
                there_and_back(&mut guard, cipher, number);
            } else {
                guard.countdowns.seal -= 1;
            }
        }
        // Each packet is one seal and one mask, alone in its batch: the canary must not see the one kind only.
        let looks = if failures == 0 { 4 } else { 1 };
        assert_eq!(guard.stats().canary_checked, looks, "{}", cipher.name());
        assert_eq!(guard.stats().canary_failed, failures);
        assert_eq!(guard.is_stopped(), failures > 0);
        assert_eq!(guard.level() == Level::RING, failures > 0);
    }
}

#[test]
fn a_sound_path_goes_on() {
    works_and_counts(REAL, 0);
}

#[test]
fn a_damaged_seal_stops_the_vector_path() {
    let seal = |level: Level, jobs: &mut [SealJob<'_>]| {
        batch::seal_batch(level, jobs);
        if level != Level::RING {
            jobs.iter_mut().for_each(|job| job.dst[5] ^= 1);
        }
    };
    works_and_counts(Operations { seal, ..REAL }, 1);
}

#[test]
fn a_wrong_verdict_or_payload_stops_the_vector_path() {
    let refuses = |level: Level, jobs: &mut [OpenJob<'_>]| {
        batch::open_batch(level, jobs);
        jobs.iter_mut().for_each(|job| job.authentic = false);
    };
    let accepts = |level: Level, jobs: &mut [OpenJob<'_>]| {
        batch::open_batch(level, jobs);
        jobs.iter_mut().for_each(|job| job.authentic = true);
    };
    let damages = |level: Level, jobs: &mut [OpenJob<'_>]| {
        batch::open_batch(level, jobs);
        jobs.iter_mut().for_each(|job| job.dst[3] ^= 0x10);
    };
    type Open = fn(Level, &mut [OpenJob<'_>]);
    for (open, forged) in [(refuses as Open, false), (accepts, true), (damages, false)] {
        if Level::best() == Level::RING {
            println!("SKIPPED: this CPU has no vector path to watch");
            return;
        }
        let mut guard = guard(Operations { open, ..REAL });
        guard.countdowns.open = 1;
        let (key, _) = keys(Cipher::Aes128Gcm);
        let mut wire = b"payload".to_vec();
        let tag = key.seal_in_place(4, &HEADER, &mut wire).unwrap();
        wire.extend(tag);
        wire[0] ^= u8::from(forged);
        let mut dst = vec![0; 7];
        let mut jobs = [OpenJob {
            key: &key,
            packet_number: 4,
            header: &HEADER,
            ciphertext: &wire,
            dst: &mut dst,
            authentic: false,
        }];
        guard.open(&mut jobs);
        assert_eq!(jobs[0].authentic, !forged);
        assert!(forged || dst == b"payload");
        assert_eq!(guard.stats().canary_failed, 1);
        assert_eq!(guard.level(), Level::RING);
    }
}

#[test]
fn a_damaged_mask_stops_the_vector_path() {
    let mask = |level: Level, jobs: &mut [MaskJob<'_>]| {
        batch::mask_batch(level, jobs);
        jobs.iter_mut().for_each(|job| job.mask[4] ^= 1);
    };
    if Level::best() == Level::RING {
        println!("SKIPPED: this CPU has no vector path to watch");
        return;
    }
    let mut guard = guard(Operations { mask, ..REAL });
    guard.countdowns.mask = 1;
    let (_, key) = keys(Cipher::ChaCha20Poly1305);
    let mut jobs = [MaskJob { key: &key, sample: [3; 16], mask: [0; 5] }];
    guard.mask(&mut jobs);
    assert_eq!(jobs[0].mask, key.mask(&[3; 16]));
    assert!(guard.is_stopped());
}

// Goal: what doesn't tile is refused whole. Method: slots and packets that miss each other by one byte or one packet.
#[test]
fn packets_tile_their_slots_or_nothing_is_sealed() {
    let mut guard = guard(REAL);
    let protected = |bytes| Packet::Protected { bytes };
    let refused = |guard: &mut Guard, slots: &[usize], packets: &[&'static [u8]]| {
        let slots = slots.iter().map(|&len| vec![0; len]).collect();
        let packets: Vec<Packet<'_>> = packets.iter().map(|bytes| protected(*bytes)).collect();
        guard.protect::<Vec<u8>>(slots, &packets).is_err()
    };
    assert!(!refused(&mut guard, &[3, 4], &[b"abc", b"de", b"fg"]));
    assert!(refused(&mut guard, &[4, 3], &[b"abc", b"de", b"fg"]), "a packet crosses slots");
    assert!(refused(&mut guard, &[3, 5], &[b"abc", b"de", b"fg"]), "a byte is left over");
    assert!(refused(&mut guard, &[3, 2], &[b"abc", b"de", b"fg"]), "a packet is left over");
    assert!(refused(&mut guard, &[3], &[b"", b"abc"]), "an empty packet");
    let (key, header_key) = keys(Cipher::Aes128Gcm);
    for (len, packet_number_bytes, sound) in
        [(40, 3, true), (37, 3, false), (38, 3, true), (40, 0, false), (40, 5, false)]
    {
        let bytes = vec![0x40; len];
        let packet = Packet::Plain {
            key: &key,
            header_key: &header_key,
            packet_number: 0,
            bytes: &bytes,
            header_bytes: 21,
            packet_number_bytes,
        };
        assert_eq!(
            guard.protect(vec![vec![0; len]], &[packet]).is_ok(),
            sound,
            "{len} {packet_number_bytes}"
        );
    }
}
