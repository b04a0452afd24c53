//! Goal: `beam pktgen` sends exactly what it was asked for, refuses what it can't do, and a gateway finds each packet of a
//! flood again under a name, while a tunnel that is there lives on.
//! Method: real namespaces. Kernel sockets, which verify every checksum, count what arrives of each pattern, paced so that
//! nothing has to be dropped. Floods go to a gateway on AF_XDP whose counters are read before and after.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

mod pair;
mod rig;
mod tools;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Output;

use pair::{LIMIT, Place, TUNNEL_PORT, number, until};
use rig::{Beam, CLIENT_V6, EchoServer, GATEWAY_V4, GATEWAY_V6, Ns, ORIGIN_V4, Proc, Rig};
use serde_json::Value;
use tools::{counter, dial, dropped};

const PORT: u16 = 5000;
/// 25,000 packets a second: the kernel's sockets keep up.
const PACE: &str = "-w 40000 -j";

fn beam(rig: &Rig, ns: Ns, line: &str) -> Output {
    rig.command(ns, rig::binary()).args(line.split_whitespace()).output().unwrap()
}

/// Runs it at the client; its JSON.
fn pktgen(rig: &Rig, line: &str) -> Value {
    let out = beam(rig, Ns::Client, &format!("pktgen -i c0 {PACE} {line}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{line}: {}: {said}", out.status);
    assert!(said.contains("drives AF_XDP"), "{said}");
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&said["schema"], &said["drives"]), (&"beam.pktgen.v1".into(), &"AF_XDP".into()));
    said
}

