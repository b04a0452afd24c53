//! A response's header section, checked and typed.

use crate::{error::MessageError, fields::FieldSection, pseudo, qpack::RawSection, status};

/// What the response answers: it decides whether DATA is a tunnel, content, or not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseTo {
    /// CONNECT or extended CONNECT: after a 2xx, DATA is the tunnel.
    Connect,
    /// HEAD: there is no content, whatever `content-length` says.
    Head,
    /// Everything else.
    Other,
}

/// A response that breaks no rule of RFC 9114 section 4.
#[derive(Clone, Debug)]
pub struct Response {
    /// 100 to 999, never 101.
    pub status: u16,
    /// The regular fields, in order.
    pub fields: FieldSection,
    /// `content-length`, where DATA has to agree with it.
    pub content_length: Option<u64>,
}

impl Response {
    pub(crate) fn parse(raw: RawSection, to: ResponseTo) -> Result<Self, MessageError> {
        let (pseudo, fields) = pseudo::split(raw)?;
        let has_requests = pseudo.method.is_some()
            || pseudo.scheme.is_some()
            || pseudo.authority.is_some()
            || pseudo.path.is_some()
            || pseudo.protocol.is_some();
        if has_requests {
            return Err(MessageError::Malformed("a request's pseudo-header field in a response"));
        }
        let value = pseudo.status.ok_or(MessageError::Malformed("no :status"))?;
        let status = parse_status(&value)?;
        let content_length = expected_length(status, to, &fields)?;
        Ok(Self { status, fields, content_length })
    }
}

fn parse_status(value: &[u8]) -> Result<u16, MessageError> {
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = value else {
        return Err(MessageError::Malformed(":status is not three digits"));
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    match digit(a) * 100 + digit(b) * 10 + digit(c) {
        101 => Err(MessageError::Malformed("101, which HTTP/3 does not have")),
        status => Ok(status),
    }
}

/// How long the content has to be: 0 where there must be none (RFC 9110 section 6.4.1).
fn expected_length(status: u16, to: ResponseTo, fields: &FieldSection) -> Result<Option<u64>, MessageError> {
    if status::is_interim(status) || (to == ResponseTo::Connect && status::is_success(status)) {
        // A client ignores content-length in a 2xx to CONNECT (RFC 9110 section 9.3.6).
        return Ok(None);
    }
    let declared = pseudo::content_length(fields)?;
    let has_no_content = to == ResponseTo::Head || matches!(status, 204 | 304);
    Ok(if has_no_content { Some(0) } else { declared })
}
