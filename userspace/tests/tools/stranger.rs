//! A UDP socket of somebody whom the gateway doesn't know: sends what it likes and counts every byte that comes back.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use super::relay::back;
use crate::pair::{LIMIT, TUNNEL_PORT, number, until, workers};
use crate::rig::{Beam, GATEWAY_V4, Rig, patiently};

/// A version that nobody speaks (RFC 9000 15: of the pattern 0x?a?a?a?a).
const UNKNOWN_VERSION: u32 = 0x0a1a_2a3a;
/// Datagrams sent in one go: few enough for any ring or socket buffer.
const VOLLEY_COUNT: usize = 64;

/// One 4-tuple.
pub(crate) struct Stranger {
    socket: UdpSocket,
    rng: StdRng,
    pub(crate) sent_bytes: u64,
    pub(crate) sent_count: u64,
    pub(crate) received_bytes: u64,
    pub(crate) received: Vec<Vec<u8>>,
    pub(crate) probe_count: u64,
}

impl Stranger {
    pub(crate) fn new(rig: &Rig, gateway: SocketAddr, rng: StdRng) -> Self {
        let socket = back(rig, gateway);
        socket.set_read_timeout(Some(patiently(LIMIT))).unwrap();
        Self {
            socket,
            rng,
            sent_bytes: 0,
            sent_count: 0,
            received_bytes: 0,
            received: Vec::new(),
            probe_count: 0,
        }
    }

    /// The socket, for somebody with better manners.
    pub(crate) fn into_socket(self) -> UdpSocket {
        self.socket
    }

    pub(crate) fn send(&mut self, datagram: &[u8]) {
        self.socket.send(datagram).unwrap();
        self.sent_bytes += datagram.len() as u64;
        self.sent_count += 1;
    }

    /// Sends all of them; after each volley a probe is answered, so that nothing overflows on the way. Panics if anything
    /// but the probes is answered.
    pub(crate) fn send_unanswered<'a>(&mut self, datagrams: impl IntoIterator<Item = &'a Vec<u8>>) {
        for (n, datagram) in datagrams.into_iter().enumerate() {
            self.send(datagram);
            if n % VOLLEY_COUNT == VOLLEY_COUNT - 1 {
                self.assert_silence();
            }
        }
        self.assert_silence();
    }

    /// Nothing has come back for what was sent so far: the next datagram is the answer to a probe sent now.
    pub(crate) fn assert_silence(&mut self) {
        self.flush();
        assert!(
            self.received.is_empty(),
            "{} datagrams came back, the first: {:02x?}",
            self.received.len(),
            self.received[0]
        );
    }

    /// Takes in what has come back, up to the answer to a probe. The probe is a datagram with an unknown version, which
    /// any gateway answers (RFC 9000 6.1) and this one answers last, since it keeps the order of a 4-tuple.
    pub(crate) fn flush(&mut self) {
        let mut probe = vec![0xc0 | (self.rng.next_u32() as u8 & 0x3f)];
        probe.extend(UNKNOWN_VERSION.to_be_bytes());
        let mut ids = [0; 16];
        self.rng.fill_bytes(&mut ids);
        let (dcid, scid) = ids.split_at(8);
        probe.extend([&[8], dcid, &[8], scid].concat());
        probe.resize(1200, 0);
        self.socket.send(&probe).unwrap();
        self.probe_count += 1;
        // Version Negotiation swaps the CIDs (RFC 9000 17.2.1).
        let swapped = [&[0, 0, 0, 0, 8], scid, &[8], dcid].concat();
        loop {
            let answer = self.next().expect("the probe is answered");
            if answer.len() > 1 && answer[0] & 0x80 != 0 && answer[1..].starts_with(&swapped) {
                assert!(answer.len() <= 3 * probe.len(), "{} bytes for {}", answer.len(), probe.len());
                return;
            }
            self.note(answer);
        }
    }

    /// Takes in whatever has come back until now, without waiting.
    pub(crate) fn drain(&mut self) {
        self.socket.set_nonblocking(true).unwrap();
        while let Some(datagram) = self.next() {
            self.note(datagram);
        }
        self.socket.set_nonblocking(false).unwrap();
    }

    /// Waits for one datagram.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let datagram = self.next().expect("an answer");
        self.note(datagram.clone());
        datagram
    }

    fn note(&mut self, datagram: Vec<u8>) {
        self.received_bytes += datagram.len() as u64;
        self.received.push(datagram);
    }

    fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 1 << 16];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(buffer[..length].to_vec()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Datagrams that a worker received, by whichever way.
pub(crate) fn received(worker: &Value) -> u64 {
    number(worker, "xsk_rx_frames") + number(worker, "kernel_rx_packets")
}

/// Sockets whose packets worker 0 and worker 1 of the gateway receive; `None` if all of 64 ports fall on one. Which one a
/// port falls on is the kernel's secret, so that ports are tried until both are found.
pub(crate) fn one_port_each(rig: &Rig, gateway: &Beam) -> Option<[UdpSocket; 2]> {
    let mut found = [None, None];
    for n in 0..64 {
        if found.iter().all(Option::is_some) {
            break;
        }
        let before: Vec<u64> = workers(&gateway.status()).map(received).collect();
        let mut stranger = Stranger::new(rig, (GATEWAY_V4, TUNNEL_PORT).into(), StdRng::seed_from_u64(n));
        stranger.flush();
        let status = until(
            "the probe is counted",
            || gateway.status(),
            |status| workers(status).map(received).sum::<u64>() > before.iter().sum(),
        );
        let met: Vec<usize> = workers(&status)
            .zip(&before)
            .enumerate()
            .filter(|(_, (w, b))| received(w) > **b)
            .map(|(i, _)| i)
            .collect();
        assert_eq!(met.len(), 1, "one probe meets one worker: {status:#}");
        found[met[0]].get_or_insert_with(|| stranger.into_socket());
    }
    let [first, second] = found;
    first.zip(second).map(|(first, second)| [first, second])
}

/// As [`crate::pair::until`], for what takes longer: handshakes that nobody finishes last ten seconds.
pub(crate) fn until_long<T: std::fmt::Debug>(
    what: &str,
    ask: impl FnMut() -> T,
    done: impl Fn(&T) -> bool,
) -> T {
    crate::pair::until_within(Duration::from_secs(45), what, ask, done)
}
