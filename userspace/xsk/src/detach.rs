//! What runs on an interface, and taking it off: for `beam detach` and `beam doctor`, with the daemon dead or alive.

use crate::{
    OpenError,
    attach::{Hook, detach_by_netlink},
    preflight, sys,
};
use aya::{maps::MapInfo, programs::loaded_programs};
use netlink_packet_route::link::XdpAttached;

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// The program's name, as far as the kernel tells.
    pub name: String,
    /// Its id.
    pub id: u32,
    /// `native`, `skb`, `offloaded` or `several modes`.
    pub mode: &'static str,
    /// The bpf_link that holds it, if one does.
    pub link_id: Option<u32>,
    /// Whether it is beam's, of whichever version: by its name and a map of that name that only beam's has.
    pub is_beam: bool,
    hook: Hook,
}

impl AttachedProgram {
    /// The command that takes it off `interface`, whosever it is.
    #[must_use]
    pub fn removal(&self, interface: &str) -> String {
        let hook = if self.mode == "skb" { "xdpgeneric" } else { "xdp" };
        match self.link_id {
            // `ip link set ... xdp off` can't remove a bpf_link.
            Some(link_id) => format!("bpftool link detach id {link_id}"),
            None => format!("ip link set dev {interface} {hook} off"),
        }
    }
}

/// The program on `interface`.
///
/// # Errors
/// No such interface, or the kernel can't be asked.
pub fn attached(interface: &str) -> Result<Option<AttachedProgram>, OpenError> {
    let nic = preflight::find(interface)?;
    Ok(nic.attached.map(describe))
}

/// Takes the program off `interface`, whosever it is. The caller asks first whether it
/// [is beam's](AttachedProgram::is_beam). Another program that came meanwhile stays.
///
/// # Errors
/// No such interface, or the kernel refuses (CAP_NET_ADMIN and CAP_SYS_ADMIN are needed).
pub fn detach(interface: &str, program: &AttachedProgram) -> Result<(), OpenError> {
    let nic = preflight::find(interface)?;
    if nic.attached.is_none_or(|attached| attached.program_id != program.id) {
        return Ok(());
    }
    let done = match program.link_id {
        Some(link_id) => sys::detach_bpf_link(link_id),
        None => detach_by_netlink(nic.index, program.hook),
    };
    done.map_err(|source| OpenError::System {
        doing: "detaching the XDP program",
        interface: interface.to_owned(),
        source,
    })
}

pub(crate) fn describe(attached: preflight::Attached) -> AttachedProgram {
    let name = attached.program_name();
    AttachedProgram {
        is_beam: [steer::PROGRAM, steer::lan::PROGRAM].contains(&name.as_str())
            && steers(attached.program_id),
        name,
        id: attached.program_id,
        mode: attached.mode_name(),
        link_id: attached.link_id(),
        hook: if attached.mode == XdpAttached::SocketBuffer { Hook::Skb } else { Hook::Native },
    }
}

/// Whether the program has a map with the name of beam's steering map.
fn steers(program_id: u32) -> bool {
    let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == program_id);
    let maps = program.and_then(|program| program.map_ids().ok().flatten()).unwrap_or_default();
    let names = maps.into_iter().filter_map(|id| MapInfo::from_id(id).ok());
    names.into_iter().any(|map| map.name_as_str() == Some(steer::maps::XSKS))
}
