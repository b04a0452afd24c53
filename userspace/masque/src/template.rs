//! The paths that tunnels are asked for under: the default URI templates of RFC 9298 section 3 and RFC 9484 section 4.6.
//!
//! ```text
//!  /.well-known/masque/udp/{target_host}/{target_port}/    udp_path · udp_target
//!  /.well-known/masque/ip/{target}/{ipproto}/              ip_path  · ip_target
//! ```

use crate::{Host, HostPort, IpPrefix, authority::parse_host, percent, status};
use std::net::{IpAddr, Ipv6Addr};

const UDP: &str = "/.well-known/masque/udp/";
const IP: &str = "/.well-known/masque/ip/";
const WILDCARD: &str = "*";

/// Why a path names no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is no expansion of the template: nothing of ours is there.
    #[error("the path is not one of this template")]
    NotFound,
    /// It is one, with a variable that is not what it has to be.
    #[error("malformed path: {0}")]
    Malformed(&'static str),
}

impl PathError {
    /// 404 or 400.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NotFound => status::NOT_FOUND,
            Self::Malformed(_) => status::BAD_REQUEST,
        }
    }
}

/// What a `connect-udp` request wants to send to. The port is never 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UdpTarget {
    /// A name or an address.
    pub host: Host,
    /// 1 to 65535.
    pub port: u16,
}

impl From<UdpTarget> for HostPort {
    fn from(target: UdpTarget) -> Self {
        Self { host: target.host, port: Some(target.port) }
    }
}

/// Which destinations a `connect-ip` request is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IpScope {
    /// `*`: "any allowable host".
    Any,
    /// An address or a prefix.
    Prefix(IpPrefix),
    /// A DNS name, which "the IP proxy is expected to" resolve.
    Name(String),
}

/// What a `connect-ip` request is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IpTarget {
    /// Destinations.
    pub scope: IpScope,
    /// One IP protocol, and ICMP; `None` for all.
    pub protocol: Option<u8>,
}

/// The target of a `connect-udp` path; the slash at its end may be missing.
///
/// # Errors
/// [`PathError`], whose status is the answer.
pub fn udp_target(path: &str) -> Result<UdpTarget, PathError> {
    let [host, port] = variables(path, UDP)?;
    let host = host_of(&host).ok_or(PathError::Malformed("target_host is neither a name nor an address"))?;
    let port = decimal(&port, 5)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|&port| port != 0)
        .ok_or(PathError::Malformed("target_port is not a number from 1 to 65535"))?;
    Ok(UdpTarget { host, port })
}

/// The path that asks for UDP to a target.
#[must_use]
pub fn udp_path(host: &Host, port: u16) -> String {
    format!("{UDP}{}/{port}/", percent::encode(&bare(host)))
}

/// The scope of a `connect-ip` path; the slash at its end may be missing.
///
/// # Errors
/// [`PathError`], whose status is the answer.
pub fn ip_target(path: &str) -> Result<IpTarget, PathError> {
    let [target, protocol] = variables(path, IP)?;
    let protocol = match protocol.as_str() {
        WILDCARD => None,
        digits => Some(
            decimal(digits, 3)
                .and_then(|number| u8::try_from(number).ok())
                .ok_or(PathError::Malformed("ipproto is neither * nor a number from 0 to 255"))?,
        ),
    };
    Ok(IpTarget { scope: scope_of(&target)?, protocol })
}

/// The path that asks for IP. Wildcards stay as they are, as in RFC 9484 section 4.4.
#[must_use]
pub fn ip_path(target: &IpTarget) -> String {
    let scope = match &target.scope {
        IpScope::Any => WILDCARD.to_owned(),
        IpScope::Prefix(prefix) if prefix.is_host() => percent::encode(&prefix.address().to_string()),
        IpScope::Prefix(prefix) => percent::encode(&prefix.to_string()),
        IpScope::Name(name) => percent::encode(name),
    };
    match target.protocol {
        Some(protocol) => format!("{IP}{scope}/{protocol}/"),
        None => format!("{IP}{scope}/{WILDCARD}/"),
    }
}

fn scope_of(target: &str) -> Result<IpScope, PathError> {
    if target == WILDCARD {
        return Ok(IpScope::Any);
    }
    if target.contains(['/', ':']) || target.parse::<IpAddr>().is_ok() {
        let malformed = PathError::Malformed("target is not a prefix whose other bits are 0");
        return target.parse().map(IpScope::Prefix).map_err(|_| malformed);
    }
    match parse_host(target) {
        Ok(Host::Name(name)) => Ok(IpScope::Name(name)),
        _ => Err(PathError::Malformed("target is neither *, a prefix, nor a name")),
    }
}

/// An address in brackets is no `IPv6address`, but leaves no doubt, and clients that take the host from a URL send it.
fn host_of(text: &str) -> Option<Host> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if bracketed.is_some() || text.contains(':') {
        let address: Ipv6Addr = bracketed.unwrap_or(text).parse().ok()?;
        return Some(Host::Address(address.into()));
    }
    parse_host(text).ok()
}

/// Without the brackets of an authority.
fn bare(host: &Host) -> String {
    match host {
        Host::Name(name) => name.clone(),
        Host::Address(address) => address.to_string(),
    }
}

/// The decoded variables of `prefix{a}/{b}/`. A slash inside a variable is percent-encoded, so it is split first and
/// decoded once. A query is not part of the path.
pub(crate) fn variables<const N: usize>(path: &str, prefix: &str) -> Result<[String; N], PathError> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let rest = path.strip_prefix(prefix).ok_or(PathError::NotFound)?;
    let mut segments = rest.strip_suffix('/').unwrap_or(rest).split('/');
    let mut decoded = [const { String::new() }; N];
    for variable in &mut decoded {
        let segment = segments.next().ok_or(PathError::NotFound)?;
        *variable = percent::decode(segment).ok_or(PathError::Malformed("a bad percent-encoding"))?;
    }
    match segments.next() {
        None => Ok(decoded),
        Some(_) => Err(PathError::NotFound),
    }
}

/// Digits alone, at least one, and no more than `digit_count_max`.
pub(crate) fn decimal(text: &str, digit_count_max: usize) -> Option<u32> {
    let is_number =
        (1..=digit_count_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
