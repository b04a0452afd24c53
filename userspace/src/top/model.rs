//! What is shown, made of two samples: rates, shares and percentages. Pure; [`super::tables`] turns it into tables.

use super::sample::{ClientSample, LAG_BOUNDS_US, LagSample, Sample};
use crate::{
    alerts::AlertStatus,
    show::meaning,
    status::{Status, Tunnels, WorkerStatus},
    worker::tables::TunnelRow,
};
use std::collections::{BTreeMap, HashMap};

/// One look at a daemon. A rate is `None` until there are two samples of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) version: String,
    pub(crate) role: String,
    pub(crate) address: String,
    pub(crate) uptime_s: u64,
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    /// In words.
    pub(crate) state: String,
    pub(crate) alerts: Vec<String>,
    pub(crate) connections: u64,
    pub(crate) flows: u64,
    pub(crate) flows_opened: u64,
    /// Between the two samples.
    pub(crate) over_s: Option<f64>,
    pub(crate) total: Rates,
    pub(crate) drops_per_s: Option<f64>,
    pub(crate) workers: Vec<Worker>,
    /// A gateway's; `None` at a client.
    pub(crate) clients: Option<Vec<Client>>,
    /// Clients beyond those.
    pub(crate) clients_more: usize,
    pub(crate) tunnels: Vec<Tunnel>,
    pub(crate) tunnels_more: usize,
    pub(crate) drops: Vec<Dropped>,
}

