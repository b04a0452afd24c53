//! One opened interface. (API first; bodies follow.)
use crate::{Config, LinkState, OpenError, QueueReport, TargetsError, XskPort};
use std::net::SocketAddr;

/// One interface with its XDP program attached.
pub struct Interface {
    _private: (),
}

/// Opens `config.interface`.
///
/// # Errors
/// What the machine lacks, and the command that mends it.
pub fn open(config: &Config) -> Result<(Interface, Vec<XskPort>), OpenError> {
    config.check()?;
    Err(OpenError::Load { why: "not built yet".into() })
}

impl Interface {
    /// Name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        ""
    }
    /// Index of the interface.
    #[must_use]
    pub fn index(&self) -> u32 {
        0
    }
    /// Steers UDP to these local addresses into the sockets, and nothing else.
    ///
    /// # Errors
    /// More addresses than the map holds.
    pub fn set_targets(&self, _targets: &[SocketAddr]) -> Result<(), TargetsError> {
        Ok(())
    }
    /// How each queue runs, in queue order.
    #[must_use]
    pub fn reports(&self) -> &[QueueReport] {
        &[]
    }
    /// The link, now.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        LinkState::Removed
    }
    /// Names and values of the steering counters, summed over CPUs.
    #[must_use]
    pub fn steering_counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
