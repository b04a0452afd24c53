//! SOCKS5 (RFC 1928), the server's half of the handshake, sans-IO: bytes in, what to answer out.
//!
//! CONNECT and UDP ASSOCIATE without authentication: the listener is on loopback unless its user says otherwise.
//! [`Datagram`] is the header of a relayed UDP datagram (section 7).

use crate::cli::Destination;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Largest handshake: 257 bytes of greeting, 262 of request; a client may send early data behind it.
pub(crate) const HANDSHAKE_BYTES_MAX: usize = 1024;

const VERSION: u8 = 5;
const KIND_V4: u8 = 1;
const KIND_NAME: u8 = 3;
const KIND_V6: u8 = 4;
const COMMAND_CONNECT: u8 = 1;
const COMMAND_UDP_ASSOCIATE: u8 = 3;

/// Reply codes of RFC 1928 section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    TtlExpired = 6,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

impl Reply {
    /// The reply that says best what the gateway answered, by status and Proxy-Status error (RFC 9209).
    pub(crate) fn from_response(status: u16, proxy_status: &str) -> Self {
        let says = |error: &str| proxy_status.contains(error);
        match status {
            200..=299 => Self::Succeeded,
            401 | 403 | 407 => Self::NotAllowed,
            _ if says("connection_refused") => Self::ConnectionRefused,
            _ if says("dns_error") || says("destination_unavailable") => Self::HostUnreachable,
            _ if says("destination_ip_unroutable") => Self::NetworkUnreachable,
            504 => Self::TtlExpired,
            _ => Self::GeneralFailure,
        }
    }

    /// The reply's bytes; the bound address is not known here and given as 0.0.0.0:0.
    pub(crate) fn bytes(self) -> [u8; 10] {
        [VERSION, self as u8, 0, 1, 0, 0, 0, 0, 0, 0]
    }

    /// A success with the address that a UDP client is to send to.
    pub(crate) fn associated(bound: SocketAddr) -> Vec<u8> {
        let mut bytes = vec![VERSION, Self::Succeeded as u8, 0];
        match bound.ip() {
            IpAddr::V4(ip) => {
                bytes.push(KIND_V4);
                bytes.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                bytes.push(KIND_V6);
                bytes.extend(ip.octets());
            }
        }
        bytes.extend(bound.port().to_be_bytes());
        bytes
    }
}

/// Where the handshake stands.
#[derive(Debug, Default)]
pub(crate) struct Negotiation {
    input: Vec<u8>,
    greeted: bool,
}

/// What the bytes so far ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More bytes are needed.
    More,
    /// Send this, then go on.
    Answer([u8; 2]),
    /// Connect; `early` came in behind the request and belongs to the flow.
    Connect { to: Destination, early: Vec<u8> },
    /// Relay UDP; `port` is where the client will send from, if it has said so.
    Associate { port: Option<u16> },
    /// Send this and close.
    Refuse(Vec<u8>),
}

impl Negotiation {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Room for more input.
    pub(crate) fn room(&self) -> usize {
        HANDSHAKE_BYTES_MAX - self.input.len().min(HANDSHAKE_BYTES_MAX)
    }

    pub(crate) fn step(&mut self) -> Step {
        if self.greeted { self.request() } else { self.greeting() }
    }

    fn greeting(&mut self) -> Step {
        match self.input.as_slice() {
            [] => Step::More,
            [VERSION, count, methods @ ..] => {
                let count = usize::from(*count);
                if methods.len() < count {
                    return Step::More;
                }
                if !methods[..count].contains(&0) {
                    return Step::Refuse(vec![VERSION, 0xff]);
                }
                self.input.drain(..2 + count);
                self.greeted = true;
                Step::Answer([VERSION, 0])
            }
            [VERSION] => Step::More,
            [..] => Step::Refuse(Vec::new()),
        }
    }

    fn request(&mut self) -> Step {
        let refuse = |reply: Reply| Step::Refuse(reply.bytes().to_vec());
        let [version, command, _, kind, rest @ ..] = self.input.as_slice() else { return Step::More };
        if *version != VERSION {
            return Step::Refuse(Vec::new());
        }
        let (to, used) = match destination(*kind, rest) {
            Address::Whole(to, used) => (to, used),
            Address::Cut => return Step::More,
            Address::BadName => return refuse(Reply::GeneralFailure),
            Address::UnknownKind => return refuse(Reply::AddressTypeNotSupported),
        };
        match *command {
            COMMAND_CONNECT => Step::Connect { to, early: rest[used..].to_vec() },
            // The address is not looked at: whoever holds the TCP connection is the one who may send.
            COMMAND_UDP_ASSOCIATE => Step::Associate { port: (to.port != 0).then_some(to.port) },
            _ => refuse(Reply::CommandNotSupported),
        }
    }
}

