//! How a scenario is drawn: which dimensions are on, and how far.

use super::{Action, ClientPlan, Scenario};
use crate::host::HostOptions;
use crate::impairments::{Attack, Impairments, Loss};
use crate::nic::Rings;
use crate::node::Pace;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustls::CipherSuite;
use std::time::Duration;
use tunnel::transport::{Congestion, TransportOptions};
use tunnel::{Level, Protection, RetryPolicy};

/// Kinds of actions, as `draw_action` numbers them.
const KINDS: u64 = 13;
const CONNECT: u64 = 12;

impl Scenario {
    /// The scenario of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice(StdRng::seed_from_u64(seed ^ 0x7363_656e_6172_696f));
        let delay = match dice.chance(50) {
            true => dice.micros(50, 2_000),
            false => dice.micros(2_000, 80_000),
        };
        let workers = dice.pick(&[1, 2, 3, 4]);
        let bulk = dice.chance(4);
        let [up, down] = draw_path(&mut dice, delay, bulk);
        let clients =
            (0..1 + dice.below(3)).map(|client| draw_client(&mut dice, bulk && client == 0)).collect();
        let mut scenario = Self {
            seed,
            workers,
            clients,
            hosts: draw_hosts(&mut dice),
            up,
            down,
            rings: [draw_rings(&mut dice), draw_rings(&mut dice)],
            pace: [draw_pace(&mut dice), draw_pace(&mut dice)],
            actions: Vec::new(),
        };
        scenario.draw_actions(&mut dice, delay);
        scenario
    }

    /// Calm or stormy: what happens within some forty round trips.
    fn draw_actions(&mut self, dice: &mut Dice, delay: Duration) {
        let span = delay * 80 + Duration::from_millis(20);
        let mut kinds: Vec<u64> = (0..KINDS).filter(|_| dice.chance(18)).collect();
        if self.hosts.early_data && dice.chance(50) {
            kinds.push(CONNECT);
        }
        if kinds.is_empty() {
            return;
        }
        for _ in 0..1 + dice.below(8) {
            let kind = kinds[dice.below(kinds.len() as u64) as usize];
            // More of them early: most runs are short.
            let at = span.mul_f64(f64::from(dice.below(1000) as u32) / 1000.0) / dice.pick(&[1, 2, 8]);
            let action = self.draw_action(dice, kind, delay);
            if let Action::PauseEcho { worker, time } = action {
                self.actions.push((at + time, Action::ResumeEcho { worker }));
            }
            self.actions.push((at, action));
        }
        self.actions.sort_by_key(|&(at, _)| at);
    }

    fn draw_action(&self, dice: &mut Dice, kind: u64, delay: Duration) -> Action {
        let client = dice.below(self.clients.len() as u64) as usize;
        let worker = dice.below(self.workers.into()) as usize;
        let time = match dice.chance(75) {
            true => dice.micros(100, 60_000) + delay,
            false => dice.micros(100_000, 4_000_000),
        };
        match kind {
            0 => Action::Rebind { client },
            1 => Action::RebindQueue { client },
            2 => Action::Migrate { client },
            3 => {
                let [up, down] = dice.pick(&[[true, false], [false, true], [true, true]]);
                Action::Blackout { up, down, time }
            }
            4 => Action::Mtu { bytes: 1200 + dice.below(300) as usize },
            5 => Action::StallWorker { worker, time },
            6 => Action::StallClient { client, time },
            7 => Action::PauseEcho { worker, time },
            8 => Action::LoseWorker { worker },
            9 => Action::LoseClient { client },
            10 if dice.chance(50) => Action::CloseClient { client },
            10 => Action::CloseWorker { worker },
            11 => Action::UpdateKeys { gateway: dice.chance(50) },
            // Not empty: quinn-proto 0.11.19 forgets the end of an empty stream when a Retry follows 0-RTT
            // (`retransmit_all_for_0rtt` skips a stream without unacknowledged data), and the flow hangs.
            _ => Action::Connect {
                client,
                flows: (0..1 + dice.below(3)).map(|_| 1 + draw_size(dice)).collect(),
            },
        }
    }
}

/// Draws with chances and from lists.
struct Dice(StdRng);

impl Dice {
    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.0.random_range(0..from.len())]
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end.max(1))
    }

    /// Up to `most` in most cases, 0 in the others.
    fn permille(&mut self, percent: u32, most: u32) -> u32 {
        if self.chance(percent) { 1 + self.below(most.into()) as u32 } else { 0 }
    }

    fn micros(&mut self, from: u64, end: u64) -> Duration {
        Duration::from_micros(from + self.below(end - from))
    }
}

fn draw_path(dice: &mut Dice, delay: Duration, bulk: bool) -> [Impairments; 2] {
    // One in six is clean; the others have a subset of troubles, half of them the same both ways.
    if dice.chance(16) {
        return [Impairments::none(delay); 2];
    }
    let up = draw_link(dice, delay, bulk);
    let down = if dice.chance(50) { up } else { draw_link(dice, delay, bulk) };
    [up, down]
}

