//! A seeded network under a virtual clock, driving real [`tunnel::Engine`]s and the hand-over between workers.
//!
//! ```text
//!  client engine ⇄ its NIC ⇄ NAT ⇄ links (loss, bursts, jitter, reorder, attacks, ...) ⇄ RSS ⇄ NIC ⇄ worker engine
//!                                                                                          └── hand-over by CID
//! ```
//!
//! A run is a function of its seed: the network's dice, quinn's and the CIDs' random numbers all come
//! from it, and time is a number. [`Trace`] hashes what happened on the wire (times, sizes, packet
//! forms, fates; not ciphertext, since TLS draws from the system), so two runs can be compared.
//!
//! | module | what is there |
//! |---|---|
//! | [`impairments`], [`link`], [`net`] | what a path and an attacker do to datagrams; NAT |
//! | [`nic`] | bounded rings and the pool of frames, owned tokens |
//! | [`node`], [`world`] | a worker's turn, hand-over, the clock; conservation is checked at every step |
//! | [`echo`] | the applications: every byte once and in order, or its flow is reported as failed |
//! | [`host`] | engines and TLS |
//! | [`scenario`], [`chaos`] | what a seed stands for, and a run of it with all checks |

pub mod chaos;
pub mod echo;
pub mod host;
pub mod impairments;
pub mod link;
pub mod net;
pub mod nic;
pub mod node;
pub mod scenario;
pub mod trace;
pub mod world;

pub use impairments::Impairments;
pub use net::Network;
pub use trace::Trace;
pub use world::{App, World};
