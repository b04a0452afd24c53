//! Host names to addresses, by the system's resolver (so `/etc/hosts` and nsswitch.conf count), off the workers' path.
//!
//! ```text
//!  worker ──resolve(host, port, done)──► bounded queue ──► N control threads ──getaddrinfo──► done(result)
//!     │                                        └── asked for already: waits for that answer      └─► cache
//!     └── IP literal, invalid name, .invalid, .onion, a name in the cache: done at once, on the worker
//! ```
//!
//! Every request that was accepted is answered exactly once, also when the resolver is dropped. `done` runs on a control
//! thread: it should do no more than post the result to its worker. Deadlines are the caller's: a lookup can't be
//! cancelled, its late answer is for the caller to ignore.

mod names;

pub use names::{FOUND_TTL, NOT_FOUND_TTL, Names};

use self::names::{Boarded, Flights, Outcome, with_port};
use cache::{Cache, CacheReport, Found, Local, Stamp};
use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, SystemTime},
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::host::{Host, InvalidHost, Name};

/// Addresses of one answer; a name with more gives its first ones, in the system's order of preference.
pub const ADDRESSES_MAX: usize = 16;
/// How long a dropped resolver waits for its threads before it leaves them to their stuck lookups.
const JOIN_WAIT: Duration = Duration::from_millis(250);
/// A thread of getaddrinfo needs little more than NSS modules do.
const STACK_BYTES: usize = 512 << 10;

/// How many threads, and how many requests may wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Control threads: lookups at once.
    pub thread_count: usize,
    /// Requests waiting, for a thread or for an answer that is under way.
    pub queue_len: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { thread_count: 4, queue_len: 1024 }
    }
}

/// Why a name gave no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is no such name, or it has no address.
    #[error("the name does not exist or has no address")]
    NotFound,
    /// The resolver could not tell now.
    #[error("the name could not be resolved now")]
    Temporary,
    /// Not a host name.
    #[error(transparent)]
    Invalid(#[from] InvalidHost),
}

/// The queue is full: answer 503 rather than wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many names are waiting to be resolved")]
pub struct Busy;

/// What happens to an answer.
pub type Done = Box<dyn FnOnce(Result<Vec<SocketAddr>, ResolveError>) + Send>;

type Clock = dyn Fn() -> Stamp + Send + Sync;

type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

struct Request {
    name: Name,
    port: u16,
}

/// What the threads share.
struct Shared {
    lookup: Box<Lookup>,
    clock: Box<Clock>,
    cache: Arc<Cache<Names>>,
    flights: Flights,
    stopping: AtomicBool,
    panics: AtomicU64,
}

/// The pool. Cheap to share behind an `Arc`; dropping it answers what still waits with `Temporary`.
pub struct Resolver {
    queue: Option<Sender<Request>>,
    waiting_max: usize,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Disconnected when the last thread is gone.
    gone: Receiver<()>,
}

impl Resolver {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn new(options: Options) -> io::Result<Self> {
        Self::with_lookup(options, |name, port| (name, port).to_socket_addrs().map(|found| found.collect()))
    }