/// An address, as requests and datagrams carry it.
enum Address {
    /// And how many bytes it takes.
    Whole(Destination, usize),
    Cut,
    BadName,
    UnknownKind,
}

/// ADDR and PORT behind an ATYP.
fn destination(kind: u8, bytes: &[u8]) -> Address {
    let (host, used) = match (kind, bytes) {
        (KIND_V4, [a, b, c, d, ..]) => (Ipv4Addr::new(*a, *b, *c, *d).to_string(), 4),
        (KIND_NAME, [length, name @ ..]) if name.len() >= usize::from(*length) => {
            let length = usize::from(*length);
            match std::str::from_utf8(&name[..length]) {
                Ok(name) if length > 0 => (name.to_owned(), 1 + length),
                _ => return Address::BadName,
            }
        }
        (KIND_V6, [..]) if bytes.len() >= 16 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&bytes[..16]);
            (Ipv6Addr::from(octets).to_string(), 16)
        }
        (KIND_V4 | KIND_NAME | KIND_V6, _) => return Address::Cut,
        _ => return Address::UnknownKind,
    };
    match bytes[used..] {
        [high, low, ..] => {
            Address::Whole(Destination { host, port: u16::from_be_bytes([high, low]) }, used + 2)
        }
        _ => Address::Cut,
    }
}

/// A datagram between a SOCKS client and us: a header, by which its flow is known, and the payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    /// As it stands in front of the answers, too: there it says where they come from.
    pub(crate) header: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// Why a datagram of a SOCKS client is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadDatagram {
    /// "An implementation that does not support fragmentation MUST drop any datagram whose FRAG field is other than X'00'"
    Fragment,
    Garbage,
}

impl<'a> Datagram<'a> {
    /// Splits one. The address is not parsed: most datagrams belong to a flow whose header is known.
    pub(crate) fn split(bytes: &'a [u8]) -> Result<Self, BadDatagram> {
        let [0, 0, fragment, kind, rest @ ..] = bytes else { return Err(BadDatagram::Garbage) };
        if *fragment != 0 {
            return Err(BadDatagram::Fragment);
        }
        let address_bytes = match (*kind, rest) {
            (KIND_V4, _) => 4,
            (KIND_NAME, [length, ..]) => 1 + usize::from(*length),
            (KIND_V6, _) => 16,
            _ => return Err(BadDatagram::Garbage),
        };
        let (header, payload) = bytes.split_at_checked(4 + address_bytes + 2).ok_or(BadDatagram::Garbage)?;
        Ok(Self { header, payload })
    }

