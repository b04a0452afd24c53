//! Goal: the library's verdict is what the RFCs and the design ask for, and userspace's parser agrees with it.
//! Method: the crafted table of `craft`, then random mutations of its frames; no privilege needed. The program that
//! runs in the kernel is held against this same library in `verdicts.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod craft;

use craft::{Random, seed, table, targets};
use steer::{Counter, TargetKey, Verdict, verdict};
use wire::datagram::{self, Reject};

fn judge(frame: &[u8]) -> Verdict {
    let targets = targets().map(|target| TargetKey::from_socket_addr(&target));
    verdict(frame, |key| targets.contains(key))
}

#[test]
fn every_crafted_frame_gets_its_verdict() {
    let cases = table();
    for case in &cases {
        assert_eq!(judge(&case.frame), case.expected, "{}: {:02x?}", case.name, case.frame);
    }
    // Each reason is met, or the table has a hole. Redirected and NoSocket are the program's to tell apart.
    for counter in Counter::ALL {
        let met = cases.iter().any(|case| match case.expected {
            Verdict::Ours => matches!(counter, Counter::Redirected | Counter::NoSocket),
            Verdict::NotOurs(reason) | Verdict::Malformed(reason) => reason == *counter,
        });
        assert!(met, "no case for {}", counter.name());
    }
}

/// Steering and userspace can't disagree: what is ours parses, and what is malformed or unreadable doesn't, for the
/// same reason.
#[test]
fn userspace_parses_whatever_steering_calls_ours() {
    let mut random = Random(seed());
    let cases = table();
    let mut met = [0u64; 3];
    for round in 0..2_000_000 {
        let mut frame = craft::base(&cases, &mut random);
        craft::mutate::mutate(&mut frame, &mut random);
        let verdict = judge(&frame);
        let parsed = datagram::parse(&frame);
        match (verdict, &parsed) {
            (Verdict::Ours, Ok(datagram)) => {
                met[0] += 1;
                assert!(targets().contains(&datagram.path.local));
                assert!(
                    datagram.payload.start <= datagram.payload.end && datagram.payload.end <= frame.len()
                );
            }
            (Verdict::NotOurs(Counter::PassOtherTarget), Ok(datagram)) => {
                assert!(!targets().contains(&datagram.path.local));
            }
            (Verdict::NotOurs(Counter::PassOtherTarget), Err(Reject::Malformed(_))) => {}
            (Verdict::NotOurs(counter), Err(Reject::NotOurs(reason))) => {
                met[1] += 1;
                assert_eq!(counter, Counter::from(*reason));
            }
            (Verdict::Malformed(counter), Err(Reject::Malformed(reason))) => {
                met[2] += 1;
                assert_eq!(counter, Counter::from(*reason));
            }
            _ => panic!("round {round}: {verdict:?} against {parsed:?}: {frame:02x?}"),
        }
    }
    println!("{} ours, {} not ours, {} malformed", met[0], met[1], met[2]);
    assert!(met.iter().all(|&count| count > 10_000), "the mutations reach too little: {met:?}");
}

#[test]
fn counters_have_distinct_names_in_index_order() {
    for (index, counter) in Counter::ALL.iter().enumerate() {
        assert_eq!(counter.index() as usize, index);
        assert_eq!(Counter::NAMES[index], counter.name());
        assert_eq!(Counter::NAMES.iter().filter(|name| **name == counter.name()).count(), 1);
    }
    assert_eq!(Counter::COUNT as usize, Counter::NAMES.len());
}

/// The key is hashed by the kernel as bytes: these are the bytes.
#[test]
fn target_keys_lie_in_memory_as_the_map_wants_them() {
    let [v4, v6] = targets().map(|target| TargetKey::from_socket_addr(&target).to_bytes());
    assert_eq!(v4, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 1, 1, 187, 4, 0]);
    assert_eq!(v6, [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 187, 6, 0]);
}

#[test]
fn the_object_is_an_aligned_bpf_elf() {
    assert_eq!(steer::OBJECT.as_ptr().align_offset(8), 0);
    assert_eq!(&steer::OBJECT[..7], b"\x7fELF\x02\x01\x01", "64 bits, little-endian");
    assert_eq!(steer::OBJECT[18..20], 247u16.to_le_bytes(), "EM_BPF");
    assert!(steer::OBJECT.len() < 64 << 10, "{} bytes: was debug information left in?", steer::OBJECT.len());
}
