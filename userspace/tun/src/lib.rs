//! The TUN device at either end of a tunnel: one queue for each worker, with the kernel's offloads.
//!
//! ```text
//!  Device::create(name, queues) ─► [Queue] ─► one for each worker: ip::InnerPort
//!          └── Network: MTU, addresses, routes (rtnetlink)
//!
//!  kernel ── read: vnet header + packet of up to 64 KiB ──► Queue ──► worker (splits it)
//!  kernel ◄── writev: vnet header + headers + payloads ──── Queue ◄── worker's packets, put together
//! ```
//! The device, its addresses and its routes vanish with the last descriptor, however the process ends.
//!
//! `tun-rs` was looked at: its device owns blocking or async I/O of one packet a call into buffers of its own, and its
//! addresses go by `ioctl`, without routes. What is needed here are three `ioctl`s (`sys`) and some netlink.

mod device;
mod error;
mod netlink;
mod network;
mod queue;
mod sys;

pub use device::Device;
pub use error::{NetworkError, TunError};
pub use network::Network;
pub use queue::Queue;
