//! Who a request says it is from. Whether that is believed is the caller's business.

use crate::{error::MessageError, fields::FieldSection};
use bytes::Bytes;
use std::fmt;

/// Which field the credentials came in; a 407 answers only the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `authorization` (Firefox).
    Authorization,
    /// `proxy-authorization` (most others).
    ProxyAuthorization,
}

/// The authentication scheme, compared without regard to case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750.
    Bearer,
    /// RFC 7617; the token is base64 of `user:password`.
    Basic,
    /// Anything else.
    Other,
}

/// A secret. It prints as `(redacted)`, and has no equality, so that nobody compares it in a time that tells.
#[derive(Clone)]
pub struct Token(Bytes);

impl Token {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

/// Scheme and secret of one authorization field.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The field.
    pub via: Via,
    /// The scheme.
    pub scheme: Scheme,
    /// What follows the scheme.
    pub token: Token,
}

impl Credentials {
    /// Takes the authorization fields out of `fields`, so that the secret has one place. When both came,
    /// `proxy-authorization` counts: it is the one that is meant for a proxy.
    pub(crate) fn take(fields: &mut FieldSection) -> Result<Option<Self>, MessageError> {
        let origin = single(fields.take("authorization"))?;
        let proxy = single(fields.take("proxy-authorization"))?;
        Ok(match (proxy, origin) {
            (Some(value), _) => Some(Self::parse(Via::ProxyAuthorization, &value)),
            (None, Some(value)) => Some(Self::parse(Via::Authorization, &value)),
            (None, None) => None,
        })
    }

    fn parse(via: Via, value: &Bytes) -> Self {
        let end = value.iter().position(|&byte| byte == b' ').unwrap_or(value.len());
        let scheme = match &value[..end] {
            name if name.eq_ignore_ascii_case(b"bearer") => Scheme::Bearer,
            name if name.eq_ignore_ascii_case(b"basic") => Scheme::Basic,
            _ => Scheme::Other,
        };
        let token = value.slice_ref(value[end..].trim_ascii());
        Self { via, scheme, token: Token(token) }
    }

    /// User and password of a `Basic` token; `None` for other schemes and for what does not decode.
    #[must_use]
    pub fn basic(&self) -> Option<(String, Token)> {
        if self.scheme != Scheme::Basic {
            return None;
        }
        let plain = decode_base64(self.token.expose())?;
        let colon = plain.iter().position(|&byte| byte == b':')?;
        let user = str::from_utf8(&plain[..colon]).ok()?.to_owned();
        Some((user, Token(Bytes::from(plain).slice(colon + 1..))))
    }
}

fn single(values: Vec<Bytes>) -> Result<Option<Bytes>, MessageError> {
    match <[Bytes; 1]>::try_from(values) {
        Ok([value]) => Ok(Some(value)),
        Err(values) if values.is_empty() => Ok(None),
        Err(_) => Err(MessageError::Malformed("more than one authorization field of the same name")),
    }
}

/// RFC 4648 section 4; padding is optional, anything else is refused.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let padding_count = text.len() - digits.len();
    if digits.len() % 4 == 1 || (padding_count > 0 && !text.len().is_multiple_of(4)) {
        return None;
    }
    let mut plain = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut pending, mut pending_bits) = (0u32, 0u32);
    for &digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        pending = (pending << 6 | u32::from(value)) & 0xfff;
        pending_bits += 6;
        if pending_bits >= 8 {
            pending_bits -= 8;
            plain.push((pending >> pending_bits) as u8);
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &'static str) -> Credentials {
        Credentials::parse(Via::Authorization, &Bytes::from_static(value.as_bytes()))
    }

    #[test]
    fn schemes_and_tokens() {
        for (value, scheme, token) in [
            ("Bearer abc", Scheme::Bearer, "abc"),
            ("bEARER  abc ", Scheme::Bearer, "abc"),
            ("Basic dTpw", Scheme::Basic, "dTpw"),
            ("Digest a=b, c=d", Scheme::Other, "a=b, c=d"),
            ("Bearer", Scheme::Bearer, ""),
            ("", Scheme::Other, ""),
        ] {
            let parsed = parse(value);
            assert_eq!((parsed.scheme, parsed.token.expose()), (scheme, token.as_bytes()), "{value}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        assert!(!format!("{:?}", parse("Bearer sesame")).contains("sesame"));
    }

    /// RFC 7617 section 2: the user "Aladdin" with the password "open sesame".
    #[test]
    fn rfc7617_basic_example() {
        let (user, password) = parse("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").basic().unwrap();
        assert_eq!((user.as_str(), password.expose()), ("Aladdin", &b"open sesame"[..]));
        let (user, password) = parse("Basic dTphOmI").basic().unwrap();
        assert_eq!((user.as_str(), password.expose()), ("u", &b"a:b"[..]));
        for bad in ["Basic QWxhZGRpbg==", "Basic Q", "Basic dTpw*", "Basic dTpwcA=", "Bearer dTpw", "Basic"] {
            assert!(parse(bad).basic().is_none(), "{bad}");
        }
    }
}
