//! Many small values, each of which is taken once: what a gateway keeps for clients that come back.
//!
//! A [`Cache`](crate::Cache) is for what is asked for again and again. This is for what is put, lies for hours, and is then
//! taken by one who names it, or is pushed out by newer ones: a hundred thousand of them must not cost more than their
//! bytes. So what many values have in common is kept once for all of them, 40 bytes that are a value's own take 70 to 80 in
//! all, and memory grows by chunks ([`shard`]), which stay for those to come.
//!
//! A value is put under a tag, and only who gives the same tag gets it. Tags are few: all values of one configuration have
//! the same. The disk, if there is one, knows each value by its id, with its tag in front, and what it has in common.

mod shard;

use crate::{
    counters::{CacheReport, Counters, count},
    disk::{Disk, Record},
    kind::{Limits, Stamp},
};
use shard::Shard;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::Ordering::Relaxed},
    time::Duration,
};
use zeroize::Zeroizing;

/// What a value is asked for by: a random number that its maker chose.
pub type Id = [u8; 8];
/// What must be the same when it is put and when it is taken.
pub type Tag = [u8; 32];

/// Parts with a lock of their own, so that workers seldom meet, and none waits for long while an index grows.
const SHARDS: usize = 8;
/// Longer values aren't kept.
const VALUE_BYTES_MAX: usize = u16::MAX as usize;
/// Different pairs of a tag and what values have in common, and the bytes of the latter. They stay for good.
const GROUPS_MAX: usize = 1024;
const COMMON_BYTES_MAX: usize = 128;

/// What is kept, in two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The same in many values, and no secret: kept for good, once for each tag.
    pub common: Vec<u8>,
    /// The rest, which may be secret.
    pub own: Zeroizing<Vec<u8>>,
}

impl Value {
    /// One that has nothing in common with others.
    #[must_use]
    pub fn own(own: Vec<u8>) -> Self {
        Self { common: Vec::new(), own: own.into() }
    }
}

/// Values under one tag, with the same in common.
struct Group {
    tag: Tag,
    common: Box<[u8]>,
}

/// What is known of a value in memory.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Since the Unix epoch.
    expires_s: u32,
    /// By its place in the list of groups.
    group: u16,
}

impl Slot {
    fn expires(self) -> Stamp {
        Stamp(u64::from(self.expires_s) * 1000)
    }
}

/// See the module. Its bounds hold always: the oldest go.
pub struct Once {
    name: &'static str,
    limits: Limits,
    shards: [Mutex<Shard>; SHARDS],
    groups: RwLock<Vec<Arc<Group>>>,
    counters: Counters,
    disk: Option<Arc<Disk>>,
    disk_counters: Arc<Counters>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Once({}: {})", self.name, self.len())
    }
}

impl Once {
    /// An empty store. `limits` has no level of the workers' own.
    #[must_use]
    pub fn new(name: &'static str, limits: Limits, disk: Option<Arc<Disk>>) -> Self {
        let disk = disk.filter(|_| limits.disk.exists());
        Self {
            name,
            limits,
            shards: std::array::from_fn(|_| Mutex::new(Shard::new())),
            groups: RwLock::default(),
            counters: Counters::default(),
            disk,
            disk_counters: Arc::default(),
        }
    }

    /// Keeps a value in memory. False: it is too long, there is too much that others have in common, or the system has no
    /// memory.
    pub fn put(&self, now: Stamp, id: &Id, tag: &Tag, value: &Value, ttl: Duration) -> bool {
        self.insert(id, tag, value, self.expiry(now, ttl))
    }

    /// The same, and has it written to the disk soon.
    pub fn put_through(&self, now: Stamp, id: &Id, tag: &Tag, value: &Value, ttl: Duration) -> bool {
        let expires = self.expiry(now, ttl);
        let is_kept = self.insert(id, tag, value, expires);
        if let (Some(disk), true) = (&self.disk, is_kept) {
            let record = Record { expires, value: written(tag, &value.common, &value.own) };
            disk.put_later(now, self.name, id.to_vec(), record, self.limits.disk, &self.disk_counters);
        }
        is_kept
    }

    /// Takes a value out of memory: of all who ask, one gets it. Asked for under another tag, it is nobody's from then on.
    pub fn take(&self, now: Stamp, id: &Id, tag: &Tag) -> Option<Value> {
        let found = self.shard(id).take(id);
        self.judged(now, tag, found)
    }

    /// As [`Once::take`], and has the disk forget it soon. A crash before that leaves it there: this is no single use.
    pub fn take_soon_everywhere(&self, now: Stamp, id: &Id, tag: &Tag) -> Option<Value> {
        let found = self.shard(id).take(id);
        if let (Some(disk), true) = (&self.disk, found.is_some()) {
            disk.remove_later(self.name, id.to_vec(), &self.disk_counters);
        }
        self.judged(now, tag, found)
    }

    /// Moves what is on the disk into memory. The disk's copy is gone for good before this returns; if it can't be
    /// removed, nothing was moved. So nothing that is taken from memory afterwards is ever there again. Not for workers.
    pub fn take_all(&self, now: Stamp) -> usize {
        self.disk.as_ref().map_or(0, |disk| self.load(now, disk.take_all(self.name)))
    }

    /// Copies what is on the disk into memory, and leaves it there. Not for workers.
    pub fn read_all(&self, now: Stamp) -> usize {
        self.disk.as_ref().map_or(0, |disk| self.load(now, disk.read_all(self.name)))
    }

