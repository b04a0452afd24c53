//! The gateway's session tickets: one store for all workers, in which each ticket is taken once.

use super::{Circumstances, FLUSH_LIMIT, TICKET_LIFETIME, now};
use crate::cli::EarlyData;
use cache::{Bounds, CacheReport, Disk, Id, Limits, Once};
use rustls::server::StoresServerSessions;
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

/// What `beam show caches` calls it.
const NAME: &str = "tickets";
/// A session is some 80 bytes, and a client's certificates where it has some; in the store it takes some 120. So many keep
/// 200,000 clients resumable for a day, asleep or not. Further ones push out the oldest.
const LIMITS: Limits = Limits {
    local_entries_max: 0,
    shared: Bounds { entries_max: 262_144, bytes_max: 24 << 20 },
    disk: Bounds { entries_max: 262_144, bytes_max: 64 << 20 },
    ttl_max: TICKET_LIFETIME,
};

/// A ticket is 32 random bytes of rustls'. Half of them are as hard to guess as a key, and who has seen a ticket knows all.
fn id_of(ticket: &[u8]) -> Option<Id> {
    const TICKET_BYTES: usize = 32;
    (ticket.len() == TICKET_BYTES).then(|| ticket.first_chunk().copied())?
}

/// All tickets, whatever they were given under.
pub(crate) struct Tickets {
    sessions: Once,
    disk: Option<Arc<Disk>>,
    /// `on`: the disk follows as tickets come and go.
    follows: bool,
}

impl Tickets {
    /// An empty store.
    pub(crate) fn new(disk: Option<Arc<Disk>>, early: EarlyData) -> Self {
        Self { sessions: Once::new(NAME, LIMITS, disk.clone()), disk, follows: early == EarlyData::On }
    }

    /// Takes over what the last gateway in this directory left. Whatever is here afterwards is nowhere else, unless the
    /// mode is `on`.
    pub(crate) fn load(&self) {
        let found = if self.follows { self.sessions.read_all(now()) } else { self.sessions.take_all(now()) };
        tracing::debug!("{found} session tickets of the last run");
    }

    /// Writes the tickets to the disk. The caller has no worker running any more, so that none of them is taken again.
    pub(crate) fn keep(&self) {
        if self.follows {
            if let Some(disk) = &self.disk {
                disk.flush(FLUSH_LIMIT);
            }
        } else {
            let kept = self.sessions.save_all(now());
            tracing::debug!("{kept} session tickets are kept for the next run");
        }
    }

    pub(crate) fn report(&self) -> CacheReport {
        self.sessions.report()
    }
}

/// The store as one TLS configuration sees it: a ticket that was given under another one is none.
pub(crate) struct TicketsOf {
    all: Arc<Tickets>,
    of: Circumstances,
}

impl TicketsOf {
    /// Those of `of`. Tickets of another mode are others', so that `safe` takes none that `on` may have taken before.
    pub(crate) fn new(all: Arc<Tickets>, of: Circumstances) -> Self {
        let of = super::circumstances(&[&of, &[u8::from(all.follows)]]);
        Self { all, of }
    }
}

impl fmt::Debug for TicketsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketsOf({})", self.all.sessions.len())
    }
}

impl StoresServerSessions for TicketsOf {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let value = Zeroizing::new(value);
        let Some(id) = id_of(&key) else { return false };
        let Tickets { sessions, follows, .. } = &*self.all;
        match follows {
            true => sessions.put_through(now(), &id, &self.of, &value, TICKET_LIFETIME),
            false => sessions.put(now(), &id, &self.of, &value, TICKET_LIFETIME),
        }
    }

    /// TLS 1.2 asks this way; beam has none of it.
    fn get(&self, _key: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let id = id_of(key)?;
        let Tickets { sessions, follows, .. } = &*self.all;
        match follows {
            true => sessions.take_soon_everywhere(now(), &id, &self.of),
            false => sessions.take(now(), &id, &self.of),
        }
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    //! Goal: one ticket, one taker, over every kind of restart. Each `open` is a process.
    use super::*;
    use crate::early::state::State;
    use std::path::PathBuf;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("beam-tickets-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Self(path)
        }

        fn open(&self, early: EarlyData, of: u8) -> TicketsOf {
            let tickets = Tickets::new(State::gateway(&self.0).disk(), early);
            tickets.load();
            TicketsOf::new(Arc::new(tickets), [of; 32])
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn id(n: u8) -> Vec<u8> {
        vec![n; 32]
    }

    #[test]
    fn safe_gives_each_ticket_once_over_stops_and_crashes() {
        let place = Place::new("safe");
        let first = place.open(EarlyData::Safe, 1);
        (0..10).for_each(|n| assert!(first.put(id(n), vec![n])));
        assert_eq!(first.take(&id(0)), Some(vec![0]));
        assert_eq!(first.take(&id(0)), None);
        first.all.keep();
        // A restart: all but the one that was taken.
        let second = place.open(EarlyData::Safe, 1);
        assert_eq!(second.take(&id(0)), None);
        assert_eq!(second.take(&id(1)), Some(vec![1]));
        // A crash: nothing was written since, and nothing is left.
        let third = place.open(EarlyData::Safe, 1);
        assert!((0..10).all(|n| third.take(&id(n)).is_none()));
        // Under other circumstances a ticket is no ticket.
        third.put(id(20), vec![20]);
        third.all.keep();
        let fourth = place.open(EarlyData::Safe, 2);
        assert_eq!(fourth.take(&id(20)), None);
    }

    #[test]
    fn on_keeps_tickets_over_a_crash_and_safe_takes_none_of_them() {
        let place = Place::new("on");
        let first = place.open(EarlyData::On, 1);
        (0..10).for_each(|n| assert!(first.put(id(n), vec![n])));
        assert_eq!(first.take(&id(0)), Some(vec![0]));
        first.all.keep();
        let second = place.open(EarlyData::On, 1);
        assert_eq!((second.take(&id(0)), second.take(&id(1))), (None, Some(vec![1])));
        second.all.keep();
        let third = place.open(EarlyData::Safe, 1);
        assert!((0..10).all(|n| third.take(&id(n)).is_none()));
    }

    #[test]
    fn without_a_directory_there_is_memory() {
        let blocked = std::env::temp_dir().join(format!("beam-tickets-blocked-{}", std::process::id()));
        std::fs::write(&blocked, b"").unwrap();
        let place = Place(blocked.join("state"));
        for early in [EarlyData::Safe, EarlyData::On] {
            let tickets = place.open(early, 1);
            assert!(tickets.put(id(1), vec![1]));
            assert_eq!((tickets.take(&id(1)), tickets.take(&id(1))), (Some(vec![1]), None));
            tickets.all.keep();
        }
        std::fs::remove_file(&blocked).unwrap();
    }
}
