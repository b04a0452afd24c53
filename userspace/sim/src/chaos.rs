//! One seed, run with all checks.
//!
//! What is checked, beside the conservation that [`World`] checks at every step:
//! - every byte comes back once and in order, or its flow is reported as failed, and the scenario explains why;
//! - each connection ends with exactly one event, and in the end no engine has one left;
//! - each engine's datagrams in are accounted for, outcome by outcome;
//! - memory stays below a limit.

use crate::echo::{Checker, DONE, Datagrams, Echo, Flow, Outcome, Sessions};
use crate::host::{Hosts, SERVER_NAME};
use crate::net::Network;
use crate::node::Node;
use crate::scenario::{Action, LOST, Scenario};
use crate::trace::Trace;
use crate::world::World;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tunnel::{ConnId, DropReason, Engine, Stats, VarInt};

/// Where the gateway is.
pub const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), 443);
/// What an engine may hold beside its connections. The sum: 64 KB, the slab that datagrams are copied into; 240 KB, 16
/// kept buffers of ten datagrams; 95 KB, a refused batch of 64; 50 KB, what waits for a few unvalidated addresses (8
/// datagrams each) and for the handshake budget; 600 KB, the table of a turn's arrivals, up to 64 frames from the ring
/// and 64 handed over, ten datagrams each where the kernel coalesces; 50 KB, the wheel, the mirror of keys and the rest.
const ENGINE_BYTES_MAX: usize = 1100 << 10;
/// Flows that neither complete nor fail by then hang. A dead peer is noticed within 60 s of the last word.
const FLOWS_TIME_MAX: Duration = Duration::from_secs(600);
/// Idle timeouts and closing periods are over by then.
const WIND_DOWN_TIME: Duration = Duration::from_secs(300);
/// The code that a worker closes with, amid transfers.
const WORKER_CLOSES: VarInt = VarInt::from_u32(7);

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What happened on the wire.
    pub trace: Trace,
    /// Flows whose every byte came back.
    pub complete: u64,
    /// Flows that were reported as failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Bytes that came back, all right.
    pub bytes: u64,
    /// Connections whose 0-RTT data was accepted.
    pub early_accepted: u64,
    /// Connections whose 0-RTT data was rejected and sent again.
    pub early_rejected: u64,
    /// QUIC datagrams sent, and those that came back.
    pub datagrams: (u64, u64),
    /// All counters of all engines.
    pub stats: Stats,
    /// The largest burst that an engine got.
    pub burst_peak: usize,
    /// The most that an engine held beside its connections, in bytes.
    pub memory_peak_bytes: usize,
    /// The most datagrams that overtook one.
    pub overtaken_max: u64,
    /// The virtual time until the flows were done.
    pub took: Duration,
}

/// Says what a failing seed stood for.
struct Tell<'a>(&'a Scenario);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} failed; repeat it with: scripts/chaos --seed {}", self.0.seed, self.0.seed);
            eprintln!("{:?}", self.0);
        }
    }
}

/// Runs a seed's scenario.
///
/// # Panics
/// If a check fails; the seed and its scenario are printed.
pub fn run(seed: u64) -> Report {
    run_scenario(&Scenario::draw(seed))
}

/// As [`run`], for a scenario that may have been changed.
///
/// # Panics
/// As [`run`].
pub fn run_scenario(scenario: &Scenario) -> Report {
    let _tell = Tell(scenario);
    let mut chaos = Chaos::new(scenario);
    for (at, action) in &scenario.actions {
        chaos.world.run_until(*at, |_| false);
        chaos.act(action);
    }
    let limit = chaos.world.now() + FLOWS_TIME_MAX;
    let done = chaos.world.run_until(limit, |world| world.clients.iter().all(|node| node.app.is_done()));
    assert!(done, "flows neither complete nor failed: {:?}", chaos.open_flows());
    let took = chaos.world.now();
    chaos.wind_down();
    chaos.report(took)
}

