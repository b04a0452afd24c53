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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn udp(path: &str) -> Result<String, PathError> {
        udp_target(path).map(|target| HostPort::from(target).to_string())
    }

    fn is_malformed<T>(result: Result<T, PathError>) -> bool {
        matches!(result, Err(error @ PathError::Malformed(_)) if error.status() == 400)
    }

    /// RFC 9298 section 3, its example among them: "target_host" is an IPv6address, IPv4address or reg-name, with colons
    /// percent-encoded.
    #[test]
    fn udp_targets() {
        for (path, target) in [
            ("/.well-known/masque/udp/192.0.2.6/443/", "192.0.2.6:443"),
            ("/.well-known/masque/udp/2001%3Adb8%3A%3A1/443/", "[2001:db8::1]:443"),
            ("/.well-known/masque/udp/2001%3adb8%3a%3a1/53", "[2001:db8::1]:53"),
            ("/.well-known/masque/udp/2001:db8::1/53/", "[2001:db8::1]:53"),
            ("/.well-known/masque/udp/%5B2001%3Adb8%3A%3A1%5D/53/", "[2001:db8::1]:53"),
            ("/.well-known/masque/udp/Target.Example/1/", "target.example:1"),
            ("/.well-known/masque/udp/t%61rget.example/65535/", "target.example:65535"),
            ("/.well-known/masque/udp/target.example/00443/?x=/y", "target.example:443"),
        ] {
            assert_eq!(udp(path).as_deref(), Ok(target), "{path}");
        }
    }

    /// "target_port MUST represent an integer between 1 and 65535 inclusive"; "IPv6 scoped addressing zone identifiers
    /// are not supported" (RFC 9298 section 3).
    #[test]
    fn udp_paths_that_are_malformed_and_those_of_others() {
        for variables in [
            "target.example/0/",
            "target.example/65536/",
            "target.example/+1/",
            "target.example//",
            "target.example/443%20/",
            "target.example/000443/",
            "target.example/x/",
            "/443/",
            "fe80%3A%3A1%25eth0/443/",
            "%5B192.0.2.6%5D/443/",
            "%5B2001%3Adb8%3A%3A1/443/",
            "a%2Fb/443/",
            "a%00b/443/",
            "%/443/",
            "%ff/443/",
            "127.1/443/",
            "0x7f000001/443/",
            "a%252e/443/",
        ] {
            assert!(is_malformed(udp(&format!("{UDP}{variables}"))), "{variables}");
        }
        for path in [
            "",
            "/",
            "/index.html",
            "/.well-known/masque/udp",
            "/.well-known/masque/udp/",
            "/.well-known/masque/udp/target.example/",
            "/.well-known/masque/udp/target.example/443/x/",
            "/.well-known/masque/udp/target.example/443//",
            "/.well-known/masque/UDP/target.example/443/",
            "/.well-known/masque/ip/*/*/",
            "/x/.well-known/masque/udp/target.example/443/",
        ] {
            assert_eq!(udp(path), Err(PathError::NotFound), "{path}");
        }
        assert_eq!(PathError::NotFound.status(), 404);
    }

    /// RFC 9484 section 4.6 and the example of section 4.4.
    #[test]
    fn ip_targets() {
        let prefix = |text: &str| IpScope::Prefix(text.parse().unwrap());
        for (variables, scope, protocol, is_written_so) in [
            ("*/*/", IpScope::Any, None, true),
            ("%2A/%2a", IpScope::Any, None, false),
            ("*/0/", IpScope::Any, Some(0), true),
            ("2001%3Adb8%3A%3A42/*/", prefix("2001:db8::42"), None, true),
            ("2001%3Adb8%3A%3A%2F32/17/", prefix("2001:db8::/32"), Some(17), true),
            ("192.0.2.6/6/", prefix("192.0.2.6/32"), Some(6), true),
            ("10.1.0.0%2F16/*/", prefix("10.1.0.0/16"), None, true),
            ("0.0.0.0%2f0/255", prefix("0.0.0.0/0"), Some(255), false),
            ("target.example/132/", IpScope::Name("target.example".into()), Some(132), true),
        ] {
            let path = format!("{IP}{variables}");
            let target = IpTarget { scope, protocol };
            assert_eq!(ip_target(&path).as_ref(), Ok(&target), "{path}");
            assert_eq!(ip_path(&target) == path, is_written_so, "{path}");
        }
    }

    /// "MUST represent a decimal integer between 0 and the length of the IP address in bits"; "the lower bits [...] MUST
    /// all be set to 0"; "a decimal integer between 0 and 255 inclusive or the wildcard" (RFC 9484 section 4.6).
    #[test]
    fn ip_paths_that_are_malformed_and_those_of_others() {
        for variables in [
            "*/256/",
            "*/-1/",
            "*/0000/",
            "*//",
            "/*/",
            "*/udp/",
            "10.1.0.0%2F33/*/",
            "10.1.0.1%2F16/*/",
            "10.1.0.0%2F/*/",
            "%3A%3A%2F129/*/",
            "fe80%3A%3A1%25eth0/*/",
            "a%2F8/*/",
            "**/*/",
            "127.1/*/",
            "%G0/*/",
        ] {
            assert!(is_malformed(ip_target(&format!("{IP}{variables}"))), "{variables}");
        }
        for path in [
            "/.well-known/masque/ip/",
            "/.well-known/masque/ip/*/",
            "/.well-known/masque/ip/10.1.0.0/16/*/",
            "/",
        ] {
            assert_eq!(ip_target(path), Err(PathError::NotFound), "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(raw in any::<u128>(), v4 in any::<bool>(), port in 1u16.., protocol in any::<Option<u8>>()) {
            let address: IpAddr = if v4 { (raw as u32).to_be_bytes().into() } else { raw.to_be_bytes().into() };
            let host = Host::Address(address);
            prop_assert_eq!(udp_target(&udp_path(&host, port)), Ok(UdpTarget { host, port }));
            let target = IpTarget { scope: IpScope::Prefix(IpPrefix::host(address)), protocol };
            prop_assert_eq!(ip_target(&ip_path(&target)), Ok(target));
        }

        #[test]
        fn any_path_is_refused_or_names_something_stable(variables in "[a-f0-9%:/*.?\\[\\]]{0,40}") {
            if let Ok(target) = udp_target(&format!("{UDP}{variables}")) {
                prop_assert_eq!(udp_target(&udp_path(&target.host, target.port)), Ok(target));
            }
            if let Ok(target) = ip_target(&format!("{IP}{variables}")) {
                prop_assert_eq!(ip_target(&ip_path(&target)), Ok(target));
            }
        }
    }
}
