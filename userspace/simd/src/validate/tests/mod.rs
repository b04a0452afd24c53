//! Goal: a burst's verdicts are exactly what `wire` says of each frame alone, and a sum is what RFC 1071 says.
//! Method: every level that this CPU has, and the same algorithms over emulated vectors of 256 and of 512 bits, against
//! `wire::datagram::parse` with its checksum and martian test: hand-made frames in every place of a vector, random
//! damage (seed printed; BEAM_SEED repeats a run), every burst size; sums of every length against 16-bit additions.

mod craft;
mod emulated;

use super::{Found, Verdict, classify_burst, headers, lanes::Lanes, sum, total};
use crate::Level;
use craft::{Plan, TAGS};
use emulated::Emulated;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;
use wire::{
    checksum::{Checksum, Sum},
    datagram::{self, Datagram, Reject},
};

/// Frames of one burst, as `xsk` asks for.
const BURST_COUNT: usize = 64;
/// Frames of the damage test.
const DAMAGED_COUNT: usize = 320_000;
/// The longest sum tested: a jumbo frame.
const SUM_BYTES_MAX: usize = 9100;

/// RFC 1071 section 4.1: 16-bit words in network order.
fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What is compared: everything that a receiver of the verdict can know.
#[derive(Debug, PartialEq)]
struct Judged {
    path: wire::Path,
    ecn_bits: u8,
    payload: std::ops::Range<usize>,
    is_martian: bool,
    checksum: Option<Checksum>,
}

fn expected(frame: &[u8], verify: bool) -> Result<Judged, Reject> {
    datagram::parse(frame).map(|datagram| {
        let checksum = verify.then(|| datagram.checksum(frame));
        let is_martian = datagram::is_martian(&datagram.path.remote);
        let Datagram { path, ecn_bits, payload, .. } = datagram;
        Judged { path, ecn_bits, payload, is_martian, checksum }
    })
}

fn judged(frame: &[u8], verdict: &Verdict) -> Result<Judged, Reject> {
    match verdict {
        Verdict::Reject(reject) => Err(*reject),
        Verdict::Datagram(found) => Ok(Judged {
            path: found.path(frame).unwrap(),
            ecn_bits: found.ecn_bits,
            payload: found.payload(),
            is_martian: found.is_martian,
            checksum: found.checksum,
        }),
    }
}

type Classify = dyn Fn(&[&[u8]], bool) -> Vec<Verdict>;
type Total = dyn Fn(&[u8]) -> Sum;

/// One implementation under test.
struct Twin {
    name: String,
    classify: Box<Classify>,
    sum: Box<Total>,
}

/// All levels that this CPU has, and the emulated vectors.
fn twins() -> Vec<Twin> {
    let mut twins = vec![emulated::<8>(), emulated::<16>()];
    for &level in Level::available() {
        twins.push(Twin {
            name: level.to_string(),
            classify: Box::new(move |frames, verify| {
                let mut verdicts = vec![Verdict::Reject(Reject::NotOurs(wire::headers::NotOurs::Short))];
                classify_burst(level, frames, verify, &mut verdicts);
                verdicts
            }),
            sum: Box::new(move |bytes| sum(level, bytes)),
        });
    }
    println!("twins: {:?}", twins.iter().map(|twin| twin.name.as_str()).collect::<Vec<_>>());
    twins
}

fn emulated<const WORDS: usize>() -> Twin {
    Twin {
        name: format!("emulated {WORDS} words"),
        classify: Box::new(|frames, verify| {
            let mut verdicts = Vec::new();
            headers::classify(Emulated::<WORDS>, frames, verify, &mut verdicts);
            verdicts
        }),
        sum: Box::new(|bytes| total::sum(Emulated::<WORDS>, bytes)),
    }
}

/// Asserts that every twin judges every frame of `burst` as `wire` does.
fn compare(twins: &[Twin], burst: &[&[u8]], verify: bool) {
    let expected: Vec<_> = burst.iter().map(|frame| expected(frame, verify)).collect();
    for twin in twins {
        let verdicts = (twin.classify)(burst, verify);
        assert_eq!(verdicts.len(), burst.len(), "{}", twin.name);
        for (index, (verdict, expected)) in verdicts.iter().zip(&expected).enumerate() {
            let frame = burst[index];
            assert_eq!(judged(frame, verdict), *expected, "{}: frame {index}: {frame:02x?}", twin.name);
        }
    }
}

