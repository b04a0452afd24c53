//! What the socket tests share: waiting for events, and counting what arrives.
#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, reason = "tests, which clippy does not see in a shared module")]

use std::time::{Duration, Instant};

use beam_udp::{Options, UdpPort};
use port::{Counters, Ecn, Port, Received};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wire::Path;

/// Nothing on one host takes this long; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn bind(address: &str) -> UdpPort {
    UdpPort::bind(address.parse().unwrap(), Options::default()).unwrap()
}

/// Waits until the port's descriptor shows `flags`; false if it does not within `timeout`.
pub(crate) fn wait(port: &UdpPort, flags: PollFlags, timeout: Duration) -> bool {
    let fd = port.poll_fd();
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    poll(&mut fds, Some(&timeout)).unwrap() == 1
}

/// A datagram as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: Path,
    pub(crate) ecn: Option<Ecn>,
    pub(crate) bytes: Vec<u8>,
}

/// Takes every entry apart and gives its frame back.
pub(crate) fn open(port: &mut UdpPort, burst: Vec<Received>) -> Vec<Seen> {
    let mut seen = Vec::new();
    for entry in burst {
        assert!(!entry.path.local.ip().is_unspecified() && entry.segment_bytes > 0);
        let one = |bytes: &[u8]| Seen { path: entry.path, ecn: entry.ecn, bytes: bytes.into() };
        seen.extend(entry.datagrams().map(one));
        port.recycle(entry.frame);
    }
    seen
}

/// Receives until `count` datagrams are here, then looks once more that there is none beyond.
pub(crate) fn receive(port: &mut UdpPort, count: usize) -> Vec<Seen> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while seen.len() < count {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(wait(port, PollFlags::IN, left), "{} of {count} datagrams arrived", seen.len());
        seen.extend(receive_now(port));
    }
    seen.extend(receive_now(port));
    assert_eq!(seen.len(), count);
    check_rx(port);
    seen
}

/// One burst, whatever there is.
pub(crate) fn receive_now(port: &mut UdpPort) -> Vec<Seen> {
    let mut burst = Vec::new();
    let entries = port.receive(&mut burst, 64).unwrap();
    assert_eq!(entries, burst.len());
    open(port, burst)
}

/// Conservation on the way in.
pub(crate) fn check_rx(port: &UdpPort) {
    let counters: &Counters = port.counters();
    assert_eq!(counters.rx_datagrams, counters.rx_delivered + counters.drops.rx_total());
}

/// Conservation on the way out: what was given is sent, dropped or queued.
pub(crate) fn check_tx(port: &UdpPort, given: u64) {
    let drops: u64 = port.counters().drops.iter().map(|(_, n)| n).sum();
    let dropped = drops - port.counters().drops.rx_total();
    assert_eq!(port.counters().tx_datagrams + dropped + port.tx_queued() as u64, given);
}
