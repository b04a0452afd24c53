//! What the daemon tells `beam top`: everything at one instant, as counters that run on. The rates are made of two of
//! them by whoever asks ([`super::model`]), so that nothing in the daemon waits, and a look costs each worker one
//! snapshot and a slice or two of its tables.

use crate::{
    status::{Rates, Status},
    supervisor::Supervisor,
    worker::{mail::Command, meters::Meter, snapshot::WorkerSnapshot, tables::TunnelRow},
};
use serde::{Deserialize, Serialize};

/// Tunnels in one answer; a gateway may have more. They are those that a worker's table has first.
const TUNNELS_MAX: usize = 2048;
/// Clients in one answer: those with the most connections.
const CLIENTS_MAX: usize = 2048;

/// One instant of a daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Since the daemon started.
    pub(crate) at_us: u64,
    /// Its rates are over nothing, and 0.
    pub(crate) status: Status,
    /// A gateway's, by name.
    pub(crate) clients: Vec<ClientSample>,
    /// Those with a connection; more than there are rows, where they are too many.
    pub(crate) clients_total: usize,
    pub(crate) tunnels: Vec<TunnelRow>,
    /// By worker.
    pub(crate) lags: Vec<LagSample>,
}

/// Turns of a worker's loop, by how long they took: what arrives meanwhile waits so long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LagSample {
    pub(crate) worker: u8,
    /// How many took at most each of [`LAG_BOUNDS_US`], and at last all of them.
    pub(crate) at_most: Vec<u64>,
}

/// Six steps a decade, from 10 us to a second.
pub(crate) const LAG_BOUNDS_US: [u64; 31] = [
    10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000, 7_000, 10_000,
    15_000, 20_000, 30_000, 50_000, 70_000, 100_000, 150_000, 200_000, 300_000, 500_000, 700_000, 1_000_000,
];

/// What one client has used since the gateway started, and has open now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientSample {
    pub(crate) client: String,
    pub(crate) connections: u64,
    pub(crate) flows: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) refused_limit: u64,
    pub(crate) rate_waits: u64,
    pub(crate) rate_dropped: u64,
}

impl Supervisor {
    /// The daemon's side.
    pub(crate) fn sample(&self) -> Sample {
        let (clients, clients_total) = self.client_samples();
        let tunnels = self.tunnel_samples();
        let at_us = u64::try_from(self.uptime().as_micros()).unwrap_or(u64::MAX);
        let snapshots = self.snapshots();
        let lags = snapshots.iter().filter_map(lag).collect();
        let status = self.status_of(&snapshots, Rates::default());
        Sample { at_us, status, clients, clients_total, tunnels, lags }
    }

    fn client_samples(&self) -> (Vec<ClientSample>, usize) {
        let Some(gateway) = &self.identity.gateway else { return (Vec::new(), 0) };
        self.ask_all(Command::Fold);
        let accounts = gateway.current().config.accounts.all();
        let mut clients: Vec<ClientSample> = accounts
            .iter()
            .map(|account| {
                let usage = account.usage();
                ClientSample {
                    client: account.name.to_string(),
                    connections: usage.connections,
                    flows: usage.flows,
                    sent_bytes: usage.sent_bytes,
                    received_bytes: usage.received_bytes,
                    refused_limit: usage.refused_limit,
                    rate_waits: usage.rate_waits,
                    rate_dropped: usage.rate_dropped,
                }
            })
            .filter(|client| client.connections > 0)
            .collect();
        let total = clients.len();
        if total > CLIENTS_MAX {
            clients.sort_by_key(|client| std::cmp::Reverse(client.connections));
            clients.truncate(CLIENTS_MAX);
            clients.sort_by(|a, b| a.client.cmp(&b.client));
        }
        (clients, total)
    }

    fn tunnel_samples(&self) -> Vec<TunnelRow> {
        let share = TUNNELS_MAX / self.seats.len().max(1);
        let mut rows = Vec::new();
        for seat in &self.seats {
            let (mut from, before) = (0, rows.len());
            while let Some(slice) = self.ask_each([seat], |reply| Command::Tunnels { from, reply }).pop() {
                rows.extend(slice.rows);
                match slice.next {
                    Some(next) if rows.len() - before < share => from = next,
                    _ => break,
                }
            }
        }
        rows
    }
}

fn lag(snapshot: &WorkerSnapshot) -> Option<LagSample> {
    let turns = snapshot.meters.as_ref()?.get(Meter::LoopLag);
    let mut at_most = turns.cumulative(&LAG_BOUNDS_US);
    at_most.push(turns.count());
    Some(LagSample { worker: snapshot.id, at_most })
}
