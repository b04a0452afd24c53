//! From flags to ports: opens AF_XDP sockets and kernel UDP sockets, a lane for each worker.
//!
//! The kernel UDP socket comes first: it reserves the port (a client's port is chosen by it). Then XDP is attached, and
//! only then are the addresses steered. Where XDP doesn't work and isn't insisted on, the lanes are kernel UDP alone;
//! every step down is logged with its reason.

use crate::{
    cli::{PathArgs, Queues, XdpMode, ZeroCopy},
    failure::Failure,
};
use anyhow::anyhow;
use port::Port;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use udp::UdpPort;

/// Kernel UDP workers of a gateway, where `--cpus` doesn't say.
const KERNEL_WORKERS_MAX: usize = 8;

/// What one worker sends and receives through.
pub(crate) struct Lane {
    pub(crate) facts: LaneFacts,
    /// The AF_XDP sockets, if any, and behind them the kernel UDP socket.
    pub(crate) ports: Vec<Box<dyn Port>>,
    /// Frames that the ports own together.
    pub(crate) frame_count: usize,
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

/// How queues are shared out among workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// A worker for each queue: a gateway, whose connections are many.
    QueueEach,
    /// One worker owns all queues: a client, whose one connection hears from whichever queue the NIC chooses.
    AllInOne,
}

/// All lanes of a daemon, and what keeps them steered.
pub(crate) struct Datapath {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) interfaces: Vec<xsk::Interface>,
    /// The address that the kernel sockets are bound to.
    pub(crate) local: SocketAddr,
}

/// Opens everything for `bind`. `kernel_lanes` is how many workers there are without AF_XDP.
pub(crate) fn open(
    args: &PathArgs,
    bind: SocketAddr,
    kernel_lanes: usize,
    sharing: Sharing,
) -> Result<Datapath, Failure> {
    // A port that is taken is said before any NIC is touched: attaching a program can drop a link for seconds.
    drop(UdpPort::bind(bind, udp_options(false)).map_err(Failure::preflight)?);
    let (opened, why) = open_interfaces(args)?;
    if opened.is_empty() {
        return kernel_only(bind, kernel_lanes, why);
    }
    let queue_count = opened.iter().map(|(_, ports)| ports.len()).sum();
    let lane_count = if sharing == Sharing::AllInOne { 1 } else { queue_count };
    let (local, kernel) = bind_kernel(bind, lane_count)?;
    let mut lanes: Vec<Lane> = Vec::new();
    let mut interfaces = Vec::new();
    for (interface, ports) in opened {
        interface.set_targets(&targets(local)).map_err(Failure::preflight)?;
        let first_lane = lanes.len().saturating_sub(usize::from(sharing == Sharing::AllInOne));
        for port in ports {
            match lanes.first_mut() {
                Some(lane) if sharing == Sharing::AllInOne => lane.add_queue(args, interface.name(), port),
                _ => {
                    let mut lane = Lane { facts: LaneFacts::default(), ports: Vec::new(), frame_count: 0 };
                    lane.add_queue(args, interface.name(), port);
                    lanes.push(lane);
                }
            }
        }
        if interface.replies_by_kernel() {
            let why = format!(
                "{}: sends by the kernel: this host routes by policy rules, VRFs or source routes (`ip rule`), which are not mirrored",
                interface.name()
            );
            tracing::warn!("{why}");
            lanes.iter_mut().skip(first_lane).for_each(|lane| lane.facts.why.push(why.clone()));
        }
        interfaces.push(interface);
    }
    if let Some(lane) = lanes.first_mut() {
        lane.facts.why.extend(why);
    }
    for (lane, slow) in lanes.iter_mut().zip(kernel) {
        lane.ports.push(Box::new(slow));
        lane.frame_count += udp_options(true).frame_count;
    }
    Ok(Datapath { lanes, interfaces, local })
}

/// What XDP steers: a dual-stack wildcard stands for both families.
fn targets(local: SocketAddr) -> Vec<SocketAddr> {
    let mut targets = vec![local];
    if local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        targets.push(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.port()));
    }
    targets
}

