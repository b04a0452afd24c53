//! SOCKS5 UDP ASSOCIATE (RFC 1928 section 7) in `-D`.

use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Stdio;

use crate::echo::{UdpEcho, payload};
use crate::pair::{LIMIT, Place, SOCKS_PORT, until};
use crate::rig::{Ns, ORIGIN_V4, ORIGIN_V6, Proc, patiently, python, root_or_skip};
use crate::tools::{Tunnel, counter, dropped, dropped_in_all, read_some, until_counter};

const NAME: &str = "echo.beam.example";

/// An association: its TCP connection and where to send to.
struct Association {
    control: TcpStream,
    relay: SocketAddr,
}

impl Association {
    /// Asks for one; `port` is what the client says it will send from.
    fn open(tunnel: &Tunnel, port: u16) -> Self {
        let mut control = tunnel.socks();
        let [high, low] = port.to_be_bytes();
        control.write_all(&[5, 3, 0, 1, 0, 0, 0, 0, high, low]).unwrap();
        let reply = read_some::<10>(&mut control);
        assert_eq!(reply[..4], [5, 0, 0, 1], "success, and an IPv4 address");
        let ip = Ipv4Addr::new(reply[4], reply[5], reply[6], reply[7]);
        assert_eq!(ip, Ipv4Addr::LOCALHOST, "where the TCP listener was reached");
        Self { control, relay: (ip, u16::from_be_bytes([reply[8], reply[9]])).into() }
    }
}

fn local(tunnel: &Tunnel, ip: [u8; 4]) -> UdpSocket {
    let socket = tunnel.place.rig.within(Ns::Client, || UdpSocket::bind((IpAddr::from(ip), 0))).unwrap();
    socket.set_read_timeout(Some(patiently(LIMIT))).unwrap();
    socket
}

fn header(to: SocketAddr) -> Vec<u8> {
    let mut header = vec![0, 0, 0];
    match to.ip() {
        IpAddr::V4(ip) => {
            header.push(1);
            header.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            header.push(4);
            header.extend(ip.octets());
        }
    }
    header.extend(to.port().to_be_bytes());
    header
}

fn header_of_name(name: &str, port: u16) -> Vec<u8> {
    let mut header = vec![0, 0, 0, 3, name.len() as u8];
    header.extend(name.as_bytes());
    header.extend(port.to_be_bytes());
    header
}

fn tunnel(echo: &UdpEcho, place: Place) -> Tunnel {
    place.rig.set_hosts(Ns::Gateway, &format!("{ORIGIN_V4} {NAME}\n"));
    Tunnel::native(place, echo.address())
}