    /// The same pool over another lookup: for tests.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_lookup(
        options: Options,
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::with_clock(options, lookup, || Stamp::of(SystemTime::now()))
    }

    fn with_clock(
        options: Options,
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
        clock: impl Fn() -> Stamp + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (queue, requests) = bounded::<Request>(options.queue_len.max(1));
        let (alive, gone) = bounded::<()>(0);
        let shared = Arc::new(Shared {
            lookup: Box::new(lookup),
            clock: Box::new(clock),
            cache: Cache::new(None),
            flights: Flights::default(),
            stopping: AtomicBool::new(false),
            panics: AtomicU64::new(0),
        });
        let waiting_max = options.queue_len.max(1) + options.thread_count.max(1);
        let mut resolver = Self { queue: Some(queue), waiting_max, shared, threads: Vec::new(), gone };
        for i in 0..options.thread_count.max(1) {
            let (requests, shared, alive) = (requests.clone(), resolver.shared.clone(), alive.clone());
            let run = move || {
                let _alive = alive;
                serve(&requests, &shared);
            };
            let thread = Builder::new().name(format!("beam-dns-{i}")).stack_size(STACK_BYTES).spawn(run)?;
            resolver.threads.push(thread);
        }
        Ok(resolver)
    }

    /// Resolves `host`, a name or an IP literal (IPv6 with or without brackets), and hands the addresses, each with
    /// `port`, to `done`. What needs no lookup is answered before this returns.
    ///
    /// # Errors
    /// [`Busy`] when the queue is full; `done` is then dropped, uncalled.
    pub fn resolve(&self, host: &str, port: u16, done: Done) -> Result<(), Busy> {
        self.resolve_by(host, port, done, |name| self.shared.cache.get((self.shared.clock)(), name))
    }

    /// As [`Self::resolve`], with a worker's own table in front, which [`Self::local`] made.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_with(
        &self,
        local: &mut Local<Names>,
        host: &str,
        port: u16,
        done: Done,
    ) -> Result<(), Busy> {
        self.resolve_by(host, port, done, |name| local.get((self.shared.clock)(), name))
    }

    /// As [`Self::resolve`], from the system's resolver whatever is remembered: for whoever has tried that in vain.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_afresh(&self, host: &str, port: u16, done: Done) -> Result<(), Busy> {
        self.resolve_by(host, port, done, |_| Found::Miss)
    }

    /// A table for one worker, in front of the shared one.
    #[must_use]
    pub fn local(&self) -> Local<Names> {
        Local::new(self.shared.cache.clone())
    }

    /// The counters of the shared names.
    #[must_use]
    pub fn report(&self) -> CacheReport {
        self.shared.cache.report()
    }

    fn resolve_by(
        &self,
        host: &str,
        port: u16,
        done: Done,
        known: impl FnOnce(&Name) -> Found<Arc<[IpAddr]>>,
    ) -> Result<(), Busy> {
        let name = match Host::parse(host) {
            Ok(Host::Ip(ip)) => {
                done(Ok(vec![SocketAddr::new(ip, port)]));
                return Ok(());
            }
            Ok(Host::Name(name)) => name,
            Err(invalid) => {
                done(Err(invalid.into()));
                return Ok(());
            }
        };
        // RFC 6761 section 6.4 and RFC 7686 section 2: these exist nowhere, and asking would leak them.
        if name.is_within("invalid") || name.is_within("onion") {
            done(Err(ResolveError::NotFound));
            return Ok(());
        }
        match known(&name) {
            Found::Hit(addresses) => done(Ok(with_port(&addresses, port))),
            Found::Negative => done(Err(ResolveError::NotFound)),
            Found::Miss => return self.ask(name, port, done),
        }
        Ok(())
    }

    fn ask(&self, name: Name, port: u16, done: Done) -> Result<(), Busy> {
        let Some(queue) = &self.queue else { return Err(Busy) };
        match self.shared.flights.board(&name, port, done, self.waiting_max) {
            Boarded::Joined => Ok(()),
            Boarded::Full => Err(Busy),
            Boarded::First => match queue.try_send(Request { name, port }) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => {
                    // Whoever joined in between hears that it could not be told now; the first is told here.
                    let mut waiting = self.shared.flights.land(&refused.name).into_iter();
                    drop(waiting.next());
                    waiting.for_each(|(_, done)| done(Err(ResolveError::Temporary)));
                    Err(Busy)
                }
            },
        }
    }

    /// Requests that wait for a thread.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, Sender::len)
    }

    /// Callbacks that panicked; each is a bug, none stops the pool.
    #[must_use]
    pub fn callback_panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.queue = None;
        // Nobody sends on `gone`: it disconnects when the last thread ends, or the wait runs out.
        if self.gone.recv_timeout(JOIN_WAIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("a name lookup is stuck; its thread ends when the lookup does");
        }
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            // A thread cannot panic: its callbacks are caught. Were it to, there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// A control thread: until the resolver is dropped and the queue is empty.
fn serve(requests: &Receiver<Request>, shared: &Shared) {
    for Request { name, port } in requests {
        let asked = catch_unwind(AssertUnwindSafe(|| {
            let stopping = shared.stopping.load(Ordering::Acquire);
            if stopping { Err(ResolveError::Temporary) } else { look_up(&*shared.lookup, &name, port) }
        }));
        let outcome = asked.unwrap_or_else(|_| {
            shared.panics.fetch_add(1, Ordering::Relaxed);
            Err(ResolveError::Temporary)
        });
        // First the cache: whoever comes after the others have landed finds it there.
        remember(shared, &name, &outcome);
        for (port, done) in shared.flights.land(&name) {
            let answer = outcome.clone().map(|addresses| with_port(&addresses, port));
            if catch_unwind(AssertUnwindSafe(|| done(answer))).is_err() {
                shared.panics.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn remember(shared: &Shared, name: &Name, outcome: &Outcome) {
    let now = (shared.clock)();
    match outcome {
        Ok(addresses) => shared.cache.put(now, name.clone(), addresses.clone(), FOUND_TTL),
        Err(ResolveError::NotFound) => shared.cache.put_negative(now, name.clone(), NOT_FOUND_TTL),
        Err(ResolveError::Temporary | ResolveError::Invalid(_)) => {}
    }
}

fn look_up(lookup: &Lookup, name: &Name, port: u16) -> Outcome {
    let found = lookup(name.as_str(), port).map_err(|error| classify(&error))?;
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(found.len().min(ADDRESSES_MAX));
    for address in found {
        let address = address.ip().to_canonical();
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(ResolveError::NotFound) } else { Ok(addresses.into()) }
}

/// std turns getaddrinfo's code into text and keeps only that, so the text of EAI_NONAME and EAI_NODATA (glibc,
/// then musl) is all there is to go by. Whatever is not known to be final is temporary.
fn classify(error: &io::Error) -> ResolveError {
    const FINAL: [&str; 4] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "Name has no usable address",
    ];
    let text = error.to_string();
    if FINAL.iter().any(|known| text.contains(known)) {
        ResolveError::NotFound
    } else {
        ResolveError::Temporary
    }
}

#[cfg(test)]
mod tests;
