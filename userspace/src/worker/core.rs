//! What both roles of a worker work with: the engine, the epoll, the flows and the memory for their bytes.

use super::{
    account::Way,
    arena::Arena,
    datagrams::Drops,
    flow::{Broken, Progress, QUOTA_BYTES, Quota},
    flows::{Flows, Phase},
    ip::Ip,
    ledger::Ledger,
    mail::Mailbox,
    meters::{Meter, Meters},
    poll::{FlowKey, Poll},
    reverse::Reverse,
    session::{abandon, quic_code},
    udp::Udp,
};
use crate::capture::tap::Captures;
use masque::Code;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tunnel::{ConnId, Engine, transport::TransportOptions};

/// How long the reader of a flow whose connection has ended may take nothing of what is left.
const LAST_BYTES_LIMIT: Duration = Duration::from_secs(30);

/// Owned by one worker; lent to its role for each step.
pub(super) struct Core {
    pub(super) id: u8,
    pub(super) engine: Engine,
    pub(super) poll: Poll,
    pub(super) arena: Arena,
    pub(super) flows: Flows,
    pub(super) udp: Udp,
    pub(super) reverse: Reverse,
    pub(super) ip: Ip,
    /// Gateway: what its clients use here.
    pub(super) ledger: Ledger,
    /// This worker's own letter box, for answers that come from other threads.
    pub(super) mailbox: Mailbox,
    /// Set once the daemon drains: new requests get 503. The supervisor says when to stop.
    pub(super) draining: bool,
    pub(super) totals: Totals,
    pub(super) meters: Meters,
    /// Who looks at the packets.
    pub(super) captures: Captures,
    /// HTTP datagrams that went nowhere.
    pub(super) datagrams: Drops,
    /// When the present turn of the loop began.
    pub(super) now: Instant,
    windows: TransportOptions,
    /// Flows by connection, for its window.
    open_flows: HashMap<ConnId, OpenFlows>,
}

/// Flows of one connection.
#[derive(Clone, Copy, Debug, Default)]
struct OpenFlows {
    count: u32,
    /// The most there were at once. The window was made for so many, and stays: quinn only books a smaller one as a debt
    /// that a larger one does not cancel, so that opening and closing flows would raise the credit without end.
    peak: u32,
    opened: u32,
}

/// How a flow's socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// What was written arrives, and then the end.
    Orderly,
    /// The other end of the socket sees an error.
    Reset,
}

/// Counters of the layers above the engine.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) flows_opened: u64,
    pub(super) flows_finished: u64,
    pub(super) flows_reset_by_stream: u64,
    pub(super) flows_reset_by_socket: u64,
    pub(super) flows_protocol_error: u64,
    pub(super) bytes_to_sockets: u64,
    pub(super) bytes_from_sockets: u64,
    pub(super) requests: u64,
    pub(super) refused_unauthenticated: u64,
    pub(super) refused_denied: u64,
    pub(super) refused_bad_request: u64,
    pub(super) refused_not_found: u64,
    pub(super) refused_upstream: u64,
    pub(super) refused_draining: u64,
    pub(super) refused_limit: u64,
    pub(super) refused_other_client: u64,
    pub(super) socks_refused: u64,
    pub(super) reconnects: u64,
    pub(super) address_changes: u64,
    pub(super) closed_unproven: u64,
    pub(super) early_connections: u64,
    pub(super) early_refused: u64,
    pub(super) closed_revoked: u64,
    pub(super) closed_kicked: u64,
    pub(super) flows_revoked: u64,
    /// Client: times that a tunnel fell asleep, and was woken.
    pub(super) tunnel_lapses: u64,
    pub(super) tunnel_wakes: u64,
}

impl Totals {
    /// Counts a flow that ended early, under its reason.
    pub(super) fn broken(&mut self, broken: &Broken) {
        match broken {
            Broken::Socket(_) => self.flows_reset_by_socket += 1,
            Broken::Stream | Broken::Reset(_) => self.flows_reset_by_stream += 1,
            Broken::Protocol { .. } => self.flows_protocol_error += 1,
        }
    }