impl Lane {
    /// Adds a queue's socket, and says aloud how it runs.
    fn add_queue(&mut self, args: &PathArgs, interface: &str, port: xsk::XskPort) {
        self.facts.add_queue(interface, port.report());
        self.frame_count += ((args.umem as usize) << 20) / args.frame_size as usize;
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
        let (queue, mode) = (report.queue, report.mode.to_string());
        let why: Vec<String> = report.steps.iter().map(ToString::to_string).collect();
        for step in &why {
            tracing::warn!("{interface} queue {queue}: stepped down: {step}");
        }
        tracing::info!("{interface} queue {queue}: AF_XDP {mode}");
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

type Opened = Vec<(xsk::Interface, Vec<xsk::XskPort>)>;

/// The interfaces that take AF_XDP; if none does, why not.
fn open_interfaces(args: &PathArgs) -> Result<(Opened, Vec<String>), Failure> {
    let mode = match args.xdp {
        XdpMode::Off => return Ok((Vec::new(), vec!["--xdp off".to_owned()])),
        XdpMode::Auto => xsk::Mode::Auto,
        XdpMode::Native => xsk::Mode::Native,
        XdpMode::Skb => xsk::Mode::Skb,
    };
    let insists = args.xdp != XdpMode::Auto || args.zero_copy == ZeroCopy::On;
    if args.interfaces.is_empty() {
        if insists {
            return Err(Failure::Config(anyhow!(
                "AF_XDP needs an interface: give -i IF, or --xdp off for kernel UDP"
            )));
        }
        return Ok((Vec::new(), vec!["no --interface given".to_owned()]));
    }
    let mut opened = Vec::new();
    let mut why = Vec::new();
    for name in &args.interfaces {
        match xsk::open(&config(args, name, mode)) {
            Ok(open) => opened.push(open),
            Err(error @ xsk::OpenError::Config { .. }) => return Err(Failure::config(error)),
            // A name or a number that is wrong is no rung of the ladder: it stays wrong however packets travel.
            Err(error @ (xsk::OpenError::NoSuchInterface { .. } | xsk::OpenError::NoSuchQueue { .. })) => {
                return Err(Failure::preflight(error));
            }
            Err(error) if insists => return Err(Failure::preflight(error)),
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
        // Asked for before: a level that this CPU lacks has ended the start.
        simd: args.simd.level().unwrap_or(tunnel::Level::RING),
        ..xsk::Config::new(interface)
    }
}

fn kernel_only(bind: SocketAddr, count: usize, why: Vec<String>) -> Result<Datapath, Failure> {
    let count = count.clamp(1, KERNEL_WORKERS_MAX);
    let (local, kernel) = bind_kernel(bind, count)?;
    tracing::info!("kernel UDP on {local}, {count} worker(s), no AF_XDP: {}", why.join("; "));
    let lanes = kernel
        .into_iter()
        .map(|port| Lane {
            facts: LaneFacts { mode: "off".to_owned(), why: why.clone(), ..LaneFacts::default() },
            ports: vec![Box::new(port) as Box<dyn Port>],
            frame_count: udp_options(true).frame_count,
        })
        .collect();
    Ok(Datapath { lanes, interfaces: Vec::new(), local })
}

fn udp_options(reuse_port: bool) -> udp::Options {
    udp::Options { reuse_port, ..udp::Options::default() }
}

/// `count` kernel sockets on one address.
fn bind_kernel(bind: SocketAddr, count: usize) -> Result<(SocketAddr, Vec<UdpPort>), Failure> {
    // With SO_REUSEPORT a second daemon of the same user would bind silently and take half of the packets; without it
    // the kernel says that the port is taken.
    let probe = UdpPort::bind(bind, udp_options(false)).map_err(Failure::preflight)?;
    let local = probe.local_addr();
    if count == 1 {
        return Ok((local, vec![probe]));
    }
    drop(probe);
    let ports: Result<Vec<_>, _> = (0..count).map(|_| UdpPort::bind(local, udp_options(true))).collect();
    Ok((local, ports.map_err(Failure::preflight)?))
}
