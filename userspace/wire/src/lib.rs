//! Bytes to meaning and back: everything here is a pure function of a slice.
//!
//! ```text
//!              frame ──► headers::Headers ──┬──► steering verdict (xdp-ebpf, in the kernel)
//!                        (one parser)       └──► datagram::Datagram (userspace, checks everything again)
//!  Datagram.payload ──► quic::{long_header, short_dcid} ──► who owns this connection
//!  payload ──► encap::Template::write ──► frame
//! ```
//!
//! No clock, no socket, no allocation, no `unsafe`, and no panic on any input. `headers` is also compiled for the
//! BPF target, which is why it reads through the [`Bytes`] trait and inlines everything.
#![no_std]

pub mod checksum;
pub mod datagram;
pub mod encap;
pub mod headers;
pub mod quic;

mod bytes;

pub use bytes::Bytes;

use core::net::SocketAddr;

/// The two ends of a UDP exchange, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// Our address. The IP is the one the peer sent to (never unspecified on receive).
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
}
