//! Goal: a live idle tunnel costs its gateway no more than [`FOLDED_BYTES`] of heap, and [`CONNECTION_BYTES`] once something
//! reaches it: quinn, TLS, keys, tables, and its HTTP/3 streams. Method: an allocator that counts what the server's engine
//! holds, by size; real TLS handshakes in memory with single-use tickets and early data; then minutes of idleness under a
//! virtual clock, with keep-alives. What the engine holds for itself is told apart by comparing two numbers of connections.
//! The split is printed.

#![expect(unsafe_code, reason = "an allocator")]
#![allow(clippy::unwrap_used, reason = "clippy only knows test functions, not their helpers")]

mod common;

use beam_tunnel::resume::{Ticket, Vault};
use beam_tunnel::tls::{ClientAuth, Verify, client_tls, resuming_client, server_tls, with_tickets};
use beam_tunnel::transport::{TransportOptions, client_config};
use beam_tunnel::{CONNECTION_BYTES, ConnId, Dir, Engine, Event, FOLDED_BYTES, Read};
use bytes::Bytes;
use common::*;
use rustls::RootCertStore;
use rustls::server::StoresServerSessions;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a tunnel may hold beyond that after it has moved bulk: quinn keeps the receive buffers of closed streams for as many
/// as it permits, each with room for a burst.
const AFTER_BULK_BYTES: usize = 10_000;
/// Datagrams that a worker takes at once.
const BURST: usize = 64;
/// Sizes that are told apart.
const SIZES: usize = 1 << 20;

thread_local! {
    /// What is allocated and freed now is the server's.
    static AT_SERVER: Cell<bool> = const { Cell::new(false) };
}

static BYTES: AtomicIsize = AtomicIsize::new(0);
static BY_SIZE: [AtomicIsize; SIZES] = [const { AtomicIsize::new(0) }; SIZES];

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A block's first bytes say whose it is: what one side has allocated the other may free, as the thread's caches do. They
/// are as many as keep the rest aligned.
fn prefix_bytes(layout: Layout) -> usize {
    layout.align().max(align_of::<usize>())
}

fn with_prefix(layout: Layout) -> Option<Layout> {
    let size = layout.size().checked_add(prefix_bytes(layout))?;
    Layout::from_size_align(size, prefix_bytes(layout)).ok()
}

fn count(layout: Layout, sign: isize) {
    BYTES.fetch_add(sign * layout.size() as isize, Relaxed);
    BY_SIZE[layout.size().min(SIZES - 1)].fetch_add(sign, Relaxed);
}

