//! The receiving side: a thread that owns the AF_XDP sockets of the receiving interface and counts what comes.
//!
//! AF_XDP and not a packet socket: only frames to the measurement's own address and port are taken, all others go to the
//! kernel as before; those that are taken never reach the kernel, which would answer them by ICMP, back through the device.
//!
//! ```text
//!  tester ── Order::Begin · End ──► thread: ports ─► Counter ── Heard::Begun · Came · Tally · Broken ──► tester
//! ```

use super::{
    count::{Counter, Expected, Tally},
    plan::Flow,
    stamp::ns_since,
};
use crate::{
    cli::{Rfc2544Args, XdpMode},
    failure::Failure,
    supervisor,
};
use anyhow::anyhow;
use crossbeam::channel::{self, Sender};
use port::{Drop as Reason, Port as _, Received};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    thread::JoinHandle,
    time::{Duration, Instant},
};
use xsk::XskPort;

/// Room for what comes while the thread doesn't run: 16,384 frames, 11 ms of 64-byte frames at 1 Gbit/s. Which queue the
/// flow lands on isn't known beforehand, so each has that, until all together have [`FRAMES_MAX`].
const RING_SIZE_MAX: u32 = 16_384;
const RING_SIZE_MIN: u32 = 2048;
/// With twice as many chunks of UMEM, 256 MiB of 2 KiB chunks. A NIC of more than 32 queues has more.
const FRAMES_MAX: u32 = 65_536;
/// Frames of one look at a port.
const BURST_MAX: usize = 64;
/// Awake for so long after the last frame: going to sleep would add to the latency of the next one.
const AWAKE: Duration = Duration::from_millis(2);
/// An order is noticed after at most this long.
const SLEEP_MAX_NS: i64 = 2_000_000;
/// Orders and answers: one order is under way, and at most three answers, of which `Came` is left out where it has no room.
const QUEUE_MAX: usize = 4;

/// To the thread.
pub(super) enum Order {
    /// Counts the frames of this trial from now on.
    Begin(Expected),
    /// Says what came of it.
    End,
}

/// From the thread.
pub(super) enum Heard {
    /// Frames count from now on.
    Begun,
    /// The first frame of the trial.
    Came,
    Tally(Box<Tally>),
    /// The interface is gone.
    Broken(String),
}

/// The receiving side as the tester has it. Dropping it ends the thread and gives the interface back.
pub(super) struct Receiver {
    orders: Option<Sender<Order>>,
    heard: channel::Receiver<Heard>,
    thread: Option<JoinHandle<()>>,
    interface: xsk::Interface,
    /// Of the interface, before the trial.
    lost_before: u64,
    spoilt_before: u64,
    pub(super) mode: String,
    pub(super) queues: Vec<u32>,
    /// Steps down the ladder of modes.
    pub(super) why: Vec<String>,
}

impl Receiver {
    /// Takes frames to the flow's destination off the interface from now on.
    pub(super) fn open(args: &Rfc2544Args, flow: &Flow, epoch: Instant) -> Result<Self, Failure> {
        let (interface, ports) = open(args)?;
        let (mut modes, mut why): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for report in ports.iter().map(XskPort::report) {
            crate::interface::say(interface.name(), report);
            modes.push(report.mode.to_string());
            why.extend(report.steps.iter().map(ToString::to_string));
        }
        modes.dedup();
        why.dedup();
        let queues = ports.iter().map(XskPort::queue).collect();
        interface.set_targets(&[flow.path.remote]).map_err(Failure::preflight)?;
        let (orders, to_thread) = channel::bounded(QUEUE_MAX);
        let (from_thread, heard) = channel::bounded(QUEUE_MAX);
        let cpu = args.receive_cpu;
        let thread = std::thread::Builder::new().name("rfc2544-receive".into()).spawn(move || {
            supervisor::pin(cpu);
            Counting { ports, counter: None, told: false, lost: 0, spoilt: 0, epoch, heard: from_thread }
                .run(&to_thread);
        });
        let thread = Some(thread.map_err(Failure::runtime)?);
        let (mode, orders) = (modes.join(","), Some(orders));
        Ok(Self { orders, heard, thread, interface, lost_before: 0, spoilt_before: 0, mode, queues, why })
    }

