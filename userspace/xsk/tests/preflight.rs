//! Goal: whatever the machine lacks is said with the value seen, the value needed and the next command, and nothing
//! stays attached; each step down the mode ladder is reported. Method: one shortcoming per test, made in a namespace.
#![allow(clippy::unwrap_used, reason = "tests")]

mod rig;

use beam_xsk::{Config, Mode, OpenError, QueueMode, Queues, ZeroCopy};
use port::Port;
use rig::{OURS, PORT, Rig, Side};
use rustix::thread::CapabilitySet;
use std::net::SocketAddr;

/// The refusal, after making sure that no program is left on the interface.
fn refusal(rig: &Rig, config: &Config) -> OpenError {
    let error = rig.try_open(config).map(drop).expect_err("it has to be refused");
    println!("{error}");
    error
}

macro_rules! needs_root {
    ($name:literal) => {
        if !rig::root_or_skip($name) {
            return;
        }
    };
}

#[test]
fn a_missing_interface_lists_those_there_are() {
    needs_root!("a_missing_interface_lists_those_there_are");
    let rig = Rig::new(1);
    let error = refusal(&rig, &Config::new("nope"));
    let OpenError::NoSuchInterface { interface, mut available } = error else { panic!("{error}") };
    available.sort_unstable();
    assert_eq!((interface.as_str(), available), ("nope", vec!["lo".to_owned(), "x0".to_owned()]));
}

