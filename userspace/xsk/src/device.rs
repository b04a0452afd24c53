//! What an interface with one of beam's programs is, whatever is steered there: the mode ladder from top to bottom, its
//! queues, its link. [`crate::Interface`] (a tunnel's datagrams) and [`crate::LanInterface`] (inner packets) build on it.

use crate::{
    Config, LinkState, Mode, OpenError, QueueMode, QueueReport, Queues, Step, TargetsError, Unmirrored,
    ZeroCopy,
    attach::{AttachError, Hook, Program, Sockets},
    bind::{self, Bound},
    genl, losses,
    mirror::{Control, Mirror, Reader},
    news::News,
    preflight::{self, Nic},
    queue::{self, Queue},
    sys,
};
use aya::maps::{MapData, PerCpuArray};
use std::{
    fmt, io,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How long to try to attach the program again.
const ATTACH_AGAIN_PATIENCE: Duration = Duration::from_secs(2);
const ATTACH_AGAIN_INTERVAL: Duration = Duration::from_millis(50);

/// Which of the object's programs, and what it counts.
pub(crate) struct Kind {
    pub(crate) program: &'static str,
    pub(crate) counters: &'static str,
    /// By index.
    pub(crate) counter_names: &'static [&'static str],
}

/// What the program goes by, kept up with the host's addresses, routes and links.
pub(crate) trait Steering: Send + Sync + 'static {
    /// They changed, and the mirror has them.
    fn follow(&self) -> Result<(), TargetsError>;
}

/// One interface with its XDP program attached. Dropping it detaches the program: the kernel gets every packet then.
///
/// Drop it before the ports (the other order is safe too: each port takes its own queue out of the steering map).
pub struct Device {
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
    sockets: Arc<Sockets>,
    counters: PerCpuArray<MapData, u64>,
    counter_names: &'static [&'static str],
}

/// Attaches a program to `config.interface` and binds one socket for each queue, in queue order as configured. Nothing
/// is steered until the steering that `make_steering` makes says so.
///
/// The calling thread's network namespace is the one that counts. May block for some seconds while a NIC resets.
pub(crate) fn open<S: Steering>(
    config: &Config,
    kind: &Kind,
    make_steering: impl FnOnce(&mut Program, Arc<Mirror>, u32) -> Result<S, OpenError>,
) -> Result<(Device, Arc<S>, Vec<Queue>), OpenError> {
    config.check()?;
    let nic = preflight::find(&config.interface)?;
    let queues = nic.check(config)?;
    preflight::check_capabilities()?;

    let system = |doing| {
        let interface = nic.name.clone();
        move |source| OpenError::System { doing, interface, source }
    };
    let mut program = Program::load(kind.program)?;
    let (sockets, counters) = program.take_common(kind.counters)?;
    let mirror = Arc::new(Mirror::new().map_err(system("making an eventfd"))?);
    let steering = Arc::new(make_steering(&mut program, mirror.clone(), nic.index)?);
    let news = Arc::new(News::default());
    let control = {
        let (steering, news) = (steering.clone(), news.clone());
        let follow = move || {
            if let Err(error) = steering.follow() {
                tracing::error!(%error, "the new addresses or routes aren't steered; the kernel gets their packets");
            }
        };
        Control::start(mirror.clone(), config.on_thread, follow, move || news.announce())
            .map_err(system("following routes and neighbours"))?
    };

    let (hook, steps) = attach(&mut program, &nic, config)?;
    let device = Device {
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
        sockets: Arc::new(sockets),
        counters,
        counter_names: kind.counter_names,
    };
    let queues = device.bind(&queues)?;
    device.note_reports(&queues);
    Ok((device, steering, queues))
}