fn refused(rig: &Rig, line: &str, code: i32, says: &str) {
    let out = beam(rig, Ns::Client, &format!("pktgen {line}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(code) && said.contains(says), "{line}: {}: {said}", out.status);
    assert_eq!(out.stdout, b"", "{line}");
}

/// A socket in the gateway's namespace that has room for all that is sent here.
fn sink(rig: &Rig, address: impl Into<IpAddr>) -> UdpSocket {
    let address = SocketAddr::new(address.into(), PORT);
    let socket = rig.within(Ns::Gateway, || UdpSocket::bind(address)).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// What waits at a socket, once `count` datagrams have come and no more do: lengths and senders.
fn arrived(sink: &UdpSocket, count: usize) -> Vec<(usize, SocketAddr)> {
    let (mut all, mut buffer) = (Vec::new(), [0; 2048]);
    until(
        &format!("{count} datagrams"),
        || {
            while let Ok(one) = sink.recv_from(&mut buffer) {
                all.push(one);
            }
            all.len()
        },
        |&len| len >= count,
    );
    assert_eq!(all.len(), count);
    all
}

/// Learns the gateway's MAC addresses, as somebody who means to send would.
fn know_neighbours(rig: &Rig) {
    for to in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        tools::network::must_ping(&rig.netns(Ns::Client), &[&to.to_string()]);
    }
}

#[test]
fn each_pattern_arrives_to_the_packet() {
    if !rig::root_or_skip("each_pattern_arrives_to_the_packet") {
        return;
    }
    let rig = Rig::new();
    know_neighbours(&rig);
    let (v4, v6) = (sink(&rig, GATEWAY_V4), sink(&rig, GATEWAY_V6));
    let (to4, to6) = (format!("-d {GATEWAY_V4} -p {PORT}"), format!("-6 -d {GATEWAY_V6} -p {PORT}"));
    // Flags, socket, packets, bytes of UDP payload in all.
    for (flags, sink, count, bytes) in [
        (format!("{to4} -n 1000"), &v4, 1000, 18_000),
        (format!("{to6} -n 1000"), &v6, 1000, 16_000),
        (format!("{to4} -n 500 -s 1514"), &v4, 500, 500 * 1472),
        (format!("{to4} -n 1003 -b 16"), &v4, 1003, 1003 * 18),
        (format!("{to4} -n 500 -t 2"), &v4, 1000, 18_000),
        (format!("{to4} -n 120 --imix"), &v4, 120, 10 * (7 * 18 + 4 * 548 + 1472)),
        (format!("{to6} -n 120 --imix"), &v6, 120, 10 * (7 * 16 + 4 * 528 + 1452)),
        (format!("{to4} -n 60 --quic initial"), &v4, 60, 60 * 1200),
        (format!("{to6} -n 60 --quic mixed"), &v6, 60, 60 * 1200),
        (format!("{to4} -n 60 --quic short -s 122"), &v4, 60, 60 * 80),
    ] {
        let said = pktgen(&rig, &flags);
        assert_eq!((number(&said, "packets"), number(&said, "errors")), (count as u64, 0), "{flags}: {said}");
        let all = arrived(sink, count);
        assert_eq!(all.iter().map(|(length, _)| length).sum::<usize>(), bytes, "{flags}");
    }

    let said = pktgen(&rig, &format!("{to4} -n 120 --imix"));
    assert_eq!(said["sizes"], serde_json::json!({"60": 70, "590": 40, "1514": 10}));
    arrived(&v4, 120);

    // Many flows: of the prefix and the range, and many; with clones each five times in a row.
    // Not the half with the gateway's own address, which the kernel would take for a martian.
    let many = "--sources 198.18.0.128/25 --source-ports 1024-65534";
    pktgen(&rig, &format!("{to4} -n 1000 {many}"));
    let senders: Vec<SocketAddr> = arrived(&v4, 1000).into_iter().map(|(_, from)| from).collect();
    let inside = |from: &SocketAddr| from.port() >= 1024 && from.ip().to_string().starts_with("198.18.0.");
    assert!(senders.iter().all(inside));
    assert!(senders.iter().collect::<BTreeSet<_>>().len() > 950);
    pktgen(&rig, &format!("{to4} -n 1000 -c 5 {many}"));
    let senders: Vec<SocketAddr> = arrived(&v4, 1000).into_iter().map(|(_, from)| from).collect();
    assert!(senders.chunks(5).all(|five| five.iter().all(|one| *one == five[0])));
    pktgen(&rig, &format!("{to6} -n 100"));
    assert!(arrived(&v6, 100).iter().all(|(_, from)| *from == SocketAddr::new(CLIENT_V6.into(), 9)));

    tags_arrive(&rig);
}

/// A packet socket sees frames once the kernel has taken the outermost tag off: what had one is four bytes shorter than any
/// frame was sent, and of two tags the inner one is still there.
fn tags_arrive(rig: &Rig) {
    use socket2::{Domain, Protocol, Socket, Type};
    let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    let socket = rig.within(Ns::Gateway, || Socket::new(Domain::PACKET, Type::RAW, Some(all))).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20).unwrap();
    socket.set_nonblocking(true).unwrap();
    const INNER: [u8; 4] = [0x81, 0, 0, 8];
    for (tags, sent_bytes, expected) in
        [("--vlan 8", 62, [8, 0, 0x45, 0]), ("--vlan 8 --outer-vlan 7", 66, INNER)]
    {
        let said = pktgen(rig, &format!("-d {GATEWAY_V4} -p {PORT} -n 200 {tags}"));
        assert_eq!((number(&said, "frame_bytes"), number(&said, "packets")), (sent_bytes, 200), "{said}");
        let (mut count, mut frame) = (0, [0; 2048]);
        until(
            "200 tagged frames",
            || {
                while let Ok(length) = (&socket).read(&mut frame) {
                    count += u64::from(length as u64 == sent_bytes - 4 && frame[12..16] == expected);
                }
                count
            },
            |&count| count >= 200,
        );
        assert_eq!(count, 200, "{tags}");
    }
}

#[test]
fn what_can_t_be_sent_is_refused() {
    if !rig::root_or_skip("what_can_t_be_sent_is_refused") {
        return;
    }
    let place = Place::new();
    let rig = &place.rig;
    let to = format!("-i c0 -d {GATEWAY_V4}");
    refused(rig, "-i c0", 2, "--destination");
    refused(rig, "-i c0 -d 198.18.0.256", 2, "neither an address");
    refused(rig, "-i c0 -d 2001:db8::1", 2, "give -6, too");
    refused(rig, &format!("{to} -s 59"), 2, "60");
    refused(rig, &format!("{to} --quic initial -s 1241"), 2, "1242 bytes at least");
    refused(rig, &format!("{to} --imix -s 64"), 2, "cannot be used with");
    refused(rig, &format!("{to} --outer-vlan 5"), 2, "--vlan");
    refused(rig, &format!("{to} -m 02:00"), 2, "not a MAC address");
    refused(rig, "-i c7 -d 198.18.0.1", 4, "there is no such interface; there are: lo, c0");
    refused(rig, "-i lo -d 127.0.0.1", 4, "not Ethernet");
    refused(rig, "-i c0 -d 198.18.0.77", 4, "no MAC address for 198.18.0.77 on c0; ping it first");
    refused(rig, &format!("{to} -s 1515"), 4, "its MTU is 1500, so a frame may have 1514");
    tools::network::must_ping(&rig.netns(Ns::Client), &[&GATEWAY_V4.to_string()]);
    refused(rig, &format!("{to} -t 3"), 4, "sends on 2 queue(s)");
    refused(rig, &format!("{to} -f 8000"), 4, "there is no CPU 8000");
    let line = format!("pktgen {to} -n 1");
    let without = ["--bounding-set=-net_raw", "--inh-caps=-net_raw"];
    let mut command = rig.command(Ns::Client, "setpriv");
    command.args(without).arg(rig::binary()).args(line.split_whitespace());
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(4) && said.contains("lacks CAP_NET_RAW"), "{}: {said}", out.status);

    // A queue has one socket: a running beam's interface is not sent from.
    let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
    let mac = "-m 02:00:00:00:00:09";
    let out = beam(rig, Ns::Gateway, &format!("pktgen -i g0 -d 198.18.0.2 {mac} -n 1"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.code() == Some(4) && said.contains("queue 0 of g0 is still in use"),
        "{}: {said}",
        out.status
    );
    assert_eq!(gateway.status()["ready"], true);

    rig.ip(Ns::Client, &["link", "set", "c0", "down"]);
    refused(rig, &format!("{to} {mac}"), 4, "ip link set dev c0 up");
}

#[test]
fn ctrl_c_ends_an_endless_run_with_its_counts() {
    if !rig::root_or_skip("ctrl_c_ends_an_endless_run_with_its_counts") {
        return;
    }
    let rig = Rig::new();
    know_neighbours(&rig);
    let sink = sink(&rig, GATEWAY_V4);
    let mut command = rig.command(Ns::Client, rig::binary());
    let line = format!("pktgen -i c0 -d {GATEWAY_V4} -p {PORT} -n 0 {PACE}");
    command.args(line.split_whitespace()).stdout(std::process::Stdio::piped());
    let mut running = Proc::spawn("pktgen", &mut command);
    let mut stdout = running.stdout();
    let mut some = [0; 64];
    until("a first packet", || sink.recv(&mut some).is_ok(), |&came| came);
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.wait(LIMIT).code(), Some(0), "{}", running.stderr());
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["interrupted"], true);
    arrived(&sink, number(&said, "packets") as usize - 1);
}

