//! Sans-IO HTTP/3 for tunnels: bytes of QUIC streams in, typed messages out, and back.
//!
//! ```text
//!  uni streams  ──► Connection::uni_data ──► Event (peer settings, GOAWAY, "stop this stream") or ConnectionError
//!  Connection::opening / goaway ──► bytes for the uni streams that we own
//!
//!  request stream, QUIC chunk (Bytes)
//!      └─► MessageReader::push ─► next ─► Headers(Request | Response) · Data(slice of the chunk) · Trailers · End
//!  encode_request / encode_response / write_data_header_before ──► bytes for the stream
//!
//!  a tunnel of connect-udp, connect-ip, beam-listen: Data ─► Capsules::push ─► next ─► Capsule (Datagram, control)
//!  QUIC DATAGRAM ──► read_datagram ──► (stream id, HTTP datagram) ──► context_id / udp_payload ──► payload
//!  write_datagram_capsule_before / datagram_prefix ──► the same in front of a payload, for either framing
//! ```
//!
//! The crate owns no socket, clock or thread. The worker pulls chunks from a QUIC stream and pushes them here; it
//! stops calling [`MessageReader::next`] (and stops reading the stream) when the other side is slow. DATA payload is
//! never copied: an item is a slice of the chunk that was pushed. A HEADERS frame is buffered up to
//! [`Limits::field_section_bytes_max`]; everything else is parsed in place or skipped as it arrives.
//!
//! QPACK (RFC 9204) runs with the static table alone: both table capacities are 0, so decoding a field section needs
//! no state beyond its own bytes and a stream is never blocked on another one.

mod addresses;
mod authority;
mod capsule;
mod code;
mod connection;
mod control;
mod credentials;
mod data;
mod datagram;
mod encode;
mod error;
mod fields;
mod frame;
pub mod fuzz;
mod ip_prefix;
pub mod listen;
mod message;
mod peer_qpack;
mod percent;
pub mod protocol;
mod pseudo;
mod qpack;
mod reader;
mod request;
mod response;
mod routes;
mod settings;
pub mod sleep;
pub mod status;
mod template;
mod uni;
pub mod varint;

pub use addresses::{ADDRESS_COUNT_MAX, Address, AddressAssign, AddressRequest};
pub use authority::{Host, HostPort, HostPortError};
pub use capsule::{
    CAPSULE_PREFIX_BYTES_MAX, Capsule, CapsuleCounts, CapsuleError, CapsuleLimits, CapsuleSet, Capsules,
    datagram_capsule_frame, write_datagram_capsule_before, write_datagram_capsule_header,
};
pub use code::Code;
pub use connection::{Config, Connection, Event, Role};
pub use credentials::{Credentials, Scheme, Token, Via};
pub use data::{DATA_HEADER_BYTES_MAX, DataHeader, data_header, write_data_header_before};
pub use datagram::{
    CONTEXT_PAYLOAD, DATAGRAM_PREFIX_BYTES_MAX, Prefix, UDP_PAYLOAD_BYTES_MAX, context_id,
    datagram_overhead_bytes, datagram_prefix, read_datagram, udp_payload,
};
pub use encode::{RequestHead, encode_request, encode_response, encode_trailers};
pub use error::{ConnectionError, MessageError, Scope};
pub use fields::{Field, FieldSection};
pub use ip_prefix::{IpPrefix, IpPrefixError};
pub use listen::BEAM_LISTEN;
pub use message::Message;
pub use protocol::{CAPSULE_PROTOCOL, CONNECT_IP, CONNECT_UDP, has_capsule_protocol};
pub use reader::{Item, Limits, MessageReader, RequestReader, ResponseReader};
pub use request::{Kind, Request};
pub use response::{Response, ResponseTo};
pub use routes::{ANY_PROTOCOL, IpRange, RANGE_COUNT_MAX, RouteAdvertisement};
pub use settings::Settings;
pub use sleep::{BEAM_SLEEP, SLEEP_MARGIN, TunnelId};
pub use template::{IpScope, IpTarget, PathError, UdpTarget, ip_path, ip_target, udp_path, udp_target};