fn seed() -> u64 {
    let seed =
        std::env::var("BEAM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("BEAM_SEED={seed}");
    seed
}

/// The kind of an outcome, for counting.
fn kind(outcome: &Result<Judged, Reject>) -> String {
    match outcome {
        Err(reject) => format!("{reject:?}"),
        Ok(judged) if judged.is_martian => "martian".into(),
        Ok(judged) => format!("{:?}", judged.checksum),
    }
}

/// Eight reasons of not being ours, five of being malformed, four checksums, martians.
const KIND_COUNT: usize = 8 + 5 + 4 + 1;

#[test]
fn crafted_frames_in_every_place() {
    let (twins, table) = (twins(), craft::table());
    let neighbours: Vec<_> = [(4, 80), (6, 80)]
        .map(|(family, payload_bytes)| Plan { tags: &[], family, payload_bytes }.frame())
        .into();
    for place in 0..16 {
        // Behind `place` plain frames each frame meets each place of a vector, in a crowd of its own kind.
        let mut burst: Vec<&[u8]> = (0..place).map(|index| neighbours[index % 2].as_slice()).collect();
        burst.extend(table.iter().map(Vec::as_slice));
        compare(&twins, &burst, place % 4 != 3);
    }
    // And alone among plain frames.
    for (index, frame) in table.iter().enumerate() {
        let mut burst: Vec<&[u8]> = (0..16).map(|place| neighbours[(index + place) % 2].as_slice()).collect();
        burst[index % 16] = frame;
        compare(&twins, &burst, true);
    }
    let kinds: BTreeMap<_, usize> = table.iter().fold(BTreeMap::new(), |mut kinds, frame| {
        *kinds.entry(kind(&expected(frame, true))).or_default() += 1;
        kinds
    });
    println!("{} frames: {kinds:?}", table.len());
    assert_eq!(kinds.len(), KIND_COUNT, "the table knows every outcome");
}

#[test]
fn damaged_frames() {
    let (twins, table, mut random) = (twins(), craft::table(), StdRng::seed_from_u64(seed()));
    let mut kinds = BTreeMap::<_, usize>::new();
    let mut frame_count = 0;
    while frame_count < DAMAGED_COUNT {
        let burst: Vec<_> = (0..BURST_COUNT).map(|_| craft::random(&table, &mut random)).collect();
        let views: Vec<_> = burst.iter().map(Vec::as_slice).collect();
        compare(&twins, &views, true);
        for frame in &views {
            *kinds.entry(kind(&expected(frame, true))).or_default() += 1;
        }
        frame_count += views.len();
    }
    println!("{frame_count} frames: {kinds:?}");
    assert_eq!(kinds.len(), KIND_COUNT, "the damage leads to every outcome");
}

#[test]
fn every_burst_size() {
    let (twins, table, mut random) = (twins(), craft::table(), StdRng::seed_from_u64(seed()));
    for size in (0..=BURST_COUNT).chain([65, 79, 80, 81, 127, 128, 129, 200]) {
        let burst: Vec<_> = (0..size).map(|_| craft::random(&table, &mut random)).collect();
        let views: Vec<_> = burst.iter().map(Vec::as_slice).collect();
        compare(&twins, &views, true);
        compare(&twins, &views, false);
    }
}

/// Else everything would be right, by way of the scalar parser.
#[test]
fn plain_frames_are_found_in_lanes() {
    fn plain<L: Lanes>(lanes: L, family: u8, tags: &[u16]) -> u64 {
        let frames: Vec<_> =
            (0..L::LANES).map(|index| Plan { tags, family, payload_bytes: 64 * index }.frame()).collect();
        headers::plain(lanes, &frames.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }
    for family in craft::FAMILIES {
        assert_eq!(plain(Emulated::<8>, family, &[]), 0xff);
        assert_eq!(plain(Emulated::<16>, family, &[]), 0xffff);
        for tags in &TAGS[1..] {
            assert_eq!(plain(Emulated::<16>, family, tags), 0);
        }
    }
}

#[test]
fn sums_of_every_length() {
    let mut random = StdRng::seed_from_u64(seed());
    let noise: Vec<u8> = (0..SUM_BYTES_MAX).map(|_| random.random()).collect();
    for bytes in [noise, vec![0xff; SUM_BYTES_MAX], vec![0; SUM_BYTES_MAX]] {
        let expected: Vec<_> =
            (0..=SUM_BYTES_MAX).map(|length| naive(&bytes[..length]).to_be_bytes()).collect();
        for twin in twins() {
            // Every alignment where alignments differ; else an even and an odd one.
            let in_vectors = twin.name.starts_with("avx");
            let alignments = if in_vectors { (0..64).collect() } else { vec![26, 47] };
            for alignment in alignments {
                let mut room = vec![0xa5; SUM_BYTES_MAX + 128];
                let start = room.as_ptr().align_offset(64) + alignment;
                room[start..start + SUM_BYTES_MAX].copy_from_slice(&bytes);
                for (length, expected) in expected.iter().enumerate() {
                    let sum = (twin.sum)(&room[start..start + length]).folded();
                    assert_eq!(sum, *expected, "{}: {length} bytes at {alignment}", twin.name);
                }
            }
        }
    }
}

/// A verdict asked about another frame answers, wrongly, but without a panic.
#[test]
fn the_wrong_frame_does_no_harm() {
    for tags in TAGS {
        let frame = Plan { tags, family: 6, payload_bytes: 9 }.frame();
        let mut verdicts = Vec::new();
        classify_burst(Level::best(), &[frame.as_slice()], true, &mut verdicts);
        let found: Vec<Found> = verdicts
            .iter()
            .filter_map(|verdict| match verdict {
                Verdict::Datagram(found) => Some(*found),
                Verdict::Reject(_) => None,
            })
            .collect();
        assert_eq!(found.len(), usize::from(tags.len() < 3));
        for length in 0..frame.len() {
            for found in &found {
                assert_eq!(found.path(&frame[..length]).is_some(), length >= 14 + 4 * tags.len() + 44);
            }
        }
    }
}
