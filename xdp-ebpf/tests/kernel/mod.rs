//! A loaded program and what it counts, for tests that run as root: `verdicts.rs` (the tunnel's) and
//! `lan_verdicts.rs` (the LAN's). BEAM_XDP_OBJECT=FILE tests another object than the committed one.

use aya::{
    Ebpf, TestRun, TestRunOptions,
    maps::{MapData, PerCpuArray, XskMap},
    programs::Xdp,
};
use caps::{CapSet, Capability};
use std::{
    io::Write,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};
use steer::maps;

/// Shortest frame of a test run: an Ethernet header.
pub(crate) const FRAME_BYTES_MIN: usize = 14;

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_REDIRECT: u32 = 4;

/// One of the object's programs, loaded, and its counters.
pub(crate) struct Loaded {
    pub(crate) ebpf: Ebpf,
    program: &'static str,
    counters: &'static str,
    counter_count: u32,
    socket: Option<OwnedFd>,
}

impl Loaded {
    pub(crate) fn new(program: &'static str, counters: &'static str, counter_count: u32) -> Self {
        let mut ebpf = Ebpf::load(&object()).unwrap();
        let xdp: &mut Xdp = ebpf.program_mut(program).unwrap().try_into().unwrap();
        xdp.load().expect("the verifier accepts the program");
        Self { ebpf, program, counters, counter_count, socket: None }
    }

    /// Puts a socket on queue 0. The map takes one that isn't bound yet; a test run decides but doesn't deliver.
    pub(crate) fn put_socket(&mut self) {
        let (xdp, raw) = (rustix::net::AddressFamily::XDP, rustix::net::SocketType::RAW);
        let socket = rustix::net::socket(xdp, raw, None).unwrap();
        let mut xsks = XskMap::try_from(self.ebpf.map_mut(maps::XSKS).unwrap()).unwrap();
        xsks.set(0, socket.as_raw_fd(), 0).unwrap();
        self.socket = Some(socket);
    }

    pub(crate) fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    pub(crate) fn xdp(&self) -> &Xdp {
        self.ebpf.program(self.program).unwrap().try_into().unwrap()
    }

    /// Runs the program once and returns its action. It must not have changed the frame.
    pub(crate) fn run(&self, frame: &[u8]) -> u32 {
        let mut out = vec![0; frame.len()];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = self.xdp().test_run(options).unwrap();
        assert_eq!(out, frame, "the program wrote to the frame");
        result.return_value
    }

    /// The time of one run out of many.
    pub(crate) fn time(&self, frame: &[u8]) -> Duration {
        let options = TestRunOptions { data_in: Some(frame), repeat: 1_000_000, ..TestRunOptions::new() };
        self.xdp().test_run(options).unwrap().duration
    }

    pub(crate) fn count(&self, index: u32) -> u64 {
        let map: PerCpuArray<&MapData, u64> =
            PerCpuArray::try_from(self.ebpf.map(self.counters).unwrap()).unwrap();
        map.get(&index, 0).unwrap().iter().sum()
    }

    pub(crate) fn counts(&self) -> Vec<u64> {
        (0..self.counter_count).map(|index| self.count(index)).collect()
    }
}

/// The appliance loads with NET_ADMIN and BPF. Without PERFMON the verifier refuses arithmetic on packet pointers
/// with variables, which is how a compiler's whim would show here.
pub(crate) fn load_without_perfmon(load: fn() -> Loaded) {
    // Capabilities belong to the thread.
    let load_with_few = move || {
        let few = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN].into_iter().collect();
        caps::set(None, CapSet::Effective, &few).unwrap();
        load().xdp().info().unwrap()
    };
    let info = std::thread::spawn(load_with_few).join().unwrap();
    println!(
        "{} instructions of BPF, {} bytes of machine code, {} instructions walked by the verifier",
        info.size_translated().unwrap_or_default() / 8,
        info.size_jitted(),
        info.verified_instruction_count().unwrap_or_default(),
    );
}

/// Key bytes, value bytes and entries of a map.
pub(crate) fn shape(ebpf: &Ebpf, name: &str) -> (u32, u32, u32) {
    use aya::maps::Map;
    let map = match ebpf.map(name).unwrap() {
        Map::XskMap(map)
        | Map::HashMap(map)
        | Map::PerCpuArray(map)
        | Map::LpmTrie(map)
        | Map::Array(map) => map,
        other => panic!("{name} is {other:?}"),
    };
    let info = map.info().unwrap();
    (info.key_size(), info.value_size(), info.max_entries())
}

fn object() -> Vec<u8> {
    match std::env::var_os("BEAM_XDP_OBJECT") {
        Some(path) => std::fs::read(path).expect("BEAM_XDP_OBJECT can be read"),
        None => steer::OBJECT.to_vec(),
    }
}

/// Says so, and returns true, when this process may not load programs.
#[expect(clippy::explicit_write, reason = "the harness swallows what eprintln! says when a test passes")]
pub(crate) fn skipped(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        writeln!(std::io::stderr(), "SKIPPED: {test} needs root (it loads an XDP program)").unwrap();
    }
    !is_root
}
