//! What `beam ping` asks of its client, and what it is told.

use crossbeam::channel::Sender;
use std::{net::SocketAddr, time::Duration};

/// What is asked for.
pub(crate) struct ProbeConfig {
    /// Probes; `None`: until told to stop.
    pub(crate) count: Option<u64>,
    pub(crate) interval: Duration,
    /// At least as long as the probes that can be under way.
    pub(crate) reports: Sender<Report>,
}

/// What happened. What has a number is a probe, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Report {
    /// A tunnel is up and has answered its greeting.
    Up {
        remote: SocketAddr,
        opening: Opening,
        facts: PathFacts,
    },
    Answer {
        number: u64,
        rtt: Duration,
        status: u16,
        facts: PathFacts,
    },
    /// No answer, in time or at all.
    Silent {
        number: u64,
    },
}

/// How a tunnel came up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Opening {
    pub(crate) handshake: Duration,
    /// From the first packet until the answer to the greeting.
    pub(crate) first_answer: Duration,
    pub(crate) status: u16,
    /// `None` for the first tunnel, which has no ticket to try.
    pub(crate) early: Option<Early>,
}

/// What became of early data (0-RTT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Early {
    Accepted,
    Refused,
    /// There was a ticket, but none that permits early data.
    NotOffered,
    NoTicket,
}

/// What QUIC knows of the path.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PathFacts {
    /// UDP payload that the path carries, as found by now.
    pub(crate) mtu_bytes: u16,
    pub(crate) rtt: Duration,
    /// On this connection, by us.
    pub(crate) sent_packets: u64,
    pub(crate) lost_packets: u64,
}

impl PathFacts {
    pub(super) fn of(quic: &tunnel::ConnMut<'_>) -> Self {
        let path = quic.stats().path;
        Self {
            mtu_bytes: path.current_mtu,
            rtt: path.rtt,
            sent_packets: path.sent_packets,
            lost_packets: path.lost_packets,
        }
    }
}
