//! Goal: counters go on over sleep; only the same client wakes a tunnel; bounds, eviction and lifetime are exact; nothing is
//! lost or kept. Method: made-up instants; a seeded walk against an oracle of plain lists.

use super::*;
use crate::worker::account::Accounts;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;

struct World {
    now: Instant,
    accounts: Accounts,
    sleepers: Sleepers,
}

impl World {
    fn new(max: usize) -> Self {
        let now = Instant::now();
        Self { now, accounts: Accounts::new(now), sleepers: Sleepers::new(now, max) }
    }

    fn account(&self, name: &str) -> Arc<Account> {
        self.accounts.of(&name.into())
    }

    fn begin(&self, name: &str, id: u64) -> Awake {
        self.sleepers.begin(self.now, &self.account(name), TunnelId::new(id).unwrap())
    }

    fn sleep(&self, name: &str, id: u64) {
        let awake = self.begin(name, id);
        self.sleepers.lapse(self.now, &awake, Moved { tx_bytes: 10, rx_bytes: 20, flows_opened: 1 });
    }

    fn asleep(&self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let (some, next) = self.sleepers.slice(self.now, at, 3);
            all.extend(some.into_iter().map(|sleeper| (sleeper.client.to_string(), sleeper.id)));
            from = next;
        }
        all.sort();
        all
    }

    fn report(&self) -> Report {
        self.sleepers.report(self.now)
    }
}

fn named(all: &[(&str, u64)]) -> Vec<(String, u64)> {
    all.iter().map(|&(name, id)| (name.to_owned(), id)).collect()
}

#[test]
fn counters_go_on_and_only_the_same_client_wakes() {
    let mut world = World::new(10);
    world.sleep("alice", 7);
    assert_eq!(world.asleep(), named(&[("alice", 7)]));
    world.now += Duration::from_secs(90);
    let (all, _) = world.sleepers.slice(world.now, 0, 10);
    assert_eq!((all[0].asleep_s, all[0].moved.rx_bytes), (90, 20));
    let other = world.begin("bob", 7);
    assert_eq!((other.woke, other.before), (false, Moved::default()));
    let awake = world.begin("alice", 7);
    assert_eq!((awake.woke, awake.before), (true, Moved { tx_bytes: 10, rx_bytes: 20, flows_opened: 1 }));
    assert!(world.asleep().is_empty());
    world.sleepers.lapse(world.now, &awake, Moved { tx_bytes: 1, rx_bytes: 2, flows_opened: 3 });
    let awake = world.begin("alice", 7);
    assert_eq!(awake.before, Moved { tx_bytes: 11, rx_bytes: 22, flows_opened: 4 });
    world.sleepers.end(&awake);
    assert!(!world.begin("alice", 7).woke, "it has ended");
    assert_eq!(world.report(), Report { asleep: 0, lapses: 2, wakes: 2, evicted: 0, expired: 0 });
}

// A client that wakes before its gateway has noticed that it fell asleep: the late end of the old connection puts no live
// tunnel to sleep, and what it moved isn't lost.
#[test]
fn a_newer_connection_stays_awake() {
    let world = World::new(10);
    let (old, new) = (world.begin("alice", 7), world.begin("alice", 7));
    world.sleepers.lapse(world.now, &old, Moved { tx_bytes: 5, rx_bytes: 0, flows_opened: 0 });
    assert!(world.asleep().is_empty());
    world.sleepers.end(&old);
    world.sleepers.lapse(world.now, &new, Moved { tx_bytes: 1, rx_bytes: 0, flows_opened: 0 });
    assert_eq!(world.asleep(), named(&[("alice", 7)]));
    assert_eq!(world.begin("alice", 7).before.tx_bytes, 6);
}

#[test]
fn room_is_taken_from_ones_own_or_from_who_has_more() {
    let world = World::new(4);
    for id in 1..=4 {
        world.sleep("hog", id);
    }
    world.sleep("hog", 5);
    assert_eq!(world.asleep(), named(&[("hog", 2), ("hog", 3), ("hog", 4), ("hog", 5)]));
    world.sleep("alice", 1);
    world.sleep("bob", 1);
    assert_eq!(world.asleep(), named(&[("alice", 1), ("bob", 1), ("hog", 4), ("hog", 5)]));
    // No one has two more than bob would: his own makes room.
    world.sleep("bob", 2);
    assert_eq!(world.asleep(), named(&[("alice", 1), ("bob", 2), ("hog", 4), ("hog", 5)]));
    assert_eq!(world.report().evicted, 4);
    world.sleepers.set_max(0);
    world.sleep("eve", 1);
    assert!(!world.asleep().contains(&("eve".to_owned(), 1)));
}

