//! Headers per path, cached by a worker. One entry for each path hash, so the table's size is its limit and an attacker
//! who makes up paths can only make it miss.

use crate::mirror::Reader;
use port::Path;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use wire::encap::{Link, Template};

/// Entries; a power of two. 2048 entries of about 200 bytes are 400 KB for each worker.
const ENTRY_COUNT: usize = 2048;
/// What Linux sends with (`net.ipv4.ip_default_ttl`, `hop_limit`).
const HOP_LIMIT: u8 = 64;
/// The length of an IP header without options.
const fn ip_header_bytes(ip: IpAddr) -> usize {
    match ip {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// How to send on one path.
pub(crate) struct Entry {
    path: Path,
    generation: u64,
    pub(crate) template: Template,
    /// Largest UDP payload that the link's MTU lets through.
    pub(crate) payload_bytes_max: usize,
    used: Arc<AtomicBool>,
}

impl Entry {
    /// Marks the neighbour as used. Reads first: the line is shared with other workers.
    #[inline]
    pub(crate) fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// The cache.
pub(crate) struct Templates {
    interface: u32,
    reader: Reader,
    entries: Box<[Option<Entry>]>,
    /// The slot that hit last: bursts go to one peer, so the path is often compared instead of hashed.
    last: usize,
}

impl Templates {
    pub(crate) fn new(interface: u32, reader: Reader) -> Self {
        Self { interface, reader, entries: (0..ENTRY_COUNT).map(|_| None).collect(), last: 0 }
    }

    /// Index of the interface.
    pub(crate) fn interface(&self) -> u32 {
        self.interface
    }

    /// The mirror's view of the interface, if anything changed since the last call.
    #[inline]
    pub(crate) fn refresh(&mut self) -> bool {
        self.reader.refresh()
    }

    /// Whether the interface still exists.
    pub(crate) fn interface_exists(&self) -> bool {
        self.reader.tables().links.contains_key(&self.interface)
    }

    /// How to send on `path`; `None` when the kernel has to.
    #[inline]
    pub(crate) fn get(&mut self, path: &Path) -> Option<&Entry> {
        let generation = self.reader.generation();
        let fresh = |entry: &Option<Entry>| {
            entry.as_ref().is_some_and(|e| e.generation == generation && e.path == *path)
        };
        if !fresh(&self.entries[self.last]) {
            self.last = path_hash(path) & (ENTRY_COUNT - 1);
            if !fresh(&self.entries[self.last]) {
                let entry = self.resolve(path)?;
                self.entries[self.last] = Some(entry);
            }
        }
        self.entries[self.last].as_ref()
    }

    #[cold]
    fn resolve(&self, path: &Path) -> Option<Entry> {
        let hop = self.reader.tables().resolve(self.interface, &path.local, &path.remote)?;
        let link = Link { src_mac: hop.src_mac, dst_mac: hop.dst_mac, vlans: hop.vlans };
        let headers_bytes = ip_header_bytes(path.remote.ip()) + 8;
        Some(Entry {
            path: *path,
            generation: self.reader.generation(),
            template: Template::new(&link, path, HOP_LIMIT)?,
            payload_bytes_max: (hop.mtu as usize).saturating_sub(headers_bytes),
            used: hop.used,
        })
    }
}

#[inline]
fn path_hash(path: &Path) -> usize {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish() as usize
}
