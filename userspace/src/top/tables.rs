//! The four tables of a look: workers, clients, tunnels, drops.

use super::{
    figures::{bits, bytes, duration, figure, milliseconds, percent, si},
    model::{Client, Dropped, Model, Tunnel, Worker},
    table::{Align, Cell, Column, Table, Tone},
};

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pane {
    Workers,
    Clients,
    Tunnels,
    Drops,
}

impl Pane {
    pub(crate) const ALL: [Self; 4] = [Self::Workers, Self::Clients, Self::Tunnels, Self::Drops];

    /// The column that it is sorted by to begin with, and whether the other way round.
    pub(crate) fn first_order(self) -> (usize, bool) {
        match self {
            // By number; the numbers rise.
            Self::Workers => (0, true),
            // What goes to clients: most of what there is.
            Self::Clients => (4, false),
            Self::Tunnels => (6, false),
            Self::Drops => (1, false),
        }
    }

    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Self::Workers => WORKERS,
            Self::Clients => CLIENTS,
            Self::Tunnels => TUNNELS,
            Self::Drops => DROPS,
        }
    }

    /// Its table; `None` where that daemon has none.
    pub(crate) fn table(self, model: &Model) -> Option<Table> {
        let (rows, nothing, more): (Vec<Vec<Cell>>, _, _) = match self {
            Self::Workers => (model.workers.iter().map(worker).collect(), "no worker answers", 0),
            Self::Clients => {
                let rows = model.clients.as_ref()?.iter().map(client).collect();
                (rows, "no client is connected", model.clients_more)
            }
            Self::Tunnels => {
                (model.tunnels.iter().map(tunnel).collect(), "no tunnel is open", model.tunnels_more)
            }
            Self::Drops => (model.drops.iter().map(drop).collect(), "nothing was dropped", 0),
        };
        Some(Table { columns: self.columns(), rows, nothing, more })
    }
}

const fn left(title: &'static str, rank: u8) -> Column {
    Column { title, align: Align::Left, rank }
}

const fn right(title: &'static str, rank: u8) -> Column {
    Column { title, align: Align::Right, rank }
}

const WORKERS: &[Column] = &[
    right("worker", 0),
    right("cpu", 4),
    left("queue", 3),
    left("mode", 1),
    right("conns", 5),
    right("flows", 2),
    right("rx bit/s", 0),
    right("tx bit/s", 0),
    right("rx pkt/s", 3),
    right("tx pkt/s", 3),
    right("xsk %", 4),
    right("batch", 4),
    right("lag ms", 3),
    right("sleeps/s", 6),
    right("drops/s", 1),
];

fn worker(worker: &Worker) -> Vec<Cell> {
    let mode = match worker.mode.as_str() {
        "native-zerocopy" => Cell::text("native-zerocopy").toned(Tone::Good),
        "skb-copy" => Cell::text("skb-copy").toned(Tone::Warn),
        // Kernel UDP: asked for, or where nothing else works.
        "off" => Cell::text("kernel"),
        other => Cell::text(other),
    };
    let xsk = figure(worker.xsk_percent, percent);
    let leaks = worker.queue.is_some() && worker.xsk_percent.is_some_and(|percent| percent < 99.0);
    vec![
        Cell::number(worker.id.into(), worker.id.to_string()),
        worker.cpu.map_or_else(Cell::none, |cpu| Cell::number(cpu.into(), cpu.to_string())),
        worker.queue.as_ref().map_or_else(Cell::none, Cell::text),
        mode,
        count(worker.connections),
        count(worker.flows),
        figure(worker.rates.rx_bits, bits),
        figure(worker.rates.tx_bits, bits),
        figure(worker.rates.rx_packets, si),
        figure(worker.rates.tx_packets, si),
        xsk.toned(if leaks { Tone::Warn } else { Tone::Plain }),
        figure(worker.batch, |n| format!("{n:.1}")),
        figure(worker.lag_us.map(|us| us / 1e3), milliseconds),
        figure(worker.sleeps_per_s, si),
        trouble(figure(worker.drops_per_s, si), worker.drops_per_s, 0.0),
    ]
}

const CLIENTS: &[Column] = &[
    left("client", 0),
    right("tunnels", 2),
    right("flows", 1),
    right("sent bit/s", 0),
    right("rcvd bit/s", 0),
    right("rtt ms", 0),
    right("loss %", 1),
    right("sent", 5),
    right("received", 5),
    right("waits/s", 4),
    right("refused", 4),
];

fn client(client: &Client) -> Vec<Cell> {
    vec![
        Cell::text(&client.name),
        count(client.tunnels),
        count(client.flows),
        figure(client.sent_bits, bits),
        figure(client.received_bits, bits),
        figure(client.rtt_ms, milliseconds),
        loss(client.loss_percent),
        Cell::number(client.sent_bytes as f64, bytes(client.sent_bytes as f64)),
        Cell::number(client.received_bytes as f64, bytes(client.received_bytes as f64)),
        figure(client.waits_per_s, si),
        trouble(count(client.refused), Some(client.refused as f64), 0.0),
    ]
}

const TUNNELS: &[Column] = &[
    left("tunnel", 0),
    left("client", 1),
    left("remote", 3),
    right("worker", 5),
    right("flows", 2),
    right("rx bit/s", 0),
    right("tx bit/s", 0),
    right("rtt ms", 0),
    right("loss %", 1),
    right("mtu", 4),
    right("age", 5),
];

fn tunnel(tunnel: &Tunnel) -> Vec<Cell> {
    vec![
        Cell::text(&tunnel.id),
        tunnel.client.as_ref().map_or_else(Cell::none, Cell::text),
        Cell::text(&tunnel.remote),
        Cell::number(tunnel.worker.into(), tunnel.worker.to_string()),
        count(tunnel.flows.into()),
        figure(tunnel.rx_bits, bits),
        figure(tunnel.tx_bits, bits),
        figure(Some(tunnel.rtt_ms), milliseconds),
        loss(tunnel.loss_percent),
        count(tunnel.mtu.into()),
        figure(tunnel.age_s.map(|seconds| seconds as f64), duration),
    ]
}

const DROPS: &[Column] = &[
    left("dropped", 0),
    right("/s", 0),
    right("count", 0),
    Column { title: "means", align: Align::Rest, rank: 1 },
];

fn drop(drop: &Dropped) -> Vec<Cell> {
    vec![
        Cell::text(&drop.reason),
        trouble(figure(drop.per_s, si), drop.per_s, 0.0),
        count(drop.count),
        Cell::text(drop.means),
    ]
}

fn count(n: u64) -> Cell {
    Cell::number(n as f64, n.to_string())
}

/// Bad beyond a limit.
fn trouble(cell: Cell, value: Option<f64>, limit: f64) -> Cell {
    if value.is_some_and(|value| value > limit) { cell.toned(Tone::Bad) } else { cell }
}

fn loss(percent_lost: Option<f64>) -> Cell {
    let tone = match percent_lost {
        Some(5.0..) => Tone::Bad,
        Some(1.0..) => Tone::Warn,
        Some(_) => Tone::Plain,
        None => Tone::Dim,
    };
    figure(percent_lost, percent).toned(tone)
}
