//! Goal: starved flows wake in order, as many as the tokens are worth, and none is forgotten; over any span the flows of
//! a client move its rate and one burst; entries live as long as somebody holds them.
//! Method: a virtual clock and greedy flows, counted byte for byte.

use super::*;
use std::time::Duration;

const MB: u64 = 1_000_000;

struct World {
    accounts: Accounts,
    ledger: Ledger,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self { accounts: Accounts::new(now), ledger: Ledger::default(), now: now + Duration::from_secs(100) }
    }

    fn member(&mut self, name: &str, options: &[&str]) -> Arc<Member> {
        let policy = ClientPolicy::parse(options.iter().copied()).unwrap();
        self.ledger.member(&self.accounts, &name.into(), &policy)
    }
}

fn key(index: u32) -> FlowKey {
    FlowKey { index, generation: 0 }
}

/// Greedy flows of one client for `seconds`: each moves up to 64 KiB a turn while it has a quota, else it starves. The
/// clock jumps from deadline to deadline, as a worker sleeps. The bytes of each flow.
fn run(world: &mut World, owner: Owner, flows: u32, seconds: u64) -> Vec<u64> {
    let mut moved = vec![0; flows as usize];
    let mut ready: VecDeque<FlowKey> = (0..flows).map(key).collect();
    let end = world.now + Duration::from_secs(seconds);
    let mut turns = 0;
    loop {
        turns += 1;
        assert!(turns < 1_000_000, "it spins");
        while let Some(flow) = ready.pop_front() {
            let bytes = world.ledger.quota(owner, Way::Received, world.now, 65_536) as u64;
            world.ledger.moved(owner, Way::Received, bytes);
            moved[flow.index as usize] += bytes;
            if world.ledger.quota(owner, Way::Received, world.now, 1) == 0 {
                world.ledger.starve(owner, Way::Received, world.now, flow, |_| true);
            } else {
                ready.push_back(flow);
            }
        }
        world.now = world.now.max(world.ledger.next_deadline().expect("everybody waits for something"));
        if world.now > end {
            return moved;
        }
        world.ledger.wake(world.now, |flow, way| {
            assert_eq!(way, Way::Received);
            ready.push_back(flow);
            true
        });
    }
}

#[test]
fn flows_share_their_clients_rate() {
    for flows in [1, 10, 1000] {
        let mut world = World::new();
        let alice = world.member("alice", &["max-rate=80M"]);
        let moved = run(&mut world, alice.owner, flows, 20);
        let total: u64 = moved.iter().sum();
        // 10 MB/s over 20 s, and the burst of 100 ms that was saved up; a quantum is 100 kB.
        assert!((200 * MB..=201 * MB + 100_000).contains(&total), "{flows} flows moved {total}");
        let (least, most) = (moved.iter().min().unwrap(), moved.iter().max().unwrap());
        assert!(most - least <= 4 * 65_536, "{flows} flows: from {least} to {most}");
        world.ledger.fold();
        let usage = alice.account.usage();
        assert_eq!((usage.received_bytes, usage.sent_bytes), (total, 0), "each byte is on the account");
        assert!(usage.rate_waits > 0);
    }
}

#[test]
fn a_slow_rate_is_kept_too_and_one_way_does_not_hold_the_other() {
    let mut world = World::new();
    let alice = world.member("alice", &["max-rate=64k"]);
    let moved: u64 = run(&mut world, alice.owner, 3, 100).iter().sum();
    // 8 kB/s; the burst is two packets.
    assert!((800_000 - 1500..=800_000 + 3000).contains(&moved), "{moved}");
    while world.ledger.take(alice.owner, Way::Received, 100, world.now) {}
    assert_eq!(world.ledger.quota(alice.owner, Way::Sent, world.now, 1000), 1000);
}

#[test]
fn one_client_does_not_spend_the_tokens_of_another_and_nobody_is_not_limited() {
    let mut world = World::new();
    let (alice, bob) = (world.member("alice", &["max-rate=8k"]), world.member("bob", &[]));
    while world.ledger.take(alice.owner, Way::Sent, 1000, world.now) {}
    assert_eq!(world.ledger.quota(bob.owner, Way::Sent, world.now, 9999), 9999);
    assert_eq!(world.ledger.quota(Owner::NOBODY, Way::Sent, world.now, 9999), 9999);
    assert!(world.ledger.take(Owner::NOBODY, Way::Sent, 1 << 20, world.now));
    world.ledger.moved(bob.owner, Way::Sent, 5);
    world.ledger.fold();
    assert_eq!((bob.account.usage().sent_bytes, alice.account.usage().rate_dropped), (5, 1));
}

