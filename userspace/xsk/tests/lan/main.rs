//! Goal: inner packets go from a LAN into the tunnel and back whole, proved and counted, and the kernel sees none of them;
//! everything else on the LAN is the kernel's.
//! Method: the peer's namespace is a LAN host whose kernel routes the tunnel's prefixes to us. A packet socket there sends
//! crafted frames, ordinary sockets send what kernels leave unfinished, and receive what the port sends.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../tests/rig/packet.rs"]
mod packet;
#[path = "../rig/mod.rs"]
mod rig;

mod inward;
mod kernel;
mod outward;
mod world;