struct Chaos<'a> {
    scenario: &'a Scenario,
    hosts: Hosts,
    world: World<Sessions, Echo>,
    /// Each client's own: it keeps the tickets.
    configs: Vec<quinn_proto::ClientConfig>,
    /// What clients left behind that were lost.
    lost: Vec<Sessions>,
    sessions_count: u64,
    migrations_count: u8,
}

impl<'a> Chaos<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let seed = scenario.seed;
        let hosts = Hosts::new(seed, scenario.hosts.clone()).unwrap_or_else(|e| panic!("no hosts: {e}"));
        let net = Network::new(seed, GATEWAY, [scenario.up, scenario.down]);
        let world = World::new(seed, net, GATEWAY);
        let (configs, lost) = (Vec::new(), Vec::new());
        let mut chaos =
            Self { scenario, hosts, world, configs, lost, sessions_count: 0, migrations_count: 0 };
        for worker in 0..scenario.workers {
            let engine = chaos.hosts.worker(worker);
            chaos.world.add_worker(engine, Echo::default(), scenario.rings[0], scenario.pace[0]);
        }
        for (client, plan) in scenario.clients.iter().enumerate() {
            let config = chaos.hosts.client_config().unwrap_or_else(|e| panic!("no client: {e}"));
            chaos.configs.push(config);
            let engine = chaos.hosts.client();
            chaos.world.add_client(engine, Sessions::default(), scenario.rings[1], scenario.pace[1]);
            chaos.connect(client, &plan.flows);
        }
        chaos
    }

    /// One more connection of a client.
    fn connect(&mut self, client: usize, flows: &[u64]) {
        let (now, plan) = (self.world.instant(), &self.scenario.clients[client]);
        let node = &mut self.world.clients[client];
        let config = self.configs[client].clone();
        let id = node
            .engine
            .connect(now, config, GATEWAY, node.address, SERVER_NAME)
            .unwrap_or_else(|e| panic!("cannot connect: {e}"));
        self.sessions_count += 1;
        let key = self.scenario.seed << 24 | self.sessions_count << 8;
        let flows =
            flows.iter().enumerate().map(|(flow, &size)| Flow::new(key | flow as u64, size)).collect();
        let mut checker = Checker::new(&mut node.engine, id, flows, plan.chunk_bytes);
        checker.datagrams = Datagrams::new(key, 1000, plan.datagrams);
        node.app.list.push(checker);
        node.due = true;
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Rebind { client } => self.world.rebind(client),
            Action::RebindQueue { client } => self.world.rebind_to_another_queue(client),
            Action::Migrate { client } => self.migrate(client),
            Action::Blackout { up, down, time } => {
                let until = self.world.now() + time;
                let net = &mut self.world.net;
                for (link, dead) in [(&mut net.up, up), (&mut net.down, down)] {
                    if dead {
                        link.dead_until = link.dead_until.max(until);
                    }
                }
            }
            Action::Mtu { bytes } => {
                self.world.net.up.impairments.mtu_bytes = bytes;
                self.world.net.down.impairments.mtu_bytes = bytes;
            }
            Action::StallWorker { worker, time } => self.world.stall_worker(worker, time),
            Action::StallClient { client, time } => self.world.stall_client(client, time),
            Action::PauseEcho { worker, .. } => self.world.workers[worker].app.stalled = true,
            Action::ResumeEcho { worker } => self.world.workers[worker].app.stalled = false,
            Action::LoseWorker { worker } => {
                let engine = self.hosts.worker(worker as u8);
                self.world.replace_worker(worker, engine, Echo::default());
            }
            Action::LoseClient { client } => {
                let engine = self.hosts.client();
                let sessions = std::mem::take(&mut self.world.clients[client].app);
                self.world.replace_client(client, engine, Sessions::default());
                self.lost.push(sessions);
            }
            Action::CloseClient { client } => {
                let engine = &mut self.world.clients[client].engine;
                each_connection(engine, |engine, id| {
                    engine.connection(id).into_iter().for_each(|mut conn| conn.close(DONE, b""));
                });
            }
            Action::CloseWorker { worker } => {
                let engine = &mut self.world.workers[worker].engine;
                each_connection(engine, |engine, id| {
                    engine
                        .connection(id)
                        .into_iter()
                        .for_each(|mut conn| conn.close(WORKER_CLOSES, b"chaos"));
                });
            }
            Action::UpdateKeys { gateway: true } => {
                self.world.workers.iter_mut().for_each(|node| update_keys(&mut node.engine));
            }
            Action::UpdateKeys { gateway: false } => {
                self.world.clients.iter_mut().for_each(|node| update_keys(&mut node.engine));
            }
            Action::Connect { client, ref flows } => self.connect(client, flows),
        }
        self.world.wake();
    }

    /// A client that moves to another network: new addresses inside and outside, and it says so.
    fn migrate(&mut self, client: usize) {
        self.migrations_count += 1;
        let node = &mut self.world.clients[client];
        node.address = SocketAddr::from(([198, 18, 101, self.migrations_count], 5000));
        let address = node.address;
        each_connection(&mut node.engine, |engine, id| {
            engine.connection(id).into_iter().for_each(|mut conn| conn.set_local_address(address));
        });
    }

    fn open_flows(&self) -> Vec<&Flow> {
        let sessions = self.world.clients.iter().flat_map(|node| &node.app.list);
        sessions.flat_map(|checker| &checker.flows).filter(|flow| flow.outcome == Outcome::Open).collect()
    }

    /// Closes everything, and sees that nothing is left behind.
    fn wind_down(&mut self) {
        let (now, limit) = (self.world.instant(), self.world.now() + WIND_DOWN_TIME);
        self.world.clients.iter_mut().for_each(|node| node.engine.close_all(now, DONE, b""));
        self.world.wake();
        self.world.run_until(limit, |_| false);
        self.world.audit();
        let peak = self.world.workers.iter().map(|node| node.app.peak_bytes).max();
        assert!(peak <= Some(32 << 10), "an echo held more than its buffer");
        for node in &self.world.clients {
            check_quiet(node);
            // A client's handshakes begin without a datagram.
            let stats = node.engine.stats();
            assert_eq!(
                outcomes_of_received(&stats) - stats.handshakes_started,
                stats.datagrams_in,
                "{stats:?}"
            );
        }
        for node in &self.world.workers {
            check_quiet(node);
            let stats = node.engine.stats();
            assert_eq!(outcomes_of_received(&stats), stats.datagrams_in, "{stats:?}");
        }
    }

    fn report(self, took: Duration) -> Report {
        let world = &self.world;
        let mut report = Report {
            trace: world.net.trace,
            stats: world.retired,
            overtaken_max: world.net.up.overtaken_max.max(world.net.down.overtaken_max),
            took,
            ..Report::default()
        };
        world.clients.iter().for_each(|node| report.add_node(node));
        world.workers.iter().for_each(|node| report.add_node(node));
        let mut sessions: Vec<Checker> = Vec::new();
        for lost in self.lost {
            sessions.extend(lost.list.into_iter().map(|mut checker| {
                checker.fail(LOST);
                checker
            }));
        }
        sessions.extend(self.world.clients.into_iter().flat_map(|node| node.app.list));
        for checker in sessions {
            report.add_session(self.scenario, &checker);
        }
        report
    }
}

