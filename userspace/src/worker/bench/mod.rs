//! The roles of `beam bench`: the ALPN `perf` of draft-banks-quic-performance, over the engine and the ports of tunnels.
//!
//! ```text
//!  client stream:  8 bytes, big-endian: bytes wanted back · upload · FIN   ─►  server: that many bytes · FIN
//!  bidirectional: the answer comes on the same stream · unidirectional: on one that the server opens
//!  datagrams (no part of the draft): the server sends each back, or counts it
//! ```
//! [`server`] answers whatever it is asked, within bounds. [`load`] asks: one job at a time, of streams, handshakes or
//! datagrams, each of which measures itself by the times of the worker's turns.

mod datagrams;
mod figures;
mod flow;
mod handshakes;
mod links;
mod load;
mod schedule;
mod server;
mod streams;

pub(crate) use self::{
    datagrams::{DatagramSpec, HEAD_BYTES},
    figures::{Figures, Outcome},
    handshakes::{Handshake, HandshakeSpec},
    load::{JobSpec, Load, Order, REPORTS_MAX, Report, Target, Tickets},
    schedule::Pace,
    server::{DatagramsAre, Server},
    streams::{LoadSpec, StreamSpec},
};

use super::core::Core;
use bytes::Bytes;
use std::time::Instant;
use tunnel::{ConnId, Event, VarInt};

/// The application protocol.
pub(crate) const ALPN_PERF: &[u8] = b"perf";

/// A count of bytes wanted back that stands for: until the client has enough.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// Bytes that one stream moves in one step, each way: others of the same worker have their turn.
const STEP_BYTES: usize = 256 << 10;
/// Steps in one turn.
const STEPS_MAX: usize = 64;

/// Everything is well, as an application error code.
const NO_ERROR: VarInt = VarInt::from_u32(0);
/// A stream that isn't served: the server drains.
const REFUSED: VarInt = VarInt::from_u32(1);

/// What payloads are cut from: nothing is copied or made for them, and a peer that doesn't read holds no memory.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// The next chunks of a payload of which `left` bytes are missing: at most [`STEP_BYTES`].
fn payload(left: u64) -> ([Bytes; STEP_BYTES / ZEROES.len()], usize) {
    let mut left = usize::try_from(left).unwrap_or(usize::MAX).min(STEP_BYTES);
    let mut count = 0;
    let chunks = std::array::from_fn(|_| {
        let bytes = left.min(ZEROES.len());
        left -= bytes;
        count += usize::from(bytes > 0);
        Bytes::from_static(&ZEROES[..bytes])
    });
    (chunks, count)
}

/// Either end of a measurement.
pub(crate) enum Bench {
    Serve(Server),
    Run(Load),
}

impl Bench {
    pub(super) fn on_event(&mut self, core: &mut Core, now: Instant, conn: ConnId, event: &Event) {
        match self {
            Self::Serve(server) => server.on_event(core, conn, event),
            Self::Run(load) => load.on_event(core, now, conn, event),
        }
    }

    /// Moves bytes one burst on. True if there is more to move at once.
    pub(super) fn turn(&mut self, core: &mut Core, now: Instant) -> bool {
        match self {
            Self::Serve(server) => server.turn(core),
            Self::Run(load) => load.turn(core, now),
        }
    }

    pub(super) fn obey(&mut self, core: &mut Core, now: Instant, order: Order) {
        match self {
            Self::Serve(_) => {}
            Self::Run(load) => load.obey(core, now, order),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Serve(_) => None,
            Self::Run(load) => load.next_deadline(),
        }
    }

    pub(super) fn drain(&mut self, core: &mut Core) {
        match self {
            Self::Serve(server) => server.drain(core),
            Self::Run(_) => {}
        }
    }

    /// Streams under way.
    pub(super) fn streams(&self) -> u64 {
        match self {
            Self::Serve(server) => server.streams(),
            Self::Run(_) => 0,
        }
    }

    pub(super) fn counters(&self) -> Vec<(&'static str, u64)> {
        match self {
            Self::Serve(server) => server.totals.counters().to_vec(),
            Self::Run(_) => Vec::new(),
        }
    }
}

/// Names of what a server counts, for tests.
#[cfg(test)]
pub(super) fn counter_names() -> Vec<&'static str> {
    server::Totals::default().counters().map(|(name, _)| name).to_vec()
}
