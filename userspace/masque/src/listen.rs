//! `beam-listen`: a client publishes a service of its side on the gateway (`-R`). The one private part of the wire; a
//! gateway offers it by the setting [`BEAM_LISTEN`], so that other clients never meet it.
//!
//! ```text
//!  client                                                                                     gateway
//!   │                                  SETTINGS: BEAM_LISTEN = 1                               │
//!   │◄─────────────────────────────────────────────────────────────────────────────────────────┤
//!   │ CONNECT :protocol beam-listen  /.well-known/beam/listen/tcp/198.18.0.1/8080/             │ the listen stream
//!   ├─────────────────────────────────────────────────────────────────────────────────────────►│ bind, listen
//!   │                                  200  beam-listen-port: 8080                             │
//!   │◄─────────────────────────────────────────────────────────────────────────────────────────┤
//!   │                      listen stream: BEAM_ACCEPT { id 1, "203.0.113.9:4711" }             │◄── a connection
//!   │◄─────────────────────────────────────────────────────────────────────────────────────────┤
//!   │ CONNECT :protocol beam-accept  /.well-known/beam/accept/1/                               │ a new stream
//!   ├─────────────────────────────────────────────────────────────────────────────────────────►│
//!   │                    200, then the connection's bytes in DATA, as for CONNECT              │
//!   │◄────────────────────────────────────────────────────────────────────────────────────────►│◄──►
//! ```
//!
//! **Why the client opens the second stream.** "Clients MUST treat receipt of a server-initiated bidirectional stream
//! as a connection error" (RFC 9114 section 6.1), so the gateway can only ask for one.
//!
//! **The listen stream.** Path: `tcp` or `udp`; an IP address to bind, `localhost`, or `*`; a port, 0 for one that the
//! gateway picks. The response's `beam-listen-port` says which it is. The listener lives as long as the stream: either
//! end closes it by ending or resetting the stream. Answers: 403 when the client may not have this port, 409 when
//! somebody else has it, 404 where the path is none of these, 400 where a variable is wrong.
//!
//! **Ids.** The gateway numbers what it announces from 1 up, once for all listen streams of one QUIC connection, and
//! never again uses an id on that connection; a `beam-accept` is sent on the connection that brought the id. An id that
//! is unknown, taken, or given up because nobody came for it is answered with 404.
//!
//! **TCP.** A client that does not want a connection sends BEAM_CLOSE with its id on the listen stream instead of a
//! `beam-accept`; the gateway then resets the connection. The gateway sends BEAM_CLOSE when the connection went away
//! before its `beam-accept` came.
//!
//! **UDP.** Each remote peer is an association: BEAM_ACCEPT announces its id and address, and its datagrams go both ways
//! as HTTP datagrams of the listen stream, in DATAGRAM capsules or QUIC DATAGRAM frames, with the id where `connect-udp`
//! has the context id. No `beam-accept` is sent. A datagram may overtake its BEAM_ACCEPT; one with an unknown id, or
//! with id 0, is dropped. BEAM_CLOSE, from either end, ends one association; it does not come back under the same id.
//!
//! ```text
//!  BEAM_ACCEPT { Type (i) = 0x1bea0001, Length (i), Id (i), Peer (..) }   Peer: "198.18.0.1:4711" or "[2001:db8::1]:4711"
//!  BEAM_CLOSE  { Type (i) = 0x1bea0002, Length (i), Id (i) }
//! ```
//!
//! The capsule types, like the setting, are of no registry. They lie outside of what is assigned by standards action
//! (below 0x40), and are none of the reserved ones that any peer may send to be ignored.

use crate::{
    CapsuleError, FieldSection,
    template::{PathError, decimal, variables},
    varint,
};
use bytes::BufMut;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The setting with which a gateway offers `beam-listen`; its value is 1. "BEAMLIST" in ASCII, less the two bits that a
/// varint has not got. For [`crate::Config::extra_settings`]: `vec![(BEAM_LISTEN, 1)]`.
pub const BEAM_LISTEN: u64 = 0x4245_414d_4c49_5354 & varint::VARINT_MAX;
/// The response's field with the port that is listened on.
pub const LISTEN_PORT_FIELD: &str = "beam-listen-port";

/// "Setting identifiers of the format 0x1f * N + 0x21" are sent to be ignored (RFC 9114 section 7.2.4.1).
const _: () = assert!(!(BEAM_LISTEN - 0x21).is_multiple_of(0x1f));

const LISTEN: &str = "/.well-known/beam/listen/";
const ACCEPT: &str = "/.well-known/beam/accept/";
const WILDCARD: &str = "*";
const LOCALHOST: &str = "localhost";
/// The longest is an IPv6 address with a zone: 39 + 11 + 3 + 5 bytes.
const PEER_BYTES_MAX: usize = 64;
/// 2^62 - 1 has 19.
const ID_DIGIT_COUNT_MAX: usize = 19;

