//! What can be found out before anything is touched: does the interface exist, is it up, does it have the queues, is
//! it free, may we. Each refusal is an [`OpenError`] that says what to do.

use crate::{AttachedProgram, Config, OpenError, Queues, detach, ethtool, netlink::Requests, sys};
use aya::programs::{links::LinkType, loaded_links, loaded_programs};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, capabilities},
};
use std::io;

/// The interface as preflight found it.
#[derive(Clone, Debug)]
pub(crate) struct Nic {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) driver: Option<String>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    layer: LinkLayerType,
    pub(crate) queue_count: u32,
    pub(crate) attached: Option<Attached>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) mode: XdpAttached,
    pub(crate) program_id: u32,
    /// Index of the interface.
    interface: u32,
}

impl Attached {
    pub(crate) fn mode_name(self) -> &'static str {
        match self.mode {
            XdpAttached::Driver => "native",
            XdpAttached::SocketBuffer => "skb",
            XdpAttached::Hardware => "offloaded",
            _ => "several modes",
        }
    }

    /// As far as the kernel tells this process.
    pub(crate) fn program_name(self) -> String {
        loaded_programs()
            .filter_map(Result::ok)
            .find(|program| program.id() == self.program_id)
            .and_then(|program| program.name_as_str().filter(|name| !name.is_empty()).map(str::to_owned))
            .unwrap_or_else(|| "(name unknown)".to_owned())
    }

    /// The bpf_link that holds it; `None` for a netlink attachment, and where links can't be listed. One of another
    /// interface, or one that was detached and that somebody has still open, may name the same program.
    pub(crate) fn link_id(self) -> Option<u32> {
        loaded_links()
            .filter_map(Result::ok)
            .filter(|link| {
                link.program_id() == self.program_id && matches!(link.link_type(), Ok(LinkType::Xdp))
            })
            .map(|link| link.id())
            .find(|&id| sys::xdp_link_interface(id).is_ok_and(|index| index == self.interface))
    }
}

/// Finds the interface.
pub(crate) fn find(interface: &str) -> Result<Nic, OpenError> {
    let system = |source| OpenError::System {
        doing: "asking the kernel for its interfaces",
        interface: interface.to_owned(),
        source,
    };
    let mut requests = Requests::open().map_err(system)?;
    let links = requests.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default())).map_err(system)?;
    let mut nics = links.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => Some(nic(link)),
        _ => None,
    });
    let mut available = Vec::new();
    let found = nics.find_map(|nic| {
        if nic.name == interface {
            return Some(nic);
        }
        available.push(nic.name);
        None
    });
    let Some(mut nic) = found else {
        return Err(OpenError::NoSuchInterface { interface: interface.to_owned(), available });
    };
    nic.driver = sys::driver(interface);
    nic.queue_count = sys::rx_queue_count(interface).unwrap_or(nic.queue_count);
    Ok(nic)
}

fn nic(message: &LinkMessage) -> Nic {
    let mut nic = Nic {
        index: message.header.index,
        name: String::new(),
        driver: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        layer: message.header.link_layer_type,
        queue_count: 1,
        attached: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => nic.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => nic.mtu = *mtu,
            LinkAttribute::NumRxQueues(count) => nic.queue_count = (*count).max(1),
            LinkAttribute::Xdp(xdp) => nic.attached = attached(xdp, nic.index),
            _ => {}
        }
    }
    nic
}

fn attached(xdp: &[LinkXdp], interface: u32) -> Option<Attached> {
    let (mut mode, mut program_id) = (XdpAttached::None, 0);
    for attribute in xdp {
        match attribute {
            LinkXdp::Attached(value) => mode = *value,
            LinkXdp::ProgId(id) => program_id = *id,
            // In case of several programs only these say which.
            LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) if program_id == 0 => {
                program_id = *id;
            }
            _ => {}
        }
    }
    (mode != XdpAttached::None).then_some(Attached { mode, program_id, interface })
}

