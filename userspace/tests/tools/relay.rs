//! A NAT between client and gateway: forwards datagrams, and changes its source port when told to.
//!
//! ```text
//!  beam connect ──► front (127.0.0.1) ──► back[active] (198.18.0.2:some port) ──► gateway
//!               ◄──                   ◄── any back, for what is still under way
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::rig::{CLIENT_V4, Ns, Rig};

/// How soon a thread notices that the relay is gone.
const STOP_LOOK: Duration = Duration::from_millis(50);
/// Datagrams of the client that are kept for the test to replay.
const KEPT_MAX: usize = 256;

/// Runs until dropped.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    front: UdpSocket,
    backs: Vec<UdpSocket>,
    active: AtomicUsize,
    client: Mutex<Option<SocketAddr>>,
    kept: Mutex<VecDeque<Vec<u8>>>,
    /// Datagrams passed on towards the gateway, by back.
    outward: Vec<AtomicU64>,
    stop: AtomicBool,
}

/// A socket in the client's namespace, connected to the gateway: its own source port, so its own queue by chance.
pub(crate) fn back(rig: &Rig, gateway: SocketAddr) -> UdpSocket {
    rig.within(Ns::Client, || {
        let socket = UdpSocket::bind((CLIENT_V4, 0)).unwrap();
        socket.connect(gateway).unwrap();
        socket
    })
}

impl Relay {
    /// Starts with `backs[0]`.
    pub(crate) fn start(rig: &Rig, backs: Vec<UdpSocket>) -> Self {
        let front = rig.within(Ns::Client, || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        for socket in backs.iter().chain([&front]) {
            socket.set_read_timeout(Some(STOP_LOOK)).unwrap();
            // A flight of the client fits while the relay waits for the processor.
            let socket = socket2::SockRef::from(socket);
            socket.set_recv_buffer_size(4 << 20).unwrap();
        }
        let shared = Arc::new(Shared {
            front,
            outward: backs.iter().map(|_| AtomicU64::new(0)).collect(),
            backs,
            active: AtomicUsize::new(0),
            client: Mutex::new(None),
            kept: Mutex::new(VecDeque::new()),
            stop: AtomicBool::new(false),
        });
        let outward = {
            let shared = shared.clone();
            std::thread::spawn(move || shared.carry_outward())
        };
        let inward = (0..shared.backs.len()).map(|index| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.carry_inward(index))
        });
        let threads = inward.chain([outward]).collect();
        Self { shared, threads }
    }

    /// Where the client is to connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.front.local_addr().unwrap()
    }

    /// The client appears from another port from now on.
    pub(crate) fn rebind(&self, index: usize) {
        assert!(index < self.shared.backs.len());
        self.shared.active.store(index, Ordering::SeqCst);
    }

    /// Datagrams that went to the gateway by way of one back.
    pub(crate) fn outward_count(&self, index: usize) -> u64 {
        self.shared.outward[index].load(Ordering::SeqCst)
    }

    /// The latest datagrams of the client, oldest first.
    pub(crate) fn kept(&self) -> Vec<Vec<u8>> {
        self.shared.kept.lock().unwrap().iter().cloned().collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn carry_outward(&self) {
        let mut buffer = vec![0; 1 << 16];
        while let Some((length, from)) = self.next(&self.front, &mut buffer) {
            *self.client.lock().unwrap() = Some(from);
            let mut kept = self.kept.lock().unwrap();
            if kept.len() == KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back(buffer[..length].to_vec());
            drop(kept);
            let active = self.active.load(Ordering::SeqCst);
            // What a full buffer drops, QUIC sends again.
            if self.backs[active].send(&buffer[..length]).is_ok() {
                self.outward[active].fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    fn carry_inward(&self, index: usize) {
        let mut buffer = vec![0; 1 << 16];
        while let Some((length, _)) = self.next(&self.backs[index], &mut buffer) {
            if let Some(client) = *self.client.lock().unwrap() {
                let _ = self.front.send_to(&buffer[..length], client);
            }
        }
    }

    /// The next datagram; `None` once the relay stops.
    fn next(&self, socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        while !self.stop.load(Ordering::SeqCst) {
            match socket.recv_from(buffer) {
                Ok(received) => return Some(received),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                // An ICMP error about an earlier datagram: the gateway is on its way down.
                Err(_) => {}
            }
        }
        None
    }
}
