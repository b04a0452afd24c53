//! What a job has counted.

use meter::{Histogram, Scale};
use std::time::Duration;

/// The figures of one kind of load in one run. Those of the window leave the warm-up out; those of the whole run are for
/// comparison with the server's counters.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// What it is: `up`, `down`, `requests`, `handshakes`, `datagrams`, `load`.
    pub(crate) name: &'static str,
    /// How long the window was.
    pub(crate) window: Duration,
    /// Window: how many were due by the schedule; 0 where there is none.
    pub(crate) offered: u64,
    /// Window: how many of them, or that ended in it, are done.
    pub(crate) done: u64,
    /// Window: payload.
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    /// Whole run.
    pub(crate) all_asked: u64,
    pub(crate) all_done: u64,
    /// Cut off, or not what was asked for.
    pub(crate) all_failed: u64,
    /// Neither done nor failed at the end.
    pub(crate) all_unanswered: u64,
    pub(crate) all_bytes_asked: u64,
    pub(crate) all_bytes_up: u64,
    pub(crate) all_bytes_down: u64,
    /// Handshakes that offered a ticket, and whose early data was accepted.
    pub(crate) all_tickets: u64,
    pub(crate) all_early: u64,
    /// Handshakes in which the server showed its certificate.
    pub(crate) all_certificates: u64,
    /// Datagrams that came back behind a later one.
    pub(crate) all_reordered: u64,
    /// Window: from when it was due (open loop) or asked (else) to its end.
    pub(crate) latency: Histogram,
    /// Window, handshakes: to the end of the handshake alone.
    pub(crate) handshake: Histogram,
}

impl Figures {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            window: Duration::ZERO,
            offered: 0,
            done: 0,
            bytes_up: 0,
            bytes_down: 0,
            all_asked: 0,
            all_done: 0,
            all_failed: 0,
            all_unanswered: 0,
            all_bytes_asked: 0,
            all_bytes_up: 0,
            all_bytes_down: 0,
            all_tickets: 0,
            all_early: 0,
            all_certificates: 0,
            all_reordered: 0,
            latency: Histogram::new(Scale::Time),
            handshake: Histogram::new(Scale::Time),
        }
    }

    pub(super) fn moved_up(&mut self, bytes: u64, counts: bool) {
        self.all_bytes_up += bytes;
        self.bytes_up += if counts { bytes } else { 0 };
    }

    pub(super) fn moved_down(&mut self, bytes: u64, counts: bool) {
        self.all_bytes_down += bytes;
        self.bytes_down += if counts { bytes } else { 0 };
    }
}

/// What QUIC saw of the way, summed over a job's connections at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PathSeen {
    /// The smallest UDP payload that a path carries.
    pub(crate) mtu_bytes: u16,
    /// Smoothed round trip of the first connection.
    pub(crate) rtt: Duration,
    pub(crate) sent_packets: u64,
    pub(crate) lost_packets: u64,
    pub(crate) congestion_events: u64,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<Figures>,
    pub(crate) path: Option<PathSeen>,
    /// Why it ended before its time.
    pub(crate) trouble: Option<String>,
    /// Somebody asked it to end.
    pub(crate) interrupted: bool,
}
