//! [`open`]: the mode ladder from top to bottom, and [`Interface`]: what outlives it.

use crate::{
    Config, LinkState, Mode, OpenError, QueueMode, QueueReport, Queues, Step, TargetsError, XskPort,
    ZeroCopy,
    attach::{AttachError, Hook, Maps, Program, Sockets},
    bind::{self, Bound},
    genl,
    mirror::{Control, Mirror, Reader, neighbour_use},
    netlink::Requests,
    news::News,
    port::Parts,
    preflight::{self, Nic},
    sys,
    targets::Targets,
    templates::Templates,
};
use aya::maps::{MapData, PerCpuArray};
use netlink_packet_core::NLM_F_CREATE;
use port::Port;
use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use steer::Counter;

/// How long to try to attach the program again.
const ATTACH_AGAIN_PATIENCE: Duration = Duration::from_secs(2);
const ATTACH_AGAIN_INTERVAL: Duration = Duration::from_millis(50);

/// One interface with its XDP program attached. Dropping it detaches the program: the kernel gets every packet then.
///
/// Drop it before the ports (the other order is safe too: each port takes its own queue out of the steering map).
pub struct Interface {
    // In this order: detach, then stop following the kernel, then the maps.
    program: Mutex<Program>,
    _control: Control,
    nic: Nic,
    config: Config,
    hook: Hook,
    /// The steps down that all queues share.
    steps: Vec<Step>,
    reports: Mutex<Vec<QueueReport>>,
    has_program: AtomicBool,
    mirror: Arc<Mirror>,
    news: Arc<News>,
    targets: Arc<Targets>,
    sockets: Arc<Sockets>,
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
    let news = Arc::new(News::default());
    let control = {
        let (targets, news) = (targets.clone(), news.clone());
        let follow = move || {
            if let Err(error) = targets.follow() {
                tracing::error!(%error, "the new local addresses aren't steered; the kernel's socket serves them");
            }
        };
        Control::start(mirror.clone(), follow, move || news.announce()).map_err(|source| {
            OpenError::System {
                doing: "following routes and neighbours",
                interface: nic.name.clone(),
                source,
            }
        })?
    };

    let (hook, steps) = attach(&mut program, &nic, config)?;
    let interface = Interface {
        program: Mutex::new(program),
        _control: control,
        nic,
        config: config.clone(),
        hook,
        steps,
        reports: Mutex::default(),
        has_program: AtomicBool::new(true),
        mirror,
        news,
        targets,
        sockets,
        counters,
    };
    let ports = interface.bind(&queues)?;
    interface.note_reports(&ports);
    Ok((interface, ports))
}

