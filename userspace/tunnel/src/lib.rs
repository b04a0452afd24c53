//! The QUIC engine of beam: quinn-proto, driven without IO.
//!
//! ```text
//!   datagrams in ──► Engine::receive ─┐                       ┌─► Engine::poll_event ──► application
//!                                     ├─► Engine::run(now) ───┤
//!   clock (now) ──────────────────────┘                       └─► Engine::transmit ────► datagrams out
//!                              application ──► Engine::connection(id) ──► streams, datagrams
//! ```
//!
//! One [`Engine`] belongs to one worker thread and owns every connection whose CID names that
//! worker. It reads no clock (`now` is an argument), opens no socket and starts no thread, so the
//! same code runs in the gateway, in the client and in the simulator.
//!
//! What quinn-proto leaves to its driver lives here: the strict three-times anti-amplification
//! limit and adaptive Retry ([`admission`]), connection IDs that name their worker ([`cid`]), a
//! lazy timer wheel ([`wheel`]), limits on every queue, and a count for everything that is dropped
//! ([`stats`]).
//!
//! Packets are sealed and opened in batches, across connections, beneath an unmodified quinn-proto
//! ([`protection`]).

pub mod admission;
pub mod cid;
mod config;
mod connection;
mod engine;
mod event;
mod header;
mod protection;
pub mod resume;
pub mod stats;
pub mod tls;
pub mod transport;
pub mod wheel;

/// For benches alone.
#[doc(hidden)]
pub mod bench {
    pub use crate::protection::Directory;
}

pub use admission::RetryPolicy;
pub use cid::{CidKey, WorkerId};
pub use config::{EngineConfig, Secrets};
pub use connection::{ConnId, ConnMut, DatagramSend, Read, Write};
pub use engine::{
    Batches, CONNECTION_BYTES, Engine, FOLDED_BYTES, Inbound, Memory, Outlet, Owner, Qlog, Reserved, Sink,
    Transmit,
};
pub use event::{CloseReason, Event};
pub use protection::Protection;
pub use quinn_proto::{
    ConnectError, Dir, EcnCodepoint, Side, StreamId, TokenLog, TokenReuseError, TokenStore, VarInt,
};
pub use simd::{Level, LevelError, Sealed, ciphers_that_differ_from_ring};
pub use stats::{DropReason, Stats};
