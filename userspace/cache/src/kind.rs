//! What a use of the cache says about itself, and the time by which entries live.

use std::{
    hash::Hash,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// One typed use of the cache.
pub trait Kind: Send + Sync + 'static {
    /// What `beam show caches` calls it, and its table on disk.
    const NAME: &'static str;
    /// How much it may hold, and which levels it has.
    const LIMITS: Limits;
    /// What is asked for.
    type Key: Clone + Eq + Hash + Send + Sync + 'static;
    /// What is found. Cheap to clone: a reference count, where it is large.
    type Value: Clone + Send + Sync + 'static;

    /// Bytes of memory that an entry takes, roughly, its table slot apart.
    fn weight_bytes(key: &Self::Key, value: Option<&Self::Value>) -> usize;

    /// Key and value for the disk. A use without a disk level has none.
    fn encode(_key: &Self::Key, _value: &Self::Value) -> Option<Vec<u8>> {
        None
    }

    /// The key for the disk.
    fn encode_key(_key: &Self::Key) -> Vec<u8> {
        Vec::new()
    }

    /// What [`Kind::encode_key`] and [`Kind::encode`] wrote; `None` if it is not that.
    fn decode(_key: &[u8], _value: &[u8]) -> Option<(Self::Key, Self::Value)> {
        None
    }
}

/// Bounds of one level; all zero is no such level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries at once.
    pub entries_max: usize,
    /// Bytes of all of them, keys included.
    pub bytes_max: usize,
}

impl Bounds {
    /// No such level.
    pub const NONE: Self = Self { entries_max: 0, bytes_max: 0 };

    /// Whether there is such a level.
    #[must_use]
    pub const fn exists(&self) -> bool {
        self.entries_max > 0 && self.bytes_max > 0
    }
}

/// Bounds of a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of each worker's table; 0 is no such level. What must be taken once only has none.
    pub local_entries_max: usize,
    /// The level shared in memory. Always there.
    pub shared: Bounds,
    /// The level on disk.
    pub disk: Bounds,
    /// No entry lives longer, whatever its maker says (or a clock that was set back).
    pub ttl_max: Duration,
}

/// What a level, or the whole cache, knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<V> {
    /// This.
    Hit(V),
    /// That there is none.
    Negative,
    /// Nothing.
    Miss,
}

impl<V> Found<V> {
    /// The value, if there is one.
    pub fn hit(self) -> Option<V> {
        match self {
            Self::Hit(value) => Some(value),
            Self::Negative | Self::Miss => None,
        }
    }

    /// Whether nothing is known.
    pub fn is_miss(&self) -> bool {
        matches!(self, Self::Miss)
    }
}

/// Milliseconds since the Unix epoch: the one clock that goes on over a restart. It may jump; an entry then lives too
/// short, or up to its `ttl_max` from the new time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The stamp of a point in time; what lies before the epoch is the epoch.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
    }

    /// So much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A value, or that there is none, and until when.
#[derive(Clone, Debug)]
pub(crate) struct Entry<V> {
    pub(crate) value: Option<V>,
    pub(crate) expires: Stamp,
}

impl<V: Clone> Entry<V> {
    /// Not in its time: past its end, or further from it than any entry of its kind ever is.
    pub(crate) fn is_over(&self, now: Stamp, ttl_max: Duration) -> bool {
        self.expires <= now || self.expires > now.after(ttl_max)
    }

    pub(crate) fn found(&self) -> Found<V> {
        self.value.clone().map_or(Found::Negative, Found::Hit)
    }
}
