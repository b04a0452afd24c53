//! One cache, three levels, many typed uses.
//!
//! ```text
//!  worker ──► Local (L1: a fixed table, one owner, no locks)
//!               │ miss                          ▲ promotion on hit
//!               ▼                               │
//!             Cache (L2: shared in memory, bounded in entries and bytes)
//!               │ miss, and only off the workers ▲
//!               ▼                               │
//!             Disk (L3: an embedded store; files 0600, written by a thread of its own, or on the way out)
//! ```
//!
//! A use is a [`Kind`]: a name, a key, a value, limits, and a codec if it has a disk level. Values have a time to live;
//! that there is none can be remembered, too ([`Found::Negative`]). Time is an argument ([`Stamp`]): no
//! clock is read here, but for the wait for a lock.
//!
//! Workers never touch the disk: [`Cache::get`] and [`Cache::put`] end in memory and in a bounded queue, whose overflow
//! is counted. What reads the disk, or waits for it, says so in its name ([`Cache::get_through`], [`Cache::take_all`]).
//!
//! What is only ever put and then taken once, by the hundred thousand, has a store of its own in place of L2: [`Once`].
//!
//! A disk level that can't be read, written or locked costs one warning and is empty from then on ([`disk`]).

mod cache;
mod counters;
pub mod disk;
mod kind;
mod local;
mod once;

pub use cache::Cache;
pub use counters::{CacheReport, LevelReport};
pub use disk::{Disk, Loudness};
pub use kind::{Bounds, Found, Kind, Limits, Stamp};
pub use local::Local;
pub use once::{Id, Once, Tag, Value};
