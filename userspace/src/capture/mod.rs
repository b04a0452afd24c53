//! `beam capture`: packets of the bypassed path for Wireshark, from a running daemon.
//!
//! ```text
//!  worker: Captures ─ Tap ──► bounded ring of bytes ──┐
//!  rustls: KeyLog ──────────► bounded queue ──────────┼─► plane (a thread of the control socket) ─► socket ─► verb ─► files
//!  quinn:  qlog writer ─────► bounded queue ──────────┘
//! ```
//! No worker ever waits: what finds no room is missed, and counted as that. While no capture runs, a burst costs one
//! branch ([`tap::Captures::is_on`]).
//!
//! # Memory
//! One capture: [`RING_BYTES`] and as much again for what one turn collects, for each worker; with `--qlog`
//! [`qlog::QUEUE_BYTES_MAX`]; with `--keylog` [`keylog::LINES_MAX`] lines of at most 256 bytes; and one pass of the plane, which
//! holds what the rings held. So with `w` workers at most `3 w · 4 MiB + 8 MiB + 1 MiB`, and [`CAPTURES_MAX`] times that
//! for a daemon. Pages that no record has touched cost nothing.

pub(crate) mod files;
pub(crate) mod keylog;
mod line;
pub(crate) mod pcapng;
pub(crate) mod plane;
pub(crate) mod qlog;
pub(crate) mod record;
pub(crate) mod synth;
pub(crate) mod tap;
mod verb;

pub(crate) use verb::run;

use serde::{Deserialize, Serialize};

/// Captures of one daemon at once.
pub(crate) const CAPTURES_MAX: usize = 4;
/// The ring of one worker for one capture: 2,800 full packets.
pub(crate) const RING_BYTES: usize = 4 << 20;
/// Bytes kept of a packet unless told otherwise: all, as tcpdump.
pub(crate) const SNAP_DEFAULT: u32 = 262_144;

/// Where packets are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub(crate) enum Point {
    /// As they come in from the wire
    Rx,
    /// As they leave for the wire, sealed
    Tx,
    /// The IP packets inside of the tunnels
    Inner,
    /// Packets that a port or a worker drops, with the reason as comment
    Drop,
}

impl Point {
    pub(crate) const ALL: [Self; 4] = [Self::Rx, Self::Tx, Self::Inner, Self::Drop];

    pub(crate) fn name(self) -> &'static str {
        ["rx", "tx", "inner", "drop"][self as usize]
    }
}

/// A set of points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Points(u8);

impl Points {
    pub(crate) fn has(self, point: Point) -> bool {
        self.0 & (1 << point as u8) != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Point> for Points {
    fn from_iter<T: IntoIterator<Item = Point>>(points: T) -> Self {
        Self(points.into_iter().fold(0, |set, point| set | 1 << point as u8))
    }
}

/// Which way a packet goes, seen from beam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Way {
    In = 1,
    Out = 2,
}

/// What a caller of the control socket wants to see.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) points: Vec<Point>,
    /// Only packets of this interface: a NIC's name, `udp` for kernel sockets, or that of the inner network.
    pub(crate) interface: Option<String>,
    /// Only packets of this client, or of this tunnel.
    pub(crate) client: Option<String>,
    /// Bytes kept of each packet.
    pub(crate) snap: u32,
    /// TLS secrets of handshakes that begin meanwhile.
    pub(crate) keylog: bool,
    /// A qlog of each connection that begins meanwhile.
    pub(crate) qlog: bool,
}

/// The daemon's first word.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Granted {
    /// Number of the capture, as in `beam status` and the daemon's log.
    pub(crate) id: u32,
    /// `gateway` or `client`.
    pub(crate) role: String,
    pub(crate) version: String,
    /// When it began, since 1970: what the times in qlogs are relative to.
    pub(crate) wall_ns: u64,
    /// What the caller should know.
    pub(crate) notes: Vec<String>,
}

/// One capture, for `beam status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CaptureStatus {
    pub(crate) id: u32,
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    pub(crate) points: Vec<Point>,
    pub(crate) keylog: bool,
    pub(crate) seen: u64,
    pub(crate) missed: u64,
}

/// Counts of one interface, in the order of [`Point::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) interface: u16,
    /// Packets that passed the filters.
    pub(crate) seen: [u64; 4],
    /// Those of them that found no room.
    pub(crate) missed: [u64; 4],
}

/// How a capture is doing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) interfaces: Vec<Count>,
    pub(crate) secrets_missed: u64,
    pub(crate) qlog_records_missed: u64,
    pub(crate) qlog_connections_missed: u64,
}

impl Tally {
    pub(crate) fn missed(&self) -> u64 {
        self.interfaces.iter().flat_map(|count| count.missed).sum()
    }

    pub(crate) fn seen(&self) -> u64 {
        self.interfaces.iter().flat_map(|count| count.seen).sum()
    }

    /// Missed at one point.
    pub(crate) fn missed_at(&self, point: Point) -> u64 {
        self.interfaces.iter().map(|count| count.missed[point as usize]).sum()
    }
}

/// An interface of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    /// Worker in the high byte.
    pub(crate) id: u16,
    pub(crate) name: String,
    pub(crate) description: String,
    /// LINKTYPE of pcapng.
    pub(crate) link: u16,
}