    /// Adds what is in memory to the disk, and is in its time. The disk has it when this returns. Not for workers.
    pub fn save_all(&self, now: Stamp) -> usize {
        let Some(disk) = &self.disk else { return 0 };
        let mut records = Vec::new();
        for shard in &self.shards {
            lock(shard).for_each(|id, slot, own| {
                let expires = slot.expires();
                if let Some(group) = self.group(slot).filter(|_| !self.is_over(now, expires)) {
                    let value = written(&group.tag, &group.common, own);
                    records.push((id.to_vec(), Record { expires, value }));
                }
            });
        }
        let count = records.len();
        let is_kept = disk.add_all(self.name, records, self.limits.disk, now);
        let counter = if is_kept { &self.disk_counters.inserts } else { &self.disk_counters.lost };
        counter.fetch_add(count as u64, Relaxed);
        if is_kept { count } else { 0 }
    }

    /// Values in memory.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether memory holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters.
    pub fn report(&self) -> CacheReport {
        let bytes: usize = self.shards.iter().map(|shard| lock(shard).bytes()).sum();
        let shared = self.counters.report(self.len() as u64, bytes as u64);
        let disk = self.disk.as_ref().map(|disk| {
            let (entries, bytes) = disk.size(self.name);
            self.disk_counters.report(entries, bytes)
        });
        CacheReport { name: self.name, local: None, shared: Some(shared), disk }
    }

    /// What was taken out, if it is in its time and for who asks.
    fn judged(&self, now: Stamp, tag: &Tag, found: Option<(Slot, Zeroizing<Vec<u8>>)>) -> Option<Value> {
        let is_over = found.as_ref().is_some_and(|(slot, _)| self.is_over(now, slot.expires()));
        let given = found.filter(|_| !is_over).and_then(|(slot, own)| {
            let group = self.group(slot).filter(|group| group.tag == *tag)?;
            Some(Value { common: group.common.to_vec(), own })
        });
        if is_over {
            count(&self.counters.expired);
        }
        count(if given.is_some() { &self.counters.hits } else { &self.counters.misses });
        given
    }

    fn load(&self, now: Stamp, mut records: Vec<(Vec<u8>, Record)>) -> usize {
        // So that the oldest are the first to go from here, too.
        records.sort_by_key(|(_, record)| record.expires);
        let mut loaded = 0;
        for (id, Record { expires, value }) in records {
            let (Ok(id), Some((tag, value))) = (id.try_into(), read(&value)) else { continue };
            if self.is_over(now, expires) {
                count(&self.disk_counters.expired);
            } else if self.insert(&id, &tag, &value, expires) {
                count(&self.disk_counters.hits);
                loaded += 1;
            }
        }
        loaded
    }

    fn insert(&self, id: &Id, tag: &Tag, value: &Value, expires: Stamp) -> bool {
        let Value { common, own } = value;
        let cost_bytes = Shard::cost_bytes(own.len());
        let bounds = self.limits.shared;
        let (entries_max, bytes_max) = (bounds.entries_max / SHARDS, bounds.bytes_max / SHARDS);
        if own.len() > VALUE_BYTES_MAX || cost_bytes > bytes_max || entries_max == 0 {
            return false;
        }
        let Some(group) = self.number_of(tag, common) else { return false };
        let expires_s = u32::try_from(expires.0 / 1000).unwrap_or(u32::MAX);
        let mut shard = self.shard(id);
        while shard.len() >= entries_max || shard.bytes() + cost_bytes > bytes_max {
            shard.remove_oldest();
            count(&self.counters.evictions);
        }
        let is_kept = shard.insert(id, Slot { expires_s, group }, own);
        if is_kept {
            count(&self.counters.inserts);
        }
        is_kept
    }

    fn expiry(&self, now: Stamp, ttl: Duration) -> Stamp {
        now.after(ttl.min(self.limits.ttl_max))
    }

    /// As of a cache's entries.
    fn is_over(&self, now: Stamp, expires: Stamp) -> bool {
        expires <= now || expires > now.after(self.limits.ttl_max)
    }

    /// By the last byte, for the index within goes by the first ones.
    fn shard(&self, id: &Id) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(id[id.len() - 1]) % SHARDS])
    }

    fn group(&self, slot: Slot) -> Option<Arc<Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).get(usize::from(slot.group)).cloned()
    }

    /// The number of a group, which is its own from now on. Newest first: those are in force.
    fn number_of(&self, tag: &Tag, common: &[u8]) -> Option<u16> {
        let position = |groups: &[Arc<Group>]| {
            let found = groups.iter().rposition(|group| group.tag == *tag && *group.common == *common);
            found.map(|at| at as u16)
        };
        // What has nothing in common with others finds room while there are numbers.
        let groups_max = if common.is_empty() { usize::from(u16::MAX) } else { GROUPS_MAX };
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = position(&groups) {
            return Some(number);
        }
        if common.len() > COMMON_BYTES_MAX || groups.len() >= groups_max {
            return None;
        }
        drop(groups);
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        position(&groups).or_else(|| {
            let number = (groups.len() < groups_max).then_some(groups.len() as u16)?;
            groups.push(Arc::new(Group { tag: *tag, common: common.into() }));
            Some(number)
        })
    }
}

/// As on the disk: the tag, how long what is in common is, that, and the rest.
fn written(tag: &Tag, common: &[u8], own: &[u8]) -> Vec<u8> {
    [&tag[..], &(common.len() as u16).to_le_bytes(), common, own].concat()
}

fn read(bytes: &[u8]) -> Option<(Tag, Value)> {
    let (tag, bytes) = bytes.split_first_chunk()?;
    let (length, bytes) = bytes.split_first_chunk()?;
    let (common, own) = bytes.split_at_checked(u16::from_le_bytes(*length).into())?;
    Some((*tag, Value { common: common.to_vec(), own: own.to_vec().into() }))
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
