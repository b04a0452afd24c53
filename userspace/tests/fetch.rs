//! Goal: the main job, end to end: what an ordinary `curl` fetches through the tunnel is byte for byte what the origin
//! serves, on every kind of datapath, and the packets go where the status says they go.
//! Method: 64 MiB of a pattern whose SHA-256 is known, over `-L` and `-D`, IPv4 and IPv6; modes read back from the status
//! and from the kernel; after the last packet each end's frames add up, and what one end sent the other has received.

mod pair;
mod rig;

use std::net::IpAddr;
use std::process::Command;

use pair::{FORWARD_PORT, Place, SOCKS_PORT, number, over_workers, pattern_sha256, settled, until, workers};
use rig::{Beam, GATEWAY_V4, GATEWAY_V6, HttpServer, Ns, ORIGIN_V4, ORIGIN_V6, authority};
use serde_json::{Value, json};

const BODY_BYTES: u64 = 64 << 20;
/// UDP payload of a full packet on a 1500-byte link over IPv6, where path MTU discovery ends.
const PACKET_BYTES_MAX: u64 = 1452;
/// Packets that may pass through the kernel's socket beside AF_XDP: the first flight of each end, before the neighbour
/// of an address is known. 64 MiB are some 47,000 packets.
const KERNEL_PACKETS_MAX: u64 = 16;

/// How each end moves packets, by `--xdp`.
struct Modes {
    gateway: &'static str,
    client: &'static str,
}

/// `xdp_mode` of the status and the kernel's hook, by what was asked for.
fn expected(asked: &str) -> (&'static str, Option<&'static str>) {
    match asked {
        "native" | "auto" => ("native-copy", Some("native")),
        "skb" => ("skb-copy", Some("skb")),
        _ => ("off", None),
    }
}

fn flags(xdp: &'static str, interface: &'static str) -> Vec<&'static str> {
    if xdp == "off" { vec!["--xdp", "off"] } else { vec!["--xdp", xdp, "-i", interface] }
}

/// Fetches over a tunnel to `gateway` with `fetch`, then holds both ends to their counters.
fn job(gateway: IpAddr, origin: IpAddr, modes: &Modes, fetch: impl Fn(&Place, &HttpServer)) {
    let place = Place::new();
    place.rig.set_hosts(Ns::Gateway, &format!("{origin} origin.beam.example\n"));
    let http = HttpServer::start(&place.rig, Ns::Origin, origin, 0);
    let serving = place.gateway(gateway, &flags(modes.gateway, "g0"));
    let client = place.client(gateway, &http.address().to_string(), &flags(modes.client, "c0"));
    for (end, ns, asked) in [(&serving, Ns::Gateway, modes.gateway), (&client, Ns::Client, modes.client)] {
        let (mode, hook) = expected(asked);
        let status = end.status();
        for worker in workers(&status) {
            assert_eq!(worker["xdp_mode"], mode, "the mode read back: {status:#}");
        }
        assert_eq!(place.rig.xdp_hook(ns, ns.interface()), hook, "the kernel's word about {ns:?}");
    }

    fetch(&place, &http);
    assert_eq!(http.body_bytes(), BODY_BYTES);

    let (gateway_status, client_status) = both_settled(&serving, &client);
    for (status, asked) in [(&gateway_status, modes.gateway), (&client_status, modes.client)] {
        frames_add_up(status);
        bypass_is_real(status, asked);
    }
    nothing_vanishes(&place, (Ns::Gateway, &gateway_status), (Ns::Client, &client_status));
    nothing_vanishes(&place, (Ns::Client, &client_status), (Ns::Gateway, &gateway_status));
    let payload_bytes =
        over_workers(&client_status, "xsk_rx_bytes") + over_workers(&client_status, "kernel_rx_bytes");
    assert!(payload_bytes > BODY_BYTES, "{payload_bytes} bytes can't hold the body");
}

/// The statuses of both ends at one moment of silence: a packet may still be on its way when the first is asked.
fn both_settled(gateway: &Beam, client: &Beam) -> (Value, Value) {
    settled(gateway);
    let client_status = settled(client);
    (settled(gateway), client_status)
}

