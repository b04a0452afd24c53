//! What goes over the wire: AF_XDP at the gateway, kernel UDP at the client, and the packets inside.

use crate::{
    Capture, beam, count, directed, file, moved,
    pair::{FORWARD_PORT, LIMIT, Place, path, settled, until},
    rig::{Beam, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, root_or_skip},
    tshark,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path};

/// A fetch of so many bytes is small enough that nothing is missed on a busy machine.
const BODY_BYTES: u64 = 2 << 20;

#[test]
fn both_ends_are_seen_exactly_and_decrypted_with_the_secrets() {
    if !root_or_skip("both_ends_are_seen_exactly_and_decrypted_with_the_secrets") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let client = place.client(GATEWAY_V4, &http.address().to_string(), &["--xdp", "off"]);
    let url = format!("http://127.0.0.1:{FORWARD_PORT}/{BODY_BYTES}");
    // Only now does the gateway know whose connection it is.
    assert_eq!(place.curl(&[&url]).0, BODY_BYTES);
    // The first connection is older than the captures: nobody has its secrets. The client then makes another.
    let gateway_logs = file(&place, "gateway-qlog");
    let client_logs = file(&place, "client-qlog");
    let begin = || {
        let nobody_looks = |status: &Value| status["captures"].as_array().unwrap().is_empty();
        for end in [&gateway, &client] {
            until("those before are over", || end.status(), nobody_looks);
        }
        let before = (settled(&gateway), settled(&client));
        let args = ["--keylog", "--qlog", &gateway_logs];
        let at_gateway = Capture::start(&place, &gateway, "gateway-capture", &args);
        let args = ["--keylog", "--qlog", &client_logs];
        (before, at_gateway, Capture::start(&place, &client, "client-capture", &args))
    };
    // A client says a word whenever it hears of an address or a route: then they begin anew.
    let nothing_between = |(before, ..): &((Value, Value), Capture, Capture)| {
        (moved(&before.0), moved(&before.1)) == (moved(&gateway.status()), moved(&client.status()))
    };
    let ((before_gateway, before_client), at_gateway, at_client) =
        until("nothing moves while captures begin", begin, nothing_between);
    gateway.process.wait_for_line("TLS secrets of new connections go to uid 0", LIMIT);
    let control = path(&gateway.control);
    let (code, said) = beam(&place, &["kick", "alice", "--control", &control]);
    assert_eq!(code, Some(0), "{said}");
    until(
        "the client comes back",
        || client.status(),
        |status| status["ready"] == true && has_come_back(status),
    );
    assert_eq!(place.curl(&[&url]).0, BODY_BYTES);

    let (after_client, after_gateway) = (settled(&client), settled(&gateway));
    let (gateway_file, gateway_said) = at_gateway.stop();
    let (client_file, client_said) = at_client.stop();
    for (file, said, before, after) in [
        (&gateway_file, &gateway_said, &before_gateway, &after_gateway),
        (&client_file, &client_said, &before_client, &after_client),
    ] {
        assert_eq!(said.missed, 0, "{said:?}");
        let ((rx0, tx0), (rx1, tx1)) = (moved(before), moved(after));
        let (rx, tx) = (rx1 - rx0, tx1 - tx0);
        assert_eq!((directed(file, 1), directed(file, 2)), (rx, tx), "as many as beam counts");
        assert_eq!((said.captured, count(file, "quic")), (rx + tx, rx + tx), "each is QUIC");
        assert!(rx + tx > BODY_BYTES / 1500, "the body has passed: {rx} in, {tx} out");
        assert_eq!(count(file, "udp.checksum.status == 0 || ip.checksum.status == 0"), 0, "sums hold");
        // One CONNECT and its answer; the client's settings are in early data, where tshark knows no HTTP/3 yet.
        assert_eq!(count(file, "http3.frame_type == 1"), 2, "HEADERS");
        let [settings, data] = [4, 0].map(|kind| count(file, &format!("http3.frame_type == {kind}")));
        assert!(settings >= 1 && data >= 1, "{settings} packets with SETTINGS, {data} with DATA");
        assert_eq!(count(file, "quic.decryption_failed"), 0);
        assert!(count(file, "tls.handshake.type == 20") >= 2, "both Finished messages are readable");
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(is_sorted(&gateway_file), "in the order of time");

    // On AF_XDP frames are Ethernet's; a kernel socket's have made-up IP headers, and say so.
    let protocols =
        tshark(&gateway_file, &["-Y", "udp.dstport == 4433", "-T", "fields", "-e", "frame.protocols"]);
    assert!(protocols.iter().any(|stack| stack.starts_with("eth:ethertype:ip:udp:quic")), "{protocols:?}");
    let interfaces = tshark(
        &client_file,
        &["-T", "fields", "-e", "frame.interface_name", "-e", "frame.interface_description"],
    );
    let interfaces: BTreeSet<_> = interfaces.iter().collect();
    assert!(interfaces.iter().all(|name| name.contains("headers are synthetic")), "{interfaces:?}");

    qlogs_open(Path::new(&gateway_logs), "server");
    qlogs_open(Path::new(&client_logs), "client");
    let names =
        |dir: &str| fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect::<BTreeSet<_>>();
    assert_eq!(names(&gateway_logs), names(&client_logs), "one name for one connection at both ends");
}

fn has_come_back(status: &Value) -> bool {
    status["counters"]["reconnects"].as_u64().unwrap_or(0) >= 1
}

fn is_sorted(file: &Path) -> bool {
    let times = tshark(file, &["-T", "fields", "-e", "frame.time_epoch"]);
    let times: Vec<f64> = times.iter().map(|time| time.parse().unwrap()).collect();
    times.is_sorted_by(|a, b| a <= b)
}

/// What qvis asks of a file: JSON text sequences whose first record names version, format and vantage point, and events
/// with time, name and data.
fn qlogs_open(directory: &Path, vantage: &str) {
    let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "one connection began: {files:?}");
    let odcid = files[0].file_stem().unwrap().to_str().unwrap();
    assert_eq!(files[0].extension().unwrap(), "sqlog");
    let text = fs::read(&files[0]).unwrap();
    assert_eq!(text[0], 0x1E, "RFC 7464");
    let records: Vec<Value> = text[1..]
        .split(|byte| *byte == 0x1E)
        .map(|record| {
            assert_eq!(record.last(), Some(&b'\n'), "RFC 7464: a record ends with a line feed");
            serde_json::from_slice(record).unwrap()
        })
        .collect();
    let (head, events) = records.split_first().unwrap();
    assert!(head["qlog_version"].as_str().unwrap().starts_with("0."), "{head}");
    assert_eq!(head["qlog_format"], "JSON-SEQ");
    assert_eq!(head["trace"]["vantage_point"]["type"], vantage, "{head}");
    assert_eq!(head["trace"]["common_fields"]["ODCID"], odcid);
    assert!(head["trace"]["common_fields"]["reference_time"].as_f64().unwrap() > 1.7e12);
    let mut times = Vec::new();
    let mut names = BTreeSet::new();
    for event in events {
        times.push(event["time"].as_f64().unwrap_or_else(|| panic!("{event}")));
        names.insert(event["name"].as_str().unwrap_or_else(|| panic!("{event}")));
        assert!(event["data"].is_object(), "{event}");
    }
    assert!(times.is_sorted(), "{directory:?}");
    for name in ["transport:packet_sent", "transport:packet_received", "recovery:metrics_updated"] {
        assert!(names.contains(name), "{name} is missing: {names:?}");
    }
}

