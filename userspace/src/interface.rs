//! From flags to ports: opens AF_XDP sockets and kernel UDP sockets, a lane for each worker.
//!
//! The kernel UDP socket comes first: it reserves the port (a client's port is chosen by it). Then XDP is attached, and
//! only then are the addresses steered. Where XDP doesn't work and isn't insisted on, the lanes are kernel UDP alone;
//! every step down is logged with its reason.

use crate::{
    allocator,
    cli::{HugePages, PathArgs, Queues, XdpMode, ZeroCopy},
    failure::Failure,
    privileges,
};
use anyhow::anyhow;
use port::Port;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use udp::UdpPort;

/// Kernel UDP workers of a gateway, where `--cpus` doesn't say.
const KERNEL_WORKERS_MAX: usize = 8;
/// Tries to get a port that falls on the queue wanted.
const PORT_TRIES_MAX: usize = 64;

/// What one worker sends and receives through.
pub(crate) struct Lane {
    pub(crate) facts: LaneFacts,
    /// The AF_XDP sockets, if any, and behind them the kernel UDP socket.
    pub(crate) ports: Vec<Box<dyn Port>>,
}

/// What is known about a lane, for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct LaneFacts {
    pub(crate) interface: Option<String>,
    pub(crate) queues: Vec<u32>,
    /// As read back from the kernel; `off` for kernel UDP.
    pub(crate) mode: String,
    /// Each step down the ladder, with its reason.
    pub(crate) why: Vec<String>,
}

/// How queues and ports are shared out among workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// A worker for each queue, all on one port: a gateway, whose connections are many. Without AF_XDP there are so many
    /// workers.
    QueueEach { kernel_lanes: usize },
    /// One worker owns all queues: a client, whose connections hear from whichever queue the NIC chooses. Each connection
    /// has a port of its own.
    AllInOne { ports: usize },
}

impl Sharing {
    fn is_all_in_one(self) -> bool {
        matches!(self, Self::AllInOne { .. })
    }
}

/// All lanes of a daemon, and what keeps them steered.
pub(crate) struct Datapath {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) interfaces: Vec<xsk::Interface>,
    /// The addresses that the kernel sockets are bound to: one for a gateway, as many as asked for a client.
    pub(crate) locals: Vec<SocketAddr>,
}

/// Opens everything for `bind`.
pub(crate) fn open(args: &PathArgs, bind: SocketAddr, sharing: Sharing) -> Result<Datapath, Failure> {
    // A port that is taken is said before any NIC is touched: attaching a program can drop a link for seconds.
    drop(UdpPort::bind(bind, udp_options(false)).map_err(Failure::preflight)?);
    let (opened, why) = open_interfaces(args)?;
    if opened.is_empty() {
        return kernel_only(bind, sharing, why);
    }
    let queue_count = opened.iter().map(|(_, ports)| ports.len()).sum();
    let (locals, kernel) = match sharing {
        Sharing::QueueEach { .. } => bind_kernel(bind, queue_count)?,
        Sharing::AllInOne { ports } => bind_kernel_ports(bind, ports, queue_count)?,
    };
    let mut lanes: Vec<Lane> = Vec::new();
    let mut interfaces = Vec::new();
    for (interface, ports) in opened {
        interface.set_targets(&targets(&locals)).map_err(Failure::preflight)?;
        let first_lane = lanes.len().saturating_sub(usize::from(sharing.is_all_in_one()));
        for port in ports {
            match lanes.first_mut() {
                Some(lane) if sharing.is_all_in_one() => lane.add_queue(interface.name(), port),
                _ => {
                    let mut lane = Lane { facts: LaneFacts::default(), ports: Vec::new() };
                    lane.add_queue(interface.name(), port);
                    lanes.push(lane);
                }
            }
        }
        if let Some(seen) = interface.unmirrored() {
            let why = format!("{}: sends by the kernel, since this host has {seen}", interface.name());
            tracing::warn!("{why}");
            lanes.iter_mut().skip(first_lane).for_each(|lane| lane.facts.why.push(why.clone()));
        }
        interfaces.push(interface);
    }
    if let Some(lane) = lanes.first_mut() {
        lane.facts.why.extend(why);
    }
    let lane_count = lanes.len();
    for (index, slow) in kernel.into_iter().enumerate() {
        lanes[index % lane_count].add_kernel(slow);
    }
    Ok(Datapath { lanes, interfaces, locals })
}

