//! A part of the store in memory: slots of fixed sizes in chunks, an index over them, and a list from oldest to newest.
//!
//! ```text
//!  index: id ─► place ─► class (how long values may be) ─► chunk: [Head; 768], [value; 768]
//!  oldest ─► … ─► newest: places, linked through the heads
//! ```
//! What is kept for a day must not lie among what lives for a minute: one such block keeps all of the allocator's page that
//! it is in, 64 KiB of it or more. So chunks are so large that the daemon's allocator maps each apart, and places of values
//! that are gone are used again.

use super::{Id, Slot};
use hashbrown::HashTable;
use std::collections::TryReserveError;
use zeroize::{Zeroize, Zeroizing};

/// Slots of a chunk.
const CHUNK_SLOTS: usize = 768;
/// Bytes that values of each class may have. Longer ones are kept apart, each in an allocation of its own.
const CLASS_BYTES: [usize; 13] = [40, 48, 56, 64, 72, 80, 88, 96, 112, 128, 160, 208, 256];
/// The class that the heads of those are in.
const APART: u32 = CLASS_BYTES.len() as u32;
const CLASS_SHIFT: u32 = 28;
/// In place of a place.
const NONE: u32 = u32::MAX;
/// What the index takes for each, at worst: 5 bytes a bucket, and after growing 7 of 16 buckets are in use.
const INDEX_BYTES_MAX: usize = 5 * 16_usize.div_ceil(7);

/// What is known of a value. Invariant: in use, `older` and `newer` are its neighbours in the list; free, `newer` is the
/// next free place of its class, and its value is wiped.
#[derive(Clone, Copy)]
struct Head {
    id: Id,
    older: u32,
    newer: u32,
    expires_s: u32,
    length: u16,
    group: u16,
}

const _: () = assert!(size_of::<Head>() == 24);

/// Slots for values of one size.
struct Class {
    value_bytes: usize,
    chunks: Vec<Chunk>,
    free: u32,
}

/// The values are wiped when it goes.
struct Chunk {
    heads: Vec<Head>,
    values: Zeroizing<Vec<u8>>,
}

impl Chunk {
    /// All its places free, in one list that starts at `first`.
    fn new(value_bytes: usize, first: u32) -> Result<Self, TryReserveError> {
        let (mut heads, mut values) = (Vec::new(), Zeroizing::new(Vec::new()));
        heads.try_reserve_exact(CHUNK_SLOTS)?;
        values.try_reserve_exact(CHUNK_SLOTS * value_bytes)?;
        values.resize(CHUNK_SLOTS * value_bytes, 0);
        let newer = |at: usize| if at + 1 == CHUNK_SLOTS { NONE } else { first + at as u32 + 1 };
        heads.extend((0..CHUNK_SLOTS).map(|at| Head {
            id: Id::default(),
            older: NONE,
            newer: newer(at),
            expires_s: 0,
            length: 0,
            group: 0,
        }));
        Ok(Self { heads, values })
    }
}

/// See the module.
pub(super) struct Shard {
    index: HashTable<u32>,
    classes: Vec<Class>,
    /// By the number of their place.
    apart: Vec<Zeroizing<Box<[u8]>>>,
    oldest: u32,
    newest: u32,
    bytes: usize,
}