/// The upper half of the ladder: in the driver, else in the generic hook.
fn attach(program: &mut Program, nic: &Nic, config: &Config) -> Result<(Hook, Vec<Step>), OpenError> {
    let unsupported = |hook: Hook, mut why: String| {
        if hook == Hook::Native
            && let Some(features) = genl::xdp_features(nic.index)
        {
            why = format!("{why}; the driver says that it has: {}", features.names());
        }
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

impl Interface {
    /// The lower half: zero-copy, else copy, queue by queue. All of them or none.
    fn bind(&self, queues: &[u32]) -> Result<Vec<XskPort>, OpenError> {
        let (nic, config, hook) = (&self.nic, &self.config, self.hook);
        let queue_count = self.sockets.queues().len() + queues.len();
        let mut ports = Vec::with_capacity(queues.len());
        for &queue in queues {
            let Bound { rings, frames, zero_copy, steps } =
                bind::bind(config, nic, queue, queue_count, hook)?;
            let mode = match (hook, zero_copy) {
                (Hook::Native, true) => QueueMode::NativeZeroCopy,
                (Hook::Native, false) => QueueMode::NativeCopy,
                (Hook::Skb, _) => QueueMode::SkbCopy,
            };
            // The order that drivers like best is attach, fill, bind. xsk-rs makes it attach, bind, fill: it hands the
            // fill ring out only with the bound socket (`Socket::new`), and neither the ring that the UMEM keeps until
            // then nor the UMEM's descriptor can be reached. A driver that found the ring empty at the bind has set
            // NEED_WAKEUP by the time that its first poll is over, and is woken: see `XskPort::refill`.
            ports.push(XskPort::new(Parts {
                report: QueueReport { queue, mode, steps: self.steps.iter().cloned().chain(steps).collect() },
                sockets: self.sockets.clone(),
                rings,
                templates: Templates::new(nic.index, Reader::new(self.mirror.clone())),
                frames,
                ring_size: config.ring_size as usize,
                verify_checksums: config.verify_checksums,
                busy_poll: config.busy_poll_usec.is_some(),
                level: config.simd,
            }));
        }
        for port in &ports {
            let inserted = self.sockets.insert(port.queue(), port.poll_fd());
            inserted.map_err(|why| OpenError::System {
                doing: "steering a queue to its socket",
                interface: nic.name.clone(),
                source: io::Error::other(why),
            })?;
        }
        Ok(ports)
    }

    fn note_reports(&self, ports: &[XskPort]) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.extend(ports.iter().map(|port| port.report().clone()));
    }

    /// Opens a socket on each queue that the NIC has got since, if all queues were asked for. Steered at once.
    ///
    /// Needs what [`open`] needs. The calling thread's network namespace has to be that of the interface.
    ///
    /// # Errors
    /// As [`open`]; the new queues are left to the kernel then.
    pub fn serve_new_queues(&self) -> Result<Vec<XskPort>, OpenError> {
        let queues = self.unserved_queues();
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        // Sockets are bound by the interface's name: another may have that one by now.
        let name_now = self.mirror.tables().links.get(&self.nic.index).map(|link| link.name.clone());
        if name_now.as_deref() != Some(self.name()) {
            let source = io::Error::other(format!("it is called {} now", name_now.unwrap_or_default()));
            let interface = self.name().to_owned();
            return Err(OpenError::System { doing: "serving new queues", interface, source });
        }
        let ports = self.bind(&queues)?;
        if self.hook == Hook::Native && self.nic.driver.as_deref() == Some("veth") {
            self.attach_again()?;
        }
        self.note_reports(&ports);
        Ok(ports)
    }

    /// veth runs the program only on the queues that it had when the program was attached: `veth_set_channels` gives
    /// new ones a NAPI, but not the program (seen on 6.18, where their `rx_queue_N_xdp_packets` grew and steering counted
    /// nothing). Meanwhile the kernel's socket gets the packets. Not for other drivers: attaching resets a real NIC's link.
    fn attach_again(&self) -> Result<(), OpenError> {
        let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        program.detach();
        self.has_program.store(false, Ordering::Relaxed);
        let began = Instant::now();
        loop {
            let error = match program.attach(&self.nic, self.hook) {
                Ok(()) => {
                    self.has_program.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Err(AttachError::Fatal(error)) => error,
                Err(AttachError::Unsupported(why)) => OpenError::System {
                    doing: "attaching the XDP program again",
                    interface: self.nic.name.clone(),
                    source: io::Error::other(why),
                },
            };
            // The old link may be held open by whoever lists links just now.
            if began.elapsed() > ATTACH_AGAIN_PATIENCE {
                return Err(error);
            }
            std::thread::sleep(ATTACH_AGAIN_INTERVAL);
        }
    }

    /// False when the program was lost over [`Self::serve_new_queues`]: the kernel gets every packet.
    #[must_use]
    pub fn has_program(&self) -> bool {
        self.has_program.load(Ordering::Relaxed)
    }

    /// Queues without a socket that were asked for: they came after the start. Their packets take the kernel's path.
    #[must_use]
    pub fn unserved_queues(&self) -> Vec<u32> {
        if self.config.queues != Queues::All {
            return Vec::new();
        }
        let served = self.sockets.queues();
        let count = self.queue_count().unwrap_or(0).min(steer::maps::QUEUE_COUNT_MAX);
        (0..count).filter(|queue| !served.contains(queue)).collect()
    }

    /// Queues that the NIC receives on, now; `None` when the interface is gone.
    #[must_use]
    pub fn queue_count(&self) -> Option<u32> {
        // By its present name: interfaces can be renamed while they are up.
        let tables = self.mirror.tables();
        let link = tables.links.get(&self.nic.index)?;
        Some(sys::rx_queue_count(&link.name).unwrap_or(self.nic.queue_count))
    }

    /// Queues that have a socket.
    #[must_use]
    pub fn served_count(&self) -> u32 {
        self.sockets.queues().len() as u32
    }

    /// Sleeps until links or settings of this host's interfaces changed more often than `seen`; returns how often they
    /// did. Changes that only the kernel knows of (a driver that resets itself) go unnoticed.
    ///
    /// Returns after `at_most` in any case.
    pub fn wait_for_change(&self, seen: u64, at_most: Option<Duration>) -> u64 {
        self.news.wait(seen, at_most)
    }

    /// Name of the interface's driver; `None` when it has none to tell.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        self.nic.driver.clone()
    }

    /// The command that leaves the NIC `count` queues.
    #[must_use]
    pub fn queue_command(&self, count: u32) -> String {
        let kinds = if sys::has_combined_channels(self.name()) {
            format!("combined {count}")
        } else {
            format!("rx {count}")
        };
        format!("ethtool -L {} {kinds}", self.name())
    }

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

    /// How each queue runs, in the order of the ports as they were opened.
    #[must_use]
    pub fn reports(&self) -> Vec<QueueReport> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        f.debug_struct("Interface").field("name", &self.nic.name).field("reports", &self.reports()).finish()
    }
}
