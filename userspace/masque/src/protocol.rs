//! The names of the tunnels, and the field that says that a stream carries capsules (RFC 9297 section 3.4).

use crate::FieldSection;

/// `:protocol` of UDP tunnels (RFC 9298).
pub const CONNECT_UDP: &str = "connect-udp";
/// `:protocol` of IP tunnels (RFC 9484).
pub const CONNECT_IP: &str = "connect-ip";
/// `:protocol` that asks the gateway to listen; see [`crate::listen`].
pub const BEAM_LISTEN: &str = "beam-listen";
/// `:protocol` that takes one connection which the gateway accepted; see [`crate::listen`].
pub const BEAM_ACCEPT: &str = "beam-accept";

/// The field as it is sent, in requests and in 2xx responses; "MUST NOT be used on HTTP responses with a status code
/// outside the 2xx range".
pub const CAPSULE_PROTOCOL: (&str, &str) = ("capsule-protocol", "?1");

/// True when a message says that its stream carries capsules. `connect-udp`, `connect-ip` and `beam-listen` do so
/// anyway; the field is for intermediaries. "Any other value type MUST be handled as if the field were not present",
/// two lines make a list, and parameters are ignored.
#[must_use]
pub fn has_capsule_protocol(fields: &FieldSection) -> bool {
    let value = fields.get(CAPSULE_PROTOCOL.0).map(|value| value.trim_matches(' '));
    let parameters = value.and_then(|value| value.strip_prefix(CAPSULE_PROTOCOL.1));
    parameters.is_some_and(|rest| rest.is_empty() || rest.starts_with(';'))
}
