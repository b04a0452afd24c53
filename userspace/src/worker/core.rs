//! What both roles of a worker work with: the engine, the epoll, the flows and the memory for their bytes.

use super::{
    arena::Arena,
    flow::{Broken, Progress, Splice},
    flows::{Flows, Phase},
    mail::Mailbox,
    poll::{FlowKey, Poll},
    session::{abandon, quic_code},
};
use masque::Code;
use tunnel::Engine;

/// Owned by one worker; lent to its role for each step.
pub(super) struct Core {
    pub(super) id: u8,
    pub(super) engine: Engine,
    pub(super) poll: Poll,
    pub(super) arena: Arena,
    pub(super) flows: Flows,
    /// This worker's own letter box, for answers that come from other threads.
    pub(super) mailbox: Mailbox,
    /// Set once the daemon drains: new requests get 503. The supervisor says when to stop.
    pub(super) draining: bool,
    pub(super) totals: Totals,
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
    pub(super) socks_refused: u64,
    pub(super) reconnects: u64,
}

impl Totals {
    /// Adds the bytes of a flow that has ended.
    pub(super) fn finished(&mut self, splice: &Splice) {
        self.bytes_to_sockets += splice.bytes_to_socket;
        self.bytes_from_sockets += splice.bytes_to_stream;
    }

    /// Counts a flow that ended early, under its reason.
    pub(super) fn broken(&mut self, broken: &Broken) {
        match broken {
            Broken::Socket(_) => self.flows_reset_by_socket += 1,
            Broken::Stream => self.flows_reset_by_stream += 1,
            Broken::Protocol { .. } => self.flows_protocol_error += 1,
        }
    }

    pub(super) fn counters(&self) -> [(&'static str, u64); 16] {
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
            ("socks_refused", self.socks_refused),
            ("reconnects", self.reconnects),
        ]
    }
}

impl Core {
    pub(super) fn new(id: u8, engine: Engine, poll: Poll, mailbox: Mailbox) -> Self {
        Self {
            id,
            engine,
            poll,
            arena: Arena::new(),
            flows: Flows::default(),
            mailbox,
            draining: false,
            totals: Totals::default(),
        }
    }

    /// Moves an open flow's bytes both ways. True if the flow has ended, and is gone.
    pub(super) fn pump(&mut self, key: FlowKey) -> bool {
        let Some(flow) = self.flows.get_mut(key) else { return false };
        let (Phase::Open(splice), Some((conn, stream))) = (&mut flow.phase, flow.on) else { return false };
        let Some(mut quic) = self.engine.connection(conn) else { return false };
        let progress = splice.pump(&mut quic, &flow.socket, &mut flow.ready, &mut self.arena);
        if matches!(progress, Progress::Done | Progress::Broken(_)) {
            self.totals.finished(splice);
        }
        match progress {
            Progress::Waiting => return false,
            Progress::More => {
                self.flows.queue(key);
                return false;
            }
            Progress::Done => {
                self.totals.flows_finished += 1;
                self.flows.remove(key);
            }
            Progress::Broken(broken) => {
                self.totals.broken(&broken);
                match broken {
                    Broken::Socket(_) => abandon(&mut quic, stream, Code::H3_CONNECT_ERROR),
                    Broken::Stream => abandon(&mut quic, stream, Code::H3_REQUEST_CANCELLED),
                    Broken::Protocol { code, connection: false } => abandon(&mut quic, stream, code),
                    Broken::Protocol { code, connection: true } => quic.close(quic_code(code), b""),
                }
                self.flows.reset(key);
            }
        }
        true
    }
}