/// What is listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Which of the gateway's addresses are listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `*`: all of both families.
    Any,
    /// `localhost`: the loopback addresses.
    Loopback,
    /// One address.
    Address(IpAddr),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(WILDCARD),
            Self::Loopback => f.write_str(LOCALHOST),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// What a `beam-listen` request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenTarget {
    /// TCP or UDP.
    pub transport: Transport,
    /// Where.
    pub bind: Bind,
    /// 0 lets the gateway pick.
    pub port: u16,
}

/// The path that asks for a listener.
#[must_use]
pub fn listen_path(target: &ListenTarget) -> String {
    let bind = match target.bind {
        Bind::Any => WILDCARD.to_owned(),
        bind => crate::percent::encode(&bind.to_string()),
    };
    format!("{LISTEN}{}/{bind}/{}/", target.transport, target.port)
}

/// What a `beam-listen` path asks for; the slash at its end may be missing.
///
/// # Errors
/// [`PathError`], whose status is the answer.
pub fn listen_target(path: &str) -> Result<ListenTarget, PathError> {
    let [transport, bind, port] = variables(path, LISTEN)?;
    let transport = match transport.as_str() {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return Err(PathError::NotFound),
    };
    let bind = match bind.as_str() {
        WILDCARD => Bind::Any,
        LOCALHOST => Bind::Loopback,
        text => Bind::Address(
            text.parse().map_err(|_| PathError::Malformed("the address to bind is no IP address"))?,
        ),
    };
    let port = decimal(&port, 5).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(PathError::Malformed("the port to bind is not a number from 0 to 65535"))?;
    Ok(ListenTarget { transport, bind, port })
}

/// The path that takes the connection `id`.
#[must_use]
pub fn accept_path(id: u64) -> String {
    format!("{ACCEPT}{id}/")
}

/// The id in a `beam-accept` path; the slash at its end may be missing.
///
/// # Errors
/// [`PathError`], whose status is the answer.
pub fn accept_target(path: &str) -> Result<u64, PathError> {
    let [id] = variables(path, ACCEPT)?;
    let is_number = id.len() <= ID_DIGIT_COUNT_MAX
        && id.bytes().all(|byte| byte.is_ascii_digit())
        && !id.starts_with('0');
    id.parse()
        .ok()
        .filter(|&id| is_number && is_id(id))
        .ok_or(PathError::Malformed("the id is not a number from 1 to 2^62 - 1"))
}

/// The port of the listener, from a 2xx response to `beam-listen`; `None` when it is not there or not 1 to 65535.
#[must_use]
pub fn listen_port(fields: &FieldSection) -> Option<u16> {
    let port = decimal(fields.get(LISTEN_PORT_FIELD)?, 5)?;
    u16::try_from(port).ok().filter(|&port| port != 0)
}

fn is_id(id: u64) -> bool {
    (1..=varint::VARINT_MAX).contains(&id)
}

/// BEAM_ACCEPT: somebody is there. Invariant: the id is 1 to 2^62 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accept {
    id: u64,
    peer: SocketAddr,
}

impl Accept {
    /// `None` when the id is 0 or above 2^62 - 1.
    #[must_use]
    pub fn new(id: u64, peer: SocketAddr) -> Option<Self> {
        is_id(id).then_some(Self { id, peer })
    }

    /// Goes into [`accept_path`], or in front of this peer's datagrams.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Who it is.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        varint::write(out, self.id);
        out.put_slice(self.peer.to_string().as_bytes());
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, CapsuleError> {
        let (id, peer) = take_id(payload)?;
        if peer.len() > PEER_BYTES_MAX {
            return Err(CapsuleError::Malformed("a BEAM_ACCEPT whose peer has more than 64 bytes"));
        }
        let peer = str::from_utf8(peer).ok().and_then(|text| text.parse().ok());
        let peer = peer.ok_or(CapsuleError::Malformed("a BEAM_ACCEPT whose peer is not address:port"))?;
        Ok(Self { id, peer })
    }
}

/// BEAM_CLOSE: the one with this id is gone, or not wanted. Invariant: the id is 1 to 2^62 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Close {
    id: u64,
}

impl Close {
    /// `None` when the id is 0 or above 2^62 - 1.
    #[must_use]
    pub fn new(id: u64) -> Option<Self> {
        is_id(id).then_some(Self { id })
    }

    /// Which one.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        varint::write(out, self.id);
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, CapsuleError> {
        match take_id(payload)? {
            (id, []) => Ok(Self { id }),
            _ => Err(CapsuleError::Malformed("a BEAM_CLOSE with bytes after its id")),
        }
    }
}

