//! The object that a run prints.

use crate::host::{Host, rounded};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::Write;

/// Name of the object's shape.
const SCHEMA: &str = "beam.bench.scale.v1";

const METHOD: &str = "One real beam serve and one client process (bench-scale) with a QUIC connection for each tunnel, from \
    source addresses of its own over a few UDP sockets; each tunnel is authenticated by a request with its user's bearer \
    token; no server name is sent, as if all had the gateway's address. rss_bytes: the gateway's VmRSS without its UMEM; \
    rss_file_bytes: what of that are pages of the program's and the libraries' files; bytes_per_tunnel: what it has grown by \
    since it was ready, by tunnels, live or asleep; setup_per_s: tunnels by the time from the first Initial to the last \
    answer; latencies: from when a request was due, open loop; cpu_percent: the gateway's user and system time, 100 is one \
    core, while tunnels are held; \
    own_cpu_percent: the same of the client process, which shares the machine's cores with it.";

/// The object.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    schema: String,
    host: Host,
    method: String,
    /// One a run.
    pub rows: Vec<Row>,
}

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// `hold`, `limit` or `asleep`.
    pub mode: String,
    /// Tunnels that were live at the end.
    pub live: u64,
    /// Tunnels that were asleep at the end.
    pub asleep: u64,
    /// The gateway's, UMEM apart.
    pub rss_bytes: u64,
    /// Its UMEM.
    pub umem_bytes: u64,
    /// What it has grown by, a tunnel.
    pub bytes_per_tunnel: f64,
    /// Tunnels a second, while they were made.
    pub setup_per_s: f64,
    /// Of the requests while they were held; of the wakes where they slept.
    pub p95_ms: Option<f64>,
    /// The gateway's, while they were held.
    pub cpu_percent: f64,
    /// What wasn't as it must be; empty is good.
    pub problems: Vec<String>,
    /// All else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Row {
    /// Adds a further key.
    pub(super) fn set(&mut self, key: &str, value: impl Serialize) -> Result<()> {
        self.more.insert(key.to_owned(), serde_json::to_value(value)?);
        Ok(())
    }

    /// Notes what must be equal, and isn't.
    pub(super) fn must_be(&mut self, what: &str, seen: u64, wanted: u64) {
        if seen != wanted {
            self.problems.push(format!("{what}: {seen}, wanted {wanted}"));
        }
    }
}

/// A share in percent of one core, or a rate, to three decimals.
pub(super) fn ratio(part: f64, of: f64) -> f64 {
    if of > 0.0 { rounded(part / of) } else { 0.0 }
}

impl Report {
    /// Of this host.
    #[must_use]
    pub fn new(rows: Vec<Row>) -> Self {
        Self { schema: SCHEMA.into(), host: Host::seen(), method: METHOD.into(), rows }
    }

    /// For a person.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn print(&self, mut out: impl Write) -> Result<()> {
        writeln!(out, "{}\n", self.host)?;
        writeln!(
            out,
            "{:<7} {:>7} {:>7} {:>10} {:>10} {:>12} {:>9} {:>9} {:>6}",
            "mode", "live", "asleep", "RSS MiB", "UMEM MiB", "B a tunnel", "setup/s", "P95 ms", "CPU %"
        )?;
        for row in &self.rows {
            let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
            let p95 = row.p95_ms.map_or("-".into(), |ms| format!("{ms:.3}"));
            writeln!(
                out,
                "{:<7} {:>7} {:>7} {:>10.1} {:>10.1} {:>12.0} {:>9.0} {:>9} {:>6.1}",
                row.mode,
                row.live,
                row.asleep,
                mib(row.rss_bytes),
                mib(row.umem_bytes),
                row.bytes_per_tunnel,
                row.setup_per_s,
                p95,
                row.cpu_percent
            )?;
            for problem in &row.problems {
                writeln!(out, "        PROBLEM: {problem}")?;
            }
        }
        Ok(())
    }

    /// Everything was as it must be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.problems.is_empty())
    }
}