/// What XDP steers: a dual-stack wildcard stands for both families.
fn targets(locals: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut targets = locals.to_vec();
    let dual = locals.iter().filter(|local| local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    targets.extend(dual.map(|local| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.port())));
    targets
}

impl Lane {
    /// Adds a queue's socket, and says aloud how it runs.
    fn add_queue(&mut self, interface: &str, port: xsk::XskPort) {
        self.facts.add_queue(interface, port.report());
        self.ports.push(Box::new(port));
    }

    /// Adds a kernel socket, behind what is there.
    fn add_kernel(&mut self, port: UdpPort) {
        self.ports.push(Box::new(port));
    }
}

impl LaneFacts {
    /// Whether it has a queue of this interface.
    pub(crate) fn is_on(&self, interface: &str) -> bool {
        self.interface.as_ref().is_some_and(|names| names.split(',').any(|name| name == interface))
    }

    /// Adds a queue, and says aloud how it runs.
    pub(crate) fn add_queue(&mut self, interface: &str, report: &xsk::QueueReport) {
        say(interface, report);
        let (queue, mode) = (report.queue, report.mode.to_string());
        let why: Vec<String> = report.steps.iter().map(ToString::to_string).collect();
        if !self.is_on(interface) {
            let names: Vec<&str> = self.interface.as_deref().into_iter().chain([interface]).collect();
            self.interface = Some(names.join(","));
        }
        self.queues.push(queue);
        if self.mode.is_empty() {
            self.mode = mode;
        } else if !self.mode.split(',').any(|known| known == mode) {
            self.mode = format!("{},{mode}", self.mode);
        }
        self.why.extend(why.into_iter().filter(|step| !self.why.contains(step)).collect::<Vec<_>>());
    }
}

/// Says aloud how a queue runs.
pub(crate) fn say(interface: &str, report: &xsk::QueueReport) {
    let queue = report.queue;
    for step in &report.steps {
        tracing::warn!("{interface} queue {queue}: stepped down: {step}");
    }
    tracing::info!("{interface} queue {queue}: AF_XDP {}", report.mode);
}

/// Refuses flags that can work on no host, without looking at this one.
pub(crate) fn check(args: &PathArgs, lan: Option<&str>) -> Result<(), Failure> {
    if let Some(lan) = lan {
        lan_mode(args, lan)?;
    }
    let Some(mode) = mode(args.xdp) else { return Ok(()) };
    must_name_interface(args)?;
    let mut names = args.interfaces.iter().map(String::as_str).chain(lan);
    names.try_for_each(|name| config(args, name, mode).check().map_err(Failure::config))
}

/// Opens the LAN's interface: all of its queues, by the same ladder as the tunnel's.
pub(crate) fn open_lan(
    args: &PathArgs,
    name: &str,
) -> Result<(xsk::LanInterface, Vec<xsk::LanPort>), Failure> {
    let mode = lan_mode(args, name)?;
    let config = xsk::Config { queues: xsk::Queues::All, ..config(args, name, mode) };
    let (interface, ports) = allocator::giving_back(|| xsk::open_lan(&config)).map_err(lan_failure)?;
    ports.iter().for_each(|port| say(name, port.report()));
    Ok((interface, ports))
}

/// How XDP runs on the LAN.
fn lan_mode(args: &PathArgs, name: &str) -> Result<xsk::Mode, Failure> {
    let Some(mode) = mode(args.xdp) else {
        return Err(Failure::Config(anyhow!(
            "--lan works by AF_XDP only: leave --xdp off out, or let the kernel route by --tun"
        )));
    };
    if args.interfaces.iter().any(|interface| interface == name) {
        return Err(Failure::Config(anyhow!(
            "--lan {name} is the tunnel's own --interface: an interface runs one XDP program, so name another one"
        )));
    }
    Ok(mode)
}

