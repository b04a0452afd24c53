//! The cache against an oracle.
//!
//! Method: seeded random puts, negative puts, gets (through a worker's table, in memory, through to the disk), takes and
//! steps of the clock; the oracle is a plain map of what was put last and until when. A cache may forget, so a miss is
//! always right; whatever it does say must be what the oracle says. And the counters must add up.

mod common;

use cache::{Cache, Disk, Found, Kind, Local, Loudness, Stamp};
use common::{Scratch, TTL_MAX, Words};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// What was put last, and until when; `None` is "there is none".
type Oracle = HashMap<u32, (Option<String>, u64)>;

fn agrees(oracle: &Oracle, now: u64, key: u32, found: &Found<String>) -> bool {
    let known = oracle.get(&key).filter(|(_, until)| *until > now);
    match (found, known) {
        (Found::Miss, _) => true,
        (Found::Hit(word), Some((Some(put), _))) => word == put,
        (Found::Negative, Some((None, _))) => true,
        _ => false,
    }
}

// Goal: nothing is ever found that was not put, that is over, or that was taken; hits, negatives and misses sum up to
// the lookups.
#[test]
fn memory_says_what_the_oracle_says() {
    for seed in 0..40u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let cache = Cache::<Words>::new(None);
        let mut oracle = Oracle::new();
        let (mut now, mut lookups, mut hits) = (1_000_000u64, 0u64, 0u64);
        for step in 0..4_000 {
            let key = rng.random_range(0..600);
            let ttl = rng.random_range(1..2 * TTL_MAX.as_millis() as u64);
            let until = now + ttl.min(TTL_MAX.as_millis() as u64);
            match rng.random_range(0..6) {
                0 | 1 => {
                    let word = format!("{seed}-{step}");
                    cache.put(Stamp(now), key, word.clone(), Duration::from_millis(ttl));
                    oracle.insert(key, (Some(word), until));
                }
                2 => {
                    cache.put_negative(Stamp(now), key, Duration::from_millis(ttl));
                    oracle.insert(key, (None, until));
                }
                3 => {
                    lookups += 1;
                    let taken = cache.take(Stamp(now), &key);
                    hits += u64::from(taken.is_some());
                    if let Some(word) = taken {
                        assert!(agrees(&oracle, now, key, &Found::Hit(word)), "seed {seed} step {step}");
                    }
                    oracle.remove(&key);
                }
                4 => now += rng.random_range(0..TTL_MAX.as_millis() as u64 / 50),
                _ => {
                    lookups += 1;
                    let found = cache.get(Stamp(now), &key);
                    hits += u64::from(matches!(found, Found::Hit(_)));
                    assert!(agrees(&oracle, now, key, &found), "seed {seed} step {step}: {found:?}");
                }
            }
            assert!(cache.len() <= Words::LIMITS.shared.entries_max, "seed {seed} step {step}");
        }
        let report = cache.report().shared.unwrap();
        assert_eq!(report.hits, hits, "seed {seed}");
        assert_eq!(report.hits + report.negative + report.misses, lookups, "seed {seed}: {report:?}");
        assert!(report.evictions > 0 && report.expired > 0 && report.negative > 0, "seed {seed}: {report:?}");
        assert!(report.bytes <= Words::LIMITS.shared.bytes_max as u64, "seed {seed}: {report:?}");
    }
}

// Goal: a worker's table never disagrees with what was true when it was filled, stays in its size, and its misses are
// exactly the lookups that reach the shared level.
#[test]
fn a_workers_table_promotes_and_stays_small() {
    for seed in 0..40u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let cache = Cache::<Words>::new(None);
        let mut local = Local::new(cache.clone());
        let mut now = 1_000_000u64;
        for key in 0..100 {
            cache.put(Stamp(now), key, key.to_string(), Duration::from_secs(60));
        }
        let mut lookups = 0;
        for _ in 0..2_000 {
            let key = if rng.random_bool(0.7) { rng.random_range(0..8) } else { rng.random_range(0..200) };
            let found = local.get(Stamp(now), &key);
            lookups += 1;
            match found {
                Found::Hit(word) => assert_eq!((word, key < 100), (key.to_string(), true), "seed {seed}"),
                Found::Negative => panic!("seed {seed}: nothing negative was put"),
                Found::Miss => {}
            }
            now += rng.random_range(0..60);
        }
        let (here, behind) = (local.report().unwrap(), cache.report().shared.unwrap());
        assert_eq!(here.hits + here.misses, lookups, "seed {seed}");
        assert_eq!(here.misses, behind.hits + behind.misses, "seed {seed}");
        assert_eq!(here.inserts, behind.hits, "each shared hit is a promotion; seed {seed}");
        assert!(here.entries <= 16 && here.hits > here.misses / 2, "seed {seed}: {here:?}");
        assert_eq!(here.inserts, here.entries + here.evictions + here.expired, "seed {seed}: {here:?}");
    }
}

// Goal: over restarts, what the disk says is what was put, and what was taken from it by `take_all` is never there again.
// Method: each round is a process: it opens the file, takes or reads what is there, puts, flushes, goes.
#[test]
fn the_disk_says_what_the_oracle_says_over_restarts() {
    for seed in 0..4u64 {
        let scratch = Scratch::new();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut oracle = Oracle::new();
        let mut now = 1_000_000u64;
        for round in 0..12 {
            let disk = Disk::new(&scratch.file(), Loudness::Warning);
            let cache = Cache::<Words>::new(Some(disk.clone()));
            let taking = rng.random_bool(0.5);
            if taking {
                cache.take_all(Stamp(now));
                let rest = Cache::<Words>::new(Some(disk.clone()));
                assert_eq!(rest.read_all(Stamp(now)), 0, "seed {seed} round {round}: taken means gone");
            }
            let mut found_count = 0;
            for key in 0..120 {
                let found = cache.get_through(Stamp(now), &key);
                found_count += usize::from(!found.is_miss());
                assert!(agrees(&oracle, now, key, &found), "seed {seed} round {round} key {key}: {found:?}");
                if !found.is_miss() {
                    assert_eq!(cache.get(Stamp(now), &key), found, "promoted");
                }
            }
            assert!(found_count <= 64, "seed {seed} round {round}: {found_count} of 64 at most");
            if taking {
                oracle.clear();
            }
            for step in 0..rng.random_range(0..60) {
                let (key, word) = (rng.random_range(0..120), format!("{seed}-{round}-{step}"));
                cache.put_through(Stamp(now), key, word.clone(), Duration::from_secs(50));
                oracle.insert(key, (Some(word), now + 50_000));
            }
            assert!(disk.flush(Duration::from_secs(20)), "seed {seed} round {round}");
            assert_eq!(cache.report().disk.unwrap().lost, 0, "seed {seed} round {round}");
            now += rng.random_range(0..30_000);
        }
    }
}

// Goal: of many threads that take one key, exactly one gets it.
#[test]
fn a_take_has_one_winner() {
    let cache = Cache::<Words>::new(None);
    for key in 0..200 {
        cache.put(Stamp(0), key, "once".into(), common::TTL);
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let cache: Arc<_> = cache.clone();
                std::thread::spawn(move || cache.take(Stamp(1), &key).is_some())
            })
            .collect();
        let won = takers.into_iter().map(|taker| taker.join().unwrap()).filter(|won| *won).count();
        assert_eq!(won, 1, "key {key}");
    }
}
