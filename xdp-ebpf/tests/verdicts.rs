//! Goal: the program that the kernel runs decides exactly as the library does, and counts exactly.
//! Method: load the object, run it over crafted and mutated frames with BPF_PROG_TEST_RUN (no interface is touched),
//! and hold action and counters against the library, which `host.rs` holds against the RFCs. Needs root.
//!
//! The kernel takes 14 bytes or more in a test run; shorter frames are `host.rs`'s alone.
//! BEAM_SEED=N repeats a run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod craft;
mod kernel;

use aya::maps::{HashMap, MapData};
use craft::{Random, mutate::mutate, ours, seed, table, targets};
use kernel::{FRAME_BYTES_MIN, Loaded, XDP_DROP, XDP_PASS, XDP_REDIRECT, shape, skipped};
use steer::{Counter, TargetKey, Verdict, maps, verdict};

/// The loaded program with both targets set, and a socket on queue 0 or none.
struct Rig {
    loaded: Loaded,
}

fn load() -> Loaded {
    Loaded::new(steer::PROGRAM, maps::COUNTERS, Counter::COUNT)
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self { loaded: load() };
        for target in targets() {
            rig.set_target(&target, true);
        }
        rig
    }

    fn with_socket() -> Self {
        let mut rig = Self::new();
        rig.loaded.put_socket();
        rig
    }

    fn set_target(&mut self, target: &std::net::SocketAddr, present: bool) {
        let map = self.loaded.ebpf.map_mut(maps::TARGETS).unwrap();
        let mut map: HashMap<&mut MapData, [u8; maps::TARGET_KEY_BYTES], u32> =
            HashMap::try_from(map).unwrap();
        let key = TargetKey::from_socket_addr(target).to_bytes();
        if present { map.insert(key, 0, 0).unwrap() } else { map.remove(&key).unwrap() }
    }

    fn run(&self, frame: &[u8]) -> u32 {
        self.loaded.run(frame)
    }

    fn count(&self, counter: Counter) -> u64 {
        self.loaded.count(counter.index())
    }

    fn counts(&self) -> Vec<u64> {
        self.loaded.counts()
    }

    /// What the kernel must answer for a verdict, and where it must count it.
    fn answer(&self, verdict: Verdict) -> (u32, Counter) {
        match verdict {
            Verdict::Ours if self.loaded.has_socket() => (XDP_REDIRECT, Counter::Redirected),
            Verdict::Ours => (XDP_PASS, Counter::NoSocket),
            Verdict::NotOurs(counter) => (XDP_PASS, counter),
            Verdict::Malformed(counter) => (XDP_DROP, counter),
        }
    }
}

fn library(frame: &[u8]) -> Verdict {
    let targets = targets().map(|target| TargetKey::from_socket_addr(&target));
    verdict(frame, |key| targets.contains(key))
}

/// Every crafted frame: its action, and plus one at exactly its counter.
fn crafted_frames(rig: &Rig) {
    let mut run_count = 0;
    for case in table().iter().filter(|case| case.frame.len() >= FRAME_BYTES_MIN) {
        let (action, counter) = rig.answer(case.expected);
        let mut expected = rig.counts();
        expected[counter.index() as usize] += 1;
        assert_eq!(rig.run(&case.frame), action, "{}: {:02x?}", case.name, case.frame);
        assert_eq!(rig.counts(), expected, "{}: {:02x?}", case.name, case.frame);
        run_count += 1;
    }
    println!("{run_count} crafted frames");
}

#[test]
fn crafted_frames_without_a_socket_reach_the_kernel() {
    if skipped("crafted_frames_without_a_socket_reach_the_kernel") {
        return;
    }
    let rig = Rig::new();
    crafted_frames(&rig);
    assert_eq!(rig.count(Counter::Redirected), 0);
}

