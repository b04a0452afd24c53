//! What other threads may send to a worker: frames of its connections, its own frames coming home, commands.
//! All queues are bounded; the one for frames that come home, by the number of those that the worker's ports have.

use super::{
    GatewayConfig, Limits, Revoked,
    poll::{FlowKey, Waker},
    queue::Bounded,
    snapshot::WorkerSnapshot,
    tables::{FlowKind, FlowRow, RouteRow, Slice, TunnelRow},
};
use crate::capture::tap::Tap;
use bytes::Bytes;
use crossbeam::{channel::Sender, queue::SegQueue};
use port::{Frame, Port, Received};
use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tunnel::ConnId;
use upstream::resolver::ResolveError;

/// A frame that landed on another worker's queue, on its way to the owner of its connection.
pub(crate) struct Handed {
    pub(crate) received: Received,
    pub(crate) home: Home,
}

/// Where a handed-over frame goes back to.
#[derive(Clone, Copy)]
pub(crate) struct Home {
    pub(crate) worker: u8,
    pub(crate) port: u8,
}

/// A packet from the network behind the gateway, for a session of the worker that it is handed to.
pub(crate) struct HandedInner {
    pub(crate) key: FlowKey,
    pub(crate) vnet: ip::Vnet,
    pub(crate) packet: Bytes,
    pub(crate) behind_router: bool,
}

/// Whose connections are meant.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// All of the client of this name.
    Client(Arc<str>),
    /// One of this worker.
    Connection(ConnId),
}

/// What the control plane asks of a worker.
pub(crate) enum Command {
    /// Take a turn: an interface is gone, which wakes no socket of its own.
    Look,
    /// Report counters and tables.
    Snapshot(Sender<Box<WorkerSnapshot>>),
    /// Refuse new flows from now on; running ones go on.
    Drain,
    /// Stop now.
    Stop,
    /// Serve this AF_XDP socket too: its queue came after the start.
    AddPort(Box<dyn Port>),
    /// The same, of the LAN.
    AddLanQueue(Box<xsk::LanPort>),
    /// Add what was counted here to the shared accounts.
    Fold(Sender<()>),
    /// Report a part of the connections.
    Tunnels { from: usize, reply: Sender<Slice<TunnelRow>> },
    /// Report a part of the flows.
    Flows { kind: FlowKind, from: usize, reply: Sender<Slice<FlowRow>> },
    /// Report a part of what is lent to clients and announced by them.
    Routes { from: usize, reply: Sender<Slice<RouteRow>> },
    /// An address of an IP session has moved to a younger session of the same client.
    AddressMoved { key: FlowKey, address: IpAddr },
    /// Gateway: work by this configuration from now on.
    Configure {
        config: Arc<GatewayConfig>,
        server: Arc<quinn_proto::ServerConfig>,
        limits: Limits,
        reply: Sender<Revoked>,
    },
    /// Gateway: close connections; how many there were.
    Kick { who: Who, reply: Sender<u64> },
    /// Show packets to a capture from now on.
    Capture { tap: Box<Tap>, reply: Sender<()> },
    /// A capture's client has these addresses now.
    CaptureRemotes { id: u32, remotes: Arc<HashSet<SocketAddr>> },
    /// A capture is over; all that it has seen is in its ring at the answer.
    CaptureEnd { id: u32, reply: Sender<()> },
    /// Give new connections a qlog, or none.
    Qlog { qlog: Option<Box<tunnel::Qlog>>, reply: Sender<()> },
    /// Gateway: where the connections of a client come from.
    Remotes { who: Who, reply: Sender<Vec<SocketAddr>> },
    /// A name was resolved for the request on this stream.
    Resolved { conn: ConnId, stream: tunnel::StreamId, outcome: Result<Vec<SocketAddr>, ResolveError> },
    /// Another worker has the listener of this stream now: its client has come back there.
    ListenerMoved { conn: ConnId, stream: tunnel::StreamId },
    /// Another run of this connection's client wants its port.
    ListenerDoubted { conn: ConnId },
    /// The name of a client's local service was resolved, for the connection `id` of a listen stream.
    ServiceResolved {
        index: usize,
        on: (ConnId, tunnel::StreamId),
        id: u64,
        outcome: Result<Vec<SocketAddr>, ResolveError>,
    },
    /// `beam bench run`: begin a measurement, or end it.
    Bench(super::bench::Order),
    /// The client's gateway name was resolved, for one of its links.
    GatewayResolved { link: u8, outcome: Result<Vec<SocketAddr>, ResolveError> },
}

