//! ICMP port unreachable, from userspace: how a local UDP client hears that nobody is at the far end of its flow.
//!
//! The kernel answers so for a port without a socket, but ours has one, for all clients of a listener. A raw socket can
//! say it to one of them: the kernel finds the client's socket by the headers inside, and a connected one gets
//! ECONNREFUSED. It takes CAP_NET_RAW, which a client of AF_XDP has anyway; without it nothing is sent.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, SocketAddr};

/// Bytes of an ICMP header of either version.
const ICMP_BYTES: usize = 8;
/// Port unreachable: type and code (RFC 792, RFC 4443 section 3.1).
const V4: [u8; 2] = [3, 3];
const V6: [u8; 2] = [1, 4];
const UDP: u8 = 17;

/// Raw sockets, where the process may have them.
pub struct Refuser {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Refuser {
    /// Opens what it may.
    #[must_use]
    pub fn open() -> Self {
        let raw = |domain, protocol| {
            let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol)).ok()?;
            // What comes in goes to every raw socket of the host; this one wants none of it.
            let _ = socket.set_recv_buffer_size(1);
            Some(socket)
        };
        Self { v4: raw(Domain::IPV4, Protocol::ICMPV4), v6: raw(Domain::IPV6, Protocol::ICMPV6) }
    }

    /// Tells `client` that nobody listens on `port`, which it has sent a datagram to. False if that could not be sent.
    pub fn refuse(&self, client: SocketAddr, port: SocketAddr) -> bool {
        let (socket, message) = match (client.ip(), port.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut inner = [0; 28];
                inner[..4].copy_from_slice(&[0x45, 0, 0, 28]);
                inner[8..10].copy_from_slice(&[64, UDP]);
                inner[12..16].copy_from_slice(&from.octets());
                inner[16..20].copy_from_slice(&to.octets());
                let (header, _) = inner.split_first_chunk_mut::<20>().expect("28 bytes begin with 20");
                let checksum = wire::checksum::ipv4_header(header);
                header[10..12].copy_from_slice(&checksum);
                (&self.v4, message(V4, &inner, client.port(), port.port()))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut inner = [0; 48];
                inner[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 8, UDP, 64]);
                inner[8..24].copy_from_slice(&from.octets());
                inner[24..40].copy_from_slice(&to.octets());
                (&self.v6, message(V6, &inner, client.port(), port.port()))
            }
            _ => return false,
        };
        // The port of an address means nothing to a raw socket, and IPv6 refuses one.
        let mut to = client;
        to.set_port(0);
        socket.as_ref().is_some_and(|socket| socket.send_to(&message, &SockAddr::from(to)).is_ok())
    }
}

/// An ICMP message about a datagram from `source_port` to `destination_port`, behind the IP header that `inner` begins
/// with. Of an ICMPv6 one the kernel makes the checksum (RFC 3542 section 3.1).
fn message(kind: [u8; 2], inner: &[u8], source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut message = vec![0; ICMP_BYTES + inner.len()];
    message[..2].copy_from_slice(&kind);
    message[ICMP_BYTES..].copy_from_slice(inner);
    let udp = message.len() - 8;
    message[udp..udp + 2].copy_from_slice(&source_port.to_be_bytes());
    message[udp + 2..udp + 4].copy_from_slice(&destination_port.to_be_bytes());
    message[udp + 4..udp + 6].copy_from_slice(&8_u16.to_be_bytes());
    if kind == V4 {
        let checksum = wire::checksum::Sum::of(&message).checksum();
        message[2..4].copy_from_slice(&checksum);
    }
    message
}

#[cfg(test)]
mod tests {
    //! Goal: a connected client hears ECONNREFUSED from a port that has a socket, and its neighbour hears nothing.
    use super::*;
    use rustix::io::Errno;
    use std::{io, net::UdpSocket, time::Duration};

    #[test]
    fn a_connected_client_is_refused_and_no_other() {
        let refuser = Refuser::open();
        if refuser.v4.is_none() || refuser.v6.is_none() {
            eprintln!("a_connected_client_is_refused_and_no_other: SKIPPED: needs CAP_NET_RAW");
            return;
        }
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let listener = UdpSocket::bind(local).unwrap();
            let clients: [UdpSocket; 2] = std::array::from_fn(|_| {
                let client = UdpSocket::bind(local).unwrap();
                client.connect(listener.local_addr().unwrap()).unwrap();
                client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                client
            });
            assert!(refuser.refuse(clients[0].local_addr().unwrap(), listener.local_addr().unwrap()));
            let error = clients[0].recv(&mut [0; 8]).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::CONNREFUSED), "{local}");
            clients[1].set_nonblocking(true).unwrap();
            assert_eq!(clients[1].recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            clients[0].send(b"again").unwrap();
            assert_eq!(listener.recv(&mut [0; 8]).unwrap(), 5, "the flow can go on");
        }
    }
}
