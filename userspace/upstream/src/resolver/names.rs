//! Names and their addresses, for a while: a use of the cache with a table for each worker and a shared level.
//!
//! getaddrinfo says no TTL, so they are fixed here. Whoever uses an address judges it anew each time: an answer that was
//! hostile when it came is as hostile from here.

use super::{Done, ResolveError};
use crate::host::Name;
use cache::{Bounds, Kind, Limits};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long addresses hold: a service that moves is found within half a minute, which is what the DNS entries of those
/// that do move say themselves (20 to 60 s), and a page of fifty connections to one host asks once.
pub const FOUND_TTL: Duration = Duration::from_secs(30);
/// How long a name does not exist: as long as an application that tries again at once needs to be spared, and no longer
/// than whoever has just made the name is willing to wait. Failures that may pass at once are not remembered.
pub const NOT_FOUND_TTL: Duration = Duration::from_secs(5);

/// See the module.
pub struct Names;

impl Kind for Names {
    const NAME: &'static str = "names";
    /// 4096 names of some 100 bytes, and the 256 of each worker that it asks for most.
    const LIMITS: Limits = Limits {
        local_entries_max: 256,
        shared: Bounds { entries_max: 4096, bytes_max: 1 << 20 },
        disk: Bounds::NONE,
        ttl_max: FOUND_TTL,
    };
    type Key = Name;
    type Value = Arc<[IpAddr]>;

    fn weight_bytes(key: &Name, value: Option<&Arc<[IpAddr]>>) -> usize {
        key.as_str().len() + value.map_or(0, |addresses| size_of_val(&**addresses)) + 64
    }
}

/// The addresses with a port.
pub(super) fn with_port(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    addresses.iter().map(|&ip| SocketAddr::new(ip, port)).collect()
}

/// What was found, or why nothing was.
pub(super) type Outcome = Result<Arc<[IpAddr]>, ResolveError>;

/// Lookups under way, each with those who want its answer: one question at a time for each name.
#[derive(Default)]
pub(super) struct Flights(Mutex<State>);

#[derive(Default)]
struct State {
    by_name: HashMap<Name, Vec<(u16, Done)>>,
    waiting_count: usize,
}

/// What became of somebody who wants a name.
pub(super) enum Boarded {
    /// The first: ask for it.
    First,
    /// Somebody has asked already.
    Joined,
    /// Too many wait.
    Full,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a name, if no more than `waiting_max` do already.
    pub(super) fn board(&self, name: &Name, port: u16, done: Done, waiting_max: usize) -> Boarded {
        let mut state = self.lock();
        if state.waiting_count >= waiting_max {
            return Boarded::Full;
        }
        state.waiting_count += 1;
        let waiting = state.by_name.entry(name.clone()).or_default();
        waiting.push((port, done));
        if waiting.len() == 1 { Boarded::First } else { Boarded::Joined }
    }

    /// Those who wait for a name; whoever comes after them asks anew.
    pub(super) fn land(&self, name: &Name) -> Vec<(u16, Done)> {
        let mut state = self.lock();
        let waiting = state.by_name.remove(name).unwrap_or_default();
        state.waiting_count -= waiting.len();
        waiting
    }
}
