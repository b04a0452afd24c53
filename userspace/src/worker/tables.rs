//! Tables of a worker for `beam show`, a slice at a time: a worker with a hundred thousand flows is not held up by
//! somebody who looks at them.

use super::{
    Role, Worker,
    core::Core,
    datagrams,
    flows::{Flow, Phase},
    ip::IpSession,
    sleepers::{Moved, Sleeper},
    udp::{Outside, Phase as UdpPhase, UdpFlow},
};
use crate::orders::tunnel_id;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use tunnel::ConnId;
use upstream::policy::Net;

/// Places of a table that one slice covers, in use or not.
const SLICE_MAX: usize = 512;

/// A part of a table.
#[derive(Debug)]
pub(crate) struct Slice<T> {
    pub(crate) rows: Vec<T>,
    /// Where the next part begins; `None` behind the last.
    pub(crate) next: Option<usize>,
}

/// One QUIC connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TunnelRow {
    pub(crate) tunnel: String,
    /// Of one that may sleep: the same whatever connection it has.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// `live` or `asleep`.
    #[serde(default)]
    pub(crate) state: String,
    /// `None`: it has not shown who it is; or this is a client.
    pub(crate) client: Option<String>,
    pub(crate) remote: String,
    pub(crate) worker: u8,
    pub(crate) flows: u32,
    pub(crate) rtt_ms: f64,
    /// UDP payload that the path carries.
    pub(crate) mtu: u16,
    /// Inner UDP or IP payload that fits a QUIC DATAGRAM frame; `None` if the peer takes none.
    pub(crate) datagram_mtu: Option<usize>,
    pub(crate) sent_packets: u64,
    pub(crate) lost_packets: u64,
    /// Flows opened since it first came.
    #[serde(default)]
    pub(crate) flows_opened: u32,
    /// UDP payload, by this end, since it first came.
    pub(crate) tx_bytes: u64,
    pub(crate) rx_bytes: u64,
    /// Since its connection came; of one asleep, since it fell asleep.
    pub(crate) age_s: Option<u64>,
}

/// An address or a network that packets to a client have.
#[derive(Debug, Serialize)]
pub(crate) struct RouteRow {
    prefix: String,
    client: String,
    state: &'static str,
    tunnel: String,
}

/// The tables that flows are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowKind {
    Tcp,
    Udp,
    /// IP sessions.
    Ip,
    /// Ports of the gateway that clients have published (`-R`).
    Listen,
}

impl FlowKind {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Ip, Self::Listen];
}

/// One flow.
#[derive(Debug, Serialize)]
pub(crate) struct FlowRow {
    pub(crate) tunnel: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) kind: &'static str,
    pub(crate) state: &'static str,
    pub(crate) to: String,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) age_s: Option<u64>,
}

impl TunnelRow {
    /// A tunnel without a connection. What only a connection has is not known of it.
    pub(crate) fn asleep(sleeper: &Sleeper, worker: u8) -> Self {
        Self {
            tunnel: "-".to_owned(),
            id: Some(format!("{:016x}", sleeper.id)),
            state: "asleep".to_owned(),
            client: Some(sleeper.client.to_string()).filter(|name| !name.is_empty()),
            remote: "-".to_owned(),
            worker,
            flows: 0,
            rtt_ms: 0.0,
            mtu: 0,
            datagram_mtu: None,
            sent_packets: 0,
            lost_packets: 0,
            flows_opened: sleeper.moved.flows_opened,
            tx_bytes: sleeper.moved.tx_bytes,
            rx_bytes: sleeper.moved.rx_bytes,
            age_s: Some(sleeper.asleep_s),
        }
    }
}

impl Worker {
    pub(super) fn tunnels(&mut self, from: usize) -> Slice<TunnelRow> {
        let ids: Vec<ConnId> = self.core.engine.connection_ids().skip(from).take(SLICE_MAX).collect();
        let next = (ids.len() == SLICE_MAX).then_some(from + SLICE_MAX);
        let mut rows: Vec<_> = ids.into_iter().filter_map(|conn| self.tunnel(conn)).collect();
        if let (Role::Client(client), None) = (&self.role, next) {
            rows.extend(
                client.sleepers(self.core.now).map(|sleeper| TunnelRow::asleep(&sleeper, self.core.id)),
            );
        }
        Slice { rows, next }
    }

