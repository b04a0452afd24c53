//! `beam show NOUN`: tables of a running daemon, for people and, with `-j`, for programs.
//!
//! ```text
//!  beam show ── noun, filters, limit ──► control socket ──► answer (daemon) ──► slices from each worker
//! ```
//! Every table is a list of rows with the columns that [`Noun::columns`] names; the same names are the keys of the JSON
//! and of the filters. A new noun: a variant, its columns, and a function in [`answer`].

mod answer;
mod explain;

pub(crate) use answer::Cleared;
pub(crate) use explain::meaning;

use crate::{
    cli::ShowArgs,
    control::{self, Answer, Request},
    failure::Failure,
};
use anyhow::anyhow;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt::Write;

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Noun {
    /// What each client uses, over all of its connections
    Clients,
    /// QUIC connections, live ones and those asleep: round trip, MTU, loss
    Tunnels,
    /// What is carried, and where to
    Flows,
    /// Workers and the queues that they serve
    Queues,
    /// Counters of things that went wrong, with what they mean
    Errors,
    /// Tickets, tokens and names: entries, hits and misses of each level
    Caches,
    /// Addresses lent to clients, networks that they announce, and those that they may
    Routes,
    /// The gateway's certificate
    Cert,
    /// The flags in effect
    Config,
}

/// How a column is printed for a person. JSON has the plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// As it is.
    Plain,
    Bytes,
    BitsPerS,
    Milliseconds,
    Seconds,
}

use Unit::{BitsPerS, Bytes, Milliseconds, Plain, Seconds};

impl Noun {
    /// The columns, in the order of the table.
    pub(crate) fn columns(self) -> &'static [(&'static str, Unit)] {
        match self {
            Self::Clients => &[
                ("client", Plain),
                ("connections", Plain),
                ("flows", Plain),
                ("flows_opened", Plain),
                ("sent_bytes", Bytes),
                ("received_bytes", Bytes),
                ("sent_bits_per_s", BitsPerS),
                ("received_bits_per_s", BitsPerS),
                ("refused_limit", Plain),
                ("rate_waits", Plain),
                ("rate_dropped", Plain),
                ("policy", Plain),
            ],
            Self::Tunnels => &[
                ("tunnel", Plain),
                ("state", Plain),
                ("id", Plain),
                ("client", Plain),
                ("remote", Plain),
                ("worker", Plain),
                ("flows", Plain),
                ("rtt_ms", Milliseconds),
                ("mtu", Plain),
                ("datagram_mtu", Plain),
                ("sent_packets", Plain),
                ("lost_packets", Plain),
                ("flows_opened", Plain),
                ("tx_bytes", Bytes),
                ("rx_bytes", Bytes),
                ("age_s", Seconds),
            ],
            Self::Flows => &[
                ("tunnel", Plain),
                ("client", Plain),
                ("kind", Plain),
                ("state", Plain),
                ("to", Plain),
                ("sent_bytes", Bytes),
                ("received_bytes", Bytes),
                ("age_s", Seconds),
            ],
            Self::Queues => &[
                ("worker", Plain),
                ("cpu", Plain),
                ("interface", Plain),
                ("queues", Plain),
                ("xdp_mode", Plain),
                ("connections", Plain),
                ("flows", Plain),
                ("xsk_rx_frames", Plain),
                ("xsk_tx_frames", Plain),
                ("kernel_rx_packets", Plain),
                ("kernel_tx_packets", Plain),
                ("handed_out", Plain),
                ("handed_in", Plain),
            ],
            Self::Errors => &[("counter", Plain), ("count", Plain), ("means", Plain)],
            Self::Caches => &[
                ("cache", Plain),
                ("level", Plain),
                ("entries", Plain),
                ("bytes", Bytes),
                ("hits", Plain),
                ("negative", Plain),
                ("misses", Plain),
                ("inserts", Plain),
                ("evictions", Plain),
                ("expired", Plain),
                ("lost", Plain),
            ],
            Self::Routes => &[("prefix", Plain), ("client", Plain), ("state", Plain), ("tunnel", Plain)],
            Self::Cert => &[
                ("subject", Plain),
                ("names", Plain),
                ("issuer", Plain),
                ("not_before", Plain),
                ("not_after", Plain),
                ("days_left", Plain),
                ("fingerprint", Plain),
                ("from", Plain),
            ],
            Self::Config => &[("flag", Plain), ("value", Plain), ("from", Plain)],
        }
    }

    /// The word of the command line.
    pub(crate) fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The name of the JSON object's shape.
    fn schema(self) -> String {
        format!("beam.show.{}.v1", self.word())
    }

    /// A table of few rows with long values: each column is a line.
    fn is_upright(self) -> bool {
        matches!(self, Self::Cert)
    }
}