fn frames_add_up(status: &Value) {
    let conservation = &status["conservation"];
    assert_eq!(conservation["holds"], true, "{status:#}");
    assert_eq!(conservation["in_flight"], 0, "{status:#}");
    assert_eq!(
        number(conservation, "frames_in"),
        number(conservation, "delivered") + number(conservation, "dropped"),
        "{status:#}"
    );
    assert_eq!(
        number(conservation, "frames_in"),
        over_workers(status, "xsk_rx_frames") + over_workers(status, "kernel_rx_packets"),
        "the workers' own counts: {status:#}"
    );
    for frames in workers(status).flat_map(|worker| worker["frames"].as_array().expect("a list")) {
        assert_eq!(frames["holds"], true, "{status:#}");
        assert_eq!((number(frames, "tx"), number(frames, "out")), (0, 0), "nothing moves: {status:#}");
    }
}

/// Datagrams that the kernel had no room for at the receiver. A clean link loses nothing else, and not even these where
/// the machine is quick enough; but two cores carry both ends here, and whoever else runs on them.
const ROOM: [&str; 3] = ["udp_rx_buffer_full", "xsk_rx_dropped", "xsk_rx_ring_full"];

/// Packet for packet: what one end gave to the wire the other has taken in, or somebody says what became of it.
fn nothing_vanishes(place: &Place, from: (Ns, &Value), to: (Ns, &Value)) {
    let drops = to.1["drops"].as_object().expect("drops are an object");
    let foreign: Vec<_> = drops.keys().filter(|name| !ROOM.contains(&name.as_str())).collect();
    assert!(foreign.is_empty(), "{foreign:?} on a clean link: {:#}", to.1);
    let for_want_of_room: u64 = drops.values().map(|n| n.as_u64().expect("a count")).sum();
    let by_veth = place.rig.tx_dropped(from.0, from.0.interface());
    if for_want_of_room + by_veth > 0 {
        println!(
            "{:?} to {:?}: {drops:?}, and {by_veth} dropped by the veth: the machine is busy",
            from.0, to.0
        );
    }
    let accounted = number(&to.1["conservation"], "frames_in") + for_want_of_room;
    // Exact, unless the veth dropped something: its count doesn't tell the tunnel's packets from the kernel's own
    // (neighbour discovery, multicast listener reports).
    assert!(
        (accounted..=accounted + by_veth).contains(&sent(from.1)),
        "{} sent by {:?}, {accounted} taken in by {:?} or counted in {drops:?}, and {by_veth} dropped by the veth",
        sent(from.1),
        from.0,
        to.0
    );
}

/// Everything that an end gave to the wire.
fn sent(status: &Value) -> u64 {
    over_workers(status, "xsk_tx_frames") + over_workers(status, "kernel_tx_packets")
}

/// The frames of the XDP sockets carry the bytes, and the kernel's sockets next to nothing; or the other way round.
fn bypass_is_real(status: &Value, asked: &str) {
    let least_packets = if status["role"] == "client" { BODY_BYTES / PACKET_BYTES_MAX } else { 1 };
    let (rx_frames, kernel_packets) = (number(status, "xsk_rx_frames"), number(status, "kernel_udp_packets"));
    println!(
        "{} with --xdp {asked}: {rx_frames} frames in and {} out by XSK, {kernel_packets} packets by the kernel",
        status["role"], status["xsk_tx_frames"]
    );
    if asked == "off" {
        assert_eq!((rx_frames, number(status, "xsk_tx_frames")), (0, 0), "{status:#}");
        assert!(kernel_packets >= least_packets, "{status:#}");
    } else {
        assert!(rx_frames >= least_packets, "{status:#}");
        assert!(kernel_packets <= KERNEL_PACKETS_MAX, "{kernel_packets} packets leaked past XDP: {status:#}");
    }
}

fn by_forward(place: &Place, _: &HttpServer) {
    let url = format!("http://127.0.0.1:{FORWARD_PORT}/{BODY_BYTES}");
    assert_eq!(place.curl(&[&url]), (BODY_BYTES, pattern_sha256(BODY_BYTES)));
}

#[test]
fn native_on_both_ends_over_ipv4() {
    if !rig::root_or_skip("native_on_both_ends_over_ipv4") {
        return;
    }
    let modes = Modes { gateway: "native", client: "native" };
    job(GATEWAY_V4.into(), ORIGIN_V4.into(), &modes, by_forward);
}

#[test]
fn native_on_both_ends_over_ipv6() {
    if !rig::root_or_skip("native_on_both_ends_over_ipv6") {
        return;
    }
    let modes = Modes { gateway: "native", client: "native" };
    job(GATEWAY_V6.into(), ORIGIN_V6.into(), &modes, by_forward);
}