    /// Counts from the return on.
    pub(super) fn begin(&mut self, expected: Expected) -> Result<(), Failure> {
        (self.lost_before, self.spoilt_before) = (self.lost(), self.spoilt());
        self.order(Order::Begin(expected));
        self.hear(|heard| matches!(heard, Heard::Begun).then_some(()))
    }

    /// What came since the beginning of the trial, all losses of this host added.
    pub(super) fn end(&mut self) -> Result<Tally, Failure> {
        self.order(Order::End);
        let mut tally =
            self.hear(|heard| if let Heard::Tally(tally) = heard { Some(*tally) } else { None })?;
        tally.receiver_dropped += self.lost().saturating_sub(self.lost_before);
        tally.corrupted += self.spoilt().saturating_sub(self.spoilt_before);
        Ok(tally)
    }

    /// Waits at most for so long. Whether a frame of the trial has come.
    pub(super) fn has_come(&self, within: Duration) -> Result<bool, Failure> {
        match self.heard.recv_timeout(within) {
            Ok(Heard::Came) => Ok(true),
            Ok(Heard::Broken(why)) => Err(Failure::Runtime(anyhow!(why))),
            Ok(Heard::Begun | Heard::Tally(_)) | Err(channel::RecvTimeoutError::Timeout) => Ok(false),
            Err(channel::RecvTimeoutError::Disconnected) => Err(panicked()),
        }
    }

    fn hear<T>(&self, wanted: impl Fn(Heard) -> Option<T>) -> Result<T, Failure> {
        loop {
            match self.heard.recv() {
                Ok(Heard::Broken(why)) => return Err(Failure::Runtime(anyhow!(why))),
                Ok(heard) => {
                    if let Some(found) = wanted(heard) {
                        return Ok(found);
                    }
                }
                Err(_) => return Err(panicked()),
            }
        }
    }

    fn order(&self, order: Order) {
        // A thread that is gone has said why, or is missed by whoever waits for its answer.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }

    /// Frames that the NIC had no room for, or whose queue has no socket.
    fn lost(&self) -> u64 {
        let nic = self.interface.nic_drops().unwrap_or_default();
        let nic = nic.iter().filter(|(name, _)| matches!(*name, "rx_missed_errors" | "rx_fifo_errors"));
        nic.map(|(_, count)| count).sum::<u64>() + self.steering(|name| name == "ours_no_socket")
    }

    /// Frames that the program dropped for wrong lengths or sums.
    fn spoilt(&self) -> u64 {
        self.steering(|name| name.starts_with("drop_"))
    }

    fn steering(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        self.interface
            .steering_counters()
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(_, count)| count)
            .sum()
    }
}

