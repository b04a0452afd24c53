//! The store of what is taken once, against an oracle.
//!
//! Method: seeded random puts of values of every length class, takes under the right tag and under another, and steps of the
//! clock; the oracle is a plain map with the order of arrival. What the oracle hasn't is never found; and while nothing was
//! pushed out, what the oracle has is.

mod common;

use cache::{Bounds, Disk, Id, Limits, Loudness, Once, Stamp, Value};
use common::Scratch;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::{collections::HashMap, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);

fn limits(entries_max: usize, bytes_max: usize) -> Limits {
    let bounds = Bounds { entries_max, bytes_max };
    Limits { local_entries_max: 0, shared: bounds, disk: bounds, ttl_max: HOUR }
}

fn id(rng: &mut StdRng) -> Id {
    let mut id = Id::default();
    rng.fill_bytes(&mut id);
    id
}

// Goal: each value is taken once, by its tag, in its time; all that fits is there.
#[test]
fn each_is_taken_once_by_its_tag_in_its_time() {
    for seed in 0..40u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let store = Once::new("things", limits(1 << 20, 1 << 30), None);
        let mut oracle: HashMap<Id, (u8, Value, u64)> = HashMap::new();
        let mut names: Vec<Id> = Vec::new();
        let (mut now_s, mut takes, mut hits, mut puts) = (1_000_000u64, 0u64, 0u64, 0u64);
        for step in 0..4_000 {
            match rng.random_range(0..6) {
                0..3 => {
                    // Now and then one that is there, or was.
                    let known = rng.random_bool(0.1) && !names.is_empty();
                    let name = if known { names[rng.random_range(0..names.len())] } else { id(&mut rng) };
                    let length = [0, 1, 40, 41, 76, 80, 256, 257, 3000][rng.random_range(0..9)];
                    let common = vec![rng.random_range(0..3); [0, 7, 128][rng.random_range(0..3)]];
                    let mut value = Value { common, own: vec![0; length].into() };
                    rng.fill_bytes(&mut value.own);
                    let (tag, ttl_s) = (rng.random_range(0..3), rng.random_range(1..5_000));
                    assert!(store.put(
                        Stamp(now_s * 1000),
                        &name,
                        &[tag; 32],
                        &value,
                        Duration::from_secs(ttl_s)
                    ));
                    oracle.insert(name, (tag, value, now_s + ttl_s.min(HOUR.as_secs())));
                    names.push(name);
                    puts += 1;
                }
                3 => now_s += rng.random_range(0..60),
                _ if names.is_empty() => {}
                _ => {
                    let name = names[rng.random_range(0..names.len())];
                    let known = oracle.remove(&name);
                    let right = rng.random_bool(0.8);
                    let tag = known.as_ref().map_or(0, |(tag, ..)| if right { *tag } else { tag + 1 });
                    let taken = store.take(Stamp(now_s * 1000), &name, &[tag; 32]);
                    let wanted = known.filter(|(of, _, until_s)| *of == tag && *until_s > now_s);
                    assert_eq!(taken, wanted.map(|(_, value, _)| value), "seed {seed} step {step}");
                    takes += 1;
                    hits += u64::from(taken.is_some());
                }
            }
            assert_eq!(store.len(), oracle.len(), "seed {seed} step {step}");
        }
        let report = store.report().shared.unwrap();
        assert_eq!((report.hits, report.hits + report.misses), (hits, takes), "seed {seed}");
        assert_eq!((report.inserts, report.evictions), (puts, 0), "seed {seed}");
        assert!(hits > 100 && report.expired > 0, "seed {seed}: {report:?}");
    }
}

