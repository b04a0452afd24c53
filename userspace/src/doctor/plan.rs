//! What beam is to be started with, as far as the checks must know it.

use crate::{
    cli::{DoctorArgs, Endpoint, HugePages, Peer, Queues, XdpMode, ZeroCopy},
    failure::Failure,
    protection::Simd,
    supervisor,
};
use std::path::PathBuf;

/// From the flags, which are those of `serve` and `connect`.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) interfaces: Vec<String>,
    pub(super) xdp: XdpMode,
    pub(super) zero_copy: ZeroCopy,
    pub(super) queues: Queues,
    /// CPUs that workers go to, in turn; each once.
    pub(super) cpus: Vec<u32>,
    pub(super) ring_size: u32,
    pub(super) frame_bytes: u32,
    pub(super) umem_mib: u32,
    pub(super) hugepages: HugePages,
    pub(super) busy_poll_usec: u32,
    pub(super) simd: Simd,
    pub(super) listen: Option<Endpoint>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) peer: Option<Peer>,
    /// Whether checks may do what pauses a NIC's queue, because the one that does was named.
    pub(super) may_pause: bool,
}

impl Plan {
    pub(super) fn new(args: &DoctorArgs) -> Result<Self, Failure> {
        let path = &args.path;
        let asked = path.cpus.as_ref().map(|list| list.0.as_slice());
        // As many workers as there could be CPUs show which ones they go to.
        const WORKERS_MAX: usize = 4096;
        let mut cpus: Vec<u32> = supervisor::cpus(asked, WORKERS_MAX)?.into_iter().flatten().collect();
        let mut known = std::collections::BTreeSet::new();
        cpus.retain(|cpu| known.insert(*cpu));
        Ok(Self {
            interfaces: path.interfaces.clone(),
            xdp: path.xdp,
            zero_copy: path.zero_copy,
            queues: path.queues.clone(),
            cpus,
            ring_size: path.ring_size,
            frame_bytes: path.frame_size,
            umem_mib: path.umem,
            hugepages: path.hugepages,
            busy_poll_usec: path.busy_poll,
            simd: path.simd,
            listen: args.listen.clone(),
            tls_cert: args.tls_cert.clone(),
            peer: args.peer.clone(),
            may_pause: args.checks.iter().any(|name| name == "trial-zero-copy"),
        })
    }

    /// Whether beam refuses to start without XDP in the driver.
    pub(super) fn insists_on_native(&self) -> bool {
        self.xdp == XdpMode::Native || self.insists_on_zero_copy()
    }

    pub(super) fn insists_on_zero_copy(&self) -> bool {
        self.zero_copy == ZeroCopy::On
    }

    /// Whether it refuses to start by kernel sockets alone.
    pub(super) fn insists_on_xdp(&self) -> bool {
        matches!(self.xdp, XdpMode::Native | XdpMode::Skb) || self.insists_on_zero_copy()
    }

    /// Whether XDP is wanted at all.
    pub(super) fn wants_xdp(&self) -> bool {
        self.xdp != XdpMode::Off
    }

    /// The CPU of worker number `index`.
    pub(super) fn cpu_of(&self, index: usize) -> Option<u32> {
        (!self.cpus.is_empty()).then(|| self.cpus[index % self.cpus.len()])
    }

    /// The queues to serve, of `count`.
    pub(super) fn queues_of(&self, count: u32) -> Vec<u32> {
        match &self.queues {
            Queues::All => (0..count).collect(),
            Queues::List(list) => list.clone(),
        }
    }

    pub(super) fn listen_port(&self) -> Option<u16> {
        self.listen.as_ref().map(|listen| listen.port)
    }
}