/// Rows shown unless `--limit` says otherwise.
pub(crate) const ROWS_DEFAULT: usize = 1_000;
/// Rows in one answer at most.
pub(crate) const ROWS_MAX: usize = 20_000;

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) noun: Noun,
    #[serde(default)]
    pub(crate) filters: Vec<Filter>,
    pub(crate) limit: usize,
}

/// `KEY=VALUE`: rows whose column reads exactly so, or begins so where the value ends in `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl std::str::FromStr for Filter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("`{text}` is no filter; the form is KEY=VALUE, such as client=alice")),
        }
    }
}

impl Filter {
    pub(crate) fn matches(&self, row: &Row) -> bool {
        let seen = row.get(&self.key).map_or_else(|| "-".to_owned(), plain);
        match self.value.strip_suffix('*') {
            Some(start) => seen.starts_with(start),
            None => seen == self.value,
        }
    }
}

/// One line of a table.
pub(crate) type Row = Map<String, Value>;

/// The answer: what `-j` prints.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) schema: String,
    pub(crate) rows: Vec<Row>,
    /// Rows that the filters let through, those beyond the limit included.
    pub(crate) total: usize,
}

pub(crate) fn run(args: &ShowArgs) -> Result<(), Failure> {
    let columns = args.noun.columns();
    if let Some(filter) = args.filters.iter().find(|filter| columns.iter().all(|(key, _)| *key != filter.key))
    {
        let keys: Vec<&str> = columns.iter().map(|&(key, _)| key).collect();
        return Err(Failure::Config(anyhow!(
            "`beam show {}` has no column {:?}; it has {}",
            args.noun.word(),
            filter.key,
            keys.join(", ")
        )));
    }
    let limit = args.limit.min(ROWS_MAX);
    let question = Question { noun: args.noun, filters: args.filters.clone(), limit };
    control::repeat(args.watch, || {
        let shown = match control::ask(&args.control.control, &Request::Show(question.clone()))? {
            Answer::Show(shown) => shown,
            Answer::Error(error) => return Err(Failure::Runtime(anyhow!(error))),
            _ => return Err(Failure::Runtime(anyhow!("the daemon answers another question"))),
        };
        if args.json {
            say!("{}", serde_json::to_string(&shown).map_err(Failure::runtime)?);
        } else {
            say_text!("{}", table(args.noun, &shown));
        }
        Ok(())
    })
}

/// The table for a person.
fn table(noun: Noun, shown: &Shown) -> String {
    let mut out = if noun.is_upright() { upright(noun, &shown.rows) } else { across(noun, &shown.rows) };
    let more = shown.total.saturating_sub(shown.rows.len());
    if more > 0 {
        let _ = writeln!(out, "... and {more} more: --limit N shows more, KEY=VALUE fewer");
    }
    out
}

