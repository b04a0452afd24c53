//! SOCKS5 (RFC 1928), the server's half of the handshake, sans-IO: bytes in, what to answer out.
//!
//! Only CONNECT without authentication: the listener is on loopback unless its user says otherwise.

use crate::cli::Destination;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Largest handshake: 257 bytes of greeting, 262 of request; a client may send early data behind it.
pub(crate) const HANDSHAKE_BYTES_MAX: usize = 1024;

const VERSION: u8 = 5;

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
        let (host, used) = match (kind, rest) {
            (1, [a, b, c, d, ..]) => (Ipv4Addr::new(*a, *b, *c, *d).to_string(), 4),
            (3, [length, name @ ..]) if name.len() >= usize::from(*length) => {
                let length = usize::from(*length);
                match std::str::from_utf8(&name[..length]) {
                    Ok(name) if length > 0 => (name.to_owned(), 1 + length),
                    _ => return refuse(Reply::GeneralFailure),
                }
            }
            (4, [..]) if rest.len() >= 16 => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&rest[..16]);
                (Ipv6Addr::from(octets).to_string(), 16)
            }
            (1 | 3 | 4, _) => return Step::More,
            _ => return refuse(Reply::AddressTypeNotSupported),
        };
        let [high, low, ..] = rest[used..] else { return Step::More };
        if *command != 1 {
            return refuse(Reply::CommandNotSupported);
        }
        let early = rest[used + 2..].to_vec();
        Step::Connect { to: Destination { host, port: u16::from_be_bytes([high, low]) }, early }
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
            if matches!(steps.last(), Some(Step::Connect { .. } | Step::Refuse(_))) {
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
}
