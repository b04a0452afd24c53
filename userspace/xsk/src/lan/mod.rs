//! The LAN side of a tunnel: inner IP packets straight from and to an interface, through AF_XDP.
//!
//! ```text
//!   LAN host ─► NIC ─► beam_lan (XDP) ─┬─► RX ring ─► LanPort::receive ─► worker ─► tunnel
//!                                      └─► kernel: ARP, ND, ssh, what isn't the tunnel's
//!   LAN host ◄─ NIC ◄─ TX ring ◄─ Ethernet header by mirrored route and neighbour ◄─ LanPort::send ◄─ worker
//! ```
//!
//! The kernel still answers ARP and neighbour discovery for the interface's addresses, by which LAN hosts reach the
//! tunnel's prefixes (`ip route add POOL via GATEWAY`), and still finds the LAN hosts' MAC addresses; of the inner
//! packets it sees none.

mod addressed;
mod hops;
mod port;
mod prefixes;
mod waiting;

pub use port::LanPort;
pub use prefixes::LanPrefixes;

pub(crate) use addressed::Addressed;

use self::hops::Hops;
use crate::{
    Config, OpenError, TargetsError,
    device::{self, Device, Kind},
    queue::Queue,
};
use std::{net::IpAddr, ops::Deref, sync::Arc};

/// An interface of the LAN. What any [`Device`] has, it has.
///
/// Drop it before the ports (the other order is safe too: each port takes its own queue out of the steering map).
#[derive(Debug)]
pub struct LanInterface {
    // First: detach, then the maps.
    device: Device,
    prefixes: Arc<LanPrefixes>,
}

/// Attaches the LAN's program to `config.interface` and binds one socket for each queue, in queue order as configured.
/// Nothing is steered until [`LanInterface::set_prefixes`].
///
/// The calling thread's network namespace is the one that counts. May block for some seconds while a NIC resets.
///
/// # Errors
/// What the machine lacks, and the command that mends it. Nothing stays attached.
pub fn open_lan(config: &Config) -> Result<(LanInterface, Vec<LanPort>), OpenError> {
    let kind = Kind {
        program: steer::lan::PROGRAM,
        counters: steer::maps::LAN_COUNTERS,
        counter_names: steer::lan::Counter::NAMES,
    };
    let (device, prefixes, queues) = device::open(config, &kind, |program, mirror, index| {
        let (prefixes, mac) = (steer::maps::PREFIXES, steer::maps::LAN_MAC);
        Ok(LanPrefixes::new(program.take_map(prefixes)?, program.take_map(mac)?, mirror, index))
    })?;
    if let Some(seen) = device.unmirrored() {
        return Err(OpenError::PolicyRouting { interface: device.name().to_owned(), seen });
    }
    let interface = LanInterface { device, prefixes };
    let ports = interface.ports(queues);
    Ok((interface, ports))
}

impl LanInterface {
    fn ports(&self, queues: Vec<Queue>) -> Vec<LanPort> {
        let port = |queue| LanPort::new(queue, Hops::new(self.index(), self.device.reader()));
        queues.into_iter().map(port).collect()
    }

    /// As [`crate::Interface::serve_new_queues`].
    ///
    /// # Errors
    /// As [`open_lan`]; the new queues are left to the kernel then.
    pub fn serve_new_queues(&self) -> Result<Vec<LanPort>, OpenError> {
        Ok(self.ports(self.device.new_queues()?))
    }

    /// As [`LanPrefixes::set`].
    ///
    /// # Errors
    /// As there.
    pub fn set_prefixes(&self, prefixes: &[(IpAddr, u8)]) -> Result<(), TargetsError> {
        self.prefixes.set(prefixes)
    }

    /// The steered prefixes, for whoever hears of new ones.
    #[must_use]
    pub fn prefixes(&self) -> Arc<LanPrefixes> {
        self.prefixes.clone()
    }
}

impl Deref for LanInterface {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}
