//! What all workers of a gateway share about IP: the pool, who has which address, and what clients may reach.
//!
//! Changed when a session begins or ends; read for packets. A worker remembers what it looked up ([`Finder`]) for as long
//! as the version stays, so that packets take no lock.

use super::{Granted, Ground};
use crate::worker::{mail::Mailbox, poll::FlowKey};
use ip::{
    Prefix,
    pool::{NoAddress, Pool, PoolError},
    routes::{RouteError, Table},
};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// A session of some worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) worker: u8,
    pub(crate) key: FlowKey,
}

/// See the module.
pub(crate) struct Realm {
    book: Mutex<Book>,
    table: RwLock<Table<Owner>>,
    /// Counts the changes of `table`.
    version: AtomicU64,
    /// `--ip-route`: where clients may send to.
    reachable: Arc<[Prefix]>,
    gateway_addresses: Vec<(IpAddr, u8)>,
    /// `--ip-pool`.
    pool: Box<[Prefix]>,
    mailboxes: OnceLock<Vec<Mailbox>>,
    /// IP sessions of all workers.
    session_count: AtomicUsize,
    /// For routes to networks behind clients.
    network: OnceLock<Granted>,
}

struct Book {
    pool: Pool,
    holders: HashMap<IpAddr, Holder>,
}

struct Holder {
    name: Arc<str>,
    owner: Owner,
}

/// An address that was lent.
pub(crate) struct Lent {
    pub(crate) address: IpAddr,
    /// The session that had it before, of the same client: it has lost it.
    pub(crate) taken_from: Option<Owner>,
}

impl Realm {
    /// # Errors
    /// If the prefixes make no pool.
    pub(crate) fn new(pool: &[Prefix], reachable: &[Prefix]) -> Result<Self, PoolError> {
        let book = Book { pool: Pool::new(pool)?, holders: HashMap::new() };
        Ok(Self {
            gateway_addresses: book.pool.gateway_addresses().collect(),
            pool: pool.into(),
            book: Mutex::new(book),
            table: RwLock::default(),
            version: AtomicU64::new(0),
            reachable: reachable.into(),
            mailboxes: OnceLock::new(),
            session_count: AtomicUsize::new(0),
            network: OnceLock::new(),
        })
    }

    pub(in crate::worker) fn session_opened(&self) {
        self.session_count.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::worker) fn session_ended(&self) {
        self.session_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// IP sessions of all workers.
    pub(in crate::worker) fn session_count(&self) -> usize {
        self.session_count.load(Ordering::Relaxed)
    }

    /// Says how workers are reached. Once, before any runs.
    pub(crate) fn set_mailboxes(&self, mailboxes: &[Mailbox]) {
        let _ = self.mailboxes.set(mailboxes.to_vec());
    }

    /// The network whose routes follow the clients' networks.
    pub(crate) fn set_network(&self, network: Ground) {
        // One that somebody else has set already, by hand perhaps, may serve as well.
        let _ = self.network.set(Granted::new(network, |error| tracing::warn!("{error}")));
    }

    pub(crate) fn mailbox(&self, worker: u8) -> Option<&Mailbox> {
        self.mailboxes.get()?.get(usize::from(worker))
    }

    /// Where clients may send to.
    pub(crate) fn reachable(&self) -> Arc<[Prefix]> {
        self.reachable.clone()
    }

    /// The gateway's own addresses, one a network of the pool.
    pub(crate) fn gateway_addresses(&self) -> &[(IpAddr, u8)] {
        &self.gateway_addresses
    }

    /// The gateway's own address of a family: what its ICMP errors come from.
    pub(crate) fn gateway_address(&self, is_ipv4: bool) -> Option<IpAddr> {
        self.gateway_addresses
            .iter()
            .map(|(address, _)| *address)
            .find(|address| address.is_ipv4() == is_ipv4)
    }

    /// Whether there is an address for a client: a free one, or one that it has already.
    pub(crate) fn may_lend(&self, name: &str) -> bool {
        let book = self.book();
        book.pool.has_free() || book.holders.values().any(|holder| &*holder.name == name)
    }

    /// Lends an address to a client's session. One that an older session of the same client still has moves to the new
    /// one: the client is back before its old connection was found dead.
    pub(crate) fn lend(
        &self,
        name: &Arc<str>,
        owner: Owner,
        is_ipv4: bool,
        wish: Option<IpAddr>,
    ) -> Result<Lent, NoAddress> {
        let mut book = self.book();
        if let Some(address) = wish
            && let Some(holder) = book.holders.get_mut(&address)
            && holder.name == *name
        {
            let before = std::mem::replace(&mut holder.owner, owner);
            self.change(|table| {
                table.remove(&Prefix::host(address));
                table.insert(Prefix::host(address), owner)
            })
            .map_err(|_| NoAddress::Exhausted)?;
            return Ok(Lent { address, taken_from: Some(before).filter(|before| *before != owner) });
        }
        let address = book.pool.lend(name, is_ipv4, wish)?;
        if self.change(|table| table.insert(Prefix::host(address), owner)).is_err() {
            book.pool.give_back(address);
            return Err(NoAddress::Exhausted);
        }
        book.holders.insert(address, Holder { name: name.clone(), owner });
        Ok(Lent { address, taken_from: None })
    }

    /// Takes an address back from a session, unless another one has it by now.
    pub(crate) fn give_back(&self, address: IpAddr, owner: Owner) {
        let mut book = self.book();
        if book.holders.get(&address).is_none_or(|holder| holder.owner != owner) {
            return;
        }
        book.holders.remove(&address);
        book.pool.give_back(address);
        self.change(|table| table.remove(&Prefix::host(address)));
    }

    /// Adds a network behind a client.
    pub(crate) fn add_route(&self, prefix: Prefix, owner: Owner) -> Result<(), RouteError> {
        let pool = self.book().pool.networks().find(|network| network.overlaps(&prefix));
        if let Some(existing) = pool {
            return Err(RouteError::Overlap { wanted: prefix, existing });
        }
        self.change(|table| table.insert(prefix, owner))?;
        if let Some(network) = self.network.get() {
            network.order(move |network| network.add_route(prefix, None));
        }
        Ok(())
    }

    pub(crate) fn remove_route(&self, prefix: &Prefix) {
        self.change(|table| table.remove(prefix));
        if let Some(network) = self.network.get() {
            let prefix = *prefix;
            network.order(move |network| network.remove_route(prefix));
        }
    }

    fn lookup(&self, address: IpAddr) -> Option<Owner> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).lookup(address).copied()
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The book is consistent after each line that changes it, so that a panic elsewhere spoils nothing.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Table<Owner>) -> R) -> R {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut table);
        self.version.fetch_add(1, Ordering::Release);
        result
    }
}

