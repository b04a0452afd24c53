//! What a packet capture asks of a port: where its packets travel, the headers that it writes, and what it drops.
//!
//! Nothing here happens while no capture runs.

use crate::{Drop, Transmit};
use std::net::SocketAddr;

/// Where a port's packets travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// One queue of a NIC: frames are Ethernet's.
    Queue {
        /// Index of the interface.
        interface: u32,
        /// Number of the queue.
        queue: u32,
    },
    /// A kernel UDP socket: there are no headers to see.
    Socket {
        /// What it is bound to.
        local: SocketAddr,
    },
    /// Nobody knows.
    #[default]
    Unknown,
}

/// A packet that a port dropped as it came in, as the wire had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Why it was dropped.
    pub reason: Drop,
    /// The Ethernet frame.
    pub frame: Vec<u8>,
}

/// A port that a capture can look into.
pub trait Watch {
    /// Keeps a copy of what is dropped from now on, for [`Watch::take_dropped`], or doesn't any longer.
    fn keep_dropped(&mut self, keep: bool);

    /// What was dropped since the last call: of one burst, so it is bounded by that.
    fn take_dropped(&mut self) -> Vec<Kept>;

    /// Writes the headers that a datagram of a transmit gets in front, down to its checksum. `false`, and nothing is
    /// written, where there is no way out any more.
    fn headers(&mut self, transmit: &Transmit, payload: &[u8], out: &mut Vec<u8>) -> bool;
}
