//! The steering program: loaded, attached by a bpf_link, read back. The one file that drives aya.

use crate::{
    OpenError,
    netlink::Requests,
    preflight::{self, Nic},
    quirks::{self, Asked},
    sys,
};
use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, PerCpuArray, XskMap},
    programs::{ProgramError, Xdp, XdpMode, links::FdLink},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
};
use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The XSKS map: which queue's packets go to which socket. Shared by the interface and its ports.
pub(crate) struct Sockets(Mutex<Steered>);

struct Steered {
    map: XskMap<MapData>,
    queues: BTreeSet<u32>,
}

impl Sockets {
    /// Steers a queue to its socket.
    pub(crate) fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), String> {
        let mut steered = self.lock();
        steered.map.set(queue, socket.as_raw_fd(), 0).map_err(|error| chain(&error))?;
        steered.queues.insert(queue);
        Ok(())
    }

    /// Gives a queue back to the kernel. The kernel itself does so when the socket closes, so failure is harmless.
    pub(crate) fn remove(&self, queue: u32) {
        let mut steered = self.lock();
        let _ = steered.map.unset(queue);
        steered.queues.remove(&queue);
    }

    /// The queues that have a socket now.
    pub(crate) fn queues(&self) -> BTreeSet<u32> {
        self.lock().queues.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Steered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Native,
    Skb,
}

impl Hook {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Skb => "skb",
        }
    }
}

/// Why an attachment failed.
pub(crate) enum AttachError {
    /// This hook doesn't take it; another may.
    Unsupported(String),
    /// Nothing else will do either.
    Fatal(OpenError),
}

/// The loaded program; detached when dropped.
pub(crate) struct Program {
    link: Option<FdLink>,
    name: &'static str,
    ebpf: Ebpf,
}

impl Program {
    /// Loads one program of the committed object.
    pub(crate) fn load(name: &'static str) -> Result<Self, OpenError> {
        let ebpf = Ebpf::load(steer::OBJECT).map_err(|error| refused(&error))?;
        let mut program = Self { link: None, name, ebpf };
        program.xdp()?.load().map_err(|error| refused(&error))?;
        Ok(program)
    }

    /// A map that the program shares with userspace.
    pub(crate) fn take_map<M: TryFrom<Map, Error = MapError>>(&mut self, name: &str) -> Result<M, OpenError> {
        let map = self.ebpf.take_map(name);
        let map = map.ok_or_else(|| OpenError::Load { why: format!("the object has no map {name}") })?;
        M::try_from(map).map_err(|error| refused(&error))
    }

    /// The steering map and the counters, which every program has.
    pub(crate) fn take_common(
        &mut self,
        counters: &str,
    ) -> Result<(Sockets, PerCpuArray<MapData, u64>), OpenError> {
        let map = self.take_map(steer::maps::XSKS)?;
        let sockets = Sockets(Mutex::new(Steered { map, queues: BTreeSet::new() }));
        Ok((sockets, self.take_map(counters)?))
    }

    /// Whether it was compiled to machine code.
    pub(crate) fn is_jitted(&mut self) -> Result<bool, OpenError> {
        self.xdp()?.info().map(|info| info.size_jitted() > 0).map_err(|error| refused(&error))
    }

    fn xdp(&mut self) -> Result<&mut Xdp, OpenError> {
        let name = self.name;
        self.ebpf
            .program_mut(name)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| OpenError::Load { why: format!("the object has no XDP program {name}") })
    }

    /// Attaches, and makes sure by asking the kernel that it is this program in this hook.
    pub(crate) fn attach(&mut self, nic: &Nic, hook: Hook) -> Result<(), AttachError> {
        let mode = match hook {
            Hook::Native => XdpMode::Driver,
            Hook::Skb => XdpMode::Skb,
        };
        let xdp = self.xdp().map_err(AttachError::Fatal)?;
        let program_id = xdp.info().map_err(|error| fatal(nic, "reading the program's id", &error))?.id();
        let link_id = xdp.attach_to_if_index(nic.index, mode).map_err(|error| refusal(nic, hook, &error))?;
        let link = xdp.take_link(link_id).map_err(|error| fatal(nic, "taking the link", &error))?;
        // aya falls back to a netlink attachment when it gets EINVAL. That one would outlive a killed process and
        // leave a program that steers into nothing, so it is taken off again.
        let Ok(link) = FdLink::try_from(link) else {
            let why = match detach_by_netlink(nic.index, hook) {
                Ok(()) => "the kernel has no bpf_link for XDP (EINVAL)".to_owned(),
                Err(error) => format!("the kernel has no bpf_link for XDP, and detaching failed: {error}"),
            };
            return Err(AttachError::Unsupported(why));
        };
        self.link = Some(link);
        let attached = preflight::find(&nic.name).map_err(AttachError::Fatal)?.attached;
        let wanted = match hook {
            Hook::Native => XdpAttached::Driver,
            Hook::Skb => XdpAttached::SocketBuffer,
        };
        match attached {
            Some(attached) if attached.program_id == program_id && attached.mode == wanted => Ok(()),
            Some(attached) => {
                self.detach();
                Err(AttachError::Unsupported(format!(
                    "the kernel reports program {} in {} mode after the attachment",
                    attached.program_id,
                    attached.mode_name()
                )))
            }
            None => {
                self.detach();
                Err(AttachError::Unsupported("the kernel reports no program after the attachment".into()))
            }
        }
    }

    /// From here on the kernel gets every packet.
    pub(crate) fn detach(&mut self) {
        let Some(link) = self.link.take() else { return };
        // Closing the link detaches it too, but only once nobody else has it open: whoever lists links just now
        // (bpftool, another beam's preflight) or forks would delay it. Without CAP_SYS_ADMIN closing has to do.
        if let Ok(info) = link.info() {
            let _ = sys::detach_bpf_link(info.id());
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.detach();
    }
}