/// A gateway with an established flow through a client on the kernel's sockets, so that `c0` is free.
struct Flooded {
    stream: std::net::TcpStream,
    gateway: Beam,
    client: Beam,
    _echo: EchoServer,
    place: Place,
}

impl Flooded {
    fn new() -> Self {
        let place = Place::new();
        let echo = EchoServer::start(&place.rig, Ns::Origin, ORIGIN_V4, 0);
        let gateway = place.gateway(GATEWAY_V4, &["--xdp", "native", "-i", "g0"]);
        let client = place.client(GATEWAY_V4, &echo.address().to_string(), &["--xdp", "off"]);
        let stream = dial(&place, pair::FORWARD_PORT);
        let mut all = Self { stream, gateway, client, _echo: echo, place };
        all.echo(b"before");
        all
    }

    fn echo(&mut self, words: &[u8]) {
        self.stream.write_all(words).unwrap();
        let mut back = vec![0; words.len()];
        self.stream.read_exact(&mut back).unwrap();
        assert_eq!(back, words);
    }

    /// The one tunnel is the one that was there before.
    fn survived(&self) {
        let status = self.client.status();
        assert_eq!((counter(&status, "reconnects"), number(&status, "flows")), (0, 1), "{status:#}");
    }

    /// Sends, and says what the gateway counted before and after.
    fn flood(&mut self, flags: &str) -> (Value, Value) {
        self.flood_at(TUNNEL_PORT, flags)
    }

    fn flood_at(&mut self, port: u16, flags: &str) -> (Value, Value) {
        let before = silent(&self.gateway);
        let said = pktgen(&self.place.rig, &format!("-d {GATEWAY_V4} -p {port} {flags}"));
        assert_eq!(number(&said, "errors"), 0, "{flags}: {said}");
        self.echo(flags.as_bytes());
        (before, silent(&self.gateway))
    }
}