#[test]
fn down_loopback_mtu_and_queues_are_refused() {
    needs_root!("down_loopback_mtu_and_queues_are_refused");
    let rig = Rig::new(2);
    let error = refusal(&rig, &Config::new("lo"));
    assert!(matches!(error, OpenError::NotEthernet { .. }), "{error}");

    rig.ours("ip link set x0 mtu 1800");
    let small = Config { frame_bytes: 2048, ..rig::config() };
    let error = refusal(&rig, &small);
    assert!(
        matches!(error, OpenError::MtuTooLarge { seen: 1800, max: 1770, frame_bytes: 2048, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("ip link set x0 mtu 1770"), "{error}");

    let error = refusal(&rig, &Config { queues: Queues::List(vec![0, 2]), ..rig::config() });
    assert!(matches!(error, OpenError::NoSuchQueue { queue: 2, count: 2, .. }), "{error}");
    assert!(error.to_string().contains("it has 2 (0 to 1)"), "{error}");

    rig.ours("ip link set x0 down");
    let error = refusal(&rig, &rig::config());
    assert!(matches!(error, OpenError::InterfaceDown { .. }), "{error}");
    assert!(error.to_string().contains("ip link set x0 up"), "{error}");
    assert!(!rig.attached("x0"));
}

/// The command in the message is run as it stands, and then the interface opens.
#[test]
fn another_program_is_named_and_the_advice_works() {
    needs_root!("another_program_is_named_and_the_advice_works");
    for (mode, name) in [(Mode::Native, "native"), (Mode::Skb, "skb")] {
        let rig = Rig::new(1);
        let (first, _ports) = rig.open(&Config { mode, ..rig::config() });
        let error = refusal(&rig, &rig::config());
        let OpenError::OtherProgram { name: program, mode, detach, .. } = &error else { panic!("{error}") };
        assert_eq!((program.as_str(), *mode), ("beam_steer", name));
        assert!(detach.starts_with("bpftool link detach id "), "{detach}");
        rig.ours(detach);
        assert!(!rig.attached("x0"));
        drop((first, _ports));
        rig.open(&rig::config());
    }
}

/// A netlink attachment, as older tools make it, needs another command.
#[test]
fn a_netlink_attachment_is_named_too() {
    needs_root!("a_netlink_attachment_is_named_too");
    let rig = Rig::new(1);
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/../../xdp-ebpf/beam-steer.bpf.o");
    let attached = std::process::Command::new("ip")
        .args(["netns", "exec", &rig.namespace(Side::Ours), "ip", "link", "set", "dev", "x0", "xdpgeneric"])
        .args(["obj", object, "sec", "xdp"])
        .output()
        .unwrap();
    if !attached.status.success() {
        eprintln!(
            "SKIPPED: this iproute2 loads no XDP program: {}",
            String::from_utf8_lossy(&attached.stderr)
        );
        return;
    }
    let error = refusal(&rig, &rig::config());
    let OpenError::OtherProgram { mode: "skb", detach, .. } = &error else { panic!("{error}") };
    assert_eq!(detach, "ip link set dev x0 xdpgeneric off");
    rig.ours(detach);
    rig.open(&rig::config());
}

#[test]
fn each_missing_capability_is_named() {
    needs_root!("each_missing_capability_is_named");
    let rig = Rig::new(1);
    let cases = [
        (CapabilitySet::NET_ADMIN, vec!["CAP_NET_ADMIN"]),
        (CapabilitySet::BPF | CapabilitySet::SYS_ADMIN, vec!["CAP_BPF"]),
        (CapabilitySet::NET_RAW, vec!["CAP_NET_RAW"]),
    ];
    for (without, expected) in cases {
        let error = rig.inside(Side::Ours, || {
            without_capabilities(without);
            beam_xsk::open(&rig::config()).map(drop).unwrap_err()
        });
        println!("{error}");
        let OpenError::MissingCapability { missing, .. } = &error else { panic!("{error}") };
        assert_eq!(*missing, expected);
        assert!(
            error
                .to_string()
                .contains("setcap cap_net_admin,cap_bpf,cap_net_raw,cap_ipc_lock,cap_net_bind_service+ep /"),
            "{error}"
        );
    }
    // CAP_SYS_ADMIN stands in for CAP_BPF.
    rig.inside(Side::Ours, || {
        without_capabilities(CapabilitySet::BPF);
        beam_xsk::open(&rig::config()).map(drop).unwrap();
    });
}

/// Of the calling thread only, which ends with the closure.
fn without_capabilities(gone: CapabilitySet) {
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective &= !gone;
    sets.permitted &= !gone;
    sets.inheritable &= !gone;
    rustix::thread::set_capabilities(None, sets).unwrap();
}

/// The child of the next test, which may spoil its own limits.
#[test]
#[ignore = "run by a_small_memlock_limit_is_named_with_what_is_needed"]
fn child_with_a_small_memlock_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let rig = Rig::new(2);
    let small = Some(64 << 10);
    setrlimit(Resource::Memlock, Rlimit { current: small, maximum: small }).unwrap();
    let error = rig.inside(Side::Ours, || {
        without_capabilities(CapabilitySet::IPC_LOCK | CapabilitySet::SYS_RESOURCE);
        beam_xsk::open(&rig::config()).map(drop).unwrap_err()
    });
    println!("{error}");
    let OpenError::Memlock { limit, needed_bytes, .. } = &error else { panic!("{error}") };
    assert_eq!((limit.as_str(), *needed_bytes), ("65536 bytes", 16 << 20));
    assert!(error.to_string().contains("ulimit -l 16384"), "{error}");
    assert!(!rig.attached("x0"), "what had been attached is detached again");
}

#[test]
fn a_small_memlock_limit_is_named_with_what_is_needed() {
    needs_root!("a_small_memlock_limit_is_named_with_what_is_needed");
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_with_a_small_memlock_limit", "--ignored", "--nocapture"])
        .status()
        .unwrap();
    assert!(child.success());
}

#[test]
fn zero_copy_steps_down_aloud_or_refuses() {
    needs_root!("zero_copy_steps_down_aloud_or_refuses");
    let rig = Rig::new(2);
    let error = refusal(&rig, &Config { zero_copy: ZeroCopy::On, ..rig::config() });
    assert!(matches!(error, OpenError::NoZeroCopy { queue: 0, .. }), "{error}");
    assert!(!rig.attached("x0"));

    let (interface, _ports) = rig.open(&rig::config());
    for (queue, report) in interface.reports().iter().enumerate() {
        assert_eq!((report.queue, report.mode), (queue as u32, QueueMode::NativeCopy));
        assert_eq!(report.steps.len(), 1);
        assert_eq!(report.steps[0].to_string(), "zero-copy: the driver has no zero-copy (EOPNOTSUPP)");
    }
    assert_eq!(interface.reports()[0].mode.to_string(), "native-copy");
    drop((interface, _ports));

    let (interface, _ports) = rig.open(&Config { zero_copy: ZeroCopy::Off, ..rig::config() });
    assert_eq!(interface.reports()[0].steps, []);
}

/// `beam detach` after a crash, or with another tool's program in the way.
#[test]
fn detach_takes_off_what_was_seen() {
    needs_root!("detach_takes_off_what_was_seen");
    let rig = Rig::new(1);
    assert_eq!(rig.inside(Side::Ours, || beam_xsk::attached("x0")).unwrap(), None);
    for mode in [Mode::Native, Mode::Skb] {
        let (interface, ports) = rig.open(&Config { mode, ..rig::config() });
        let seen = rig.inside(Side::Ours, || beam_xsk::attached("x0")).unwrap().unwrap();
        assert_eq!((seen.name.as_str(), seen.is_beam), ("beam_steer", true));
        assert!(seen.removal("x0").starts_with("bpftool link detach id "), "{}", seen.removal("x0"));
        rig.inside(Side::Ours, || beam_xsk::detach("x0", &seen)).unwrap();
        assert!(!rig.attached("x0"));
        rig.inside(Side::Ours, || beam_xsk::detach("x0", &seen)).unwrap();
        drop((interface, ports));
    }
    let missing = rig.inside(Side::Ours, || beam_xsk::attached("nope"));
    assert!(matches!(missing, Err(OpenError::NoSuchInterface { .. })));
}

#[test]
fn huge_pages_step_down_aloud() {
    needs_root!("huge_pages_step_down_aloud");
    let rig = Rig::new(1);
    let (interface, _ports) =
        rig.open(&Config { huge_pages: true, zero_copy: ZeroCopy::Off, ..rig::config() });
    let steps: Vec<_> = interface.reports()[0].steps.iter().map(|step| step.tried).collect();
    let pages = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap();
    let expected: &[&str] = if pages.trim() == "0" { &["huge pages"] } else { &[] };
    assert_eq!(steps, expected);
}

/// The binary shares the interface between threads and moves ports into workers.
#[test]
fn handles_cross_threads() {
    fn send_and_sync<T: Send + Sync>() {}
    fn send<T: Send>() {}
    send_and_sync::<beam_xsk::Interface>();
    send_and_sync::<OpenError>();
    send::<beam_xsk::XskPort>();
}

/// veth refuses native XDP where a packet and its overhead don't fit into one page.
#[test]
fn native_steps_down_to_skb_aloud_or_refuses() {
    needs_root!("native_steps_down_to_skb_aloud_or_refuses");
    let rig = Rig::new(1);
    rig.ours("ip link set x0 mtu 3700");
    rig.peer("ip link set p0 mtu 3700");
    let error = refusal(&rig, &Config { mode: Mode::Native, ..rig::config() });
    assert!(matches!(error, OpenError::XdpUnsupported { mode: "native", .. }), "{error}");

    let (interface, mut ports) = rig.open(&rig::config());
    let report = &interface.reports()[0];
    assert_eq!(report.mode, QueueMode::SkbCopy);
    assert_eq!(report.steps.iter().map(|step| step.tried).collect::<Vec<_>>(), ["native"]);
    assert!(report.steps[0].why.contains("MTU 3700"), "{:?}", report.steps);

    // And 3.5 KB arrive whole.
    let peer = rig.socket(Side::Peer, "198.18.0.2:0");
    peer.send_to(&[5; 3600], SocketAddr::new(rig::ip(OURS[0]), PORT)).unwrap();
    let burst = rig::receive(&mut ports[0], 1);
    assert_eq!(*burst[0].frame, [5; 3600]);
}

/// A frame that outlives its port keeps the queue bound: said, not hung, and mended by dropping the frame.
#[test]
fn a_held_queue_is_waited_for_then_refused() {
    needs_root!("a_held_queue_is_waited_for_then_refused");
    let rig = Rig::new(1);
    let (interface, mut ports) = rig.open(&rig::config());
    let peer = rig.socket(Side::Peer, "198.18.0.2:0");
    peer.send_to(b"held", SocketAddr::new(rig::ip(OURS[0]), PORT)).unwrap();
    let burst = rig::receive(&mut ports[0], 1);
    drop((interface, ports));
    assert_eq!(*burst[0].frame, *b"held", "the memory lives as long as the frame");
    let error = refusal(&rig, &rig::config());
    assert!(matches!(error, OpenError::QueueBusy { queue: 0, .. }), "{error}");
    drop(burst);
    let (_interface, ports) = rig.open(&rig::config());
    assert_eq!(ports[0].counters().rx_datagrams, 0);
}
