//! Header and trailer sections to HEADERS frames.

use crate::{
    CAPSULE_PROTOCOL,
    fields::{is_sensitive, is_value_byte},
    frame,
    qpack::Encoder,
    varint,
};
use bytes::{BufMut, Bytes, BytesMut};
use std::borrow::Cow;

/// A request to encode. What is `None` is left out; the constructors set what each kind needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestHead<'a> {
    /// `:method`.
    pub method: &'a str,
    /// `:scheme`.
    pub scheme: Option<&'a str>,
    /// `:authority`.
    pub authority: Option<&'a str>,
    /// `:path`.
    pub path: Option<&'a str>,
    /// `:protocol`.
    pub protocol: Option<&'a str>,
    /// Says `capsule-protocol: ?1`.
    pub capsule_protocol: bool,
    /// Regular fields.
    pub fields: &'a [(&'a str, &'a str)],
}

impl<'a> RequestHead<'a> {
    /// A TCP tunnel to `authority`, which is `host:port`.
    #[must_use]
    pub fn connect(authority: &'a str, fields: &'a [(&'a str, &'a str)]) -> Self {
        Self { method: "CONNECT", authority: Some(authority), fields, ..Self::default() }
    }

    /// An extended CONNECT over https. Only after the peer's settings allow it.
    #[must_use]
    pub fn extended_connect(
        protocol: &'a str,
        authority: &'a str,
        path: &'a str,
        fields: &'a [(&'a str, &'a str)],
    ) -> Self {
        Self {
            method: "CONNECT",
            scheme: Some("https"),
            authority: Some(authority),
            path: Some(path),
            protocol: Some(protocol),
            capsule_protocol: false,
            fields,
        }
    }

    /// An extended CONNECT whose stream carries capsules: `connect-udp`, `connect-ip`, `beam-listen`.
    #[must_use]
    pub fn capsule_tunnel(
        protocol: &'a str,
        authority: &'a str,
        path: &'a str,
        fields: &'a [(&'a str, &'a str)],
    ) -> Self {
        Self { capsule_protocol: true, ..Self::extended_connect(protocol, authority, path, fields) }
    }

    /// Any other method, over https.
    #[must_use]
    pub fn other(
        method: &'a str,
        authority: &'a str,
        path: &'a str,
        fields: &'a [(&'a str, &'a str)],
    ) -> Self {
        Self {
            method,
            scheme: Some("https"),
            authority: Some(authority),
            path: Some(path),
            protocol: None,
            capsule_protocol: false,
            fields,
        }
    }
}

/// The HEADERS frame of a request.
#[must_use]
pub fn encode_request(head: &RequestHead<'_>) -> Bytes {
    frame_of(|encoder| {
        line(encoder, ":method", head.method);
        let optional = [
            (":scheme", head.scheme),
            (":authority", head.authority),
            (":path", head.path),
            (":protocol", head.protocol),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                line(encoder, name, value);
            }
        }
        if head.capsule_protocol {
            lines(encoder, &[CAPSULE_PROTOCOL]);
        }
        lines(encoder, head.fields);
    })
}

/// The HEADERS frame of a response, interim or final.
#[must_use]
pub fn encode_response(status: u16, fields: &[(&str, &str)]) -> Bytes {
    frame_of(|encoder| {
        line(encoder, ":status", &format!("{status:03}"));
        lines(encoder, fields);
    })
}

/// The HEADERS frame of a trailer section.
#[must_use]
pub fn encode_trailers(fields: &[(&str, &str)]) -> Bytes {
    frame_of(|encoder| lines(encoder, fields))
}

fn frame_of(write: impl FnOnce(&mut Encoder<'_>)) -> Bytes {
    let mut section = BytesMut::with_capacity(128);
    write(&mut Encoder::new(&mut section));
    let mut out = BytesMut::with_capacity(1 + varint::VARINT_BYTES_MAX + section.len());
    varint::write(&mut out, frame::HEADERS);
    varint::write(&mut out, section.len() as u64);
    out.put_slice(&section);
    out.freeze()
}

fn lines(encoder: &mut Encoder<'_>, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        line(encoder, name, value);
    }
}

/// "Characters in field names MUST be converted to lowercase prior to their encoding" (RFC 9114 section 4.2). A control
/// character in a value, say from an upstream's error text, becomes a space (RFC 9110 section 5.5): sent as it is, it
/// would make the peer refuse the whole message.
fn line(encoder: &mut Encoder<'_>, name: &str, value: &str) {
    let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    };
    let value: Cow<'_, [u8]> = if value.bytes().all(is_value_byte) {
        Cow::Borrowed(value.as_bytes())
    } else {
        value.bytes().map(|byte| if is_value_byte(byte) { byte } else { b' ' }).collect()
    };
    encoder.line(&name, &value, is_sensitive(&name));
}