#[test]
fn lifetime_and_forgetting() {
    let mut world = World::new(10);
    world.sleep("alice", 1);
    world.sleep("bob", 1);
    world.now += LIFETIME - Duration::from_secs(1);
    world.sleep("bob", 2);
    assert!(world.begin("alice", 1).woke);
    world.now += Duration::from_secs(1);
    assert_eq!(world.asleep(), named(&[("bob", 2)]));
    assert_eq!((world.report().asleep, world.report().expired), (1, 1));
    world.sleep("bob", 3);
    assert_eq!(world.sleepers.forget(&world.account("bob")), 2);
    assert_eq!(world.sleepers.forget(&world.account("bob")), 0);
    assert_eq!(world.report().asleep, 0);
}

#[test]
fn an_account_is_held_as_long_as_it_has_tunnels() {
    let world = World::new(10);
    let held = || world.sleepers.lock().owners.len();
    for _ in 0..2 {
        assert_eq!(held(), 0);
        world.sleep("alice", 1);
        world.sleep("bob", 1);
        let awake = world.begin("bob", 2);
        assert_eq!((held(), world.sleepers.forget(&world.account("bob"))), (2, 1));
        assert_eq!(held(), 2, "one of bob's is awake");
        world.sleepers.end(&awake);
        assert_eq!((held(), world.sleepers.forget(&world.account("alice"))), (1, 1));
    }
}

#[test]
fn bytes_are_exact_up_to_281_terabytes() {
    const MOST: u64 = (1 << 48) - 1;
    for bytes in [0, 1, 0xffff, 0x1_0000, 0x1234_5678_9abc, MOST] {
        assert_eq!(Bytes::new(bytes).get(), bytes);
    }
    assert_eq!((Bytes::new(MOST + 1).get(), Bytes::new(u64::MAX).get()), (MOST, MOST));
}

#[test]
fn a_seeded_walk_agrees_with_plain_lists() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let max = rng.random_range(1..12);
        let mut world = World::new(max);
        let names = ["a", "b", "c", "d"];
        // Asleep, oldest first: name, id, what it has moved.
        let mut oracle: Vec<(&str, u64, u64)> = Vec::new();
        let mut awake: BTreeMap<(&str, u64), (Awake, u64)> = BTreeMap::new();
        for step in 0..2_000 {
            world.now += Duration::from_secs(1);
            let (name, id) = (names[rng.random_range(0..names.len())], rng.random_range(1..8));
            match rng.random_range(0..4) {
                0 | 1 => {
                    let slept = oracle.iter().position(|&(of, other, _)| (of, other) == (name, id));
                    let before = slept.map_or_else(
                        || awake.get(&(name, id)).map_or(0, |(_, before)| *before),
                        |at| oracle.remove(at).2,
                    );
                    let begun = world.begin(name, id);
                    assert_eq!((begun.woke, begun.before.tx_bytes), (slept.is_some(), before), "step {step}");
                    awake.insert((name, id), (begun, before));
                }
                2 => {
                    let Some((of, before)) = awake.remove(&(name, id)) else { continue };
                    world.sleepers.lapse(
                        world.now,
                        &of,
                        Moved { tx_bytes: step, rx_bytes: 0, flows_opened: 0 },
                    );
                    let counts = names.map(|who| oracle.iter().filter(|(of, ..)| *of == who).count());
                    let count = |who: &str| counts[names.iter().position(|name| *name == who).unwrap()];
                    if oracle.len() == max {
                        // Which of several that have more gives way isn't said: read it off.
                        let left = world.asleep();
                        let is_gone = |&(of, id, _): &(&str, u64, u64)| !left.contains(&(of.to_owned(), id));
                        let gone = oracle.iter().position(is_gone).expect("one made room");
                        let (who, ..) = oracle[gone];
                        assert!(oracle[..gone].iter().all(|&(of, ..)| of != who), "its owner's oldest");
                        oracle.remove(gone);
                        assert!(
                            who == name || count(who) > count(name) + 1 || count(name) == 0,
                            "step {step}: {who} for {name}"
                        );
                        assert!(oracle.iter().all(|row| !is_gone(row)), "one alone made room");
                    }
                    oracle.push((name, id, before + step));
                }
                _ => {
                    if let Some((of, _)) = awake.remove(&(name, id)) {
                        world.sleepers.end(&of);
                    }
                }
            }
            let mut expected: Vec<_> = oracle.iter().map(|&(of, id, _)| (of.to_owned(), id)).collect();
            expected.sort();
            assert_eq!(world.asleep(), expected, "step {step}");
            assert_eq!(world.report().asleep as usize, oracle.len());
        }
    }
}