impl Report {
    fn add_node<A>(&mut self, node: &Node<A>) {
        self.stats.add(&node.engine.stats());
        self.burst_peak = self.burst_peak.max(node.burst_peak);
        self.memory_peak_bytes = self.memory_peak_bytes.max(node.memory_peak_bytes);
    }

    fn add_session(&mut self, scenario: &Scenario, checker: &Checker) {
        self.early_accepted += u64::from(checker.early_accepted);
        self.early_rejected += u64::from(checker.early_rejected);
        let (sent, came_back) = checker.datagrams.totals();
        self.datagrams = (self.datagrams.0 + sent, self.datagrams.1 + came_back);
        for flow in &checker.flows {
            self.bytes += flow.received_bytes;
            match &flow.outcome {
                Outcome::Complete => self.complete += 1,
                Outcome::Failed(why) => {
                    assert!(scenario.excuses(why), "a flow failed, and nothing here explains it: {why}");
                    *self.failed.entry(why.clone()).or_default() += 1;
                }
                Outcome::Open => unreachable!("the run went on until none was open"),
            }
        }
    }

    /// The report without what depends on ciphertext or on how packets are protected.
    ///
    /// Of a damaged Initial the ciphertext decides whether it is dropped for its reserved bits at once, or for its tag when its turn comes.
    #[must_use]
    pub fn as_seen(&self) -> Self {
        let mut seen = self.clone();
        let stats = &mut seen.stats;
        stats.initials_queued = 0;
        stats.packets_sealed_in_batches = 0;
        stats.packets_opened_in_batches = 0;
        stats.protection_batches = 0;
        stats.packets_restored = 0;
        stats.canary_checked = 0;
        let invalid = std::mem::take(&mut stats.drops[DropReason::InitialInvalid as usize]);
        stats.drops[DropReason::InitialUnauthenticated as usize] += invalid;
        seen.memory_peak_bytes = 0;
        seen
    }

