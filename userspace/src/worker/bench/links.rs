//! The connections of a job of streams or datagrams: opened together, and up together before its clock begins.

use super::{ALPN_PERF, NO_ERROR, Target, figures::PathSeen};
use crate::worker::core::Core;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tunnel::{CloseReason, ConnId, Event};

/// A server that doesn't answer within this is out of reach; below the idle timeout, which would say it was there.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(4);

/// See the module.
pub(super) struct Links {
    conns: Vec<ConnId>,
    places: HashMap<ConnId, usize>,
    up: usize,
    until: Instant,
}

impl Links {
    pub(super) fn open(core: &mut Core, now: Instant, to: &Target, count: u16) -> Result<Self, String> {
        let count = usize::from(count.max(1));
        let connect = |index| to.connect(core, now, &to.full, index);
        let conns = (0..count).map(connect).collect::<Result<Vec<_>, _>>()?;
        let places = conns.iter().enumerate().map(|(place, &conn)| (conn, place)).collect();
        Ok(Self { conns, places, up: 0, until: now + HANDSHAKE_LIMIT })
    }

    pub(super) fn conns(&self) -> &[ConnId] {
        &self.conns
    }

    /// Which of them it is.
    pub(super) fn place(&self, conn: ConnId) -> Option<usize> {
        self.places.get(&conn).copied()
    }

    fn is_up(&self) -> bool {
        self.up == self.conns.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        (!self.is_up()).then_some(self.until)
    }

    /// Why to give up, if the handshakes took too long.
    pub(super) fn overdue(&self, now: Instant, to: &Target) -> Option<String> {
        (!self.is_up() && now >= self.until).then(|| no_answer(to))
    }

    /// Whether the last one came up by this event. An error says why one of them, and the job with it, has ended.
    pub(super) fn all_up_by(&mut self, core: &mut Core, conn: ConnId, event: &Event) -> Result<bool, String> {
        if self.place(conn).is_none() {
            return Ok(false);
        }
        match event {
            Event::Connected { .. } => {
                speaks_perf(core, conn)?;
                self.up += 1;
                Ok(self.is_up())
            }
            Event::HandshakeFailed { reason } | Event::Closed { reason } => Err(explain(reason)),
            _ => Ok(false),
        }
    }

    /// What QUIC saw; the connections are closed.
    pub(super) fn close(&mut self, core: &mut Core) -> Option<PathSeen> {
        let mut sum: Option<PathSeen> = None;
        for &conn in &self.conns {
            let Some(mut quic) = core.engine.connection(conn) else { continue };
            let path = quic.stats().path;
            let seen = sum.get_or_insert(PathSeen {
                mtu_bytes: path.current_mtu,
                rtt: path.rtt,
                ..PathSeen::default()
            });
            seen.mtu_bytes = seen.mtu_bytes.min(path.current_mtu);
            seen.sent_packets += path.sent_packets;
            seen.lost_packets += path.lost_packets;
            seen.congestion_events += path.congestion_events;
            if !quic.is_closed() {
                quic.close(NO_ERROR, b"");
            }
        }
        sum
    }
}

/// A server may ignore what it was asked to speak.
pub(super) fn speaks_perf(core: &mut Core, conn: ConnId) -> Result<(), String> {
    let Some(quic) = core.engine.connection(conn) else { return Ok(()) };
    match quic.alpn() {
        Some(alpn) if alpn == ALPN_PERF => Ok(()),
        other => {
            let seen = other.map_or("none".to_owned(), |alpn| String::from_utf8_lossy(&alpn).into_owned());
            Err(format!(
                "the server's application protocol is {seen}, and perf is needed; start `beam bench serve` there"
            ))
        }
    }
}

pub(super) fn no_answer(to: &Target) -> String {
    format!(
        "no answer from {} within {} s; is `beam bench serve` running there, and may UDP pass?",
        to.remote,
        HANDSHAKE_LIMIT.as_secs()
    )
}

/// TLS' alert no_application_protocol as a QUIC error (RFC 9001 section 4.8).
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

/// The end of a connection in words.
pub(super) fn explain(reason: &CloseReason) -> String {
    match reason {
        CloseReason::PeerTransport { code: NO_APPLICATION_PROTOCOL, .. } => {
            "the server doesn't speak the application protocol perf: a gateway is no measuring server; start `beam bench \
             serve` there"
                .to_owned()
        }
        CloseReason::Peer { .. } | CloseReason::TimedOut | CloseReason::Reset => {
            format!("the server is gone: {reason}")
        }
        CloseReason::Refused => "the server refuses more connections; see its --max-connections".to_owned(),
        other => crate::worker::client::explain(other),
    }
}
