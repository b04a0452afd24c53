//! Goal: the program that the kernel runs decides exactly as the library does, and counts exactly.
//! Method: load the object, run it over crafted and mutated frames with BPF_PROG_TEST_RUN (no interface is touched),
//! and hold action and counters against the library, which `host.rs` holds against the RFCs. Needs root.
//!
//! The kernel takes 14 bytes or more in a test run; shorter frames are `host.rs`'s alone.
//! BEAM_XDP_OBJECT=FILE tests another object than the committed one; BEAM_SEED=N repeats a run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod craft;

use std::{io::Write, os::fd::OwnedFd};

use aya::{
    Ebpf, TestRun, TestRunOptions,
    maps::{HashMap, MapData, PerCpuArray, XskMap},
    programs::Xdp,
};
use caps::{CapSet, Capability};
use craft::{Random, mutate::mutate, ours, seed, table, targets};
use steer::{Counter, TargetKey, Verdict, maps, verdict};

/// Shortest frame of a test run: an Ethernet header.
const FRAME_BYTES_MIN: usize = 14;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// The loaded program with both targets set, and a socket on queue 0 or none.
struct Rig {
    ebpf: Ebpf,
    socket: Option<OwnedFd>,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self { ebpf: load(), socket: None };
        for target in targets() {
            rig.set_target(&target, true);
        }
        rig
    }

    fn with_socket() -> Self {
        let mut rig = Self::new();
        // The map takes a socket that isn't bound yet; a test run decides but doesn't deliver.
        let (xdp, raw) = (rustix::net::AddressFamily::XDP, rustix::net::SocketType::RAW);
        let socket = rustix::net::socket(xdp, raw, None).unwrap();
        let mut xsks = XskMap::try_from(rig.ebpf.map_mut(maps::XSKS).unwrap()).unwrap();
        xsks.set(0, std::os::fd::AsRawFd::as_raw_fd(&socket), 0).unwrap();
        rig.socket = Some(socket);
        rig
    }

    fn set_target(&mut self, target: &std::net::SocketAddr, present: bool) {
        let map = self.ebpf.map_mut(maps::TARGETS).unwrap();
        let mut map: HashMap<&mut MapData, [u8; maps::TARGET_KEY_BYTES], u32> =
            HashMap::try_from(map).unwrap();
        let key = TargetKey::from_socket_addr(target).to_bytes();
        if present { map.insert(key, 0, 0).unwrap() } else { map.remove(&key).unwrap() }
    }

    /// Runs the program once and returns its action. It must not have changed the frame.
    fn run(&self, frame: &[u8]) -> u32 {
        let mut out = vec![0; frame.len()];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = xdp(&self.ebpf).test_run(options).unwrap();
        assert_eq!(out, frame, "the program wrote to the frame");
        result.return_value
    }

    fn count(&self, counter: Counter) -> u64 {
        let map: PerCpuArray<&MapData, u64> =
            PerCpuArray::try_from(self.ebpf.map(maps::COUNTERS).unwrap()).unwrap();
        map.get(&counter.index(), 0).unwrap().iter().sum()
    }

    fn counts(&self) -> Vec<u64> {
        Counter::ALL.iter().map(|&counter| self.count(counter)).collect()
    }

    /// What the kernel must answer for a verdict, and where it must count it.
    fn answer(&self, verdict: Verdict) -> (u32, Counter) {
        match verdict {
            Verdict::Ours if self.socket.is_some() => (XDP_REDIRECT, Counter::Redirected),
            Verdict::Ours => (XDP_PASS, Counter::NoSocket),
            Verdict::NotOurs(counter) => (XDP_PASS, counter),
            Verdict::Malformed(counter) => (XDP_DROP, counter),
        }
    }
}

fn object() -> Vec<u8> {
    match std::env::var_os("BEAM_XDP_OBJECT") {
        Some(path) => std::fs::read(path).expect("BEAM_XDP_OBJECT can be read"),
        None => steer::OBJECT.to_vec(),
    }
}

fn load() -> Ebpf {
    let mut ebpf = Ebpf::load(&object()).unwrap();
    let program: &mut Xdp = ebpf.program_mut(steer::PROGRAM).unwrap().try_into().unwrap();
    program.load().expect("the verifier accepts the program");
    ebpf
}

fn xdp(ebpf: &Ebpf) -> &Xdp {
    ebpf.program(steer::PROGRAM).unwrap().try_into().unwrap()
}

/// Says so, and returns true, when this process may not load programs.
#[expect(clippy::explicit_write, reason = "the harness swallows what eprintln! says when a test passes")]
fn skipped(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        writeln!(std::io::stderr(), "SKIPPED: {test} needs root (it loads an XDP program)").unwrap();
    }
    !is_root
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

/// The appliance loads with NET_ADMIN and BPF. Without PERFMON the verifier refuses arithmetic on packet pointers
/// with variables, which is how a compiler's whim would show here.
#[test]
fn the_verifier_accepts_it_without_cap_perfmon() {
    if skipped("the_verifier_accepts_it_without_cap_perfmon") {
        return;
    }
    // Capabilities belong to the thread.
    let load_with_few = || {
        let few = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN].into_iter().collect();
        caps::set(None, CapSet::Effective, &few).unwrap();
        xdp(&load()).info().unwrap()
    };
    let info = std::thread::spawn(load_with_few).join().unwrap();
    println!(
        "{} instructions of BPF, {} bytes of machine code, {} instructions walked by the verifier",
        info.size_translated().unwrap_or_default() / 8,
        info.size_jitted(),
        info.verified_instruction_count().unwrap_or_default(),
    );
}

/// The maps are as large as the layout says, or userspace fills them wrongly.
#[test]
fn the_maps_are_laid_out_as_the_library_says() {
    if skipped("the_maps_are_laid_out_as_the_library_says") {
        return;
    }
    let ebpf = load();
    let shape = |name: &str| {
        let map = match ebpf.map(name).unwrap() {
            aya::maps::Map::XskMap(map) | aya::maps::Map::HashMap(map) | aya::maps::Map::PerCpuArray(map) => {
                map
            }
            other => panic!("{name} is {other:?}"),
        };
        let info = map.info().unwrap();
        (info.key_size(), info.value_size(), info.max_entries())
    };
    assert_eq!(shape(maps::XSKS), (4, 4, maps::QUEUE_COUNT_MAX));
    assert_eq!(shape(maps::TARGETS), (maps::TARGET_KEY_BYTES as u32, 4, maps::TARGET_COUNT_MAX));
    assert_eq!(shape(maps::COUNTERS), (4, 8, Counter::COUNT));
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
        let options = TestRunOptions { data_in: Some(&frame), repeat: 1_000_000, ..TestRunOptions::new() };
        println!("{:?} {name}", xdp(&rig.ebpf).test_run(options).unwrap().duration);
    }
}