impl Nic {
    /// Refuses an interface that can't serve, and says which queues are meant.
    pub(crate) fn check(&self, config: &Config) -> Result<Vec<u32>, OpenError> {
        let interface = || self.name.clone();
        self.check_link()?;
        let max = config.mtu_max();
        if self.mtu > max {
            let frame_bytes = config.frame_bytes;
            return Err(OpenError::MtuTooLarge { interface: interface(), seen: self.mtu, max, frame_bytes });
        }
        if let Some(attached) = self.attached {
            return Err(self.other_program(attached));
        }
        let count = self.queue_count.min(steer::maps::QUEUE_COUNT_MAX);
        let queues = match &config.queues {
            Queues::All => (0..count).collect(),
            Queues::List(queues) => queues.clone(),
        };
        match queues.iter().find(|&&queue| queue >= count) {
            Some(&queue) => {
                let more = more_queues(&self.name, queue);
                Err(OpenError::NoSuchQueue { interface: interface(), queue, count, more })
            }
            None => Ok(queues),
        }
    }

    /// Refuses what is no Ethernet, or is down.
    pub(crate) fn check_link(&self) -> Result<(), OpenError> {
        let interface = self.name.clone();
        if !matches!(self.layer, LinkLayerType::Ether) {
            return Err(OpenError::NotEthernet { interface, seen: format!("{:?}", self.layer) });
        }
        if !self.up {
            return Err(OpenError::InterfaceDown { interface });
        }
        Ok(())
    }

    /// Names the program in the way and the command that removes it.
    pub(crate) fn other_program(&self, attached: Attached) -> OpenError {
        let program = detach::describe(attached);
        let detach = program.removal(&self.name);
        let AttachedProgram { name, id, mode, .. } = program;
        OpenError::OtherProgram { interface: self.name.clone(), name, id, mode, detach }
    }
}

/// How the interface gets a queue, if it can.
fn more_queues(interface: &str, queue: u32) -> String {
    let Ok(channels) = ethtool::channels(interface) else {
        return "its driver can't change how many there are".to_owned();
    };
    let (kind, max) = match channels.combined_max {
        0 => ("rx", channels.rx_max),
        max => ("combined", max),
    };
    match queue < max {
        true => format!("or add queues: ethtool -L {interface} {kind} {}", queue + 1),
        false => format!("its driver has {max} at most"),
    }
}

/// Refuses a process that may not do what [`crate::open`] does.
///
/// # Errors
/// The capabilities that it lacks, and how it gets them.
pub fn check_capabilities() -> Result<(), OpenError> {
    let Ok(sets) = capabilities(None) else { return Ok(()) };
    let effective = sets.effective;
    let needed = [
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_BPF", CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
        ("CAP_NET_RAW", CapabilitySet::NET_RAW),
    ];
    let missing: Vec<&'static str> =
        needed.iter().filter(|(_, any)| !effective.intersects(*any)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(OpenError::MissingCapability { missing, executable: executable() })
}

/// Refuses a process that may not open a socket that only sends.
pub(crate) fn check_raw_capability() -> Result<(), OpenError> {
    match capabilities(None) {
        Ok(sets) if !sets.effective.contains(CapabilitySet::NET_RAW) => {
            Err(OpenError::NoRawSocket { executable: executable() })
        }
        _ => Ok(()),
    }
}

fn executable() -> String {
    std::env::current_exe().map_or_else(|_| "beam".into(), |path| path.display().to_string())
}

/// Raises the soft limit on locked memory as far as that may help; the kernel judges at UMEM creation.
pub(crate) fn raise_memlock(needed_bytes: u64) {
    let limit = getrlimit(Resource::Memlock);
    if limit.current.is_none_or(|current| current >= needed_bytes) {
        return;
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed_bytes));
    if setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum }).is_err() {
        // Without CAP_SYS_RESOURCE the hard limit stays; take what it gives.
        let _ = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// The refusal of a UMEM, with the limit in force.
pub(crate) fn memlock_error(needed_bytes: u64, source: io::Error) -> OpenError {
    let limit = match getrlimit(Resource::Memlock).current {
        None => "unlimited".to_owned(),
        Some(bytes) => format!("{bytes} bytes"),
    };
    OpenError::Memlock { limit, needed_bytes, source }
}
