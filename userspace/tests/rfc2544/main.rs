//! Goal: `beam bench rfc2544` counts every frame that a device forwards, loses, copies, swaps or spoils, exactly; finds the
//! rate that a limited device stands for; tells a size that doesn't come through from a rate of zero; and disturbs nothing
//! else on the interface. Method: real namespaces and devices: a router, a bridge of the test's own that spoils on purpose,
//! a beam tunnel. Rates are low and asked for, so that counts are exact on a busy machine.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod device;
#[path = "../rig/packet.rs"]
mod packet;
#[path = "../pair/mod.rs"]
mod pair;
#[path = "../rig/mod.rs"]
mod rig;

use std::net::UdpSocket;
use std::process::{Command, Output, Stdio};

use device::{Device, Fate};
use pair::{LIMIT, Place, number, until, words};
use rig::{Beam, CLIENT_V4, GATEWAY_V4, GATEWAY_V6, Ns, ORIGIN_V4, ORIGIN_V6, Proc, Rig, must, root_or_skip};
use serde_json::Value;

/// Learning frames of one size at most: see `tester.rs`.
const LEARNING: u64 = 20;
/// Short trials at a rate that any machine keeps.
const GENTLE: &str = "-t 500ms --settle 300ms --runs 1 --precision 10% --max-rate 2000 -J";

/// The client's namespace gets the origin's interface, too: both ends of what is between, the gateway.
fn both_ends() -> Rig {
    let rig = Rig::new();
    rig.ip(Ns::Origin, &["link", "set", "o0", "netns", &rig.netns(Ns::Client)]);
    rig.ip(Ns::Client, &["address", "add", &format!("{ORIGIN_V4}/24"), "dev", "o0"]);
    rig.ip(Ns::Client, &["link", "set", "o0", "up"]);
    rig.ip(Ns::Client, &["address", "add", &format!("{ORIGIN_V6}/64"), "dev", "o0", "nodad"]);
    rig
}

fn forwards(rig: &Rig, ns: Ns) {
    let script = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    assert!(rig.command(ns, "sh").args(["-c", script]).status().unwrap().success());
}

fn command(rig: &Rig, ns: Ns, line: &str) -> Command {
    let mut command = rig.command(ns, rig::binary());
    command.args(["bench", "rfc2544"]).args(line.split_whitespace());
    command
}

fn parsed(out: &Output) -> Value {
    let said: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {} {}", out.status, String::from_utf8_lossy(&out.stderr)));
    assert_eq!(said["schema"], "beam.bench.rfc2544.v1", "{said:#}");
    said
}

/// What a measurement from `c0` to `o0` that ends well says.
fn measured(rig: &Rig, line: &str) -> Value {
    let out = command(rig, Ns::Client, &format!("-i c0 -r o0 {line}")).output().unwrap();
    assert!(out.status.success(), "{line}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    let said = parsed(&out);
    assert_eq!((&said["interrupted"], &said["trouble"]), (&Value::Bool(false), &Value::Null));
    said
}

/// The rows by their sizes.
fn row<'a>(said: &'a Value, size: &str) -> &'a Value {
    let rows = said["sizes"].as_array().unwrap();
    rows.iter().find(|row| row["frame_size"] == size).unwrap_or_else(|| panic!("no {size} in {said:#}"))
}