// Addresses of both kinds and a name, from one socket: a flow each, and each answer behind the header of its flow.
// Then what is no datagram of this client's: counted, and the flows run on.
#[test]
fn an_association_relays_by_its_headers_and_drops_the_rest() {
    if !root_or_skip("an_association_relays_by_its_headers_and_drops_the_rest") {
        return;
    }
    let place = Place::new();
    let four = UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V4);
    let six = UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V6);
    let tunnel = tunnel(&four, place);
    let association = Association::open(&tunnel, 0);
    let socket = local(&tunnel, [127, 0, 0, 1]);
    let headers =
        [header(four.address()), header(six.address()), header_of_name(NAME, four.address().port())];
    let mut number = 0;
    let mut echo_all = || {
        for header in &headers {
            let datagram = [&header[..], &payload(number, 100 + number as usize)].concat();
            number += 1;
            socket.send_to(&datagram, association.relay).unwrap();
            let mut buffer = [0; 2048];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&datagram[..], association.relay));
        }
    };
    echo_all();
    echo_all();

    let fragment = [&[0, 0, 1][..], &header(four.address())[3..], b"x"].concat();
    let garbage: [&[u8]; 5] = [
        b"",
        b"\0\0",
        &[0, 0, 0, 9, 1, 2, 3, 4, 0, 7, 1],
        &[0, 0, 0, 1, 1, 2, 3],
        &[1, 0, 0, 1, 1, 2, 3, 4, 0, 7],
    ];
    socket.send_to(&fragment, association.relay).unwrap();
    for bytes in garbage {
        socket.send_to(bytes, association.relay).unwrap();
    }
    // Port 0 is nowhere.
    socket.send_to(&header("198.19.0.2:0".parse().unwrap()), association.relay).unwrap();
    let stranger = local(&tunnel, [127, 0, 0, 2]);
    stranger.send_to(&[&headers[0][..], b"not mine"].concat(), association.relay).unwrap();
    echo_all();

    let status = tunnel.client.status();
    assert_eq!(
        (counter(&status, "udp_flows_opened"), counter(&status, "udp_datagrams_from_sockets")),
        (3, 9)
    );
    for (name, want) in [("socks_udp_fragment", 1), ("socks_udp_garbage", 6), ("socks_udp_stranger", 1)] {
        assert_eq!(dropped(&status, name), want, "{name} of {status:#}");
    }
    assert_eq!(dropped_in_all(&status), 8, "{status:#}");
    assert_eq!((four.counts().0, six.counts().0), (6, 3));

    // The end of the TCP connection is the end of the association, of its socket and of its flows.
    let Association { control, relay } = association;
    drop(control);
    let status = until("the flows are over", || tunnel.client.status(), |status| status["flows"] == 0);
    assert_eq!(counter(&status, "udp_flows_finished"), 3, "{status:#}");
    until_counter(&tunnel.gateway, "udp_flows_finished", 3);
    socket.connect(relay).unwrap();
    socket.send(b"x").unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

// A client that names its port is the only one on its address that may send.
#[test]
fn an_association_for_a_port_is_for_that_port() {
    if !root_or_skip("an_association_for_a_port_is_for_that_port") {
        return;
    }
    let place = Place::new();
    let echo = UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V4);
    let tunnel = tunnel(&echo, place);
    let mine = local(&tunnel, [127, 0, 0, 1]);
    let other = local(&tunnel, [127, 0, 0, 1]);
    let association = Association::open(&tunnel, mine.local_addr().unwrap().port());
    let datagram = [&header(echo.address())[..], b"mine"].concat();
    other.send_to(&datagram, association.relay).unwrap();
    mine.send_to(&datagram, association.relay).unwrap();
    let mut buffer = [0; 64];
    let length = mine.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..length], datagram);
    let status = tunnel.client.status();
    assert_eq!((dropped(&status, "socks_udp_stranger"), echo.counts().0), (1, 1), "{status:#}");
}

// PySocks is a SOCKS5 client with UDP that nobody here wrote.
#[test]
fn pysocks_sends_and_hears_udp() {
    const SCRIPT: &str = "
import socks, socket, sys
host, port = sys.argv[2].rsplit(':', 1)
s = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
s.set_proxy(socks.SOCKS5, '127.0.0.1', int(sys.argv[1]))
s.settimeout(20)
for n in range(50):
    s.sendto(b'%d' % n * 20, (host, int(port)))
    answer, peer = s.recvfrom(2048)
    assert answer == b'%d' % n * 20 and peer[1] == int(port), (answer, peer)
s.close()
";
    if !root_or_skip("pysocks_sends_and_hears_udp") {
        return;
    }
    let place = Place::new();
    let echo = UdpEcho::start(&place.rig, Ns::Origin, ORIGIN_V4);
    let tunnel = tunnel(&echo, place);
    let python = python().expect("scripts/venv makes a Python with PySocks");
    let mut command = tunnel.place.rig.command(Ns::Client, python);
    command.args(["-c", SCRIPT, &SOCKS_PORT.to_string(), &echo.address().to_string()]);
    command.stdout(Stdio::null());
    let mut script = Proc::spawn("pysocks", &mut command);
    let status = script.wait(LIMIT);
    assert!(status.success(), "{status}: {}", script.stderr());
    assert_eq!(echo.counts().0, 50);
    let status = until("the flow is over", || tunnel.client.status(), |status| status["flows"] == 0);
    assert_eq!((counter(&status, "udp_flows_opened"), dropped_in_all(&status)), (1, 0), "{status:#}");
}
