//! A look as plain text: for a pipe, a file, and `--once`. No escape codes, every column.

use super::{
    figures::{duration, si, with_unit},
    model::Model,
    tables::Pane,
};
use std::fmt::Write;

/// Rows of one table; a gateway may have thousands of clients.
const ROWS_MAX: usize = 50;

/// One block, without an empty line behind it.
pub(super) fn block(model: &Model) -> String {
    let mut out = head(model).join("\n");
    out.push('\n');
    for pane in Pane::ALL {
        let Some(mut table) = pane.table(model) else { continue };
        let (column, reverse) = pane.first_order();
        table.sort(column, reverse);
        let laid = table.layout(None);
        let titles = laid.iter().map(|&one| table.padded(one, table.columns[one.index].title));
        let _ = writeln!(out, "\n{}", titles.collect::<Vec<_>>().join("  ").trim_end());
        if table.rows.is_empty() {
            let _ = writeln!(out, "({})", table.nothing);
        }
        for row in table.rows.iter().take(ROWS_MAX) {
            let cells = laid.iter().map(|&one| table.padded(one, &row[one.index].text));
            let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        let more = table.rows.len().saturating_sub(ROWS_MAX) + table.more;
        if more > 0 {
            let _ = writeln!(out, "... and {more} more");
        }
    }
    out
}

/// The lines above the tables.
pub(super) fn head(model: &Model) -> Vec<String> {
    let preposition = if model.role != "client" { "on" } else { "to" };
    let uptime = duration(model.uptime_s as f64);
    let mut lines = vec![
        format!(
            "beam {} {} {preposition} {}: {}, up {uptime}",
            model.version, model.role, model.address, model.state
        ),
        totals(model),
    ];
    lines.extend(model.alerts.iter().map(|alert| format!("ALERT: {alert}")));
    lines
}

/// What all workers do together.
pub(super) fn totals(model: &Model) -> String {
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), si);
    let bits = |value: Option<f64>| value.map_or("- bit/s".to_owned(), |value| with_unit(value, "bit/s"));
    let rates = &model.total;
    format!(
        "rx {}, {} pkt/s   tx {}, {} pkt/s   drops {}/s   tunnels {}   flows {} (opened {})",
        bits(rates.rx_bits),
        shown(rates.rx_packets),
        bits(rates.tx_bits),
        shown(rates.tx_packets),
        shown(model.drops_per_s),
        model.connections,
        model.flows,
        model.flows_opened
    )
}
