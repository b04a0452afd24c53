//! A packet generator: what its frames hold, when they leave, and what became of them.
//!
//! ```text
//!   Spec ──► Maker (a thread's own) ──► frame ──┐
//!   Plan ──► Pacer ── how many are due now ─────┴─► run ──► Wire (an AF_XDP socket that only sends) ──► Outcome
//! ```
//!
//! `net` has prefixes to draw addresses from, `frame` the [`Spec`] and its [`Maker`], `quic` the payloads that look like
//! QUIC (`hello` is the TLS inside), `pace` the [`Pacer`], `run` the loop. Time is an argument everywhere but in the
//! [`Wall`] clock. Called by `beam pktgen` and by `beam bench rfc2544`, which brings a [`Source`] of its own.

mod frame;
mod hello;
mod net;
mod pace;
mod quic;
mod run;

pub use frame::{IMIX, Maker, Sizes, Spec, headers_bytes};
pub use net::{Net, Ports};
pub use pace::Pacer;
pub use quic::{INITIAL_BYTES_MIN, Shape};
pub use run::{Clock, Outcome, Plan, Source, Tally, Wall, Wire, run};