// Goal: neither bound is ever passed, and who goes is older than all who stay, within each of the eight parts.
#[test]
fn the_oldest_make_room() {
    for (seed, bounds) in [(1, limits(80, 1 << 20)), (2, limits(1 << 20, 8 * 1000))] {
        let mut rng = StdRng::seed_from_u64(seed);
        let store = Once::new("things", bounds, None);
        let names: Vec<Id> = (0..2_000).map(|_| id(&mut rng)).collect();
        for name in &names {
            assert!(store.put(Stamp(1_000_000), name, &[1; 32], &Value::own(vec![7; 76]), HOUR));
            let report = store.report().shared.unwrap();
            assert!(report.entries <= bounds.shared.entries_max as u64, "seed {seed}");
            assert!(report.bytes <= bounds.shared.bytes_max as u64, "seed {seed}");
        }
        let report = store.report().shared.unwrap();
        assert_eq!(report.entries + report.evictions, 2_000, "seed {seed}");
        assert!(report.entries >= 56, "seed {seed}: {report:?}");
        let mut gone_since = [false; 8];
        for name in names.iter().rev() {
            let part = usize::from(name[7]) % 8;
            let is_there = store.take(Stamp(1_000_000), name, &[1; 32]).is_some();
            assert!(!(is_there && gone_since[part]), "seed {seed}: an older one outlived a newer one");
            gone_since[part] |= !is_there;
        }
        assert!(store.is_empty());
        assert!(
            !store.put(Stamp(1_000_000), &names[0], &[1; 32], &Value::own(vec![0; 70_000]), HOUR),
            "too long for any"
        );
    }
}

// Goal: memory is what the report says, and goes to those who come: 50,000 come and go in waves, and the store is no larger
// than for one wave.
#[test]
fn places_are_used_again() {
    let mut rng = StdRng::seed_from_u64(3);
    let store = Once::new("things", limits(1 << 20, 1 << 30), None);
    for _ in 0..10 {
        let names: Vec<Id> = (0..5_000).map(|_| id(&mut rng)).collect();
        for name in &names {
            assert!(store.put(Stamp(1_000_000), name, &[1; 32], &Value::own(name.to_vec()), HOUR));
        }
        assert_eq!(store.len(), 5_000);
        let bytes = store.report().shared.unwrap().bytes;
        assert!(bytes <= 5_000 * 80, "{bytes}");
        for name in &names {
            assert_eq!(store.take(Stamp(1_000_000), name, &[1; 32]), Some(Value::own(name.to_vec())));
        }
        assert_eq!(store.report().shared.unwrap().bytes, 0);
    }
}

// Goal: over restarts, what is moved into memory is nowhere else, what is read stays, and both can be taken under their tag
// alone. Method: each store is a process.
#[test]
fn the_disk_keeps_them_for_the_next_process() {
    let scratch = Scratch::new();
    let open =
        || Once::new("things", limits(1000, 1 << 20), Some(Disk::new(&scratch.file(), Loudness::Warning)));
    let now = Stamp(1_000_000_000);
    let name = |n: u8| [n; 8];
    let value = |n: u8| Value { common: vec![n % 3; 40], own: vec![n; 300].into() };
    let first = open();
    for n in 0..10 {
        assert!(first.put(now, &name(n), &[n % 2; 32], &value(n), HOUR));
    }
    assert!(first.take(now, &name(0), &[0; 32]).is_some());
    assert_eq!(first.save_all(now), 9);
    drop(first);
    let second = open();
    assert_eq!((second.read_all(now), second.len()), (9, 9));
    drop(second);
    let third = open();
    assert_eq!((third.take_all(now), third.len()), (9, 9));
    assert_eq!(third.take(now, &name(1), &[1; 32]), Some(value(1)));
    assert_eq!(third.take(now, &name(3), &[0; 32]), None, "another tag");
    assert_eq!(open().take_all(now), 0);
    // What is in its time only.
    assert_eq!(third.save_all(now.after(2 * HOUR)), 0);
    assert_eq!(third.save_all(now), 7);
    assert_eq!(open().take_all(now.after(2 * HOUR)), 0);
}

// Goal: what values have in common is no place to fill memory with, and those that come later are still kept.
#[test]
fn what_is_in_common_is_bounded() {
    let store = Once::new("things", limits(1 << 20, 1 << 30), None);
    let put = |n: u32, common: Vec<u8>| {
        let value = Value { common, own: n.to_le_bytes().to_vec().into() };
        let id = (u64::from(n) << 32 | u64::from(n)).to_le_bytes();
        store.put(Stamp(1_000_000), &id, &[1; 32], &value, HOUR).then_some((id, value))
    };
    assert_eq!(put(0, vec![0; 129]), None, "too long");
    let kept: Vec<_> = (0..1500).filter_map(|n| put(n, n.to_le_bytes().to_vec())).collect();
    assert_eq!((kept.len(), store.len()), (1024, 1024), "too many");
    let bare = put(5000, Vec::new()).expect("nothing in common");
    for (id, value) in kept.into_iter().chain([bare]) {
        assert_eq!(store.take(Stamp(1_000_000), &id, &[1; 32]), Some(value));
    }
}
