//! A request's header section, checked and typed.

use crate::{
    authority::HostPort,
    credentials::Credentials,
    error::MessageError,
    fields::FieldSection,
    pseudo::{self, Pseudo},
    qpack::RawSection,
};
use bytes::Bytes;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP tunnel (RFC 9114 section 4.4). A missing port is the caller's 400.
    Connect {
        /// Where to.
        authority: HostPort,
    },
    /// Anything behind `:protocol` (RFC 9220), such as `connect-udp` and `connect-ip`.
    ExtendedConnect {
        /// `:protocol`, as it was sent.
        protocol: String,
        /// In lower case.
        scheme: String,
        /// The gateway, as the client names it.
        authority: HostPort,
        /// Path and query: the expanded URI template.
        path: String,
    },
    /// Any other method.
    Other {
        /// In lower case.
        scheme: String,
        /// From `:authority`, else from `host`; there always is one for `http` and `https`.
        authority: Option<HostPort>,
        /// Path and query, or `*`.
        path: String,
    },
}

/// A request that breaks no rule of RFC 9114 section 4.
#[derive(Clone, Debug)]
pub struct Request {
    /// `CONNECT` for the first two kinds.
    pub method: String,
    /// What it asks for.
    pub kind: Kind,
    /// Taken out of `fields`.
    pub authorization: Option<Credentials>,
    /// The other regular fields, in order.
    pub fields: FieldSection,
    /// `content-length`, for [`Kind::Other`]: a CONNECT has no content.
    pub content_length: Option<u64>,
}

impl Request {
    pub(crate) fn parse(raw: RawSection, allows_extended: bool) -> Result<Self, MessageError> {
        let (pseudo, mut fields) = pseudo::split(raw)?;
        if pseudo.status.is_some() {
            return Err(MessageError::Malformed(":status in a request"));
        }
        if pseudo.protocol.is_some() && !allows_extended {
            return Err(MessageError::Malformed(":protocol without SETTINGS_ENABLE_CONNECT_PROTOCOL"));
        }
        let method = pseudo::token(required(&pseudo.method, "no :method")?)?;
        let host = single_host(&fields)?;
        let kind = match (method.as_str(), &pseudo.protocol) {
            ("CONNECT", None) => connect(&pseudo)?,
            ("CONNECT", Some(protocol)) => {
                extended_connect(&pseudo, pseudo::token(protocol)?, host.as_ref())?
            }
            (_, Some(_)) => {
                return Err(MessageError::Malformed(":protocol with a method other than CONNECT"));
            }
            (_, None) => other(&pseudo, &method, host.as_ref())?,
        };
        let content_length = match kind {
            Kind::Other { .. } => pseudo::content_length(&fields)?,
            _ => None,
        };
        let authorization = Credentials::take(&mut fields)?;
        Ok(Self { method, kind, authorization, fields, content_length })
    }
}

fn required<'a>(value: &'a Option<Bytes>, missing: &'static str) -> Result<&'a Bytes, MessageError> {
    value.as_ref().ok_or(MessageError::Malformed(missing))
}

fn parse_authority(value: &Bytes) -> Result<HostPort, MessageError> {
    let text = str::from_utf8(value).map_err(|_| MessageError::Malformed("the authority is not ASCII"))?;
    HostPort::parse(text).map_err(|_| MessageError::Malformed("the authority is not host or host:port"))
}

fn connect(pseudo: &Pseudo) -> Result<Kind, MessageError> {
    if pseudo.scheme.is_some() || pseudo.path.is_some() {
        return Err(MessageError::Malformed(":scheme or :path in a CONNECT"));
    }
    let authority = parse_authority(required(&pseudo.authority, "no :authority in a CONNECT")?)?;
    Ok(Kind::Connect { authority })
}

fn extended_connect(pseudo: &Pseudo, protocol: String, host: Option<&Bytes>) -> Result<Kind, MessageError> {
    let scheme = pseudo::scheme(required(&pseudo.scheme, "no :scheme in an extended CONNECT")?)?;
    let path = pseudo::path(required(&pseudo.path, "no :path in an extended CONNECT")?, &scheme, "CONNECT")?;
    let authority = agreed_authority(pseudo, host)?
        .ok_or(MessageError::Malformed("no :authority in an extended CONNECT"))?;
    Ok(Kind::ExtendedConnect { protocol, scheme, authority, path })
}

fn other(pseudo: &Pseudo, method: &str, host: Option<&Bytes>) -> Result<Kind, MessageError> {
    let scheme = pseudo::scheme(required(&pseudo.scheme, "no :scheme")?)?;
    let path = pseudo::path(required(&pseudo.path, "no :path")?, &scheme, method)?;
    let authority = agreed_authority(pseudo, host)?;
    if authority.is_none() && matches!(scheme.as_str(), "http" | "https") {
        return Err(MessageError::Malformed("neither :authority nor host"));
    }
    Ok(Kind::Other { scheme, authority, path })
}

/// "If both fields are present, they MUST contain the same value" (RFC 9114 section 4.3.1).
fn agreed_authority(pseudo: &Pseudo, host: Option<&Bytes>) -> Result<Option<HostPort>, MessageError> {
    match (&pseudo.authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(MessageError::Malformed(":authority and host differ"))
        }
        (Some(value), _) | (None, Some(value)) => parse_authority(value).map(Some),
        (None, None) => Ok(None),
    }
}

fn single_host(fields: &FieldSection) -> Result<Option<Bytes>, MessageError> {
    let mut hosts = fields.values("host");
    let host = hosts.next().map(Bytes::copy_from_slice);
    if hosts.next().is_some() {
        return Err(MessageError::Malformed("more than one host field"));
    }
    Ok(host)
}
