//! One `--allow` or `--deny` value.

use std::{fmt, net::IpAddr, str::FromStr};

use super::net::Net;
use crate::host::{InvalidHost, Name};

/// Items in one rule's list of ports.
const PORT_RANGES_MAX: usize = 64;

/// A destination that a rule speaks of: addresses or names, and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(crate) target: Target,
    pub(crate) ports: Ports,
}

/// The host part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Net(Net),
    /// `*`: any name. No address.
    AnyName,
    Name(Name),
    /// `*.example.com`: any name below, not the name itself.
    Below(Name),
}

/// The port part of a rule: inclusive ranges; none at all means any port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(Vec<(u16, u16)>);

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// `[` without its `]`, or something other than `:PORTS` behind it.
    #[error("after [ADDRESS/LEN] comes nothing or :PORTS")]
    Bracket,
    /// No IP address where one must be.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// A prefix length that is not a number or too large.
    #[error("prefix length {0:?} is not a number from 0 to {1}")]
    PrefixLen(String, u8),
    /// An address with bits beyond its prefix, most likely a slip.
    #[error("it has bits set beyond its prefix; write {0}")]
    HostBits(Net),
    /// A port list that is none.
    #[error("{0:?} is not a port or a range of ports (1 to 65535, low-high)")]
    Port(String),
    /// Too many items in the port list.
    #[error("it lists more than {PORT_RANGES_MAX} ports or ranges")]
    TooManyPorts,
    /// Not a host name.
    #[error(transparent)]
    Name(#[from] InvalidHost),
}

impl Rule {
    /// Does the rule speak of this address and port? (`ip` canonical.)
    pub(crate) fn matches_ip(&self, ip: IpAddr, port: u16) -> bool {
        matches!(&self.target, Target::Net(net) if net.contains(ip)) && self.ports.contain(port)
    }

    /// Does the rule speak of this name and port?
    pub(crate) fn matches_name(&self, name: &Name, port: u16) -> bool {
        let named = match &self.target {
            Target::Net(_) => false,
            Target::AnyName => true,
            Target::Name(exact) => exact == name,
            Target::Below(parent) => name.is_below(parent.as_str()),
        };
        named && self.ports.contain(port)
    }

    /// Does the rule speak of some address on this port?
    pub(crate) fn is_net_with_port(&self, port: u16) -> bool {
        self.net().is_some() && self.ports.contain(port)
    }

    /// The network, if the rule names one and no ports.
    pub(crate) fn net_on_any_port(&self) -> Option<&Net> {
        self.net().filter(|_| self.ports.0.is_empty())
    }

    /// The network, if the rule names one.
    pub(crate) fn net(&self) -> Option<&Net> {
        match &self.target {
            Target::Net(net) => Some(net),
            _ => None,
        }
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RuleError::Empty);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (net, ports) = rest.split_once(']').ok_or(RuleError::Bracket)?;
            if !net.contains(':') {
                return Err(RuleError::Bracket);
            }
            let net = parse_net(net)?;
            let ports = match ports {
                "" => Ports::default(),
                _ => Ports::parse(ports.strip_prefix(':').ok_or(RuleError::Bracket)?)?,
            };
            return Ok(Self { target: Target::Net(net), ports });
        }
        // Two colons or more: an IPv6 network without brackets, hence without ports.
        let (host, ports) = match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => (text, Ports::default()),
            Some((host, ports)) => (host, Ports::parse(ports)?),
            None => (text, Ports::default()),
        };
        Ok(Self { target: parse_target(host)?, ports })
    }
}

fn parse_target(text: &str) -> Result<Target, RuleError> {
    if text.contains(['/', ':']) || text.parse::<IpAddr>().is_ok() {
        return parse_net(text).map(Target::Net);
    }
    if text == "*" {
        return Ok(Target::AnyName);
    }
    match text.strip_prefix("*.") {
        Some(parent) => Ok(Target::Below(Name::parse(parent)?)),
        None => Ok(Target::Name(Name::parse(text)?)),
    }
}

/// An address, or a network without host bits.
pub(crate) fn parse_net(text: &str) -> Result<Net, RuleError> {
    let (address, prefix_len) = match text.split_once('/') {
        Some((address, prefix_len)) => (address, Some(prefix_len)),
        None => (text, None),
    };
    let ip: IpAddr = address.parse().map_err(|_| RuleError::Address(address.into()))?;
    let Some(prefix_len) = prefix_len else { return Ok(Net::host(ip)) };
    let width = if ip.is_ipv4() { 32 } else { 128 };
    // `+8` would parse as a number.
    let digits = !prefix_len.is_empty() && prefix_len.bytes().all(|b| b.is_ascii_digit());
    let net = prefix_len.parse().ok().filter(|_| digits).and_then(|len| Net::covering(ip, len));
    let net = net.ok_or_else(|| RuleError::PrefixLen(prefix_len.into(), width))?;
    if net.address() != ip.to_canonical() && net.address() != ip {
        return Err(RuleError::HostBits(net));
    }
    Ok(net)
}

