//! Some kernel UDP sockets that all tunnels share, as one outlet of the engine.

use anyhow::{Context, Result};
use port::{Flushed, Frame, Ledger, Port, Received, Sealed};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tunnel::{Engine, Inbound, Outlet, Reserved, Transmit};
use udp::{Options, UdpPort};

/// Entries taken from a socket in one go.
const BURST_MAX: usize = 64;
/// A storm's answers have to wait somewhere while this process computes.
const BUFFER_BYTES: usize = 32 << 20;

/// See the module.
pub(super) struct Sockets {
    ports: Vec<UdpPort>,
    burst: Vec<Received>,
    again_at: Option<Instant>,
}

impl Sockets {
    /// Bound to every address, at ports of the kernel's choice.
    pub(super) fn bind(count: u16) -> Result<Self> {
        let options = Options {
            receive_buffer_bytes: BUFFER_BYTES,
            send_buffer_bytes: BUFFER_BYTES,
            dual_stack: false,
            ..Options::default()
        };
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let ports = (0..count.max(1)).map(|_| UdpPort::bind(any, options.clone()));
        let ports = ports.collect::<Result<_, _>>().context("the clients' sockets")?;
        Ok(Self { ports, burst: Vec::with_capacity(BURST_MAX), again_at: None })
    }

    pub(super) fn count(&self) -> usize {
        self.ports.len()
    }

    /// The UDP port of one of them.
    pub(super) fn local_port(&self, index: usize) -> u16 {
        self.ports[index].local_addr().port()
    }

    /// One burst of each. True if one may have more.
    pub(super) fn receive(&mut self, now: Instant, engine: &mut Engine) -> Result<bool> {
        let mut more = false;
        for port in &mut self.ports {
            let count = port.receive(&mut self.burst, BURST_MAX).context("receiving")?;
            more |= count == BURST_MAX;
            let inbound = self.burst.iter().flat_map(|received| {
                let ecn = received.ecn.and_then(|ecn| tunnel::EcnCodepoint::from_bits(ecn as u8));
                received.datagrams().map(move |bytes| Inbound { path: received.path, ecn, bytes })
            });
            let inbound: Vec<_> = inbound.collect();
            engine.receive_burst(now, &inbound);
            drop(inbound);
            self.burst.drain(..).for_each(|received| port.recycle(received.frame));
        }
        Ok(more)
    }

    /// Sends what the engine has. True if nothing is left.
    pub(super) fn transmit(&mut self, now: Instant, engine: &mut Engine) -> Result<bool> {
        let room = self.ports.iter_mut().map(Port::send_room).min().unwrap_or(0);
        let done = match room {
            0 => !engine.pending_transmit(),
            room => engine.transmit_into(
                now,
                room,
                &mut Way { ports: &mut self.ports, reserved: Ledger::default() },
            ),
        };
        self.again_at = None;
        for port in &mut self.ports {
            if let Flushed::Again(within) = port.flush().context("sending")? {
                let at = now + within;
                self.again_at = Some(self.again_at.map_or(at, |other| other.min(at)));
            }
        }
        Ok(done)
    }

    /// Sleeps until a socket has something, or `until`.
    pub(super) fn wait(&self, until: Option<Instant>) -> Result<()> {
        let until = [until, self.again_at].into_iter().flatten().min();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map(timespec);
        let mut fds: Vec<PollFd<'_>> = self
            .ports
            .iter()
            .map(|port| {
                let flags = if port.wants_writable() { PollFlags::OUT } else { PollFlags::empty() };
                PollFd::from_borrowed_fd(port.poll_fd(), PollFlags::IN | flags)
            })
            .collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno).context("waiting for the sockets"),
        }
    }

    /// Datagrams for us that the kernel dropped for want of buffer, and those that these ports dropped, by name.
    pub(super) fn drops(&self) -> Vec<(&'static str, u64)> {
        let mut all: Vec<(&str, u64)> = Vec::new();
        for port in &self.ports {
            Port::kernel_drops(port, &mut |name, count| all.push((name, count)));
            all.extend(port.counters().drops.iter());
        }
        all.retain(|&(_, count)| count > 0);
        all
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

struct Way<'a> {
    ports: &'a mut [UdpPort],
    reserved: Ledger,
}

impl Outlet for Way<'_> {
    type Slot = Frame;

    fn reserve(&mut self, transmit: &Transmit, slots: &mut Vec<Frame>) -> Reserved {
        let local = transmit.path.local.port();
        let Some(index) = self.ports.iter().position(|port| port.local_addr().port() == local) else {
            return Reserved::Dropped;
        };
        let before = slots.len();
        match self.ports[index].reserve(&of_port(transmit), slots) {
            port::Reserved::Frames => {
                self.reserved.gave(index, slots.len() - before);
                Reserved::Slots
            }
            port::Reserved::Full => Reserved::Full,
            port::Reserved::NoRoute | port::Reserved::Dropped => Reserved::Dropped,
        }
    }

    fn submit(&mut self, transmit: &Transmit, sealed: &mut Vec<Sealed<Frame>>) -> bool {
        let index = self.reserved.submitted();
        // What the port drops it counts, and QUIC sends again.
        let _ = self.ports[index].submit(&of_port(transmit), sealed);
        true
    }

    fn release(&mut self, slots: Vec<Frame>) {
        self.reserved.release(slots, |index, frame| self.ports[index].release(frame));
    }
}

fn of_port(transmit: &Transmit) -> port::Transmit {
    let Transmit { path, ecn, size_bytes, segment_bytes } = *transmit;
    port::Transmit::new(path, ecn.map(|ecn| ecn as u8), size_bytes, segment_bytes)
}