/// The status once nothing comes or goes any more, with the flow open.
fn silent(gateway: &Beam) -> Value {
    let is_silent =
        |status: &Value| status["rates"]["rx_packets_per_s"] == 0 && status["rates"]["tx_packets_per_s"] == 0;
    until("the gateway falls silent", || gateway.status(), is_silent)
}

fn by(before: &Value, after: &Value, of: fn(&Value, &str) -> u64, name: &str) -> u64 {
    of(after, name) - of(before, name)
}

fn steered(status: &Value, name: &str) -> u64 {
    status["interfaces"][0]["steering"][name].as_u64().unwrap_or(0)
}

/// Packets of a flood that the gateway's sockets got: all that weren't the tunnel's own, none of them lost on the way.
fn at_the_sockets(before: &Value, after: &Value) -> u64 {
    let redirected = by(before, after, steered, "ours_redirected");
    let received = by(before, after, number, "xsk_rx_frames");
    let no_room: u64 =
        ["xsk_rx_dropped", "xsk_rx_ring_full"].map(|name| by(before, after, dropped, name)).iter().sum();
    assert_eq!(redirected, received + no_room, "{before:#} {after:#}");
    assert_eq!(no_room, 0, "at this pace nothing is lost: {after:#}");
    assert_eq!(after["conservation"]["holds"], true, "{after:#}");
    received - by(before, after, counter, "datagrams_routed")
}

#[test]
fn a_gateway_names_every_packet_of_a_flood_and_its_tunnel_lives() {
    if !rig::root_or_skip("a_gateway_names_every_packet_of_a_flood_and_its_tunnel_lives") {
        return;
    }
    let mut world = Flooded::new();
    let (before, after) = world.flood("--quic short -n 600");
    assert_eq!(at_the_sockets(&before, &after), 600, "{after:#}");
    assert_eq!(by(&before, &after, dropped, "drop_cid_unknown"), 600, "{after:#}");
    // No reset token was ever given out for a random CID, so there is nobody to reset.
    assert_eq!(by(&before, &after, counter, "stateless_resets_sent"), 0, "{after:#}");

    let (before, after) = world.flood("--quic version -n 300");
    assert_eq!(at_the_sockets(&before, &after), 300, "{after:#}");
    assert_eq!(by(&before, &after, counter, "version_negotiations_sent"), 300, "{after:#}");

    let (before, after) = world.flood("--quic malformed -n 600");
    for name in ["drop_udp_long", "drop_udp_short", "drop_ip_checksum"] {
        assert_eq!(by(&before, &after, steered, name), 100, "{name}: {after:#}");
    }
    for (name, count) in [("rx_checksum", 100), ("drop_cid_unknown", 100), ("drop_initial_too_short", 100)] {
        assert_eq!(by(&before, &after, dropped, name), count, "{name}: {after:#}");
    }

    // Behind a tag that no VLAN device takes off, too.
    let (before, after) = world.flood("-n 300 --vlan 7");
    assert_eq!(at_the_sockets(&before, &after), 300, "{after:#}");
    assert_eq!(by(&before, &after, dropped, "drop_version_too_short"), 300, "{after:#}");

    // What isn't for the gateway passes to the kernel.
    let (before, after) = world.flood_at(TUNNEL_PORT + 1, "-n 300");
    assert_eq!(by(&before, &after, steered, "pass_other_target"), 300, "{after:#}");
    assert_eq!(at_the_sockets(&before, &after), 0, "{after:#}");

    // Each asks for a handshake: some get one, then all others are asked to prove their address first.
    let (before, after) = world.flood("--quic initial -n 600 --source-ports 1024-65534");
    assert_eq!(at_the_sockets(&before, &after), 600, "{after:#}");
    let counted = |name| by(&before, &after, counter, name);
    let (started, retries) = (counted("handshakes_started"), counted("retries_sent"));
    assert_eq!(started + retries, 600, "{after:#}");
    assert!(started > 0 && retries > 0, "{started} handshakes, {retries} retries: {after:#}");
    assert_eq!((counted("retry_engaged"), counted("handshakes_completed")), (1, 0), "{after:#}");

    let (before, after) = world.flood("--quic mixed -n 600 --source-ports 1024-65534");
    assert_eq!(by(&before, &after, dropped, "drop_cid_unknown"), 300, "{after:#}");
    let counted = |name| by(&before, &after, counter, name);
    assert_eq!(counted("handshakes_started") + counted("retries_sent"), 300, "{after:#}");
    world.survived();
}
