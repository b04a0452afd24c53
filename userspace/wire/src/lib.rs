//! Bytes to meaning and back: everything here is a pure function of a slice.
//!
//! ```text
//!              frame ──► headers::Headers ──┬──► steering verdict (xdp-ebpf, in the kernel)
//!                        (one parser)       └──► datagram::Datagram (userspace, checks everything again)
//!          LAN frame ──► inner::Inner ──► the LAN's verdict (in the kernel), the LAN port (userspace)
//!  Datagram.payload ──► quic::{long_header, short_dcid} ──► who owns this connection
//!  payload ──► encap::Template::write ──► frame
//! ```
//!
//! No clock, no socket, no allocation, no `unsafe`, and no panic on any input. `headers` and `inner` are also compiled
//! for the BPF target, which is why they read through the [`Bytes`] trait and inline everything.
#![no_std]

pub mod checksum;
pub mod datagram;
pub mod encap;
pub mod headers;
pub mod inner;
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
