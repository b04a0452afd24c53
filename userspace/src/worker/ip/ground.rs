//! The network behind an end of the tunnel, as far as addresses and routes go: the kernel with a TUN device, or a LAN
//! whose packets XDP steers.

use crate::privileges::broker;
use anyhow::Result;
use ip::Prefix;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// See the module.
pub(crate) enum Ground {
    Tun(tun::Network),
    Lan(LanGround),
}

/// The LAN's side: a route into the tunnel is a prefix that is steered. It has no addresses of the tunnel's, and hosts
/// that are told by ICMP what fits.
pub(crate) struct LanGround {
    name: String,
    prefixes: Arc<xsk::LanPrefixes>,
    steered: Vec<Prefix>,
}

/// The same in the hands of a worker, who may not change it: the broker does, soon, in the order of the calls. What fails
/// is said.
pub(crate) struct Granted {
    name: String,
    may_loop: bool,
    ground: Arc<Mutex<Ground>>,
    say: fn(&anyhow::Error),
}

impl Granted {
    /// `say` logs what fails.
    pub(crate) fn new(ground: Ground, say: fn(&anyhow::Error)) -> Self {
        let (name, may_loop) = (ground.name().to_owned(), ground.may_loop());
        Self { name, may_loop, ground: Arc::new(Mutex::new(ground)), say }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// See [`Ground::may_loop`].
    pub(crate) fn may_loop(&self) -> bool {
        self.may_loop
    }

    /// Has the broker do it.
    pub(crate) fn order(&self, change: impl FnOnce(&mut Ground) -> Result<()> + Send + 'static) {
        let (ground, say) = (self.ground.clone(), self.say);
        broker::later(move || {
            if let Err(error) = change(&mut ground.lock().unwrap_or_else(PoisonError::into_inner)) {
                say(&error);
            }
        });
    }
}

impl LanGround {
    pub(crate) fn new(interface: &xsk::LanInterface) -> Self {
        Self { name: interface.name().to_owned(), prefixes: interface.prefixes(), steered: Vec::new() }
    }

    /// Steers these.
    fn set(&mut self, steered: Vec<Prefix>) -> Result<()> {
        let prefixes: Vec<(IpAddr, u8)> =
            steered.iter().map(|prefix| (prefix.first(), prefix.length())).collect();
        self.prefixes.set(&prefixes)?;
        self.steered = steered;
        Ok(())
    }
}

impl Ground {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Tun(network) => network.name(),
            Self::Lan(lan) => &lan.name,
        }
    }

    /// Whether packets of this host itself take its routes, so that the tunnel's own could end up in the tunnel.
    pub(crate) fn may_loop(&self) -> bool {
        matches!(self, Self::Tun(_))
    }

    /// Up, and with room for so many packets in a queue.
    pub(crate) fn bring_up(&mut self, mtu_bytes: usize, queue_count: usize) -> Result<()> {
        match self {
            Self::Tun(network) => Ok(network.bring_up(mtu_bytes, queue_count)?),
            Self::Lan(_) => Ok(()),
        }
    }

    pub(crate) fn set_mtu(&mut self, mtu_bytes: usize) -> Result<()> {
        match self {
            Self::Tun(network) => Ok(network.set_mtu(mtu_bytes)?),
            Self::Lan(_) => Ok(()),
        }
    }

    pub(crate) fn add_address(&mut self, address: IpAddr, length: u8) -> Result<()> {
        match self {
            Self::Tun(network) => Ok(network.add_address(address, length)?),
            Self::Lan(_) => Ok(()),
        }
    }

    pub(crate) fn remove_address(&mut self, address: IpAddr, length: u8) -> Result<()> {
        match self {
            Self::Tun(network) => Ok(network.remove_address(address, length)?),
            Self::Lan(_) => Ok(()),
        }
    }

    /// Sends packets to a prefix into the tunnel; `source` is the address that this host's own leave from.
    pub(crate) fn add_route(&mut self, prefix: Prefix, source: Option<IpAddr>) -> Result<()> {
        match self {
            Self::Tun(network) => Ok(network.add_route(prefix, source)?),
            Self::Lan(lan) => lan.set(lan.steered.iter().copied().chain([prefix]).collect()),
        }
    }

    pub(crate) fn remove_route(&mut self, prefix: Prefix) -> Result<()> {
        match self {
            Self::Tun(network) => Ok(network.remove_route(prefix)?),
            Self::Lan(lan) => {
                lan.set(lan.steered.iter().copied().filter(|&steered| steered != prefix).collect())
            }
        }
    }
}
