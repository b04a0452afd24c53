//! The disk level where the disk is not what it should be: corrupt, locked, unwritable, full of a stranger's data.
//!
//! The property is always the same: no panic, no error, at most one warning; what is read is what was written or nothing;
//! and memory goes on working.

mod common;

use cache::{Cache, Disk, Found, Loudness, Stamp};
use common::{Scratch, TTL, Words};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

const NOW: Stamp = Stamp(1_000_000);
const WITHIN: Duration = Duration::from_secs(20);

/// A file with words 0 to 19.
fn written(path: &Path) {
    let disk = Disk::new(path, Loudness::Warning);
    let cache = Cache::<Words>::new(Some(disk));
    for key in 0..20 {
        cache.put(NOW, key, format!("word {key}"), TTL);
    }
    assert_eq!(cache.save_all(NOW), 20);
}

/// Reads, writes and takes with whatever is there. Returns how many words came back.
fn exercise(path: &Path) -> usize {
    let disk = Disk::new(path, Loudness::Warning);
    let cache = Cache::<Words>::new(Some(disk.clone()));
    let mut right = 0;
    for key in 0..20 {
        match cache.get_through(NOW, &key) {
            Found::Hit(word) => {
                assert_eq!(word, format!("word {key}"));
                right += 1;
            }
            other => assert_eq!(other, Found::Miss),
        }
    }
    cache.put_through(NOW, 99, "fresh".into(), TTL);
    assert_eq!(cache.get(NOW, &99), Found::Hit("fresh".into()), "memory works whatever the disk does");
    assert!(disk.flush(WITHIN));
    drop((cache, disk));
    let again = Cache::<Words>::new(Some(Disk::new(path, Loudness::Warning)));
    again.take_all(NOW);
    right
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

// Goal: the file is for its owner alone, and so is its directory, also where both were wider before.
#[test]
fn files_are_0600_in_a_directory_of_0700() {
    let scratch = Scratch::new();
    let file = scratch.file();
    written(&file);
    let directory = file.parent().unwrap();
    assert_eq!((mode(&file), mode(directory)), (0o600, 0o700));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(exercise(&file), 20);
    assert_eq!((mode(&file), mode(directory)), (0o600, 0o700));
}

// Goal: one flipped, zeroed or lost byte anywhere costs entries at most. Method: over the whole file, each page's first
// bytes, and a stride through the rest; then truncations.
#[test]
fn corruption_at_each_of_many_offsets_costs_entries_at_most() {
    let scratch = Scratch::new();
    let file = scratch.file();
    written(&file);
    let good = fs::read(&file).unwrap();
    let used: Vec<usize> = (0..good.len()).filter(|&at| good[at] != 0).collect();
    let heads = (0..512.min(good.len())).step_by(17);
    let offsets: Vec<usize> = heads.chain(used.iter().copied().step_by((used.len() / 60).max(1))).collect();
    let (mut whole, mut lost) = (0, 0);
    for &at in &offsets {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        fs::write(&file, &bad).unwrap();
        match exercise(&file) {
            20 => whole += 1,
            _ => lost += 1,
        }
    }
    println!("{} offsets of {} bytes: {whole} harmless, {lost} lost entries", offsets.len(), good.len());
    assert!(lost > 10, "the test does hit what matters");
    for length in [0, 1, 9, 64, 320, 4095, 4096, 10_000, good.len() / 2, good.len() - 1] {
        fs::write(&file, &good[..length.min(good.len())]).unwrap();
        exercise(&file);
    }
    fs::write(&file, b"not a database at all, and longer than a header would be".repeat(300)).unwrap();
    assert_eq!(exercise(&file), 0);
    assert!(file.with_file_name("words.redb.corrupt").exists(), "set aside for whoever wants to look");
    fs::write(&file, &good).unwrap();
    assert_eq!(exercise(&file), 20, "and a good file is as good as before");
}

// Goal: what is no file of ours is left alone.
#[test]
fn a_directory_or_a_link_in_the_files_place_is_an_empty_level() {
    let scratch = Scratch::new();
    let file = scratch.file();
    fs::create_dir_all(&file).unwrap();
    assert_eq!(exercise(&file), 0);
    fs::remove_dir_all(&file).unwrap();
    let elsewhere = scratch.0.join("elsewhere");
    fs::write(&elsewhere, b"precious").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert_eq!(exercise(&file), 0);
    assert_eq!(fs::read(&elsewhere).unwrap(), b"precious", "a link is not followed");
}

// Goal: a place that can't be written is an empty level, for root too. Method: a directory below a regular file.
#[test]
fn an_unwritable_place_is_an_empty_level() {
    let scratch = Scratch::new();
    let blocked = scratch.0.join("file");
    fs::write(&blocked, b"").unwrap();
    let path = blocked.join("cache").join("words.redb");
    assert_eq!(exercise(&path), 0);
    let cache = Cache::<Words>::new(Some(Disk::new(&path, Loudness::Warning)));
    cache.put(NOW, 1, "one".into(), TTL);
    assert_eq!(cache.save_all(NOW), 0);
    assert_eq!(cache.report().disk.unwrap().lost, 1);
}

// Goal: while another process has the file, ours has its memory; and the file is whole afterwards.
#[test]
fn another_holder_of_the_lock_leaves_an_empty_level() {
    let scratch = Scratch::new();
    let file = scratch.file();
    written(&file);
    let held = redb::Database::open(&file).unwrap();
    assert_eq!(exercise_once(&file), 0);
    drop(held);
    assert_eq!(exercise(&file), 20);
}

fn exercise_once(path: &Path) -> usize {
    let cache = Cache::<Words>::new(Some(Disk::new(path, Loudness::Warning)));
    let moved = cache.take_all(NOW);
    cache.put_through(NOW, 5, "mine".into(), TTL);
    assert_eq!(cache.get(NOW, &5), Found::Hit("mine".into()));
    moved
}

// Goal: two processes of one user share the file, each for a moment at a time. Method: two disks, interleaved.
#[test]
fn two_users_of_one_file_take_turns() {
    let scratch = Scratch::new();
    let file = scratch.file();
    let disks: Vec<_> = (0..2).map(|_| Disk::new(&file, Loudness::Warning)).collect();
    let caches: Vec<_> = disks.iter().map(|disk| Cache::<Words>::new(Some(disk.clone()))).collect();
    for key in 0..40u32 {
        caches[key as usize % 2].put_through(NOW, key, key.to_string(), TTL);
    }
    assert!(disks.iter().all(|disk| disk.flush(WITHIN)));
    let reader = Cache::<Words>::new(Some(Disk::new(&file, Loudness::Warning)));
    assert_eq!(reader.read_all(NOW), 40);
    assert_eq!(caches.iter().map(|cache| cache.report().disk.unwrap().lost).sum::<u64>(), 0);
}

// Goal: a table never grows beyond its bounds; what ends soonest makes room.
#[test]
fn the_disk_is_bounded() {
    let scratch = Scratch::new();
    let disk = Disk::new(&scratch.file(), Loudness::Warning);
    let cache = Cache::<Words>::new(Some(disk.clone()));
    for key in 0..200u32 {
        cache.put_on_disk(NOW, &key, key.to_string(), TTL + Duration::from_secs(u64::from(key)));
        assert!(key % 50 != 49 || disk.flush(WITHIN));
    }
    let report = cache.report().disk.unwrap();
    assert!(report.entries <= 64 && report.evictions >= 136, "{report:?}");
    assert_eq!(report.inserts, 200);
    assert!(cache.read_all(NOW) <= 64);
    assert_eq!(cache.get(NOW, &199), Found::Hit("199".into()), "the last to end stays");
    assert_eq!(cache.get(NOW, &0), Found::Miss);
}

// Goal: no writer is ever waited for, and what the queue had no room for is counted.
#[test]
fn a_full_queue_loses_writes_and_counts_them() {
    let scratch = Scratch::new();
    let file = scratch.file();
    written(&file);
    let held = redb::Database::open(&file).unwrap();
    let disk = Disk::new(&file, Loudness::Debug);
    let cache = Cache::<Words>::new(Some(disk.clone()));
    for key in 0..3_000u32 {
        cache.put_on_disk(NOW, &key, "w".into(), TTL);
    }
    let lost = cache.report().disk.unwrap().lost;
    assert!(lost > 0, "1024 wait, one batch is being tried; {lost} lost so far");
    drop(held);
    assert!(disk.flush(WITHIN));
    let report = cache.report().disk.unwrap();
    assert_eq!(report.lost + report.inserts, 3_000, "{report:?}");
}
