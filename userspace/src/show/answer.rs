//! The daemon's side of `beam show`: rows from the accounts, the workers and the configuration.

use super::{Filter, Noun, Question, ROWS_MAX, Row, Shown, explain};
use crate::{
    identity,
    settings::{self, Setting},
    supervisor::{RATES_OVER, Supervisor, drops, merge},
    worker::{
        account::Usage,
        mail::Command,
        snapshot::WorkerSnapshot,
        tables::{FlowKind, FlowRow, RouteRow, Slice, TunnelRow},
    },
};
use cache::{CacheReport, LevelReport};
use crossbeam::channel::Sender;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, MutexGuard, PoisonError},
    time::Instant,
};

/// Rows looked at for one answer; a table may be longer.
const SCAN_MAX: usize = 1 << 20;

/// Rows that pass the filters, as many as are wanted, and how many there were.
struct Collected {
    filters: Vec<Filter>,
    limit: usize,
    rows: Vec<Row>,
    total: usize,
}

impl Collected {
    fn add(&mut self, row: impl Serialize) {
        let Ok(Value::Object(row)) = serde_json::to_value(row) else { return };
        if self.filters.iter().all(|filter| filter.matches(&row)) {
            self.total += 1;
            if self.rows.len() < self.limit {
                self.rows.push(row);
            }
        }
    }
}

/// Counters at the last `beam clear counters`. The workers' own run on: the rest of the status adds them up.
#[derive(Debug, Default)]
pub(crate) struct Cleared {
    mishaps: BTreeMap<String, u64>,
    usage: HashMap<Arc<str>, Usage>,
}

impl Supervisor {
    fn cleared(&self) -> MutexGuard<'_, Cleared> {
        self.cleared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the tables of errors and clients count from zero.
    pub(crate) fn clear_counters(&self) -> String {
        let mishaps = self.mishaps();
        self.ask_all(Command::Fold);
        let accounts =
            self.gateway().map_or_else(|_| Vec::new(), |gateway| gateway.current().config.accounts.all());
        let usage = accounts.into_iter().map(|account| (account.name.clone(), account.usage())).collect();
        *self.cleared() = Cleared { mishaps, usage };
        "the counters of `beam show errors` and `beam show clients` begin at zero".to_owned()
    }

    pub(crate) fn show(&self, question: &Question) -> Result<Shown, String> {
        let Question { noun, filters, limit } = question.clone();
        let mut to = Collected { filters, limit: limit.min(ROWS_MAX), rows: Vec::new(), total: 0 };
        match noun {
            Noun::Clients => self.clients(&mut to)?,
            Noun::Tunnels => {
                self.slices(&mut to, |from, reply: Sender<Slice<TunnelRow>>| Command::Tunnels {
                    from,
                    reply,
                });
                self.sleepers(&mut to);
            }
            Noun::Flows => {
                for kind in FlowKind::ALL {
                    self.slices(&mut to, |from, reply: Sender<Slice<FlowRow>>| Command::Flows {
                        kind,
                        from,
                        reply,
                    });
                }
            }
            Noun::Queues => self.queues(&mut to),
            Noun::Errors => self.errors(&mut to),
            Noun::Caches => self.caches(&mut to),
            Noun::Routes => self.routes(&mut to)?,
            Noun::Cert => self.certificate(&mut to)?,
            Noun::Config => self.configuration(&mut to),
        }
        Ok(Shown { schema: noun.schema(), rows: to.rows, total: to.total })
    }

    fn gateway(&self) -> Result<&crate::reload::Reloader, String> {
        self.identity
            .gateway
            .as_deref()
            .ok_or_else(|| "this is a client; a gateway has that table".to_owned())
    }

    /// Each account, with its rates over a moment.
    fn clients(&self, to: &mut Collected) -> Result<(), String> {
        let config = self.gateway()?.current().config;
        let sample = || {
            self.ask_all(Command::Fold);
            config.accounts.all().into_iter().map(|account| (account.name.clone(), account.usage()))
        };
        let before: HashMap<_, _> = sample().collect();
        let from = Instant::now();
        std::thread::sleep(RATES_OVER);
        let after = sample();
        let seconds = from.elapsed().as_secs_f64().max(1e-3);
        let cleared = self.cleared();
        for (name, usage) in after {
            let earlier = before.get(&name).copied().unwrap_or_default();
            let rate = |field: fn(&Usage) -> u64| {
                (field(&usage).saturating_sub(field(&earlier)) as f64 * 8.0 / seconds) as u64
            };
            let usage = usage.since(cleared.usage.get(&name).unwrap_or(&Usage::default()));
            to.add(json!({
                "client": &*name,
                "connections": usage.connections,
                "flows": usage.flows,
                "flows_opened": usage.flows_opened,
                "sent_bytes": usage.sent_bytes,
                "received_bytes": usage.received_bytes,
                "sent_bits_per_s": rate(|usage| usage.sent_bytes),
                "received_bits_per_s": rate(|usage| usage.received_bytes),
                "refused_limit": usage.refused_limit,
                "rate_waits": usage.rate_waits,
                "rate_dropped": usage.rate_dropped,
                "policy": config.client_policy(&name).to_string(),
            }));
        }
        Ok(())
    }

    /// Asks one worker after the other for one slice after the other.
    fn slices<T: Serialize>(&self, to: &mut Collected, command: impl Fn(usize, Sender<Slice<T>>) -> Command) {
        for seat in &self.seats {
            let (mut from, mut scanned) = (0, 0);
            while let Some(slice) = self.ask_each([seat], |reply| command(from, reply)).pop() {
                scanned += slice.rows.len();
                slice.rows.into_iter().for_each(|row| to.add(row));
                match slice.next {
                    Some(next) if scanned < SCAN_MAX => from = next,
                    _ => break,
                }
            }
        }
    }