#[test]
fn the_packets_inside_are_seen_and_those_of_others_are_not() {
    if !root_or_skip("the_packets_inside_are_seen_and_those_of_others_are_not") {
        return;
    }
    const PINGS: &str = "5";
    let place = Place::new();
    place.rig.ip(Ns::Origin, &["route", "add", "198.18.64.0/24", "via", "198.19.0.1"]);
    let script = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    assert!(place.rig.command(Ns::Gateway, "sh").args(["-c", script]).status().unwrap().success());
    let pool = ["--xdp", "off", "--ip-pool", "198.18.64.0/24", "--ip-route", "198.19.0.0/24"];
    let gateway = place.gateway(GATEWAY_V4, &pool);
    let tun = ["--xdp", "off", "--tun", "beam0", "--route", "198.19.0.0/24"];
    let client = place.connect_args(GATEWAY_V4, &tun);
    let client = Beam::start(&place.rig, Ns::Client, "client", &crate::pair::words(&client));
    client.process.wait_for_line(" to 198.19.0.0/24", LIMIT);

    let inner = ["--point", "inner", "--client", "alice"];
    let of_alice = Capture::start(&place, &gateway, "alice", &inner);
    let of_bob = Capture::start(&place, &gateway, "bob", &["--point", "inner", "--client", "bob"]);
    let at_client =
        Capture::start(&place, &client, "inner-client", &["--point", "inner", "-i", "inner", "-s", "40"]);
    let dropped = Capture::start(&place, &client, "inner-drop", &["--point", "drop"]);
    let before = drops(&client, "ip_other_source");
    let ping = |more: &[&str]| {
        let mut ping = place.rig.command(Ns::Client, "ping");
        ping.args(["-c", PINGS, "-i", "0.1", &ORIGIN_V4.to_string()]).args(more).output().unwrap()
    };
    assert!(ping(&["-W", "5"]).status.success());

    let (alice, said) = of_alice.stop();
    let echoes = "icmp.type == 8 || icmp.type == 0";
    assert_eq!((count(&alice, echoes), said.missed), (10, 0), "{said:?}");
    assert_eq!(
        (count(&alice, "icmp.type == 8 && frame.packet_flags_direction == 2")),
        5,
        "out to the network"
    );
    let (bob, said) = of_bob.stop();
    assert_eq!((count(&bob, "frame"), said.captured), (0, 0), "{said:?}");
    assert!(said.said.contains("bob has no connection"), "{said:?}");
    let (at_client, _) = at_client.stop();
    assert_eq!(count(&at_client, &format!("({echoes}) && frame.cap_len == 40 && frame.len == 84")), 10);

    // From an address that isn't the tunnel's: it stays at home, and the reason stands with the packet.
    place.rig.ip(Ns::Client, &["address", "add", "203.0.113.7/32", "dev", "beam0"]);
    assert!(!ping(&["-W", "1", "-I", "203.0.113.7"]).status.success());
    let counted = drops(&client, "ip_other_source") - before;
    let (dropped, said) = dropped.stop();
    assert_eq!((count(&dropped, "frame.comment == \"ip_other_source\""), said.captured), (counted, counted));
    let fields = ["-T", "fields", "-e", "ip.src", "-e", "ip.dst"];
    let pings = tshark(&dropped, &[&["-Y", "icmp"], &fields[..]].concat());
    assert_eq!(pings, ["203.0.113.7\t198.19.0.2"; 5]);
}

fn drops(beam: &Beam, name: &str) -> u64 {
    beam.status()["drops"][name].as_u64().unwrap_or(0)
}
