//! `cache_levels`: what a look-up costs at each level of the cache, hit or miss: a worker's own table (L1), the shared memory
//! behind it (L2, with promotion into L1), and the disk (L3, which no worker waits for; its file is opened for each).

use super::{Done, Meter, Op};
use cache::{Bounds, Cache, Disk, Found, Kind, Limits, Local, Loudness, Stamp};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{hint::black_box, net::Ipv4Addr};

const NOW: Stamp = Stamp(1_000_000);
const TTL: Duration = Duration::from_secs(60);
/// As many as find room in L1 at once, most of the time.
const KEYS: u64 = 64;
/// From the disk.
const DISK_KEYS: u64 = 8;

/// Names and their addresses, as of a resolver.
struct Names;

impl Kind for Names {
    const NAME: &'static str = "bench-names";
    const LIMITS: Limits = Limits {
        local_entries_max: 1024,
        shared: Bounds { entries_max: 4096, bytes_max: 1 << 20 },
        disk: Bounds { entries_max: 4096, bytes_max: 1 << 20 },
        ttl_max: Duration::from_secs(3600),
    };
    type Key = String;
    type Value = Ipv4Addr;

    fn weight_bytes(key: &String, _: Option<&Ipv4Addr>) -> usize {
        key.len() + 4
    }

    fn encode(_: &String, value: &Ipv4Addr) -> Option<Vec<u8>> {
        Some(value.octets().into())
    }

    fn encode_key(key: &String) -> Vec<u8> {
        key.clone().into_bytes()
    }

    fn decode(key: &[u8], value: &[u8]) -> Option<(String, Ipv4Addr)> {
        let octets: [u8; 4] = value.try_into().ok()?;
        Some((String::from_utf8(key.into()).ok()?, octets.into()))
    }
}

fn keys(prefix: &str, count: u64) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}.example.test")).collect()
}

fn filled(keys: &[String]) -> std::sync::Arc<Cache<Names>> {
    let cache = Cache::<Names>::new(None);
    for (number, key) in keys.iter().enumerate() {
        cache.put(NOW, key.clone(), Ipv4Addr::from(number as u32), TTL);
    }
    cache
}

pub(super) fn ops() -> Vec<Op> {
    vec![
        op("l1_hit", || {
            let keys = keys("known", KEYS);
            let mut local = Local::new(filled(&keys));
            get_all(&mut local, &keys);
            let before = local.report().expect("it has a table").hits;
            get_all(&mut local, &keys);
            assert!(local.report().expect("it has a table").hits >= before + KEYS * 9 / 10, "L1 answers");
            move |meter: &mut dyn Meter| meter.measure(&mut || get_all(&mut local, &keys))
        }),
        op("l1_miss_l2_hit_promotion", || {
            let keys = keys("known", KEYS);
            let shared = filled(&keys);
            move |meter: &mut dyn Meter| {
                let mut local = Local::new(shared.clone());
                meter.measure(&mut || get_all(&mut local, &keys));
                assert_eq!(local.report().expect("it has a table").inserts, KEYS, "each was promoted");
            }
        }),
        op("l1_miss_l2_miss", || {
            let strange = keys("strange", KEYS);
            let mut local = Local::new(filled(&keys("known", KEYS)));
            move |meter: &mut dyn Meter| {
                meter.measure(&mut || {
                    for key in &strange {
                        assert!(black_box(local.get(NOW, black_box(key))).is_miss());
                    }
                });
            }
        }),
        op("l2_hit", || {
            let keys = keys("known", KEYS);
            let shared = filled(&keys);
            move |meter: &mut dyn Meter| {
                meter.measure(&mut || {
                    for key in &keys {
                        assert!(matches!(shared.get(NOW, black_box(key)), Found::Hit(_)));
                    }
                });
            }
        }),
        op("l2_negative", || {
            let keys = keys("absent", KEYS);
            let shared = Cache::<Names>::new(None);
            keys.iter().for_each(|key| shared.put_negative(NOW, key.clone(), TTL));
            move |meter: &mut dyn Meter| {
                meter.measure(&mut || {
                    for key in &keys {
                        assert_eq!(shared.get(NOW, black_box(key)), Found::Negative);
                    }
                });
            }
        }),
        disk("l3_hit_promotion", "known", |found| matches!(found, Found::Hit(_))),
        disk("l3_miss", "strange", Found::is_miss),
    ]
}

fn get_all(local: &mut Local<Names>, keys: &[String]) {
    for key in keys {
        assert!(matches!(local.get(NOW, black_box(key)), Found::Hit(_)));
    }
}

fn op<W>(name: &str, prepare: impl Fn() -> W + 'static) -> Op
where
    W: FnMut(&mut dyn Meter) + 'static,
{
    let done = Done { units: KEYS, bytes: 0 };
    Op::new(format!("cache_levels/{name}"), "lookup", done, move |_| {
        let mut work = prepare();
        move |meter: &mut dyn Meter| {
            work(meter);
            done
        }
    })
}

/// Look-ups that memory can't answer, while the disk holds what is known.
fn disk(name: &str, asked: &'static str, right: fn(&Found<Ipv4Addr>) -> bool) -> Op {
    let done = Done { units: DISK_KEYS, bytes: 0 };
    let op = Op::new(format!("cache_levels/{name}"), "lookup", done, move |_| {
        let place = Place::new();
        let disk = Disk::new(&place.0.join("cache.redb"), Loudness::Warning);
        let cache = Cache::<Names>::new(Some(disk.clone()));
        for (number, key) in keys("known", DISK_KEYS).into_iter().enumerate() {
            cache.put_through(NOW, key, Ipv4Addr::from(number as u32), TTL);
        }
        assert!(disk.flush(Duration::from_secs(60)), "the disk takes it");
        let keys = keys(asked, DISK_KEYS);
        move |meter: &mut dyn Meter| {
            let _kept = &place;
            cache.clear();
            meter.measure(&mut || {
                for key in &keys {
                    let found = cache.get_through(NOW, black_box(key));
                    assert!(right(&found), "{found:?}");
                }
            });
            done
        }
    });
    op.uncounted()
}

/// A directory that is gone afterwards.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("beam-bench-cache-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).expect("a temporary directory");
        Self(directory)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
