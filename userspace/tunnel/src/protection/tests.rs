//! Goal: what the keys do when quinn and the batch disagree. Method: the calls that quinn makes, made here.
use super::context::{Reading, Verdict, sealing};
use super::*;
use rustls::quic::{HeaderProtectionKey as _, PacketKey as _};
use simd::{Cipher, OpenJob, TAG_BYTES};
use std::sync::Arc;

const HEADER: [u8; 20] = [0x41, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 0x12, 0x34];

fn key(cipher: Cipher, byte: u8) -> simd::PacketKey {
    simd::PacketKey::new(cipher, &vec![byte; cipher.key_bytes()], [byte; 12])
}

/// What `Burst::open` leaves of a packet that it tried under this key and number: the payload, or the ciphertext.
fn opened(level: Level, key: &simd::PacketKey, packet_number: u64, sealed: &[u8]) -> (Vec<u8>, bool) {
    let mut buffer = sealed.to_vec();
    let dst = &mut buffer[..sealed.len() - TAG_BYTES];
    let mut jobs =
        [OpenJob { key, packet_number, header: &HEADER, ciphertext: sealed, dst, authentic: false }];
    simd::open_batch(level, &mut jobs);
    let authentic = jobs[0].authentic;
    if !authentic {
        buffer.copy_from_slice(sealed);
    }
    (buffer, authentic)
}

// The restore path: quinn decodes another packet number, or picks another key, than the batch did.
#[test]
fn a_verdict_about_another_packet_is_undone() {
    for (cipher, &level) in
        Cipher::ALL.into_iter().flat_map(|c| Level::available().iter().map(move |l| (c, l)))
    {
        for (same_key, same_number, payload_bytes) in
            [(true, false, 1200), (false, true, 3), (false, false, 77), (true, true, 500)]
        {
            let right = keys::PacketKey::new(key(cipher, 5));
            let tried = Arc::new(key(cipher, if same_key { 5 } else { 6 }));
            let (number, tried_number) = (1200, if same_number { 1200 } else { 944 });
            let payload: Vec<u8> = (0..payload_bytes).map(|i| i as u8).collect();
            let mut sealed = payload.clone();
            let tag = key(cipher, 5).seal_in_place(number, &HEADER, &mut sealed).unwrap();
            sealed.extend(tag);
            let (mut buffer, authentic) = opened(level, &tried, tried_number, &sealed);
            assert_eq!(authentic, same_key && same_number);
            let mut burst_keys = vec![tried];
            let reading = Reading::enter(&mut burst_keys);
            let verdict = Verdict { keys: 0, packet_number: tried_number, authentic };
            let shown = reading.one(Some(verdict), || {
                let plain = right.decrypt_in_place(number, &HEADER, &mut buffer).unwrap();
                assert_eq!(plain, payload);
            });
            // Even the same bytes of a key are another key unless it is the same object.
            assert!(shown.restored);
            assert_eq!(shown.packet_number, Some(number));
            assert!(shown.eager.is_some(), "opened eagerly in the end");
        }
    }
}

// A forgery stays one after restoring, and its bytes are what came.
#[test]
fn a_forgery_is_refused_and_restored_exactly() {
    for (cipher, &level) in
        Cipher::ALL.into_iter().flat_map(|c| Level::available().iter().map(move |l| (c, l)))
    {
        let right = keys::PacketKey::new(key(cipher, 5));
        let tried = Arc::new(key(cipher, 5));
        let mut sealed = vec![9; 100];
        let tag = key(cipher, 5).seal_in_place(7, &HEADER, &mut sealed).unwrap();
        sealed.extend(tag);
        sealed[40] ^= 4;
        let (mut buffer, authentic) = opened(level, &tried, 300, &sealed);
        assert!(!authentic);
        let mut burst_keys = vec![tried];
        let reading = Reading::enter(&mut burst_keys);
        let verdict = Verdict { keys: 0, packet_number: 300, authentic };
        let shown = reading.one(Some(verdict), || {
            assert!(right.decrypt_in_place(7, &HEADER, &mut buffer).is_err());
        });
        assert_eq!(shown.packet_number, None);
        assert!(shown.restored);
        drop(reading);
        // The keys came back, and outside the scope everything is eager again.
        assert_eq!(burst_keys.len(), 1);
        sealed[40] ^= 4;
        assert!(right.decrypt_in_place(7, &HEADER, &mut sealed).is_ok());
    }
}

// What quinn-proto 0.11.19 does: seal, then protect the header. Any other order breaks the notes, which refuses the batch.
#[test]
fn calls_out_of_order_are_noticed() {
    let cipher = Cipher::Aes128Gcm;
    let packet = keys::PacketKey::new(key(cipher, 5));
    let header = keys::HeaderKey::new(simd::HeaderKey::new(cipher, &[1; 16]));
    let seal = || {
        let mut payload = vec![1; 50];
        packet.encrypt_in_place(1, &HEADER, &mut payload).unwrap();
        assert_eq!(payload, vec![1; 50], "left plain");
    };
    let protect = || {
        let (mut first, mut number) = (0x41, [0x12, 0x34, 1, 1]);
        header.encrypt_in_place(&[3; 16], &mut first, &mut number).unwrap();
        assert_eq!((first, number), (0x41, [0x12, 0x34, 1, 1]), "left plain");
    };
    let broken = |calls: &dyn Fn()| {
        let mut notes = Notes::default();
        sealing(&mut notes, calls);
        notes.broken
    };
    assert!(!broken(&|| {
        seal();
        protect();
        seal();
        protect();
    }));
    assert!(broken(&|| {
        seal();
        seal();
        protect();
    }));
    assert!(broken(&protect));
    assert!(broken(&|| {
        seal();
        protect();
        protect();
    }));
}