/// Destinations that one worker remembers.
const REMEMBERED_MAX: usize = 4096;

/// A worker's own copy of what it looked up.
#[derive(Default)]
pub(super) struct Finder {
    version: u64,
    known: HashMap<IpAddr, Option<Owner>>,
    last: Option<(IpAddr, Option<Owner>)>,
    /// Of sources, whether they are the tunnel's.
    last_source: Option<(IpAddr, bool)>,
}

impl Finder {
    /// Whether an address is behind the tunnel, lent or not: no packet that comes from elsewhere can have it as its source.
    pub(super) fn is_of_tunnel(&mut self, realm: &Realm, source: IpAddr) -> bool {
        self.follow(realm);
        if let Some((known, answer)) = self.last_source
            && known == source
        {
            return answer;
        }
        let answer =
            realm.pool.iter().any(|prefix| prefix.contains(source)) || self.look_up(realm, source).is_some();
        self.last_source = Some((source, answer));
        answer
    }

    /// Who has an address.
    pub(super) fn find(&mut self, realm: &Realm, address: IpAddr) -> Option<Owner> {
        self.follow(realm);
        if let Some((known, owner)) = self.last
            && known == address
        {
            return owner;
        }
        let owner = self.look_up(realm, address);
        self.last = Some((address, owner));
        owner
    }

    /// Forgets everything once something has changed.
    fn follow(&mut self, realm: &Realm) {
        let version = realm.version();
        if version != self.version {
            *self = Self { version, ..Self::default() };
        }
    }

    fn look_up(&mut self, realm: &Realm, address: IpAddr) -> Option<Owner> {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        *self.known.entry(address).or_insert_with(|| realm.lookup(address))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: addresses are found where they were lent, move with their client, and are nobody's once given back.
    use super::*;

    fn owner(index: u32) -> Owner {
        Owner { worker: 0, key: FlowKey { index, generation: 1 } }
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn the_life_of_an_address() {
        let realm = Realm::new(&[prefix("198.18.64.0/29")], &[prefix("198.19.0.0/24")]).unwrap();
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let mut finder = Finder::default();
        let first = realm.lend(&alice, owner(1), true, None).unwrap().address;
        assert_eq!(finder.find(&realm, first), Some(owner(1)));
        let refused = realm.lend(&bob, owner(2), true, Some(first)).unwrap();
        assert_ne!(refused.address, first, "it is alice's");

        let moved = realm.lend(&alice, owner(3), true, Some(first)).unwrap();
        assert_eq!((moved.address, moved.taken_from), (first, Some(owner(1))));
        assert_eq!(finder.find(&realm, first), Some(owner(3)));
        realm.give_back(first, owner(1));
        assert_eq!(finder.find(&realm, first), Some(owner(3)), "the old session has nothing to give back");
        realm.give_back(first, owner(3));
        assert_eq!(finder.find(&realm, first), None);
        assert_eq!(realm.lend(&alice, owner(4), true, None).unwrap().address, first);
    }

    #[test]
    fn networks_behind_clients_dont_overlap() {
        let realm = Realm::new(&[prefix("198.18.64.0/24")], &[]).unwrap();
        realm.add_route(prefix("10.7.0.0/16"), owner(1)).unwrap();
        assert!(realm.add_route(prefix("10.7.1.0/24"), owner(2)).is_err());
        assert!(realm.add_route(prefix("198.18.0.0/15"), owner(2)).is_err(), "it overlaps the pool");
        let (mut finder, inside) = (Finder::default(), "10.7.9.9".parse().unwrap());
        assert_eq!(finder.find(&realm, inside), Some(owner(1)));
        assert!(finder.is_of_tunnel(&realm, inside));
        realm.remove_route(&prefix("10.7.0.0/16"));
        assert_eq!(finder.find(&realm, inside), None);
        assert!(!finder.is_of_tunnel(&realm, inside));
        for (address, of_tunnel) in [("198.18.64.1", true), ("198.18.64.77", true), ("198.18.65.1", false)] {
            assert_eq!(
                finder.is_of_tunnel(&realm, address.parse().unwrap()),
                of_tunnel,
                "{address}, lent or not"
            );
        }
        realm.add_route(prefix("10.7.1.0/24"), owner(2)).unwrap();
    }
}