#[test]
fn crafted_frames_with_a_socket_are_redirected() {
    if skipped("crafted_frames_with_a_socket_are_redirected") {
        return;
    }
    let rig = Rig::with_socket();
    crafted_frames(&rig);
    assert_eq!(rig.count(Counter::NoSocket), 0);
}

/// 300,000 damaged frames: the action and the counter of each, and every total at the end.
#[test]
fn mutated_frames_get_the_library_s_verdict() {
    if skipped("mutated_frames_get_the_library_s_verdict") {
        return;
    }
    let (rig, cases, mut random) = (Rig::with_socket(), table(), Random(seed()));
    let mut expected = rig.counts();
    let mut run_count = 0;
    while run_count < 300_000 {
        let mut frame = craft::base(&cases, &mut random);
        mutate(&mut frame, &mut random);
        if frame.len() < FRAME_BYTES_MIN {
            continue;
        }
        let (action, counter) = rig.answer(library(&frame));
        expected[counter.index() as usize] += 1;
        assert_eq!(rig.run(&frame), action, "run {run_count}: {counter:?}: {frame:02x?}");
        let counted = rig.count(counter);
        assert_eq!(counted, expected[counter.index() as usize], "run {run_count}: {counter:?}: {frame:02x?}");
        run_count += 1;
    }
    assert_eq!(rig.counts(), expected);
    assert_eq!(expected.iter().sum::<u64>(), run_count, "every frame is counted once");
    for (name, count) in Counter::NAMES.iter().zip(&expected) {
        println!("{count:8} {name}");
        assert!(*count > 0 || *name == Counter::NoSocket.name(), "the mutations never reach {name}");
    }
}

/// A listener that comes or goes while the program runs counts from the next frame on.
#[test]
fn targets_can_change_at_run_time() {
    if skipped("targets_can_change_at_run_time") {
        return;
    }
    let mut rig = Rig::with_socket();
    let [v4, v6] = targets();
    for (family, target) in [(4, v4), (6, v6)] {
        let frame = ours(&[], family, 8);
        assert_eq!(rig.run(&frame), XDP_REDIRECT);
        rig.set_target(&target, false);
        assert_eq!(rig.run(&frame), XDP_PASS);
        rig.set_target(&target, true);
        assert_eq!(rig.run(&frame), XDP_REDIRECT);
    }
    assert_eq!((rig.count(Counter::Redirected), rig.count(Counter::PassOtherTarget)), (4, 2));
}

#[test]
fn the_verifier_accepts_it_without_cap_perfmon() {
    if skipped("the_verifier_accepts_it_without_cap_perfmon") {
        return;
    }
    kernel::load_without_perfmon(load);
}

/// The maps are as large as the layout says, or userspace fills them wrongly.
#[test]
fn the_maps_are_laid_out_as_the_library_says() {
    if skipped("the_maps_are_laid_out_as_the_library_says") {
        return;
    }
    let ebpf = load().ebpf;
    assert_eq!(shape(&ebpf, maps::XSKS), (4, 4, maps::QUEUE_COUNT_MAX));
    assert_eq!(shape(&ebpf, maps::TARGETS), (maps::TARGET_KEY_BYTES as u32, 4, maps::TARGET_COUNT_MAX));
    assert_eq!(shape(&ebpf, maps::COUNTERS), (4, 8, Counter::COUNT));
}

/// Not a check: the time of a verdict, printed for whoever changes the program.
#[test]
fn a_verdict_takes_this_long() {
    if skipped("a_verdict_takes_this_long") {
        return;
    }
    let rig = Rig::with_socket();
    let mut ssh = ours(&[], 4, 1200);
    ssh[23] = 6;
    for (name, frame) in [
        ("ours over IPv4", ours(&[], 4, 1200)),
        ("ours over IPv6", ours(&[], 6, 1200)),
        ("ours over IPv6, two tags", ours(&[0x88a8, 0x8100], 6, 1200)),
        ("not ours: TCP", ssh),
    ] {
        println!("{:?} {name}", rig.loaded.time(&frame));
    }
}