/// The client's namespace can't resolve the name: only the gateway's hosts file has it.
#[test]
fn socks_with_a_name_that_the_gateway_resolves() {
    if !rig::root_or_skip("socks_with_a_name_that_the_gateway_resolves") {
        return;
    }
    let modes = Modes { gateway: "auto", client: "auto" };
    job(GATEWAY_V4.into(), ORIGIN_V6.into(), &modes, |place, http| {
        let proxy = format!("127.0.0.1:{SOCKS_PORT}");
        let url = format!("http://origin.beam.example:{}/{BODY_BYTES}", http.address().port());
        let fetched = place.curl(&["--socks5-hostname", &proxy, &url]);
        assert_eq!(fetched, (BODY_BYTES, pattern_sha256(BODY_BYTES)));
    });
}

#[test]
fn generic_xdp_on_both_ends() {
    if !rig::root_or_skip("generic_xdp_on_both_ends") {
        return;
    }
    job(GATEWAY_V4.into(), ORIGIN_V4.into(), &Modes { gateway: "skb", client: "skb" }, by_forward);
}

#[test]
fn kernel_udp_on_both_ends() {
    if !rig::root_or_skip("kernel_udp_on_both_ends") {
        return;
    }
    job(GATEWAY_V4.into(), ORIGIN_V4.into(), &Modes { gateway: "off", client: "off" }, by_forward);
}

#[test]
fn a_client_without_xdp_reaches_a_gateway_with_it() {
    if !rig::root_or_skip("a_client_without_xdp_reaches_a_gateway_with_it") {
        return;
    }
    job(GATEWAY_V4.into(), ORIGIN_V4.into(), &Modes { gateway: "native", client: "off" }, by_forward);
}

#[test]
fn a_client_with_xdp_reaches_a_gateway_without_it() {
    if !rig::root_or_skip("a_client_with_xdp_reaches_a_gateway_without_it") {
        return;
    }
    job(GATEWAY_V6.into(), ORIGIN_V4.into(), &Modes { gateway: "off", client: "native" }, by_forward);
}

/// What a person reads, held against the JSON of the same daemon.
#[test]
fn the_status_screen_tells_what_the_object_tells() {
    if !rig::root_or_skip("the_status_screen_tells_what_the_object_tells") {
        return;
    }
    let place = Place::new();
    let http = HttpServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let client = place.client(GATEWAY_V4, &http.address().to_string(), &["--xdp", "off"]);
    place.curl(&[&format!("http://127.0.0.1:{FORWARD_PORT}/100000")]);
    for (beam, role) in [(&gateway, "gateway"), (&client, "client")] {
        // Between two objects that agree: now and then a probe of the path's MTU breaks the silence.
        let ask = || (settled(beam), status_text(beam), settled(beam));
        let agree =
            |(before, _, after): &(Value, String, Value)| before["conservation"] == after["conservation"];
        let (status, screen, _) = until("nothing moves while we look", ask, agree);
        println!("{screen}");
        let first = screen.lines().next().unwrap();
        assert!(first.contains(role) && first.contains(": ready, up "), "{first}");
        assert!(first.contains(&authority(GATEWAY_V4, pair::TUNNEL_PORT)), "{first}");
        assert!(screen.contains("flows 0 (opened 1)"), "{screen}");
        if status["drops"] == json!({}) {
            assert!(screen.contains("\ndrops: none\n"), "{screen}");
        }
        let conservation = &status["conservation"];
        let sum = format!(
            "frames: in {} = delivered {} + dropped 0 + in flight 0\n",
            conservation["frames_in"], conservation["delivered"]
        );
        assert!(screen.contains(&sum), "wanted {sum:?} in:\n{screen}");
        for worker in workers(&status) {
            let mode = worker["xdp_mode"].as_str().unwrap();
            let line =
                screen.lines().find(|line| line.trim_start().starts_with(&format!("{} ", worker["id"])));
            assert!(line.is_some_and(|line| line.contains(mode)), "{mode} of {worker}: {screen}");
        }
    }
    let screen = status_text(&gateway);
    for part in ["g0/0", "g0/1", "native-copy", "steering on g0: ", "zero-copy: the driver has no zero-copy"]
    {
        assert!(screen.contains(part), "wanted {part:?} in:\n{screen}");
    }
    assert!(status_text(&client).contains("why: --xdp off"));
}

fn status_text(beam: &Beam) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beam"));
    let out = command.args(["status", "--control"]).arg(&beam.control).output().expect("run beam status");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("the screen is UTF-8")
}
