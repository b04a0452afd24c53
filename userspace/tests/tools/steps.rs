//! A wire between client and gateway that takes turns, so that round trips can be counted without a clock.
//!
//! ```text
//!  client's turn: everything that it says until it falls silent is held ─► passed on at once
//!  gateway's turn: the same, back                                       ─► one round trip more
//! ```
//! However slow the machine is, what needs an answer can't overtake it. Nor does an end that was slow to say all that it could
//! cost a round trip: what it says before it is given anything new belongs to the turn before.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::pair::until;
use crate::rig::patiently;

/// Silence that ends a turn: longer than either end thinks, mostly, and than the ACK delays of QUIC.
const SILENCE: Duration = Duration::from_millis(100);
/// How soon the thread notices that the relay is gone.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// Runs until dropped.
pub(crate) struct Steps {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    round_trips: AtomicU64,
    /// What the client said first.
    first_flight: Mutex<Vec<Vec<u8>>>,
    stop: AtomicBool,
}

impl Steps {
    /// Between whoever speaks to `front` and the gateway, on loopback. A client takes tickets of one address only, hence
    /// it is the caller's.
    pub(crate) fn start(front: SocketAddr, gateway: SocketAddr) -> Self {
        // A process that another test is starting holds, until it is another program, what this one had open: the socket
        // of an earlier relay, too.
        let bound = until("the port is free again", || UdpSocket::bind(front), Result::is_ok);
        let front = bound.unwrap();
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        back.connect(gateway).unwrap();
        let shared = Arc::<Shared>::default();
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || of_thread.take_turns(&front, &back));
        Self { shared, thread: Some(thread) }
    }

    /// Answers of the gateway that were passed on.
    pub(crate) fn round_trips(&self) -> u64 {
        self.shared.round_trips()
    }

    /// The datagrams that the client sent before it had heard anything.
    pub(crate) fn first_flight(&self) -> Vec<Vec<u8>> {
        self.shared.first_flight.lock().unwrap().clone()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What has come and was not yet read.
fn waiting(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    socket.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => all.push(buffer[..length].to_vec()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            // As below.
            Err(_) => {}
        }
    }
    socket.set_nonblocking(false).unwrap();
    all
}

impl Shared {
    fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::SeqCst)
    }

    fn take_turns(&self, front: &UdpSocket, back: &UdpSocket) {
        let mut to: Option<SocketAddr> = None;
        // What the gateway says next is the first that depends on what it was given last.
        let mut is_asked = false;
        let answered = |answer: &[Vec<u8>], is_asked: &mut bool, to: SocketAddr| {
            if !answer.is_empty() && std::mem::take(is_asked) {
                self.round_trips.fetch_add(1, Ordering::SeqCst);
            }
            answer.iter().for_each(|datagram| drop(front.send_to(datagram, to)));
        };
        while !self.stop.load(Ordering::SeqCst) {
            let (mut said, who) = self.listen(front, STOP_LOOK);
            to = who.or(to);
            let Some(client) = to else { continue };
            // The gateway's last turn, had it been quicker.
            answered(&waiting(back), &mut is_asked, client);
            let mut answer = Vec::new();
            // Of what was held when the relay is ended, too: a client's farewell.
            while !said.is_empty() {
                said.iter().for_each(|datagram| drop(back.send(datagram)));
                is_asked = true;
                answer.extend(self.listen(back, patiently(SILENCE)).0);
                if self.round_trips() == 0 {
                    self.first_flight.lock().unwrap().append(&mut said);
                }
                // The client's turn, had it been quicker: it has not been given the answer.
                said = waiting(front);
            }
            answered(&answer, &mut is_asked, client);
        }
    }

    /// What one end says until it falls silent, if it begins within `begin`; and who it is.
    fn listen(&self, socket: &UdpSocket, begin: Duration) -> (Vec<Vec<u8>>, Option<SocketAddr>) {
        let (mut said, mut who) = (Vec::new(), None);
        let mut buffer = vec![0; 1 << 16];
        socket.set_read_timeout(Some(begin)).unwrap();
        while !self.stop.load(Ordering::SeqCst) {
            match socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    who = Some(from);
                    said.push(buffer[..length].to_vec());
                    socket.set_read_timeout(Some(patiently(SILENCE))).unwrap();
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                // An ICMP error about an earlier datagram: the gateway is away.
                Err(_) => {}
            }
        }
        (said, who)
    }
}
