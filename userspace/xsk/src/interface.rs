//! [`open`]: the mode ladder from top to bottom, and [`Interface`]: what outlives it.

use crate::{
    Config, LinkState, Mode, OpenError, QueueMode, QueueReport, Step, TargetsError, XskPort, ZeroCopy,
    attach::{AttachError, Hook, Maps, Program, Sockets},
    bind::{self, Bound},
    mirror::{Control, Mirror, Reader, neighbour_use},
    netlink::Requests,
    port::Parts,
    preflight::{self, Nic},
    targets::Targets,
    templates::Templates,
};
use aya::maps::{MapData, PerCpuArray};
use netlink_packet_core::NLM_F_CREATE;
use port::Port;
use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};
use steer::Counter;

/// One interface with its XDP program attached. Dropping it detaches the program: the kernel gets every packet then.
///
/// Drop it before the ports (the other order is safe too: each port takes its own queue out of the steering map).
pub struct Interface {
    // In this order: detach, then stop following the kernel, then the maps.
    _program: Program,
    _control: Control,
    nic: Nic,
    reports: Vec<QueueReport>,
    mirror: Arc<Mirror>,
    targets: Arc<Targets>,
    counters: PerCpuArray<MapData, u64>,
}

/// Attaches the steering program to `config.interface` and binds one socket for each queue, in queue order as
/// configured. Nothing is steered until [`Interface::set_targets`].
///
/// The calling thread's network namespace is the one that counts. May block for some seconds while a NIC resets.
///
/// # Errors
/// What the machine lacks, and the command that mends it. Nothing stays attached.
pub fn open(config: &Config) -> Result<(Interface, Vec<XskPort>), OpenError> {
    config.check()?;
    let nic = preflight::find(&config.interface)?;
    let queues = nic.check(config)?;
    preflight::check_capabilities()?;

    let (mut program, maps) = Program::load()?;
    let Maps { sockets, targets, counters } = maps;
    let mirror = Arc::new(Mirror::default());
    let (sockets, targets) = (Arc::new(sockets), Arc::new(Targets::new(targets, mirror.clone())));
    let control = {
        let targets = targets.clone();
        let follow = move || {
            if let Err(error) = targets.follow() {
                tracing::error!(%error, "the new local addresses aren't steered; the kernel's socket serves them");
            }
        };
        Control::start(mirror.clone(), follow).map_err(|source| OpenError::System {
            doing: "following routes and neighbours",
            interface: nic.name.clone(),
            source,
        })?
    };

    let (hook, steps) = attach(&mut program, &nic, config)?;
    let ports = match bind_all(config, &nic, &queues, hook, &steps, &sockets, &mirror) {
        Ok(ports) => ports,
        Err(error) => {
            program.detach();
            return Err(error);
        }
    };
    let reports = ports.iter().map(|port| port.report().clone()).collect();
    let interface =
        Interface { _program: program, _control: control, nic, reports, mirror, targets, counters };
    Ok((interface, ports))
}

/// The upper half of the ladder: in the driver, else in the generic hook.
fn attach(program: &mut Program, nic: &Nic, config: &Config) -> Result<(Hook, Vec<Step>), OpenError> {
    let unsupported = |hook: Hook, why: String| {
        let hint = match hook {
            // Zero-copy exists in the driver only, so without it there is nothing to step down to.
            Hook::Native if config.zero_copy != ZeroCopy::On => "Use --xdp auto or --xdp skb",
            Hook::Native => "Use --xdp auto with --zero-copy auto",
            Hook::Skb => "Use --xdp off to serve by kernel sockets",
        };
        OpenError::XdpUnsupported {
            interface: nic.name.clone(),
            mode: hook.name(),
            why,
            hint: format!("{hint}, or another --interface."),
        }
    };
    let mut steps = Vec::new();
    if config.mode != Mode::Skb {
        match program.attach(nic, Hook::Native) {
            Ok(()) => return Ok((Hook::Native, steps)),
            Err(AttachError::Fatal(error)) => return Err(error),
            Err(AttachError::Unsupported(why)) => {
                if config.mode == Mode::Native || config.zero_copy == ZeroCopy::On {
                    return Err(unsupported(Hook::Native, why));
                }
                steps.push(Step { tried: "native", why });
            }
        }
    }
    match program.attach(nic, Hook::Skb) {
        Ok(()) => Ok((Hook::Skb, steps)),
        Err(AttachError::Fatal(error)) => Err(error),
        Err(AttachError::Unsupported(why)) => Err(unsupported(Hook::Skb, why)),
    }
}

