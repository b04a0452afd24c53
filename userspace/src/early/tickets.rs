//! The gateway's session tickets: one store for all workers, in which each ticket is taken once.

use super::{Circumstances, FLUSH_LIMIT, TICKET_LIFETIME, now};
use crate::cli::EarlyData;
use cache::{Bounds, CacheReport, Disk, Id, Limits, Once, Value};
use rustls::server::StoresServerSessions;
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

/// What `beam show caches` calls it.
const NAME: &str = "tickets";
/// A session is some 80 bytes, and a client's certificates where it has some; in the store it takes 70 to 80 ([`apart`]).
/// So many keep 260,000 clients resumable for a day, asleep or not. Further ones push out the oldest.
const LIMITS: Limits = Limits {
    local_entries_max: 0,
    shared: Bounds { entries_max: 262_144, bytes_max: 24 << 20 },
    disk: Bounds { entries_max: 262_144, bytes_max: 64 << 20 },
    ttl_max: TICKET_LIFETIME,
};

/// A ticket is 32 random bytes of rustls'. A quarter of them is as hard to guess as anything asked for over a network, and
/// who guessed one would have nothing by it: the secret of the session isn't in a ticket. He who has seen one knows all.
fn id_of(ticket: &[u8]) -> Option<Id> {
    const TICKET_BYTES: usize = 32;
    (ticket.len() == TICKET_BYTES).then(|| ticket.first_chunk().copied())?
}

/// Where a session's secret lies in rustls' encoding of it (`ServerSessionValue` of its `msgs/persist.rs`), or in what
/// [`apart`] has left of that: behind the server's name, the version and the cipher suite.
fn secret_at(session: &[u8]) -> Option<usize> {
    let name_bytes = match *session.first()? {
        0 => 0,
        _ => 1 + usize::from(*session.get(1)?),
    };
    Some(1 + name_bytes + 2 + 2 + 1)
}

/// The end of a session: when it was made, in seconds since the Unix epoch (the higher half of that is the same for all
/// who live), and what its age is hidden by.
const TIME_LOW_AND_AGE_BYTES: usize = 4 + 4;

/// Takes apart what sessions with one gateway have in common and what is each one's own: the secret, when it was made, and
/// what its age is hidden by. A session that looks otherwise than rustls' stays as it is.
fn apart(session: &[u8]) -> Value {
    let parts = || {
        let at = secret_at(session)?;
        let secret_bytes = usize::from(*session.get(at.checked_sub(1)?)?);
        let (head, rest) = session.split_at_checked(at)?;
        let (secret, rest) = rest.split_at_checked(secret_bytes)?;
        let (middle, end) = rest.split_at_checked(rest.len().checked_sub(TIME_LOW_AND_AGE_BYTES)?)?;
        Some(Value { common: [head, middle].concat(), own: [secret, end].concat().into() })
    };
    parts().unwrap_or_else(|| Value::own(session.to_vec()))
}

/// A session whole again.
fn together(value: &Value) -> Vec<u8> {
    let Value { common, own } = value;
    let parts = || {
        let (head, middle) = common.split_at_checked(secret_at(common)?)?;
        let (secret, end) = own.split_at_checked(own.len().checked_sub(TIME_LOW_AND_AGE_BYTES)?)?;
        Some([head, secret, middle, end].concat())
    };
    parts().unwrap_or_else(|| own.to_vec())
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

    fn keep(&self, id: &Id, session: &Value) -> bool {
        let Tickets { sessions, follows, .. } = &*self.all;
        match follows {
            true => sessions.put_through(now(), id, &self.of, session, TICKET_LIFETIME),
            false => sessions.put(now(), id, &self.of, session, TICKET_LIFETIME),
        }
    }
}

impl fmt::Debug for TicketsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketsOf({})", self.all.sessions.len())
    }
}

impl StoresServerSessions for TicketsOf {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let session = Zeroizing::new(value);
        let Some(id) = id_of(&key) else { return false };
        // What they have in common is bounded, as clients have a say in it (the name they ask for, their certificates).
        self.keep(&id, &apart(&session)) || self.keep(&id, &Value::own(session.to_vec()))
    }

    /// TLS 1.2 asks this way; beam has none of it.
    fn get(&self, _key: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let id = id_of(key)?;
        let Tickets { sessions, follows, .. } = &*self.all;
        let value = match follows {
            true => sessions.take_soon_everywhere(now(), &id, &self.of),
            false => sessions.take(now(), &id, &self.of),
        };
        value.as_ref().map(together)
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

    /// Real sessions of rustls, by handshakes in memory: each makes a ticket, and the second one resumes the first's.
    #[test]
    fn sessions_of_one_gateway_share_all_but_what_is_secret() {
        #[derive(Debug)]
        struct Seen(TicketsOf, std::sync::Mutex<Vec<Vec<u8>>>);
        impl StoresServerSessions for Seen {
            fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
                self.1.lock().unwrap().push(value.clone());
                self.0.put(key, value)
            }
            fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
                self.0.get(key)
            }
            fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
                self.0.take(key)
            }
            fn can_cache(&self) -> bool {
                true
            }
        }
        let tickets = Arc::new(Tickets::new(None, EarlyData::Safe));
        let seen = Arc::new(Seen(TicketsOf::new(tickets.clone(), [1; 32]), Default::default()));
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["gateway.test".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = &[&rustls::version::TLS13];
        let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        server.alpn_protocols = vec![b"h3".to_vec()];
        server.session_storage = seen.clone();
        server.send_tls13_tickets = 1;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h3".to_vec()];
        let (server, client) = (Arc::new(server), Arc::new(client));
        let handshake = || {
            let name = "gateway.test".try_into().unwrap();
            let mut client = rustls::ClientConnection::new(client.clone(), name).unwrap();
            let mut server = rustls::ServerConnection::new(server.clone()).unwrap();
            for _ in 0..4 {
                let mut flight = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut flight).unwrap();
                }
                server.read_tls(&mut &flight[..]).unwrap();
                server.process_new_packets().unwrap();
                flight.clear();
                while server.wants_write() {
                    server.write_tls(&mut flight).unwrap();
                }
                client.read_tls(&mut &flight[..]).unwrap();
                client.process_new_packets().unwrap();
            }
            client.handshake_kind().unwrap()
        };
        assert_eq!(handshake(), rustls::HandshakeKind::Full);
        assert_eq!(handshake(), rustls::HandshakeKind::Resumed);
        let sessions = seen.1.lock().unwrap();
        assert_eq!(sessions.len(), 2);
        let [first, second] = [&sessions[0], &sessions[1]].map(|session| apart(session));
        assert_eq!(first.common, second.common, "without what is secret, all are the same");
        // 32 or 48 bytes of secret, by the hash of the cipher suite.
        assert!([32, 48].map(|bytes| bytes + TIME_LOW_AND_AGE_BYTES).contains(&first.own.len()));
        assert_ne!(first.own, second.own);
        assert_eq!([together(&first), together(&second)], [sessions[0].clone(), sessions[1].clone()]);
        assert_eq!(tickets.report().shared.unwrap().entries, 1, "the first was taken");
    }

    /// Whatever a session looks like, it comes back as it was.
    #[test]
    fn what_looks_otherwise_comes_back_whole() {
        for n in 0..=255u8 {
            for length in 0..100usize {
                let session: Vec<u8> = (0..length).map(|at| n.wrapping_mul(at as u8 + 1)).collect();
                assert_eq!(together(&apart(&session)), session, "{n} * {length} bytes");
            }
        }
    }
}