fn refused(error: &dyn std::error::Error) -> OpenError {
    OpenError::Load { why: chain(error) }
}

fn fatal(nic: &Nic, doing: &'static str, error: &dyn std::error::Error) -> AttachError {
    let source = io::Error::other(chain(error));
    AttachError::Fatal(OpenError::System { doing, interface: nic.name.clone(), source })
}

fn refusal(nic: &Nic, hook: Hook, error: &ProgramError) -> AttachError {
    let errno = errno(error);
    let asked_driver = (hook == Hook::Native).then_some(nic.driver.as_deref()).flatten();
    let unsupported = |why: String| {
        let advice = quirks::advice(asked_driver, Asked::Native, errno);
        AttachError::Unsupported(advice.map_or_else(|| why.clone(), |advice| format!("{why}; {advice}")))
    };
    match errno {
        // Another program came between preflight and now.
        Some(libc::EBUSY | libc::EEXIST) => match preflight::find(&nic.name) {
            Ok(now) => match now.attached {
                Some(attached) => AttachError::Fatal(now.other_program(attached)),
                None => fatal(nic, "attaching the XDP program", error),
            },
            Err(error) => AttachError::Fatal(error),
        },
        Some(libc::ENODEV | libc::ENXIO) => fatal(nic, "attaching the XDP program", error),
        Some(libc::EPERM | libc::EACCES) => fatal(nic, "attaching the XDP program", error),
        // vmxnet3 says so of an MTU that is too large (seen: 2000 on 6.12 and 7.2), too.
        Some(libc::EOPNOTSUPP) if hook == Hook::Native && nic.mtu > ORDINARY_MTU => unsupported(format!(
            "the driver has no native XDP, or none at MTU {} (EOPNOTSUPP); to find out: ip link set {} mtu {ORDINARY_MTU}",
            nic.mtu, nic.name
        )),
        Some(libc::EOPNOTSUPP) if hook == Hook::Native => {
            unsupported("the driver has no native XDP (EOPNOTSUPP)".into())
        }
        Some(libc::ERANGE) => unsupported(format!(
            "the driver refuses XDP at MTU {} (ERANGE); about {} is the most where pages are 4 KiB",
            nic.mtu, PAGE_MTU_MAX
        )),
        Some(libc::ENOSPC) => unsupported(
            "the driver wants more RX queues, or fewer TX queues at the other end of a veth (ENOSPC)".into(),
        ),
        // Drivers refuse settings that don't go with XDP this way, the MTU above all. The kernel's words are in the chain.
        Some(libc::EINVAL) => unsupported(format!("{} (MTU {})", chain(error), nic.mtu)),
        _ => unsupported(chain(error)),
    }
}

/// The operating system's part of an error.
pub(crate) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(errno);
        }
        cause = error.source();
    }
    None
}

/// Ethernet's; no driver's XDP refuses it.
const ORDINARY_MTU: u32 = 1500;

/// A 4 KiB page less XDP headroom, Ethernet header and the kernel's skb_shared_info.
pub const PAGE_MTU_MAX: u32 = 4096 - 256 - 2 - 14 - 320;

/// Takes a program off that was attached without a bpf_link.
pub(crate) fn detach_by_netlink(index: u32, hook: Hook) -> io::Result<()> {
    let flags = match hook {
        Hook::Native => 1 << 2,
        Hook::Skb => 1 << 1,
    };
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::Xdp(vec![LinkXdp::Fd(-1), LinkXdp::Flags(flags)])];
    Requests::open()?.act(RouteNetlinkMessage::SetLink(message), 0)
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
