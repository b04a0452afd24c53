//! Inner IP packets, sans-IO: what a tunnel that carries IP (RFC 9484) has to know about them.
//!
//! ```text
//!  kernel or LAN ──► InnerPort ──► Split ──► packets ──► QUIC DATAGRAMs
//!                                   (one super-packet, many segments; checksums completed)
//!  QUIC DATAGRAMs ──► View (checked) ──► source, destination ──► Coalescer ──► InnerPort ──► kernel or LAN
//!                       └── icmp: too big, time exceeded, unreachable
//! ```
//! [`pool`] lends addresses to clients, [`routes`] says which client a destination belongs to.
//!
//! No clock, no socket, no `unsafe`, and no panic on any input. Called by the workers and by the rooms that own the
//! devices: `tun` and the LAN port.

pub mod checksum;
pub mod coalesce;
pub mod fragment;
pub mod icmp;
pub mod inner;
pub mod packet;
pub mod pool;
pub mod prefix;
pub mod routes;
pub mod split;
pub mod vnet;

pub use coalesce::Coalescer;
pub use inner::{InnerPort, InnerSink};
pub use packet::{Malformed, View};
pub use prefix::Prefix;
pub use split::Split;
pub use vnet::Vnet;

/// The least MTU of a link that carries IPv6 (RFC 8200 section 5).
pub const IPV6_MTU_MIN_BYTES: usize = 1280;