/// The lower half: zero-copy, else copy, queue by queue.
fn bind_all(
    config: &Config,
    nic: &Nic,
    queues: &[u32],
    hook: Hook,
    steps: &[Step],
    sockets: &Arc<Sockets>,
    mirror: &Arc<Mirror>,
) -> Result<Vec<XskPort>, OpenError> {
    let mut ports = Vec::with_capacity(queues.len());
    for &queue in queues {
        let Bound { rings, frames, zero_copy, steps: more } = bind::bind(config, queue, queues.len(), hook)?;
        let mode = match (hook, zero_copy) {
            (Hook::Native, true) => QueueMode::NativeZeroCopy,
            (Hook::Native, false) => QueueMode::NativeCopy,
            (Hook::Skb, _) => QueueMode::SkbCopy,
        };
        // xsk-rs hands the fill ring out with the bound socket, so it can't be filled before the bind as drivers
        // like best; it is filled here, before the first packet is steered, and the driver is woken.
        ports.push(XskPort::new(Parts {
            report: QueueReport { queue, mode, steps: steps.iter().cloned().chain(more).collect() },
            sockets: sockets.clone(),
            rings,
            templates: Templates::new(nic.index, Reader::new(mirror.clone())),
            frames,
            ring_size: config.ring_size as usize,
            verify_checksums: config.verify_checksums,
            busy_poll: config.busy_poll_usec.is_some(),
            level: config.simd,
        }));
    }
    for port in &ports {
        sockets.insert(port.queue(), port.poll_fd()).map_err(|why| OpenError::System {
            doing: "steering a queue to its socket",
            interface: nic.name.clone(),
            source: io::Error::other(why),
        })?;
    }
    Ok(ports)
}

impl Interface {
    /// Name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.nic.name
    }

    /// Index of the interface.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.nic.index
    }

    /// The largest IP packet that the link takes, now; `None` when the interface is gone.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        self.mirror.tables().links.get(&self.nic.index).map(|link| link.mtu)
    }

    /// Steers UDP to these local addresses into the sockets, and nothing else. `0.0.0.0` stands for every IPv4
    /// address of this host, `[::]` for every IPv6 address, also for those that come later.
    ///
    /// # Errors
    /// More addresses than the map holds; what was steered before still is.
    pub fn set_targets(&self, targets: &[SocketAddr]) -> Result<(), TargetsError> {
        self.targets.set(targets)
    }

    /// How each queue runs, in the order of the ports.
    #[must_use]
    pub fn reports(&self) -> &[QueueReport] {
        &self.reports
    }

    /// The link, now.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        match self.mirror.tables().links.get(&self.nic.index) {
            None => LinkState::Removed,
            Some(link) if !link.up => LinkState::Down,
            Some(link) if !link.carrier => LinkState::NoCarrier,
            Some(_) => LinkState::Up,
        }
    }

    /// Has the kernel look for the neighbour towards `remote` and waits for it, at most for `within`: packets then
    /// leave by the sockets from the first one on. False if there was no answer, or `remote` is reached another way.
    #[must_use]
    pub fn find_neighbour(&self, local: &SocketAddr, remote: &SocketAddr, within: Duration) -> bool {
        let index = self.nic.index;
        let tables = self.mirror.tables();
        if tables.resolve(index, local, remote).is_some() {
            return true;
        }
        let Some(neighbour) = tables.neighbour_towards(index, local, remote) else { return false };
        let asked =
            Requests::open().and_then(|mut requests| requests.act(neighbour_use(neighbour), NLM_F_CREATE));
        if let Err(error) = asked {
            tracing::debug!(%error, neighbour = %neighbour.1, "the kernel refused NTF_USE");
            return false;
        }
        self.mirror.wait_for(within, |tables| tables.resolve(index, local, remote)).is_some()
    }

    /// True while the host routes by more than its main table (policy rules, source routes) or has more routes than
    /// the mirror holds: every reply then takes the kernel's path.
    #[must_use]
    pub fn replies_by_kernel(&self) -> bool {
        self.mirror.tables().routes.beyond_mirror
    }

    /// Names and values of the steering counters, summed over CPUs. Together they count every frame once.
    #[must_use]
    pub fn steering_counters(&self) -> Vec<(&'static str, u64)> {
        let value = |counter: &Counter| {
            self.counters
                .get(&counter.index(), 0)
                .map_or(0, |per_cpu| per_cpu.iter().copied().fold(0, u64::wrapping_add))
        };
        Counter::ALL.iter().map(|counter| (counter.name(), value(counter))).collect()
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interface").field("name", &self.nic.name).field("reports", &self.reports).finish()
    }
}
