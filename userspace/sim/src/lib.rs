//! A seeded network under a virtual clock, driving real [`tunnel::Engine`]s.
//!
//! ```text
//!  client engine ─► NAT ─► impairments (loss, delay, reorder, duplicate, corrupt) ─► RSS ─► worker engines
//!        ▲                                                                             │ hand-over by CID
//!        └──── NAT ◄──────────────── impairments ◄─────────────────────────────────────┘
//! ```
//!
//! A run is a function of its seed: the network's dice, quinn's and the CIDs' random numbers all come
//! from it, and time is a number. [`Trace`] hashes what happened on the wire (times, sizes, packet
//! forms, fates; not ciphertext, since TLS draws from the system), so two runs can be compared.
//!
//! Applications are written against the engine as the worker's are, through [`App`].

pub mod echo;
pub mod host;
pub mod net;
pub mod trace;
pub mod world;

pub use net::{Impairments, Network};
pub use trace::Trace;
pub use world::{App, World};