    pub(super) fn counters(&self) -> [(&'static str, u64); 26] {
        [
            ("flows_finished", self.flows_finished),
            ("flows_reset_by_stream", self.flows_reset_by_stream),
            ("flows_reset_by_socket", self.flows_reset_by_socket),
            ("flows_protocol_error", self.flows_protocol_error),
            ("bytes_to_sockets", self.bytes_to_sockets),
            ("bytes_from_sockets", self.bytes_from_sockets),
            ("requests", self.requests),
            ("refused_unauthenticated", self.refused_unauthenticated),
            ("refused_denied", self.refused_denied),
            ("refused_bad_request", self.refused_bad_request),
            ("refused_not_found", self.refused_not_found),
            ("refused_upstream", self.refused_upstream),
            ("refused_draining", self.refused_draining),
            ("refused_limit", self.refused_limit),
            ("refused_other_client", self.refused_other_client),
            ("socks_refused", self.socks_refused),
            ("reconnects", self.reconnects),
            ("address_changes", self.address_changes),
            ("closed_unproven", self.closed_unproven),
            ("early_connections", self.early_connections),
            ("early_refused", self.early_refused),
            ("closed_revoked", self.closed_revoked),
            ("closed_kicked", self.closed_kicked),
            ("flows_revoked", self.flows_revoked),
            ("tunnel_lapses", self.tunnel_lapses),
            ("tunnel_wakes", self.tunnel_wakes),
        ]
    }
}

impl Core {
    pub(super) fn new(
        id: u8,
        engine: Engine,
        poll: Poll,
        mailbox: Mailbox,
        windows: TransportOptions,
    ) -> Self {
        Self {
            id,
            engine,
            poll,
            arena: Arena::new(),
            flows: Flows::default(),
            udp: Udp::default(),
            reverse: Reverse::default(),
            ip: Ip::default(),
            ledger: Ledger::default(),
            mailbox,
            draining: false,
            totals: Totals::default(),
            meters: Meters::default(),
            captures: Captures::default(),
            datagrams: Drops::default(),
            now: Instant::now(),
            windows,
            open_flows: HashMap::new(),
        }
    }

    /// UDP payload that path MTU discovery tries to reach.
    pub(super) fn mtu_max_bytes(&self) -> u16 {
        self.windows.mtu_max_bytes
    }

    /// Counts a flow that has just been opened, and makes room for it in its connection's receive window.
    pub(super) fn flow_opened(&mut self, conn: ConnId) {
        self.totals.flows_opened += 1;
        let flows = self.open_flows.entry(conn).or_default();
        flows.count += 1;
        flows.opened = flows.opened.saturating_add(1);
        if flows.count <= flows.peak {
            return;
        }
        flows.peak = flows.count;
        let (before, after) = (flows.peak - 1, flows.peak);
        let window = self.windows.connection_window_for(after);
        if window != self.windows.connection_window_for(before)
            && let Some(mut quic) = self.engine.connection(conn)
        {
            quic.set_receive_window(window);
        }
    }

    /// Flows that are open on a connection.
    pub(super) fn flow_count(&self, conn: ConnId) -> u32 {
        self.open_flows.get(&conn).map_or(0, |flows| flows.count)
    }

    /// Flows that were opened on a connection.
    pub(super) fn flows_opened_on(&self, conn: ConnId) -> u32 {
        self.open_flows.get(&conn).map_or(0, |flows| flows.opened)
    }

    fn flow_closed(&mut self, conn: ConnId) {
        if let Some(flows) = self.open_flows.get_mut(&conn) {
            flows.count = flows.count.saturating_sub(1);
        }
    }

    /// Forgets a connection that has ended.
    pub(super) fn connection_ended(&mut self, conn: ConnId) {
        self.open_flows.remove(&conn);
    }

