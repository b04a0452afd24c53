//! Goal: a flow through the tunnel is a TCP connection to whoever holds its ends: half-close, reset, refusal, order,
//! every byte, and backpressure mean at one end what happened at the other.
//! Method: scripted origins and local clients on the two sides of a tunnel over AF_XDP; after each script the gateway's
//! and the client's counters say exactly what happened, no more and no less.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;
#[path = "../tools/mod.rs"]
mod tools;

mod cut_off;
mod ends;
mod many;
mod refused;
mod script;
mod slow;
