//! The [`Port`](::port::Port) over one kernel UDP socket.
//!
//! It is all there is under `--xdp off`, and it stands beside an AF_XDP port as the slow path: it reserves the UDP
//! port, and it receives what steering left to the kernel (reassembled fragments, queues without a socket).
//! One worker owns each [`UdpPort`]. Nothing here needs a privilege beyond binding the port.
//!
//! ```text
//!  kernel ──recvmmsg──► free frames (64 KiB each, so that a whole GRO batch fits) ──► Received ──► worker
//!     ▲                        ▲───────────────────────── recycle ─────────────────────────────────┘
//!     └──sendmsg (GSO) ◄── submit(sealed frames of 64 KiB) ◄── worker
//!             └─ EAGAIN: copied into a bounded queue, sent by `flush` when the socket is writable
//! ```
//!
//! Who holds a frame: `free` + what the worker holds = `Options::frame_count`. When none is free the datagrams stay in
//! the socket's own buffer, and what that cannot hold is in [`UdpPort::kernel_drops`].

mod address;
mod bind;
mod datagram;
mod drops;
mod icmp;
mod port;
mod queue;
mod rx;
mod stats;
mod tx;

pub use crate::{
    bind::{BindError, Options},
    datagram::{DatagramSocket, Ends, Received, Scratch, Sent, Trouble},
    icmp::Refuser,
    port::UdpPort,
    stats::Stats,
};