/// Datagrams: over the rate they are dropped and counted, and one that overdraws is paid for before the next.
#[test]
fn datagrams_are_policed_exactly() {
    let mut world = World::new();
    let alice = world.member("alice", &["max-rate=8M"]);
    let (mut went, mut dropped) = (0, 0);
    let start = world.now;
    // 2 MB/s are offered for 10 s, 60,000 bytes at once: 1 MB/s may go.
    while world.now < start + Duration::from_secs(10) {
        match world.ledger.take(alice.owner, Way::Sent, 60_000, world.now) {
            true => went += 60_000,
            false => dropped += 1,
        }
        world.now += Duration::from_millis(30);
    }
    assert!((10_000_000 - 60_000..=10_000_000 + 200_000).contains(&went), "{went}");
    world.ledger.fold();
    let usage = alice.account.usage();
    assert_eq!((usage.sent_bytes, usage.rate_dropped), (went, dropped));
}

#[test]
fn flows_that_ended_while_they_waited_neither_pile_up_nor_hold_the_others() {
    let mut world = World::new();
    let alice = world.member("alice", &["max-rate=8k"]);
    while world.ledger.take(alice.owner, Way::Sent, 1, world.now) {}
    for index in 0..10_000 {
        world.ledger.starve(alice.owner, Way::Sent, world.now, key(index), |_| false);
    }
    world.ledger.starve(alice.owner, Way::Sent, world.now, key(77_777), |_| false);
    let local = world.ledger.local(alice.owner).unwrap();
    assert!(local.starved[0].len() < 100, "{}", local.starved[0].len());
    world.now = world.ledger.next_deadline().unwrap();
    let mut woken = Vec::new();
    world.ledger.wake(world.now, |flow, _| {
        woken.push(flow.index);
        flow.index == 77_777
    });
    assert_eq!(woken.last(), Some(&77_777), "the first that lives, in the first quantum");
    assert_eq!(world.ledger.next_deadline(), None);
}

#[test]
fn permits_count_for_as_long_as_they_live() {
    let mut world = World::new();
    let alice = world.member("alice", &["max-flows=2", "max-connections=1"]);
    let tunnel = Membership::take(&alice).unwrap();
    assert!(Membership::take(&alice).is_none());
    let (one, two) = (FlowPermit::take(&alice).unwrap(), FlowPermit::take(&alice).unwrap());
    assert!(FlowPermit::take(&alice).is_none());
    assert_eq!((one.owner(), &**two.client(), &**tunnel.client()), (alice.owner, "alice", "alice"));
    drop(one);
    let usage = alice.account.usage();
    assert_eq!((usage.flows, usage.flows_opened, usage.connections, usage.refused_limit), (1, 2, 1, 2));
    drop((two, tunnel));
    assert_eq!((alice.account.usage().flows, alice.account.usage().connections), (0, 0));
}

#[test]
fn clients_that_are_gone_are_forgotten_and_their_bytes_are_not() {
    let mut world = World::new();
    let stays = world.member("stays", &["max-rate=8k"]);
    while world.ledger.take(stays.owner, Way::Sent, 1, world.now) {}
    world.ledger.starve(stays.owner, Way::Sent, world.now, key(1), |_| true);
    for i in 0..10 * SWEEP_AT_MIN {
        let member = world.member(&format!("guest-{i}"), &["max-rate=8k"]);
        world.ledger.moved(member.owner, Way::Sent, 3);
        world.ledger.starve(member.owner, Way::Received, world.now, key(2), |_| true);
    }
    assert!(world.ledger.locals.len() <= SWEEP_AT_MIN + 1, "{}", world.ledger.locals.len());
    assert!(world.ledger.timers.len() <= world.ledger.locals.len() && !world.ledger.timers.is_empty());
    assert!(Arc::ptr_eq(&world.member("stays", &[]), &stays));
    world.ledger.fold();
    let guests = world.accounts.all().into_iter().filter(|account| account.name.starts_with("guest"));
    assert_eq!(guests.map(|account| account.usage().sent_bytes).sum::<u64>(), 30 * SWEEP_AT_MIN as u64);
}