    fn tunnel(&mut self, conn: ConnId) -> Option<TunnelRow> {
        let (client, since) = match &self.role {
            Role::Gateway(gateway) => gateway.about(conn),
            Role::Client(_) | Role::Bench(_) => (None, None),
        };
        let (id, before) = match &self.role {
            Role::Gateway(gateway) => gateway.dozer(conn).map(|awake| (awake.id(), awake.before)),
            Role::Client(client) => client.dozer(conn),
            Role::Bench(_) => None,
        }
        .map_or((None, Moved::default()), |(id, before)| (Some(id), before));
        let flows_opened = before.flows_opened.saturating_add(self.core.flows_opened_on(conn));
        let core = &mut self.core;
        let (flows, now, worker) = (core.flow_count(conn), core.now, core.id);
        let (stats, remote, datagram_mtu) = core
            .engine
            .look(conn, |mut quic| {
                let stats = (!quic.is_closed()).then(|| quic.stats())?;
                Some((stats, quic.remote_address(), datagrams::payload_max_bytes(&mut quic)))
            })
            .flatten()?;
        let path = stats.path;
        Some(TunnelRow {
            tunnel: tunnel_id(worker, conn),
            id: id.map(|id| format!("{:016x}", id.get())),
            state: "live".to_owned(),
            client,
            remote: remote.to_string(),
            worker,
            flows,
            rtt_ms: path.rtt.as_secs_f64() * 1e3,
            mtu: path.current_mtu,
            datagram_mtu,
            sent_packets: path.sent_packets,
            lost_packets: path.lost_packets,
            flows_opened,
            tx_bytes: before.tx_bytes.saturating_add(stats.udp_tx.bytes),
            rx_bytes: before.rx_bytes.saturating_add(stats.udp_rx.bytes),
            age_s: since.map(|since| seconds(since, now)),
        })
    }

    /// What packets to the clients of a gateway's worker have for destinations.
    pub(super) fn routes(&self, from: usize) -> Slice<RouteRow> {
        if !matches!(self.role, Role::Gateway(_)) {
            return Slice { rows: Vec::new(), next: None };
        }
        let (sessions, next) = self.core.ip.slice(from, SLICE_MAX);
        let rows = sessions.flat_map(|session| {
            let lent = session.addresses.iter().map(|&address| (Net::host(address).to_string(), "lent"));
            let announced = session.networks.iter().map(|network| (network.to_string(), "announced"));
            lent.chain(announced).map(|(prefix, state)| RouteRow {
                prefix,
                client: session.name.to_string(),
                state,
                tunnel: tunnel_id(self.core.id, session.on.0),
            })
        });
        Slice { rows: rows.collect(), next }
    }

    pub(super) fn flows(&self, kind: FlowKind, from: usize) -> Slice<FlowRow> {
        let client_end = matches!(self.role, Role::Client(_));
        match kind {
            FlowKind::Tcp => {
                let (flows, next) = self.core.flows.slice(from, SLICE_MAX);
                Slice { rows: flows.map(|flow| row(&self.core, flow, client_end)).collect(), next }
            }
            FlowKind::Udp => {
                let (flows, next) = self.core.udp.slice(from, SLICE_MAX);
                Slice { rows: flows.map(|flow| udp_row(&self.core, flow)).collect(), next }
            }
            FlowKind::Ip => {
                let (sessions, next) = self.core.ip.slice(from, SLICE_MAX);
                Slice {
                    rows: sessions.map(|session| ip_row(&self.core, session, client_end)).collect(),
                    next,
                }
            }
            FlowKind::Listen => {
                let Role::Gateway(gateway) = &self.role else {
                    return Slice { rows: Vec::new(), next: None };
                };
                let listeners = gateway.listeners().skip(from).take(SLICE_MAX);
                let rows: Vec<_> =
                    listeners.map(|(conn, client, to)| listen_row(&self.core, conn, client, to)).collect();
                let next = (rows.len() == SLICE_MAX).then_some(from + SLICE_MAX);
                Slice { rows, next }
            }
        }
    }
}