// SAFETY: memory comes from the system's allocator, with room for the prefix, whose alignment is at least the layout's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(whole) = with_prefix(layout) else { return std::ptr::null_mut() };
        // SAFETY: not of size 0, for it has the prefix.
        let block = unsafe { System.alloc(whole) };
        if block.is_null() {
            return block;
        }
        let is_servers = AT_SERVER.try_with(Cell::get).unwrap_or(false);
        if is_servers {
            count(layout, 1);
        }
        // SAFETY: the prefix is at least a `usize`, aligned for it, and inside of the block.
        unsafe { block.cast::<usize>().write(usize::from(is_servers)) };
        // SAFETY: inside of the block.
        unsafe { block.add(prefix_bytes(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(whole) = with_prefix(layout) else { return };
        // SAFETY: `alloc` gave this out so far behind its block's beginning.
        let block = unsafe { block.sub(prefix_bytes(layout)) };
        // SAFETY: `alloc` wrote it.
        if unsafe { block.cast::<usize>().read() } == 1 {
            count(layout, -1);
        }
        // SAFETY: as `alloc` asked for it.
        unsafe { System.dealloc(block, whole) };
    }
    // The default `realloc` is made of these two.
}

fn at_server<R>(work: impl FnOnce() -> R) -> R {
    let before = AT_SERVER.replace(true);
    let done = work();
    AT_SERVER.set(before);
    done
}

fn at_test<R>(work: impl FnOnce() -> R) -> R {
    let before = AT_SERVER.replace(false);
    let done = work();
    AT_SERVER.set(before);
    done
}

/// Tickets are the store's, which has a bound of its own.
#[derive(Debug)]
struct Elsewhere(Mutex<HashMap<Vec<u8>, Vec<u8>>>);

impl StoresServerSessions for Elsewhere {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let (key, value) = (key.as_slice(), value.as_slice());
        at_test(|| self.0.lock().unwrap().insert(key.to_vec(), value.to_vec()));
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let found = at_test(|| self.0.lock().unwrap().remove(key));
        let copy = found.clone();
        at_test(|| drop(found));
        copy
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[derive(Debug, Default)]
struct Drawer(Mutex<Vec<Ticket>>);

impl Vault for Drawer {
    fn take(&self) -> Option<Ticket> {
        self.0.lock().unwrap().pop()
    }

    fn put(&self, ticket: Ticket) {
        self.0.lock().unwrap().push(ticket);
    }
}

/// A gateway of tunnels and all of its clients.
struct Rig {
    pair: Pair,
    chain: Chain,
    drawer: Arc<Drawer>,
    /// The gateway's, in the order in which they came.
    sessions: HashMap<ConnId, Box<masque::Connection>>,
    early_streams: usize,
    at_client: Vec<ConnId>,
}

impl Rig {
    fn new(client_auth: ClientAuth) -> Self {
        let chain = chain(0);
        let tls = server_tls(chain.0.clone(), chain.1.clone_key(), client_auth).unwrap();
        let tls = with_tickets(tls, Arc::new(Elsewhere(Mutex::default())), true);
        let server = at_server(|| server_engine_with(0, tls, |_| {}));
        Self {
            pair: Pair::new(server),
            chain,
            drawer: Arc::default(),
            sessions: HashMap::new(),
            early_streams: 0,
            at_client: Vec::new(),
        }
    }

    fn connect(&mut self) {
        let mut roots = RootCertStore::empty();
        roots.add(self.chain.0[0].clone()).unwrap();
        let tls = client_tls(Verify::Roots(roots), None).unwrap();
        let tls = resuming_client(tls, self.drawer.clone()).unwrap();
        let config = client_config(tls, Arc::new(TransportOptions::client().build()));
        let address = client_address(self.at_client.len() as u16);
        let id = self.pair.client.connect(self.pair.now, config, SERVER, address, "gateway.test").unwrap();
        self.at_client.push(id);
        let mut h3 = masque::Connection::client(h3_config());
        let mut conn = self.pair.client.connection(id).unwrap();
        if conn.has_early_data() {
            open(&mut h3, &mut conn);
            self.early_streams += 1;
        }
        self.run(Duration::from_millis(200));
        let mut conn = self.pair.client.connection(id).unwrap();
        if !conn.early_data_accepted() {
            open(&mut h3, &mut conn);
        }
        self.run(Duration::from_millis(200));
    }

    fn run(&mut self, span: Duration) {
        let limit = self.pair.now + span;
        for _ in 0..1_000_000 {
            let now = self.pair.now;
            let pair = &mut self.pair;
            pair.client.run(now);
            let to_server = outbox(&mut pair.client, now);
            let mut to_client = Vec::new();
            at_server(|| {
                pair.server.run(now);
                serve(&mut pair.server, &mut self.sessions);
                while !pair.server.transmit(now, 64, &mut |path, _, bytes, segment| {
                    at_test(|| {
                        let datagrams = bytes.chunks(segment.unwrap_or(bytes.len()));
                        to_client.extend(datagrams.map(|datagram| (flip(*path), datagram.to_vec())));
                    });
                    true
                }) {}
            });
            while pair.client.poll_event().is_some() {}
            let is_quiet = to_client.is_empty() && to_server.is_empty();
            to_client.iter().for_each(|(path, bytes)| pair.client.receive(now, *path, None, bytes));
            for burst in to_server.chunks(BURST) {
                at_server(|| {
                    burst.iter().for_each(|(path, bytes)| {
                        pair.server.receive(now, flip(*path), None, bytes);
                    });
                    pair.server.run(now);
                });
                serve(&mut pair.server, &mut self.sessions);
            }
            if is_quiet {
                let deadlines = [pair.client.next_deadline(), at_server(|| pair.server.next_deadline())];
                match deadlines.into_iter().flatten().min().filter(|&next| next <= limit) {
                    Some(next) => pair.now = pair.now.max(next),
                    None => {
                        pair.now = limit;
                        return;
                    }
                }
            }
        }
        panic!("the engines never rest");
    }

    /// What the server holds after some idle minutes, all connections at rest.
    fn idle_bytes(&mut self) -> isize {
        self.run(Duration::from_secs(150));
        let count = self.at_client.len();
        assert_eq!(self.pair.server.connections(), count, "all live on");
        // Some have just said that they do. Nothing else reaches them now.
        at_server(|| {
            for _ in 0..100 {
                self.pair.now += Duration::from_millis(20);
                self.pair.server.run(self.pair.now);
            }
            // Twice: buffers that were used since the last time stay.
            (0..2).for_each(|_| self.pair.server.tidy(self.pair.now));
        });
        assert_eq!(self.pair.server.folded(), count, "at rest");
        // The thread's expanded keys are bounded, whoever is connected.
        (0..2).for_each(|_| simd::release_idle_keys());
        BYTES.load(Relaxed)
    }

    /// What it holds once something has reached each.
    fn open_bytes(&mut self) -> isize {
        let server = &mut self.pair.server;
        let ids: Vec<_> = server.connection_ids().collect();
        at_server(|| ids.iter().for_each(|id| assert!(server.connection(*id).is_some())));
        assert_eq!(server.folded(), 0, "open");
        BYTES.load(Relaxed)
    }

    /// Every tunnel moves `bytes` each way, all at once.
    fn bulk(&mut self, bytes: usize) {
        let block = Bytes::from(vec![7; bytes]);
        let mut streams = Vec::new();
        for &id in &self.at_client {
            let mut conn = self.pair.client.connection(id).unwrap();
            let stream = conn.open_bi().unwrap();
            conn.write_chunks(stream, &mut [block.clone()]);
            conn.finish(stream);
            streams.push((id, stream));
        }
        self.run(Duration::from_secs(2));
        for (id, stream) in streams {
            let mut conn = self.pair.client.connection(id).unwrap();
            let mut back = Vec::new();
            assert_eq!(conn.read_all(stream, usize::MAX, &mut back), Read::Fin);
            assert_eq!(back.iter().map(Bytes::len).sum::<usize>(), bytes, "echoed");
        }
        self.run(Duration::from_secs(2));
    }
}

fn h3_config() -> masque::Config {
    masque::Config { h3_datagram: true, ..masque::Config::default() }
}

/// Our control stream.
fn open(h3: &mut masque::Connection, conn: &mut beam_tunnel::ConnMut<'_>) {
    let stream = conn.open_uni().unwrap();
    conn.write_chunks(stream, &mut [h3.opening()]);
}

fn serve(server: &mut Engine, sessions: &mut HashMap<ConnId, Box<masque::Connection>>) {
    at_server(|| {
        while let Some((conn, event)) = server.poll_event() {
            answer(server, sessions, conn, &event);
        }
    });
}

/// The gateway: an HTTP/3 session for each connection, and an echo on every request stream.
fn answer(
    server: &mut Engine,
    sessions: &mut HashMap<ConnId, Box<masque::Connection>>,
    id: ConnId,
    event: &Event,
) {
    let Some(mut conn) = server.connection(id) else { return };
    match *event {
        Event::Connected { .. } | Event::StreamOpened { .. } => {
            let h3 = sessions.entry(id).or_insert_with(|| {
                let mut h3 = masque::Connection::server(h3_config());
                open(&mut h3, &mut conn);
                Box::new(h3)
            });
            while let Some(stream) = conn.accept(Dir::Uni) {
                h3.uni_opened(stream.into()).unwrap();
                read_uni(h3, &mut conn, stream);
            }
            while let Some(stream) = conn.accept(Dir::Bi) {
                echo(&mut conn, stream);
            }
        }
        Event::StreamReadable { id: stream } if stream.dir() == Dir::Uni => {
            read_uni(sessions.get_mut(&id).unwrap(), &mut conn, stream);
        }
        Event::StreamReadable { id: stream } => echo(&mut conn, stream),
        _ => {}
    }
}

fn read_uni(h3: &mut masque::Connection, conn: &mut beam_tunnel::ConnMut<'_>, stream: beam_tunnel::StreamId) {
    while let Read::Chunk(bytes) = conn.read(stream, 4096) {
        h3.uni_data(stream.into(), bytes, false).unwrap();
    }
}

fn echo(conn: &mut beam_tunnel::ConnMut<'_>, stream: beam_tunnel::StreamId) {
    let mut chunks = Vec::new();
    let end = conn.read_all(stream, usize::MAX, &mut chunks);
    // Copies: an engine's chunks are slices of receive slabs.
    for chunk in chunks {
        conn.write_chunks(stream, &mut [Bytes::copy_from_slice(&chunk)]);
    }
    if end == Read::Fin {
        conn.finish(stream);
    }
}

fn split(before: &[isize], connections: usize) {
    println!("  live blocks for each connection, by size:");
    for (size, count) in BY_SIZE.iter().enumerate() {
        let more = count.load(Relaxed) - before[size];
        let each = more as f64 / connections as f64;
        let bytes = size as f64 * each;
        if bytes.abs() >= 4.0 {
            println!("  {size:>6} B x {each:>6.3} = {bytes:>6.0} B");
        }
    }
}

fn sizes() -> Vec<isize> {
    BY_SIZE.iter().map(|count| count.load(Relaxed)).collect()
}

/// One test, because the allocator is one.
#[test]
fn a_live_idle_tunnel_costs_what_the_worksheet_says() {
    const CONNECTIONS: usize = 256;
    let mut rig = Rig::new(ClientAuth::None);
    // Powers of two, so that tables that double are as full at both.
    for _ in 0..CONNECTIONS {
        rig.connect();
    }
    let few = (rig.idle_bytes(), rig.open_bytes());
    rig.idle_bytes();
    let few_sizes = sizes();
    for _ in 0..CONNECTIONS {
        rig.connect();
    }
    let each = |bytes: isize| (bytes / CONNECTIONS as isize) as usize;
    let idle = each(rig.idle_bytes() - few.0);
    println!("idle: {idle} B each, {} of {} came by early data", rig.early_streams, 2 * CONNECTIONS);
    split(&few_sizes, CONNECTIONS);
    let open = each(rig.open_bytes() - few.1);
    println!("open: {open} B each");
    assert_eq!(rig.early_streams, 2 * CONNECTIONS - 1, "all but the first");
    for (bytes, accounted) in [(idle, FOLDED_BYTES), (open, CONNECTION_BYTES)] {
        assert!(bytes <= accounted, "{bytes} bytes, {accounted} are accounted for");
        assert!(bytes + 1000 > accounted, "the account is too high: {bytes} bytes, not {accounted}");
    }

    let mut before = rig.idle_bytes();
    for round in 0..8 {
        rig.bulk(100_000);
        let after = rig.idle_bytes();
        let more = (after - before) / rig.at_client.len() as isize;
        println!("after bulk {round}: {more} B more each");
        assert!(round < 6 || more < 64, "bulk leaves more behind each time");
        before = after;
    }
    println!("in all, {} B for each tunnel", before / rig.at_client.len() as isize);

    // quinn's next update has to wait until the peer has answered with the keys of the last, which may have been one of its
    // own accord: `force_key_update` doesn't.
    for _ in 0..2 {
        rig.bulk(1000);
        for &id in &rig.at_client {
            rig.pair.client.connection(id).unwrap().force_key_update();
        }
        rig.bulk(1000);
    }
    let end = rig.idle_bytes() / rig.at_client.len() as isize;
    println!("after two key updates, {end} B for each tunnel");
    assert!(end.unsigned_abs() <= FOLDED_BYTES + AFTER_BULK_BYTES, "{end} B");
}
