//! Who holds the frames of a port whose frames the kernel holds too.

/// Where each frame of one AF_XDP socket's UMEM is; one line per holder. The sum is `total` at every instant between
/// calls of the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Index of the interface.
    pub interface: u32,
    /// The queue that the socket serves.
    pub queue: u32,
    /// Idle in the port: waiting for room on the fill ring, or to be sent.
    pub free: usize,
    /// On the fill ring or inside the kernel's receive path.
    pub fill: usize,
    /// Received, still on the RX ring.
    pub rx: usize,
    /// Staged, on the TX ring or inside the kernel's transmit path.
    pub tx: usize,
    /// Sent, still on the completion ring.
    pub completion: usize,
    /// With a worker: delivered and not yet recycled, on their way to another worker and back included; or reserved to
    /// be sealed into.
    pub out: usize,
    /// All frames of the UMEM.
    pub total: usize,
}

impl Census {
    /// Frames accounted for.
    #[must_use]
    pub fn sum(&self) -> usize {
        self.free + self.fill + self.rx + self.tx + self.completion + self.out
    }

    /// Whether every frame is accounted for, once.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.sum() == self.total
    }
}
