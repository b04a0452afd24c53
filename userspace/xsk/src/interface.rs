//! [`open`] and [`Interface`]: an interface whose UDP datagrams to our addresses go into AF_XDP sockets.

use crate::{
    Config, OpenError, TargetsError, XskPort,
    device::{self, Device, Kind},
    queue::Queue,
    targets::Targets,
    templates::Templates,
};
use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};
use steer::Counter;

/// An interface of the tunnel's outer side. What any [`Device`] has, it has.
///
/// Drop it before the ports (the other order is safe too: each port takes its own queue out of the steering map).
#[derive(Debug)]
pub struct Interface {
    // First: detach, then the map.
    device: Device,
    targets: Arc<Targets>,
}

/// Attaches the steering program to `config.interface` and binds one socket for each queue, in queue order as
/// configured. Nothing is steered until [`Interface::set_targets`].
///
/// The calling thread's network namespace is the one that counts. May block for some seconds while a NIC resets.
///
/// # Errors
/// What the machine lacks, and the command that mends it. Nothing stays attached.
pub fn open(config: &Config) -> Result<(Interface, Vec<XskPort>), OpenError> {
    let kind =
        Kind { program: steer::PROGRAM, counters: steer::maps::COUNTERS, counter_names: Counter::NAMES };
    let (device, targets, queues) = device::open(config, &kind, |program, mirror, _| {
        Ok(Targets::new(program.take_map(steer::maps::TARGETS)?, mirror))
    })?;
    let interface = Interface { device, targets };
    let ports = interface.ports(queues);
    Ok((interface, ports))
}

impl Interface {
    fn ports(&self, queues: Vec<Queue>) -> Vec<XskPort> {
        let config = self.device.config();
        let port = |queue| {
            let templates = Templates::new(self.index(), self.device.reader());
            XskPort::new(queue, templates, config.simd, config.verify_checksums)
        };
        queues.into_iter().map(port).collect()
    }

    /// Opens a socket on each queue that the NIC has got since, if all queues were asked for. Steered at once.
    ///
    /// Needs what [`open`] needs. The calling thread's network namespace has to be that of the interface.
    ///
    /// # Errors
    /// As [`open`]; the new queues are left to the kernel then.
    pub fn serve_new_queues(&self) -> Result<Vec<XskPort>, OpenError> {
        Ok(self.ports(self.device.new_queues()?))
    }

    /// Steers UDP to these local addresses into the sockets, and nothing else. `0.0.0.0` stands for every IPv4
    /// address of this host, `[::]` for every IPv6 address, also for those that come later.
    ///
    /// # Errors
    /// More addresses than the map holds; what was steered before still is.
    pub fn set_targets(&self, targets: &[SocketAddr]) -> Result<(), TargetsError> {
        self.targets.set(targets)
    }

    /// Has the kernel look for the neighbour towards `remote` and waits for it, at most for `within`: packets then
    /// leave by the sockets from the first one on. False if there was no answer, or `remote` is reached another way.
    #[must_use]
    pub fn find_neighbour(&self, local: &SocketAddr, remote: &SocketAddr, within: Duration) -> bool {
        let (index, mirror) = (self.index(), self.device.mirror());
        let tables = mirror.tables();
        if tables.resolve(index, local, remote).is_some() {
            return true;
        }
        let Some(neighbour) = tables.neighbour_towards(index, local, remote) else { return false };
        if !mirror.ask_for(neighbour) {
            return false;
        }
        mirror.wait_for(within, |tables| tables.resolve(index, local, remote)).is_some()
    }
}

impl Deref for Interface {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}