/// Datagrams of the tunnels, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) rx_bits: Option<f64>,
    pub(crate) tx_bits: Option<f64>,
    pub(crate) rx_packets: Option<f64>,
    pub(crate) tx_packets: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Worker {
    pub(crate) id: u8,
    pub(crate) cpu: Option<u32>,
    /// `eth0/0,1`.
    pub(crate) queue: Option<String>,
    pub(crate) mode: String,
    pub(crate) connections: u64,
    pub(crate) flows: u64,
    pub(crate) rates: Rates,
    /// Of all datagrams, those that AF_XDP carried, in percent; `None` while there are none.
    pub(crate) xsk_percent: Option<f64>,
    /// Datagrams that one look at the ports brought, where it brought any.
    pub(crate) batch: Option<f64>,
    /// Times that it went to sleep.
    pub(crate) sleeps_per_s: Option<f64>,
    pub(crate) drops_per_s: Option<f64>,
    /// What 99 of 100 turns of its loop took at most.
    pub(crate) lag_us: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) tunnels: u64,
    pub(crate) flows: u64,
    /// Payload, as the client sees it.
    pub(crate) sent_bits: Option<f64>,
    pub(crate) received_bits: Option<f64>,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// The worst of its tunnels.
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) loss_percent: Option<f64>,
    /// Times that its rate limit held it up.
    pub(crate) waits_per_s: Option<f64>,
    pub(crate) refused: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tunnel {
    pub(crate) id: String,
    pub(crate) client: Option<String>,
    pub(crate) remote: String,
    pub(crate) worker: u8,
    pub(crate) flows: u32,
    pub(crate) rx_bits: Option<f64>,
    pub(crate) tx_bits: Option<f64>,
    pub(crate) rtt_ms: f64,
    /// Of what we sent.
    pub(crate) loss_percent: Option<f64>,
    pub(crate) mtu: u16,
    pub(crate) age_s: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Dropped {
    pub(crate) reason: String,
    pub(crate) per_s: Option<f64>,
    pub(crate) count: u64,
    pub(crate) means: &'static str,
}

impl Model {
    /// Of the latest sample and the one before it; with `interface`, only that one's workers.
    pub(crate) fn new(before: Option<&Sample>, after: &Sample, interface: Option<&str>) -> Self {
        // A daemon that was started again counts from zero.
        let before = before.filter(|before| before.at_us < after.at_us);
        let span = Span { seconds: before.map(|before| (after.at_us - before.at_us) as f64 / 1e6) };
        let status = &after.status;
        let earlier = before.map(|before| &before.status);
        let mut workers = workers(span, earlier, status, interface);
        for worker in &mut workers {
            let of = |sample: &Sample| sample.lags.iter().find(|lag| lag.worker == worker.id).cloned();
            worker.lag_us = lag_us(before.and_then(of), of(after));
        }
        let mut drops = dropped(span, earlier, status);
        drops.sort_by(|a, b| b.per_s.partial_cmp(&a.per_s).unwrap_or(std::cmp::Ordering::Equal));
        let tunnels = tunnels(span, before.map(|before| &before.tunnels[..]), &after.tunnels);
        let is_gateway = status.role == "gateway";
        Self {
            version: status.version.clone(),
            role: status.role.clone(),
            address: status.address.clone(),
            uptime_s: status.uptime_s,
            ready: status.ready,
            draining: status.draining,
            state: state(status),
            alerts: alerts(status),
            connections: status.connections,
            flows: status.flows,
            flows_opened: status.flows_opened,
            over_s: span.seconds,
            total: sum(&workers),
            drops_per_s: span.seconds.map(|_| drops.iter().filter_map(|drop| drop.per_s).sum()),
            clients: is_gateway
                .then(|| clients(span, before.map(|before| &before.clients[..]), &after.clients, &tunnels)),
            clients_more: after.clients_total.saturating_sub(after.clients.len()),
            tunnels_more: usize::try_from(status.connections).unwrap_or(0).saturating_sub(tunnels.len()),
            workers,
            tunnels,
            drops,
        }
    }
}

/// The time between two samples.
#[derive(Clone, Copy)]
struct Span {
    seconds: Option<f64>,
}

impl Span {
    /// How fast a counter grows. One that wasn't there before has begun at 0.
    fn rate(self, before: Option<u64>, after: u64) -> Option<f64> {
        let seconds = self.seconds?;
        Some(after.saturating_sub(before.unwrap_or(0)) as f64 / seconds.max(1e-6))
    }

    /// Of bytes, in bit/s.
    fn bits(self, before: Option<u64>, after: u64) -> Option<f64> {
        self.rate(before, after).map(|bytes| bytes * 8.0)
    }
}

/// What it does, in words.
fn state(status: &Status) -> String {
    match (status.ready, status.draining, &status.why_not_ready) {
        (_, true, _) => "draining".to_owned(),
        (true, ..) if let Some(Tunnels { up, of: of @ 2.. }) = status.tunnels => {
            format!("ready, {up} of {of} tunnels up")
        }
        (true, ..) => "ready".to_owned(),
        (false, _, Some(why)) => format!("not ready: {}", printable(why)),
        (false, _, None) => "not ready".to_owned(),
    }
}

/// What an operator should act on.
fn alerts(status: &Status) -> Vec<String> {
    let of_interfaces = status.interfaces.iter().filter_map(|interface| interface.alert.clone());
    let of_rules = status.alerts.firing.iter().map(AlertStatus::line);
    of_interfaces.chain(of_rules).map(|alert| printable(&alert)).collect()
}

fn workers(span: Span, before: Option<&Status>, after: &Status, interface: Option<&str>) -> Vec<Worker> {
    let before: HashMap<u8, &WorkerStatus> =
        before.iter().flat_map(|status| &status.workers).map(|worker| (worker.id, worker)).collect();
    let is_meant =
        |worker: &&WorkerStatus| interface.is_none_or(|name| worker.interface.as_deref() == Some(name));
    after.workers.iter().filter(is_meant).map(|now| worker(span, before.get(&now.id).copied(), now)).collect()
}

fn worker(span: Span, before: Option<&WorkerStatus>, now: &WorkerStatus) -> Worker {
    let was = |field: fn(&WorkerStatus) -> u64| before.map(field);
    let grown = |field: fn(&WorkerStatus) -> u64| field(now).saturating_sub(was(field).unwrap_or(0));
    let rate = |field: fn(&WorkerStatus) -> u64| span.rate(was(field), field(now));
    let bits = |field: fn(&WorkerStatus) -> u64| span.bits(was(field), field(now));
    let xsk = grown(|worker| worker.xsk_rx_frames + worker.xsk_tx_frames);
    let kernel = grown(|worker| worker.kernel_rx_packets + worker.kernel_tx_packets);
    let bursts = grown(|worker| worker.rx_bursts);
    let queues: Vec<String> = now.queues.iter().map(u32::to_string).collect();
    Worker {
        id: now.id,
        cpu: now.cpu,
        queue: now.interface.as_ref().map(|name| format!("{}/{}", printable(name), queues.join(","))),
        mode: now.xdp_mode.clone(),
        connections: now.connections,
        flows: now.flows,
        rates: Rates {
            rx_bits: bits(|worker| worker.xsk_rx_bytes + worker.kernel_rx_bytes),
            tx_bits: bits(|worker| worker.xsk_tx_bytes + worker.kernel_tx_bytes),
            rx_packets: rate(|worker| worker.xsk_rx_frames + worker.kernel_rx_packets),
            tx_packets: rate(|worker| worker.xsk_tx_frames + worker.kernel_tx_packets),
        },
        xsk_percent: (span.seconds.is_some() && xsk + kernel > 0)
            .then(|| 100.0 * xsk as f64 / (xsk + kernel) as f64),
        batch: (span.seconds.is_some() && bursts > 0)
            .then(|| grown(|worker| worker.rx_delivered) as f64 / bursts as f64),
        sleeps_per_s: rate(|worker| worker.sleeps),
        drops_per_s: rate(|worker| worker.drops),
        lag_us: None,
    }
}

/// The 99th percentile of the turns between two samples, to the next bound; `None` if there was none.
fn lag_us(before: Option<LagSample>, after: Option<LagSample>) -> Option<f64> {
    let (before, after) = (before?.at_most, after?.at_most);
    let turns: Vec<u64> =
        after.iter().zip(&before).map(|(after, before)| after.saturating_sub(*before)).collect();
    let all = *turns.last().filter(|&&all| all > 0)?;
    let at = turns.iter().position(|&so_many| so_many as f64 >= 0.99 * all as f64)?;
    // Beyond the last bound it is at least that.
    LAG_BOUNDS_US.get(at).or(LAG_BOUNDS_US.last()).map(|&us| us as f64)
}

fn sum(workers: &[Worker]) -> Rates {
    let all = |field: fn(&Rates) -> Option<f64>| workers.iter().map(|worker| field(&worker.rates)).sum();
    Rates {
        rx_bits: all(|rates| rates.rx_bits),
        tx_bits: all(|rates| rates.tx_bits),
        rx_packets: all(|rates| rates.rx_packets),
        tx_packets: all(|rates| rates.tx_packets),
    }
}

fn tunnels(span: Span, before: Option<&[TunnelRow]>, after: &[TunnelRow]) -> Vec<Tunnel> {
    let before: HashMap<&str, &TunnelRow> =
        before.unwrap_or_default().iter().map(|row| (key(row), row)).collect();
    let tunnel = |now: &TunnelRow| {
        let was = before.get(key(now)).copied();
        Tunnel {
            id: if now.state == "asleep" { now.state.clone() } else { now.tunnel.clone() },
            client: now.client.as_deref().map(printable),
            remote: now.remote.clone(),
            worker: now.worker,
            flows: now.flows,
            rx_bits: span.bits(was.map(|row| row.rx_bytes), now.rx_bytes),
            tx_bits: span.bits(was.map(|row| row.tx_bytes), now.tx_bytes),
            rtt_ms: now.rtt_ms,
            loss_percent: span.seconds.and_then(|_| loss_percent(was, now)),
            mtu: now.mtu,
            age_s: now.age_s,
        }
    };
    after.iter().map(tunnel).collect()
}

/// One that may sleep has other connections, and stays itself.
fn key(row: &TunnelRow) -> &str {
    row.id.as_deref().unwrap_or(&row.tunnel)
}

/// Of the packets that were sent between two looks, as far as QUIC knows by now.
fn loss_percent(before: Option<&TunnelRow>, now: &TunnelRow) -> Option<f64> {
    let sent = now.sent_packets.saturating_sub(before.map_or(0, |row| row.sent_packets));
    let lost = now.lost_packets.saturating_sub(before.map_or(0, |row| row.lost_packets));
    // What is found lost now may have been sent before.
    (sent > 0).then(|| (100.0 * lost as f64 / sent as f64).min(100.0))
}

fn clients(
    span: Span,
    before: Option<&[ClientSample]>,
    after: &[ClientSample],
    tunnels: &[Tunnel],
) -> Vec<Client> {
    let before: HashMap<&str, &ClientSample> =
        before.unwrap_or_default().iter().map(|client| (client.client.as_str(), client)).collect();
    let mut of_client: HashMap<&str, Vec<&Tunnel>> = HashMap::new();
    for tunnel in tunnels {
        if let Some(name) = &tunnel.client {
            of_client.entry(name).or_default().push(tunnel);
        }
    }
    let worst = |tunnels: &[&Tunnel], field: fn(&Tunnel) -> Option<f64>| {
        tunnels.iter().filter_map(|tunnel| field(tunnel)).reduce(f64::max)
    };
    let client = |now: &ClientSample| {
        let was = before.get(now.client.as_str()).copied();
        let name = printable(&now.client);
        let tunnels = of_client.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        Client {
            tunnels: now.connections,
            flows: now.flows,
            sent_bits: span.bits(was.map(|client| client.sent_bytes), now.sent_bytes),
            received_bits: span.bits(was.map(|client| client.received_bytes), now.received_bytes),
            sent_bytes: now.sent_bytes,
            received_bytes: now.received_bytes,
            rtt_ms: worst(tunnels, |tunnel| Some(tunnel.rtt_ms)),
            loss_percent: worst(tunnels, |tunnel| tunnel.loss_percent),
            waits_per_s: span.rate(was.map(|client| client.rate_waits), now.rate_waits),
            refused: now.refused_limit,
            name,
        }
    };
    after.iter().map(client).collect()
}

fn dropped(span: Span, before: Option<&Status>, after: &Status) -> Vec<Dropped> {
    let nothing = BTreeMap::new();
    let before = before.map_or(&nothing, |status| &status.drops);
    let dropped = |(reason, &count): (&String, &u64)| Dropped {
        per_s: span.rate(before.get(reason).copied(), count),
        count,
        means: meaning(reason).unwrap_or_default(),
        reason: printable(reason),
    };
    after.drops.iter().map(dropped).collect()
}

/// Names come from elsewhere: no control character of theirs reaches the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
