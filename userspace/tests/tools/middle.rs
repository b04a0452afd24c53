//! A middlebox on loopback that loses what it is told to, or leads each new connection to another gateway.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::pair::until;

/// How soon a thread notices that it is to stop.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// What becomes of a datagram from the client.
pub(crate) enum Fate {
    /// To this gateway.
    To(usize),
    Lost,
}

/// Runs until dropped.
pub(crate) struct Middle {
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Middle {
    /// Between whoever speaks to `front` and `gateways`; `judge` is asked for each datagram of the client.
    pub(crate) fn start(
        front: SocketAddr,
        gateways: &[SocketAddr],
        mut judge: impl FnMut(&[u8]) -> Fate + Send + 'static,
    ) -> Self {
        // See `steps`: a process that is being started may hold the port for a moment.
        let front = until("the port is free", || UdpSocket::bind(front), Result::is_ok).unwrap();
        let (stop, lost) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let backs: Vec<UdpSocket> = gateways
            .iter()
            .map(|gateway| {
                let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                back.connect(gateway).unwrap();
                back
            })
            .collect();
        for socket in backs.iter().chain([&front]) {
            socket.set_read_timeout(Some(STOP_LOOK)).unwrap();
        }
        let client = Arc::new(std::sync::Mutex::new(None));
        let mut threads = Vec::new();
        for back in &backs {
            let (front, back, stop) = (front.try_clone().unwrap(), back.try_clone().unwrap(), stop.clone());
            let client = client.clone();
            threads.push(std::thread::spawn(move || {
                receive(&back, &stop, |datagram, _| {
                    if let Some(client) = *client.lock().unwrap() {
                        let _ = front.send_to(datagram, client);
                    }
                })
            }));
        }
        let (of_thread, counted) = (stop.clone(), lost.clone());
        threads.push(std::thread::spawn(move || {
            receive(&front, &of_thread, |datagram, from| {
                *client.lock().unwrap() = Some(from);
                match judge(datagram) {
                    Fate::To(index) => drop(backs[index].send(datagram)),
                    Fate::Lost => drop(counted.fetch_add(1, Ordering::SeqCst)),
                }
            })
        }));
        Self { stop, lost, threads }
    }

    /// Datagrams of the client that went nowhere.
    pub(crate) fn lost_count(&self) -> u64 {
        self.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, mut take: impl FnMut(&[u8], SocketAddr)) {
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::SeqCst) {
        // An error is an ICMP message about an earlier datagram, or the time to look whether to stop.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            take(&buffer[..length], from);
        }
    }
}
