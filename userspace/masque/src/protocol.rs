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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Item, Kind, MessageReader, RequestHead, encode_request, encode_response};

    /// RFC 9297 section 3.4: "its value MUST be a Boolean; any other value type MUST be handled as if the field were not
    /// present", "if this field is included multiple times, its type will become a List and the field will therefore be
    /// ignored", and a Boolean may have parameters.
    #[test]
    fn the_field_is_a_boolean_or_nothing() {
        for (values, is_set) in [
            (&["?1"][..], true),
            (&["?1;a=1"], true),
            (&["?1; a"], true),
            (&["?0"], false),
            (&["1"], false),
            (&["?1, ?1"], false),
            (&["?1x"], false),
            (&["?1", "?1"], false),
            (&[], false),
        ] {
            let fields: Vec<_> = values.iter().map(|&value| (CAPSULE_PROTOCOL.0, value)).collect();
            let mut reader = MessageReader::response(Default::default(), crate::ResponseTo::Connect);
            reader.push(encode_response(200, &fields));
            let Ok(Some(Item::Headers(response))) = reader.next() else { panic!("no response") };
            assert_eq!(has_capsule_protocol(&response.fields), is_set, "{values:?}");
        }
    }

    #[test]
    fn a_capsule_tunnel_says_so_in_its_request() {
        let (path, fields) = ("/.well-known/masque/udp/192.0.2.6/443/", [("user-agent", "beam")]);
        let tunnel = RequestHead::capsule_tunnel(CONNECT_UDP, "gw.example", path, &fields);
        let accept = RequestHead::extended_connect(BEAM_ACCEPT, "gw.example", path, &fields);
        for (head, is_tunnel) in [(tunnel, true), (accept, false)] {
            let mut reader = MessageReader::request(Default::default());
            reader.push(encode_request(&head));
            let Ok(Some(Item::Headers(request))) = reader.next() else { panic!("no request") };
            assert!(matches!(request.kind, Kind::ExtendedConnect { path: seen, .. } if seen == path));
            assert_eq!(request.fields.get("user-agent"), Some("beam"));
            assert_eq!(has_capsule_protocol(&request.fields), is_tunnel);
        }
    }
}
