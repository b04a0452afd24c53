//! A UDP echo server in the origin's namespace, and numbered payloads.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::pair::LIMIT;
use crate::rig::{Ns, Rig, patiently, pattern};

/// Sends every datagram back to where it came from, until it is dropped.
pub(crate) struct UdpEcho {
    address: SocketAddr,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    datagrams: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
}

impl UdpEcho {
    pub(crate) fn start(rig: &Rig, ns: Ns, ip: impl Into<IpAddr>) -> Self {
        let ip = ip.into();
        let socket = rig.within(ns, || UdpSocket::bind((ip, 0))).unwrap();
        large_buffer(&socket);
        let address = socket.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let thread = std::thread::spawn({
            let counts = Arc::clone(&counts);
            move || serve(&socket, &counts)
        });
        Self { address, counts, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Datagrams and payload bytes that have come.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.counts.datagrams.load(Ordering::SeqCst), self.counts.bytes.load(Ordering::SeqCst))
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, counts: &Counts) {
    // Only to see the flag.
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = vec![0; 65_536];
    while !counts.stop.load(Ordering::SeqCst) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            counts.datagrams.fetch_add(1, Ordering::SeqCst);
            counts.bytes.fetch_add(length as u64, Ordering::SeqCst);
            // A client that is gone is its own business.
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}

/// A burst of the tests must not overflow a socket: what is counted is the tunnel. Past the system's limit, as root.
pub(crate) fn large_buffer(socket: &UdpSocket) {
    rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, 4 << 20).unwrap();
}

/// A socket of a local client.
pub(crate) fn local_client(rig: &Rig, to: SocketAddr) -> UdpSocket {
    let any: IpAddr = if to.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    let socket = rig.within(Ns::Client, || UdpSocket::bind((any, 0))).unwrap();
    socket.connect(to).unwrap();
    large_buffer(&socket);
    socket.set_read_timeout(Some(patiently(LIMIT))).unwrap();
    socket
}

/// The payload of `length` bytes with this number: bytes of the pattern from its own place on.
pub(crate) fn payload(number: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| pattern(number * 65_536 + i)).collect()
}

/// Sends all of them, at most `window` ahead of their echoes, and takes each echo exactly once. UDP promises no order.
pub(crate) fn exchange(socket: &UdpSocket, payloads: &[Vec<u8>], window: usize) {
    let mut missing: HashSet<&[u8]> = HashSet::new();
    let mut buffer = vec![0; 65_536];
    for (n, payload) in payloads.iter().enumerate() {
        socket.send(payload).unwrap();
        // Of no bytes there can be only one at a time.
        assert!(missing.insert(payload), "payload {n} is there twice");
        let left = if n + 1 == payloads.len() { 0 } else { window };
        while missing.len() > left {
            let length = socket.recv(&mut buffer).unwrap_or_else(|e| {
                panic!("{e}: {} of {} echoes are missing after payload {n}", missing.len(), payloads.len())
            });
            assert!(missing.remove(&buffer[..length]), "an echo of {length} bytes that nobody waits for");
        }
    }
}
