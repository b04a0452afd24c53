//! `host`, `host:port`, `[v6]:port`: the authority of a request, parsed once into something that can be connected to.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Longest DNS name without its final dot (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Where a request wants to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name: lower-case letters, digits, `-`, `_` and dots; never something that resolvers read as an address.
    Name(String),
    /// A literal address. IPv4-mapped IPv6 stays IPv6: the caller's policy unwraps it.
    Address(IpAddr),
}

/// A host and, if it was given, a port. The port is never 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port; some clients in the wild leave it out.
    pub port: Option<u16>,
}

/// Why an authority was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// Nothing in front of the port.
    #[error("the authority has no host; write host:port")]
    EmptyHost,
    /// `user@host`.
    #[error("the authority has user information, which HTTP/3 forbids; leave out what is before the @")]
    UserInfo,
    /// Not 1 to 65535 in digits.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// Something in brackets that is no IPv6 address.
    #[error("the brackets do not hold an IPv6 address; write [2001:db8::1]:443")]
    Ipv6,
    /// Bad characters, bad labels, or too long.
    #[error("the host is neither a DNS name of up to 253 bytes nor an address")]
    Name,
    /// `127.1`, `0x7f.1`, `1.2.3.4.5`: some resolvers read these as IPv4.
    #[error("the host ends in a number but is not an IPv4 address; write all four parts in decimal")]
    NumericName,
}

impl HostPort {
    /// Parses `host`, `host:port`, `v4:port`, `[v6]` or `[v6]:port`; an empty port counts as none.
    ///
    /// # Errors
    /// [`HostPortError`], for anything else.
    pub fn parse(text: &str) -> Result<Self, HostPortError> {
        if text.contains('@') {
            return Err(HostPortError::UserInfo);
        }
        if let Some(bracketed) = text.strip_prefix('[') {
            let (address, port) = bracketed.split_once(']').ok_or(HostPortError::Ipv6)?;
            let address: Ipv6Addr = address.parse().map_err(|_| HostPortError::Ipv6)?;
            let port = match port.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if port.is_empty() => None,
                None => return Err(HostPortError::Port),
            };
            return Ok(Self { host: Host::Address(address.into()), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (text, None),
        };
        Ok(Self { host: parse_host(host)?, port })
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn parse_port(text: &str) -> Result<Option<u16>, HostPortError> {
    if text.is_empty() {
        return Ok(None);
    }
    // `u16::from_str` would take a plus sign.
    if text.len() > 5 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostPortError::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(HostPortError::Port),
        Ok(port) => Ok(Some(port)),
    }
}

pub(crate) fn parse_host(text: &str) -> Result<Host, HostPortError> {
    if text.is_empty() {
        return Err(HostPortError::EmptyHost);
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.into()));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err(HostPortError::Name);
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if is_number(last) {
        return Err(HostPortError::NumericName);
    }
    Ok(Host::Name(text.to_ascii_lowercase()))
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// What `inet_aton` takes for a part of an address: decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_accepted_prints_as_it_was_written() {
        for text in [
            "example.com:443",
            "example.com",
            "example.com.:1",
            "_sip.example.com:65535",
            "198.18.0.1:80",
            "[2001:db8::1]:443",
            "[::ffff:198.18.0.1]:80",
            "[::1]",
            "xn--bcher-kva.example:8443",
            "1password.com:443",
            "0xyz.example:1",
        ] {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(HostPort::parse("EXAMPLE.com:00080").unwrap().to_string(), "example.com:80");
        assert_eq!(HostPort::parse("example.com:").unwrap().port, None);
    }

    #[test]
    fn what_is_refused_and_why() {
        let long_label = format!("{}.example:1", "a".repeat(64));
        let long_name = format!("{}:1", ["a".repeat(63).as_str(); 4].join("."));
        for (text, error) in [
            ("", HostPortError::EmptyHost),
            (":443", HostPortError::EmptyHost),
            ("user@example.com:443", HostPortError::UserInfo),
            ("example.com@:443", HostPortError::UserInfo),
            ("example.com:0", HostPortError::Port),
            ("example.com:65536", HostPortError::Port),
            ("example.com:+80", HostPortError::Port),
            ("example.com:80x", HostPortError::Port),
            ("example.com:000080", HostPortError::Port),
            ("::1", HostPortError::Port),
            ("2001:db8::1:443", HostPortError::Port),
            ("[::1]443", HostPortError::Port),
            ("[::1", HostPortError::Ipv6),
            ("[198.18.0.1]:80", HostPortError::Ipv6),
            ("[fe80::1%25eth0]:80", HostPortError::Ipv6),
            ("[]:80", HostPortError::Ipv6),
            ("a..b:80", HostPortError::Name),
            (".:80", HostPortError::Name),
            ("exa mple:80", HostPortError::Name),
            ("ex%61mple:80", HostPortError::Name),
            ("b\u{fc}cher.example:80", HostPortError::Name),
            ("a/b:80", HostPortError::Name),
            (long_label.as_str(), HostPortError::Name),
            (long_name.as_str(), HostPortError::Name),
            ("127.1:80", HostPortError::NumericName),
            ("2130706433:80", HostPortError::NumericName),
            ("0x7f000001:80", HostPortError::NumericName),
            ("0177.0.0.1:80", HostPortError::NumericName),
            ("1.2.3.4.5:80", HostPortError::NumericName),
            ("198.18.0.1.:80", HostPortError::NumericName),
        ] {
            assert_eq!(HostPort::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_parses_to_something_stable(text in "\\PC{0,300}") {
            if let Ok(parsed) = HostPort::parse(&text) {
                prop_assert_eq!(HostPort::parse(&parsed.to_string()), Ok(parsed));
            }
        }
    }
}