fn parse_port_range(text: &str) -> Result<(u16, u16), RuleError> {
    let port = |digits: &str| {
        let port = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u16>().ok())?;
        port.filter(|&port| port > 0)
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (port(low), port(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        _ => Err(RuleError::Port(text.into())),
    }
}

impl Ports {
    /// `80,443,8000-8999`.
    pub(crate) fn parse(text: &str) -> Result<Self, RuleError> {
        if text.split(',').count() > PORT_RANGES_MAX {
            return Err(RuleError::TooManyPorts);
        }
        text.split(',').map(parse_port_range).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of the ranges is all ports.
    pub(crate) fn contain_all(&self) -> bool {
        self.0.is_empty() || self.0.contains(&(1, u16::MAX))
    }

    pub(crate) fn contain(&self, port: u16) -> bool {
        self.0.is_empty() || self.0.iter().any(|&(low, high)| (low..=high).contains(&port))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Net(net) if net.address().is_ipv6() => write!(f, "[{net}]")?,
            Target::Net(net) => write!(f, "{net}")?,
            Target::AnyName => f.write_str("*")?,
            Target::Name(name) => write!(f, "{name}")?,
            Target::Below(parent) => write!(f, "*.{parent}")?,
        }
        if self.ports.0.is_empty() { Ok(()) } else { write!(f, ":{}", self.ports) }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (low, high)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            if low == high { write!(f, "{low}")? } else { write!(f, "{low}-{high}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every form in the manual is read as meant, everything else is refused with its reason.
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Rule>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    #[test]
    fn the_forms_of_the_manual() {
        for (text, wanted) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0:443", "0.0.0.0/0:443"),
            ("10.1.0.0/16:80,443", "10.1.0.0/16:80,443"),
            ("10.1.0.0/16:8000-8999,22", "10.1.0.0/16:8000-8999,22"),
            ("2001:db8::/32", "[2001:db8::/32]"),
            ("2001:db8::1", "[2001:db8::1/128]"),
            ("[2001:db8::/32]", "[2001:db8::/32]"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("[2001:db8::1]:443", "[2001:db8::1/128]:443"),
            ("::/0", "[::/0]"),
            ("[::ffff:10.0.0.0/104]:1", "10.0.0.0/8:1"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("Example.COM.", "example.com"),
            ("example.com:443", "example.com:443"),
            ("*.example.com:443", "*.example.com:443"),
            ("*", "*"),
            ("*:80,443", "*:80,443"),
            (" example.com ", "example.com"),
        ] {
            assert_eq!(canonical(text), wanted);
            assert_eq!(canonical(wanted), wanted);
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        let net = |text: &str| text.parse::<Rule>().unwrap().net().copied().unwrap();
        let port = |text: &str| RuleError::Port(text.into());
        for (text, wanted) in [
            ("", RuleError::Empty),
            ("  ", RuleError::Empty),
            ("10.1.2.3/16", RuleError::HostBits(net("10.1.0.0/16"))),
            ("2001:db8::1/32", RuleError::HostBits(net("2001:db8::/32"))),
            ("10.0.0.0/33", RuleError::PrefixLen("33".into(), 32)),
            ("10.0.0.0/", RuleError::PrefixLen(String::new(), 32)),
            ("10.0.0.0/+8", RuleError::PrefixLen("+8".into(), 32)),
            ("::/129", RuleError::PrefixLen("129".into(), 128)),
            ("10.0.0/8", RuleError::Address("10.0.0".into())),
            ("example.com/8", RuleError::Address("example.com".into())),
            ("2001:db8::g", RuleError::Address("2001:db8::g".into())),
            ("[2001:db8::/32", RuleError::Bracket),
            ("[2001:db8::]/32", RuleError::Bracket),
            ("[2001:db8::]443", RuleError::Bracket),
            ("[10.0.0.0/8]:443", RuleError::Bracket),
            ("10.0.0.0/8:", port("")),
            ("10.0.0.0/8:0", port("0")),
            ("10.0.0.0/8:65536", port("65536")),
            ("10.0.0.0/8:9-8", port("9-8")),
            ("10.0.0.0/8:1-2-3", port("1-2-3")),
            ("10.0.0.0/8:+1", port("+1")),
            ("10.0.0.0/8:80, 443", port(" 443")),
            ("example.com:https", port("https")),
            ("127.1", RuleError::Name(InvalidHost::EndsInNumber)),
            ("*.*.com", RuleError::Name(InvalidHost::Character)),
            ("a*.com", RuleError::Name(InvalidHost::Character)),
            ("*.", RuleError::Name(InvalidHost::Empty)),
        ] {
            assert_eq!(text.parse::<Rule>(), Err(wanted), "{text:?}");
        }
        let ports = vec!["1"; PORT_RANGES_MAX + 1].join(",");
        assert_eq!(format!("*:{ports}").parse::<Rule>(), Err(RuleError::TooManyPorts));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic_and_prints_what_parses_back(
            text in "\\PC{0,40}|[0-9a-f.:/\\[\\]*,-]{0,40}|\\[?([0-9a-f]{1,4}:){2}:/[0-9]{1,3}\\]?(:[0-9]{1,5})?",
        ) {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
            }
        }
    }
}