fn take_id(payload: &[u8]) -> Result<(u64, &[u8]), CapsuleError> {
    let cut = CapsuleError::Malformed("a BEAM_ACCEPT or BEAM_CLOSE that ends before its id does");
    let (id, size_bytes) = varint::read(payload).ok_or(cut)?;
    if !is_id(id) {
        return Err(CapsuleError::Malformed("a BEAM_ACCEPT or BEAM_CLOSE with id 0"));
    }
    Ok((id, &payload[size_bytes..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Connection, Item, MessageReader, ResponseTo, Settings, encode_response};

    #[test]
    fn listen_paths() {
        let address = |text: &str| Bind::Address(text.parse().unwrap());
        for (path, transport, bind, port) in [
            ("/.well-known/beam/listen/tcp/*/8080/", Transport::Tcp, Bind::Any, 8080),
            ("/.well-known/beam/listen/udp/localhost/0/", Transport::Udp, Bind::Loopback, 0),
            ("/.well-known/beam/listen/tcp/198.18.0.1/65535/", Transport::Tcp, address("198.18.0.1"), 65535),
            ("/.well-known/beam/listen/udp/2001%3Adb8%3A%3A1/1/", Transport::Udp, address("2001:db8::1"), 1),
        ] {
            let target = ListenTarget { transport, bind, port };
            assert_eq!(listen_target(path), Ok(target));
            assert_eq!(listen_target(path.trim_end_matches('/')), Ok(target));
            assert_eq!(listen_path(&target), path);
        }
        for variables in
            ["tcp/example.com/1/", "tcp/*/65536/", "tcp/*//", "udp//1/", "tcp/*/-1/", "tcp/%zz/1/"]
        {
            let error = listen_target(&format!("{LISTEN}{variables}")).unwrap_err();
            assert_eq!(error.status(), 400, "{variables}");
        }
        for path in ["/.well-known/beam/listen/sctp/*/1/", "/.well-known/beam/listen/tcp/*/", "/"] {
            assert_eq!(listen_target(path), Err(PathError::NotFound));
        }
    }

    #[test]
    fn accept_paths() {
        for id in [1, 63, 64, varint::VARINT_MAX] {
            assert_eq!(accept_target(&accept_path(id)), Ok(id));
        }
        assert_eq!(accept_target("/.well-known/beam/accept/7"), Ok(7));
        for id in ["0", "01", "-1", "+1", "x", "", "4611686018427387904", "99999999999999999999"] {
            let result = accept_target(&format!("{ACCEPT}{id}/"));
            assert!(matches!(result, Err(PathError::Malformed(_))), "{id}: {result:?}");
        }
        assert_eq!(accept_target("/.well-known/beam/accept/1/2/"), Err(PathError::NotFound));
    }

    #[test]
    fn capsules_of_ids_and_peers() {
        for (id, peer) in
            [(1, "198.18.0.1:4711"), (varint::VARINT_MAX, "[2001:db8::1]:1"), (64, "[fe80::1%2]:80")]
        {
            let accept = Accept::new(id, peer.parse().unwrap()).unwrap();
            let mut out = Vec::new();
            accept.encode(&mut out);
            assert_eq!(out[varint::size_bytes(id)..], *peer.as_bytes());
            assert_eq!(Accept::decode(&out), Ok(accept));
            let mut out = Vec::new();
            Close::new(id).unwrap().encode(&mut out);
            assert_eq!(Close::decode(&out).map(|close| close.id()), Ok(id));
        }
        assert!(Accept::new(0, "198.18.0.1:1".parse().unwrap()).is_none());
        assert!(Close::new(0).is_none() && Close::new(varint::VARINT_MAX + 1).is_none());
        let long = [&b"\x01["[..], &[b'0'; 63], b"]:1"].concat();
        for payload in [
            &b""[..],
            b"\x00198.18.0.1:1",
            b"\x01",
            b"\x01example.com:1",
            b"\x01198.18.0.1",
            b"\x01\xff:1",
            b"\x40",
            &long,
        ] {
            let decoded = Accept::decode(payload);
            assert!(matches!(decoded, Err(CapsuleError::Malformed(_))), "{}", payload.escape_ascii());
        }
        for payload in [&b""[..], b"\0", b"\x01\x01", b"\xc0\0\0\0\0\0\0"] {
            assert!(matches!(Close::decode(payload), Err(CapsuleError::Malformed(_))));
        }
    }

    /// The offer arrives as a setting, the port as a field of the response.
    #[test]
    fn the_offer_and_the_port() {
        let config = Config { extra_settings: vec![(BEAM_LISTEN, 1)], ..Config::default() };
        for (config, is_offered) in [(config, true), (Config::default(), false)] {
            let mut client = Connection::client(Config::default());
            client.uni_opened(3).unwrap();
            let control = Connection::server(config).opening();
            client.uni_data(3, control, false).unwrap();
            assert_eq!(client.peer_settings().map(Settings::beam_listen), Some(is_offered));
        }
        for (value, port) in
            [("8080", Some(8080)), ("65535", Some(65535)), ("0", None), ("65536", None), ("x", None)]
        {
            let mut reader = MessageReader::response(Default::default(), ResponseTo::Connect);
            reader.push(encode_response(200, &[(LISTEN_PORT_FIELD, value)]));
            let Ok(Some(Item::Headers(response))) = reader.next() else { panic!("no response") };
            assert_eq!(listen_port(&response.fields), port);
        }
    }

    /// The identifiers fit a varint of 8 and 4 bytes and say what they are.
    #[test]
    fn the_numbers_on_the_wire() {
        assert_eq!(BEAM_LISTEN, 0x0245_414d_4c49_5354);
        assert_eq!(BEAM_LISTEN.to_be_bytes()[1..], *b"EAMLIST");
        assert_eq!(varint::size_bytes(crate::capsule::BEAM_ACCEPT), 4);
    }
}