/// All trials of a row: the search's and those of latency.
fn trials(row: &Value) -> Vec<&Value> {
    let runs = row["runs"].as_array().unwrap();
    let of = |run: &'_ Value, name: &str| run[name].as_array().unwrap().len();
    runs.iter()
        .flat_map(|run| {
            let search = (0..of(run, "trials")).map(|n| &run["trials"][n]);
            search
                .chain((0..of(run, "latency_trials")).map(|n| &run["latency_trials"][n]))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Each trial adds up; the sums over all of them.
fn sums<const N: usize>(row: &Value, names: [&str; N]) -> [u64; N] {
    for trial in trials(row) {
        assert_eq!(number(trial, "sent"), number(trial, "received") + number(trial, "lost"), "{row:#}");
        assert!(number(trial, "sent") > 0 && number(trial, "reordered") <= number(trial, "received"));
    }
    names.map(|name| trials(row).iter().map(|trial| number(trial, name)).sum())
}

/// A size that came through without any harm, as fast as was asked for.
fn flawless(said: &Value, size: &str) {
    let row = row(said, size);
    let names = ["lost", "duplicate", "reordered", "corrupted", "late", "foreign", "receiver_dropped"];
    assert_eq!(sums(row, names), [0; 7], "{row:#}");
    assert_eq!((&row["forwarded"], trials(row).len()), (&Value::Bool(true), 4), "{row:#}");
    for goal in ["ndr", "pdr"] {
        assert_ne!(row[goal]["limited_by"], serde_json::json!(["device"]), "{row:#}");
        let rate = row[goal]["frames_per_s"]["median"].as_f64().unwrap();
        assert!(rate > 0.0 && rate <= 2000.0, "{row:#}");
    }
    for (of, percent) in row["latency"].as_array().unwrap().iter().zip([10, 50, 90]) {
        assert_eq!(number(of, "percent_of_ndr"), percent);
        let all = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|name| number(of, name));
        assert!(all.is_sorted() && number(of, "count") > 0 && all[0] > 0, "{of:#}");
    }
}

#[test]
fn a_router_forwards_each_frame_and_nothing_else_is_disturbed() {
    if !root_or_skip("a_router_forwards_each_frame_and_nothing_else_is_disturbed") {
        return;
    }
    let rig = both_ends();
    forwards(&rig, Ns::Gateway);
    let said = measured(&rig, &format!("-g {GATEWAY_V4} -s 64,1518,imix {GENTLE}"));
    ["64", "1518", "IMIX"].iter().for_each(|size| flawless(&said, size));
    // Behind a decimal point that was printed and read.
    let rate = |of: &str| row(&said, "64")["ndr"][of]["median"].as_f64().unwrap();
    assert!((rate("l2_bits_per_s") / rate("frames_per_s") - 512.0).abs() < 1e-6);
    assert!((rate("wire_bits_per_s") / rate("frames_per_s") - 672.0).abs() < 1e-6);
    let said = measured(&rig, &format!("-6 -g {GATEWAY_V6} -s 84,imix {GENTLE} --xdp skb"));
    ["84", "IMIX"].iter().for_each(|size| flawless(&said, size));
    assert_eq!(said["receiver"]["mode"], "skb-copy");

    // While one runs: others' packets arrive as ever, and a signal ends it with what there is.
    let mut long =
        command(&rig, Ns::Client, &format!("-i c0 -r o0 -g {GATEWAY_V4} -s 64 -t 60s --max-rate 1000 -J -v"));
    let mut running = Proc::spawn("rfc2544", long.stdout(Stdio::piped()));
    until("the program is there", || rig.has_xdp(Ns::Client, "o0"), |&there| there);
    let others = rig.within(Ns::Client, || UdpSocket::bind((ORIGIN_V4, 5000))).unwrap();
    others.set_read_timeout(Some(LIMIT)).unwrap();
    let sender = rig.within(Ns::Gateway, || UdpSocket::bind((rig::GATEWAY_INNER_V4, 0))).unwrap();
    for n in 0..100_u8 {
        sender.send_to(&[n], (ORIGIN_V4, 5000)).unwrap();
        let mut one = [0];
        assert_eq!((others.recv(&mut one).unwrap(), one[0]), (1, n));
    }
    assert!(rig.has_xdp(Ns::Client, "o0"), "it ended too early: {}", running.stderr());
    running.signal(rustix::process::Signal::INT);
    let mut stdout = running.stdout();
    assert_eq!(running.wait(LIMIT).code(), Some(0), "{}", running.stderr());
    let said: Value = serde_json::from_reader(&mut stdout).unwrap();
    assert_eq!((&said["interrupted"], &said["schema"]), (&true.into(), &"beam.bench.rfc2544.v1".into()));
    assert!(!rig.has_xdp(Ns::Client, "o0"));
}

#[test]
fn a_bridge_forwards_each_frame_and_is_taught() {
    if !root_or_skip("a_bridge_forwards_each_frame_and_is_taught") {
        return;
    }
    let rig = both_ends();
    rig.ip(Ns::Gateway, &["link", "add", "br0", "type", "bridge"]);
    ["g0", "g1"].iter().for_each(|port| rig.ip(Ns::Gateway, &["link", "set", port, "master", "br0"]));
    rig.ip(Ns::Gateway, &["link", "set", "br0", "up"]);
    let said = measured(&rig, &format!("-s 64,1518 {GENTLE}"));
    ["64", "1518"].iter().for_each(|size| flawless(&said, size));
    let mac = said["flow"]["next_hop_mac"].as_str().unwrap();
    assert_ne!(mac, said["sender"]["mac"]);
    let fdb = rig.command(Ns::Gateway, "bridge").args(["fdb", "show", "brport", "g1"]).output().unwrap();
    let fdb = String::from_utf8_lossy(&fdb.stdout);
    assert!(
        fdb.lines().any(|line| line.contains(mac) && !line.contains("permanent")),
        "{mac} isn't in:\n{fdb}"
    );
    let said = measured(&rig, &format!("-6 -s 84 {GENTLE}"));
    flawless(&said, "84");
}

#[test]
fn a_size_that_the_device_doesnt_forward_has_no_rate() {
    if !root_or_skip("a_size_that_the_device_doesnt_forward_has_no_rate") {
        return;
    }
    let rig = both_ends();
    forwards(&rig, Ns::Gateway);
    rig.ip(Ns::Gateway, &["link", "set", "g1", "mtu", "1280"]);
    let line = format!("-g {GATEWAY_V4} -s 1280,1518,imix {GENTLE}");
    let said = measured(&rig, &line);
    flawless(&said, "1280");
    for size in ["1518", "IMIX"] {
        let row = row(&said, size);
        assert_eq!(
            (&row["forwarded"], &row["not_forwarded_size"]),
            (&false.into(), &"1518".into()),
            "{row:#}"
        );
        assert_eq!((&row["ndr"]["frames_per_s"], trials(row).len()), (&Value::Null, 0), "{row:#}");
    }
    let out = command(&rig, Ns::Client, &format!("-i c0 -r o0 {}", line.replace("-J", ""))).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("1518: not forwarded at this size: none of 20 came out"), "{said}");

    // Of nothing that is asked for: an error, and the object all the same.
    let out =
        command(&rig, Ns::Client, &format!("-i c0 -r o0 -g {GATEWAY_V4} -s 1518 {GENTLE}")).output().unwrap();
    let trouble = parsed(&out)["trouble"].to_string();
    assert!(
        out.status.code() == Some(1) && trouble.contains("nothing that was sent on c0 came out on o0"),
        "{trouble}"
    );
}

#[test]
fn what_a_device_does_to_frames_is_counted_exactly() {
    if !root_or_skip("what_a_device_does_to_frames_is_counted_exactly") {
        return;
    }
    let rig = both_ends();
    // Of each fifty frames one is lost, one copied, one spoilt and one swapped with the next.
    let device = Device::start(&rig, Ns::Gateway, (c"g0", c"g1"), |stamp| match stamp.number % 50 {
        7 => Fate::IsLost,
        17 => Fate::IsCopied,
        27 => Fate::IsSpoilt,
        37 => Fate::IsSwapped,
        _ => Fate::Passes,
    });
    // 4 % don't arrive whole: no rate is without loss, each is below 5 %.
    let said = measured(&rig, &format!("-s 64,594 {GENTLE} --pdr-loss 5% --min-rate 500"));
    let all: Vec<[u64; 6]> = ["64", "594"]
        .iter()
        .map(|size| {
            let row = row(&said, size);
            assert_eq!(
                (&row["ndr"]["runs_without"], &row["pdr"]["runs_without"]),
                (&1.into(), &0.into()),
                "{row:#}"
            );
            assert_eq!(
                (&row["ndr"]["limited_by"][0], row["latency"].as_array().unwrap().len()),
                (&"device".into(), 0)
            );
            let loss = row["runs"][0]["pdr"]["loss_ratio"].as_f64().unwrap();
            assert!(loss > 0.03 && loss < 0.05, "{row:#}");
            sums(row, ["sent", "lost", "duplicate", "corrupted", "reordered", "receiver_dropped"])
        })
        .collect();
    let done = device.done(LEARNING);
    let sum = |n: usize| all[0][n] + all[1][n];
    let seen = (sum(0), sum(1), sum(2), sum(3), sum(4));
    assert_eq!(seen, (done.taken, done.lost + done.spoilt, done.copied, done.spoilt, done.swapped));
    assert!(sum(5) == 0 && done.lost >= 40 && done.copied >= 40 && done.swapped >= 40, "{done:?}");
}

#[test]
fn the_rate_that_a_device_stands_for_is_found() {
    if !root_or_skip("the_rate_that_a_device_stands_for_is_found") {
        return;
    }
    let rig = both_ends();
    // A bucket of 250 frames, filled with 1,000 a second by the frames' own stamps: in half a second 750 pass, so 1,500 a
    // second is the rate without loss, and however unsteady the sender is, 1,000 a second always pass.
    let (mut bucket, mut last_ns) = (250.0, 0);
    let device = Device::start(&rig, Ns::Gateway, (c"g0", c"g1"), move |stamp| {
        let new_trial = stamp.number == 0;
        bucket = if new_trial { 250.0 } else { bucket + stamp.at_ns.saturating_sub(last_ns) as f64 / 1e6 };
        bucket = f64::min(bucket, 250.0);
        last_ns = stamp.at_ns;
        if bucket < 1.0 {
            return Fate::IsLost;
        }
        bucket -= 1.0;
        Fate::Passes
    });
    let line = GENTLE.replace("2000", "6000");
    let said = measured(&rig, &format!("-s 64 {line} --no-latency"));
    let row = row(&said, "64");
    let [sent, lost, dropped] = sums(row, ["sent", "lost", "receiver_dropped"]);
    let done = device.done(LEARNING);
    assert_eq!((sent, lost, dropped), (done.taken, done.lost, 0), "{row:#}");
    let search = row["runs"][0]["trials"].as_array().unwrap();
    assert!(number(&search[0], "lost") > 0 && search.len() > 2, "{row:#}");
    for (goal, loss_max) in [("ndr", 0.0), ("pdr", 0.005)] {
        let found = &row["runs"][0][goal];
        assert_eq!(found["limited_by"], "device", "{row:#}");
        let of = |name: &str| found[name].as_f64().unwrap();
        let (rate, upper) = (of("frames_per_s"), of("upper_frames_per_s"));
        assert!(of("loss_ratio") <= loss_max && rate <= upper && upper < 6000.0, "{row:#}");
        // The trials agree with the result: one passed at the rate, one failed at the upper end.
        let at = |wanted: f64| {
            let is = |trial: &&Value| trial["offered_frames_per_s"].as_f64() == Some(wanted);
            search.iter().find(is).unwrap()["loss_ratio"].as_f64().unwrap()
        };
        assert!(at(rate) <= loss_max && at(upper) > loss_max, "{row:#}");
    }
}

#[test]
fn a_tunnel_of_beam_is_measured() {
    if !root_or_skip("a_tunnel_of_beam_is_measured") {
        return;
    }
    // The origin's namespace has both ends: frames enter the client's by a veth pair more, and leave the gateway's by g1.
    let place = Place::new();
    let rig = &place.rig;
    let (origin, client) = (rig.netns(Ns::Origin), rig.netns(Ns::Client));
    must(
        "ip",
        &["link", "add", "o1", "netns", &origin, "type", "veth", "peer", "name", "c1", "netns", &client],
    );
    for (ns, interface, address) in [(Ns::Origin, "o1", "198.18.7.2/24"), (Ns::Client, "c1", "198.18.7.1/24")]
    {
        rig.ip(ns, &["address", "add", address, "dev", interface]);
        rig.ip(ns, &["link", "set", interface, "up"]);
    }
    forwards(rig, Ns::Client);
    forwards(rig, Ns::Gateway);
    let text = std::fs::read_to_string(&place.users).unwrap();
    std::fs::write(&place.users, format!("{} routes=198.18.7.0/24\n", text.trim_end())).unwrap();
    let pool = ["--xdp", "off", "--ip-pool", "198.18.64.0/24", "--ip-route", "198.19.0.0/24"];
    let gateway = place.gateway(GATEWAY_V4, &pool);
    let tun = ["--xdp", "off", "--tun", "beam0", "--route", "198.19.0.0/24", "--announce", "198.18.7.0/24"];
    let tunnel = Beam::start(rig, Ns::Client, "tunnel", &words(&place.connect_args(GATEWAY_V4, &tun)));
    gateway.process.wait_for_line("brings the network 198.18.7.0/24", LIMIT);
    // The MTU of the device rises until path MTU discovery has ended.
    let mtu = || {
        let said = rig.command(Ns::Client, "cat").arg("/sys/class/net/beam0/mtu").output().unwrap().stdout;
        String::from_utf8_lossy(&said).trim().parse().unwrap_or(0)
    };
    until("path MTU discovery ends", mtu, |&mtu: &u32| mtu >= 1400);

    let line = format!("-i o1 -r o0 -g 198.18.7.1 -s 64,1280,1518 {GENTLE}");
    let out = command(rig, Ns::Origin, &line).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said = parsed(&out);
    ["64", "1280"].iter().for_each(|size| flawless(&said, size));
    assert_eq!(row(&said, "1518")["forwarded"], false);
    // Each of them went through the tunnel, and not by a way around it.
    let [sent, sent_large] = ["64", "1280"].map(|size| sums(row(&said, size), ["sent"])[0]);
    for (end, name) in [(&tunnel, "ip_packets_to_tunnel"), (&gateway, "ip_packets_from_tunnel")] {
        let carried = number(&end.status()["counters"], name);
        assert!(carried >= sent + sent_large, "{name}: {carried} of {sent} and {sent_large}");
    }
}

#[test]
fn an_interface_that_goes_ends_it() {
    if !root_or_skip("an_interface_that_goes_ends_it") {
        return;
    }
    for (gone, says) in [("o0", "the AF_XDP socket on o0 is gone for good"), ("c0", "nothing leaves c0")] {
        let rig = both_ends();
        forwards(&rig, Ns::Gateway);
        // The first trial is over when a second one is told of: the interface goes during one.
        let line =
            format!("-i c0 -r o0 -g {GATEWAY_V4} -s 64 -t 500ms --settle 0s --runs 100 --max-rate 500 -J -v");
        let mut running = Proc::spawn("rfc2544", command(&rig, Ns::Client, &line).stdout(Stdio::piped()));
        running.wait_for_line("64 bytes: ", LIMIT);
        rig.ip(Ns::Client, &["link", "del", gone]);
        let mut stdout = running.stdout();
        assert_eq!(running.wait(LIMIT).code(), Some(1), "{}", running.stderr());
        let said: Value = serde_json::from_reader(&mut stdout).unwrap();
        let trouble = said["trouble"].as_str().unwrap();
        assert!(trouble.contains(says) && running.stderr().contains(says), "{trouble}");
    }
}

#[test]
fn what_cant_be_measured_is_refused() {
    if !root_or_skip("what_cant_be_measured_is_refused") {
        return;
    }
    let rig = both_ends();
    let refused = |line: &str, code: i32, says: &str| {
        let out = command(&rig, Ns::Client, line).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(code) && said.contains(says), "{line}: {}: {said}", out.status);
        assert_eq!(out.stdout, b"", "{line}");
    };
    let good = format!("-i c0 -r o0 -g {GATEWAY_V4}");
    refused("-i c0", 2, "--receive");
    refused("-i c0 -r c0", 2, "name two");
    refused("-i c0 -r o7", 4, "-r o7: there is no such interface; there are:");
    refused("-i lo -r o0", 4, "-i lo: not Ethernet");
    refused(&format!("{good} -s 63"), 2, "not a size from 64");
    refused(&format!("{good} -s 1519"), 4, "ip link set dev c0 mtu 1501");
    refused(&format!("-6 -i c0 -r o0 -g {GATEWAY_V6} -s 64"), 2, "84 bytes at least");
    refused("-i c0 -r o0 -g 198.18.0.77", 4, "nobody on c0 has that address");
    refused("-i c0 -r o0 -g 203.0.113.1", 4, "not on a network of c0");
    refused(&format!("{good} --queue 9"), 4, "queue 9 is none of them");
    // It doesn't forward: said once, with what to look at.
    refused(&format!("{good} --quick -s 64"), 1, "nothing that was sent on c0 came out on o0: none of 20");
    rig.ip(Ns::Client, &["route", "add", "default", "via", &GATEWAY_V4.to_string()]);
    refused(&good, 4, "-i c0: it carries the default route");
    refused(&format!("-i o0 -r c0 -g {CLIENT_V4}"), 4, "-r c0: it carries the default route");
    rig.ip(Ns::Client, &["route", "del", "default"]);
    let mut plain = rig.command(Ns::Client, "setpriv");
    plain.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]);
    plain.arg(rig::binary()).args(["bench", "rfc2544"]).args(good.split_whitespace());
    let out = plain.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.code() == Some(4) && said.contains("lacks CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW"),
        "{said}"
    );
}