fn draw_link(dice: &mut Dice, delay: Duration, bulk: bool) -> Impairments {
    let loss = match dice.below(5) {
        0 | 1 => Loss::None,
        2 => Loss::Uniform { lost_permille: 1 + dice.below(20) as u32 },
        3 => Loss::Uniform { lost_permille: 1 + dice.below(100) as u32 },
        _ => Loss::Burst {
            enter_permille: 1 + dice.below(30) as u32,
            leave_permille: 50 + dice.below(500) as u32,
            lost_permille: dice.pick(&[300, 700, 1000]),
        },
    };
    let attack = match dice.chance(20) {
        false => Attack::default(),
        true => Attack {
            replay_permille: dice.permille(50, 100),
            spoof_permille: dice.permille(50, 60),
            forge_permille: dice.permille(50, 100),
        },
    };
    let bottleneck_bytes_per_ms = if dice.chance(15) { dice.pick(&[250, 1000, 5000]) } else { 0 };
    Impairments {
        loss: if bulk { Loss::None } else { loss },
        duplicate_permille: dice.permille(30, 60),
        corrupt_permille: dice.permille(25, 30),
        truncate_permille: dice.permille(15, 20),
        tail_permille: dice.permille(15, 20),
        glue_permille: dice.permille(15, 300),
        reorder_permille: dice.permille(30, 150),
        reorder_by: dice.micros(0, 30_000),
        hold_permille: if bulk { 5 } else { dice.permille(15, 20) },
        hold_datagrams: dice.pick(&[10, 100, 1000, 4000]),
        delay,
        jitter: if dice.chance(30) { delay.mul_f64(0.1) * dice.pick(&[1, 5, 10]) } else { Duration::ZERO },
        mtu_bytes: if dice.chance(25) { 1200 + dice.below(300) as usize } else { 1472 },
        bottleneck_bytes_per_ms,
        queue_bytes: dice.pick(&[3_000, 30_000, 300_000]),
        ecn: dice.chance(50),
        mark_permille: dice.permille(20, 50),
        attack,
    }
}

fn draw_size(dice: &mut Dice) -> u64 {
    let end = dice.pick(&[2, 200, 5_000, 40_000]);
    dice.below(end)
}

fn draw_client(dice: &mut Dice, bulk: bool) -> ClientPlan {
    let mut flows: Vec<u64> = (0..1 + dice.below(6)).map(|_| draw_size(dice)).collect();
    if bulk {
        flows.push((2 << 20) + dice.below(2 << 20));
    }
    let datagrams = if dice.chance(30) { dice.below(40) } else { 0 };
    ClientPlan { flows, chunk_bytes: dice.pick(&[100, 1400, 16 << 10]), datagrams }
}

fn draw_hosts(dice: &mut Dice) -> HostOptions {
    let mut options = HostOptions {
        suite: dice.pick(&[
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ]),
        early_data: dice.chance(50),
        retry: dice.pick(&[
            RetryPolicy::default(),
            RetryPolicy::default(),
            RetryPolicy::Auto { on_above: 1, off_below: 1 },
            RetryPolicy::Always,
            RetryPolicy::Off,
        ]),
        connections_max: if dice.chance(5) { 2 } else { 1000 },
        protection: [draw_protection(dice), draw_protection(dice)],
        ..HostOptions::default()
    };
    for transport in [&mut options.gateway, &mut options.client] {
        tune(dice, transport);
    }
    options
}

/// Batched in two of three; at which level depends on the CPU, and shows nowhere on the wire.
fn draw_protection(dice: &mut Dice) -> Protection {
    match dice.below(3) {
        0 => Protection::Eager,
        // The dice fall alike on every CPU.
        _ => Protection::Batched(Level::available()[dice.below(12) as usize % Level::available().len()]),
    }
}

fn tune(dice: &mut Dice, transport: &mut TransportOptions) {
    transport.congestion =
        dice.pick(&[Congestion::Cubic, Congestion::Cubic, Congestion::NewReno, Congestion::Bbr]);
    transport.ack_each_packets = dice.pick(&[Some(10), Some(10), Some(2), None]);
    transport.mtu_max_bytes = dice.pick(&[1452, 1452, 1200, 1300]);
    if dice.chance(20) {
        transport.stream_window_bytes = 2_000;
        transport.connection_window_bytes = 8_000;
        transport.send_window_bytes = 4_000;
    }
}

fn draw_rings(dice: &mut Dice) -> Rings {
    let mut rings = Rings { rx: 512, tx: 512, handover: 1024, frames: 2048, ..Rings::default() };
    if dice.chance(30) {
        rings.rx = dice.pick(&[4, 16, 64]);
    }
    if dice.chance(30) {
        rings.tx = dice.pick(&[1, 4, 16]);
    }
    if dice.chance(30) {
        rings.handover = dice.pick(&[1, 4, 64]);
    }
    if dice.chance(30) {
        // As few as keep the TX ring whole, and a few to receive into.
        rings.frames = rings.tx + rings.rx.min(4 + dice.below(60) as usize);
    }
    if dice.chance(35) {
        rings.coalesce = dice.pick(&[2, 10]);
    }
    if dice.chance(25) {
        rings.send_time = dice.micros(1, 200);
    }
    rings
}

fn draw_pace(dice: &mut Dice) -> Pace {
    Pace {
        turn_time: if dice.chance(60) { dice.micros(5, 2_000) } else { Duration::ZERO },
        refuse_permille: dice.permille(20, 300),
        copies: dice.chance(20),
    }
}