/// The upper half of the ladder: in the driver, else in the generic hook.
fn attach(program: &mut Program, nic: &Nic, config: &Config) -> Result<(Hook, Vec<Step>), OpenError> {
    let unsupported = |hook: Hook, mut why: String| {
        if hook == Hook::Native
            && let Some(features) = genl::netdev::xdp_features(nic.index)
        {
            why = format!("{why}; the driver says that it has: {features}");
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

impl Device {
    /// The lower half: zero-copy, else copy, queue by queue. All of them or none.
    fn bind(&self, numbers: &[u32]) -> Result<Vec<Queue>, OpenError> {
        let (nic, config, hook) = (&self.nic, &self.config, self.hook);
        let queue_count = self.sockets.queues().len() + numbers.len();
        let mut queues = Vec::with_capacity(numbers.len());
        for &number in numbers {
            let Bound { rings, frames, zero_copy, steps } =
                bind::bind(config, nic, number, queue_count, hook)?;
            let mode = match (hook, zero_copy) {
                (Hook::Native, true) => QueueMode::NativeZeroCopy,
                (Hook::Native, false) => QueueMode::NativeCopy,
                (Hook::Skb, _) => QueueMode::SkbCopy,
            };
            let steps = self.steps.iter().cloned().chain(steps).collect();
            // The order that drivers like best is attach, fill, bind. xsk-rs makes it attach, bind, fill: it hands the
            // fill ring out only with the bound socket (`Socket::new`), and neither the ring that the UMEM keeps until
            // then nor the UMEM's descriptor can be reached. A driver that found the ring empty at the bind has set
            // NEED_WAKEUP by the time that its first poll is over, and is woken: see `Queue::refill`.
            queues.push(Queue::new(queue::Parts {
                report: QueueReport { queue: number, mode, steps },
                interface: nic.index,
                name: nic.name.clone(),
                sockets: self.sockets.clone(),
                rings,
                frames,
                ring_size: config.ring_size as usize,
                busy_poll: config.busy_poll_usec.is_some(),
            }));
        }
        for queue in &queues {
            let inserted = self.sockets.insert(queue.number(), queue.as_fd());
            inserted.map_err(|why| OpenError::System {
                doing: "steering a queue to its socket",
                interface: nic.name.clone(),
                source: io::Error::other(why),
            })?;
        }
        Ok(queues)
    }

    fn note_reports(&self, queues: &[Queue]) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.extend(queues.iter().map(|queue| queue.report.clone()));
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn mirror(&self) -> &Arc<Mirror> {
        &self.mirror
    }

    /// A view of the mirror for one port.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(self.mirror.clone())
    }

    /// Opens a socket on each queue that the NIC has got since, if all queues were asked for. Steered at once.
    pub(crate) fn new_queues(&self) -> Result<Vec<Queue>, OpenError> {
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
        let queues = self.bind(&queues)?;
        if self.hook == Hook::Native && self.nic.driver.as_deref() == Some("veth") {
            self.attach_again()?;
        }
        self.note_reports(&queues);
        Ok(queues)
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

    /// False when the program was lost over the attempt to serve new queues: the kernel gets every packet.
    #[must_use]
    pub fn has_program(&self) -> bool {
        self.has_program.load(Ordering::Relaxed)
    }

    /// Whether queues that come are served: all were asked for.
    #[must_use]
    pub fn queues_may_come(&self) -> bool {
        self.config.queues == Queues::All
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

    /// What the host routes by beside its main table, while it does: only the kernel can tell where packets go then. A
    /// tunnel's take its path; a LAN's have none.
    #[must_use]
    pub fn unmirrored(&self) -> Option<Unmirrored> {
        self.mirror.tables().routes.beyond_mirror
    }

    /// What the NIC and its driver lost, by name, as the kernel counts it; `None` when the interface is gone. Asks the kernel:
    /// for housekeeping only. The calling thread's network namespace has to be that of the interface.
    #[must_use]
    pub fn nic_drops(&self) -> Option<[(&'static str, u64); 6]> {
        losses::of_interface(self.nic.index).ok()
    }

    /// Names and values of the steering counters, summed over CPUs. Together they count every frame once.
    #[must_use]
    pub fn steering_counters(&self) -> Vec<(&'static str, u64)> {
        let value = |index: usize| {
            self.counters
                .get(&(index as u32), 0)
                .map_or(0, |per_cpu| per_cpu.iter().copied().fold(0, u64::wrapping_add))
        };
        self.counter_names.iter().enumerate().map(|(index, &name)| (name, value(index))).collect()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.nic.name).field("reports", &self.reports()).finish()
    }
}