fn panicked() -> Failure {
    Failure::Runtime(anyhow!("the receiving thread ended by a panic, which is a bug of beam's"))
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Nothing is steered from here on. The sockets go with the thread, and last of all the program.
        let _ = self.interface.set_targets(&[]);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(args: &Rfc2544Args) -> Result<(xsk::Interface, Vec<XskPort>), Failure> {
    let mut config = xsk::Config {
        mode: match args.xdp {
            XdpMode::Native => xsk::Mode::Native,
            XdpMode::Skb => xsk::Mode::Skb,
            // `plan` has refused `off`.
            XdpMode::Auto | XdpMode::Off => xsk::Mode::Auto,
        },
        ring_size: ring_size(xsk::ethtool::channels(&args.receive).map_or(1, |has| has.combined + has.rx)),
        frame_bytes: 2048,
        ..xsk::Config::new(&args.receive)
    };
    if xsk::ethtool::mtu(&args.receive).is_ok_and(|mtu| mtu > config.mtu_max()) {
        config.frame_bytes = 4096;
    }
    config.umem_bytes = 2 * config.ring_size as usize * config.frame_bytes as usize;
    xsk::open(&config).map_err(|error| match error {
        xsk::OpenError::Config { .. } => Failure::config(error),
        // The errors speak of `--interface`, which here is the other one.
        error => Failure::Preflight(anyhow!("-r {}: {error}", args.receive)),
    })
}

/// A power of two.
fn ring_size(queue_count: u32) -> u32 {
    let share = FRAMES_MAX / queue_count.max(1);
    (1 << share.max(1).ilog2()).clamp(RING_SIZE_MIN, RING_SIZE_MAX)
}

/// The thread's own.
struct Counting {
    ports: Vec<XskPort>,
    counter: Option<Counter>,
    /// The first frame of the trial has been told of.
    told: bool,
    /// Of the sockets, before the trial.
    lost: u64,
    spoilt: u64,
    epoch: Instant,
    heard: Sender<Heard>,
}

impl Counting {
    fn run(mut self, orders: &channel::Receiver<Order>) {
        let (mut burst, mut last) = (Vec::with_capacity(BURST_MAX), Instant::now());
        loop {
            match orders.try_recv() {
                Ok(order) => self.obey(order),
                Err(channel::TryRecvError::Empty) => {}
                Err(channel::TryRecvError::Disconnected) => return,
            }
            match self.look(&mut burst) {
                Ok(0) if last.elapsed() < AWAKE => std::hint::spin_loop(),
                Ok(0) => self.sleep(),
                Ok(_) => last = Instant::now(),
                Err(error) => {
                    let _ = self.heard.try_send(Heard::Broken(format!("receiving: {error}")));
                    return;
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin(expected) => {
                (self.lost, self.spoilt, self.told) = (self.lost_now(), self.spoilt_now(), false);
                self.counter = Some(Counter::new(expected));
                let _ = self.heard.send(Heard::Begun);
            }
            Order::End => {
                let (lost, spoilt) = (self.lost_now() - self.lost, self.spoilt_now() - self.spoilt);
                let tally = self.counter.take().map_or_else(Tally::default, |it| it.finish(spoilt, lost));
                let _ = self.heard.send(Heard::Tally(Box::new(tally)));
            }
        }
    }

    /// One look at each port; how many frames there were.
    fn look(&mut self, burst: &mut Vec<Received>) -> std::io::Result<usize> {
        let mut count = 0;
        for port in &mut self.ports {
            count += port.receive(burst, BURST_MAX)?;
            let at_ns = if burst.is_empty() { 0 } else { ns_since(self.epoch, Instant::now()) };
            for received in burst.drain(..) {
                if let Some(counter) = &mut self.counter {
                    counter.take(&received.frame, at_ns);
                }
                port.recycle(received.frame);
            }
        }
        if !self.told && self.counter.as_ref().is_some_and(|counter| counter.received() > 0) {
            self.told = true;
            let _ = self.heard.try_send(Heard::Came);
        }
        Ok(count)
    }

    /// Until a frame comes, or an order may have.
    fn sleep(&self) {
        let mut fds: Vec<PollFd<'_>> =
            self.ports.iter().map(|port| PollFd::from_borrowed_fd(port.poll_fd(), PollFlags::IN)).collect();
        // A signal, or a broken socket, which the next look tells.
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: SLEEP_MAX_NS }));
    }

    /// Frames that the sockets had no room for.
    fn lost_now(&self) -> u64 {
        let mut lost = 0;
        self.ports.iter().for_each(|port| port.kernel_drops(&mut |_, count| lost += count));
        lost
    }

    fn spoilt_now(&self) -> u64 {
        let of = |port: &XskPort| {
            let drops = &port.counters().drops;
            [Reason::RxChecksum, Reason::RxMalformed, Reason::RxTruncated]
                .map(|reason| drops.get(reason))
                .iter()
                .sum::<u64>()
        };
        self.ports.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the UMEM of all queues together stays within bounds.
    use super::*;

    #[test]
    fn many_queues_have_smaller_rings() {
        for (queues, size) in [(0, 16_384), (1, 16_384), (4, 16_384), (5, 8192), (32, 2048), (128, 2048)] {
            assert_eq!(ring_size(queues), size, "{queues}");
        }
    }
}
