//! What a worker reports about itself: plain numbers, copied out when somebody asks.

use super::{meters::Meters, ports::HandOver};
use crate::protection::ProtectionStatus;
use cache::LevelReport;
use port::{Census, Counters, KnownWays};

/// One port at the same instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortSnapshot {
    pub(crate) counters: Counters,
    /// Where the frames of an AF_XDP socket are; `None` for a kernel socket.
    pub(crate) frames: Option<Census>,
    /// Its table of ways out; `None` where the kernel finds them.
    pub(crate) ways: Option<KnownWays>,
    /// XDP_STATISTICS of an AF_XDP socket.
    pub(crate) kernel: Option<[(&'static str, u64); 6]>,
}

/// One worker at one instant.
#[derive(Debug, Default)]
pub(crate) struct WorkerSnapshot {
    pub(crate) id: u8,
    /// One entry a port.
    pub(crate) ports: Vec<PortSnapshot>,
    /// Where the frames of the LAN's AF_XDP sockets are.
    pub(crate) inner_frames: Vec<Census>,
    pub(crate) hand_over: HandOver,
    pub(crate) connections: u64,
    pub(crate) flows: u64,
    /// Requests that are neither refused nor flows yet.
    pub(crate) pending: u64,
    pub(crate) flows_opened: u64,
    /// Drops inside the engine and above it, and by the kernel below the ports, by name.
    pub(crate) drops: Vec<(&'static str, u64)>,
    /// Other counters of the engine and the role, by name.
    pub(crate) counters: Vec<(&'static str, u64)>,
    pub(crate) protection: ProtectionStatus,
    pub(crate) loops: u64,
    pub(crate) sleeps: u64,
    /// `None` only in tests.
    pub(crate) meters: Option<Meters>,
    /// This worker's level of caches.
    pub(crate) caches: Vec<(&'static str, LevelReport)>,
    /// The client's tunnel is up (always true at a gateway).
    pub(crate) up: bool,
    /// A client's tunnels: how many are up, of how many.
    pub(crate) tunnels: Option<(usize, usize)>,
    /// Of those, without a connection.
    pub(crate) asleep: u64,
    /// What it waits for, where `up` is false.
    pub(crate) waits_for: Option<String>,
}