    /// The tunnels of a gateway that sleep. They belong to no worker.
    fn sleepers(&self, to: &mut Collected) {
        const PLACES: usize = 512;
        let Some(gateway) = self.identity.gateway.as_deref() else { return };
        let sleepers = gateway.current().config.sleepers.clone();
        let mut from = Some(0);
        while let Some(at) = from.filter(|&at| at < SCAN_MAX) {
            let (some, next) = sleepers.slice(Instant::now(), at, PLACES);
            some.iter().for_each(|sleeper| to.add(TunnelRow::asleep(sleeper, 0)));
            from = next;
        }
    }

    fn queues(&self, to: &mut Collected) {
        self.snapshots().iter().filter_map(|snapshot| self.worker_status(snapshot)).for_each(|worker| {
            let id = worker.id;
            let Ok(Value::Object(mut row)) = serde_json::to_value(worker) else { return };
            row.remove("id");
            row.insert("worker".to_owned(), id.into());
            to.add(row);
        });
    }

    /// Drops, and the counters that tell of something refused, cut or failed.
    fn mishaps(&self) -> BTreeMap<String, u64> {
        let snapshots = self.snapshots();
        let counters = merge(snapshots.iter().flat_map(|snapshot| snapshot.counters.iter().copied()));
        let told = counters.into_iter().filter(|(name, _)| explain::meaning(name).is_some());
        let evicted = self.identity.gateway.as_deref().map(|gateway| {
            let report = gateway.current().config.sleepers.report(Instant::now());
            ("sleepers_evicted".to_owned(), report.evicted)
        });
        drops(&snapshots).into_iter().chain(told).chain(evicted).collect()
    }

    fn errors(&self, to: &mut Collected) {
        let cleared = self.cleared();
        for (counter, count) in self.mishaps() {
            let count = count.saturating_sub(cleared.mishaps.get(&counter).copied().unwrap_or(0));
            if count > 0 {
                let means = explain::meaning(&counter);
                to.add(json!({ "counter": counter, "count": count, "means": means }));
            }
        }
    }

    /// The caches that workers share, with what each worker has of its own; and the ways out that AF_XDP ports know.
    pub(crate) fn cache_reports(&self, snapshots: &[WorkerSnapshot]) -> Vec<CacheReport> {
        let mut reports = (self.identity.caches)();
        for (name, level) in snapshots.iter().flat_map(|snapshot| &snapshot.caches) {
            if let Some(report) = reports.iter_mut().find(|report| report.name == *name) {
                report.local.get_or_insert_default().add(level);
            }
        }
        let ways = snapshots.iter().flat_map(|snapshot| &snapshot.ports).filter_map(|port| port.ways);
        let ways = ways.map(ways_level).reduce(|mut sum, more| {
            sum.add(&more);
            sum
        });
        if ways.is_some() {
            reports.push(CacheReport { name: "routes", local: ways, ..CacheReport::default() });
        }
        reports
    }

    /// A row for each level that a cache has.
    fn caches(&self, to: &mut Collected) {
        for CacheReport { name, local, shared, disk } in self.cache_reports(&self.snapshots()) {
            for (level, report) in [("worker", local), ("shared", shared), ("disk", disk)] {
                let Some(report) = report else { continue };
                to.add(json!({
                    "cache": name,
                    "level": level,
                    "entries": report.entries,
                    "bytes": report.bytes,
                    "hits": report.hits,
                    "negative": report.negative,
                    "misses": report.misses,
                    "inserts": report.inserts,
                    "evictions": report.evictions,
                    "expired": report.expired,
                    "lost": report.lost,
                }));
            }
        }
    }

    fn routes(&self, to: &mut Collected) -> Result<(), String> {
        let config = self.gateway()?.current().config;
        self.slices(to, |from, reply: Sender<Slice<RouteRow>>| Command::Routes { from, reply });
        let Some(users) = &config.users else { return Ok(()) };
        let mut clients: Vec<_> = users.policies().collect();
        clients.sort_by_key(|(name, _)| name.to_owned());
        for (name, policy) in clients {
            for prefix in policy.routes() {
                to.add(json!({ "prefix": prefix.to_string(), "client": &**name, "state": "permitted" }));
            }
        }
        Ok(())
    }

    fn certificate(&self, to: &mut Collected) -> Result<(), String> {
        let gateway = self.gateway()?;
        let loaded = gateway.current();
        let facts = identity::facts(&loaded.leaf).map_err(|error| format!("the certificate: {error:#}"))?;
        let from = match &loaded.args.certificate.tls_cert {
            Some(path) => path.display().to_string(),
            None => format!("self-signed, in {}", loaded.args.state_dir.display()),
        };
        to.add(json!({
            "subject": facts.subject,
            "names": facts.names,
            "issuer": facts.issuer,
            "not_before": facts.not_before,
            "not_after": facts.not_after,
            "days_left": facts.days_left,
            "fingerprint": loaded.fingerprint.to_string(),
            "from": from,
        }));
        Ok(())
    }

    fn configuration(&self, to: &mut Collected) {
        for Setting { flag, value, from, .. } in settings::all() {
            to.add(json!({ "flag": flag, "value": value, "from": from }));
        }
    }
}

/// A port's ways out as a level of a cache: what it counts is the same.
fn ways_level(ways: port::KnownWays) -> LevelReport {
    let port::KnownWays { entries, hits, misses, inserts, evictions, expired } = ways;
    LevelReport { entries, hits, misses, inserts, evictions, expired, ..LevelReport::default() }
}