    /// Moves an open flow's bytes both ways. Says how, if the flow has ended, and is gone.
    pub(super) fn pump(&mut self, key: FlowKey) -> Option<End> {
        let flow = self.flows.get_mut(key)?;
        let owner = flow.owner();
        if let Phase::Last(splice) = &mut flow.phase {
            let before = splice.bytes_to_socket;
            let progress = splice.write_rest(&flow.socket, &mut flow.ready);
            let moved = splice.bytes_to_socket - before;
            if moved > 0 {
                self.ledger.moved(owner, Way::Sent, moved);
                self.flows.set_deadline(key, Some(self.now + LAST_BYTES_LIMIT));
            }
            return self.after(key, progress);
        }
        let (Phase::Open(splice), Some((conn, stream))) = (&mut flow.phase, flow.on) else { return None };
        let mut quic = self.engine.connection(conn)?;
        let quota = Quota {
            to_socket_bytes: self.ledger.quota(owner, Way::Sent, self.now, QUOTA_BYTES),
            to_stream_bytes: self.ledger.quota(owner, Way::Received, self.now, QUOTA_BYTES),
        };
        let (sent, received) = (splice.bytes_to_socket, splice.bytes_to_stream);
        let progress = splice.pump(&mut quic, &flow.socket, &mut flow.ready, &mut self.arena, quota);
        self.ledger.moved(owner, Way::Sent, splice.bytes_to_socket - sent);
        self.ledger.moved(owner, Way::Received, splice.bytes_to_stream - received);
        let answered = |way: &mut Way| match way {
            Way::Sent => splice.bytes_to_socket > sent,
            Way::Received => splice.bytes_to_stream > received,
        };
        if flow.answer.take_if(answered).is_some() {
            self.meters.time(Meter::FirstByte, self.now.saturating_duration_since(flow.since));
        }
        if let Progress::Broken(broken) = &progress {
            match *broken {
                Broken::Socket(_) => abandon(&mut quic, stream, Code::H3_CONNECT_ERROR),
                Broken::Stream | Broken::Reset(_) => abandon(&mut quic, stream, Code::H3_REQUEST_CANCELLED),
                Broken::Protocol { code, connection: false } => abandon(&mut quic, stream, code),
                Broken::Protocol { code, connection: true } => quic.close(quic_code(code), b""),
            }
        }
        self.after(key, progress)
    }

    /// Draws the conclusion from a pump.
    fn after(&mut self, key: FlowKey, progress: Progress) -> Option<End> {
        let end = match progress {
            Progress::Waiting => return None,
            Progress::More { to_socket, to_stream } => {
                self.again(key, Way::Sent, to_socket);
                self.again(key, Way::Received, to_stream);
                return None;
            }
            Progress::Done => {
                self.totals.flows_finished += 1;
                End::Orderly
            }
            Progress::Broken(broken) => {
                self.totals.broken(&broken);
                End::Reset
            }
        };
        self.end_flow(key, end);
        Some(end)
    }

    /// A flow has more to move: in its next turn, or once its client's rate permits.
    fn again(&mut self, key: FlowKey, way: Way, more: bool) {
        let Some(flow) = self.flows.get_mut(key).filter(|_| more) else { return };
        if self.ledger.quota(flow.owner(), way, self.now, 1) > 0 {
            self.flows.queue(key);
        } else {
            self.flows.starve(key, way, &mut self.ledger, self.now);
        }
    }

    /// Goes on with flows whose clients' rates permit it by now.
    pub(super) fn wake_starved(&mut self) {
        let flows = &mut self.flows;
        self.ledger.wake(self.now, |key, way| flows.fed(key, way));
    }

    /// The peer has all of a flow's stream.
    pub(super) fn stream_acknowledged(&mut self, key: FlowKey) {
        if let Some(flow) = self.flows.get_mut(key)
            && let Phase::Open(splice) = &mut flow.phase
        {
            splice.acknowledged();
            self.flows.queue(key);
        }
    }

    /// The connection under a flow has ended. True if the flow goes on without it, for the bytes that have arrived.
    pub(super) fn outlives(&mut self, key: FlowKey, conn: ConnId) -> bool {
        let Some(flow) = self.flows.get_mut(key) else { return false };
        // After its end a connection can still be read for a while.
        let (Phase::Open(splice), Some(mut quic)) = (&mut flow.phase, self.engine.connection(conn)) else {
            return false;
        };
        if !splice.outlive(&mut quic, &mut self.arena) {
            return false;
        }
        if let Phase::Open(splice) = std::mem::replace(&mut flow.phase, Phase::Moving) {
            flow.phase = Phase::Last(splice);
        }
        flow.on = None;
        self.flow_closed(conn);
        self.flows.set_deadline(key, Some(self.now + LAST_BYTES_LIMIT));
        self.flows.queue(key);
        true
    }

    /// Takes a flow out, and counts the bytes that it has moved.
    pub(super) fn end_flow(&mut self, key: FlowKey, end: End) {
        let flow = match end {
            End::Orderly => self.flows.remove_orderly(key),
            End::Reset => self.flows.remove(key),
        };
        let Some(flow) = flow else { return };
        let (Phase::Open(splice) | Phase::Last(splice)) = flow.phase else { return };
        self.totals.bytes_to_sockets += splice.bytes_to_socket;
        self.totals.bytes_from_sockets += splice.bytes_to_stream;
        if let Some((conn, _)) = flow.on {
            self.flow_closed(conn);
        }
    }
}
