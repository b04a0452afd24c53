//! Goal: UDP travels through the tunnel datagram by datagram: what is sent arrives once and whole at the other end, what is
//! dropped is counted under one name, and an end that isn't there is told as the kernel tells it.
//! Method: an echo server in the origin's namespace, local clients in the client's; every payload is different and known
//! by its number, and the counters of both daemons must agree with the ends.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod echo;
#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;
#[path = "../tools/mod.rs"]
mod tools;

mod local;
mod socks;
mod strangers;
