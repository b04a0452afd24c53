//! The pseudo-header fields in front of a section (RFC 9114 section 4.3), told apart from the regular ones.

use crate::{
    error::MessageError,
    fields::{FieldSection, check_value, is_token},
    qpack::RawSection,
};
use bytes::Bytes;

/// Each pseudo-header field, at most once. Values hold no control characters.
#[derive(Default)]
pub(crate) struct Pseudo {
    pub(crate) method: Option<Bytes>,
    pub(crate) scheme: Option<Bytes>,
    pub(crate) authority: Option<Bytes>,
    pub(crate) path: Option<Bytes>,
    pub(crate) protocol: Option<Bytes>,
    pub(crate) status: Option<Bytes>,
}

/// Splits a section. Fails on an unknown or repeated pseudo-header field, or one after a regular field.
pub(crate) fn split(raw: RawSection) -> Result<(Pseudo, FieldSection), MessageError> {
    let mut pseudo = Pseudo::default();
    let mut fields = FieldSection::over(raw.text.clone());
    for line in raw.lines {
        let name = &raw.text[line.name.clone()];
        if !fields.is_empty() || name.first() != Some(&b':') {
            fields.push(line)?;
            continue;
        }
        let slot = match name {
            b":method" => &mut pseudo.method,
            b":scheme" => &mut pseudo.scheme,
            b":authority" => &mut pseudo.authority,
            b":path" => &mut pseudo.path,
            b":protocol" => &mut pseudo.protocol,
            b":status" => &mut pseudo.status,
            _ => return Err(MessageError::Malformed("an undefined pseudo-header field")),
        };
        let value = raw.text.slice(line.value);
        check_value(&value)?;
        if slot.replace(value).is_some() {
            return Err(MessageError::Malformed("a pseudo-header field twice"));
        }
    }
    Ok((pseudo, fields))
}

/// A method or protocol: a token.
pub(crate) fn token(value: &Bytes) -> Result<String, MessageError> {
    if is_token(value) {
        text(value)
    } else {
        Err(MessageError::Malformed(":method or :protocol is not a token"))
    }
}

/// A scheme (RFC 3986 section 3.1), in lower case.
pub(crate) fn scheme(value: &Bytes) -> Result<String, MessageError> {
    let is_scheme = value.first().is_some_and(u8::is_ascii_alphabetic)
        && value.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme {
        return Err(MessageError::Malformed(":scheme is not a URI scheme"));
    }
    text(value).map(|scheme| scheme.to_ascii_lowercase())
}

/// An absolute path with an optional query; `*` for OPTIONS only.
pub(crate) fn path(value: &Bytes, scheme: &str, method: &str) -> Result<String, MessageError> {
    if !value.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(MessageError::Malformed("a character in :path that is not permitted"));
    }
    let is_http = matches!(scheme, "http" | "https");
    let is_asterisk = value.as_ref() == b"*" && method == "OPTIONS";
    if is_http && !value.starts_with(b"/") && !is_asterisk {
        return Err(MessageError::Malformed(":path is empty or not absolute"));
    }
    text(value)
}

pub(crate) fn text(value: &Bytes) -> Result<String, MessageError> {
    str::from_utf8(value)
        .map(str::to_owned)
        .map_err(|_| MessageError::Malformed("a pseudo-header field is not ASCII"))
}

/// The one content length that all such lines agree on (RFC 9110 section 8.6).
pub(crate) fn content_length(fields: &FieldSection) -> Result<Option<u64>, MessageError> {
    let mut length = None;
    for value in fields.values("content-length") {
        let digits = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let parsed: u64 = digits
            .and_then(|digits| digits.parse().ok())
            .ok_or(MessageError::Malformed("content-length is not a number"))?;
        if length.replace(parsed).is_some_and(|earlier| earlier != parsed) {
            return Err(MessageError::Malformed("two different content-length fields"));
        }
    }
    Ok(length)
}