    /// Adds another run's numbers; the trace and the time are not added.
    pub fn add(&mut self, other: &Report) {
        self.complete += other.complete;
        other.failed.iter().for_each(|(why, n)| *self.failed.entry(why.clone()).or_default() += n);
        self.bytes += other.bytes;
        self.early_accepted += other.early_accepted;
        self.early_rejected += other.early_rejected;
        self.datagrams = (self.datagrams.0 + other.datagrams.0, self.datagrams.1 + other.datagrams.1);
        self.stats.add(&other.stats);
        self.burst_peak = self.burst_peak.max(other.burst_peak);
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
        self.overtaken_max = self.overtaken_max.max(other.overtaken_max);
        self.took = self.took.max(other.took);
    }
}

fn each_connection(engine: &mut Engine, mut each: impl FnMut(&mut Engine, ConnId)) {
    let ids: Vec<ConnId> = engine.connection_ids().collect();
    ids.into_iter().for_each(|id| each(engine, id));
}

fn update_keys(engine: &mut Engine) {
    each_connection(engine, |engine, id| {
        engine.connection(id).into_iter().for_each(|mut conn| conn.force_key_update());
    });
}

/// Nothing is left of a host's connections, and what it counted adds up.
fn check_quiet<A>(node: &Node<A>) {
    assert_eq!(node.engine.connections(), 0, "connections that never end");
    let missing: Vec<&ConnId> = node.ends.missing().collect();
    assert!(missing.is_empty(), "connections whose end was not reported: {missing:?}");
    assert!(node.memory_peak_bytes <= ENGINE_BYTES_MAX, "an engine held {:?}", node.memory_peak);
    let stats = node.engine.stats();
    assert_eq!((stats.connections, stats.canary_failed), (0, 0));
    assert_eq!(stats.dropped(DropReason::NotSealed), 0, "quinn called the keys in another order");
    assert_eq!(stats.handshakes_started, stats.handshakes_completed + stats.handshakes_failed);
    assert_eq!(stats.handshakes_completed, stats.connections_closed);
}

/// Datagrams that a gateway's engine received, by what became of them. With none waiting in its queue they are all.
///
/// `initials_queued` is not among them: of those, some began a handshake and the others were answered or dropped when
/// their turn came, and are counted as such.
fn outcomes_of_received(stats: &Stats) -> u64 {
    let to_send = [DropReason::AmplificationLimit, DropReason::AmplificationExpired, DropReason::NotSealed];
    let drops: u64 =
        DropReason::ALL.iter().filter(|reason| !to_send.contains(reason)).map(|&r| stats.dropped(r)).sum();
    stats.datagrams_routed
        + stats.handshakes_started
        + stats.initials_buffered
        + stats.refused
        + stats.retries_sent
        + stats.version_negotiations_sent
        + stats.stateless_resets_sent
        + stats.stateless_closes_sent
        + drops
}