/// Frames in flight towards one worker: as many as two RX rings hold, so that a burst of one queue fits whole.
const FRAMES_MAX: usize = 4096;
/// Inner packets in flight towards one worker, and their bytes: a burst of small ones, and as many as one session's QUIC
/// buffer holds several times over.
const INNER_COUNT_MAX: usize = 1024;
const INNER_BYTES_MAX: usize = 4 << 20;
/// Commands waiting at one worker: more than flows can be resolving at once.
const COMMANDS_MAX: usize = 4096;

/// The letter box of one worker; cloned into every thread that may write to it.
#[derive(Clone)]
pub(crate) struct Mailbox(Arc<Boxes>);

struct Boxes {
    frames: Bounded<Handed>,
    /// There are no more of them than the ports have.
    returns: SegQueue<(u8, Frame)>,
    inner: Bounded<HandedInner>,
    /// Inner packets for the network, from workers that have no way there.
    outward: Bounded<Bytes>,
    inner_bytes: AtomicUsize,
    commands: Bounded<Command>,
    waker: Waker,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Boxes {
            frames: Bounded::new(FRAMES_MAX),
            returns: SegQueue::new(),
            inner: Bounded::new(INNER_COUNT_MAX),
            outward: Bounded::new(INNER_COUNT_MAX),
            inner_bytes: AtomicUsize::new(0),
            commands: Bounded::new(COMMANDS_MAX),
            waker: Waker::new()?,
        })))
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.0.waker
    }

    /// Hands a frame over; gives it back if the owner's queue is full. The caller rings [`Waker::wake`] once a burst.
    pub(crate) fn hand_over(&self, handed: Handed) -> Result<(), Handed> {
        self.0.frames.push(handed)
    }

    /// Hands an inner packet over; false, and it is gone, if too many wait. The caller rings [`Waker::wake`].
    pub(crate) fn hand_over_inner(&self, handed: HandedInner) -> bool {
        let bytes = handed.packet.len();
        if self.0.inner_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= INNER_BYTES_MAX
            && self.0.inner.push(handed).is_ok()
        {
            return true;
        }
        self.0.inner_bytes.fetch_sub(bytes, Ordering::Relaxed);
        false
    }

    /// Hands over an inner packet for the network; false, and it is gone, if too many wait. The caller rings
    /// [`Waker::wake`].
    pub(crate) fn hand_over_outward(&self, packet: Bytes) -> bool {
        self.0.outward.push(packet).is_ok()
    }

    pub(super) fn next_outward(&self) -> Option<Bytes> {
        self.0.outward.pop()
    }

    pub(super) fn next_inner(&self) -> Option<HandedInner> {
        let handed = self.0.inner.pop()?;
        self.0.inner_bytes.fetch_sub(handed.packet.len(), Ordering::Relaxed);
        Some(handed)
    }

    /// Sends a frame home to port `port` of this worker.
    pub(crate) fn send_home(&self, port: u8, frame: Frame) {
        self.0.returns.push((port, frame));
        self.0.waker.wake();
    }

    /// Sends a command; false if the worker is so far behind that its queue is full.
    pub(crate) fn command(&self, command: Command) -> bool {
        let sent = self.0.commands.push(command).is_ok();
        self.0.waker.wake();
        sent
    }

    pub(super) fn next_frame(&self) -> Option<Handed> {
        self.0.frames.pop()
    }

    pub(super) fn next_return(&self) -> Option<(u8, Frame)> {
        self.0.returns.pop()
    }

    pub(super) fn next_command(&self) -> Option<Command> {
        self.0.commands.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        let Boxes { frames, returns, inner, outward, inner_bytes: _, commands, waker: _ } = &*self.0;
        frames.is_empty()
            && inner.is_empty()
            && outward.is_empty()
            && returns.is_empty()
            && commands.is_empty()
    }
}
