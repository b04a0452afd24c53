//! Bytes to meaning and back.
#![no_std]

use core::net::SocketAddr;

/// The two ends of a UDP exchange, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// Our address. The IP is the one the peer sent to (never unspecified on receive).
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
}