/// What an IP session leads to is the network behind the gateway: its own addresses are said.
fn ip_row(core: &Core, session: &IpSession, client_end: bool) -> FlowRow {
    let (inward, outward) = (session.from_tunnel_bytes, session.to_tunnel_bytes);
    let (sent_bytes, received_bytes) = if client_end { (outward, inward) } else { (inward, outward) };
    let addresses = session.addresses.iter().map(ToString::to_string);
    let networks = session.networks.iter().map(ToString::to_string);
    FlowRow {
        tunnel: Some(tunnel_id(core.id, session.on.0)),
        client: (!client_end).then(|| session.name.to_string()),
        kind: "ip",
        state: "open",
        to: addresses.chain(networks).collect::<Vec<_>>().join(","),
        sent_bytes,
        received_bytes,
        age_s: Some(seconds(session.since, core.now)),
    }
}

/// A listener carries nothing itself: what comes in by it has rows of its own.
fn listen_row(core: &Core, conn: ConnId, client: &str, to: String) -> FlowRow {
    FlowRow {
        tunnel: Some(tunnel_id(core.id, conn)),
        client: Some(client.to_owned()),
        kind: "listen",
        state: "open",
        to,
        sent_bytes: 0,
        received_bytes: 0,
        age_s: None,
    }
}

fn udp_row(core: &Core, flow: &UdpFlow) -> FlowRow {
    let (inward, outward) = (flow.to_outside_bytes, flow.from_outside_bytes);
    let (sent_bytes, received_bytes) = match flow.outside {
        Outside::Upstream { .. } => (inward, outward),
        Outside::Local { .. } => (outward, inward),
    };
    FlowRow {
        tunnel: flow.on.map(|(conn, _)| tunnel_id(core.id, conn)),
        client: flow.permit.as_ref().map(|permit| permit.client().to_string()),
        kind: "udp",
        state: match flow.phase {
            UdpPhase::Waiting => "waiting",
            UdpPhase::Asked(_) => "asked",
            UdpPhase::Open(_) => "open",
        },
        to: flow.to.to_string(),
        sent_bytes,
        received_bytes,
        age_s: Some(seconds(flow.since, core.now)),
    }
}

fn row(core: &Core, flow: &Flow, client_end: bool) -> FlowRow {
    let (state, to_socket, to_stream) = match &flow.phase {
        Phase::Connecting { .. } => ("connecting", 0, 0),
        Phase::Socks(_) => ("socks", 0, 0),
        Phase::Waiting(_) => ("waiting", 0, 0),
        Phase::Asked { .. } => ("asked", 0, 0),
        Phase::Dialing(_) => ("dialing", 0, 0),
        Phase::Associated { .. } => ("associated", 0, 0),
        Phase::Open(splice) => ("open", splice.bytes_to_socket, splice.bytes_to_stream),
        Phase::Last(splice) => ("last", splice.bytes_to_socket, splice.bytes_to_stream),
        Phase::Moving => ("moving", 0, 0),
    };
    // Sent is from the client to the upstream, at both ends.
    let (sent_bytes, received_bytes) =
        if client_end { (to_stream, to_socket) } else { (to_socket, to_stream) };
    FlowRow {
        tunnel: flow.on.map(|(conn, _)| tunnel_id(core.id, conn)),
        client: flow.permit.as_ref().map(|permit| permit.client().to_string()),
        kind: "tcp",
        state,
        to: flow.to.to_string(),
        sent_bytes,
        received_bytes,
        age_s: Some(seconds(flow.since, core.now)),
    }
}

pub(super) fn seconds(since: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(since).as_secs()
}