/// The errors speak of `--interface` and `--xdp off`: for a LAN the next thing to try is another one.
fn lan_failure(error: xsk::OpenError) -> Failure {
    use xsk::OpenError;
    match error {
        OpenError::Config { .. } => Failure::config(error),
        OpenError::NoSuchInterface { interface, available } => Failure::Preflight(anyhow!(
            "--lan: no interface {interface}; there are: {}. Choose the one that the LAN is on",
            available.join(", ")
        )),
        OpenError::NotEthernet { .. }
        | OpenError::XdpUnsupported { .. }
        | OpenError::NoXdpSockets { .. }
        | OpenError::Load { .. } => Failure::Preflight(anyhow!(
            "--lan: {error} (for a LAN: choose another one, or use --tun, and let the kernel route)"
        )),
        error => Failure::Preflight(anyhow!("--lan: {error}")),
    }
}

/// Where XDP runs; `None` for nowhere.
fn mode(asked: XdpMode) -> Option<xsk::Mode> {
    match asked {
        XdpMode::Off => None,
        XdpMode::Auto => Some(xsk::Mode::Auto),
        XdpMode::Native => Some(xsk::Mode::Native),
        XdpMode::Skb => Some(xsk::Mode::Skb),
    }
}

/// Whether it is AF_XDP, as asked, or nothing.
fn insists(args: &PathArgs) -> bool {
    args.xdp != XdpMode::Auto || args.zero_copy == ZeroCopy::On
}

fn must_name_interface(args: &PathArgs) -> Result<(), Failure> {
    if args.interfaces.is_empty() && insists(args) {
        return Err(Failure::Config(anyhow!(
            "AF_XDP needs an interface: give -i IF, or --xdp off for kernel UDP"
        )));
    }
    Ok(())
}

type Opened = Vec<(xsk::Interface, Vec<xsk::XskPort>)>;

/// The interfaces that take AF_XDP; if none does, why not.
fn open_interfaces(args: &PathArgs) -> Result<(Opened, Vec<String>), Failure> {
    let Some(mode) = mode(args.xdp) else { return Ok((Vec::new(), vec!["--xdp off".to_owned()])) };
    must_name_interface(args)?;
    if args.interfaces.is_empty() {
        return Ok((Vec::new(), vec!["no --interface given".to_owned()]));
    }
    let mut opened = Vec::new();
    let mut why = Vec::new();
    for name in &args.interfaces {
        match allocator::giving_back(|| xsk::open(&config(args, name, mode))) {
            Ok(open) => opened.push(open),
            Err(error @ xsk::OpenError::Config { .. }) => return Err(Failure::config(error)),
            // A name or a number that is wrong is no rung of the ladder: it stays wrong however packets travel.
            Err(error @ (xsk::OpenError::NoSuchInterface { .. } | xsk::OpenError::NoSuchQueue { .. })) => {
                return Err(Failure::preflight(error));
            }
            Err(error) if insists(args) => return Err(Failure::preflight(error)),
            Err(error) => {
                tracing::warn!("no AF_XDP on {name}, its packets take the kernel's UDP path: {error}");
                why.push(format!("{name}: {error}"));
            }
        }
    }
    Ok((opened, why))
}

fn config(args: &PathArgs, interface: &str, mode: xsk::Mode) -> xsk::Config {
    xsk::Config {
        queues: match &args.queues {
            Queues::All => xsk::Queues::All,
            Queues::List(list) => xsk::Queues::List(list.clone()),
        },
        mode,
        zero_copy: match args.zero_copy {
            ZeroCopy::Auto => xsk::ZeroCopy::Auto,
            ZeroCopy::On => xsk::ZeroCopy::On,
            ZeroCopy::Off => xsk::ZeroCopy::Off,
        },
        ring_size: args.ring_size,
        frame_bytes: args.frame_size,
        umem_bytes: (args.umem as usize) << 20,
        busy_poll_usec: (args.busy_poll > 0).then_some(args.busy_poll),
        huge_pages: args.hugepages == HugePages::Auto,
        // Asked for before: a level that this CPU lacks has ended the start.
        simd: args.simd.level().unwrap_or(tunnel::Level::RING),
        on_thread: privileges::enter_netlink,
        ..xsk::Config::new(interface)
    }
}

