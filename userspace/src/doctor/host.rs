//! What the checks look at: the plan, the files of the kernel, the interfaces, and what this process may do. Read once.

use super::{files::Files, plan::Plan};
use rustix::thread::{CapabilitySet, capabilities};
use std::{cell::OnceCell, io};
use xsk::{OpenError, ethtool, look};

/// The host, as this process sees it.
pub(super) struct Host {
    pub(super) plan: Plan,
    pub(super) files: Files,
    pub(super) links: Vec<look::Link>,
    nics: Vec<Nic>,
    /// Effective.
    pub(super) capabilities: CapabilitySet,
    loaded: OnceCell<Result<bool, OpenError>>,
}

/// An interface that was named.
pub(super) struct Nic {
    pub(super) link: look::Link,
    /// Queues that it receives on.
    pub(super) queue_count: u32,
    pub(super) features: Option<look::XdpFeatures>,
    /// Its channels, where the driver tells.
    pub(super) channels: Option<ethtool::Channels>,
    /// Its receive queues, where the kernel tells.
    pub(super) queues: Vec<look::RxQueue>,
    /// Whether /sys shows this interface, and not one of another namespace.
    pub(super) in_sysfs: bool,
}

impl Host {
    pub(super) fn look(plan: Plan) -> io::Result<Self> {
        let files = Files::of_this_host();
        let links = look::links()?;
        let named = |name: &String| links.iter().find(|link| link.name == *name);
        let nics = plan.interfaces.iter().filter_map(named).map(|link| Nic::look(link, &files)).collect();
        let capabilities = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        Ok(Self { plan, files, links, nics, capabilities, loaded: OnceCell::new() })
    }

    /// A host of a test's making.
    #[cfg(test)]
    pub(super) fn recorded(plan: Plan, files: Files, nics: Vec<Nic>) -> Self {
        let links = nics.iter().map(|nic| nic.link.clone()).collect();
        Self { plan, files, links, nics, capabilities: CapabilitySet::empty(), loaded: OnceCell::new() }
    }

    pub(super) fn nic(&self, name: &str) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.link.name == name)
    }

    pub(super) fn nics(&self) -> &[Nic] {
        &self.nics
    }

    pub(super) fn link(&self, index: u32) -> Option<&look::Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// Those that XDP could run on, for a message.
    pub(super) fn interfaces_told(&self) -> String {
        const NAMES_MAX: usize = 16;
        let names: Vec<&str> =
            self.links.iter().filter(|link| link.is_ethernet).map(|link| link.name.as_str()).collect();
        let more = names.len().saturating_sub(NAMES_MAX);
        let told = names[..names.len() - more].join(", ");
        match (names.len(), more) {
            (0, _) => "none".to_owned(),
            (_, 0) => told,
            _ => format!("{told} and {more} more"),
        }
    }

    /// Those of the named capabilities that this process lacks.
    pub(super) fn lacks(&self, needed: &[(&'static str, CapabilitySet)]) -> Vec<&'static str> {
        let missing = needed.iter().filter(|(_, any)| !self.capabilities.intersects(*any));
        missing.map(|(name, _)| *name).collect()
    }

    /// Loads the steering program, once: whether it was compiled to machine code.
    pub(super) fn loaded(&self) -> &Result<bool, OpenError> {
        self.loaded.get_or_init(look::program_loads)
    }

    /// Workers that the plan makes: one for each queue.
    pub(super) fn worker_count(&self) -> usize {
        self.nics.iter().map(|nic| self.plan.queues_of(nic.queue_count).len()).sum()
    }

    /// The first worker of an interface.
    pub(super) fn first_worker(&self, nic: &Nic) -> usize {
        let before = self.nics.iter().take_while(|other| other.link.index != nic.link.index);
        before.map(|nic| self.plan.queues_of(nic.queue_count).len()).sum()
    }
}

/// To load programs and make maps.
pub(super) const TO_LOAD: [(&str, CapabilitySet); 2] = [
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_BPF", CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN)),
];

/// For all that AF_XDP takes.
pub(super) const FOR_XDP: [(&str, CapabilitySet); 3] =
    [TO_LOAD[0], TO_LOAD[1], ("CAP_NET_RAW", CapabilitySet::NET_RAW)];

impl Nic {
    fn look(link: &look::Link, files: &Files) -> Self {
        let index = files.number::<u32>(&format!("/sys/class/net/{}/ifindex", link.name));
        Self {
            queue_count: look::rx_queue_count(&link.name).unwrap_or(1),
            channels: ethtool::channels(&link.name).ok(),
            features: look::xdp_features(link.index),
            queues: look::rx_queues(link.index).unwrap_or_default(),
            in_sysfs: index == Some(link.index),
            link: link.clone(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.link.name
    }

    pub(super) fn driver(&self) -> &str {
        self.link.driver.as_deref().unwrap_or_default()
    }

    /// Channels that the NIC could have beside those that it receives on.
    pub(super) fn spare_channels(&self) -> u32 {
        let max = self.channels.as_ref().map_or(0, |told| told.combined_max.max(told.rx_max));
        max.saturating_sub(self.queue_count)
    }

    /// A file of its directory in /sys.
    pub(super) fn sys(&self, file: &str) -> String {
        format!("/sys/class/net/{}/{file}", self.link.name)
    }

    /// Whether it exists in software only: no bus, no interrupts, no memory of its own.
    pub(super) fn is_virtual(&self) -> bool {
        self.link.kind.is_some()
    }
}