impl Shard {
    pub(super) fn new() -> Self {
        let values = CLASS_BYTES.into_iter().chain([0]);
        let class = |value_bytes| Class { value_bytes, chunks: Vec::new(), free: NONE };
        Self {
            index: HashTable::new(),
            classes: values.map(class).collect(),
            apart: Vec::new(),
            oldest: NONE,
            newest: NONE,
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes that its values take, each with its share of the index.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a value of so many bytes takes.
    pub(super) fn cost_bytes(length: usize) -> usize {
        let held = CLASS_BYTES.into_iter().find(|&bytes| bytes >= length).unwrap_or(length);
        size_of::<Head>() + INDEX_BYTES_MAX + held
    }

    /// Puts a value at the new end. Whoever had its id is gone. False: it is too long, or there is no memory.
    pub(super) fn insert(&mut self, id: &Id, slot: Slot, value: &[u8]) -> bool {
        let Ok(length) = u16::try_from(value.len()) else { return false };
        self.remove(id);
        let class = CLASS_BYTES.iter().position(|&bytes| bytes >= value.len()).map_or(APART, |at| at as u32);
        let Ok(place) = self.classes[class as usize].allot(class) else { return false };
        let Slot { expires_s, group } = slot;
        *self.head_mut(place) = Head { id: *id, older: self.newest, newer: NONE, expires_s, length, group };
        match self.newest {
            NONE => self.oldest = place,
            newest => self.head_mut(newest).newer = place,
        }
        self.newest = place;
        self.bytes += Self::cost_bytes(value.len());
        if class == APART {
            let at = number(place);
            if self.apart.len() <= at {
                self.apart.resize_with(at + 1, Zeroizing::default);
            }
            self.apart[at] = Zeroizing::new(value.into());
        } else {
            self.classes[class as usize].value_mut(number(place))[..value.len()].copy_from_slice(value);
        }
        let Self { index, classes, .. } = self;
        index.insert_unique(hash(id), place, |&place| hash(&head(classes, place).id));
        true
    }

    /// Takes a value out.
    pub(super) fn take(&mut self, id: &Id) -> Option<(Slot, Zeroizing<Vec<u8>>)> {
        let place = self.find(id)?;
        let slot = self.head(place).slot();
        let value = Zeroizing::new(self.value(place).to_vec());
        self.remove(id);
        Some((slot, value))
    }

    /// Takes out the one that has been here the longest.
    pub(super) fn remove_oldest(&mut self) {
        if self.oldest != NONE {
            let id = self.head(self.oldest).id;
            self.remove(&id);
        }
    }

    /// All, from oldest to newest.
    pub(super) fn for_each(&self, mut each: impl FnMut(&Id, Slot, &[u8])) {
        let mut place = self.oldest;
        while place != NONE {
            let head = self.head(place);
            each(&head.id, head.slot(), self.value(place));
            place = head.newer;
        }
    }

    fn find(&self, id: &Id) -> Option<u32> {
        self.index.find(hash(id), |&place| self.head(place).id == *id).copied()
    }

    fn remove(&mut self, id: &Id) {
        let Self { index, classes, .. } = self;
        let Ok(entry) = index.find_entry(hash(id), |&place| head(classes, place).id == *id) else { return };
        let (place, _) = entry.remove();
        let Head { older, newer, length, .. } = *self.head(place);
        match older {
            NONE => self.oldest = newer,
            older => self.head_mut(older).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.head_mut(newer).older = older,
        }
        self.bytes -= Self::cost_bytes(length.into());
        let class = place >> CLASS_SHIFT;
        if class == APART {
            self.apart[number(place)] = Zeroizing::default();
        }
        self.classes[class as usize].give_back(place);
    }

    fn head(&self, place: u32) -> &Head {
        head(&self.classes, place)
    }

    fn head_mut(&mut self, place: u32) -> &mut Head {
        let class = &mut self.classes[(place >> CLASS_SHIFT) as usize];
        &mut class.chunks[number(place) / CHUNK_SLOTS].heads[number(place) % CHUNK_SLOTS]
    }

    fn value(&self, place: u32) -> &[u8] {
        let class = &self.classes[(place >> CLASS_SHIFT) as usize];
        let (at, length) = (number(place), usize::from(self.head(place).length));
        if class.value_bytes == 0 {
            return &self.apart[at];
        }
        let from = at % CHUNK_SLOTS * class.value_bytes;
        &class.chunks[at / CHUNK_SLOTS].values[from..][..length]
    }
}

impl Head {
    fn slot(&self) -> Slot {
        Slot { expires_s: self.expires_s, group: self.group }
    }
}

impl Class {
    /// A free place; a chunk more, if there is none.
    fn allot(&mut self, class: u32) -> Result<u32, TryReserveError> {
        if self.free == NONE {
            let first = (self.chunks.len() * CHUNK_SLOTS) as u32 | class << CLASS_SHIFT;
            self.chunks.push(Chunk::new(self.value_bytes, first)?);
            self.free = first;
        }
        let place = self.free;
        let at = number(place);
        self.free = self.chunks[at / CHUNK_SLOTS].heads[at % CHUNK_SLOTS].newer;
        Ok(place)
    }

    fn give_back(&mut self, place: u32) {
        let at = number(place);
        self.value_mut(at).zeroize();
        let head = &mut self.chunks[at / CHUNK_SLOTS].heads[at % CHUNK_SLOTS];
        (head.id, head.older, head.length) = (Id::default(), NONE, 0);
        head.newer = std::mem::replace(&mut self.free, place);
    }

    fn value_mut(&mut self, at: usize) -> &mut [u8] {
        let from = at % CHUNK_SLOTS * self.value_bytes;
        &mut self.chunks[at / CHUNK_SLOTS].values[from..][..self.value_bytes]
    }
}

fn head(classes: &[Class], place: u32) -> &Head {
    let class = &classes[(place >> CLASS_SHIFT) as usize];
    &class.chunks[number(place) / CHUNK_SLOTS].heads[number(place) % CHUNK_SLOTS]
}

/// A place's number in its class.
fn number(place: u32) -> usize {
    (place & ((1 << CLASS_SHIFT) - 1)) as usize
}

/// Ids that are put here are random numbers of our own. Whoever asks for others finds nothing, wherever they lie. The bits
/// that tell the shard are the same in all of one: they go where an index doesn't look, neither at the lowest bits nor at
/// the highest seven.
fn hash(id: &Id) -> u64 {
    u64::from_le_bytes(*id).rotate_right(20)
}