fn across(noun: Noun, rows: &[Row]) -> String {
    let columns = noun.columns();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            columns.iter().map(|&(key, unit)| row.get(key).map_or("-".into(), |v| cell(v, unit))).collect()
        })
        .collect();
    let numeric = |i: usize| rows.iter().all(|row| row.get(columns[i].0).is_none_or(|v| !v.is_string()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| {
            cells.iter().map(|row| row[i].chars().count()).max().unwrap_or(0).max(heading(columns[i]).len())
        })
        .collect();
    let mut out = String::new();
    let headings: Vec<String> = columns.iter().map(|&column| heading(column)).collect();
    for line in std::iter::once(&headings).chain(&cells) {
        let padded = line.iter().enumerate().map(|(i, text)| {
            let width = widths[i];
            if numeric(i) && !rows.is_empty() { format!("{text:>width$}") } else { format!("{text:width$}") }
        });
        let _ = writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
    out
}

fn upright(noun: Noun, rows: &[Row]) -> String {
    let width = noun.columns().iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let mut out = String::new();
    for row in rows {
        for &(key, unit) in noun.columns() {
            let text = row.get(key).map_or("-".into(), |value| cell(value, unit));
            let _ = writeln!(out, "{key:width$}  {text}");
        }
    }
    out
}

/// The unit is in the cell, and so not in the heading.
fn heading((key, unit): (&str, Unit)) -> String {
    let suffix = match unit {
        Plain => "",
        Bytes => "_bytes",
        BitsPerS => "_bits_per_s",
        Milliseconds => "_ms",
        Seconds => "_s",
    };
    let short = key.strip_suffix(suffix).unwrap_or(key);
    if unit == BitsPerS { format!("{short}/s") } else { short.to_owned() }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn cell(value: &Value, unit: Unit) -> String {
    let scaled = |steps: [&str; 4], by: f64| {
        let mut n = value.as_f64()?;
        let mut step = 0;
        while n >= by && step < 3 {
            n /= by;
            step += 1;
        }
        Some(if step == 0 { format!("{n} {}", steps[0]) } else { format!("{n:.1} {}", steps[step]) })
    };
    let text = match unit {
        Plain => None,
        Bytes => scaled(["B", "KiB", "MiB", "GiB"], 1024.0),
        BitsPerS => scaled(["bit", "kbit", "Mbit", "Gbit"], 1000.0),
        Milliseconds => value.as_f64().map(|ms| format!("{ms:.2} ms")),
        Seconds => value.as_u64().map(|s| format!("{s} s")),
    };
    text.unwrap_or_else(|| plain(value))
}

#[cfg(test)]
mod tests {
    //! Goal: a table lines up, says when rows are missing, and filters by what it shows.
    use super::*;
    use serde_json::json;

    fn row(value: Value) -> Row {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn tables_line_up() {
        let rows = vec![
            row(
                json!({"tunnel": "0/1/2", "client": "alice", "kind": "tcp", "state": "open", "to": "[2001:db8::1]:443",
                "sent_bytes": 1536, "received_bytes": 3_u64 << 30, "age_s": 61}),
            ),
            row(json!({"tunnel": "1/0/0", "client": null, "kind": "udp", "state": "open", "to": "a:1",
                "sent_bytes": 0, "received_bytes": 1, "age_s": 5})),
        ];
        let text = table(Noun::Flows, &Shown { schema: Noun::Flows.schema(), rows, total: 7 });
        assert_eq!(
            text,
            "tunnel  client  kind  state  to                    sent  received   age\n\
             0/1/2   alice   tcp   open   [2001:db8::1]:443  1.5 KiB   3.0 GiB  61 s\n\
             1/0/0   -       udp   open   a:1                    0 B       1 B   5 s\n\
             ... and 5 more: --limit N shows more, KEY=VALUE fewer\n"
        );
    }

    #[test]
    fn filters_match_what_is_shown() {
        let seen = row(json!({"client": "alice", "flows": 3, "queues": [0, 1], "policy": ""}));
        let matches = |text: &str| text.parse::<Filter>().unwrap().matches(&seen);
        for hit in
            ["client=alice", "client=al*", "client=*", "flows=3", "queues=0,1", "policy=-", "missing=-"]
        {
            assert!(matches(hit), "{hit}");
        }
        for miss in ["client=bob", "client=al", "flows=30", "policy=", "client="] {
            assert!(!matches(miss), "{miss}");
        }
        assert!("client".parse::<Filter>().is_err() && "=x".parse::<Filter>().is_err());
    }

    #[test]
    fn every_noun_has_a_schema_and_columns_of_its_own() {
        for &noun in Noun::value_variants() {
            let mut keys: Vec<_> = noun.columns().iter().map(|(key, _)| key).collect();
            assert!(!keys.is_empty());
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), noun.columns().len(), "{noun:?}");
            assert_eq!(noun.schema(), format!("beam.show.{}.v1", noun.word()));
        }
    }
}
