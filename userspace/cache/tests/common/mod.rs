//! A use of the cache for tests, and a directory of its own for each.
#![allow(dead_code, reason = "every test binary that includes this uses another part of it")]

use cache::{Bounds, Kind, Limits};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

pub(crate) const TTL: Duration = Duration::from_secs(60);
pub(crate) const TTL_MAX: Duration = Duration::from_secs(600);

/// Words by number, on all three levels.
pub(crate) struct Words;

impl Kind for Words {
    const NAME: &'static str = "words";
    const LIMITS: Limits = Limits {
        local_entries_max: 16,
        shared: Bounds { entries_max: 256, bytes_max: 64 << 10 },
        disk: Bounds { entries_max: 64, bytes_max: 16 << 10 },
        ttl_max: TTL_MAX,
    };
    type Key = u32;
    type Value = String;

    fn weight_bytes(_key: &u32, value: Option<&String>) -> usize {
        4 + value.map_or(0, String::len)
    }

    fn encode(_key: &u32, value: &String) -> Option<Vec<u8>> {
        Some(value.clone().into_bytes())
    }

    fn encode_key(key: &u32) -> Vec<u8> {
        key.to_be_bytes().to_vec()
    }

    fn decode(key: &[u8], value: &[u8]) -> Option<(u32, String)> {
        Some((u32::from_be_bytes(key.try_into().ok()?), String::from_utf8(value.to_vec()).ok()?))
    }
}

/// Gone when the test ends.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("beam-cache-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Self(path)
    }

    /// A file that the disk level makes in a directory of its own.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("cache").join("words.redb")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
