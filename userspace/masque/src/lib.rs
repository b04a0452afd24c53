//! Sans-IO HTTP/3 for tunnels: bytes of QUIC streams in, typed messages out, and back.
//!
//! ```text
//!  uni streams  ──► Connection::uni_data ──► Event (peer settings, GOAWAY, "stop this stream") or ConnectionError
//!  Connection::opening / goaway ──► bytes for the uni streams that we own
//!
//!  request stream, QUIC chunk (Bytes)
//!      └─► MessageReader::push ─► next ─► Headers(Request | Response) · Data(slice of the chunk) · Trailers · End
//!  encode_request / encode_response / write_data_header_before ──► bytes for the stream
//! ```
//!
//! The crate owns no socket, clock or thread. The worker pulls chunks from a QUIC stream and pushes them here; it
//! stops calling [`MessageReader::next`] (and stops reading the stream) when the other side is slow. DATA payload is
//! never copied: an item is a slice of the chunk that was pushed. A HEADERS frame is buffered up to
//! [`Limits::field_section_bytes_max`]; everything else is parsed in place or skipped as it arrives.
//!
//! QPACK (RFC 9204) runs with the static table alone: both table capacities are 0, so decoding a field section needs
//! no state beyond its own bytes and a stream is never blocked on another one.

mod authority;
mod code;
mod connection;
mod control;
mod credentials;
mod data;
mod encode;
mod error;
mod fields;
mod frame;
pub mod fuzz;
mod message;
mod peer_qpack;
mod pseudo;
mod qpack;
mod reader;
mod request;
mod response;
mod settings;
pub mod status;
mod uni;
pub mod varint;

pub use authority::{Host, HostPort, HostPortError};
pub use code::Code;
pub use connection::{Config, Connection, Event, Role, UniStream};
pub use credentials::{Credentials, Scheme, Token, Via};
pub use data::{DATA_HEADER_BYTES_MAX, DataHeader, data_header, write_data_header_before};
pub use encode::{RequestHead, encode_request, encode_response, encode_trailers};
pub use error::{ConnectionError, MessageError, Scope};
pub use fields::{Field, FieldSection};
pub use message::Message;
pub use reader::{Item, Limits, MessageReader, RequestReader, ResponseReader};
pub use request::{Kind, Request};
pub use response::{Response, ResponseTo};
pub use settings::Settings;