fn kernel_only(bind: SocketAddr, sharing: Sharing, why: Vec<String>) -> Result<Datapath, Failure> {
    let (locals, kernel, lane_count) = match sharing {
        Sharing::QueueEach { kernel_lanes } => {
            let count = kernel_lanes.clamp(1, KERNEL_WORKERS_MAX);
            let (locals, kernel) = bind_kernel(bind, count)?;
            (locals, kernel, count)
        }
        Sharing::AllInOne { ports } => {
            let (locals, kernel) = bind_kernel_ports(bind, ports, 1)?;
            (locals, kernel, 1)
        }
    };
    let said: Vec<String> = locals.iter().map(ToString::to_string).collect();
    tracing::info!(
        "kernel UDP on {}, {lane_count} worker(s), no AF_XDP: {}",
        said.join(", "),
        why.join("; ")
    );
    let facts = LaneFacts { mode: "off".to_owned(), why, ..LaneFacts::default() };
    let empty = || Lane { facts: facts.clone(), ports: Vec::new() };
    let mut lanes: Vec<Lane> = (0..lane_count).map(|_| empty()).collect();
    for (index, port) in kernel.into_iter().enumerate() {
        lanes[index % lane_count].add_kernel(port);
    }
    Ok(Datapath { lanes, interfaces: Vec::new(), locals })
}

fn udp_options(reuse_port: bool) -> udp::Options {
    udp::Options { reuse_port, ..udp::Options::default() }
}

/// Where kernel sockets are bound, and they.
type Bound = (Vec<SocketAddr>, Vec<UdpPort>);

/// `count` kernel sockets on one address.
fn bind_kernel(bind: SocketAddr, count: usize) -> Result<Bound, Failure> {
    // With SO_REUSEPORT a second daemon of the same user would bind silently and take half of the packets; without it
    // the kernel says that the port is taken.
    let probe = UdpPort::bind(bind, udp_options(false)).map_err(Failure::preflight)?;
    let local = probe.local_addr();
    if count == 1 {
        return Ok((vec![local], vec![probe]));
    }
    drop(probe);
    let ports: Result<Vec<_>, _> = (0..count).map(|_| UdpPort::bind(local, udp_options(true))).collect();
    Ok((vec![local], ports.map_err(Failure::preflight)?))
}

/// `count` kernel sockets, each on a port that the kernel chooses. The worker sends a port's packets by the AF_XDP socket
/// of queue `port % queue_count` ([`worker::ports`](crate::worker)), so the ports are spread over the queues: on veth the
/// receiver's queue is the sender's.
fn bind_kernel_ports(bind: SocketAddr, count: usize, queue_count: usize) -> Result<Bound, Failure> {
    let ports: Result<Vec<_>, _> =
        (0..count).map(|index| bind_on_queue(bind, index % queue_count, queue_count)).collect();
    let ports = ports.map_err(Failure::preflight)?;
    Ok((ports.iter().map(UdpPort::local_addr).collect(), ports))
}

/// A kernel socket on a port that leaves `remainder` when divided by `queue_count`, if one is free near those that the
/// kernel proposes; else on any.
fn bind_on_queue(bind: SocketAddr, remainder: usize, queue_count: usize) -> Result<UdpPort, udp::BindError> {
    for _ in 0..PORT_TRIES_MAX {
        let proposed = UdpPort::bind(bind, udp_options(false))?;
        let port = usize::from(proposed.local_addr().port());
        if port % queue_count == remainder {
            return Ok(proposed);
        }
        let wanted = u16::try_from(port - port % queue_count + remainder);
        if let Ok(wanted) = wanted
            && let Ok(port) = UdpPort::bind(SocketAddr::new(bind.ip(), wanted), udp_options(false))
        {
            return Ok(port);
        }
    }
    UdpPort::bind(bind, udp_options(false))
}