    /// Where it is to go; `None` if that is nowhere.
    pub(crate) fn to(&self) -> Option<Destination> {
        match destination(self.header[3], &self.header[4..]) {
            Address::Whole(to, _) if to.port != 0 => Some(to),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the handshake of RFC 1928 for each address type, cut at every byte, and garbage refused without a panic.
    use super::*;

    fn run(input: &[u8], cut: usize) -> Vec<Step> {
        let mut negotiation = Negotiation::default();
        let mut steps = Vec::new();
        for part in [&input[..cut], &input[cut..]] {
            negotiation.push(part);
            loop {
                let step = negotiation.step();
                let stop = !matches!(step, Step::Answer(_));
                if step != Step::More {
                    steps.push(step);
                }
                if stop {
                    break;
                }
            }
            if matches!(steps.last(), Some(Step::Connect { .. } | Step::Associate { .. } | Step::Refuse(_))) {
                break;
            }
        }
        steps
    }

    #[test]
    fn every_address_type_at_every_cut() {
        let mut name = vec![5, 1, 0, 5, 1, 0, 3, 11];
        name.extend_from_slice(b"web.example\x01\xbb");
        let mut six = vec![5, 2, 2, 0, 5, 1, 0, 4];
        six.extend_from_slice(&"2001:db8::5".parse::<Ipv6Addr>().unwrap().octets());
        six.extend_from_slice(&[0, 80]);
        let four = vec![5, 1, 0, 5, 1, 0, 1, 198, 18, 0, 9, 0, 80];
        for (input, host, port) in
            [(name, "web.example", 443), (six, "2001:db8::5", 80), (four, "198.18.0.9", 80)]
        {
            for cut in 0..=input.len() {
                let to = Destination { host: host.into(), port };
                assert_eq!(
                    run(&input, cut),
                    [Step::Answer([5, 0]), Step::Connect { to, early: Vec::new() }],
                    "cut {cut}"
                );
            }
        }
    }

    #[test]
    fn early_data_is_kept() {
        let input = [&[5, 1, 0, 5, 1, 0, 1, 1, 2, 3, 4, 0, 80][..], b"GET /"].concat();
        let Some(Step::Connect { early, .. }) = run(&input, input.len()).pop() else { panic!("no CONNECT") };
        assert_eq!(early, b"GET /");
    }

    #[test]
    fn refusals() {
        assert_eq!(run(b"GET / HTTP/1.1", 4), [Step::Refuse(Vec::new())]);
        assert_eq!(run(&[5, 1, 2], 3), [Step::Refuse(vec![5, 0xff])]);
        let bind = [5, 1, 0, 5, 2, 0, 1, 1, 2, 3, 4, 0, 80];
        assert_eq!(run(&bind, 3).pop(), Some(Step::Refuse(Reply::CommandNotSupported.bytes().to_vec())));
        let kind = [5, 1, 0, 5, 1, 0, 9, 1];
        assert_eq!(run(&kind, 3).pop(), Some(Step::Refuse(Reply::AddressTypeNotSupported.bytes().to_vec())));
    }

    #[test]
    fn udp_associate_names_the_port_or_none() {
        for (port, want) in [([0, 0], None), ([0x12, 0x34], Some(0x1234))] {
            let input = [&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0][..], &port].concat();
            for cut in 0..=input.len() {
                assert_eq!(
                    run(&input, cut),
                    [Step::Answer([5, 0]), Step::Associate { port: want }],
                    "cut {cut}"
                );
            }
        }
        assert_eq!(Reply::associated("127.0.0.1:258".parse().unwrap()), [5, 0, 0, 1, 127, 0, 0, 1, 1, 2]);
        assert_eq!(Reply::associated("[::1]:258".parse().unwrap())[3..], {
            let mut six = vec![4];
            six.extend(Ipv6Addr::LOCALHOST.octets());
            six.extend([1, 2]);
            six
        });
    }

    #[test]
    fn datagrams_are_split_and_garbage_is_told() {
        let name = [&[0, 0, 0, 3, 11][..], b"web.example\x00\x35", b"query"].concat();
        let datagram = Datagram::split(&name).unwrap();
        assert_eq!((datagram.header.len(), datagram.payload), (18, &b"query"[..]));
        assert_eq!(datagram.to(), Some(Destination { host: "web.example".into(), port: 53 }));
        let four = [0, 0, 0, 1, 198, 18, 0, 9, 0, 53];
        let datagram = Datagram::split(&four).unwrap();
        assert_eq!((datagram.payload.len(), datagram.to().unwrap().host), (0, "198.18.0.9".to_owned()));
        let six = [&[0, 0, 0, 4][..], &[0x20; 16], &[0, 53, 1]].concat();
        assert_eq!(Datagram::split(&six).unwrap().payload, [1]);

        for cut in 0..four.len() {
            assert_eq!(Datagram::split(&four[..cut]), Err(BadDatagram::Garbage), "cut {cut}");
        }
        assert_eq!(Datagram::split(&[0, 0, 1, 1, 198, 18, 0, 9, 0, 53]), Err(BadDatagram::Fragment));
        for garbage in [&[0, 1, 0, 1, 1, 1, 1, 1, 0, 53][..], &[0, 0, 0, 2, 1, 1, 1, 1, 0, 53]] {
            assert_eq!(Datagram::split(garbage), Err(BadDatagram::Garbage));
        }
        for nowhere in
            [&[0, 0, 0, 1, 1, 1, 1, 1, 0, 0][..], &[0, 0, 0, 3, 0, 0, 53], &[0, 0, 0, 3, 1, 0xff, 0, 53]]
        {
            assert_eq!(Datagram::split(nowhere).unwrap().to(), None);
        }
    }
}
